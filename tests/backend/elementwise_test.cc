#include <numbers>

#include "backend/backend_fixture.h"

namespace salient::test {
namespace {

class ElementwiseTest : public EveryIsa {
 protected:
  static double worst_difference(const Tensor& tensor, const std::function<double(size_t)>& exact) {
    double worst = 0;
    const auto values = tensor.values<float>();
    for (size_t i = 0; i < values.size(); ++i) {
      const double wanted = exact(i);
      worst = std::max(worst, std::abs(double{values[i]} - wanted) / (std::abs(wanted) + 1e-6));
    }
    return worst;
  }
};

SALIENT_EVERY_ISA(ElementwiseTest);

TEST_P(ElementwiseTest, ExponentialHasTwoUlpAtMost) {
  std::vector<float> x;
  for (float value = -87.3f; value < 88.7f; value += 0.00137f) x.push_back(value);
  std::vector<float> y(x.size());
  kernels->exponential(x.data(), static_cast<int64_t>(x.size()), y.data());
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = std::exp(double{x[i]});
    worst = std::max(worst, std::abs(double{y[i]} - exact) / exact);
  }
  EXPECT_LT(worst, 2e-7);
}

TEST_P(ElementwiseTest, ExponentialAtTheEdges) {
  const std::vector<float> x{0.0f, -0.0f, -INFINITY, INFINITY, NAN, 100.0f, -200.0f, -103.0f};
  std::vector<float> y(x.size());
  kernels->exponential(x.data(), static_cast<int64_t>(x.size()), y.data());
  EXPECT_EQ(y[0], 1.0f);
  EXPECT_EQ(y[1], 1.0f);
  EXPECT_NEAR(y[2], 0.0f, 1e-44f);
  EXPECT_EQ(y[3], INFINITY);
  EXPECT_TRUE(std::isnan(y[4]));
  EXPECT_EQ(y[5], INFINITY);
  EXPECT_NEAR(y[6], 0.0f, 1e-44f);
  EXPECT_NEAR(y[7], 1.4e-45f, 1e-44f);
}

TEST_P(ElementwiseTest, SumAndNormGiveTheBytesOfBothAfterOneAnother) {
  for (const int64_t features : {1, 17, 64, 300}) {
    for (const int64_t rows : {0, 1, 5, 200}) {
      const Tensor x = random({rows, features});
      const Tensor weight = random({features});
      const Tensor before = random({rows, features});
      const auto copy = [&] {
        Tensor result = Tensor::empty(DType::f32, before.shape());
        std::memcpy(result.mutable_bytes(), before.bytes(), before.byte_size());
        return result;
      };
      Tensor sum = copy();
      Tensor y = Tensor::empty(DType::f32, x.shape());
      backend->add_rms_norm({.x = x, .weight = weight, .epsilon = 1e-5, .sum = sum, .y = y});
      Tensor expected_sum = copy();
      Tensor expected = Tensor::empty(DType::f32, x.shape());
      backend->add(x, expected_sum);
      backend->rms_norm(expected_sum, weight, 1e-5, expected);
      EXPECT_EQ(std::memcmp(sum.bytes(), expected_sum.bytes(), sum.byte_size()), 0);
      EXPECT_EQ(std::memcmp(y.bytes(), expected.bytes(), y.byte_size()), 0) << rows << " x " << features;
    }
  }
}

TEST_P(ElementwiseTest, SoftmaxSumsToOne) {
  for (const int64_t count : {1, 2, 7, 8, 15, 16, 17, 33, 1000}) {
    const Tensor scores = random({count}, 5.0f);
    std::vector<float> x(scores.values<float>().begin(), scores.values<float>().end());
    const SoftmaxTotal divisor = kernels->softmax(x.data(), count);
    double total = 0;
    double highest = -1e300;
    for (const float score : scores.values<float>()) highest = std::max(highest, double{score});
    for (const float score : scores.values<float>()) total += std::exp(double{score} - highest);
    EXPECT_EQ(double{divisor.highest}, highest) << count;
    EXPECT_NEAR(divisor.sum, total, 3e-6 * total) << count;
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = std::exp(double{scores.values<float>()[i]} - highest) / total;
      // exp's argument carries the rounding of one subtraction of numbers up to about 30.
      EXPECT_NEAR(x[i], exact, 3e-6 * exact) << count;
    }
  }
}

