#include "recipe/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/parallel.h"
#include "calibrate/layer_stream.h"
#include "checkpoint/checkpoint_writer.h"
#include "support/error_matcher.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace salient {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMB = 1'000'000;

/// So many tokens of so small a model that hidden states are most of what there is: nothing is run. With as
/// many threads as a choice has room for.
class MemoryPlanTest : public ::testing::Test {
 protected:
  explicit MemoryPlanTest(const std::string& architecture = "LlamaForCausalLM") {
    TinyModel{.architecture = architecture, .extra = expert_keys()}.write(path("dense"));
    options_.model = path("dense");
    options_.output = path("out");
    options_.recipe.awq.emplace().n_grid = 3;
    options_.recipe.quantization.group_size = 32;
    options_.calibration.num_samples = 10'000;
    options_.calibration.sequences = random_windows(6000, 128, 96);
    set_thread_count(4);
  }
  ~MemoryPlanTest() override { set_thread_count(2); }
  std::string path(const std::string& name) const { return (scratch_.path() / name).string(); }

  MemoryPlan plan(uint64_t cap) {
    options_.max_memory = cap;
    return plan_oneshot(options_).memory;
  }
  /// The cap under which it would just fit.
  static uint64_t needed(const MemoryPlan& plan) {
    return plan.peak - plan.program + program_allowance(plan.program);
  }

  /// The cap that a refusal names.
  uint64_t smallest_cap() {
    try {
      plan(10 * kMB);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::out_of_memory);
      const std::string message = error.what();
      const std::string before = "the smallest cap that would do is ";
      const size_t place = message.find(before);
      EXPECT_NE(place, std::string::npos) << message;
      return parse_byte_size(message.substr(place + before.size()));
    }
    ADD_FAILURE() << "10 MB are enough";
    return 0;
  }

  TemporaryDirectory scratch_;
  OneshotOptions options_;
};

TEST_F(MemoryPlanTest, PartsAddUp) {
  const MemoryPlan found = plan(0);
  EXPECT_EQ(found.cap, 0u);
  EXPECT_EQ(found.storage, HiddenStates::f32);
  EXPECT_EQ(found.rows_per_batch, kRowsPerBatch);
  const uint64_t tokens = 6000 * 128;
  EXPECT_GE(found.hidden_states, tokens * 64 * 4);
  EXPECT_LT(found.hidden_states, tokens * 64 * 4 + 2 * kMB);
  EXPECT_EQ(found.peak,
            found.program + found.hidden_states + found.layer + found.statistics + found.workspace);
}

/// Hidden states of 197 MB give way step by step.
TEST_F(MemoryPlanTest, WhatDoesNotFitIsMadeToFit) {
  const MemoryPlan free = plan(0);
  const MemoryPlan same = plan(needed(free));
  EXPECT_EQ(same.storage, HiddenStates::f32);
  EXPECT_EQ(same.rows_per_batch, kRowsPerBatch);
  const MemoryPlan rounded = plan(needed(free) - 50 * kMB);
  EXPECT_EQ(rounded.storage, HiddenStates::bf16);
  EXPECT_LE(rounded.peak, rounded.cap);
  EXPECT_EQ(rounded.rows_per_batch, kRowsPerBatch);
  EXPECT_EQ(rounded.spilled, 0u);
  const MemoryPlan spilled = plan(needed(free) - 150 * kMB);
  EXPECT_EQ(spilled.storage, HiddenStates::spilled);
  EXPECT_LE(spilled.peak, spilled.cap);
  EXPECT_EQ(spilled.spilled, 6000u * 128 * 64 * 2);
  EXPECT_LT(spilled.hidden_states, 2 * kMB);
}

TEST_F(MemoryPlanTest, BatchesShrinkFirst) {
  TinyModel{.extra = {{"intermediate_size", 8192}}}.write(path("wide"));
  options_.model = path("wide");
  options_.recipe.quantization.ignore = {"lm_head", "re:.*down_proj$"};  // whose rounding would take more
  options_.calibration.sequences = random_windows(40, 128, 96);
  const MemoryPlan free = plan(0);
  MemoryPlan last = free;
  for (uint64_t cap = needed(free); cap > 10 * kMB; cap -= 10 * kMB) {
    try {
      const MemoryPlan found = plan(cap);
      EXPECT_LE(found.peak, cap);
      if (found.gram_block > 0) break;
      EXPECT_LE(found.rows_per_batch, last.rows_per_batch);
      EXPECT_GE(found.rows_per_batch, 128);
      EXPECT_EQ(found.storage, HiddenStates::f32);
      last = found;
    } catch (const Error& error) {
      break;
    }
  }
  EXPECT_LT(last.rows_per_batch, kRowsPerBatch);
}

