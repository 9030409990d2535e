#include "awq/apply.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/parallel.h"

namespace salient {

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

void make_representable(const NormWeight& norm, DType stored, std::span<float> scales) {
  const auto values = norm.weight.values<float>();
  for (size_t i = 0; i < scales.size(); ++i) {
    const float gain = values[i] + norm.offset;
    const float carried = round_to(stored, gain / scales[i] - norm.offset) + norm.offset;
    const bool usable =
        carried != 0.0f && std::isfinite(carried) && gain / carried > 0 && std::isfinite(gain / carried);
    scales[i] = usable ? gain / carried : 1.0f;
  }
}

void make_powers_of_two(std::span<float> scales) {
  for (float& scale : scales) scale = std::exp2(std::round(std::log2(scale)));
}

void clamp_groups(Tensor& weight, const Tensor& clip) {
  const auto values = weight.mutable_values<float>();
  const auto bounds = clip.values<float>();
  const size_t width = values.size() / bounds.size();
  parallel_for(bounds.size(), 256, [&](size_t begin, size_t end) {
    for (size_t group = begin; group < end; ++group) {
      for (float& value : values.subspan(group * width, width)) {
        value = std::clamp(value, -bounds[group], bounds[group]);
      }
    }
  });
}

}  // namespace salient
