#include <algorithm>
#include <array>
#include <limits>

#include "backend/backend_fixture.h"
#include "backend/cpu/panel_weight.h"
#include "backend/cpu/tiles.h"

namespace salient::test {
namespace {

/// A set of panel kernels, and what a processor must have for them.
struct PanelIsa {
  const char* name;
  const char* forced;     ///< as SALIENT_ISA spells it
  const char* extension;  ///< or null
};

constexpr std::array kPanelIsas{PanelIsa{"portable", "portable", nullptr},
                                PanelIsa{"avx2", "avx2,no-vnni", nullptr},
                                PanelIsa{"avx_vnni", "avx2", "avx_vnni"},
                                PanelIsa{"avx512", "avx512,no-vnni,no-amx", nullptr},
                                PanelIsa{"avx512_vnni", "avx512,no-amx", "avx512_vnni"},
                                PanelIsa{"amx", "avx512", "amx_int8"},
                                PanelIsa{"neon", "neon,no-dotprod", nullptr},
                                PanelIsa{"neon_dotprod", "neon", "asimddp"}};

/// Those that are compiled in.
std::vector<PanelIsa> panel_isas() {
  std::vector<PanelIsa> result;
  for (const PanelIsa& each : kPanelIsas) {
    const auto named = [&](Isa isa) { return std::string_view(each.forced).starts_with(to_string(isa)); };
    if (std::ranges::any_of(built_isas(), named)) result.push_back(each);
  }
  return result;
}

bool has_extension(const IsaChoice& choice, const char* name) {
  if (name == nullptr) return true;
  return std::ranges::count(matrix_extensions(choice), name) > 0 &&
         (std::string_view(name) != "amx_int8" || system_allows_tiles());
}

QuantizedWeight random_codes(std::mt19937& generator, const QuantizationScheme& scheme, int64_t outputs,
                             int64_t depth, DType scale_type = DType::f16) {
  QuantizedWeight weight = allocate_quantized_weight(scheme, outputs, depth, scale_type);
  std::uniform_int_distribution<int> code(0, max_code(scheme));
  for (int64_t n = 0; n < outputs; ++n) {
    for (int64_t k = 0; k < depth; ++k) weight.set_code(n, k, code(generator));
  }
  weight.scales = random_tensor(generator, {outputs, weight.groups()}, 0.01f).to(scale_type);
  if (scheme.symmetric) return weight;
  for (uint8_t& zero : weight.zeros.mutable_values<uint8_t>()) zero = static_cast<uint8_t>(code(generator));
  return weight;
}

std::vector<QuantizationScheme> panel_schemes() {
  std::vector<QuantizationScheme> schemes;
  for (const int bits : {2, 3, 4, 5, 8}) {
    for (const int64_t group : {16, 32, 64, 128, 256, -1, 0}) {
      if (bits != 4 && bits != 8 && group != 64) continue;
      for (const bool symmetric : {false, true})
        schemes.push_back({.num_bits = bits, .symmetric = symmetric, .group_size = group});
    }
  }
  return schemes;
}

/// Columns that a scheme can have; those of whole rows need be a multiple of nothing.
std::vector<int64_t> depths_of(const QuantizationScheme& scheme) {
  if (has_one_group_per_row(scheme)) return {1, 7, 8, 33, 129, 250, 1111};
  return {scheme.group_size, 3 * scheme.group_size};
}

class PanelTest : public testing::TestWithParam<PanelIsa> {
 protected:
  void SetUp() override {
    const IsaChoice named = choice_of(GetParam().forced);
    if (!cpu_supports(named.isa)) GTEST_SKIP() << "this processor lacks " << to_string(named.isa);
    if (!has_extension(named, GetParam().extension))
      GTEST_SKIP() << "this processor lacks " << GetParam().extension;
    choice = named;
    set_thread_count(2);
  }
  void TearDown() override { set_thread_count(2); }