TEST_F(MemoryPlanTest, TheSmallestCapIsNamedAndDoes) {
  const uint64_t least = smallest_cap();
  EXPECT_EQ(plan(least).storage, HiddenStates::spilled);
  const std::string named = std::to_string(least >> 20) + "MiB";
  EXPECT_THAT([&] { plan(least - 2 * 1024 * 1024); },
              throws_error(ErrorKind::out_of_memory, HasSubstr(named)));
}

class MemoryPlanOfAWideModel : public MemoryPlanTest {
 protected:
  MemoryPlanOfAWideModel() {
    TinyModel{.extra = {{"intermediate_size", 8192}}}.write(path("wide"));
    options_.model = path("wide");
    options_.calibration.sequences = random_windows(40, 128, 96);
  }
};

/// When smaller batches and the disk do not help, Gram matrices are cut, no further than it takes; inputs as
/// wide as the hidden states stay whole.
TEST_F(MemoryPlanOfAWideModel, GramMatricesAreCutLast) {
  const MemoryPlan free = plan(0);
  EXPECT_EQ(free.gram_block, 0);
  EXPECT_GT(free.statistics, uint64_t{8192} * 8192 * 4);
  std::vector<int64_t> blocks;
  const uint64_t least = smallest_cap();
  for (uint64_t cap = needed(free); cap >= least; cap -= (needed(free) - least) / 400) {
    const MemoryPlan found = plan(cap);
    EXPECT_LE(found.peak, cap);
    if (found.gram_block == 0) {
      EXPECT_TRUE(blocks.empty());
      continue;
    }
    EXPECT_EQ(found.storage, HiddenStates::spilled);
    EXPECT_EQ(found.rows_per_batch, 128);
    if (blocks.empty() || blocks.back() != found.gram_block) blocks.push_back(found.gram_block);
  }
  EXPECT_EQ(plan(least).gram_block, 64);
  EXPECT_LT(plan(least).statistics, uint64_t{8192} * 64 * 4 + kMB);
  EXPECT_GE(blocks.size(), 3u);
  EXPECT_EQ(blocks.front(), 4096);
  EXPECT_THAT([&] { plan(10 * kMB); },
              throws_error(ErrorKind::out_of_memory,
                           HasSubstr("with small batches, hidden states on disk and Gram matrices in blocks "
                                     "of 64 columns the smallest cap")));
  EXPECT_TRUE(std::ranges::is_sorted(blocks, std::greater())) << ::testing::PrintToString(blocks);
}

/// Blocks hold whole groups.
TEST_F(MemoryPlanOfAWideModel, BlocksAreAsWideAsGroups) {
  options_.recipe.quantization.group_size = 128;
  options_.recipe.quantization.ignore = {"lm_head", "re:.*(self_attn|gate|up).*"};
  EXPECT_EQ(plan(smallest_cap()).gram_block, 128);
}

/// A grid of a whole row knows no blocks, and outputs are matched with whole matrices.
TEST_F(MemoryPlanOfAWideModel, WhatNeedsWholeMatricesKeepsThem) {
  const uint64_t square = uint64_t{8192} * 8192 * 4;
  EXPECT_LT(smallest_cap(), square);
  OneshotOptions before = options_;
  options_.recipe.quantization.group_size = QuantizationScheme::kWholeRow;
  EXPECT_GT(smallest_cap(), 2 * square);
  EXPECT_GT(plan(smallest_cap()).statistics, square);
  options_ = before;
  options_.recipe.awq->rounding = Rounding::matched;
  EXPECT_GT(smallest_cap(), 4 * square);
  EXPECT_EQ(plan(smallest_cap()).gram_block, 0);
}

/// Cap, need and smallest cap in one unit.
TEST_F(MemoryPlanTest, ARefusalCountsInMebibytes) {
  constexpr uint64_t kMiB = uint64_t{1} << 20;
  const std::string whole = std::to_string((needed(plan(0)) + kMiB - 1) / kMiB);
  EXPECT_THAT([&] { plan(10 * kMiB - 1); },
              throws_error(ErrorKind::out_of_memory,
                           ::testing::MatchesRegex("the job needs " + whole +
                                                   "MiB of memory, but max_memory is 9\\.99MiB; .* the "
                                                   "smallest cap that would do is [0-9]+MiB")));
}

/// The results follow from the choice.
TEST_F(MemoryPlanTest, TheNumberOfThreadsDoesNotChoose) {
  const uint64_t cap = needed(plan(0));
  for (uint64_t tried = cap; tried > smallest_cap(); tried -= 20 * kMB) {
    set_thread_count(4);
    const MemoryPlan four = plan(tried);
    for (const size_t threads : {1u, 2u, 7u, 200u}) {
      set_thread_count(threads);
      const MemoryPlan other = plan(tried);
      EXPECT_EQ(other.storage, four.storage) << tried << ", " << threads;
      EXPECT_EQ(other.rows_per_batch, four.rows_per_batch) << tried << ", " << threads;
      EXPECT_EQ(other.gram_block, four.gram_block) << tried << ", " << threads;
      EXPECT_LE(needed(other), tried) << threads;
      EXPECT_LE(other.threads, threads);
      EXPECT_GE(other.threads, std::min<size_t>(threads, 4));
    }
  }
  EXPECT_EQ(program_allowance(1), uint64_t{128} << 20);
  EXPECT_EQ(program_allowance(uint64_t{128} << 20), uint64_t{128} << 20);
  EXPECT_EQ(program_allowance((uint64_t{128} << 20) + 1), uint64_t{256} << 20);
}

