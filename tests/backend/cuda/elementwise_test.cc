#include "backend/cuda/elementwise.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "backend/backend.h"
#include "backend/cuda/device_arrays.h"
#include "backend/cuda/norms.h"
#include "backend/cuda/rows.h"

namespace salient::test {
namespace {

/// Against the CPU's operations, as what they are is defined there.
class CudaElementwise : public DeviceArrays {
 protected:
  /// On 16 bytes or not.
  float* place(const Tensor& tensor, bool aligned) {
    return aligned ? put(tensor) : put_unaligned(tensor.values<float>());
  }
  void expect_near(const float* found, const Tensor& expected, double tolerance, const std::string& what) {
    const auto values = get(found, static_cast<size_t>(expected.element_count()));
    EXPECT_LE(relative_distance(values, expected.values<float>()), tolerance) << what;
  }

  std::unique_ptr<Backend> cpu = make_cpu_backend();
};

struct NormCase {
  int64_t rows;
  int64_t features;
};

/// Rows of a warp and of a block, of one piece and of more, and all that is not a multiple of anything.
const std::vector<NormCase> kNormCases{{3, 1}, {9, 64}, {5, 130}, {8, 1024}, {2, 1027}, {3, 2048}, {2, 9000}};

TEST_F(CudaElementwise, RmsNorms) {
  for (const auto& [rows, features] : kNormCases) {
    for (const bool aligned : {true, false}) {
      device.set_seed(static_cast<uint32_t>(features));
      const Tensor x = random({rows, features});
      const Tensor weight = random({features});
      Tensor expected = Tensor::empty(DType::f32, x.shape());
      cpu->rms_norm(x, weight, 1e-5, expected);
      float* own = place(x, aligned);
      const float* gains = place(weight, aligned);
      float* y = room<float>(static_cast<size_t>(rows * features));
      cuda::normalize(
          device, {.x = own, .weight = gains, .y = y, .rows = rows, .features = features, .epsilon = 1e-5});
      expect_near(y, expected, 1e-6, fmt::format("{} x {}", rows, features));
      cuda::normalize(
          device, {.x = own, .weight = gains, .y = own, .rows = rows, .features = features, .epsilon = 1e-5});
      expect_near(own, expected, 1e-6, fmt::format("{} x {} in place", rows, features));
    }
  }
}

TEST_F(CudaElementwise, SumsAndTheirRmsNorms) {
  for (const auto& [rows, features] : kNormCases) {
    for (const bool aligned : {true, false}) {
      const Tensor x = random({rows, features});
      Tensor sum = random({rows, features});
      const Tensor weight = random({features});
      float* own_sum = place(sum, aligned);
      float* y = room<float>(static_cast<size_t>(rows * features));
      cuda::normalize(device, {.x = place(x, aligned),
                               .weight = place(weight, aligned),
                               .sum = own_sum,
                               .y = y,
                               .rows = rows,
                               .features = features,
                               .epsilon = 1e-6});
      Tensor expected = Tensor::empty(DType::f32, x.shape());
      cpu->add_rms_norm({.x = x, .weight = weight, .epsilon = 1e-6, .sum = sum, .y = expected});
      expect_near(own_sum, sum, 0, "the sums");
      expect_near(y, expected, 1e-6, fmt::format("{} x {}", rows, features));
    }
  }
}

TEST_F(CudaElementwise, LayerNorms) {
  for (const auto& [rows, features] : kNormCases) {
    for (const int64_t heads : {int64_t{1}, rows}) {
      Tensor x = random({rows, features});
      for (float& value : x.mutable_values<float>()) value += 3.0f;
      const Tensor weight = random({heads, features});
      const Tensor bias = random({heads, features});
      for (const bool biased : {true, false}) {
        Tensor expected = Tensor::empty(DType::f32, {1, rows * features});
        cpu->layer_norm(x.reshape({1, rows * features}),
                        {.weight = heads == 1 ? weight.reshape({features}) : weight,
                         .bias = biased ? (heads == 1 ? bias.reshape({features}) : bias) : Tensor()},
                        1e-5, expected);
        float* y = room<float>(static_cast<size_t>(rows * features));
        cuda::normalize(device, {.x = place(x, biased),
                                 .weight = put(weight),
                                 .bias = biased ? put(bias) : nullptr,
                                 .y = y,
                                 .rows = rows,
                                 .features = features,
                                 .heads = heads,
                                 .epsilon = 1e-5,
                                 .centered = true});
        expect_near(y, expected, 3e-6, fmt::format("{} x {}, {} heads", rows, features, heads));
      }
    }
  }
}

TEST_F(CudaElementwise, SumsScalesAndCaps) {
  for (const int64_t count : {1, 7, 1024, 2059}) {
    for (const bool aligned : {true, false}) {
      const Tensor x = random({count});
      Tensor y = random({count}, 10.0f);
      float* own = place(y, aligned);
      cuda::add(device, place(x, aligned), own, count);
      cpu->add(x, y);
      expect_near(own, y, 0, "sum");
      cuda::scale(device, 1.7f, own, count);
      cpu->scale(1.7f, y);
      expect_near(own, y, 0, "scaled");
      cuda::softcap(device, 5.0f, own, count);
      cpu->softcap(5.0f, y);
      expect_near(own, y, 1e-6, "capped");
    }
  }
}

TEST_F(CudaElementwise, Activations) {
  constexpr int64_t kCount = 1501;
  for (const Activation kind :
       {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu, Activation::sigmoid}) {
    for (const bool aligned : {true, false}) {
      Tensor gate = random({kCount}, 5.0f);
      const Tensor up = random({kCount});
      float* own = place(gate, aligned);
      float* y = room<float>(kCount);
      cuda::gated_activation(
          device, {.activation = kind, .gate = own, .up = place(up, aligned), .y = y, .count = kCount});
      Tensor expected = Tensor::empty(DType::f32, {kCount});
      cpu->gated_activation(kind, gate, up, expected);
      expect_near(y, expected, 1e-6, fmt::format("gated {}", static_cast<int>(kind)));
      cuda::activation(device, kind, own, kCount);
      cpu->activation(kind, gate);
      expect_near(own, gate, 1e-6, fmt::format("activation {}", static_cast<int>(kind)));
    }
  }
}

TEST_F(CudaElementwise, FindsWhatIsNotFinite) {
  constexpr size_t kCount = 2100;
  auto* flag = room<uint32_t>(1);
  std::vector<float> values(kCount, std::numeric_limits<float>::max());
  EXPECT_TRUE(cuda::all_finite(device, put(values), kCount, flag));
  for (const size_t place : {size_t{0}, size_t{1023}, kCount - 1}) {
    for (const float bad : {INFINITY, -INFINITY, NAN}) {
      std::vector<float> other = values;
      other[place] = bad;
      EXPECT_FALSE(cuda::all_finite(device, put(other), kCount, flag)) << place << ": " << bad;
    }
  }
  values[kCount - 1] = NAN;
  EXPECT_TRUE(cuda::all_finite(device, put(values), kCount - 1, flag));
}

TEST_F(CudaElementwise, WritesBytesThroughArguments) {
  for (const size_t count : {size_t{1}, size_t{4}, size_t{1026}, size_t{cuda::kWriteBytes}, size_t{9001}}) {
    std::vector<std::byte> bytes(count);
    for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(i * 7 % 251);
    auto* to = room<std::byte>(count);
    cuda::write_bytes(device, bytes, to);
    EXPECT_EQ(get(to, count), bytes) << count;
  }
}

TEST_F(CudaElementwise, WritesWordsApart) {
  for (const size_t count : {size_t{0}, size_t{1}, size_t{cuda::kMostWords}, size_t{500}}) {
    auto* to = put(std::vector<uint64_t>(2 * count + 1, 7));
    std::vector<uint64_t> expected(2 * count + 1, 7);
    std::vector<cuda::WordWrite> words;
    for (size_t i = 0; i < count; ++i) words.push_back({to + 2 * i + 1, (uint64_t{1} << 40) + i});
    for (size_t i = 0; i < count; ++i) expected[2 * i + 1] = words[i].value;
    cuda::write_words(device, words);
    EXPECT_EQ(get(to, expected.size()), expected) << count;
  }
}

TEST_F(CudaElementwise, EmbedsTokens) {
  const std::vector<int32_t> tokens{4, 0, 6, 4};
  for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
    for (const int64_t features : {5, 8, 24, 1032, 1500}) {
      const Tensor table = random({7, features}).to(type);
      Tensor expected = Tensor::empty(DType::f32, {4, features});
      cpu->embed(table, tokens, expected);
      auto* y = room<float>(static_cast<size_t>(4 * features));
      cuda::embed(device, {.table = put(std::span(table.bytes(), table.byte_size())),
                           .type = type,
                           .tokens = put(tokens),
                           .y = y,
                           .count = 4,
                           .features = features});
      expect_near(y, expected, 0, fmt::format("{} of {}", to_string(type), features));
    }
  }
}

TEST_F(CudaElementwise, GathersAndScattersRows) {
  const std::vector<int32_t> rows{5, 1, 2};
  const std::vector<float> factors{0.5f, -2.0f, 3.0f};
  for (const int64_t features : {3, 20, 1030}) {
    for (const bool aligned : {true, false}) {
      const Tensor x = random({7, features});
      Tensor y = random({7, features});
      Tensor taken = Tensor::empty(DType::f32, {3, features});
      cpu->gather_rows(x, rows, taken);
      auto* own_taken = room<float>(static_cast<size_t>(3 * features));
      const int32_t* own_rows = put(rows);
      cuda::gather_rows(
          device,
          {.x = place(x, aligned), .rows = own_rows, .y = own_taken, .count = 3, .features = features});
      expect_near(own_taken, taken, 0, "gathered");
      cpu->scatter_add(taken, rows, factors, y);
      float* own = place(y, aligned);
      cuda::scatter_add(device, {.x = own_taken,
                                 .rows = own_rows,
                                 .factors = put(factors),
                                 .y = own,
                                 .count = 3,
                                 .features = features});
      cpu->scatter_add(taken, rows, factors, y);
      expect_near(own, y, 1e-7, "scattered");
    }
  }
}

}  // namespace
}  // namespace salient::test
