// Whole models by the CUDA back end on the simulated device: all families against transformers' logits,
// quantized models against the CPU.
#include <gtest/gtest.h>

#include <cstring>
#include <optional>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/simulator.h"
#include "base/error.h"
#include "runtime/decoder.h"
#include "support/golden_model.h"

namespace salient {
namespace {

/// Weights and inputs of products, queries and keys are rounded to 11 bits.
constexpr double kHalfTolerance = 1.5e-2;

/// Rows whose logits are further away than that. Of a model with experts that may happen to a few: one whose
/// scores of two experts are as good as equal goes to the other one.
int64_t rows_astray(const Tensor& logits, const Tensor& expected) {
  int64_t astray = 0;
  for (int64_t row = 0; row < logits.dim(0); ++row) {
    const double error = relative_error(logits.slice(row, row + 1).values<float>(),
                                        expected.slice(row, row + 1).values<float>());
    if (!(error < kHalfTolerance)) ++astray;
  }
  return astray;
}
int64_t rows_that_may_stray(const DecoderSpec& spec, int64_t rows) { return spec.moe ? rows / 6 : 0; }

struct OnSimulator {
  explicit OnSimulator(const cuda::CudaBackendOptions& options = {}) {
    auto owned = std::make_unique<test::SimulatedDevice>();
    device = owned.get();
    backend = cuda::make_cuda_backend(std::move(owned), options);
  }
  test::SimulatedDevice* device = nullptr;
  std::unique_ptr<Backend> backend;
};

class CudaModel : public testing::TestWithParam<std::string> {};

TEST_P(CudaModel, GivesTransformersLogits) {
  const GoldenModel golden(GetParam());
  OnSimulator cuda;
  const Decoder decoder = Decoder::load(golden.directory().string(), *cuda.backend);
  KvCache cache = decoder.make_cache();
  const Tensor logits = decoder.forward(golden.input_ids(), cache, {LogitRows::all});
  EXPECT_LE(rows_astray(logits, golden.logits()), rows_that_may_stray(decoder.spec(), logits.dim(0)));
}

TEST_P(CudaModel, TokenByTokenToo) {
  const GoldenModel golden(GetParam());
  OnSimulator cuda;
  const Decoder decoder = Decoder::load(golden.directory().string(), *cuda.backend);
  const auto ids = golden.input_ids();
  const Tensor expected = golden.stepwise_logits();
  KvCache cache = decoder.make_cache();
  constexpr int64_t kSteps = 12;
  int64_t astray = 0;
  for (int64_t i = 0; i < kSteps; ++i) {
    const Tensor logits = decoder.forward({&ids[static_cast<size_t>(i)], 1}, cache, {LogitRows::last});
    astray += rows_astray(logits, expected.slice(i, i + 1));
  }
  EXPECT_LE(astray, rows_that_may_stray(decoder.spec(), kSteps));
}

/// Llama's golden model with room for more positions.
class CudaDecoder : public testing::Test {
 protected:
  CudaDecoder() : golden_("llama_gqa") {
    golden_.widen_context(400);
    decoder_.emplace(Decoder::load(golden_.directory().string(), *cuda_.backend, {.kv_type = KvType::fp16}));
    for (int32_t i = 0; i < 400; ++i)
      tokens_.push_back(i * 37 % static_cast<int32_t>(decoder_->spec().vocab_size));
  }
  std::span<const int32_t> tokens(size_t begin, size_t count) const {
    return std::span(tokens_).subspan(begin, count);
  }
  static bool same(const Tensor& a, const Tensor& b) {
    return a.shape() == b.shape() && std::memcmp(a.bytes(), b.bytes(), a.byte_size()) == 0;
  }

