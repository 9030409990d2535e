#include "model/weights.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "quant/packing.h"

namespace salient {
namespace {

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

std::vector<std::vector<std::string>> targets_of(std::span<const SchemeGroup> groups) {
  std::vector<std::vector<std::string>> targets;
  for (const SchemeGroup& group : groups) targets.push_back(group.targets);
  return targets;
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

/// The rows of a part, in order; shares the memory when they stand together.
Tensor select_rows(const Tensor& matrix, const StoredRows& rows, int64_t count) {
  if (rows.block == count) return matrix.slice(rows.first, rows.first + count);
  Shape shape = matrix.shape();
  shape.front() = count;
  Tensor result = Tensor::empty(matrix.dtype(), shape);
  const size_t row_bytes = result.byte_size() / static_cast<size_t>(count);
  for (int64_t row = 0; row < count; ++row) {
    const int64_t from = rows.first + row / rows.block * rows.stride + row % rows.block;
    std::memcpy(result.mutable_bytes() + static_cast<size_t>(row) * row_bytes,
                matrix.bytes() + static_cast<size_t>(from) * row_bytes, row_bytes);
  }
  return result;
}

QuantizedWeight select_rows(const QuantizedWeight& weight, const StoredRows& rows, int64_t count) {
  QuantizedWeight part = weight;
  part.out_features = count;
  part.codes = select_rows(weight.codes, rows, count);
  part.scales = select_rows(weight.scales, rows, count);
  if (weight.zeros.defined()) part.zeros = select_rows(weight.zeros, rows, count);
  return part;
}

/// The inverse of select_rows: writes a part's rows into the whole matrix.
void place_rows(const Tensor& part, const StoredRows& rows, Tensor& matrix) {
  if (!matrix.defined()) {
    Shape shape = part.shape();
    shape.front() = rows.count;
    matrix = Tensor::empty(part.dtype(), shape);
  }
  const int64_t count = part.dim(0);
  const size_t row_bytes = part.byte_size() / static_cast<size_t>(count);
  for (int64_t row = 0; row < count; ++row) {
    const int64_t to = rows.first + row / rows.block * rows.stride + row % rows.block;
    std::memcpy(matrix.mutable_bytes() + static_cast<size_t>(to) * row_bytes,
                part.bytes() + static_cast<size_t>(row) * row_bytes, row_bytes);
  }
}

template <typename T>
void transpose(std::span<const T> from, int64_t rows, int64_t columns, std::span<T> to) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      to[static_cast<size_t>(c * rows + r)] = from[static_cast<size_t>(r * columns + c)];
    }
  }
}

bool is_weight_type(const std::string& dtype) { return dtype == "F32" || dtype == "F16" || dtype == "BF16"; }

/// "model.layers.{}.mlp.experts.{}.gate_proj" -> "model.layers.{}.mlp.experts"
std::string expert_folder(const std::string& pattern) { return pattern.substr(0, pattern.rfind(".{}.")); }

}  // namespace

Tensor transposed(const Tensor& matrix) {
  const int64_t rows = matrix.dim(0);
  const int64_t columns = matrix.dim(1);
  Tensor result = Tensor::empty(matrix.dtype(), {columns, rows});
  const size_t count = static_cast<size_t>(matrix.element_count());
  if (byte_size(matrix.dtype()) == 4) {
    transpose<uint32_t>({reinterpret_cast<const uint32_t*>(matrix.bytes()), count}, rows, columns,
                        {reinterpret_cast<uint32_t*>(result.mutable_bytes()), count});
  } else {
    transpose<uint16_t>({reinterpret_cast<const uint16_t*>(matrix.bytes()), count}, rows, columns,
                        {reinterpret_cast<uint16_t*>(result.mutable_bytes()), count});
  }
  return result;
}

Tensor gain_of(const NormWeight& norm) {
  Tensor gain = norm.weight.to(DType::f32);
  for (float& value : gain.mutable_values<float>()) value += norm.offset;
  return gain;
}