TEST_P(ElementwiseTest, ShortProductsAgreeWithDoublePrecision) {
  for (const int64_t depth : {1, 7, 16, 20, 64, 131}) {
    for (const int64_t outputs : {1, 3, 8, 15, 16, 17, 40}) {
      for (const int64_t rows : {1, 2, 5}) {
        const Tensor x = random({rows, depth});
        const Tensor weight = random({outputs, depth + 3});
        const Tensor inner = [&] {  // the weight's first columns, for its rows are further apart
          Tensor result = Tensor::empty(DType::f32, {outputs, depth});
          for (int64_t n = 0; n < outputs; ++n) {
            std::copy_n(weight.values<float>().data() + n * (depth + 3), depth,
                        result.mutable_values<float>().data() + n * depth);
          }
          return result;
        }();
        std::vector<float> memory(static_cast<size_t>(rows * outputs + 1), 7.0f);
        kernels->dot_short({.x = x.values<float>().data(),
                            .rows = rows,
                            .x_stride = depth,
                            .weights = weight.values<float>().data(),
                            .weight_stride = depth + 3,
                            .outputs = outputs,
                            .depth = depth,
                            .bias = nullptr,
                            .y = memory.data(),
                            .y_stride = outputs});
        Tensor y = Tensor::empty(DType::f32, {rows, outputs});
        std::copy_n(memory.data(), rows * outputs, y.mutable_values<float>().data());
        EXPECT_LT(product_error(x, inner, {}, y), 1e-6) << rows << " x " << outputs << " x " << depth;
        EXPECT_EQ(memory.back(), 7.0f);
      }
    }
  }
}

TEST_P(ElementwiseTest, WeightedSumsOfAnyShape) {
  for (const int64_t rows : {1, 3, 4, 5, 8, 9}) {
    for (const int64_t features : {1, 16, 20, 32, 64, 75, 130, 300}) {
      for (const int64_t count : {0, 1, 13, 40}) {
        const Tensor factors = random({rows, count + 2});
        const Tensor values = random({std::max<int64_t>(1, count), features + 5});
        const auto sums = [&](int64_t first, int64_t some) {
          std::vector<float> out(static_cast<size_t>(some * (features + 1)), 7.0f);
          kernels->weighted_sum({.factors = factors.values<float>().data() + first * (count + 2),
                                 .factor_stride = count + 2,
                                 .rows = some,
                                 .count = count,
                                 .values = values.values<float>().data(),
                                 .stride = features + 5,
                                 .features = features,
                                 .out = out.data(),
                                 .out_stride = features + 1});
          return out;
        };
        const std::vector<float> all = sums(0, rows);
        for (int64_t r = 0; r < rows; ++r) {
          const float* out = all.data() + r * (features + 1);
          for (int64_t f = 0; f < features; ++f) {
            double exact = 0;
            for (int64_t i = 0; i < count; ++i) exact += double{at(factors, r, i)} * double{at(values, i, f)};
            ASSERT_NEAR(out[f], exact, 3e-5) << rows << " x " << features << ", " << count;
          }
          EXPECT_EQ(out[features], 7.0f);
          const std::vector<float> alone = sums(r, 1);
          EXPECT_EQ(std::memcmp(alone.data(), out, alone.size() * sizeof(float)), 0);
        }
      }
    }
  }
}

