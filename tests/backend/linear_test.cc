#include "backend/backend_fixture.h"

namespace salient::test {
namespace {

/// Of a dot product's f32 rounding errors, relative to the sum of magnitudes. The a priori bound is depth *
/// 6e-8 (1.2e-4 for 2000); several running sums keep the real error far below.
constexpr double kProductBound = 1.5e-6;

class LinearTest : public EveryIsa {
 protected:
  Tensor run(const LinearWeight& weight, const Tensor& x) { return run_with(*backend, weight, x); }
  static Tensor run_with(Backend& with, const LinearWeight& weight, const Tensor& x) {
    Tensor y = Tensor::empty(DType::f32, {x.dim(0), weight.out_features()});
    with.linear(*with.prepare(weight), x, y);
    return y;
  }

  QuantizedWeight random_integers(const QuantizationScheme& scheme, int64_t outputs, int64_t depth,
                                  DType scale_type = DType::f16) {
    QuantizedWeight weight{.scheme = scheme, .out_features = outputs, .in_features = depth};
    weight.codes = Tensor::zeros(DType::u8, {outputs, weight.row_bytes()});
    std::uniform_int_distribution<int> code(0, max_code(scheme));
    for (int64_t n = 0; n < outputs; ++n) {
      for (int64_t k = 0; k < depth; ++k) weight.set_code(n, k, code(generator));
    }
    weight.scales = random({outputs, weight.groups()}, 0.01f).to(scale_type);
    if (scheme.symmetric) return weight;
    weight.zeros = Tensor::empty(DType::u8, {outputs, weight.groups()});
    for (uint8_t& zero : weight.zeros.mutable_values<uint8_t>()) zero = static_cast<uint8_t>(code(generator));
    return weight;
  }
  LinearWeight random_linear(const QuantizationScheme& scheme, int64_t outputs, int64_t depth) {
    return {.dense = {}, .quantized = random_integers(scheme, outputs, depth), .bias = {}};
  }

  /// (code - zero) * scale in f32, written out independently of the kernels.
  static Tensor expand(const QuantizedWeight& weight) {
    Tensor result = Tensor::empty(DType::f32, {weight.out_features, weight.in_features});
    auto out = result.mutable_values<float>();
    const Tensor scales = weight.scales.to(DType::f32);
    const int64_t width = weight.in_features / scales.dim(1);
    const bool nibbles = weight.scheme.num_bits <= 4;
    for (int64_t n = 0; n < weight.out_features; ++n) {
      for (int64_t k = 0; k < weight.in_features; ++k) {
        const auto byte =
            weight.codes
                .values<uint8_t>()[static_cast<size_t>(n * weight.codes.dim(1) + (nibbles ? k / 2 : k))];
        const auto group = static_cast<size_t>(n * scales.dim(1) + k / width);
        const int middle = 1 << (weight.scheme.num_bits - 1);
        const int zero = weight.zeros.defined() ? weight.zeros.values<uint8_t>()[group] : middle;
        const int code = nibbles ? (k % 2 == 0 ? byte & 15 : byte >> 4) : byte;
        out[static_cast<size_t>(n * weight.in_features + k)] =
            static_cast<float>(code - zero) * scales.values<float>()[group];
      }
    }
    return result;
  }

  /// The parts of an integer weight as a kernel gets them, on the heap and exactly as long as they are, so
  /// that a sanitizer sees what lies behind; tensors are padded.
  struct ExactWeight {
    explicit ExactWeight(const QuantizedWeight& weight)
        : codes(copy<uint8_t>(weight.codes)), scales(copy<float>(weight.scales.to(DType::f32))) {
      if (weight.zeros.defined()) zeros = copy<uint8_t>(weight.zeros);
      // Kernels take the symmetric zero of the width that they read for granted, not that of others.
      const bool own_width = weight.scheme.num_bits == weight.code_bits();
      if (!weight.zeros.defined() && !own_width)
        zeros.assign(scales.size(), static_cast<uint8_t>(symmetric_zero(weight.scheme)));
      rows = {.codes = codes.data(),
              .row_bytes = weight.codes.dim(1),
              .scales = scales.data(),
              .zeros = zeros.empty() ? nullptr : zeros.data(),
              .groups = weight.groups(),
              .group_width = weight.in_features / weight.groups()};
    }
    template <typename T>
    static std::vector<T> copy(const Tensor& tensor) {
      return {tensor.values<T>().begin(), tensor.values<T>().end()};
    }

