#include <cstddef>
#include <cstdint>
#include <string_view>

#include "expected_error.h"
#include "model/decoder_spec.h"
#include "quant/config_block.h"

/// Any bytes read as config.json must end in a spec or in an Error.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace salient;
  try {
    const Json json = parse_json({reinterpret_cast<const char*>(data), size}, "config.json");
    const JsonView config(json, "config.json");
    if (const auto block = config.find("quantization_config")) {
      try {
        read_config_block(*block);
      } catch (const Error& error) {
        expect_outside_error(error);
      }
    }
    make_decoder_spec(config);
  } catch (const Error& error) {
    expect_outside_error(error);
  }
  return 0;
}
