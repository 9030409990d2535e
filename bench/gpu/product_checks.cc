#include <algorithm>
#include <cmath>
#include <optional>

#include "backend/cuda/linear_products.h"
#include "base/error.h"
#include "base/parallel.h"
#include "gpu/random_data.h"
#include "gpu/sections.h"
#include "quant/scheme.h"

namespace salient::gpu {
namespace {

using cuda::HalfType;
using cuda::ProductFamily;

/// Of |x||w| summed up. Tensor cores cut sums of 16 products off behind 24 bits; one wrong code of 14336 is
/// 20 times as much.
constexpr double kSumBound = 5e-6;

DType type_of(HalfType half) { return half == HalfType::f16 ? DType::f16 : DType::bf16; }
const char* name_of(HalfType half) { return half == HalfType::f16 ? "f16" : "bf16"; }

/// Rows of a product whose sums are computed in f64: those beside the edges of tiles.
std::vector<int64_t> sampled_rows(int64_t rows) {
  std::vector<int64_t> sample;
  for (int64_t row = 0; row < rows; ++row)
    if (row < 10 || row % 32 == 31 || row % 32 == 0 || row >= rows - 2) sample.push_back(row);
  return sample;
}

struct Sums {
  Tensor y;      ///< f32 [sampled rows, out]
  Tensor sizes;  ///< sums of |x||w|
};

void sum_of(std::span<const float> x, std::span<const float> w, double& sum, double& size) {
  constexpr size_t kLanes = 8;
  double sums[kLanes] = {};
  double sizes[kLanes] = {};
  for (size_t k = 0; k < x.size(); ++k) {
    const double term = double{x[k]} * double{w[k]};
    sums[k % kLanes] += term;
    sizes[k % kLanes] += std::abs(term);
  }
  for (size_t lane = 0; lane < kLanes; ++lane) {
    sum += sums[lane];
    size += sizes[lane];
  }
}

Sums sums_of(const Tensor& x, const Tensor& weight, const Tensor& bias, std::span<const int64_t> rows) {
  const auto out = static_cast<size_t>(weight.dim(0));
  const auto in = static_cast<size_t>(weight.dim(1));
  Sums sums{Tensor::empty(DType::f32, {std::ssize(rows), weight.dim(0)}),
            Tensor::empty(DType::f32, {std::ssize(rows), weight.dim(0)})};
  const auto y = sums.y.mutable_values<float>();
  const auto sizes = sums.sizes.mutable_values<float>();
  parallel_for(out, 8, [&](size_t begin, size_t end) {
    for (size_t n = begin; n < end; ++n) {
      const auto w = weight.values<float>().subspan(n * in, in);
      for (size_t i = 0; i < rows.size(); ++i) {
        double sum = bias.values<float>()[n];
        double size = std::abs(sum);
        sum_of(x.values<float>().subspan(static_cast<size_t>(rows[i]) * in, in), w, sum, size);
        y[i * out + n] = static_cast<float>(sum);
        sizes[i * out + n] = static_cast<float>(size);
      }
    }
  });
  return sums;
}

Tensor rows_of(const Tensor& matrix, std::span<const int64_t> rows) {
  Tensor result = Tensor::empty(DType::f32, {std::ssize(rows), matrix.dim(1)});
  for (size_t i = 0; i < rows.size(); ++i)
    copy_rows(matrix.slice(rows[i], rows[i] + 1), result, static_cast<int64_t>(i));
  return result;
}

struct WeightCase {
  int64_t out;
  int64_t in;
  std::optional<QuantizationScheme> scheme;  ///< nothing: halves
  HalfType half;

  std::string name() const {
    return fmt::format("{} x {}, {}, {}", out, in, scheme ? describe(*scheme) : "dense", name_of(half));
  }
};

/// A weight, on the device and as numbers, with as many rows of input as any product has.
class WeightUnderTest {
 public:
  WeightUnderTest(SectionRun& run, const WeightCase& of, int64_t most_rows) : run_(run), of_(of) {
    x_ = random_floats({most_rows, of.in}, 21).to(type_of(of.half)).to(DType::f32);
    bias_ = random_floats({of.out}, 22);
    if (of.scheme) {
      const QuantizedWeight weight = random_weight(*of.scheme, of.out, of.in, 23);
      exact_ = dequantize(weight);
      packed_ = cuda::pack_codes(weight);
    } else {
      const Tensor weight = random_halves({of.out, of.in}, type_of(of.half), 23, 0.05f);
      exact_ = weight.to(DType::f32);
      packed_ = cuda::pack_halves(weight, of.half);
    }
    weight_.emplace(run.device(), packed_, of.half);
    weight_->bias = cuda::DeviceBuffer::of(run.device(), bias_.values<float>());
    input_ = cuda::DeviceBuffer::of(run.device(), x_.values<float>());
  }

