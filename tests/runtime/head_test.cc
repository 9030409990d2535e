#include "runtime/head.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <limits>

#include "base/error.h"
#include "checkpoint/shard_file.h"
#include "runtime/decoder.h"
#include "support/error_matcher.h"
#include "support/golden_model.h"

namespace salient {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr const char* kHeadTensor = "lm_head.weight";

class HeadTest : public testing::Test {
 protected:
  Decoder load(const std::string& golden, LmHead lm_head, ActivationMode mode = ActivationMode::fp32) {
    backends_.push_back(make_cpu_backend({.activations = mode}));
    return Decoder::load(GoldenModel(golden).directory().string(), *backends_.back(), {.lm_head = lm_head});
  }
  static Tensor logits(const Decoder& decoder) {
    const std::vector<int32_t> tokens{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4};
    KvCache cache = decoder.make_cache();
    return decoder.forward(tokens, cache, {LogitRows::all});
  }

  /// A directory of the same model with every weight of the head changed.
  static void change_head(const fs::path& model, const std::function<float(float)>& change) {
    const fs::path file = model / "model.safetensors";
    const fs::path original = model / "original";
    fs::rename(file, original);
    {
      const SafetensorsFile stored(original.string());
      ShardFile out(file, 1 << 16);
      for (const std::string& name : stored.names()) {
        Tensor tensor = stored.tensor(name);
        if (name == kHeadTensor) {
          tensor = Tensor::of<float>(tensor.shape(), tensor.to(DType::f32).values<float>());
          for (float& value : tensor.mutable_values<float>()) value = change(value);
        }
        out.append(name, tensor);
      }
      out.close();
    }
    fs::remove(original);
  }

