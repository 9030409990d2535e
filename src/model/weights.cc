#include "model/weights.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "quant/packing.h"

namespace salient {
namespace {

constexpr NormRole kNorms[kNormRoles] = {NormRole::attention, NormRole::mlp, NormRole::query, NormRole::key};

std::optional<QuantizationConfig> read_quantization(const Checkpoint& checkpoint) {
  const JsonView config = checkpoint.config_view();
  auto block = config.find("quantization_config");
  if (!block) block = config.find("compression_config");  // compressed-tensors before 0.4
  if (block) return read_config_block(*block);
  // AutoAWQ before 0.1.7 wrote the block to a file of its own.
  const auto path = checkpoint.directory() / "quant_config.json";
  if (!path_exists(path)) return std::nullopt;
  const Json json = read_json_file(path.string());
  return read_config_block({json, path.string()});
}

/// generation_config.json may name more tokens that end a text, such as the end of a turn.
void add_generation_stops(const Checkpoint& checkpoint, std::vector<int32_t>& eos_tokens) {
  const auto path = checkpoint.directory() / "generation_config.json";
  if (!path_exists(path)) return;
  const Json json = read_json_file(path.string());
  for (const int32_t token : read_token_ids(JsonView(json, path.string()).find("eos_token_id"))) {
    if (std::ranges::find(eos_tokens, token) == eos_tokens.end()) eos_tokens.push_back(token);
  }
}

bool is_weight_type(const std::string& dtype) { return dtype == "F32" || dtype == "F16" || dtype == "BF16"; }

}  // namespace

ModelWeights::ModelWeights(const std::string& directory)
    : checkpoint_(std::make_unique<Checkpoint>(directory)) {
  spec_ = make_decoder_spec(checkpoint_->config_view());
  add_generation_stops(*checkpoint_, spec_.eos_tokens);
  quantization_ = read_quantization(*checkpoint_);
  with_context(directory, [&] {
    untie_different_head();
    check_tensors();
  });
  embedding_ = checkpoint_->tensor(checkpoint_->contains(spec_.embedding_name) ? spec_.embedding_name
                                                                               : spec_.head_name + ".weight");
}

void ModelWeights::check_tensors() const {
  if (checkpoint_->contains(spec_.embedding_name) || !spec_.tie_word_embeddings) {
    check_dense(spec_.embedding_name, {spec_.vocab_size, spec_.hidden_size});
  } else {
    check_dense(spec_.head_name + ".weight", {spec_.vocab_size, spec_.hidden_size});
  }
  if (!spec_.tie_word_embeddings) check_linear(head_slot());
  check_dense(spec_.final_norm_name, {spec_.hidden_size});
  for (int64_t layer = 0; layer < spec_.layers; ++layer) {
    for (const LinearSlot& slot : spec_.linears(layer)) check_linear(slot);
    for (const NormRole role : kNorms) {
      const bool per_head = role == NormRole::query || role == NormRole::key;
      const std::string name = spec_.norm_name(layer, role);
      if (!name.empty()) check_dense(name, {per_head ? spec_.head_dim : spec_.hidden_size});
    }
  }
}

void ModelWeights::check_dense(const std::string& name, const Shape& expected) const {
  const SafetensorsEntry& found = checkpoint_->entry(name);
  if (!is_weight_type(found.dtype)) {
    fail(ErrorKind::unsupported, "tensor \"{}\": expected F32, F16 or BF16, found {}", name, found.dtype);
  }
  if (found.shape != expected) {
    fail(ErrorKind::bad_format, "tensor \"{}\": expected the shape {}, found {}", name, to_string(expected),
         to_string(found.shape));
  }
}

void ModelWeights::check_linear(const LinearSlot& slot) const {
  if (slot.bias) check_dense(slot.name + ".bias", {slot.out_features});
  if (!is_quantized(slot.name)) {
    return check_dense(slot.name + ".weight", {slot.out_features, slot.in_features});
  }
  const Packing& packing = packing_of(quantization_->format);
  for (const auto& expected : packing.layout(quantization_->scheme, slot.out_features, slot.in_features)) {
    const std::string name = slot.name + "." + expected.suffix;
    if (expected.optional && !checkpoint_->contains(name)) continue;
    const SafetensorsEntry& found = checkpoint_->entry(name);
    const bool same_type =
        is_floating(expected.dtype) ? is_weight_type(found.dtype) : found.dtype == to_string(expected.dtype);
    if (!same_type || found.shape != expected.shape) {
      fail(ErrorKind::bad_format, "tensor \"{}\": expected {} {}, found {} {}", name,
           to_string(expected.dtype), to_string(expected.shape), found.dtype, to_string(found.shape));
    }
  }
}

/// transformers ties only what the file does not hold twice: a head of its own with other values counts.
void ModelWeights::untie_different_head() {
  const std::string head = spec_.head_name + ".weight";
  if (!spec_.tie_word_embeddings || !checkpoint_->contains(head)) return;
  if (!checkpoint_->contains(spec_.embedding_name)) return;
  const Tensor a = checkpoint_->tensor(head);
  const Tensor b = checkpoint_->tensor(spec_.embedding_name);
  const bool same = a.dtype() == b.dtype() && a.byte_size() == b.byte_size() &&
                    std::memcmp(a.bytes(), b.bytes(), a.byte_size()) == 0;
  spec_.tie_word_embeddings = same;
  checkpoint_->release(head);
}

bool ModelWeights::is_quantized(const std::string& name) const {
  return quantization_ &&
         checkpoint_->contains(name + "." + packing_of(quantization_->format).suffixes.front());
}

std::vector<std::string> ModelWeights::tensor_names(const LinearSlot& slot) const {
  std::vector<std::string> names;
  if (slot.bias) names.push_back(slot.name + ".bias");
  if (!is_quantized(slot.name)) {
    names.push_back(slot.name + ".weight");
    return names;
  }
  for (const std::string& suffix : packing_of(quantization_->format).suffixes) {
    if (checkpoint_->contains(slot.name + "." + suffix)) names.push_back(slot.name + "." + suffix);
  }
  return names;
}

LinearWeight ModelWeights::linear(const LinearSlot& slot) const {
  LinearWeight weight;
  if (slot.bias) weight.bias = checkpoint_->tensor(slot.name + ".bias");
  if (!is_quantized(slot.name)) {
    weight.dense = checkpoint_->tensor(slot.name + ".weight");
    return weight;
  }
  const Packing& packing = packing_of(quantization_->format);
  PackedTensors tensors;
  for (const std::string& suffix : packing.suffixes) {
    const std::string name = slot.name + "." + suffix;
    if (checkpoint_->contains(name)) tensors[suffix] = checkpoint_->tensor(name);
  }
  weight.quantized = with_context(slot.name, [&] { return packing.unpack(tensors, quantization_->scheme); });
  if (weight.out_features() != slot.out_features || weight.in_features() != slot.in_features) {
    fail(ErrorKind::bad_format, "{}: expected a linear [{}, {}], found [{}, {}]", slot.name,
         slot.out_features, slot.in_features, weight.out_features(), weight.in_features());
  }
  return weight;
}

LayerWeights ModelWeights::layer(int64_t index) const {
  LayerWeights weights;
  for (const LinearSlot& slot : spec_.linears(index)) weights[slot.role] = linear(slot);
  for (const NormRole role : kNorms) {
    const std::string name = spec_.norm_name(index, role);
    if (!name.empty()) weights[role] = checkpoint_->tensor(name);
  }
  return weights;
}

void ModelWeights::release_layer(int64_t index) const {
  for (const LinearSlot& slot : spec_.linears(index)) {
    for (const std::string& name : tensor_names(slot)) checkpoint_->release(name);
  }
}

Tensor ModelWeights::final_norm() const { return checkpoint_->tensor(spec_.final_norm_name); }

// The head is no part of a layer: its role is not looked at.
LinearSlot ModelWeights::head_slot() const {
  return {LinearRole::q, spec_.head_name, spec_.vocab_size, spec_.hidden_size, false};
}

LinearWeight ModelWeights::head() const {
  if (!spec_.tie_word_embeddings) return linear(head_slot());
  LinearWeight weight;
  weight.dense = embedding_;
  return weight;
}

}  // namespace salient
