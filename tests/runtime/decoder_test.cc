#include "runtime/decoder.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "base/json.h"
#include "runtime/batch.h"
#include "support/error_matcher.h"
#include "support/golden_model.h"
#include "support/shared_data.h"

namespace salient {
namespace {

/// What f32 arithmetic in another order may differ by.
constexpr double kTolerance = 1e-4;

class GoldenLogits : public testing::TestWithParam<std::string> {
 protected:
  GoldenLogits()
      : golden_(GetParam()),
        backend_(make_cpu_backend()),
        decoder_(Decoder::load(golden_.directory().string(), *backend_)) {}

  GoldenModel golden_;
  std::unique_ptr<Backend> backend_;
  Decoder decoder_;
};

TEST_P(GoldenLogits, InOnePass) {
  KvCache cache = decoder_.make_cache();
  const Tensor logits = decoder_.forward(golden_.input_ids(), cache, {LogitRows::all});
  EXPECT_LT(relative_error(logits.values<float>(), golden_.logits().values<float>()), kTolerance);
  EXPECT_EQ(cache.length(), 40);
}

TEST_P(GoldenLogits, TokenByToken) {
  const auto ids = golden_.input_ids();
  const Tensor expected = golden_.stepwise_logits();
  KvCache cache = decoder_.make_cache();
  for (size_t i = 0; i < ids.size(); ++i) {
    const Tensor logits = decoder_.forward({&ids[i], 1}, cache, {LogitRows::last});
    const auto row = static_cast<int64_t>(i);
    ASSERT_LT(relative_error(logits.values<float>(), expected.slice(row, row + 1).values<float>()),
              kTolerance)
        << i;
  }
}

/// Whether linears that share an input are one product is a matter of speed.
TEST_P(GoldenLogits, TheSameBytesWithoutFusedLayers) {
  const auto plain = make_cpu_backend({.fuse_layers = false});
  const Decoder unfused = Decoder::load(golden_.directory().string(), *plain);
  const auto ids = golden_.input_ids();
  KvCache cache = decoder_.make_cache();
  KvCache other = unfused.make_cache();
  for (const size_t count : {size_t{20}, size_t{1}, size_t{5}}) {
    const auto tokens = std::span(ids).subspan(static_cast<size_t>(cache.length()), count);
    const Tensor logits = decoder_.forward(tokens, cache, {LogitRows::all});
    const Tensor expected = unfused.forward(tokens, other, {LogitRows::all});
    ASSERT_EQ(logits.byte_size(), expected.byte_size());
    EXPECT_EQ(std::memcmp(logits.bytes(), expected.bytes(), logits.byte_size()), 0) << count << " tokens";
  }
}

/// Sequences of other lengths beside it change nothing.
TEST_P(GoldenLogits, SideBySideWithOthers) {
  const auto ids = golden_.input_ids();
  const Tensor expected = golden_.stepwise_logits();
  std::vector<KvCache> caches;
  for (int i = 0; i < 3; ++i) caches.push_back(decoder_.make_cache());
  decoder_.forward(std::span(ids).subspan(3, 5), caches[0], {LogitRows::last});
  for (size_t i = 0; i < 20; ++i) {
    const std::vector<int32_t> tokens{ids[i + 9], ids[i], ids[39 - i]};
    const Tensor logits = decoder_.step(tokens, caches, nullptr);
    const auto row = static_cast<int64_t>(i);
    ASSERT_LT(
        relative_error(logits.slice(1, 2).values<float>(), expected.slice(row, row + 1).values<float>()),
        kTolerance)
        << i;
  }
  EXPECT_EQ(caches[0].length(), 25);
  EXPECT_THROW(decoder_.step(std::span(ids).first(2), caches, nullptr), Error);
}

std::string bytes_of(const Tensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes()), tensor.byte_size()};
}

