#include "backend/kv_pages.h"

#include <array>
#include <utility>

#include "base/error.h"

namespace salient {
namespace {

constexpr std::array<std::pair<KvType, std::string_view>, 3> kNames{
    {{KvType::fp32, "fp32"}, {KvType::fp16, "fp16"}, {KvType::int8, "int8"}}};

}  // namespace

std::string_view to_string(KvType type) {
  for (const auto& [known, name] : kNames) {
    if (known == type) return name;
  }
  return "?";
}

KvType kv_type_by_name(std::string_view name) {
  for (const auto& [type, known] : kNames) {
    if (known == name) return type;
  }
  fail(ErrorKind::invalid_argument, "keys and values as \"{}\" are not known (fp32, fp16, int8)", name);
}

}  // namespace salient
