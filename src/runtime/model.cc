#include "salient/model.h"

#include "base/error.h"
#include "base/file.h"
#include "runtime/generate.h"
#include "runtime/sequence_state.h"
#include "runtime/stop_text.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace salient {
namespace {

/// From tokens to the text that the caller sees.
class TextOutput {
 public:
  TextOutput(const Tokenizer& tokenizer, const GenerateOptions& options,
             const std::function<bool(std::string_view)>& on_text)
      : decoder_(tokenizer, Tokenizer::SkipSpecial::yes), stop_(options.stop), on_text_(on_text) {}

  /// The first new token joins the prompt's last one as the tokenizer says.
  void skip_prompt(std::span<const int32_t> prompt) {
    for (const int32_t id : prompt) decoder_.push(id);
  }
  bool push(int32_t token) { return show(stop_.push(decoder_.push(token))) && !stop_.stopped(); }
  void finish() {
    show(stop_.push(decoder_.finish()));
    if (!stop_.stopped()) show(stop_.finish());
  }
  bool stopped() const { return stop_.stopped(); }
  std::string take_text() { return std::move(text_); }

 private:
  bool show(const std::string& piece) {
    if (piece.empty()) return true;
    text_ += piece;
    return !on_text_ || on_text_(piece);
  }

  StreamDecoder decoder_;
  StopText stop_;
  std::function<bool(std::string_view)> on_text_;
  std::string text_;
};

void check(const GenerateOptions& options) {
  for (const std::string& stop : options.stop) {
    if (!first_invalid_byte(stop)) continue;
    fail(ErrorKind::invalid_argument, "a stop text is not UTF-8: it could end inside a character");
  }
  if (!options.save_state.empty()) check_state_target(options.save_state);
  if (options.draft != nullptr && options.speculate == 0)
    fail(ErrorKind::invalid_argument, "a draft is given, but no number of tokens to propose (speculate)");
}

Generation to_generation(const GenerateResult& result, uint64_t seed) {
  return {.text = {},
          .reason = result.reason,
          .prompt_tokens = result.prompt_tokens,
          .cached_tokens = result.cached_tokens,
          .tokens = result.tokens,
          .seed = seed,
          .logprobs = result.logprobs,
          .proposed_tokens = result.proposed_tokens,
          .accepted_tokens = result.accepted_tokens,
          .prefill_tokens_per_second = result.prefill_tokens_per_second(),
          .decode_tokens_per_second = result.decode_tokens_per_second()};
}

/// A text in the making, and what is shown of it.
class Text {
 public:
  Text(TokenStream stream, uint64_t seed, TextOutput output)
      : stream_(std::move(stream)), seed_(seed), output_(std::move(output)) {}

  TokenStream& stream() { return stream_; }
  /// False once the text has ended.
  bool take(std::optional<int32_t> token) {
    if (!token) return false;
    if (!output_.push(*token)) stream_.stop();
    return true;
  }
  Generation finish() {
    if (stream_.result().reason != FinishReason::callback) output_.finish();
    Generation result = to_generation(stream_.result(), seed_);
    result.text = output_.take_text();
    if (output_.stopped()) result.reason = FinishReason::stop_text;
    return result;
  }

 private:
  TokenStream stream_;
  uint64_t seed_;
  TextOutput output_;
};

void write_together(std::span<Text> texts) {
  std::vector<TokenStream*> streams;
  for (Text& text : texts) streams.push_back(&text.stream());
  for (bool alive = true; alive;) {
    alive = false;
    const auto tokens = TokenStream::next_of_each(streams);
    for (size_t i = 0; i < texts.size(); ++i) alive = texts[i].take(tokens[i]) || alive;
  }
}

}  // namespace

struct Model::State {
  std::unique_ptr<Backend> backend;
  Tokenizer tokenizer;
  Decoder decoder;

  /// Of a file that the options name, or of nothing.
  SequenceState first_state(const GenerateOptions& options) const {
    if (options.load_state.empty()) return SequenceState(decoder.spec());
    return read_sequence_state(options.load_state, state_owner(decoder.weights()));
  }

  /// Behind a state the prompt is no beginning of a text.
  std::vector<int32_t> prompt_ids(std::string_view prompt, const SequenceState& before) const {
    const bool begins = before.tokens.empty();
    auto ids =
        tokenizer.encode(prompt, begins ? Tokenizer::SpecialTokens::add : Tokenizer::SpecialTokens::omit);
    if (begins && ids.empty() && decoder.spec().bos_token) ids.push_back(*decoder.spec().bos_token);
    return ids;
  }