/// What makes speculation give the text that comes without it: the very bytes of one pass for each token.
TEST_P(GoldenLogits, SeveralTokensInOnePassAsOneByOne) {
  const auto ids = golden_.input_ids();
  const auto prompt = std::span(ids).first(5);
  for (const ActivationMode mode : {ActivationMode::fp32, ActivationMode::int16, ActivationMode::int8}) {
    const auto backend = make_cpu_backend({.activations = mode});
    const Decoder decoder = Decoder::load(golden_.directory().string(), *backend);
    KvCache together = decoder.make_cache();
    decoder.forward(prompt, together, {LogitRows::last});
    const auto tokens = std::span(ids).subspan(5, 11);  // more than share a pass
    if (decoder.spec().linear_attention) {
      EXPECT_THAT([&] { decoder.forward_each(tokens, together, nullptr); },
                  throws_error(ErrorKind::unsupported, testing::HasSubstr("linear attention")));
      continue;
    }
    const Tensor logits = decoder.forward_each(tokens, together, nullptr);
    EXPECT_EQ(together.length(), 16);
    KvCache single = decoder.make_cache();
    decoder.forward(prompt, single, {LogitRows::last});
    for (int64_t row = 0; row < logits.dim(0); ++row) {
      const Tensor expected =
          decoder.forward(tokens.subspan(static_cast<size_t>(row), 1), single, {LogitRows::last});
      ASSERT_EQ(bytes_of(logits.slice(row, row + 1)), bytes_of(expected)) << to_string(mode) << " " << row;
    }
    together.truncate(9);
    single.truncate(9);
    EXPECT_EQ(bytes_of(decoder.forward({&ids[30], 1}, together, {LogitRows::last})),
              bytes_of(decoder.forward({&ids[30], 1}, single, {LogitRows::last})));
  }
}

/// Texts that share passes are those that come alone; a copied cache goes its own way.
TEST_P(GoldenLogits, CopiesOfASequenceSideBySideAsAlone) {
  const auto ids = golden_.input_ids();
  KvCache first = decoder_.make_cache();
  decoder_.forward(std::span(ids).first(5), first, {LogitRows::last});
  std::vector<KvCache> together;
  std::vector<KvCache> alone;
  for (int64_t i = 0; i < kRowsAsAlone; ++i) {
    together.push_back(first);
    alone.push_back(first);
  }
  for (size_t step = 0; step < 3; ++step) {
    const auto tokens = std::span(ids).subspan(7 + 9 * step, together.size());
    const Tensor logits = decoder_.step(tokens, together, nullptr);
    for (size_t i = 0; i < alone.size(); ++i) {
      const auto row = static_cast<int64_t>(i);
      ASSERT_EQ(bytes_of(logits.slice(row, row + 1)),
                bytes_of(decoder_.forward(tokens.subspan(i, 1), alone[i], {LogitRows::last})))
          << step << " " << i;
    }
  }
  EXPECT_EQ(first.length(), 5);
}

TEST_P(GoldenLogits, InUnevenChunksAfterATruncation) {
  const auto ids = golden_.input_ids();
  const std::span<const int32_t> all(ids);
  KvCache cache = decoder_.make_cache();
  // Sequence-length dependent frequencies make the result depend on the chunks beyond the trained length.
  const bool stepwise = golden_.stepwise_logits().bytes() != golden_.logits().bytes();
  const size_t end = stepwise ? 16 : ids.size();
  decoder_.forward(all.subspan(0, 4), cache, {LogitRows::last});
  decoder_.forward(all.subspan(4, 5), cache, {LogitRows::last});
  cache.truncate(4);
  decoder_.forward(all.subspan(4, 1), cache, {LogitRows::last});
  const Tensor logits = decoder_.forward(all.subspan(5, end - 5), cache, {LogitRows::all});
  const auto expected = golden_.stepwise_logits().slice(5, static_cast<int64_t>(end));
  EXPECT_LT(relative_error(logits.values<float>(), expected.values<float>()), kTolerance);
}