TEST_P(ElementwiseTest, ConversionsAreExactOrRoundToEven) {
  std::vector<uint16_t> bits(1 << 16);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint16_t>(i);
  const auto count = static_cast<int64_t>(bits.size()) - 3;
  std::vector<float> wide(bits.size());
  const auto same = [](float a, float b) { return std::isnan(a) ? std::isnan(b) : a == b; };
  kernels->widen_f16(bits.data(), count, wide.data());
  for (int64_t i = 0; i < count; ++i) {
    ASSERT_TRUE(same(wide[static_cast<size_t>(i)], to_float(Half{static_cast<uint16_t>(i)}))) << i;
  }
  kernels->widen_bf16(bits.data(), count, wide.data());
  for (int64_t i = 0; i < count; ++i) {
    ASSERT_TRUE(same(wide[static_cast<size_t>(i)], to_float(BFloat16{static_cast<uint16_t>(i)}))) << i;
  }
  std::vector<float> values;
  for (uint32_t i = 0; i < 1u << 16; ++i) {
    for (const uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      values.push_back(std::bit_cast<float>(i << 16 | low));
    }
  }
  values.resize(values.size() - 5);
  std::vector<uint16_t> narrow(values.size());
  kernels->narrow_bf16(values.data(), static_cast<int64_t>(values.size()), narrow.data());
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(narrow[i], to_bfloat16(values[i]).bits) << std::bit_cast<uint32_t>(values[i]);
  }
  kernels->narrow_f16(values.data(), static_cast<int64_t>(values.size()), narrow.data());
  for (size_t i = 0; i < values.size(); ++i) {
    const float expected = to_float(to_half(std::clamp(values[i], -65504.0f, 65504.0f)));
    ASSERT_TRUE(same(to_float(Half{narrow[i]}), std::isnan(values[i]) ? NAN : expected)) << values[i];
  }
}

TEST_P(ElementwiseTest, IntegersOfAByteAndBack) {
  for (const int64_t count : {1, 7, 8, 15, 16, 33, 300}) {
    std::vector<float> values(static_cast<size_t>(count));
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(static_cast<int>(i * 37 % 509) - 254) / 2;  // halves: ties to even
    std::vector<int8_t> codes(values.size());
    kernels->narrow_int8(values.data(), count, 0.5f, codes.data());
    for (size_t i = 0; i < values.size(); ++i)
      ASSERT_EQ(codes[i], std::lrintf(values[i] * 0.5f)) << values[i];
    std::vector<float> wide(values.size());
    kernels->widen_int8(codes.data(), count, 0.3f, wide.data());
    for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(wide[i], static_cast<float>(codes[i]) * 0.3f);
  }
}

TEST_P(ElementwiseTest, RmsNormOfRowsAndOfHeads) {
  for (const auto& [rows, width, features] : std::vector<std::array<int64_t, 3>>{
           {1, 1, 1}, {3, 5, 5}, {33, 64, 64}, {7, 60, 20}, {2, 1029, 1029}, {5, 96, 32}}) {
    const Tensor x = random({rows, width}, 3.0f);
    const Tensor weight = random({features});
    Tensor y = Tensor::empty(DType::f32, {rows, width});
    const double epsilon = 1e-5;
    backend->rms_norm(x, weight, epsilon, y);
    const auto exact = [&, f = static_cast<size_t>(features)](size_t i) {
      double squares = 0;
      for (size_t j = i / f * f; j < i / f * f + f; ++j) squares += std::pow(double{x.values<float>()[j]}, 2);
      return double{x.values<float>()[i]} / std::sqrt(squares / static_cast<double>(f) + epsilon) *
             double{weight.values<float>()[i % f]};
    };
    EXPECT_LT(worst_difference(y, exact), 3e-7);
    Tensor in_place = x.to(DType::f32);
    backend->rms_norm(in_place, weight, epsilon, in_place);
    EXPECT_EQ(std::memcmp(in_place.bytes(), y.bytes(), y.byte_size()), 0);
  }
}

TEST_P(ElementwiseTest, AddIsExact) {
  for (const int64_t features : {1, 7, 16, 100}) {
    const Tensor x = random({33, features});
    const Tensor before = random({33, features});
    Tensor y = before.to(DType::f32);
    backend->add(x, y);
    EXPECT_EQ(worst_difference(
                  y, [&](size_t i) { return double{x.values<float>()[i] + before.values<float>()[i]}; }),
              0.0);
  }
}

