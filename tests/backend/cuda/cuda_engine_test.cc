// Texts in the making on the simulated device: many at once, with what they share, and from several threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <thread>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/forwarding_device.h"
#include "backend/cuda/simulator.h"
#include "runtime/engine.h"
#include "support/golden_model.h"

namespace salient {
namespace {

/// What halves may take from the largest logit, as a share of it.
constexpr double kHalfTolerance = 1.5e-2;

/// The simulated device, with what is copied to the host counted.
class WatchedDevice final : public cuda::ForwardingDevice {
 public:
  WatchedDevice() : WatchedDevice(std::make_unique<test::SimulatedDevice>()) {}

  void copy_out(void* to, const void* from, size_t bytes) override {
    copied_bytes_ += bytes;
    ++copies_;
    ForwardingDevice::copy_out(to, from, bytes);
  }
  void leave_free(size_t bytes) { simulated_->set_total_bytes(simulated_->used_bytes() + bytes); }
  size_t copied_bytes() const { return copied_bytes_; }
  int copies() const { return copies_; }
  int launches(const std::string& kernel) const {
    const auto found = simulated_->launches().find(kernel);
    return found == simulated_->launches().end() ? 0 : found->second;
  }

 private:
  explicit WatchedDevice(std::unique_ptr<test::SimulatedDevice> simulated)
      : ForwardingDevice(*simulated), simulated_(std::move(simulated)) {}

  std::unique_ptr<test::SimulatedDevice> simulated_;
  size_t copied_bytes_ = 0;
  int copies_ = 0;
};

class CudaEngine : public testing::TestWithParam<std::string> {
 protected:
  CudaEngine() : golden_(GetParam()), cpu_(make_cpu_backend()) {
    golden_.widen_context(512);
    auto device = std::make_unique<WatchedDevice>();
    device_ = device.get();
    backend_ = cuda::make_cuda_backend(std::move(device), {});
    decoder_.emplace(Decoder::load(golden_.directory().string(), *backend_, {.kv_type = KvType::fp16}));
    reference_.emplace(Decoder::load(golden_.directory().string(), *cpu_, {.kv_type = KvType::fp16}));
  }

  std::vector<int32_t> prompt(size_t length, uint32_t seed) const {
    std::mt19937 generator(seed);
    std::vector<int32_t> tokens(length);
    for (int32_t& token : tokens)
      token = static_cast<int32_t>(generator() % static_cast<uint32_t>(decoder_->spec().vocab_size));
    return tokens;
  }
  /// Short prompts, every other one sampled.
  void add_mixed(size_t count, int64_t tokens) {
    for (uint32_t i = 0; i < count; ++i) {
      prompts_.push_back(prompt(3 + i % 5, i));
      requests_.push_back(
          {.max_tokens = tokens, .sampling = {.temperature = i % 2 == 0 ? 0.0 : 0.8, .top_k = 5, .seed = i}});
    }
  }
  void submit_all(Engine& engine) {
    for (size_t i = 0; i < requests_.size(); ++i) engine.submit(request(i));
  }
  GenerateRequest request(size_t i) const {
    GenerateRequest request = requests_[i];
    request.prompt = prompts_[i];
    return request;
  }
  static std::map<int64_t, GenerateResult> run_all(
      Engine& engine, const std::function<void()>& before_step = [] {}) {
    std::map<int64_t, GenerateResult> results;
    while (!engine.idle()) {
      before_step();
      for (const auto& [id, text, token] : engine.step())
        if (!token) results[id] = text->result();
    }
    return results;
  }
  std::vector<int32_t> alone(size_t i) const {
    return generate(*decoder_, request(i), [](int32_t) { return true; }).tokens;
  }

  /// Whether each token of a greedy text is the likeliest by what the CPU makes of the tokens before it, or
  /// as good as that.
  void expect_greedy(size_t i, const GenerateResult& result) const {
    std::vector<int32_t> tokens = prompts_[i];
    tokens.insert(tokens.end(), result.tokens.begin(), result.tokens.end());
    KvCache cache = reference_->make_cache();
    const Tensor logits = reference_->forward(tokens, cache, {LogitRows::all});
    for (size_t drawn = 0; drawn < result.tokens.size(); ++drawn) {
      const auto at = static_cast<int64_t>(prompts_[i].size() + drawn);
      const Tensor row = logits.slice(at - 1, at);
      const auto values = row.values<float>();
      const float best = *std::ranges::max_element(values);
      const float largest = std::abs(
          *std::ranges::max_element(values, [](float a, float b) { return std::abs(a) < std::abs(b); }));
      EXPECT_GE(values[static_cast<size_t>(result.tokens[drawn])], best - 2 * kHalfTolerance * largest)
          << "text " << i << ", token " << drawn;
    }
  }