  /// choose_isa would refuse what the processor lacks.
  static IsaChoice choice_of(const std::string& forced) {
    const std::string name = forced.substr(0, forced.find(','));
    IsaChoice result = *std::ranges::find(built_isas(), name, [](Isa isa) { return to_string(isa); });
    result.vnni = forced.find("no-vnni") == std::string::npos;
    result.amx = forced.find("no-amx") == std::string::npos;
    result.dotprod = forced.find("no-dotprod") == std::string::npos;
    return result;
  }

  Tensor run(const QuantizedWeight& weight, const Tensor& bias, const Tensor& x, ActivationMode mode) {
    return run_on(choice, weight, bias, x, mode);
  }
  static Tensor run_on(const IsaChoice& isa, const QuantizedWeight& weight, const Tensor& bias,
                       const Tensor& x, ActivationMode mode) {
    const auto backend = make_cpu_backend_for(isa, {.activations = mode});
    Tensor y = Tensor::empty(DType::f32, {x.dim(0), weight.out_features});
    backend->linear(*backend->prepare({.dense = {}, .quantized = weight, .bias = bias}), x, y);
    return y;
  }
  Tensor random(Shape shape, float scale = 1.0f) { return random_tensor(generator, std::move(shape), scale); }

  IsaChoice choice{Isa::portable};
  std::mt19937 generator{7};
};

INSTANTIATE_TEST_SUITE_P(Isa, PanelTest, testing::ValuesIn(panel_isas()),
                         [](const auto& each) { return std::string(each.param.name); });

/// The largest |x| of the block of each element.
Tensor block_magnitudes(const Tensor& x, int64_t group_width) {
  Tensor result = Tensor::empty(DType::f32, x.shape());
  const int64_t depth = x.dim(1);
  auto out = result.mutable_values<float>();
  for (int64_t r = 0; r < x.dim(0); ++r) {
    for (int64_t group = 0; group < depth; group += group_width) {
      const int64_t group_end = std::min(depth, group + group_width);
      for (int64_t begin = group; begin < group_end; begin += 128) {
        const int64_t end = std::min(group_end, begin + 128);
        float most = 0;
        for (int64_t k = begin; k < end; ++k) most = std::max(most, std::abs(at(x, r, k)));
        for (int64_t k = begin; k < end; ++k) out[static_cast<size_t>(r * depth + k)] = most;
      }
    }
  }
  return result;
}

/// What activations become, as panels.h says it.
Tensor rounded_inputs(const Tensor& x, int64_t group_width, ActivationMode mode) {
  Tensor result = block_magnitudes(x, group_width);
  const float steps = mode == ActivationMode::int8 ? 127 : 32639;
  auto out = result.mutable_values<float>();
  for (size_t i = 0; i < out.size(); ++i) {
    const float most = out[i];
    out[i] = most == 0 ? 0 : std::nearbyint(x.values<float>()[i] * (steps / most)) * (most / steps);
  }
  return result;
}

/// Largest |y - x W^T| over what rounding each x by `half_step` of its block's largest can make of it.
double rounding_share(const Tensor& x, const Tensor& weight, int64_t group_width, double half_step,
                      const Tensor& y) {
  const Tensor most = block_magnitudes(x, group_width);
  double worst = 0;
  for (int64_t r = 0; r < x.dim(0); ++r) {
    for (int64_t n = 0; n < weight.dim(0); ++n) {
      double exact = 0;
      double allowed = 1e-30;
      for (int64_t k = 0; k < x.dim(1); ++k) {
        const double size = std::abs(double{at(weight, n, k)});
        exact += double{at(x, r, k)} * double{at(weight, n, k)};
        allowed += size * (double{at(most, r, k)} * half_step + std::abs(double{at(x, r, k)}) * 1e-6);
      }
      worst = std::max(worst, std::abs(double{at(y, r, n)} - exact) / allowed);
    }
  }
  return worst;
}

constexpr double kProductBound = 1.5e-6;  // see linear_test.cc

TEST(Panels, UnpackingIsTheInverseOfPacking) {
  std::mt19937 generator(3);
  for (const auto& scheme : panel_schemes()) {
    for (const int64_t depth : depths_of(scheme)) {
      for (const int64_t outputs : {1, 15, 16, 17, 50}) {
        const QuantizedWeight weight = random_codes(generator, scheme, outputs, depth);
        ASSERT_TRUE(PanelWeight::takes(scheme, depth));
        const PanelWeight panels(weight);
        std::vector<uint8_t> row(static_cast<size_t>(weight.row_bytes()));
        for (int64_t n = 0; n < outputs; ++n) {
          panels.unpack_row(n, row);
          ASSERT_EQ(std::memcmp(row.data(), weight.codes.bytes() + n * weight.row_bytes(), row.size()), 0)
              << describe(scheme) << " " << outputs << " x " << depth << ", row " << n;
        }
      }
    }
  }
}

TEST(Panels, TheSameBytesEveryTimeAndFromAnywhere) {
  std::mt19937 generator(3);
  const QuantizedWeight weight = random_codes(generator, {.num_bits = 4, .group_size = 32}, 21, 96);
  const PanelWeight first(weight);
  const PanelWeight second(weight);
  EXPECT_EQ(first.byte_size(), 2u * (128 + 64 + 12 * 64))
      << "96 bytes of scales and 48 of zeros on whole lines";
  EXPECT_EQ(std::memcmp(first.bytes().bytes(), second.bytes().bytes(), first.byte_size()), 0);
  const PanelWeight view(first.layout(), first.bytes());
  EXPECT_EQ(view.view().codes, first.view().codes);
  error_of([&] { PanelWeight(first.layout(), Tensor::empty(DType::u8, {64})); }, ErrorKind::bad_format);
  const PanelWeight bytes(random_codes(generator, {.num_bits = 8, .group_size = 32}, 21, 96));
  EXPECT_EQ(bytes.byte_size(), 2u * (128 + 64 + 12 * 128));
}

TEST(Panels, ALayoutIsNumbersAndBack) {
  std::mt19937 generator(3);
  for (const int bits : {4, 8}) {
    const PanelWeight weight(random_codes(generator, {.num_bits = bits, .group_size = 32}, 21, 96));
    const PanelLayout same = PanelLayout::from_numbers(weight.layout().to_numbers());
    EXPECT_EQ(same.code, bits == 4 ? PanelCode::nibble : PanelCode::byte);
    EXPECT_EQ(same.scale_type, PanelScale::f16);
    EXPECT_EQ(same.byte_size(), weight.byte_size());
    EXPECT_EQ(same.view(weight.bytes().bytes()).codes, weight.view().codes);
  }
}

/// Activations become floats in one form for nibbles, in another for bytes.
TEST(Panels, WhatJoins) {
  std::mt19937 generator(3);
  const auto panels = [&](int bits, int64_t group) {
    return PanelWeight(random_codes(generator, {.num_bits = bits, .group_size = group}, 21, 64));
  };
  EXPECT_TRUE(panels(4, 32).joins(panels(3, 32)));
  EXPECT_TRUE(panels(5, 32).joins(panels(8, 32)));
  EXPECT_FALSE(panels(4, 32).joins(panels(8, 32)));
  EXPECT_FALSE(panels(8, 32).joins(panels(8, 64)));
}

TEST(Panels, WhatTheLayoutDoesNotTake) {
  for (const int bits : {4, 8}) {
    EXPECT_FALSE(PanelWeight::takes({.num_bits = bits, .group_size = 12}, 256));
    EXPECT_TRUE(PanelWeight::takes({.num_bits = bits, .group_size = 24}, 256));
  }
}

TEST(Panels, ModesHaveNames) {
  for (const ActivationMode mode : {ActivationMode::fp32, ActivationMode::int16, ActivationMode::int8})
    EXPECT_EQ(activation_mode_by_name(to_string(mode)), mode);
  EXPECT_EQ(error_of([] { activation_mode_by_name("fp8"); }, ErrorKind::invalid_argument),
            "activations \"fp8\" are not known (fp32, int16, int8, fp16, bf16)");
}

TEST_P(PanelTest, ExpandsToTheArithmeticOfRecord) {
  const PanelKernels kernels = panel_kernels_for(choice);
  for (const auto& scheme : panel_schemes()) {
    for (const DType scale_type : {DType::f32, DType::f16, DType::bf16}) {
      const int64_t depth = depths_of(scheme).back();
      const QuantizedWeight weight = random_codes(generator, scheme, 37, depth, scale_type);
      const PanelWeight panels(weight);
      const Tensor exact = dequantize(weight);
      const int64_t first = std::min<int64_t>(2, panels.layout().lines() - 1);
      const int64_t lines = panels.layout().lines() - first;
      std::vector<float> out(static_cast<size_t>(lines * 8 * 16));
      for (int64_t panel = 0; panel < 3; ++panel) {
        kernels.expand({panels.view(), panel, first, lines, out.data(), 16});
        for (int64_t n = panel * 16; n < std::min<int64_t>(37, panel * 16 + 16); ++n) {
          for (int64_t k = first * 8; k < depth; ++k) {
            ASSERT_EQ(out[static_cast<size_t>((k - first * 8) * 16 + n % 16)], at(exact, n, k))
                << describe(scheme) << " row " << n << " column " << k;
          }
        }
      }
    }
  }
}

TEST_P(PanelTest, EveryModeAgreesWithDoublePrecision) {
  for (const auto& scheme : panel_schemes()) {
    for (const int64_t depth : depths_of(scheme)) {
      const DType scale_type = depth % 3 == 0 ? DType::bf16 : depth % 2 == 0 ? DType::f16 : DType::f32;
      const QuantizedWeight weight = random_codes(generator, scheme, 37, depth, scale_type);
      const Tensor exact = dequantize(weight);
      const Tensor bias = random({37});
      const int64_t width = group_width(scheme, depth);
      for (const int64_t rows : {1, 3, 9}) {
        const Tensor x = random({rows, depth});
        const std::string where =
            describe(scheme) + ", " + std::to_string(depth) + " columns, " + std::to_string(rows) + " rows";
        EXPECT_LT(
            product_error(x, exact, bias, run(weight, bias, x, ActivationMode::fp32), code_sizes(weight)),
            kProductBound)
            << where;
        for (const ActivationMode mode : {ActivationMode::int8, ActivationMode::int16}) {
          const Tensor y = run(weight, {}, x, mode);
          const double half_step = mode == ActivationMode::int8 ? 1.0 / 254 : 1.0 / 65278;
          EXPECT_LT(rounding_share(x, exact, width, half_step, y), 1.0) << where << to_string(mode);
          EXPECT_LT(product_error(rounded_inputs(x, width, mode), exact, {}, y), 1e-6)
              << where << to_string(mode);
        }
      }
    }
  }
}

TEST_P(PanelTest, IntegerModesGiveTheBytesOfThePortableKernels) {
  for (const auto& scheme : panel_schemes()) {
    const int64_t depth = depths_of(scheme).back();
    const QuantizedWeight weight = random_codes(generator, scheme, 85, depth);
    const Tensor bias = random({85});
    for (const ActivationMode mode : {ActivationMode::int8, ActivationMode::int16}) {
      for (const int64_t rows : {1, 3, 8, 13, 31, 50}) {
        const Tensor x = random({rows, depth});
        const Tensor own = run(weight, bias, x, mode);
        const Tensor portable = run_on(Isa::portable, weight, bias, x, mode);
        ASSERT_EQ(std::memcmp(own.bytes(), portable.bytes(), own.byte_size()), 0)
            << describe(scheme) << ", " << rows << " rows, " << to_string(mode);
      }
    }
  }
}

TEST_P(PanelTest, ARowDoesNotDependOnItsNeighbours) {
  const Tensor x = random({230, 320});
  for (const int bits : {4, 8}) {
    const QuantizedWeight weight = random_codes(generator, {.num_bits = bits, .group_size = 64}, 150, 320);
    for (const ActivationMode mode : {ActivationMode::fp32, ActivationMode::int16, ActivationMode::int8}) {
      // Exact products with more than 8 rows go to another library: those of few rows agree among themselves.
      const int64_t most = mode == ActivationMode::fp32 ? 8 : 230;
      const Tensor together = run(weight, {}, x.slice(0, most), mode);
      for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 9, 12, 15, 16, 17, 33, 100}) {
        if (rows > most) continue;
        for (const int64_t first : {int64_t{0}, most - rows}) {
          const Tensor some = run(weight, {}, x.slice(first, first + rows), mode);
          const Tensor same = together.slice(first, first + rows);
          ASSERT_EQ(std::memcmp(some.bytes(), same.bytes(), some.byte_size()), 0)
              << bits << " bits, " << to_string(mode) << ", " << rows << " rows from " << first;
        }
      }
    }
  }
}