TEST_P(ElementwiseTest, OneValueThatIsNoNumberIsFound) {
  for (const int64_t count : {1, 15, 16, 33, 100, 20000, 70001}) {
    Tensor x = random({1, count});
    auto values = x.mutable_values<float>();
    values[0] = 3e38f;
    EXPECT_TRUE(backend->all_finite(x)) << count;
    for (const float bad : {INFINITY, -INFINITY, NAN}) {
      for (const size_t at : {size_t{0}, values.size() / 2, values.size() - 1}) {
        const float before = values[at];
        values[at] = bad;
        EXPECT_FALSE(backend->all_finite(x)) << bad << " at " << at << " of " << count;
        values[at] = before;
      }
    }
  }
}

TEST_P(ElementwiseTest, RopeRotatesHalvesAndPassesTheRest) {
  for (const auto& [head_dim, half] :
       std::vector<std::pair<int64_t, int64_t>>{{2, 1}, {14, 7}, {64, 32}, {80, 10}, {6, 0}}) {
    constexpr int64_t kRows = 5;
    constexpr int64_t kHeads = 3;
    const Tensor before = random({kRows, kHeads * head_dim});
    Tensor cosine = Tensor::empty(DType::f32, {kRows, half});
    Tensor sine = Tensor::empty(DType::f32, {kRows, half});
    for (size_t i = 0; i < static_cast<size_t>(kRows * half); ++i) {
      cosine.mutable_values<float>()[i] = std::cos(0.37f * static_cast<float>(i));
      sine.mutable_values<float>()[i] = std::sin(0.37f * static_cast<float>(i));
    }
    Tensor x = before.to(DType::f32);
    backend->rope({.cosine = cosine, .sine = sine, .head_dim = head_dim, .x = x});
    for (int64_t row = 0; row < kRows; ++row) {
      for (int64_t column = 0; column < kHeads * head_dim; ++column) {
        const int64_t feature = column % head_dim;
        double exact = at(before, row, column);
        if (feature < 2 * half) {
          const bool first = feature < half;
          const double other = at(before, row, first ? column + half : column - half);
          const auto angle = static_cast<size_t>(row * half + feature % half);
          exact = exact * double{cosine.values<float>()[angle]} +
                  (first ? -1 : 1) * other * double{sine.values<float>()[angle]};
        }
        EXPECT_NEAR(at(x, row, column), exact, 1e-6);
      }
    }
  }
}

TEST_P(ElementwiseTest, GatedActivations) {
  const auto activate = [](Activation activation, double x) {
    switch (activation) {
      case Activation::silu:
        return x / (1 + std::exp(-x));
      case Activation::gelu:
        return 0.5 * x * (1 + std::erf(x / std::numbers::sqrt2));
      case Activation::gelu_tanh:
        return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
      case Activation::relu:
        return std::max(x, 0.0);
      case Activation::sigmoid:
        return 1 / (1 + std::exp(-x));
    }
    return 0.0;
  };
  for (const Activation activation :
       {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu, Activation::sigmoid}) {
    for (const int64_t features : {1, 7, 16, 333}) {
      const Tensor gate = random({9, features}, 3.0f);
      const Tensor up = random({9, features});
      Tensor y = Tensor::empty(DType::f32, {9, features});
      backend->gated_activation(activation, gate, up, y);
      for (size_t i = 0; i < y.values<float>().size(); ++i) {
        const double x = gate.values<float>()[i];
        const double exact = activate(activation, x) * double{up.values<float>()[i]};
        // 1 + erf and 1 + tanh lose digits for negative x, in the reference of gelu as well: bounded against
        // |x|.
        const double size = std::abs(x * double{up.values<float>()[i]}) + std::abs(exact);
        EXPECT_NEAR(y.values<float>()[i], exact, 4e-7 * (size + 1e-6));
      }
      Tensor in_place = gate.to(DType::f32);
      backend->gated_activation(activation, in_place, up, in_place);
      EXPECT_EQ(std::memcmp(in_place.bytes(), y.bytes(), y.byte_size()), 0);
    }
  }
}

