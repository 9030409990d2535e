#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "model/families.h"
#include "runtime/sequence_state.h"
#include "sealed_bytes.h"

namespace {

using namespace salient;

/// A model with both kinds of layers: linear attention, then attention.
const DecoderSpec& state_spec() {
  static const Json config = {{"architectures", {"Qwen3NextForCausalLM"}},
                              {"hidden_size", 16},
                              {"intermediate_size", 32},
                              {"num_hidden_layers", 2},
                              {"num_attention_heads", 2},
                              {"num_key_value_heads", 1},
                              {"head_dim", 8},
                              {"linear_num_key_heads", 1},
                              {"linear_num_value_heads", 2},
                              {"linear_key_head_dim", 4},
                              {"linear_value_head_dim", 4},
                              {"linear_conv_kernel_dim", 4},
                              {"full_attention_interval", 2},
                              {"num_experts", 2},
                              {"num_experts_per_tok", 1},
                              {"moe_intermediate_size", 16},
                              {"shared_expert_intermediate_size", 16},
                              {"max_position_embeddings", 64},
                              {"vocab_size", 10}};
  static const DecoderSpec spec = make_decoder_spec({config, "config.json"});
  return spec;
}

/// What reads as a state can be gone on with, and is written as it was read. Errors: those of
/// read_sequence_state.
void require_state(const std::string& bytes) {
  const StateOwner owner{state_spec(), "0123456789abcdef"};
  const MemoryFile file(bytes);
  const SequenceState state = read_sequence_state(file.path(), owner);
  for (const int32_t token : state.tokens) {
    if (token < 0 || token >= owner.spec.vocab_size) std::abort();
  }
  const int64_t cached = state.cache.length();
  if (cached > std::ssize(state.tokens) || state.draws < 0) std::abort();
  if (cached == 0) return;
  if (state.logits.defined() != (cached == std::ssize(state.tokens))) std::abort();
  unsigned sum = 0;
  const auto touch = [&](const Tensor& tensor) {
    for (size_t i = 0; tensor.defined() && i < tensor.byte_size(); ++i)
      sum += static_cast<unsigned>(tensor.bytes()[i]);
  };
  touch(state.logits);
  touch(state.cache.state(0).tail);
  touch(state.cache.state(0).matrices);
  for (const KvTensors& tensors : {state.cache.keys(1), state.cache.values(1)}) {
    touch(tensors.elements);
    touch(tensors.scales);
  }
  volatile unsigned seen = sum;
  (void)seen;
}

}  // namespace

/// Any bytes read as a state must end in one, or in an Error about the file.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  for (const bool mended : {false, true}) {
    try {
      require_state(mended ? with_right_checksum(bytes) : bytes);
    } catch (const Error& error) {
      const ErrorKind kind = error.kind();
      if (kind != ErrorKind::bad_format && kind != ErrorKind::not_found && kind != ErrorKind::unsupported &&
          kind != ErrorKind::invalid_argument)
        std::abort();
    }
  }
  return 0;
}