/// More rows than are made integers at a time, more of them than a strip, and the last ones of either.
TEST_P(PanelTest, RowsOfLongPromptsDoNotDependOnWhereTheyStand) {
  struct Case {
    int64_t rows, depth, group;
    int bits;
  };
  for (const Case& each : {Case{1100, 64, 32, 4}, Case{300, 2048, 128, 4}, Case{300, 2048, 128, 8}}) {
    const QuantizedWeight weight =
        random_codes(generator, {.num_bits = each.bits, .group_size = each.group}, 150, each.depth);
    const Tensor bias = random({150});
    const Tensor x = random({each.rows, each.depth});
    for (const ActivationMode mode : {ActivationMode::int16, ActivationMode::int8}) {
      const Tensor together = run(weight, bias, x, mode);
      for (int64_t first = 0; first < each.rows; first += 37) {
        const int64_t end = std::min(each.rows, first + 37);
        const Tensor some = run(weight, bias, x.slice(first, end), mode);
        ASSERT_EQ(std::memcmp(some.bytes(), together.slice(first, end).bytes(), some.byte_size()), 0)
            << to_string(mode) << ", rows from " << first << " of " << each.rows;
      }
    }
  }
}

TEST_P(PanelTest, SameBytesForAnyThreadCount) {
  for (const int bits : {4, 8}) {
    const QuantizedWeight weight = random_codes(generator, {.num_bits = bits, .group_size = 128}, 700, 512);
    for (const ActivationMode mode : {ActivationMode::fp32, ActivationMode::int16, ActivationMode::int8}) {
      for (const int64_t rows : {1, 6, 40, 300}) {
        const Tensor x = random({rows, 512});
        expect_same_for_any_thread_count([&] { return run(weight, {}, x, mode); });
      }
    }
  }
}