  std::vector<std::unique_ptr<Backend>> backends_;
};

TEST_F(HeadTest, NamesAndNothingElse) {
  EXPECT_EQ(lm_head_by_name("auto"), LmHead::automatic);
  EXPECT_EQ(lm_head_by_name("int8"), LmHead::int8);
  EXPECT_EQ(lm_head_by_name("stored"), LmHead::stored);
  EXPECT_THAT([] { lm_head_by_name("int4"); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("lm_head \"int4\"")));
}

TEST_F(HeadTest, IsOffByHalfAStep) {
  for (const char* name : {"llama_gqa", "llama_tied", "autoawq_32", "ct_asym_32", "gemma2"}) {
    const GoldenModel golden(name);
    const ModelWeights weights(golden.directory().string());
    const Tensor exact = weights.head().dense.to(DType::f32);
    const LinearWeight head = rounded_head(weights, LmHead::int8);
    ASSERT_TRUE(head.quantized);
    EXPECT_FALSE(head.dense.defined());
    EXPECT_EQ(head.quantized->scales.dtype(), DType::f16);
    const Tensor rounded = dequantize(*head.quantized);
    ASSERT_EQ(rounded.shape(), exact.shape());
    const int64_t columns = exact.dim(1);
    const int64_t width = group_width(head.quantized->scheme, columns);
    for (int64_t i = 0; i < exact.element_count(); ++i) {
      const double step = head.quantized->scale(i / columns, i % columns / width);
      const auto at = static_cast<size_t>(i);
      // The scale is rounded to f16, which moves the last of 255 codes by an eighth of a step at most.
      ASSERT_NEAR(rounded.values<float>()[at], exact.values<float>()[at], 0.64 * step) << name << " " << i;
    }
  }
}

TEST_F(HeadTest, LogitsStayNear) {
  for (const char* name : {"llama_gqa", "llama_tied", "autoawq_32", "phi3"}) {
    const Tensor exact = logits(load(name, LmHead::stored));
    const Tensor rounded = logits(load(name, LmHead::int8));
    const double error = relative_error(rounded.values<float>(), exact.values<float>());
    EXPECT_GT(error, 0) << name;
    EXPECT_LT(error, 1e-2) << name;
  }
}

TEST_F(HeadTest, AutoRoundsForQuantizedModelsAndInt8Only) {
  const auto form = [&](const char* name, ActivationMode mode) {
    return load(name, LmHead::automatic, mode).head_form();
  };
  EXPECT_EQ(form("autoawq_32", ActivationMode::fp32), "f16");
  EXPECT_EQ(form("autoawq_32", ActivationMode::int16), "f16");
  EXPECT_EQ(form("autoawq_32", ActivationMode::int8), "int8");
  EXPECT_EQ(form("llama_gqa", ActivationMode::int8), "f32");
}

TEST_F(HeadTest, ItsBytesCountAndNothingElseChanges) {
  const Decoder stored = load("autoawq_32", LmHead::stored);
  const Decoder rounded = load("autoawq_32", LmHead::int8);
  EXPECT_EQ(stored.head_bytes(), 96 * 64 * 2);
  // 6 panels of 8 lines of 128 bytes, behind lines of scales and zeros.
  EXPECT_EQ(rounded.head_bytes(), 6 * (64 + 64 + 8 * 128));
  EXPECT_EQ(stored.step_weight_bytes(1) - rounded.step_weight_bytes(1),
            stored.head_bytes() - rounded.head_bytes());
}

TEST_F(HeadTest, ARowDoesNotDependOnItsNeighbours) {
  const GoldenModel golden("autoawq_32");
  const ModelWeights weights(golden.directory().string());
  for (const ActivationMode mode : {ActivationMode::int16, ActivationMode::int8}) {
    const auto backend = make_cpu_backend({.activations = mode});
    const PreparedHead head = prepare_head(*backend, weights, LmHead::int8);
    Tensor hidden = Tensor::empty(DType::f32, {40, 64});
    for (int64_t i = 0; i < hidden.element_count(); ++i)
      hidden.mutable_values<float>()[static_cast<size_t>(i)] = static_cast<float>(i * i % 101 - 50);
    const Tensor together = final_logits(*backend, weights.spec(), head, hidden);
    for (const int64_t row : {0, 7, 39}) {
      const Tensor alone = final_logits(*backend, weights.spec(), head, hidden.slice(row, row + 1));
      EXPECT_EQ(std::memcmp(alone.bytes(), together.slice(row, row + 1).bytes(), alone.byte_size()), 0)
          << to_string(mode) << " " << row;
    }
  }
}

TEST_F(HeadTest, ScalesThatF16CannotHoldAreF32) {
  for (const float factor : {1e9f, 1e-6f}) {
    const GoldenModel golden("llama_gqa");
    const Tensor before = logits(Decoder::load(golden.directory().string(), *make_cpu_backend()));
    change_head(golden.directory(), [&](float value) { return value * factor; });
    const ModelWeights weights(golden.directory().string());
    EXPECT_EQ(rounded_head(weights, LmHead::int8).quantized->scales.dtype(), DType::f32);
    const auto backend = make_cpu_backend();
    Tensor after = logits(Decoder::load(golden.directory().string(), *backend, {.lm_head = LmHead::int8}));
    for (float& value : after.mutable_values<float>()) value /= factor;
    EXPECT_LT(relative_error(after.values<float>(), before.values<float>()), 1e-2) << factor;
  }
}

TEST_F(HeadTest, WhatIsNoNumberStaysOrIsRefused) {
  const GoldenModel golden("autoawq_32");
  bool first = true;
  change_head(golden.directory(), [&](float value) {
    return std::exchange(first, false) ? std::numeric_limits<float>::quiet_NaN() : value;
  });
  const std::string directory = golden.directory().string();
  const auto backend = make_cpu_backend({.activations = ActivationMode::int8});
  EXPECT_EQ(Decoder::load(directory, *backend).head_form(), "f32");
  EXPECT_THAT([&] { Decoder::load(directory, *backend, {.lm_head = LmHead::int8}); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("infinite or NaN")));
}

}  // namespace
}  // namespace salient
