// Models that keep keys and values as each of the types: the simulated device beside the CPU, and texts that
// begin on the one and go on at the other.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/simulator.h"
#include "runtime/generate.h"
#include "support/golden_model.h"

namespace salient {
namespace {

struct LongGolden : GoldenModel {
  explicit LongGolden(const std::string& name) : GoldenModel(name) { widen_context(400); }
};

/// A golden model with room for more positions, on both back ends.
class KvTypes : public testing::TestWithParam<std::tuple<std::string, KvType>> {
 protected:
  KvTypes() {
    for (int32_t i = 0; i < 160; ++i)
      tokens_.push_back(i * 37 % static_cast<int32_t>(cpu_.spec().vocab_size));
  }
  Decoder load(Backend& backend) const {
    return Decoder::load(golden_.directory().string(), backend, {.kv_type = type_});
  }
  std::span<const int32_t> tokens(size_t begin, size_t count) const {
    return std::span(tokens_).subspan(begin, count);
  }
  std::filesystem::path file(const std::string& name) const { return golden_.directory() / name; }

  /// Operands of products are rounded to 11 bits; with keys and values of bf16 those of attention to 8. Of
  /// keys and values that differ in their last bits some go to another neighbour, which with 8 bits is far.
  void expect_close(const Tensor& found, const Tensor& expected) const {
    const bool coarse = type_ == KvType::bf16 || type_ == KvType::int8;
    const double tolerance = coarse ? 4e-2 : 1.5e-2;
    EXPECT_LT(relative_error(found.values<float>(), expected.values<float>()), tolerance);
  }

  /// A state of `count` tokens and what comes behind them.
  void save(const Decoder& decoder, size_t count) const {
    const GenerateRequest request{.prompt = tokens(0, count), .max_tokens = 3};
    TokenStream stream(decoder, request, SequenceState(decoder.make_cache()));
    while (stream.next()) continue;
    write_sequence_state(file("state"), stream.state(), state_owner(decoder.weights()));
  }
  Tensor go_on(const Decoder& decoder) const {
    SequenceState state = read_sequence_state(file("state"), state_owner(decoder.weights()));
    EXPECT_EQ(state.cache.type(), type_);
    std::vector<int32_t> next{state.tokens.back()};
    next.insert(next.end(), tokens_.begin(), tokens_.begin() + 11);
    return decoder.forward(next, state.cache, {LogitRows::all});
  }

  LongGolden golden_{std::get<0>(GetParam())};
  KvType type_ = std::get<1>(GetParam());
  std::unique_ptr<Backend> cpu_backend_ = make_cpu_backend();
  std::unique_ptr<Backend> cuda_backend_ =
      cuda::make_cuda_backend(std::make_unique<test::SimulatedDevice>(), {});
  Decoder cpu_ = load(*cpu_backend_);
  Decoder cuda_ = load(*cuda_backend_);
  std::vector<int32_t> tokens_;
};

TEST_P(KvTypes, GiveOnTheDeviceWhatTheyGiveOnTheCpu) {
  KvCache found = cuda_.make_cache();
  KvCache expected = cpu_.make_cache();
  expect_close(cuda_.forward(tokens(0, 120), found, {LogitRows::all}),
               cpu_.forward(tokens(0, 120), expected, {LogitRows::all}));
  for (size_t i = 120; i < 134; ++i)  // into the second page
    expect_close(cuda_.forward(tokens(i, 1), found, {}), cpu_.forward(tokens(i, 1), expected, {}));
  expect_close(cuda_.forward(tokens(134, 20), found, {LogitRows::all}),
               cpu_.forward(tokens(134, 20), expected, {LogitRows::all}));
}

TEST_P(KvTypes, StatesGoFromOneBackEndToTheOther) {
  for (const Decoder* writer : {&cpu_, &cuda_}) {
    save(*writer, 127);
    expect_close(go_on(cuda_), go_on(cpu_));
  }
}

/// What is read and saved again is the same file: no byte changes on its way through the device.
TEST_P(KvTypes, StatesPassTheDeviceUnchanged) {
  save(cuda_, 30);
  const StateOwner owner = state_owner(cuda_.weights());
  SequenceState state = read_sequence_state(file("state"), owner);
  const auto length = static_cast<size_t>(state.cache.length());
  state.cache.mark();
  cuda_.forward(tokens(0, 5), state.cache, {});
  state.cache.truncate(static_cast<int64_t>(length));
  write_sequence_state(file("again"), state, owner);
  EXPECT_EQ(read_text_file(file("again")), read_text_file(file("state")));
}

INSTANTIATE_TEST_SUITE_P(Models, KvTypes,
                         testing::Combine(testing::Values("llama_gqa", "qwen3_5"),
                                          testing::Values(KvType::fp32, KvType::fp16, KvType::bf16,
                                                          KvType::int8)),
                         [](const auto& test) {
                           return std::get<0>(test.param) + "_" +
                                  std::string(to_string(std::get<1>(test.param)));
                         });

}  // namespace
}  // namespace salient