  GoldenModel golden_;
  WatchedDevice* device_ = nullptr;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Backend> cpu_;
  std::optional<Decoder> decoder_;
  std::optional<Decoder> reference_;
  std::vector<std::vector<int32_t>> prompts_;
  std::vector<GenerateRequest> requests_;
};

/// However many: the head too, which a norm stands before, is multiplied once.
TEST_P(CudaEngine, AllTextsShareAPass) {
  add_mixed(12, 5);
  Engine engine(*decoder_, {});
  submit_all(engine);
  const auto norms = [&] { return device_->launches("norm_of_warp") + device_->launches("norm_of_block"); };
  const int norms_of_a_token = 2 * static_cast<int>(decoder_->spec().layers) + 1;
  int steps = 0;
  const int before = device_->launches("largest_of_rows");
  const int norms_before = norms();
  const auto results = run_all(engine, [&] { ++steps; });
  EXPECT_EQ(steps, 5);
  EXPECT_EQ(device_->launches("largest_of_rows") - before, 5);  // a pass each
  EXPECT_EQ(norms() - norms_before, 5 * norms_of_a_token);
  ASSERT_EQ(results.size(), 12u);
  for (const auto& [id, result] : results) {
    EXPECT_EQ(result.tokens.size(), 5u);
    if (id % 2 == 0) expect_greedy(static_cast<size_t>(id), result);
  }
}

/// Tokens, and log-probabilities to the last bit.
TEST_P(CudaEngine, AsAloneEachTextIsTheOneThatItGetsAlone) {
  add_mixed(11, 4);
  prompts_[3] = prompt(140, 3);
  for (GenerateRequest& request : requests_) request.logprobs = 1;
  requests_[5].logprobs.reset();
  Engine engine(*decoder_, {.as_alone = true});
  submit_all(engine);
  for (const auto& [id, result] : run_all(engine)) {
    const auto expected = generate(*decoder_, request(static_cast<size_t>(id)), [](int32_t) { return true; });
    EXPECT_EQ(result.tokens, expected.tokens) << id;
    ASSERT_EQ(result.logprobs.size(), expected.logprobs.size()) << id;
    for (size_t i = 0; i < result.logprobs.size(); ++i)
      EXPECT_EQ(result.logprobs[i].chosen.logprob, expected.logprobs[i].chosen.logprob) << id << ", " << i;
  }
}

/// Of a step in which tokens are drawn, only a few numbers of each text come to the host.
TEST_P(CudaEngine, LogitsStayOnTheDevice) {
  add_mixed(9, 6);
  Engine engine(*decoder_, {});
  submit_all(engine);
  engine.step();
  for (int step = 1; step < 5; ++step) {
    const size_t bytes = device_->copied_bytes();
    const int copies = device_->copies();
    EXPECT_EQ(engine.step().size(), 9u);
    EXPECT_EQ(device_->copies() - copies, 1);
    EXPECT_EQ(device_->copied_bytes() - bytes, 9u * 6 * 2 * sizeof(float));  // top_k 5 looks at 6
  }
}

TEST_P(CudaEngine, APrefixIsRunOnce) {
  prompts_ = {prompt(150, 1), prompt(150, 1), prompt(135, 1)};
  prompts_[2][130] ^= 1;
  requests_.assign(3, {.max_tokens = 3});
  Engine engine(*decoder_, {});
  engine.submit(request(0));
  expect_greedy(0, run_all(engine).at(0));
  EXPECT_EQ(engine.kept_blocks(), 1u);
  engine.submit(request(1));
  engine.submit(request(2));
  for (const auto& [id, result] : run_all(engine)) {
    EXPECT_EQ(result.cached_tokens, 128) << id;
    expect_greedy(static_cast<size_t>(id), result);
  }
}

TEST_P(CudaEngine, ACancelledTextLeavesTheOthersAlone) {
  add_mixed(4, 6);
  CancellationFlag flag = false;
  requests_[1].cancelled = &flag;
  Engine engine(*decoder_, {.max_num_seqs = 3});
  submit_all(engine);
  int steps = 0;
  const auto results = run_all(engine, [&] {
    if (++steps == 3) flag = true;
  });
  ASSERT_EQ(results.size(), 4u);
  EXPECT_EQ(results.at(1).reason, FinishReason::cancelled);
  EXPECT_EQ(results.at(1).tokens.size(), 2u);
  for (const int64_t id : {0, 2, 3}) {
    EXPECT_EQ(results.at(id).reason, FinishReason::max_tokens) << id;
    EXPECT_EQ(results.at(id).tokens.size(), 6u) << id;
  }
  expect_greedy(0, results.at(0));
  expect_greedy(2, results.at(2));
}

TEST_P(CudaEngine, MemoryBoundsWhatRuns) {
  add_mixed(5, 4);
  const uint64_t block = decoder_->make_cache().block_bytes();
  Engine engine(*decoder_, {.kv_cache_memory_bytes = 2 * block + block / 2});
  submit_all(engine);
  int64_t most = 0;
  const auto results = run_all(engine, [&] {
    most = std::max(most, engine.running());
    EXPECT_LE(engine.running(), 2);
  });
  EXPECT_EQ(most, 2);
  ASSERT_EQ(results.size(), 5u);
  for (const auto& [id, result] : results) {
    EXPECT_EQ(result.tokens.size(), 4u) << id;
    if (id % 2 == 0) expect_greedy(static_cast<size_t>(id), result);
  }
}

/// Texts whose caches would push one another out of the device's memory in every layer wait.
TEST_P(CudaEngine, TheDevicesMemoryBoundsWhatRuns) {
  add_mixed(5, 4);
  device_->leave_free(3 * decoder_->make_cache().block_bytes());
  Engine engine(*decoder_, {});
  submit_all(engine);
  int64_t most = 0;
  const auto results = run_all(engine, [&] { most = std::max(most, engine.running()); });
  EXPECT_GE(most, 2);
  EXPECT_LT(most, 5);
  for (const auto& [id, result] : results) EXPECT_EQ(result.tokens.size(), 4u) << id;
}

TEST_P(CudaEngine, ThreadsMayShareABackEnd) {
  add_mixed(6, 4);
  std::vector<std::vector<int32_t>> expected;
  for (size_t i = 0; i < 6; ++i) expected.push_back(alone(i));
  std::vector<std::vector<int32_t>> found(6);
  std::vector<std::thread> threads;
  for (size_t first = 0; first < 2; ++first) {
    threads.emplace_back([&, first] {
      for (size_t i = first; i < 6; i += 2) found[i] = alone(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(found, expected);
}

INSTANTIATE_TEST_SUITE_P(Models, CudaEngine, testing::Values("llama_gqa", "ct_asym_32"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace salient
