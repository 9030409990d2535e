#include "salient/model.h"

#include <mutex>

#include "base/error.h"
#include "base/file.h"
#include "runtime/engine.h"
#include "runtime/json_constraint.h"
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

/// Made when the first text needs it.
class LazyJsonVocabulary {
 public:
  std::shared_ptr<const JsonVocabulary> get(const Tokenizer& tokenizer) {
    std::call_once(once_, [&] { vocabulary_ = std::make_shared<const JsonVocabulary>(tokenizer); });
    return vocabulary_;
  }

 private:
  std::once_flag once_;
  std::shared_ptr<const JsonVocabulary> vocabulary_;
};

/// A text in the making, and what is shown of it.
class Text {
 public:
  Text(TokenStream stream, uint64_t seed, TextOutput output)
      : stream_(std::make_shared<TokenStream>(std::move(stream))), seed_(seed), output_(std::move(output)) {}

  const std::shared_ptr<TokenStream>& stream() { return stream_; }
  /// Behind `finish`: its keys and values would stay as long as the texts beside it.
  void release() { stream_.reset(); }
  /// False once the text has ended.
  bool take(std::optional<int32_t> token) {
    if (!token) return false;
    if (!output_.push(*token)) stream_->stop();
    return true;
  }
  Generation finish() {
    if (stream_->result().reason != FinishReason::callback) output_.finish();
    Generation result = to_generation(stream_->result(), seed_);
    result.text = output_.take_text();
    if (output_.stopped()) result.reason = FinishReason::stop_text;
    if (const auto& failure = stream_->result().failure) result.error = failure->what();
    return result;
  }

 private:
  std::shared_ptr<TokenStream> stream_;
  uint64_t seed_;
  TextOutput output_;
};

/// What a fresh engine was given, in this order, to the ends, side by side.
std::vector<Generation> write_together(Engine& engine, std::span<Text> texts,
                                       const CancellationFlag* cancelled,
                                       const Model::DoneCallback& on_done = {}) {
  std::vector<Generation> results(texts.size());
  while (!engine.idle()) {
    for (const auto& [id, stream, token] : engine.step(cancelled)) {
      const auto index = static_cast<size_t>(id);
      if (texts[index].take(token)) continue;
      results[index] = texts[index].finish();
      texts[index].release();
      if (on_done) on_done(index, results[index]);
    }
  }
  return results;
}

}  // namespace

ResponseFormat response_format_by_name(std::string_view name) {
  if (name == "text") return ResponseFormat::text;
  if (name == "json_object") return ResponseFormat::json_object;
  fail(ErrorKind::invalid_argument, "response_format \"{}\" is not known (text, json_object)", name);
}

struct Model::State {
  std::unique_ptr<Backend> backend;
  Tokenizer tokenizer;
  Decoder decoder;
  std::unique_ptr<LazyJsonVocabulary> json = std::make_unique<LazyJsonVocabulary>();

  /// Of a file that the options name, or of nothing.
  SequenceState first_state(const GenerateOptions& options) const {
    if (options.load_state.empty()) return SequenceState(decoder.make_cache());
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

  std::unique_ptr<TokenConstraint> constraint_of(const GenerateOptions& options) const {
    if (options.response_format == ResponseFormat::text) return nullptr;
    return make_json_constraint(json->get(tokenizer));
  }

  TokenStream start(std::span<const int32_t> ids, const GenerateOptions& options,
                    SequenceState before) const {
    const auto constraint = constraint_of(options);
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
             .speculation = {.tokens = options.speculate, .draft = draft_of(options)},
             .constraint = constraint.get()},
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
  auto backend = make_backend({.device = options.device,
                               .activations = options.activations,
                               .kernel = options.kernel,
                               .on_note = options.on_note});
  auto tokenizer = Tokenizer::from_directory(path);
  auto decoder = Decoder::load(path, *backend,
                               {.packed_weights = options.packed_weights,
                                .kv_type = kv_type_asked_for(options.kv_cache_dtype, KvType::fp16),
                                .lm_head = lm_head_by_name(options.lm_head),
                                .cancelled = options.cancelled});
  return Model(std::make_unique<State>(State{std::move(backend), std::move(tokenizer), std::move(decoder)}));
}

std::string Model::device() const { return state_->backend->description(); }

Generation Model::generate(std::string_view prompt, const GenerateOptions& options,
                           const std::function<bool(std::string_view text)>& on_text) const {
  check(options);
  SequenceState before = state_->first_state(options);
  const std::vector<int32_t> ids = state_->prompt_ids(prompt, before);
  std::vector<int32_t> all = before.tokens;
  all.insert(all.end(), ids.begin(), ids.end());
  Text text(state_->start(ids, options, std::move(before)), options.seed,
            state_->output(all, options, on_text));
  while (text.take(text.stream()->next())) continue;
  Generation result = text.finish();
  if (!options.save_state.empty())
    write_sequence_state(options.save_state, text.stream()->state(), state_owner(state_->decoder.weights()));
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
  // As many as share a pass: each holds keys and values of its own.
  Engine engine(state_->decoder, {.max_num_seqs = kRowsAsAlone, .kv_cache_memory_bytes = UINT64_MAX / 2});
  std::vector<Text> texts;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t seed = options.seed + static_cast<uint64_t>(i);
    engine.submit(texts.emplace_back(first.fork(seed), seed, state_->output(all, options, {})).stream());
  }
  auto results = write_together(engine, texts, options.cancelled);
  for (const Generation& result : results) {
    if (!result.error.empty()) fail(ErrorKind::invalid_argument, "{}", result.error);
  }
  return results;
}

std::vector<Generation> Model::generate_batch(const std::vector<std::string>& prompts,
                                              const GenerateOptions& options, const BatchOptions& batch,
                                              const DoneCallback& on_done) const {
  check(options);
  if (!options.load_state.empty() || !options.save_state.empty())
    fail(ErrorKind::invalid_argument, "states are of one text, not of a batch");
  Engine engine(state_->decoder, {.max_num_seqs = batch.max_num_seqs,
                                  .max_num_batched_tokens = batch.max_num_batched_tokens,
                                  .kv_cache_memory_bytes = batch.kv_cache_memory_bytes,
                                  .as_alone = batch.batch_invariant});
  std::vector<Text> texts;
  for (size_t i = 0; i < prompts.size(); ++i) {
    with_context(fmt::format("the prompt at index {}", i), [&] {
      SequenceState nothing(state_->decoder.make_cache());
      const std::vector<int32_t> ids = state_->prompt_ids(prompts[i], nothing);
      engine.submit(texts
                        .emplace_back(state_->start(ids, options, std::move(nothing)), options.seed,
                                      state_->output(ids, options, {}))
                        .stream());
    });
  }
  return write_together(engine, texts, options.cancelled, on_done);
}

std::string Model::token_text(int32_t token) const {
  return state_->tokenizer.decode({&token, 1}, Tokenizer::SkipSpecial::no);
}

}  // namespace salient
