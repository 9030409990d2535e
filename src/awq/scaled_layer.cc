#include "awq/scaled_layer.h"

#include "base/parallel.h"

namespace salient {
namespace {

Tensor f32_copy(const Tensor& tensor) { return tensor.defined() ? tensor.to(DType::f32) : Tensor(); }

void divide(Tensor& vector, std::span<const float> scales) {
  const auto values = vector.mutable_values<float>();
  for (size_t i = 0; i < values.size(); ++i) values[i] /= scales[i];
}

void divide_gains(NormWeight& norm, std::span<const float> scales) {
  const auto values = norm.weight.mutable_values<float>();
  for (size_t i = 0; i < scales.size(); ++i) values[i] = (values[i] + norm.offset) / scales[i] - norm.offset;
  if (norm.bias.defined()) divide(norm.bias, scales);
}

/// The scales of `id`, ones before the first use.
std::vector<float>& scales_of(PerLinear<std::vector<float>>& scales, const LinearId& id, int64_t count) {
  auto& own = scales[id];
  own.resize(static_cast<size_t>(count), 1.0f);
  return own;
}

}  // namespace

ScaledLayer::ScaledLayer(const DecoderSpec& spec, const LayerWeights& original)
    : spec_(spec), original_(original) {
  for (size_t i = 0; i < kNormRoles; ++i) {
    const NormWeight& from = original.norms[i];
    norms_[i] = {f32_copy(from.weight), f32_copy(from.bias), from.offset};
  }
}

void ScaledLayer::apply(const ResolvedMapping& mapping, std::span<const float> scales) {
  if (const auto* norm = std::get_if<NormRole>(&mapping.smooth)) {
    divide_gains(norms_[static_cast<size_t>(*norm)], scales);
  } else {
    const LinearId& smooth = std::get<LinearId>(mapping.smooth);
    auto& rows = scales_of(row_scales_, smooth, original_[smooth].out_features());
    for (size_t i = 0; i < rows.size(); ++i) rows[i] *= scales[i];
  }
  for (const LinearId& id : mapping.balance) {
    auto& columns = scales_of(column_scales_, id, original_[id].in_features());
    for (size_t c = 0; c < columns.size(); ++c) {
      columns[c] *= scales[static_cast<size_t>(smooth_channel(spec_, mapping, static_cast<int64_t>(c)))];
    }
  }
}

Tensor ScaledLayer::weight(const LinearId& id) const {
  const LinearWeight& from = original_[id];
  Tensor result = from.quantized ? dequantize(*from.quantized) : from.dense.to(DType::f32);
  const auto columns = column_scales_.find(id);
  const auto rows = row_scales_.find(id);
  if (columns == column_scales_.end() && rows == row_scales_.end()) return result;
  const auto values = result.mutable_values<float>();
  const auto width = static_cast<size_t>(from.in_features());
  parallel_for(values.size() / width, 64, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      const auto row_values = values.subspan(row * width, width);
      if (columns != column_scales_.end()) {
        for (size_t c = 0; c < width; ++c) row_values[c] *= columns->second[c];
      }
      if (rows == row_scales_.end()) continue;
      for (float& value : row_values) value /= rows->second[row];
    }
  });
  return result;
}

Tensor ScaledLayer::bias(const LinearId& id) const {
  Tensor result = f32_copy(original_[id].bias);
  const auto rows = row_scales_.find(id);
  if (result.defined() && rows != row_scales_.end()) divide(result, rows->second);
  return result;
}

std::span<const float> ScaledLayer::column_scales(const LinearId& id) const {
  const auto found = column_scales_.find(id);
  return found == column_scales_.end() ? std::span<const float>() : std::span<const float>(found->second);
}

std::span<const float> ScaledLayer::row_scales(const LinearId& id) const {
  const auto found = row_scales_.find(id);
  return found == row_scales_.end() ? std::span<const float>() : std::span<const float>(found->second);
}

PreparedLayer ScaledLayer::prepare(Backend& backend) const {
  PreparedLayer prepared;
  prepared.make = [this, &backend](const LinearId& id) {
    LinearWeight linear;
    linear.dense = weight(id);
    linear.bias = bias(id);
    return backend.prepare(linear);
  };
  for (size_t i = 0; i < kNormRoles; ++i) prepared.norms[i] = prepare_norm(norms_[i]);
  prepared.router_correction = original_.router_correction;
  prepared.state_tensors = original_.state_tensors;
  return prepared;
}

}  // namespace salient