/// Two sequences in one batch without caches, as evaluation and calibration run them.
TEST_P(GoldenLogits, AsTwoSequencesOfOneBatch) {
  const auto ids = golden_.input_ids();
  const std::vector<std::vector<int32_t>> both{{ids.begin(), ids.begin() + 7}, ids};
  const ModelWeights& weights = decoder_.weights();
  const SequenceSpan sequences[] = {{0, 7, 0, nullptr}, {7, 40, 0, nullptr}};
  const std::vector<RopeTable> ropes = make_rope_tables(weights.spec(), sequences);
  Tensor hidden = embed_sequences(*backend_, weights, both);
  for (int64_t layer = 0; layer < weights.spec().layers; ++layer) {
    const PreparedLayer prepared = prepare_layer(*backend_, weights.layer(layer));
    run_layer({*backend_, weights.spec(), ropes, layer, sequences}, prepared, hidden);
  }
  const Tensor logits = final_logits(
      *backend_, weights.spec(), prepare_head(*backend_, weights, LmHead::automatic), hidden.slice(7, 47));
  EXPECT_LT(relative_error(logits.values<float>(), golden_.logits().values<float>()), kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenLogits,
                         testing::Values("gemma", "gemma2", "gemma3", "phi3", "cohere", "cohere_qk_norm",
                                         "opt", "gpt2", "bloom", "mixtral", "qwen2_moe", "qwen3_moe",
                                         "deepseek_v3", "granite", "seed_oss", "cohere2", "glm4_moe",
                                         "glm4_moe_defaults", "deepseek_v2", "deepseek_v2_greedy",
                                         "ernie4_5_moe", "olmo", "olmo2", "olmo3", "exaone4", "exaone4_full",
                                         "glm4_moe_lite", "afmoe", "qwen3_next", "qwen3_5", "qwen3_5_moe",
                                         "gemma3_vision", "llava", "mistral3", "qwen2_5_vl", "llama_gqa",
                                         "llama_tied", "llama_tied_by_head", "llama_bias", "mistral_window",
                                         "qwen2", "qwen2_window", "qwen3", "qwen3_layer_types", "rope_linear",
                                         "rope_dynamic", "rope_llama3", "rope_yarn", "rope_yarn_mscale",
                                         "rope_yarn_attention_factor", "rope_longrope_short",
                                         "rope_longrope_long", "rope_partial", "ct_sym_32", "ct_asym_32",
                                         "ct_asym_channel", "autoawq_32", "autoawq_whole_row_old_config"),
                         [](const auto& test) { return test.param; });

TEST(Decoder, LongPromptsRunInChunksWithTheSameLogits) {
  const GoldenModel golden("mistral_window");
  const auto backend = make_cpu_backend();
  const Decoder decoder = Decoder::load(golden.directory().string(), *backend);
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 1100; ++i) ids.push_back(i * 7 % 96);
  KvCache whole = decoder.make_cache();
  const Tensor all = decoder.forward(ids, whole, {LogitRows::all});
  KvCache split = decoder.make_cache();
  decoder.forward(std::span(ids).subspan(0, 700), split, {LogitRows::last});
  const Tensor last = decoder.forward(std::span(ids).subspan(700), split, {LogitRows::last});
  EXPECT_EQ(all.dim(0), 1100);
  EXPECT_LT(relative_error(last.values<float>(), all.slice(1099, 1100).values<float>()), kTolerance);
}

TEST(Decoder, LoadingStopsOnRequest) {
  const GoldenModel golden("llama_gqa");
  const auto backend = make_cpu_backend();
  CancellationFlag stop{false};
  Decoder::load(golden.directory().string(), *backend, {.cancelled = &stop});
  stop = true;
  EXPECT_THAT([&] { Decoder::load(golden.directory().string(), *backend, {.cancelled = &stop}); },
              throws_error(ErrorKind::cancelled, testing::StrEq("stopped on request")));
}

TEST(Decoder, RowsComePieceByPiece) {
  const GoldenModel golden("mistral_window");
  const auto backend = make_cpu_backend();
  const Decoder decoder = Decoder::load(golden.directory().string(), *backend);
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 1100; ++i) ids.push_back(i * 7 % 96);  // chunks of 512, 512 and 76
  KvCache whole = decoder.make_cache();
  const Tensor all = decoder.forward(ids, whole, {LogitRows::all});
  struct Case {
    int64_t first_row;
    size_t pieces;
  };
  for (const auto [first_row, pieces] : {Case{0, 3}, Case{5, 3}, Case{511, 3}, Case{512, 2}, Case{700, 2},
                                         Case{1024, 1}, Case{1099, 1}, Case{1100, 0}}) {
    KvCache cache = decoder.make_cache();
    int64_t next = first_row;
    size_t count = 0;
    decoder.forward_rows({ids, first_row}, cache, [&](int64_t row, const Tensor& logits) {
      EXPECT_EQ(row, next);
      ASSERT_LE(row + logits.dim(0), 1100);
      const Tensor expected = all.slice(row, row + logits.dim(0));
      EXPECT_LT(relative_error(logits.values<float>(), expected.values<float>()), 1e-6) << first_row;
      next += logits.dim(0);
      ++count;
    });
    EXPECT_EQ(next, 1100);
    EXPECT_EQ(count, pieces) << first_row;
    EXPECT_EQ(cache.length(), 1100);
  }
}

