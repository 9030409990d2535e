#include <cstddef>
#include <cstdint>
#include <string_view>

#include "expected_error.h"
#include "recipe/resolve.h"
#include "recipe/schemes.h"
#include "salient/oneshot.h"

namespace {

/// Small, with a norm per block, fused matrices and experts within reach of any pattern.
salient::DecoderSpec small_spec() {
  const salient::Json config = {{"architectures", {"Qwen3MoeForCausalLM"}},
                                {"hidden_size", 64},
                                {"intermediate_size", 128},
                                {"moe_intermediate_size", 64},
                                {"num_hidden_layers", 2},
                                {"num_attention_heads", 2},
                                {"num_key_value_heads", 1},
                                {"num_experts", 2},
                                {"num_experts_per_tok", 1},
                                {"mlp_only_layers", {0}},
                                {"vocab_size", 10}};
  return salient::make_decoder_spec({config, "config.json"});
}

}  // namespace

/// Any bytes read as a recipe must end in one that resolves, and is then read back from its record, or in an
/// Error.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace salient;
  static const DecoderSpec spec = small_spec();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const std::string_view source : {"recipe.yaml", "recipe.json"}) {
    OneshotOptions options;
    try {
      parse_recipe(text, source, options);
      resolve_recipe(options, spec);
    } catch (const Error& error) {
      expect_outside_error(error);
      continue;
    }
    OneshotOptions back;
    const std::string record = recipe_to_yaml(options, spec, 0);
    parse_recipe(record, "recipe.yaml", back);
    if (recipe_to_yaml(back, spec, 0) != record) std::abort();
  }
  return 0;
}
