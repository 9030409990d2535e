#include "backend/cuda/column_rounding.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "backend/backend.h"
#include "backend/cuda/device_arrays.h"

namespace salient::test {
namespace {

class CudaColumnRounding : public DeviceArrays {
 protected:
  /// A unit upper triangle whose feedback stays of the size of a step; below it, what is undefined.
  Tensor factor(int64_t k) {
    Tensor upper = random({k, k}, 0.1f);
    const auto values = upper.mutable_values<float>();
    for (int64_t i = 0; i < k; ++i) {
      values[static_cast<size_t>(i * (k + 1))] = 1.0f;
      for (int64_t j = 0; j < i; ++j) values[static_cast<size_t>(i * k + j)] = NAN;
    }
    return upper;
  }
  std::vector<int32_t> shuffled(int64_t k) {
    std::vector<int32_t> order(static_cast<size_t>(k));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), generator);
    return order;
  }
  /// Codes in the layout of QuantizedWeight, for the scales and zeros of `rounded`.
  std::vector<uint8_t> round(const Tensor& weight, const Tensor& upper, const std::vector<int32_t>& order,
                             const QuantizedWeight& rounded) {
    const int64_t rows = weight.dim(0);
    const int64_t columns = weight.dim(1);
    const auto bytes = static_cast<size_t>(rounded.codes.element_count());
    auto* codes = room<uint8_t>(bytes);
    const auto scale_bytes = std::span(rounded.scales.bytes(), rounded.scales.byte_size());
    cuda::round_compensated(
        device, {.scheme = rounded.scheme,
                 .weight = put(weight),
                 .upper = put(upper),
                 .order = put(order),
                 .rows = rows,
                 .columns = columns,
                 .scales = put(scale_bytes),
                 .scale_dtype = rounded.scales.dtype(),
                 .zeros = rounded.zeros.defined() ? put(rounded.zeros.values<uint8_t>()) : nullptr,
                 .codes = codes,
                 .workspace = room<std::byte>(cuda::compensated_rounding_bytes(rows, columns))});
    return get(codes, bytes);
  }
  /// By the definition in double, with the errors of the codes that were chosen.
  static void expect_nearest(const Tensor& weight, const Tensor& upper, const std::vector<int32_t>& order,
                             const QuantizedWeight& result) {
    const int64_t width = group_width(result.scheme, weight.dim(1));
    const auto columns = static_cast<size_t>(weight.dim(1));
    for (int64_t row = 0; row < weight.dim(0); ++row) {
      std::vector<double> errors(columns);
      for (size_t k = 0; k < columns; ++k) {
        const int64_t column = order[k];
        const double scale = double{result.scale(row, column / width)};
        const int zero = result.zero(row, column / width);
        const double w = double{weight.values<float>()[static_cast<size_t>(row) * columns + order[k]]};
        double target = w;
        for (size_t i = 0; i < k; ++i) target += errors[i] * double{upper.values<float>()[i * columns + k]};
        const double wanted = std::clamp<double>(target / scale + zero, 0, max_code(result.scheme));
        const int code = result.code(row, column);
        ASSERT_NEAR(code, wanted, 0.501) << row << ", " << column << " of " << columns;
        errors[k] = w - (code - zero) * scale;
      }
    }
  }
  static void set_codes(QuantizedWeight& weight, const std::vector<uint8_t>& codes) {
    std::ranges::copy(codes, weight.codes.mutable_values<uint8_t>().begin());
  }
};

const std::vector<QuantizationScheme> kSchemes{
    {4, false, 64}, {3, true, QuantizationScheme::kWholeMatrix}, {8, false, 32}, {5, true, 16}};

TEST_F(CudaColumnRounding, EveryCodeIsNearestToItsTarget) {
  constexpr int64_t kRows = 37;
  for (const int64_t columns : {1, 100, 300}) {
    const Tensor weight = random({kRows, columns});
    const Tensor upper = factor(columns);
    const std::vector<int32_t> order = shuffled(columns);
    for (const QuantizationScheme& scheme : kSchemes) {
      device.set_seed(static_cast<uint32_t>(scheme.num_bits));
      const DType type = scheme.num_bits == 4 ? DType::bf16 : scheme.num_bits == 5 ? DType::f32 : DType::f16;
      QuantizedWeight result = quantize_to_nearest(weight, {}, scheme, type);
      set_codes(result, round(weight, upper, order, result));
      expect_nearest(weight, upper, order, result);
    }
  }
  EXPECT_EQ(device.counts().shared_conflicts, 0u);
}

TEST_F(CudaColumnRounding, ChoosesWhatTheCpuChooses) {
  const auto cpu = make_cpu_backend();
  constexpr int64_t kColumns = 270;
  const Tensor weight = random({20, kColumns});
  Tensor upper = factor(kColumns);
  for (float& value : upper.mutable_values<float>()) value = std::isnan(value) ? 0.0f : value;
  const std::vector<int32_t> order = shuffled(kColumns);
  const std::vector<int64_t> wide_order(order.begin(), order.end());
  for (const QuantizationScheme& scheme : kSchemes) {
    QuantizedWeight expected = quantize_to_nearest(weight, {}, scheme, DType::f16);
    const std::vector<uint8_t> nearest(expected.codes.values<uint8_t>().begin(),
                                       expected.codes.values<uint8_t>().end());
    const std::vector<uint8_t> codes = round(weight, upper, order, expected);
    cpu->round_compensated({.weight = weight, .upper = upper, .order = wide_order}, expected);
    const auto right = expected.codes.values<uint8_t>();
    int64_t different = 0;
    for (size_t i = 0; i < right.size(); ++i) different += codes[i] != right[i] ? 1 : 0;
    EXPECT_NE(codes, nearest);
    EXPECT_LE(different, 2) << "of " << right.size() << " bytes";  // ties, and what follows from them
  }
}

}  // namespace
}  // namespace salient::test