    std::vector<uint8_t> codes;
    std::vector<float> scales;
    std::vector<uint8_t> zeros;
    IntegerRows rows;
  };

  void expect_product_in_bounds(const QuantizedWeight& weight) {
    const ExactWeight exact(weight);
    const auto dot = weight.code_bits() == 4 ? kernels->dot_w4 : kernels->dot_w8;
    for (const int64_t rows : {1, 2, 4, 7}) {
      const Tensor x = random({rows, weight.in_features});
      const auto inputs = ExactWeight::copy<float>(x);
      Tensor y = Tensor::empty(DType::f32, {rows, weight.out_features});
      dot({.x = inputs.data(),
           .rows = rows,
           .x_stride = weight.in_features,
           .weights = exact.rows,
           .outputs = weight.out_features,
           .depth = weight.in_features,
           .bias = nullptr,
           .y = y.mutable_values<float>().data(),
           .y_stride = weight.out_features});
      EXPECT_LT(product_error(x, expand(weight), {}, y), kProductBound)
          << describe(weight.scheme) << ", " << weight.in_features << " columns, " << rows << " rows";
    }
  }

  /// Compares whatever columns the kernel of this width is asked for with `exact`.
  void expect_expansion(const QuantizedWeight& weight, const Tensor& exact) {
    const ExactWeight parts(weight);
    for (const auto& [column, columns] :
         std::vector<std::pair<int64_t, int64_t>>{{0, 320}, {6, 1}, {14, 5}, {62, 5}, {80, 16}, {96, 193}}) {
      std::vector<float> out(static_cast<size_t>(weight.out_features * columns));
      const auto expand_rows = weight.code_bits() == 4 ? kernels->expand_w4 : kernels->expand_w8;
      expand_rows({.weights = parts.rows,
                   .rows = weight.out_features,
                   .column = column,
                   .columns = columns,
                   .out = out.data(),
                   .stride = columns});
      for (int64_t n = 0; n < weight.out_features; ++n) {
        for (int64_t i = 0; i < columns; ++i) {
          ASSERT_EQ(out[static_cast<size_t>(n * columns + i)], at(exact, n, column + i))
              << describe(weight.scheme) << ", column " << column + i;
        }
      }
    }
  }
};

/// Every width, with and without zeros.
std::vector<QuantizationScheme> schemes_of(std::initializer_list<int64_t> group_sizes) {
  std::vector<QuantizationScheme> schemes;
  for (int bits = 2; bits <= 8; ++bits) {
    for (const bool symmetric : {false, true}) {
      for (const int64_t group : group_sizes) {
        schemes.push_back({.num_bits = bits, .symmetric = symmetric, .group_size = group});
      }
    }
  }
  return schemes;
}

SALIENT_EVERY_ISA(LinearTest);

TEST_P(LinearTest, DenseOfEveryTypeAgreesWithDoublePrecision) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const auto& [outputs, depth] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 1}, {3, 7}, {5, 16}, {17, 33}, {64, 64}, {129, 100}, {131, 1029}}) {
      const Tensor weight = random({outputs, depth}).to(dtype);
      for (const int64_t rows : {1, 2, 3, 4, 5, 7, 8, 9, 17, 33}) {
        const Tensor x = random({rows, depth});
        const Tensor y = run({.dense = weight, .quantized = {}, .bias = {}}, x);
        EXPECT_LT(product_error(x, weight.to(DType::f32), {}, y), kProductBound)
            << to_string(dtype) << " " << rows << " x " << depth << " x " << outputs;
      }
    }
  }
}

TEST_P(LinearTest, AddsABiasOfEveryType) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const Tensor weight = random({37, 50});
    const Tensor bias = random({37}, 10.0f).to(dtype);
    for (const int64_t rows : {1, 6, 21}) {
      const Tensor x = random({rows, 50});
      const Tensor y = run({.dense = weight, .quantized = {}, .bias = bias}, x);
      EXPECT_LT(product_error(x, weight, bias.to(DType::f32), y), kProductBound) << to_string(dtype) << rows;
    }
  }
}

TEST_P(LinearTest, ManyRowsCrossEveryBlockBoundary) {
  const Tensor weight = random({150, 1100}).to(DType::bf16);
  const Tensor x = random({530, 1100});
  const Tensor bias = random({150});
  const Tensor y = run({.dense = weight, .quantized = {}, .bias = bias}, x);
  EXPECT_LT(product_error(x, weight.to(DType::f32), bias, y), kProductBound);
}

