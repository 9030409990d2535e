#include "backend/kv_pages.h"

#include "base/error.h"
#include "base/names.h"

namespace salient {
namespace {

constexpr NameTable<KvType, 3> kNames(
    {{{KvType::fp32, "fp32"}, {KvType::fp16, "fp16"}, {KvType::int8, "int8"}}});

}  // namespace

std::string_view to_string(KvType type) { return kNames.name_of(type); }

KvType kv_type_by_name(std::string_view name) {
  if (const auto type = kNames.find(name)) return *type;
  fail(ErrorKind::invalid_argument, "keys and values as \"{}\" are not known (fp32, fp16, int8)", name);
}

}  // namespace salient
