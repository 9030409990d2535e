#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "model/families.h"
#include "recipe/layer_file.h"
#include "recipe/layer_record.h"
#include "sealed_bytes.h"

namespace {

using namespace salient;

/// A layer with biases everywhere, one linear that stays dense, and grids with and without zeros.
struct Subject {
  Subject() {
    for (const LinearSlot& slot : spec.linears(0)) {
      LinearWeight& linear = weights[slot.id];
      linear.dense = Tensor::zeros(DType::bf16, {slot.out_features, slot.in_features});
      if (slot.bias) linear.bias = Tensor::zeros(DType::bf16, {slot.out_features});
      const bool symmetric = slot.id.role == LinearRole::q;
      if (slot.id.role != LinearRole::down)
        linears[slot.id] = {.scheme = {.num_bits = 3, .symmetric = symmetric, .group_size = 16}};
    }
    for (size_t role = 0; role < kNormRoles; ++role) {
      const auto norm = static_cast<NormRole>(role);
      if (spec.norm_name(0, norm).empty()) continue;
      const Tensor zeros = Tensor::zeros(DType::bf16, spec.norm_shape(norm));
      weights[norm] = {.weight = zeros, .bias = zeros};
    }
  }

  const Json config = {{"architectures", {"OPTForCausalLM"}},
                       {"hidden_size", 16},
                       {"ffn_dim", 32},
                       {"num_hidden_layers", 1},
                       {"num_attention_heads", 2},
                       {"max_position_embeddings", 8},
                       {"vocab_size", 10}};
  const DecoderSpec spec = make_decoder_spec({config, "config.json"});
  LayerWeights weights;
  PerLinear<LinearRounding> linears;
  std::unique_ptr<Backend> backend = make_cpu_backend();
};

/// What reads as a layer comes back from its record, and every number of it can be looked at. Errors: those
/// of read_layer_file.
void require_layer(const std::string& bytes, OneshotResult result) {
  static const Subject subject;
  const MemoryFile file(bytes);
  const LayerJob job{.backend = *subject.backend,
                     .exact = *subject.backend,
                     .spec = subject.spec,
                     .layer = 0,
                     .linears = subject.linears,
                     .storage = {},
                     .result = result};
  const LayerFile read = read_layer_file(file.path(), job, subject.weights);
  for (const auto& [id, linear] : read.layer.weights.linears) {
    if (linear.quantized.has_value() == linear.dense.defined()) std::abort();
    if (linear.quantized) dequantize(*linear.quantized);
  }
  layer_checksum(read.layer.weights);
  const Json record = layer_record(read.layer.report);
  const Json again = parse_json(record.dump(), "record");
  if (layer_record(read_layer_record({again, "record"})) != record) std::abort();
}

}  // namespace

/// Any bytes read as a finished layer must end in one, or in an Error that lets a run work on the layer
/// again: others end the run.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  for (const OneshotResult result : {OneshotResult::quantized, OneshotResult::scaled}) {
    for (const bool mended : {false, true}) {
      try {
        require_layer(mended ? with_right_checksum(bytes) : bytes, result);
      } catch (const Error& error) {
        const ErrorKind kind = error.kind();
        if (kind != ErrorKind::bad_format && kind != ErrorKind::not_found && kind != ErrorKind::unsupported)
          std::abort();
      }
    }
  }
  return 0;
}