/// In panels, and as they are where they are multiplied a few times only.
TEST_P(LinearTest, IntegersAgreeWithDoublePrecisionForEveryScheme) {
  const auto sharing = make_cpu_backend_for(GetParam(), {.repack = false});
  for (const auto& scheme : schemes_of({16, 32, 64, 128, 256, -1, 0})) {
    for (const DType scale_type : {DType::f32, DType::f16, DType::bf16}) {
      const QuantizedWeight weight = random_integers(scheme, 21, 512, scale_type);
      const Tensor bias = random({21});
      for (const int64_t rows : {1, 2, 3, 6, 8, 19}) {
        const Tensor x = random({rows, 512});
        const LinearWeight linear{.dense = {}, .quantized = weight, .bias = bias};
        for (const Tensor& y : {run(linear, x), run_with(*sharing, linear, x)}) {
          EXPECT_LT(product_error(x, expand(weight), bias, y, code_sizes(weight)), kProductBound)
              << describe(scheme) << " rows " << rows;
        }
      }
    }
  }
}

TEST_P(LinearTest, IntegerRowsOfAnyLength) {
  for (const auto& scheme : schemes_of({QuantizationScheme::kWholeRow, QuantizationScheme::kWholeMatrix})) {
    for (const int64_t depth : {1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 47, 48, 63, 100, 1025, 1111}) {
      const QuantizedWeight weight = random_integers(scheme, 7, depth, DType::f32);
      for (const int64_t rows : {1, 3, 4, 12}) {
        const Tensor x = random({rows, depth});
        const Tensor y = run({.dense = {}, .quantized = weight, .bias = {}}, x);
        EXPECT_LT(product_error(x, expand(weight), {}, y, code_sizes(weight)), kProductBound)
            << describe(scheme) << ", " << depth << " rows " << rows;
      }
    }
  }
}

TEST_P(LinearTest, IntegerKernelsReadNothingBehindTheLastRow) {
  for (const auto& scheme : schemes_of({16, QuantizationScheme::kWholeRow})) {
    for (const int64_t depth : {16, 48, 80, 112}) {
      expect_product_in_bounds(random_integers(scheme, 3, depth, DType::f32));
    }
  }
  for (const auto& scheme : schemes_of({QuantizationScheme::kWholeRow})) {
    for (const int64_t depth : {1, 6, 19, 33, 63}) {
      expect_product_in_bounds(random_integers(scheme, 3, depth, DType::f32));
    }
  }
}

TEST_P(LinearTest, IntegersExpandToTheArithmeticOfRecord) {
  for (const auto& scheme : schemes_of({16, 32, 64, -1, 0})) {
    const QuantizedWeight weight = random_integers(scheme, 9, 320);
    const Tensor exact = expand(weight);
    const Tensor of_record = dequantize(weight);
    EXPECT_EQ(std::memcmp(of_record.bytes(), exact.bytes(), exact.byte_size()), 0) << describe(scheme);
    expect_expansion(weight, exact);
  }
}

TEST_P(LinearTest, ARowDoesNotDependOnItsNeighbours) {
  const LinearWeight dense{.dense = random({70, 130}).to(DType::bf16), .quantized = {}, .bias = {}};
  const LinearWeight int4 = random_linear({.num_bits = 4, .group_size = 32}, 70, 128);
  const LinearWeight int8 = random_linear({.num_bits = 8, .group_size = 16}, 70, 128);
  for (const LinearWeight* weight : {&dense, &int4, &int8}) {
    const Tensor x = random({8, weight->in_features()});
    const Tensor together = run(*weight, x);
    for (int64_t r = 0; r < 8; ++r) {
      const Tensor alone = run(*weight, x.slice(r, r + 1));
      EXPECT_EQ(std::memcmp(alone.bytes(), together.slice(r, r + 1).bytes(), alone.byte_size()), 0) << r;
    }
  }
}