  GoldenModel golden_;
  OnSimulator cuda_;
  std::optional<Decoder> decoder_;
  std::vector<int32_t> tokens_;
};

TEST_F(CudaDecoder, TokensAreOneGraphEachAndWhatTheCpuGives) {
  const auto cpu = make_cpu_backend();
  const Decoder reference = Decoder::load(golden_.directory().string(), *cpu, {.kv_type = KvType::fp16});
  KvCache cache = decoder_->make_cache();
  KvCache expected = reference.make_cache();
  decoder_->forward(tokens(0, 120), cache, {});
  reference.forward(tokens(0, 120), expected, {});
  for (size_t i = 120; i < 140; ++i) {  // into the second page
    const Tensor logits = decoder_->forward(tokens(i, 1), cache, {});
    EXPECT_EQ(rows_astray(logits, reference.forward(tokens(i, 1), expected, {})), 0) << i;
  }
  EXPECT_GE(cuda_.device->graph_runs(), 14);
}

TEST_F(CudaDecoder, SequencesSideBySideAreWhatEachIsAlone) {
  std::vector<KvCache> caches;
  std::vector<KvCache> alone;
  for (size_t i = 0; i < 3; ++i) {
    caches.push_back(decoder_->make_cache());
    decoder_->forward(tokens(10 * i, 30 + 70 * i), caches.back(), {});
    alone.push_back(caches.back());
  }
  const std::vector<int32_t> next{5, 6, 7};
  const Tensor together = decoder_->step(next, caches, nullptr);
  for (size_t i = 0; i < 3; ++i) {
    const auto row = static_cast<int64_t>(i);
    const Tensor one = decoder_->forward({&next[i], 1}, alone[i], {});
    EXPECT_TRUE(same(together.slice(row, row + 1), one)) << i;
  }
}

/// Over the ends of pages, with forks that begin with the same ones.
TEST_F(CudaDecoder, BatchesAreGraphsAndWhatEachGetsAlone) {
  std::vector<KvCache> caches;
  for (size_t i = 0; i < 3; ++i) {
    caches.push_back(decoder_->make_cache());
    decoder_->forward(tokens(7 * i, 120 + 63 * i), caches.back(), {});
  }
  caches.push_back(caches[1]);
  caches.push_back(caches[1]);
  std::vector<KvCache> alone = caches;
  const int before = cuda_.device->graph_runs();
  for (size_t step = 0; step < 14; ++step) {
    const std::span<const int32_t> next = tokens(200 + 5 * step, caches.size());
    const Tensor together = decoder_->step(next, caches, nullptr);
    for (size_t i = 0; i < caches.size(); ++i) {
      const auto row = static_cast<int64_t>(i);
      const Tensor one = decoder_->forward({&next[i], 1}, alone[i], {});
      EXPECT_TRUE(same(together.slice(row, row + 1), one)) << i << ", step " << step;
    }
  }
  EXPECT_GE(cuda_.device->graph_runs() - before, 14 * 5);
}

/// Of a layer one launch of attention, one that merges splits, one of what goes before.
TEST_F(CudaDecoder, ABatchTakesAsManyLaunchesAsOneText) {
  const auto launches_of_a_step = [&](size_t texts) {
    std::vector<KvCache> caches(texts, decoder_->make_cache());
    for (KvCache& cache : caches) decoder_->forward(tokens(0, 70), cache, {});
    const std::vector<int32_t> next(texts, 5);
    const auto before = cuda_.device->launches();
    decoder_->step(next, caches, nullptr).bytes();
    std::map<std::string, int> result = cuda_.device->launches();
    for (const auto& [kernel, count] : before) result[kernel] -= count;
    return result;
  };
  auto one = launches_of_a_step(1);
  const auto layers = static_cast<int>(decoder_->spec().layers);
  for (const size_t texts : {2, 8, 20}) {
    auto many = launches_of_a_step(texts);
    EXPECT_EQ(many["kv_rows"], layers) << texts;
    EXPECT_EQ(many["merge_splits"], layers) << texts;
    EXPECT_EQ(many["write_words"], 1) << texts;
    for (const auto& [kernel, count] : one) {
      if (kernel.find("attention") == std::string::npos) continue;
      EXPECT_EQ(many[kernel], count) << kernel;
    }
  }
  EXPECT_EQ(one["kv_rows"], layers);
}

TEST_F(CudaDecoder, SeveralTokensInOnePassAreWhatTheyAreOneByOne) {
  KvCache cache = decoder_->make_cache();
  decoder_->forward(tokens(0, 125), cache, {});
  KvCache other = cache;
  const Tensor together = decoder_->forward_each(tokens(125, 6), cache, nullptr);
  for (int64_t i = 0; i < 6; ++i) {
    const Tensor one = decoder_->forward(tokens(125 + static_cast<size_t>(i), 1), other, {});
    EXPECT_TRUE(same(together.slice(i, i + 1), one)) << i;
  }
}

TEST_F(CudaDecoder, CopiesOfASequenceGoTheirOwnWays) {
  KvCache cache = decoder_->make_cache();
  decoder_->forward(tokens(0, 50), cache, {});
  KvCache fork = cache;
  const Tensor first = decoder_->forward(tokens(50, 1), cache, {});
  decoder_->forward(tokens(200, 1), fork, {});  // writes where the first has written
  cache.truncate(50);
  EXPECT_TRUE(same(decoder_->forward(tokens(50, 1), cache, {}), first));
}

TEST_F(CudaDecoder, ACacheThatWasReadOnTheHostGoesOn) {
  KvCache cache = decoder_->make_cache();
  decoder_->forward(tokens(0, 140), cache, {});
  KvCache restored = decoder_->make_cache();
  for (int64_t layer = 0; layer < decoder_->spec().layers; ++layer)
    restored.restore(layer, cache.keys(layer), cache.values(layer));
  restored.advance(140);
  const Tensor expected = decoder_->forward(tokens(140, 1), cache, {});
  EXPECT_TRUE(same(decoder_->forward(tokens(140, 1), restored, {}), expected));
}

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenModel::root()))
    if (std::filesystem::exists(entry.path() / "golden.safetensors"))
      names.push_back(entry.path().filename());
  std::ranges::sort(names);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Families, CudaModel, testing::ValuesIn(golden_names()), [](const auto& name) {
  std::string id = name.param;
  std::ranges::replace_if(
      id, [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return id;
});

}  // namespace
}  // namespace salient
