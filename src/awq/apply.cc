#include "awq/apply.h"

#include <cmath>

#include "base/error.h"
#include "base/parallel.h"

namespace salient {
namespace {

Tensor f32_copy(const Tensor& tensor) { return tensor.defined() ? tensor.to(DType::f32) : Tensor(); }

void divide_rows(Tensor& matrix, std::span<const float> scales) {
  const auto values = matrix.mutable_values<float>();
  const size_t row_size = values.size() / scales.size();
  for (size_t row = 0; row < scales.size(); ++row) {
    for (float& value : values.subspan(row * row_size, row_size)) value /= scales[row];
  }
}

void divide_gains(NormWeight& norm, std::span<const float> scales) {
  const auto values = norm.weight.mutable_values<float>();
  for (size_t i = 0; i < scales.size(); ++i) values[i] = (values[i] + norm.offset) / scales[i] - norm.offset;
  if (norm.bias.defined()) divide_rows(norm.bias, scales);
}

void multiply_columns(Tensor& matrix, std::span<const float> scales) {
  const auto values = matrix.mutable_values<float>();
  const size_t columns = scales.size();
  parallel_for(values.size() / columns, 64, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      for (size_t c = 0; c < columns; ++c) values[row * columns + c] *= scales[c];
    }
  });
}

}  // namespace

LayerWeights to_f32(const LayerWeights& weights) {
  LayerWeights result;
  for (const auto& [id, from] : weights.linears) {
    result[id].dense = from.quantized ? dequantize(*from.quantized) : f32_copy(from.dense);
    result[id].bias = f32_copy(from.bias);
  }
  for (size_t i = 0; i < kNormRoles; ++i) {
    const NormWeight& from = weights.norms[i];
    result.norms[i] = {f32_copy(from.weight), f32_copy(from.bias), from.offset};
  }
  result.router_correction = weights.router_correction;
  return result;
}

Tensor store_as(const std::string& name, const Tensor& tensor, DType dtype) {
  if (tensor.dtype() == dtype) return tensor;
  const Tensor from = tensor.to(DType::f32);
  const Tensor stored = from.to(dtype);
  const Tensor back = stored.to(DType::f32);
  const auto before = from.values<float>();
  const auto after = back.values<float>();
  for (size_t i = 0; i < before.size(); ++i) {
    if (std::isfinite(after[i]) || !std::isfinite(before[i])) continue;
    fail(ErrorKind::unsupported, "{}: the value {} is beyond the range of {}, which this format stores", name,
         before[i], to_string(dtype));
  }
  return stored;
}

void make_representable(const LayerWeights& weights, const ResolvedMapping& mapping,
                        const SmoothStorage& storage, std::span<float> scales) {
  if (const auto* role = std::get_if<NormRole>(&mapping.smooth)) {
    const NormWeight& norm = weights[*role];
    const auto values = norm.weight.values<float>();
    for (size_t i = 0; i < scales.size(); ++i) {
      const float gain = values[i] + norm.offset;
      const float stored = round_to(storage.stored, gain / scales[i] - norm.offset) + norm.offset;
      // A gain that is zero, or leaves the range of its type, stays as it is.
      const bool usable =
          stored != 0.0f && std::isfinite(stored) && gain / stored > 0 && std::isfinite(gain / stored);
      scales[i] = usable ? gain / stored : 1.0f;
    }
  } else if (!storage.smooth_quantized) {
    for (float& scale : scales) scale = std::exp2(std::round(std::log2(scale)));
  }
}

void apply_scales(const DecoderSpec& spec, const ResolvedMapping& mapping, std::span<const float> scales,
                  LayerWeights& weights) {
  if (const auto* norm = std::get_if<NormRole>(&mapping.smooth)) {
    divide_gains(weights[*norm], scales);
  } else {
    LinearWeight& smooth = weights[std::get<LinearId>(mapping.smooth)];
    divide_rows(smooth.dense, scales);
    if (smooth.bias.defined()) divide_rows(smooth.bias, scales);
  }
  for (const LinearId& id : mapping.balance) {
    LinearWeight& linear = weights[id];
    std::vector<float> column_scales(static_cast<size_t>(linear.in_features()));
    for (size_t c = 0; c < column_scales.size(); ++c) {
      column_scales[c] = scales[static_cast<size_t>(smooth_channel(spec, mapping, static_cast<int64_t>(c)))];
    }
    multiply_columns(linear.dense, column_scales);
  }
}

Tensor scaled_gram(const Tensor& gram, std::span<const float> column_scales) {
  Tensor result = gram.to(DType::f32);
  const auto values = result.mutable_values<float>();
  const size_t size = column_scales.size();
  parallel_for(size, 16, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      for (size_t j = 0; j < size; ++j) values[i * size + j] /= column_scales[i] * column_scales[j];
    }
  });
  return result;
}

}  // namespace salient