TEST_P(LinearTest, SameBytesForAnyThreadCount) {
  const LinearWeight dense{
      .dense = random({300, 260}).to(DType::f16), .quantized = {}, .bias = random({300})};
  const LinearWeight int4 = random_linear({.num_bits = 4, .group_size = 64}, 300, 256);
  const LinearWeight int8 = random_linear({.num_bits = 8, .group_size = 64}, 300, 256);
  for (const LinearWeight* weight : {&dense, &int4, &int8}) {
    for (const int64_t rows : {1, 5, 40, 700}) {
      const Tensor x = random({rows, weight->in_features()});
      expect_same_for_any_thread_count([&] { return run(*weight, x); });
    }
  }
}

TEST_P(LinearTest, RoundedModeMultipliesRoundedOperands) {
  const auto rounding = make_cpu_backend_for(GetParam(), {.precision = MatmulPrecision::bf16});
  if (rounding->description().find("bf16 needs") != std::string::npos) {
    GTEST_SKIP() << "no bf16 products: " << rounding->description();
  }
  const auto round = [](const Tensor& tensor) { return tensor.to(DType::bf16).to(DType::f32); };
  for (const auto& [rows, outputs, depth] : std::vector<std::array<int64_t, 3>>{
           {9, 3, 7}, {16, 64, 64}, {33, 129, 101}, {520, 130, 1100}, {4100, 5, 3}}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      const Tensor weight = random({outputs, depth}).to(dtype);
      const Tensor bias = random({outputs});
      const Tensor x = random({rows, depth});
      const Tensor y = run_with(*rounding, {.dense = weight, .quantized = {}, .bias = bias}, x);
      EXPECT_LT(product_error(round(x), round(weight.to(DType::f32)), bias, y), kProductBound)
          << to_string(dtype) << " " << rows << " x " << depth << " x " << outputs;
    }
  }
  for (int bits = 2; bits <= 8; ++bits) {
    const QuantizedWeight integers = random_integers({.num_bits = bits, .group_size = 128}, 33, 1280);
    const LinearWeight linear{.dense = {}, .quantized = integers, .bias = {}};
    const Tensor x = random({40, 1280});
    EXPECT_LT(product_error(round(x), round(expand(integers)), {}, run_with(*rounding, linear, x)),
              kProductBound);
    const Tensor few = random({3, 1280});
    EXPECT_LT(product_error(few, expand(integers), {}, run_with(*rounding, linear, few)), kProductBound)
        << "few rows are exact in every mode";
    expect_same_for_any_thread_count([&] { return run_with(*rounding, linear, x); });
  }
}

/// Of every format, neighbours that join and neighbours that do not, for few rows and many.
TEST_P(LinearTest, LinearsOfOneInputGiveTheBytesOfEachAlone) {
  const int64_t depth = 256;
  std::vector<LinearWeight> weights{
      random_linear({.num_bits = 4, .group_size = 128}, 96, depth),
      random_linear({.num_bits = 4, .symmetric = true, .group_size = 128}, 17, depth),
      random_linear({.num_bits = 3, .group_size = 128}, 33, depth),
      random_linear({.num_bits = 4, .group_size = 64}, 40, depth),
      random_linear({.num_bits = 8, .group_size = 64}, 23, depth),
      {.dense = random({45, depth}).to(DType::f16), .quantized = {}, .bias = random({45})},
      {.dense = random({200, depth}), .quantized = {}, .bias = {}},
      random_linear({.num_bits = 4, .group_size = 64}, 700, depth),
  };
  weights.front().bias = random({96});
  for (const ActivationMode mode : {ActivationMode::fp32, ActivationMode::int16, ActivationMode::int8}) {
    for (const bool fuse : {true, false}) {
      const auto own = make_cpu_backend_for(GetParam(), {.activations = mode, .fuse_layers = fuse});
      std::vector<std::unique_ptr<PreparedLinear>> prepared;
      for (const LinearWeight& weight : weights) prepared.push_back(own->prepare(weight));
      for (const int64_t rows : {0, 1, 3, 8, 9, 40, 1100}) {
        if (rows > 100 && mode != ActivationMode::int8) continue;
        const Tensor x = random({rows, depth});
        std::vector<Tensor> together;
        std::vector<LinearOutput> outputs;
        together.reserve(prepared.size());
        for (const auto& linear : prepared) {
          together.push_back(Tensor::zeros(DType::f32, {rows, linear->out_features()}));
          outputs.push_back({*linear, together.back()});
        }
        own->linears(outputs, x);
        for (size_t i = 0; i < prepared.size(); ++i) {
          Tensor alone = Tensor::zeros(DType::f32, together[i].shape());
          own->linear(*prepared[i], x, alone);
          ASSERT_EQ(std::memcmp(alone.bytes(), together[i].bytes(), alone.byte_size()), 0)
              << to_string(mode) << ", " << rows << " rows, linear " << i;
        }
      }
    }
  }
}

