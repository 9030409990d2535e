#include "runtime/sequence_state.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/sealed_file.h"
#include "runtime/generate.h"
#include "support/error_matcher.h"
#include "support/golden_model.h"

namespace salient {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// A model and the texts that it makes, in one go or with breaks.
struct Subject {
  explicit Subject(const std::string& name, KvType kv_type = KvType::fp32)
      : golden(name), decoder(Decoder::load(golden.directory().string(), *backend, {.kv_type = kv_type})) {}

  std::vector<int32_t> prompt() const {
    const auto ids = golden.input_ids();
    return {ids.begin(), ids.begin() + 10};
  }
  TokenStream stream(const GenerateRequest& request, SequenceState state) const {
    return {decoder, request, std::move(state)};
  }
  std::string file() const { return (golden.directory() / "text.state").string(); }

  /// Through a file.
  SequenceState saved(TokenStream& stream) const {
    const StateOwner owner = state_owner(decoder.weights());
    write_sequence_state(file(), stream.state(), owner);
    return read_sequence_state(file(), owner);
  }

  GoldenModel golden;
  std::unique_ptr<Backend> backend = make_cpu_backend();
  Decoder decoder;
};

std::vector<int32_t> rest_of(TokenStream& stream) {
  std::vector<int32_t> tokens;
  while (const auto token = stream.next()) tokens.push_back(*token);
  return tokens;
}

class SavedStates : public testing::TestWithParam<std::tuple<std::string, KvType>> {
 protected:
  Subject subject_{std::get<0>(GetParam()), std::get<1>(GetParam())};
};

TEST_P(SavedStates, GoOnAsIfThereHadBeenNoBreak) {
  const std::vector<int32_t> prompt = subject_.prompt();
  for (const double temperature : {0.0, 1.5}) {
    GenerateRequest request{.prompt = prompt,
                            .max_tokens = 15,
                            .sampling = {.repetition_penalty = 1.1, .temperature = temperature, .seed = 3}};
    TokenStream whole = subject_.stream(request, SequenceState(subject_.decoder.make_cache()));
    const std::vector<int32_t> expected = rest_of(whole);
    ASSERT_EQ(expected.size(), 15u);
    request.max_tokens = 0;  // the prompt alone; then two breaks
    TokenStream first = subject_.stream(request, SequenceState(subject_.decoder.make_cache()));
    EXPECT_TRUE(rest_of(first).empty());
    request.prompt = {};
    std::vector<int32_t> found;
    SequenceState state = subject_.saved(first);
    EXPECT_EQ(state.cache.length(), 10);
    for (const int64_t count : {6, 9}) {
      request.max_tokens = count;
      TokenStream part = subject_.stream(request, std::move(state));
      const auto tokens = rest_of(part);
      found.insert(found.end(), tokens.begin(), tokens.end());
      state = subject_.saved(part);
      EXPECT_EQ(state.cache.length(), std::ssize(state.tokens) - 1);
    }
    EXPECT_EQ(found, expected) << temperature;
  }
}

TEST_P(SavedStates, TakeAnotherPrompt) {
  const std::vector<int32_t> prompt = subject_.prompt();
  TokenStream first =
      subject_.stream({.prompt = prompt, .max_tokens = 4}, SequenceState(subject_.decoder.make_cache()));
  rest_of(first);
  const std::vector<int32_t> more{5, 6, 7};
  // What a run without a break does: the same cache goes on.
  TokenStream unbroken = subject_.stream({.prompt = more, .max_tokens = 8}, first.state());
  TokenStream resumed = subject_.stream({.prompt = more, .max_tokens = 8}, subject_.saved(first));
  EXPECT_EQ(rest_of(resumed), rest_of(unbroken));
  EXPECT_EQ(resumed.result().prompt_tokens, 17);
  EXPECT_EQ(resumed.result().cached_tokens, 13);
}

INSTANTIATE_TEST_SUITE_P(
    Models, SavedStates,
    testing::Combine(testing::Values("llama_gqa", "mistral_window", "deepseek_v3", "gpt2", "bloom",
                                     "rope_dynamic", "qwen3_next", "qwen3_5_moe", "ct_asym_32"),
                     testing::Values(KvType::fp32, KvType::fp16, KvType::bf16, KvType::int8)),
    [](const auto& test) {
      return std::get<0>(test.param) + "_" + std::string(to_string(std::get<1>(test.param)));
    });

/// A text of the request that is left behind `count` tokens and gone on with from a file.
struct Interrupted {
  std::vector<int32_t> tokens;
  int64_t rejected;  // guesses, before the break
};
Interrupted interrupted(const Subject& subject, const GenerateRequest& request, int64_t count) {
  TokenStream stream = subject.stream(request, SequenceState(subject.decoder.make_cache()));
  Interrupted result{};
  for (int64_t i = 0; i < count; ++i) result.tokens.push_back(*stream.next());
  TokenStream resumed = subject.stream({.max_tokens = request.max_tokens - count}, subject.saved(stream));
  for (const int32_t token : rest_of(resumed)) result.tokens.push_back(token);
  result.rejected = stream.result().proposed_tokens - stream.result().accepted_tokens;
  return result;
}

TEST(SequenceState, IsKeptWhereATextEnded) {
  const Subject subject("qwen3_next");
  const std::vector<int32_t> prompt = subject.prompt();
  const auto stream = [&](std::span<const int32_t> stop, SequenceState state) {
    const bool begins = state.tokens.empty();
    return subject.stream(
        {.prompt = begins ? prompt : std::vector<int32_t>(), .max_tokens = 9, .stop_tokens = stop},
        std::move(state));
  };
  TokenStream free = stream({}, SequenceState(subject.decoder.make_cache()));
  const auto tokens = rest_of(free);
  const std::vector<int32_t> stop{tokens[4]};
  const auto before = std::find(tokens.begin(), tokens.end(), stop[0]) - tokens.begin();
  TokenStream stopped = stream(stop, SequenceState(subject.decoder.make_cache()));
  rest_of(stopped);
  SequenceState state = subject.saved(stopped);
  EXPECT_EQ(std::ssize(state.tokens), 10 + before);
  EXPECT_EQ(state.cache.length(), 10 + before);
  TokenStream again = stream({}, std::move(state));
  EXPECT_EQ(again.next(), stop[0]);
}

TEST(SequenceState, OfTheMiddleOfASpeculationHasWhatWasDrawn) {
  const Subject subject("llama_gqa");
  const std::vector<int32_t> prompt = subject.prompt();
  const GenerateRequest request{
      .prompt = prompt, .max_tokens = 14, .speculation = {.tokens = 4, .draft = &subject.decoder}};
  TokenStream whole = subject.stream(request, SequenceState(subject.decoder.make_cache()));
  const auto expected = rest_of(whole);
  for (int64_t count = 1; count < 8; ++count)
    EXPECT_EQ(interrupted(subject, request, count).tokens, expected) << count;
}

/// A draft of other weights is wrong now and then: what its guesses left in the cache is no part of the
/// state.
TEST(SequenceState, OfTheMiddleOfASpeculationHasNothingOfRejectedGuesses) {
  const Subject subject("llama_gqa");
  const Subject other("llama_tied");
  const std::vector<int32_t> prompt = subject.prompt();
  const GenerateRequest plain{.prompt = prompt, .max_tokens = 14};
  TokenStream alone = subject.stream(plain, SequenceState(subject.decoder.make_cache()));
  const auto expected = rest_of(alone);
  GenerateRequest request = plain;
  request.speculation = {.tokens = 4, .draft = &other.decoder};
  int64_t rejected = 0;
  for (int64_t count = 1; count < 13; ++count) {
    const Interrupted found = interrupted(subject, request, count);
    EXPECT_EQ(found.tokens, expected) << count;
    rejected += found.rejected;
  }
  EXPECT_GT(rejected, 0);
}

TEST(SequenceState, OfAnotherModelIsRefused) {
  const Subject one("llama_gqa");
  const Subject other("llama_tied");
  const std::vector<int32_t> prompt = one.prompt();
  TokenStream stream =
      one.stream({.prompt = prompt, .max_tokens = 2}, SequenceState(one.decoder.make_cache()));
  rest_of(stream);
  write_sequence_state(one.file(), stream.state(), state_owner(one.decoder.weights()));
  EXPECT_THAT([&] { read_sequence_state(one.file(), state_owner(other.decoder.weights())); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("another model")));
}

/// As a program of before bf16 says of a state that keeps that.
TEST(SequenceState, OfATypeThatIsNotKnownIsRefused) {
  const Subject subject("llama_gqa");
  const StateOwner owner = state_owner(subject.decoder.weights());
  {
    const Json head{{"format", "salient sequence state"},
                    {"version", 2},
                    {"model", owner.digest},
                    {"kv", "fp8"},
                    {"cached", 0},
                    {"draws", 0}};
    SealedFileWriter writer(subject.file(), 3);
    writer.add_text("head", head.dump());
    writer.add("tokens", Tensor::of<int32_t>({1}, std::vector<int32_t>{5}));
    writer.finish();
  }
  EXPECT_THAT([&] { read_sequence_state(subject.file(), owner); },
              throws_error(ErrorKind::bad_format, HasSubstr("\"fp8\" are not known")));
}

TEST(ModelDigest, IsOfConfigAndWeights) {
  const GoldenModel golden("llama_gqa");
  const std::string directory = golden.directory().string();
  const auto digest = [&] { return model_digest(ModelWeights(directory)); };
  const std::string before = digest();
  EXPECT_EQ(digest(), before);
  const std::string config = directory + "/config.json";
  const std::string text = read_text_file(config);
  std::ofstream(config) << text.substr(0, text.rfind('}')) << R"(,"rope_theta": 20000.0})";
  EXPECT_NE(digest(), before);
  std::ofstream(config) << text;
  EXPECT_EQ(digest(), before);
  std::fstream weights(directory + "/model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  weights.seekp(-1, std::ios::end);
  weights.put('\x11');
  weights.close();
  EXPECT_NE(digest(), before);
}

TEST(SequenceState, DamageIsFoundAndAFailedWriteLeavesNothing) {
  const Subject subject("llama_gqa");
  const std::vector<int32_t> prompt = subject.prompt();
  TokenStream stream =
      subject.stream({.prompt = prompt, .max_tokens = 2}, SequenceState(subject.decoder.make_cache()));
  rest_of(stream);
  subject.saved(stream);
  std::string bytes = read_text_file(subject.file());
  bytes[bytes.size() - 100] ^= 1;
  std::ofstream(subject.file(), std::ios::binary) << bytes;
  const StateOwner owner = state_owner(subject.decoder.weights());
  EXPECT_THAT([&] { read_sequence_state(subject.file(), owner); },
              throws_error(ErrorKind::bad_format, AllOf(HasSubstr("no saved state, or a damaged one"),
                                                        HasSubstr("text.state: the checksum is wrong"))));
  const std::filesystem::path nowhere = subject.golden.directory() / "no" / "folder";
  EXPECT_THAT([&] { write_sequence_state(nowhere, stream.state(), owner); },
              throws_error(ErrorKind::io, HasSubstr("folder")));
  EXPECT_FALSE(std::filesystem::exists(subject.file() + ".partial"));
}

}  // namespace
}  // namespace salient