TEST_P(ElementwiseTest, LargeGatesStayFinite) {
  const std::vector<float> gates{-1000.0f, -88.9f, 88.9f, 1000.0f};
  const Tensor gate = Tensor::of<float>({1, 4}, gates);
  const Tensor up = Tensor::of<float>({1, 4}, std::vector<float>(4, 1.0f));
  Tensor y = Tensor::empty(DType::f32, {1, 4});
  for (const Activation activation : {Activation::silu, Activation::gelu_tanh, Activation::gelu}) {
    backend->gated_activation(activation, gate, up, y);
    EXPECT_NEAR(y.values<float>()[0], 0, 1e-30);
    EXPECT_NEAR(y.values<float>()[1], 0, 1e-30);
    EXPECT_EQ(y.values<float>()[2], 88.9f);
    EXPECT_EQ(y.values<float>()[3], 1000.0f);
  }
}

TEST_P(ElementwiseTest, EmbedReadsRowsOfEveryType) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const Tensor table = random({11, 37}).to(dtype);
    const Tensor exact = table.to(DType::f32);
    const std::vector<int32_t> tokens{0, 10, 3, 3};
    Tensor y = Tensor::empty(DType::f32, {4, 37});
    backend->embed(table, tokens, y);
    for (int64_t r = 0; r < 4; ++r) {
      for (int64_t f = 0; f < 37; ++f) EXPECT_EQ(at(y, r, f), at(exact, tokens[static_cast<size_t>(r)], f));
    }
  }
}

TEST_P(ElementwiseTest, SameBytesForAnyThreadCount) {
  const Tensor x = random({200, 300});
  const Tensor up = random({200, 300});
  const Tensor weight = random({300});
  expect_same_for_any_thread_count([&] {
    Tensor y = Tensor::empty(DType::f32, {200, 300});
    backend->rms_norm(x, weight, 1e-6, y);
    backend->gated_activation(Activation::silu, y, up, y);
    backend->add(x, y);
    return y;
  });
}

TEST_P(ElementwiseTest, LayerNormAgreesWithDoublePrecision) {
  for (const int64_t features : {1, 7, 16, 33, 100}) {
    const Tensor x = random({5, 2 * features}, 3.0f);
    for (const int64_t heads : {1, 2}) {
      const Tensor weight = random({heads, features});
      const Tensor bias = heads == 1 ? random({heads, features}) : Tensor();
      Tensor y = Tensor::empty(DType::f32, x.shape());
      backend->layer_norm(x, {weight, bias}, 1e-5, y);
      for (int64_t row = 0; row < 5; ++row) {
        for (int64_t head = 0; head < 2; ++head) {
          double mean = 0;
          for (int64_t f = 0; f < features; ++f) mean += double{at(x, row, head * features + f)};
          mean /= static_cast<double>(features);
          double variance = 0;
          for (int64_t f = 0; f < features; ++f)
            variance += std::pow(double{at(x, row, head * features + f)} - mean, 2);
          const double factor = 1 / std::sqrt(variance / static_cast<double>(features) + 1e-5);
          for (int64_t f = 0; f < features; ++f) {
            const double gain = double{at(weight, head % heads, f)};
            const double offset = bias.defined() ? double{at(bias, 0, f)} : 0.0;
            const double exact = (double{at(x, row, head * features + f)} - mean) * factor * gain + offset;
            ASSERT_NEAR(at(y, row, head * features + f), exact, 2e-5 * (1 + std::abs(exact))) << features;
          }
        }
      }
    }
  }
}

TEST_P(ElementwiseTest, RopeTurnsNeighboursAndALaterPartOfAHead) {
  const Tensor before = random({3, 2 * 10});
  const Tensor cosine = random({3, 3});
  const Tensor sine = random({3, 3});
  Tensor x = before.to(DType::f32);
  backend->rope(
      {.cosine = cosine, .sine = sine, .head_dim = 10, .pairs = RopePairs::neighbours, .first = 4, .x = x});
  for (int64_t row = 0; row < 3; ++row) {
    for (int64_t column = 0; column < 20; ++column) {
      const int64_t place = column % 10 - 4;
      double exact = double{at(before, row, column)};
      if (place >= 0) {
        const bool second = place % 2 == 1;
        const double other = double{at(before, row, second ? column - 1 : column + 1)};
        exact = exact * double{at(cosine, row, place / 2)} +
                (second ? other : -other) * double{at(sine, row, place / 2)};
      }
      ASSERT_NEAR(at(x, row, column), exact, 1e-5) << row << ", " << column;
    }
  }
}