TEST(Decoder, ABadTokenLeavesTheCacheAsItWas) {
  const GoldenModel golden("llama_gqa");
  const auto backend = make_cpu_backend();
  const Decoder decoder = Decoder::load(golden.directory().string(), *backend);
  std::vector<int32_t> ids(600, 3);
  ids[580] = 96;  // in the second chunk
  KvCache cache = decoder.make_cache();
  try {
    decoder.forward(ids, cache, {LogitRows::last});
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::invalid_argument);
    EXPECT_STREQ(error.what(), "token 580 is 96, but the vocabulary has 96 entries");
  }
  EXPECT_EQ(cache.length(), 0);
  EXPECT_THROW(decoder.forward({}, cache, {LogitRows::last}), Error);
}

TEST(Decoder, AStateGoesBackToWhereTheLastPassBegan) {
  const GoldenModel golden("qwen3_next");
  const auto backend = make_cpu_backend();
  const Decoder decoder = Decoder::load(golden.directory().string(), *backend);
  const auto ids = golden.input_ids();
  const std::span<const int32_t> all(ids);
  KvCache cache = decoder.make_cache();
  decoder.forward(all.subspan(0, 6), cache, {LogitRows::last});
  decoder.forward(all.subspan(6, 6), cache, {LogitRows::last});
  EXPECT_THAT([&] { cache.truncate(4); },
              throws_error(ErrorKind::unsupported,
                           testing::HasSubstr("linear attention cannot go back to 4 of 12 positions")));
  EXPECT_EQ(cache.length(), 12);
  cache.truncate(6);
  decoder.forward(std::vector<int32_t>(1100, 3), cache, {LogitRows::last});  // more than two chunks
  cache.truncate(6);
  const Tensor rest = decoder.forward(all.subspan(6), cache, {LogitRows::all});
  const Tensor expected = golden.logits().slice(6, 40);
  EXPECT_LT(relative_error(rest.values<float>(), expected.values<float>()), kTolerance);
  cache.truncate(0);
  const Tensor logits = decoder.forward(all, cache, {LogitRows::all});
  EXPECT_LT(relative_error(logits.values<float>(), golden.logits().values<float>()), kTolerance);
}

TEST(Decoder, OnlyFamiliesWithoutGainsNormaliseByNone) {
  const auto backend = make_cpu_backend();
  const Tensor x = Tensor::of<float>({1, 4}, std::vector<float>{2, 2, 2, 2});
  EXPECT_EQ(normalized(*backend, {.epsilon = 0, .weight = false}, {}, x).values<float>()[3], 1.0f);
  try {
    normalized(*backend, {}, {}, x);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::internal);
    EXPECT_STREQ(error.what(), "a norm over 4 features has no weights");
  }
}

TEST(Decoder, AgreesWithTransformersOnTrainedModels) {
  SALIENT_SHARED_OR_SKIP(models, "models");
  const Json golden = read_json_file((GoldenModel::root() / "trained.json").string());
  const auto backend = make_cpu_backend();
  for (const auto& [name, expected] : golden.items()) {
    const Decoder decoder = Decoder::load((models / name).string(), *backend);
    KvCache cache = decoder.make_cache();
    const auto window = expected.at("windows").at(0).get<std::vector<int32_t>>();
    const Tensor logits = decoder.forward(window, cache, {LogitRows::last});
    const auto reference = expected.at("last_logits").get<std::vector<float>>();
    EXPECT_LT(relative_error(logits.values<float>(), reference), kTolerance) << name;
  }
}

}  // namespace
}  // namespace salient
