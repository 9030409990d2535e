// Any bytes as a text of JSON: what is taken to its end is an object for an independent parser too, and what
// a prefix refuses stays refused.

#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "text/json_prefix.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  salient::JsonPrefix prefix;
  for (const char byte : text) {
    if (!prefix.push(byte)) return 0;
  }
  if (prefix.complete() && !nlohmann::json::parse(text).is_object()) std::abort();
  if (!prefix.complete() && nlohmann::json::accept(text)) std::abort();
  return 0;
}