/// Weights [16, 384] of the largest codes, which are worth themselves.
QuantizedWeight largest_codes(int bits) {
  std::mt19937 generator(1);
  QuantizedWeight weight =
      random_codes(generator, {.num_bits = bits, .group_size = 128}, 16, 384, DType::f32);
  for (int64_t n = 0; n < 16; ++n) {
    for (int64_t k = 0; k < 384; ++k) weight.set_code(n, k, max_code(weight.scheme));
  }
  std::ranges::fill(weight.zeros.mutable_values<uint8_t>(), uint8_t{0});
  std::ranges::fill(weight.scales.mutable_values<float>(), 1.0f);
  return weight;
}

class LargestSums : public PanelTest {
 protected:
  void expect_exact(int bits);
};

INSTANTIATE_TEST_SUITE_P(Isa, LargestSums, testing::ValuesIn(panel_isas()),
                         [](const auto& each) { return std::string(each.param.name); });

/// Pairs of products are added up in 16 bits: at most 8 of 2 * 15 * 128 each.
TEST_P(LargestSums, OfNibblesDoNotOverflow) { expect_exact(4); }
TEST_P(LargestSums, OfBytesDoNotOverflow) { expect_exact(8); }

void LargestSums::expect_exact(int bits) {
  const QuantizedWeight weight = largest_codes(bits);
  for (const float value : {1.0f, -1.0f}) {
    // In two planes -1 is 256 * -127 - 127; 0.99610 is 256 * 127 and the low plane -128 comes from 0.99216.
    for (const float others : {value, value * (32512.0f / 32639.0f), value * (32384.0f / 32639.0f)}) {
      Tensor x = Tensor::empty(DType::f32, {20, 384});
      std::ranges::fill(x.mutable_values<float>(), others);
      for (int64_t r = 0; r < 20; ++r) {
        for (int64_t k = 0; k < 384; k += 128)
          x.mutable_values<float>()[static_cast<size_t>(r * 384 + k)] = value;
      }
      for (const ActivationMode mode : {ActivationMode::int8, ActivationMode::int16}) {
        const Tensor rounded = rounded_inputs(x, 128, mode);
        EXPECT_LT(product_error(rounded, dequantize(weight), {}, run(weight, {}, x, mode)), 1e-6)
            << to_string(mode) << " " << others;
      }
    }
  }
}