TEST_F(MemoryPlanTest, LongSequencesStayWhole) {
  options_.calibration.max_seq_length = 4096;
  TinyModel{.extra = {{"max_position_embeddings", 4096}}}.write(path("long"));
  options_.model = path("long");
  options_.calibration.sequences.push_back(std::vector<int32_t>(3000, 5));
  EXPECT_EQ(plan(needed(plan(0)) - 150 * kMB).rows_per_batch, 3000);
}

TEST_F(MemoryPlanTest, RoundingToNearestKeepsNoTokens) {
  options_.recipe.awq.reset();
  options_.calibration.sequences.clear();
  const MemoryPlan found = plan(0);
  EXPECT_EQ(found.hidden_states, 0u);
  EXPECT_EQ(found.statistics, 0u);
  EXPECT_GT(found.workspace, 0u);
}

TEST(MemoryCap, StandsInARecipe) {
  const auto parsed = [](const std::string& value) {
    OneshotOptions options;
    parse_recipe("QuantizationModifier: {scheme: W4A16}\nsalient: {max_memory: " + value + "}", "r.yaml",
                 options);
    return options.max_memory;
  };
  EXPECT_EQ(parsed("4GiB"), uint64_t{4} << 30);
  EXPECT_EQ(parsed("'500 MB'"), 500'000'000u);
  EXPECT_EQ(parsed("4294967296"), uint64_t{1} << 32);
  for (const std::string value : {"lots", "0", "-5", "1.5", "[4GiB]"}) {
    EXPECT_THAT([&] { parsed(value); },
                ::testing::Throws<Error>(::testing::Property("what", &Error::what, HasSubstr("max_memory"))))
        << value;
  }
}

class MemoryPlanWithExperts : public MemoryPlanTest {
 protected:
  MemoryPlanWithExperts() : MemoryPlanTest("Qwen3MoeForCausalLM") {}
};

/// What the experts read is kept for them beside the hidden states.
TEST_F(MemoryPlanWithExperts, TokensWaitTwice) {
  EXPECT_GE(plan(0).hidden_states, uint64_t{2} * 6000 * 128 * 64 * 4);
}

class Storages : public ::testing::TestWithParam<const char*> {
 protected:
  Storages() { TinyModel{.architecture = GetParam(), .extra = expert_keys()}.write(path("dense")); }
  std::string path(const std::string& name) const { return (scratch_.path() / name).string(); }

  TemporaryDirectory scratch_;
};

/// On disk or in memory, the same bytes; and they are close to those of f32.
TEST_P(Storages, TheDiskChangesNothing) {
  const auto backend = make_cpu_backend();
  const ModelWeights weights(path("dense"));
  const auto windows = random_windows(7, 100, 96);
  const auto last = [&](HiddenStates storage, int64_t rows_per_batch) {
    LayerStream stream({.backend = *backend,
                        .weights = weights,
                        .windows = windows,
                        .place = {.storage = storage, .directories = {scratch_.path().string()}},
                        .rows_per_batch = rows_per_batch});
    for (int64_t layer = 0; layer < 2; ++layer)
      stream.advance(layer, prepare_layer(*backend, weights.layer(layer)));
    return stream.probe_input();
  };
  const Tensor exact = last(HiddenStates::f32, kRowsPerBatch);
  const Tensor rounded = last(HiddenStates::bf16, kRowsPerBatch);
  const Tensor spilled = last(HiddenStates::spilled, kRowsPerBatch);
  EXPECT_TRUE(std::ranges::equal(rounded.values<float>(), spilled.values<float>()));
  const Tensor small = last(HiddenStates::f32, 128);
  double error = 0;
  double batched = 0;
  double size = 0;
  for (size_t i = 0; i < exact.values<float>().size(); ++i) {
    const auto at = [&](const Tensor& tensor) { return double{tensor.values<float>()[i]}; };
    error += (at(rounded) - at(exact)) * (at(rounded) - at(exact));
    batched += (at(small) - at(exact)) * (at(small) - at(exact));
    size += at(exact) * at(exact);
  }
  EXPECT_GT(error, 0);
  EXPECT_LT(std::sqrt(error / size), 0.02);
  EXPECT_LT(std::sqrt(batched / size), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Architectures, Storages,
                         ::testing::Values("LlamaForCausalLM", "Qwen3MoeForCausalLM"));

}  // namespace
}  // namespace salient