  void check(int64_t rows, std::optional<ProductFamily> family) {
    cuda::Products products(run_.device());
    products.force(family);
    const cuda::ProductPlan plan = products.plan(*weight_, static_cast<int>(rows));
    if (family && plan.family != *family) return;
    const bool library = plan.family == ProductFamily::library;
    const Tensor y = multiply(products, rows);
    const Sums& sums = reference(library);
    const std::string check = library ? fmt::format("library_{}", name_of(of_.half)) : plan.kernel.name;
    std::vector<int64_t> sampled = sampled_rows(x_.dim(0));
    std::erase_if(sampled, [&](int64_t row) { return row >= rows; });
    const Tensor expected = sums.y.slice(0, std::ssize(sampled));
    const Tensor sizes = sums.sizes.slice(0, std::ssize(sampled));
    run_.check(check, rows_of(y, sampled), expected, {.bound = kSumBound, .sizes = sizes});
    const Tensor again = multiply(products, rows);
    run_.check_bytes(check + " again", {again.bytes(), again.byte_size()}, {y.bytes(), y.byte_size()});
  }

 private:
  Tensor multiply(cuda::Products& products, int64_t rows) {
    Tensor y = Tensor::empty(DType::f32, {rows, of_.out});
    const cuda::DeviceBuffer output(run_.device(), y.byte_size());
    products.set_input(input_.as<float>(), static_cast<int>(rows), static_cast<int>(of_.in));
    products.multiply(*weight_, output.as<float>());
    run_.device().copy_out(y.mutable_bytes(), output.address(), y.byte_size());
    return y;
  }

  /// A library multiplies with weights that were rounded to halves.
  const Sums& reference(bool library) {
    std::optional<Sums>& sums = library && of_.scheme ? of_halves_ : of_codes_;
    if (!sums) {
      const Tensor weight = library ? exact_.to(type_of(of_.half)).to(DType::f32) : exact_;
      sums = sums_of(x_, weight, bias_, sampled_rows(x_.dim(0)));
    }
    return *sums;
  }

  SectionRun& run_;
  WeightCase of_;
  Tensor x_;
  Tensor bias_;
  Tensor exact_;
  cuda::PackedProduct packed_{};
  std::optional<cuda::ProductWeight> weight_;
  cuda::DeviceBuffer input_;
  std::optional<Sums> of_codes_;
  std::optional<Sums> of_halves_;
};

QuantizationScheme four_bits(int64_t group_size, bool symmetric) {
  return {.num_bits = 4, .symmetric = symmetric, .group_size = group_size};
}

std::vector<std::optional<QuantizationScheme>> schemes(bool all) {
  std::vector<std::optional<QuantizationScheme>> list{four_bits(128, false), four_bits(32, false), {}};
  if (!all) return list;
  for (const int64_t group : {64, 128, 256}) list.emplace_back(four_bits(group, true));
  list.emplace_back(four_bits(32, true));
  list.emplace_back(four_bits(64, false));
  list.emplace_back(four_bits(QuantizationScheme::kWholeRow, false));
  list.emplace_back(four_bits(QuantizationScheme::kWholeRow, true));
  list.emplace_back(QuantizationScheme{.num_bits = 3, .group_size = 128});
  return list;
}

/// Columns that groups divide, unless whole rows are groups.
bool fits(const std::optional<QuantizationScheme>& scheme, int64_t in) {
  return !scheme || scheme->group_size < 1 || in % scheme->group_size == 0;
}

struct ShapeCase {
  int64_t out;
  int64_t in;
  bool all_schemes;
  std::vector<int64_t> rows;
};

std::vector<ShapeCase> shapes(const SectionRun& run) {
  if (run.tiny()) return {{48, 256, false, {1, 16, 17, 33}}, {33, 72, true, {3, 9}}};
  const std::vector<int64_t> many{1,  2,  3,  5,  7,  8,  9,   15,  16,  17,  31,  32,
                                  33, 48, 63, 64, 65, 96, 127, 128, 129, 200, 256, 300};
  const std::vector<int64_t> some{1, 4, 8, 16, 31, 64, 100, 256, 300};
  std::vector<ShapeCase> list{{64, 64, true, many},     {1, 256, true, {1, 8, 9, 64, 300}},
                              {17, 768, true, some},    {40, 72, true, some},
                              {1000, 1024, true, many}, {136, 200, true, some},
                              {1024, 4096, false, many}};
  if (run.size() != Size::full) return list;
  list.push_back({4096, 4096, false, some});
  list.push_back({14336, 4096, false, {1, 8, 16, 64}});
  list.push_back({4096, 14336, false, {1, 8, 16, 64}});
  list.push_back({512, 14336, true, {1, 5, 16, 40, 100, 300}});
  return list;
}

void check_weight(SectionRun& run, const WeightCase& of, std::span<const int64_t> row_counts) {
  // Made for the first case that is not done.
  std::optional<WeightUnderTest> weight;
  const int64_t most = std::ranges::max(row_counts);
  const std::string name = of.name();
  for (const int64_t rows : row_counts) {
    run.attempt(fmt::format("{}, {} rows", name, rows), [&] {
      if (!weight) weight.emplace(run, of, most);
      weight->check(rows, std::nullopt);
      if (rows <= cuda::kFewRows) weight->check(rows, ProductFamily::gemm);
      if (rows <= 300 && rows % 16 == 0) weight->check(rows, ProductFamily::library);
    });
  }
}

}  // namespace

void check_products(SectionRun& run) {
  for (const ShapeCase& shape : shapes(run)) {
    for (const auto& scheme : schemes(shape.all_schemes)) {
      if (!fits(scheme, shape.in)) continue;
      for (const HalfType half : {HalfType::f16, HalfType::bf16})
        check_weight(run, {shape.out, shape.in, scheme, half}, shape.rows);
    }
  }
}

}  // namespace salient::gpu