  const Decoder* draft_of(const GenerateOptions& options) const {
    if (options.draft == nullptr) return nullptr;
    if (!same_vocabulary(tokenizer, options.draft->state_->tokenizer))
      fail(ErrorKind::invalid_argument, "the draft's vocabulary is not the model's");
    return &options.draft->state_->decoder;
  }

  TokenStream start(std::span<const int32_t> ids, const GenerateOptions& options,
                    SequenceState before) const {
    return {decoder,
            {.prompt = ids,
             .max_tokens = options.max_tokens,
             .sampling = {.logit_bias = options.logit_bias,
                          .repetition_penalty = options.repetition_penalty,
                          .temperature = options.temperature,
                          .top_k = options.top_k,
                          .top_p = options.top_p,
                          .min_p = options.min_p,
                          .seed = options.seed},
             .stop_tokens = decoder.spec().eos_tokens,
             .cancelled = options.cancelled,
             .logprobs = options.logprobs,
             .speculation = {.tokens = options.speculate, .draft = draft_of(options)}},
            std::move(before)};
  }

  TextOutput output(std::span<const int32_t> before, const GenerateOptions& options,
                    const std::function<bool(std::string_view)>& on_text) const {
    TextOutput result(tokenizer, options, on_text);
    result.skip_prompt(before);
    return result;
  }
};

Model::Model(std::unique_ptr<State> state) : state_(std::move(state)) {}
Model::~Model() = default;
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;

Model Model::load(const std::string& path, const LoadOptions& options) {
  auto backend = make_backend({options.device, options.activations});
  auto tokenizer = Tokenizer::from_directory(path);
  auto decoder = Decoder::load(path, *backend,
                               {.packed_weights = options.packed_weights,
                                .lm_head = lm_head_by_name(options.lm_head),
                                .cancelled = options.cancelled});
  return Model(std::make_unique<State>(State{std::move(backend), std::move(tokenizer), std::move(decoder)}));
}

Generation Model::generate(std::string_view prompt, const GenerateOptions& options,
                           const std::function<bool(std::string_view text)>& on_text) const {
  check(options);
  SequenceState before = state_->first_state(options);
  const std::vector<int32_t> ids = state_->prompt_ids(prompt, before);
  std::vector<int32_t> all = before.tokens;
  all.insert(all.end(), ids.begin(), ids.end());
  Text text(state_->start(ids, options, std::move(before)), options.seed,
            state_->output(all, options, on_text));
  while (text.take(text.stream().next())) continue;
  Generation result = text.finish();
  if (!options.save_state.empty())
    write_sequence_state(options.save_state, text.stream().state(), state_owner(state_->decoder.weights()));
  return result;
}

std::vector<Generation> Model::generate_several(std::string_view prompt, int64_t count,
                                                const GenerateOptions& options) const {
  check(options);
  if (count < 1) fail(ErrorKind::invalid_argument, "{} texts are asked for", count);
  if (count > 1 && !options.save_state.empty())
    fail(ErrorKind::invalid_argument, "save_state is for one text, not for {}", count);
  if (count == 1) return {generate(prompt, options)};
  SequenceState before = state_->first_state(options);
  const std::vector<int32_t> ids = state_->prompt_ids(prompt, before);
  std::vector<int32_t> all = before.tokens;
  all.insert(all.end(), ids.begin(), ids.end());
  TokenStream first = state_->start(ids, options, std::move(before));
  first.prefill();
  std::vector<Generation> results;
  // As many as share a pass: each holds keys and values of its own.
  for (int64_t begin = 0; begin < count; begin += kRowsAsAlone) {
    std::vector<Text> texts;
    for (int64_t i = begin; i < std::min(count, begin + kRowsAsAlone); ++i) {
      const uint64_t seed = options.seed + static_cast<uint64_t>(i);
      texts.emplace_back(first.fork(seed), seed, state_->output(all, options, {}));
    }
    write_together(texts);
    for (Text& text : texts) results.push_back(text.finish());
  }
  return results;
}

std::string Model::token_text(int32_t token) const {
  return state_->tokenizer.decode({&token, 1}, Tokenizer::SkipSpecial::no);
}

}  // namespace salient
