#include "model/weights.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <utility>

#include "base/error.h"
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
  if (!std::filesystem::exists(path)) return std::nullopt;
  const Json json = read_json_file(path.string());
  return read_config_block({json, path.string()});
}

/// generation_config.json may name more tokens that end a text, such as the end of a turn.
void add_generation_stops(const Checkpoint& checkpoint, std::vector<int32_t>& eos_tokens) {
  const auto path = checkpoint.directory() / "generation_config.json";
  if (!std::filesystem::exists(path)) return;
  const Json json = read_json_file(path.string());
  for (const int32_t token : read_token_ids(JsonView(json, path.string()).find("eos_token_id"))) {
    if (std::ranges::find(eos_tokens, token) == eos_tokens.end()) eos_tokens.push_back(token);
  }
}

bool is_weight_type(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

}  // namespace

/// Shapes of the packed tensors of a linear, by its sizes: made once per size by packing an empty weight.
struct ModelWeights::PackedShapes {
  using Shapes = std::map<std::string, std::pair<DType, Shape>>;
  std::map<std::pair<int64_t, int64_t>, Shapes> by_size;

  const Shapes& of(const QuantizationConfig& config, const LinearSlot& slot) {
    const auto key = std::pair(slot.out_features, slot.in_features);
    const auto known = by_size.find(key);
    if (known != by_size.end()) return known->second;
    Shapes& shapes = by_size[key];
    const auto empty =
        allocate_quantized_weight(config.scheme, slot.out_features, slot.in_features, DType::f16);
    for (const auto& [suffix, tensor] : packing_of(config.format).pack(empty)) {
      shapes[suffix] = {tensor.dtype(), tensor.shape()};
    }
    return shapes;
  }
};

ModelWeights::ModelWeights(const std::string& directory)
    : checkpoint_(std::make_unique<Checkpoint>(directory)) {
  spec_ = make_decoder_spec(checkpoint_->config_view());
  add_generation_stops(*checkpoint_, spec_.eos_tokens);
  quantization_ = read_quantization(*checkpoint_);
  with_context(directory, [&] { check_tensors(); });
}

void ModelWeights::check_tensors() const {
  PackedShapes packed;
  if (checkpoint_->contains(spec_.embedding_name) || !spec_.tie_word_embeddings) {
    check_dense(spec_.embedding_name, {spec_.vocab_size, spec_.hidden_size});
  } else {
    check_dense(spec_.head_name + ".weight", {spec_.vocab_size, spec_.hidden_size});
  }
  if (!spec_.tie_word_embeddings) check_linear(head_slot(), packed);
  check_dense(spec_.final_norm_name, {spec_.hidden_size});
  for (int64_t layer = 0; layer < spec_.layers; ++layer) {
    for (const LinearSlot& slot : spec_.linears(layer)) check_linear(slot, packed);
    for (const NormRole role : kNorms) {
      const bool per_head = role == NormRole::query || role == NormRole::key;
      const std::string name = spec_.norm_name(layer, role);
      if (!name.empty()) check_dense(name, {per_head ? spec_.head_dim : spec_.hidden_size});
    }
  }
}

void ModelWeights::check_dense(const std::string& name, const Shape& expected) const {
  const Tensor found = checkpoint_->tensor(name);
  if (!is_weight_type(found.dtype())) {
    fail(ErrorKind::unsupported, "tensor \"{}\": expected F32, F16 or BF16, found {}", name,
         to_string(found.dtype()));
  }
  if (found.shape() != expected) {
    fail(ErrorKind::bad_format, "tensor \"{}\": expected the shape {}, found {}", name, to_string(expected),
         to_string(found.shape()));
  }
}

void ModelWeights::check_linear(const LinearSlot& slot, PackedShapes& packed) const {
  if (slot.bias) check_dense(slot.name + ".bias", {slot.out_features});
  if (!is_quantized(slot.name))
    return check_dense(slot.name + ".weight", {slot.out_features, slot.in_features});
  for (const auto& [suffix, expected] : packed.of(*quantization_, slot)) {
    const std::string name = slot.name + "." + suffix;
    const Tensor found = checkpoint_->tensor(name);
    const auto& [dtype, shape] = expected;
    const bool same_type = is_weight_type(dtype) ? is_weight_type(found.dtype()) : found.dtype() == dtype;
    if (!same_type || found.shape() != shape) {
      fail(ErrorKind::bad_format, "tensor \"{}\": expected {} {}, found {} {}", name, to_string(dtype),
           to_string(shape), to_string(found.dtype()), to_string(found.shape()));
    }
  }
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

Tensor ModelWeights::embedding() const {
  const bool own = checkpoint_->contains(spec_.embedding_name);
  return checkpoint_->tensor(own ? spec_.embedding_name : spec_.head_name + ".weight");
}

Tensor ModelWeights::final_norm() const { return checkpoint_->tensor(spec_.final_norm_name); }

// The head is no part of a layer: its role is not looked at.
LinearSlot ModelWeights::head_slot() const {
  return {LinearRole::q, spec_.head_name, spec_.vocab_size, spec_.hidden_size, false};
}

LinearWeight ModelWeights::head() const {
  if (!spec_.tie_word_embeddings) return linear(head_slot());
  LinearWeight weight;
  weight.dense = embedding();
  return weight;
}

}  // namespace salient
