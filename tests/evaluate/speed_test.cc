#include "evaluate/speed.h"

#include <gtest/gtest.h>

#include "support/error_matcher.h"
#include "support/golden_model.h"

namespace salient {
namespace {

class SpeedTest : public ::testing::Test {
 protected:
  Decoder load(const std::string& name) {
    return Decoder::load(GoldenModel(name).directory().string(), *backend_);
  }
  /// Bytes of every linear of the file but experts, as stored with biases in f32, and of all experts.
  std::pair<double, double> stored_bytes(const Decoder& decoder) {
    double shared = static_cast<double>(decoder.weights().head().dense.byte_size());
    double experts = 0;
    for (int64_t layer = 0; layer < decoder.spec().layers; ++layer) {
      for (const auto& [id, weight] : decoder.weights().layer(layer).linears) {
        const int64_t biases = weight.bias.defined() ? weight.out_features() : 0;
        const auto bytes = weight.dense.byte_size() + static_cast<size_t>(biases) * sizeof(float);
        (is_expert(id.role) ? experts : shared) += static_cast<double>(bytes);
      }
    }
    return {shared, experts};
  }

  std::unique_ptr<Backend> backend_ = make_cpu_backend();
};

TEST_F(SpeedTest, AStepReadsEveryWeightOnce) {
  const Decoder decoder = load("qwen2_window");
  const auto [shared, experts] = stored_bytes(decoder);
  EXPECT_EQ(experts, 0);
  EXPECT_EQ(decoder.step_weight_bytes(1), shared);
  EXPECT_EQ(decoder.step_weight_bytes(5), shared);
}

TEST_F(SpeedTest, AStepReadsTheExpertsThatItsTokensCanReach) {
  const Decoder decoder = load("mixtral");
  const auto [shared, experts] = stored_bytes(decoder);
  const MoeSpec& moe = *decoder.spec().moe;
  const double share = static_cast<double>(moe.experts_per_token) / static_cast<double>(moe.experts);
  EXPECT_DOUBLE_EQ(decoder.step_weight_bytes(1), shared + share * experts);
  EXPECT_EQ(decoder.step_weight_bytes(1000), shared + experts);
}

TEST_F(SpeedTest, CountsKeysAndValuesOfHalfTheSteps) {
  const Decoder decoder = load("qwen2_window");
  const Speed speed =
      measure_speed(decoder, {.batch_size = 2, .prefill_length = 6, .decode_length = 4}, 2, nullptr);
  const DecoderSpec& spec = decoder.spec();
  const auto per_position =
      static_cast<double>(spec.layers * (spec.key_features() + spec.value_features())) * sizeof(float);
  EXPECT_DOUBLE_EQ(speed.cache_bytes_per_step, 2 * 8 * per_position);
  EXPECT_GT(speed.prefill_tokens_per_second, 0);
  EXPECT_GT(speed.decode_tokens_per_second, 0);
  EXPECT_DOUBLE_EQ(speed.weight_bandwidth(),
                   speed.weight_bytes_per_step * speed.decode_tokens_per_second / 2);
  EXPECT_EQ(
      measure_speed(decoder, {.prefill_length = 3, .decode_length = 0}, 1, nullptr).decode_tokens_per_second,
      0);
}

TEST_F(SpeedTest, RefusesWhatCannotRun) {
  const Decoder decoder = load("qwen2_window");
  const int64_t limit = decoder.spec().max_position_embeddings;
  const auto refused = [&](const SpeedCase& of) {
    try {
      measure_speed(decoder, of, 1, nullptr);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::invalid_argument) << error.what();
    }
  };
  refused({.batch_size = 0});
  refused({.prefill_length = 0});
  refused({.prefill_length = limit, .decode_length = 1});
  CancellationFlag cancelled{true};
  EXPECT_THROW(measure_speed(decoder, {}, 1, &cancelled), Error);
}

}  // namespace
}  // namespace salient