LinearWeight join_parts(std::span<const LinearPart> parts) {
  if (parts.size() == 1) return parts.front().weight;
  LinearWeight whole;
  for (const auto& [slot, part] : parts) {
    if (part.bias.defined()) place_rows(part.bias, slot.rows, whole.bias);
    if (!part.quantized) {
      place_rows(part.dense, slot.rows, whole.dense);
      continue;
    }
    if (!whole.quantized) {
      whole.quantized = QuantizedWeight{
          .scheme = part.quantized->scheme, .out_features = slot.rows.count, .in_features = slot.in_features};
    }
    place_rows(part.quantized->codes, slot.rows, whole.quantized->codes);
    place_rows(part.quantized->scales, slot.rows, whole.quantized->scales);
    if (part.quantized->zeros.defined()) place_rows(part.quantized->zeros, slot.rows, whole.quantized->zeros);
  }
  return whole;
}

ModelWeights::ModelWeights(const std::string& directory, std::span<const Family> more)
    : checkpoint_(std::make_unique<Checkpoint>(directory)) {
  spec_ = make_decoder_spec(checkpoint_->config_view(), more);
  add_generation_stops(*checkpoint_, spec_.eos_tokens);
  quantization_ = read_quantization(*checkpoint_);
  with_context(directory, [&] {
    if (quantization_) targets_.emplace(targets_of(quantization_->groups));
    adapt_names();
    untie_different_head();
    check_tensors();
  });
  embedding_ = checkpoint_->tensor(checkpoint_->contains(spec_.embedding_name) ? spec_.embedding_name
                                                                               : spec_.head_name + ".weight");
}

/// What only the tensors themselves tell: what their names begin with, and whether the experts are
/// separate or stacked in one tensor.
void ModelWeights::adapt_names() {
  for (const NamePrefix& prefix : spec_.other_prefixes) {
    if (checkpoint_->contains(spec_.embedding_name)) break;
    if (checkpoint_->contains(prefix.change(spec_.embedding_name))) spec_.change_prefix(prefix);
  }
  if (!spec_.moe) return;
  std::string& gate = spec_.linear_names[static_cast<size_t>(LinearRole::expert_gate)];
  const std::string stack = expert_folder(gate) + ".gate_up_proj";
  for (int64_t layer = 0; layer < spec_.layers; ++layer) {
    if (!spec_.has_experts(layer)) continue;
    if (!checkpoint_->contains(fmt::format(fmt::runtime(stack), layer))) return;
    spec_.stored_expert_names = {stack, stack, expert_folder(gate) + ".down_proj"};
    spec_.expert_storage = LinearStorage::expert_stack;
    return;
  }
}

void ModelWeights::check_tensors() const {
  if (checkpoint_->contains(spec_.embedding_name) || !spec_.tie_word_embeddings) {
    check_dense(spec_.embedding_name, {spec_.vocab_size, spec_.hidden_size});
  } else {
    check_dense(spec_.head_name + ".weight", {spec_.vocab_size, spec_.hidden_size});
  }
  if (!spec_.tie_word_embeddings) check_linear(head_slot());
  if (!spec_.final_norm_name.empty()) check_norm(spec_.final_norm_name, {spec_.hidden_size});
  if (!spec_.embedding_norm_name.empty()) check_norm(spec_.embedding_norm_name, {spec_.hidden_size});
  if (spec_.positions) check_dense(spec_.positions->name, {spec_.positions->count, spec_.hidden_size});
  for (int64_t layer = 0; layer < spec_.layers; ++layer) {
    for (const LinearSlot& slot : spec_.linears(layer)) check_linear(slot);
    for (size_t role = 0; role < kNormRoles; ++role) {
      const std::string name = spec_.norm_name(layer, static_cast<NormRole>(role));
      if (!name.empty()) check_norm(name, spec_.norm_shape(static_cast<NormRole>(role)));
    }
    if (const std::string name = spec_.correction_name(layer); !name.empty()) {
      check_dense(name, spec_.correction_shape());
    }
    for (size_t i = 0; i < kStateTensors; ++i) {
      const auto tensor = static_cast<StateTensor>(i);
      const std::string name = spec_.state_tensor_name(layer, tensor);
      if (!name.empty()) check_dense(name, spec_.state_tensor_shape(tensor));
    }
  }
}