TEST_P(LinearTest, LinearsOfOneInputAreTheSameBytesForAnyThreadCount) {
  const auto own = make_cpu_backend_for(GetParam(), {.activations = ActivationMode::int8});
  const auto first = own->prepare(random_linear({.num_bits = 4, .group_size = 128}, 900, 512));
  const auto second = own->prepare(random_linear({.num_bits = 4, .group_size = 128}, 130, 512));
  for (const int64_t rows : {1, 30}) {
    const Tensor x = random({rows, 512});
    expect_same_for_any_thread_count([&] {
      Tensor result = Tensor::empty(DType::f32, {rows * 1030, 1});
      Tensor a = Tensor::empty(DType::f32, {rows, 900});
      Tensor b = Tensor::empty(DType::f32, {rows, 130});
      const std::vector<LinearOutput> outputs{{*first, a}, {*second, b}};
      own->linears(outputs, x);
      auto out = result.mutable_values<float>();
      std::ranges::copy(b.values<float>(), std::ranges::copy(a.values<float>(), out.begin()).out);
      return result;
    });
  }
}

TEST_P(LinearTest, NoRowsIsNoWork) {
  const Tensor y =
      run({.dense = random({4, 6}), .quantized = {}, .bias = {}}, Tensor::empty(DType::f32, {0, 6}));
  EXPECT_EQ(y.dim(0), 0);
}

TEST_P(LinearTest, DescribesItsSizes) {
  const auto dense =
      backend->prepare({.dense = random({6, 8}).to(DType::bf16), .quantized = {}, .bias = random({6})});
  EXPECT_EQ(dense->out_features(), 6);
  EXPECT_EQ(dense->in_features(), 8);
  EXPECT_EQ(dense->byte_size(), 6u * 8 * 2 + 6 * 4);
  const auto int4 = backend->prepare(random_linear({.num_bits = 4, .group_size = 32}, 4, 64));
  EXPECT_EQ(int4->byte_size(), 64u + 64 + 8 * 64) << "one panel: scales, zeros, 8 lines";
  const auto int8 = backend->prepare(random_linear({.num_bits = 8, .group_size = 32}, 4, 64));
  EXPECT_EQ(int8->byte_size(), 64u + 64 + 16 * 64) << "the same with 16 lines of 4 columns";
}

TEST_P(LinearTest, WrongSizesAreInternalErrors) {
  const auto weight = backend->prepare({.dense = random({6, 8}), .quantized = {}, .bias = {}});
  Tensor y = Tensor::empty(DType::f32, {2, 6});
  const Tensor narrow = random({2, 7});
  EXPECT_EQ(error_of([&] { backend->linear(*weight, narrow, y); }, ErrorKind::internal),
            "back end: x of a linear is F32 [2, 7], expected F32 [2, 8]");
  Tensor wrong = Tensor::empty(DType::f32, {3, 6});
  const Tensor x = random({2, 8});
  EXPECT_EQ(error_of([&] { backend->linear(*weight, x, wrong); }, ErrorKind::internal),
            "back end: y of a linear is F32 [3, 6], expected F32 [2, 6]");
  error_of([&] { backend->prepare({}); }, ErrorKind::internal);
  error_of(
      [&] {
        backend->prepare({.dense = random({6, 8}), .quantized = {}, .bias = random({5})});
      },
      ErrorKind::internal);
  const auto message_of = [&](const QuantizedWeight& refused) {
    return error_of([&] { backend->prepare({.dense = {}, .quantized = refused, .bias = {}}); },
                    ErrorKind::internal);
  };
  QuantizedWeight broken = random_integers({.num_bits = 4, .group_size = 32}, 4, 64);
  broken.scheme.num_bits = 8;
  EXPECT_NE(message_of(broken).find("int8 weight [4, 64]"), std::string::npos);
  broken.scheme.num_bits = 9;
  EXPECT_NE(message_of(broken).find("9 bits in groups of 32"), std::string::npos);
  broken.scheme.num_bits = 4;
  broken.zeros = Tensor();
  EXPECT_NE(message_of(broken).find("int4 weight [4, 64]"), std::string::npos);
}

}  // namespace
}  // namespace salient::test