TEST_P(PanelTest, ZerosTinyNumbersAndThoseThatAreNone) {
  const QuantizedWeight weight = random_codes(generator, {.num_bits = 4, .group_size = 64}, 20, 192);
  const float infinity = std::numeric_limits<float>::infinity();
  for (const ActivationMode mode : {ActivationMode::int16, ActivationMode::int8}) {
    Tensor x = Tensor::zeros(DType::f32, {4, 192});
    auto values = x.mutable_values<float>();
    std::ranges::fill(values.subspan(192, 192), 1e-35f);
    values[2 * 192 + 70] = infinity;
    values[3 * 192 + 191] = std::numeric_limits<float>::quiet_NaN();
    const Tensor y = run(weight, {}, x, mode);
    for (int64_t n = 0; n < 20; ++n) {
      EXPECT_EQ(at(y, 0, n), 0.0f);
      EXPECT_EQ(at(y, 1, n), 0.0f) << "below 1e-30 counts as zero";
      EXPECT_TRUE(std::isnan(at(y, 2, n)));
      EXPECT_TRUE(std::isnan(at(y, 3, n)));
    }
  }
}

TEST_P(PanelTest, NothingIsWrittenBehindTheLastOutput) {
  const PanelKernels kernels = panel_kernels_for(choice);
  const QuantizedWeight weight = random_codes(generator, {.num_bits = 4, .group_size = 32}, 21, 96);
  const PanelWeight panels(weight);
  const Tensor x = random({3, 96});
  std::vector<float> values(3 * 96);
  std::vector<float> sums(9);
  kernels.prepare_floats(
      {PanelCode::nibble, x.values<float>().data(), 3, 96, 12, 3, 4, values.data(), sums.data()});
  std::vector<float> y(3 * 32, -7.0f);
  kernels.multiply_floats({.weights = panels.view(),
                           .inputs = {values.data(), sums.data(), 3},
                           .begin = 1,
                           .end = 2,
                           .outputs = 21,
                           .bias = nullptr,
                           .y = y.data(),
                           .y_stride = 32,
                           .scratch = nullptr});
  for (size_t i = 0; i < y.size(); ++i)
    EXPECT_EQ(y[i] != -7.0f, i % 32 >= 16 && i % 32 < 21) << "element " << i % 32 << " of row " << i / 32;
}

/// A weight that the layout does not take is exact in every mode.
TEST_P(PanelTest, OtherWeightsAreNotTouchedByTheMode) {
  const QuantizedWeight weight = random_codes(generator, {.num_bits = 6, .group_size = 12}, 20, 192);
  const Tensor x = random({3, 192});
  const Tensor exact = run(weight, {}, x, ActivationMode::fp32);
  const Tensor integer = run(weight, {}, x, ActivationMode::int8);
  EXPECT_EQ(std::memcmp(exact.bytes(), integer.bytes(), exact.byte_size()), 0);
}

TEST_P(PanelTest, TheDescriptionNamesTheMode) {
  const auto backend = make_cpu_backend_for(choice, {.activations = ActivationMode::int16});
  EXPECT_NE(backend->description().find(", f32, int16 activations"), std::string::npos)
      << backend->description();
  EXPECT_NE(backend->arithmetic(), make_cpu_backend_for(choice, {})->arithmetic());
}

}  // namespace
}  // namespace salient::test