void ModelWeights::check_norm(const std::string& name, const Shape& shape) const {
  check_dense(name + ".weight", shape);
  if (spec_.norm.bias) check_dense(name + ".bias", shape);
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
  if (slot.storage == LinearStorage::expert_stack) {
    return check_dense(slot.name, {spec_.moe->experts, slot.rows.count, slot.in_features});
  }
  if (slot.bias) check_dense(slot.name + ".bias", {slot.rows.count});
  if (!is_quantized(slot.name)) {
    const bool turned = slot.storage == LinearStorage::transposed;
    return check_dense(slot.name + ".weight", turned ? Shape{slot.in_features, slot.rows.count}
                                                     : Shape{slot.rows.count, slot.in_features});
  }
  const Packing& packing = packing_of(quantization_->format);
  for (const auto& expected : packing.layout(scheme_of(slot.name), slot.rows.count, slot.in_features)) {
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
  checkpoint_->release(spec_.embedding_name);
}

bool ModelWeights::is_quantized(const std::string& name) const {
  return quantization_ &&
         checkpoint_->contains(name + "." + packing_of(quantization_->format).suffixes.front());
}

const QuantizationScheme& ModelWeights::scheme_of(const std::string& name) const {
  const auto& groups = quantization_->groups;
  // A single group cannot be mistaken, whatever names its targets were written for.
  if (groups.size() == 1) return groups.front().scheme;
  if (const auto match = targets_->find(name, kLinearClasses)) return groups[match->entry].scheme;
  fail(ErrorKind::bad_format, "{} is stored as integers, but no target of config_groups matches it", name);
}

std::vector<std::string> ModelWeights::tensor_names(const LinearSlot& slot) const {
  if (slot.storage == LinearStorage::expert_stack) return {slot.name};
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

Tensor ModelWeights::dense_rows(const LinearSlot& slot) const {
  if (slot.storage == LinearStorage::expert_stack) {
    const Tensor expert = checkpoint_->tensor(slot.name).slice(slot.id.expert, slot.id.expert + 1);
    return select_rows(expert.reshape({slot.rows.count, slot.in_features}), slot.rows, slot.out_features);
  }
  const Tensor stored = checkpoint_->tensor(slot.name + ".weight");
  const bool turned = slot.storage == LinearStorage::transposed;
  return select_rows(turned ? transposed(stored) : stored, slot.rows, slot.out_features);
}

QuantizedWeight ModelWeights::unpacked(const LinearSlot& slot) const {
  const Packing& packing = packing_of(quantization_->format);
  PackedTensors tensors;
  for (const std::string& suffix : packing.suffixes) {
    const std::string name = slot.name + "." + suffix;
    if (checkpoint_->contains(name)) tensors[suffix] = checkpoint_->tensor(name);
  }
  QuantizedWeight weight =
      with_context(slot.name, [&] { return packing.unpack(tensors, scheme_of(slot.name)); });
  if (weight.out_features != slot.rows.count || weight.in_features != slot.in_features) {
    fail(ErrorKind::bad_format, "{}: expected a linear [{}, {}], found [{}, {}]", slot.name, slot.rows.count,
         slot.in_features, weight.out_features, weight.in_features);
  }
  return slot.fused() ? select_rows(weight, slot.rows, slot.out_features) : weight;
}

Tensor ModelWeights::bias(const LinearSlot& slot) const {
  if (!slot.bias) return {};
  return select_rows(checkpoint_->tensor(slot.name + ".bias"), slot.rows, slot.out_features);
}

LinearWeight ModelWeights::linear(const LinearSlot& slot) const {
  LinearWeight weight;
  weight.bias = bias(slot);
  if (is_quantized(slot.name)) {
    weight.quantized = unpacked(slot);
  } else {
    weight.dense = dense_rows(slot);
  }
  return weight;
}

NormWeight ModelWeights::norm(const std::string& name) const {
  if (name.empty()) return {};
  NormWeight norm{.weight = checkpoint_->tensor(name + ".weight"), .offset = spec_.norm.offset};
  if (spec_.norm.bias) norm.bias = checkpoint_->tensor(name + ".bias");
  return norm;
}

DType ModelWeights::storage_type(const LinearSlot& slot) const {
  const bool stacked = slot.storage == LinearStorage::expert_stack;
  return checkpoint_->tensor(stacked ? slot.name : slot.name + ".weight").dtype();
}

LayerWeights ModelWeights::layer(int64_t index) const {
  return layer(index, [](const LinearSlot&) { return false; });
}

LayerWeights ModelWeights::layer(int64_t index, const std::function<bool(const LinearSlot&)>& known) const {
  LayerWeights weights;
  for (const LinearSlot& slot : spec_.linears(index)) {
    if (known(slot)) {
      weights[slot.id].bias = bias(slot);
    } else {
      weights[slot.id] = linear(slot);
    }
  }
  for (size_t role = 0; role < kNormRoles; ++role) {
    weights.norms[role] = norm(spec_.norm_name(index, static_cast<NormRole>(role)));
  }
  const std::string correction = spec_.correction_name(index);
  if (!correction.empty()) {
    weights.router_correction = checkpoint_->tensor(correction).to(DType::f32).reshape({spec_.moe->experts});
  }
  for (size_t i = 0; i < kStateTensors; ++i) {
    const std::string name = spec_.state_tensor_name(index, static_cast<StateTensor>(i));
    if (!name.empty()) weights.state_tensors[i] = checkpoint_->tensor(name).to(DType::f32);
  }
  return weights;
}

/// Of a layer's linears, each once: experts may share one.
std::set<std::string> ModelWeights::tensor_names(int64_t layer) const {
  std::set<std::string> names;
  for (const LinearSlot& slot : spec_.linears(layer))
    for (std::string& name : tensor_names(slot)) names.insert(std::move(name));
  return names;
}

void ModelWeights::release_layer(int64_t index) const {
  for (const std::string& name : tensor_names(index)) checkpoint_->release(name);
}

void ModelWeights::read_ahead_layer(int64_t index) const {
  for (const std::string& name : tensor_names(index)) checkpoint_->read_ahead(name);
}

void ModelWeights::release_embedding() const {
  const std::string head = spec_.head_name + ".weight";
  checkpoint_->release(checkpoint_->contains(spec_.embedding_name) ? spec_.embedding_name : head);
  if (spec_.positions) checkpoint_->release(spec_.positions->name);
}

bool ModelWeights::has_quantized_head() const {
  return !spec_.tie_word_embeddings && is_quantized(spec_.head_name);
}

void ModelWeights::release_head() const {
  if (spec_.tie_word_embeddings) return release_embedding();
  for (const std::string& name : tensor_names(head_slot())) checkpoint_->release(name);
}

NormWeight ModelWeights::final_norm() const { return norm(spec_.final_norm_name); }

NormWeight ModelWeights::embedding_norm() const { return norm(spec_.embedding_norm_name); }

Tensor ModelWeights::positions() const {
  return spec_.positions ? checkpoint_->tensor(spec_.positions->name) : Tensor();
}

// The head is no part of a layer: its role is not looked at.
LinearSlot ModelWeights::head_slot() const {
  const int64_t rows = spec_.vocab_size;
  return {.id = LinearRole::q,
          .name = spec_.head_name,
          .out_features = rows,
          .in_features = spec_.hidden_size,
          .bias = false,
          .rows = {.count = rows, .first = 0, .block = rows, .stride = rows}};
}

LinearWeight ModelWeights::head() const {
  if (!spec_.tie_word_embeddings) return linear(head_slot());
  LinearWeight weight;
  weight.dense = embedding_;
  return weight;
}

}  // namespace salient
