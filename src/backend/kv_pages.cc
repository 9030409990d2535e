#include "backend/kv_pages.h"

#include "base/error.h"
#include "base/names.h"

namespace salient {
namespace {

constexpr NameTable<KvType, 4> kNames(
    {{{KvType::fp32, "fp32"}, {KvType::fp16, "fp16"}, {KvType::bf16, "bf16"}, {KvType::int8, "int8"}}});
/// What other programs call them.
constexpr NameTable<KvType, 3> kLongNames(
    {{{KvType::fp32, "float32"}, {KvType::fp16, "float16"}, {KvType::bf16, "bfloat16"}}});

}  // namespace

std::string_view to_string(KvType type) { return kNames.name_of(type); }

KvType kv_type_by_name(std::string_view name) {
  if (const auto type = kNames.find(name)) return *type;
  fail(ErrorKind::invalid_argument, "keys and values as \"{}\" are not known (fp32, fp16, bf16, int8)", name);
}

KvType kv_type_asked_for(std::string_view name, KvType usual) {
  if (name == "auto") return usual;
  if (const auto type = kLongNames.find(name)) return *type;
  return kv_type_by_name(name);
}

}  // namespace salient
