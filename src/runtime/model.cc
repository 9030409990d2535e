#include "salient/model.h"

#include "base/error.h"
#include "runtime/generate.h"
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
  const std::function<bool(std::string_view)>& on_text_;
  std::string text_;
};

}  // namespace

struct Model::State {
  std::unique_ptr<Backend> backend;
  Tokenizer tokenizer;
  Decoder decoder;
};

Model::Model(std::unique_ptr<State> state) : state_(std::move(state)) {}
Model::~Model() = default;
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;

Model Model::load(const std::string& path, const LoadOptions& options) {
  auto backend = make_backend({options.device, options.activations});
  auto tokenizer = Tokenizer::from_directory(path);
  auto decoder = Decoder::load(path, *backend,
                               {.packed_weights = options.packed_weights, .cancelled = options.cancelled});
  return Model(std::make_unique<State>(State{std::move(backend), std::move(tokenizer), std::move(decoder)}));
}

Generation Model::generate(std::string_view prompt, const GenerateOptions& options,
                           const std::function<bool(std::string_view text)>& on_text) const {
  for (const std::string& stop : options.stop) {
    if (!first_invalid_byte(stop)) continue;
    fail(ErrorKind::invalid_argument, "a stop text is not UTF-8: it could end inside a character");
  }
  const DecoderSpec& spec = state_->decoder.spec();
  auto ids = state_->tokenizer.encode(prompt, Tokenizer::SpecialTokens::add);
  if (ids.empty() && spec.bos_token) ids.push_back(*spec.bos_token);
  TextOutput output(state_->tokenizer, options, on_text);
  output.skip_prompt(ids);
  const GenerateResult result =
      salient::generate(state_->decoder,
                        {.prompt = ids,
                         .max_tokens = options.max_tokens,
                         .sampling = {.repetition_penalty = options.repetition_penalty,
                                      .temperature = options.temperature,
                                      .top_k = options.top_k,
                                      .top_p = options.top_p,
                                      .min_p = options.min_p,
                                      .seed = options.seed},
                         .stop_tokens = spec.eos_tokens,
                         .cancelled = options.cancelled},
                        [&](int32_t token) { return output.push(token); });
  if (result.reason != FinishReason::callback) output.finish();
  return {.text = output.take_text(),
          .reason = output.stopped() ? FinishReason::stop_text : result.reason,
          .prompt_tokens = result.prompt_tokens,
          .tokens = static_cast<int64_t>(result.tokens.size()),
          .prefill_tokens_per_second = result.prefill_tokens_per_second(),
          .decode_tokens_per_second = result.decode_tokens_per_second()};
}

}  // namespace salient