TEST_P(ElementwiseTest, ActivationIsTheGatedOneWithoutItsOtherFactor) {
  const Tensor before = random({3, 1500}, 2.0f);
  Tensor ones = Tensor::empty(DType::f32, before.shape());
  for (float& value : ones.mutable_values<float>()) value = 1.0f;
  for (const Activation activation :
       {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu, Activation::sigmoid}) {
    Tensor x = before.to(DType::f32);
    backend->activation(activation, x);
    Tensor gated = Tensor::empty(DType::f32, before.shape());
    backend->gated_activation(activation, before, ones, gated);
    EXPECT_EQ(std::memcmp(x.bytes(), gated.bytes(), x.byte_size()), 0);
  }
}

TEST_P(ElementwiseTest, RowsAreGatheredAndScattered) {
  const Tensor x = random({5, 9});
  const std::vector<int32_t> rows{4, 0, 2};
  Tensor some = Tensor::empty(DType::f32, {3, 9});
  backend->gather_rows(x, rows, some);
  Tensor y = random({5, 9});
  const Tensor before = y.to(DType::f32);
  const std::vector<float> factors{0.5f, -2.0f, 1.0f};
  backend->scatter_add(some, rows, factors, y);
  for (int64_t column = 0; column < 9; ++column) {
    EXPECT_EQ(at(some, 1, column), at(x, 0, column));
    EXPECT_NEAR(at(y, 4, column), at(before, 4, column) + 0.5f * at(x, 4, column), 1e-6);
    EXPECT_NEAR(at(y, 0, column), at(before, 0, column) - 2.0f * at(x, 0, column), 1e-6);
    EXPECT_EQ(at(y, 1, column), at(before, 1, column));
  }
}

TEST_P(ElementwiseTest, ScaleAndSoftcap) {
  const Tensor before = random({2, 7}, 10.0f);
  Tensor x = before.to(DType::f32);
  backend->scale(0.25f, x);
  Tensor capped = before.to(DType::f32);
  backend->softcap(3.0f, capped);
  for (int64_t i = 0; i < 7; ++i) {
    EXPECT_EQ(at(x, 1, i), 0.25f * at(before, 1, i));
    EXPECT_NEAR(at(capped, 1, i), 3 * std::tanh(double{at(before, 1, i)} / 3), 1e-6);
  }
}

TEST_P(ElementwiseTest, WrongSizesAreInternalErrors) {
  const Tensor x = random({4, 6});
  Tensor y = Tensor::empty(DType::f32, {4, 5});
  error_of([&] { backend->add(x, y); }, ErrorKind::internal);
  error_of([&] { backend->rms_norm(x, random({6}), 1e-6, y); }, ErrorKind::internal);
  error_of([&] { backend->rms_norm(y, random({4}), 1e-6, y); }, ErrorKind::internal);
  error_of([&] { backend->gated_activation(Activation::relu, x, y, y); }, ErrorKind::internal);
  const Tensor angles = random({4, 4});
  error_of([&] { backend->rope({.cosine = angles, .sine = angles, .head_dim = 6, .x = y}); },
           ErrorKind::internal);
  const std::vector<int32_t> tokens{0, 4, 1, 2};
  EXPECT_EQ(error_of(
                [&] {
                  backend->embed(random({4, 5}), tokens, y);
                },
                ErrorKind::internal),
            "back end: token 4 of a table with 4 rows");
  const std::vector<int32_t> negative{0, -1, 1, 2};
  error_of([&] { backend->embed(random({4, 5}), negative, y); }, ErrorKind::internal);
}

}  // namespace
}  // namespace salient::test
