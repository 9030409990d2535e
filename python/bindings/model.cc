#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <utility>

#include "backend/cuda/driver.h"
#include "backend/cuda/kernel_choice.h"
#include "base/error.h"
#include "bindings/arrays.h"
#include "bindings/interruptible.h"
#include "bindings/keywords.h"
#include "evaluate/window_scores.h"
#include "runtime/engine.h"
#include "runtime/json_constraint.h"
#include "runtime/stop_text.h"

namespace salient::python {
namespace {

/// A model directory, loaded.
class LoadedModel {
 public:
  LoadedModel(const std::string& path, const BackendChoice& choice, const DecoderOptions& options)
      : backend_(make_backend(choice)),
        decoder_(Decoder::load(path, *backend_, options)),
        fuse_layers_(choice.fuse_layers) {}

  bool fuse_layers() const { return fuse_layers_; }
  std::string device() const { return backend_->description(); }
  const Decoder& decoder() const { return decoder_; }

  /// f32 [last or tokens, vocab]
  Tensor logits(std::span<const int32_t> ids, int64_t last, const CancellationFlag* cancelled) const {
    const auto count = static_cast<int64_t>(ids.size());
    if (last < 0 || last > count)
      fail(ErrorKind::invalid_argument, "last {} is no number of positions from 0 to {}", last, count);
    check_window(decoder_.spec(), count);
    KvCache cache = decoder_.make_cache();
    return decoder_.logits({ids, last == 0 ? 0 : count - last, cancelled}, cache);
  }

  struct Scores {
    std::vector<double> log_probabilities;
    std::vector<uint8_t> most_likely;
  };
  /// Of ids[first:], each given all before it.
  Scores score(std::span<const int32_t> ids, int64_t first, const CancellationFlag* cancelled) const {
    const auto count = static_cast<int64_t>(ids.size());
    if (count < 2) fail(ErrorKind::invalid_argument, "a text of {} tokens has none to predict", count);
    if (first < 1 || first >= count) {
      fail(ErrorKind::invalid_argument,
           "first {} is no position from 1 to {}: the first token has nothing before it", first, count - 1);
    }
    check_window(decoder_.spec(), count - 1);
    check_tokens(decoder_.spec(), ids);
    Scores scores;
    KvCache cache = decoder_.make_cache();
    const auto context = ids.first(ids.size() - 1);
    decoder_.forward_rows({context, first - 1, cancelled}, cache, [&](int64_t row, const Tensor& part) {
      const auto vocabulary = static_cast<size_t>(part.dim(1));
      for (int64_t i = 0; i < part.dim(0); ++i) {
        const auto logits = part.values<float>().subspan(static_cast<size_t>(i) * vocabulary, vocabulary);
        const int32_t target = ids[static_cast<size_t>(row + i + 1)];
        const RowSummary summary = summarize(logits);
        scores.log_probabilities.push_back(static_cast<double>(logits[static_cast<size_t>(target)]) -
                                           summary.log_sum);
        scores.most_likely.push_back(summary.top == target ? 1 : 0);
      }
    });
    return scores;
  }

 private:
  std::unique_ptr<Backend> backend_;
  Decoder decoder_;
  bool fuse_layers_;
};

/// What "auto" stands for: in Python logits are looked at.
constexpr KvType kUsualKvType = KvType::fp32;

void load(LoadedModel* place, const std::filesystem::path& path, const std::string& device,
          const std::string& activations, const std::filesystem::path& packed_weights, bool fuse_layers,
          const std::string& kv_cache_dtype, const std::string& lm_head, const std::string& kernel,
          const nb::object& on_note) {
  Interruptible job;
  BackendChoice choice{
      .device = device, .activations = activations, .fuse_layers = fuse_layers, .kernel = kernel};
  if (!on_note.is_none())
    choice.on_note = [&](const std::string& text) { job.call_back([&] { on_note(text); }); };
  job.run([&] {
    new (place) LoadedModel(path.string(), choice,
                            {.packed_weights = packed_weights.string(),
                             .kv_type = kv_type_asked_for(kv_cache_dtype, kUsualKvType),
                             .lm_head = lm_head_by_name(lm_head),
                             .cancelled = job.flag()});
  });
}

nb::object begin_token(const LoadedModel& model) {
  const auto& token = model.decoder().spec().bos_token;
  return token ? nb::cast(*token) : nb::none();
}

nb::object logits(const LoadedModel& model, const IdArray& array, int64_t last) {
  const std::vector<int32_t> ids = to_ids(array);
  Tensor result;
  Interruptible job;
  job.run([&] { result = model.logits(ids, last, job.flag()); });
  return to_numpy(result);
}

nb::tuple score(const LoadedModel& model, const IdArray& array, int64_t first) {
  const std::vector<int32_t> ids = to_ids(array);
  LoadedModel::Scores scores;
  Interruptible job;
  job.run([&] { scores = model.score(ids, first, job.flag()); });
  const auto count = static_cast<int64_t>(scores.log_probabilities.size());
  const Tensor likely = Tensor::of<uint8_t>({count}, scores.most_likely);
  return nb::make_tuple(to_numpy(Tensor::of<double>({count}, scores.log_probabilities)),
                        to_numpy(likely).attr("astype")("bool"));
}

/// A vocabulary for texts of JSON.
struct JsonWords {
  explicit JsonWords(const Tokenizer& tokenizer)
      : vocabulary(std::make_shared<const JsonVocabulary>(tokenizer)) {}

  std::shared_ptr<const JsonVocabulary> vocabulary;
};

/// Has a text poll a flag which the text outlives.
class PolledFlag {
 public:
  PolledFlag(TokenStream& text, const CancellationFlag* flag) : text_(text) { text.set_cancelled(flag); }
  ~PolledFlag() { text_.set_cancelled(nullptr); }
  PolledFlag(const PolledFlag&) = delete;
  PolledFlag& operator=(const PolledFlag&) = delete;

 private:
  TokenStream& text_;
};

/// What a user asks for, kept as long as the text is in the making.
class TextInTheMaking {
 public:
  /// `kept`: the model and what else must live as long.
  TextInTheMaking(TokenStream stream, nb::object kept)
      : kept_(std::move(kept)), stream_(std::make_shared<TokenStream>(std::move(stream))) {}

  const std::shared_ptr<TokenStream>& stream() { return stream_; }

  /// Another text behind the same prompt, which an engine runs once. Not where it follows a state: so it is
  /// run now.
  TextInTheMaking* fork(uint64_t seed) {
    if (stream_->cache().length() > 0) run([&] { stream_->prefill(); });
    return new TextInTheMaking(stream_->fork(seed), kept_);
  }

  void save_state(const std::filesystem::path& path) {
    const SequenceState state = stream_->state();
    const nb::gil_scoped_release released;
    write_sequence_state(path, state, state_owner(stream_->decoder().weights()));
  }

  nb::object prompt() const {
    const auto tokens = stream_->tokens().first(static_cast<size_t>(stream_->result().prompt_tokens));
    return to_numpy(std::vector<int32_t>(tokens.begin(), tokens.end()));
  }

  /// A list of (token, its log-probability, {token: log-probability}).
  nb::list logprobs() const {
    nb::list result;
    for (const TokenLogprobs& drawn : stream_->result().logprobs) {
      nb::dict top;
      for (const TokenLogprob& entry : drawn.top) top[nb::int_(entry.token)] = entry.logprob;
      result.append(nb::make_tuple(drawn.chosen.token, drawn.chosen.logprob, top));
    }
    return result;
  }

  /// None once the text has ended.
  nb::object next() {
    std::optional<int32_t> token;
    run([&] { token = stream_->next(); });
    given_ = stream_->result().tokens.size();
    return token ? nb::cast(*token) : nb::none();
  }

  /// Every token that `next` has not given.
  nb::object rest() {
    run([&] {
      while (stream_->next()) continue;
    });
    const std::vector<int32_t>& tokens = stream_->result().tokens;
    const auto before = static_cast<std::ptrdiff_t>(std::exchange(given_, tokens.size()));
    return to_numpy(std::vector<int32_t>(tokens.begin() + before, tokens.end()));
  }

  const GenerateResult& result() const { return stream_->result(); }

 private:
  void run(const std::function<void()>& work) {
    Interruptible job;
    const PolledFlag polled(*stream_, job.flag());
    job.run(work);
  }

  nb::object kept_;
  std::shared_ptr<TokenStream> stream_;
  size_t given_ = 0;  // tokens that Python has seen
};

TextInTheMaking* start(const nb::object& model, const IdArray& prompt, const nb::kwargs& arguments) {
  Keywords given(arguments);
  const Decoder& decoder = nb::cast<const LoadedModel&>(model).decoder();
  std::vector<int32_t> stop_tokens;
  given.take("stop_token_ids", stop_tokens);
  GenerateRequest request{.prompt = {prompt.data(), prompt.size()}, .stop_tokens = stop_tokens};
  given.take("max_new_tokens", request.max_tokens);
  given.take("min_new_tokens", request.min_tokens);
  given.take("temperature", request.sampling.temperature);
  given.take("top_k", request.sampling.top_k);
  given.take("top_p", request.sampling.top_p);
  given.take("min_p", request.sampling.min_p);
  given.take("repetition_penalty", request.sampling.repetition_penalty);
  given.take("seed", request.sampling.seed);
  given.take("logit_bias", request.sampling.logit_bias);
  request.logprobs = given.take<int64_t>("logprobs");
  given.take("num_assistant_tokens", request.speculation.tokens);
  const nb::object assistant = given.take_object("assistant");
  if (!assistant.is_none()) request.speculation.draft = &nb::cast<const LoadedModel&>(assistant).decoder();
  const nb::object json_words = given.take_object("json_words");
  std::unique_ptr<TokenConstraint> constraint;
  if (!json_words.is_none())
    constraint = make_json_constraint(nb::cast<const JsonWords&>(json_words).vocabulary);
  request.constraint = constraint.get();
  std::string state;
  given.take_path("load_state", state);
  given.finish();
  const nb::object kept = nb::make_tuple(model, assistant);
  if (state.empty()) return new TextInTheMaking(TokenStream(decoder, request), kept);
  return new TextInTheMaking(
      TokenStream(decoder, request, read_sequence_state(state, state_owner(decoder.weights()))), kept);
}

/// Whether a text has come to one of the strings that end it.
class StopWatch {
 public:
  StopWatch(const Tokenizer& tokenizer, const std::vector<std::string>& stops)
      : decoder_(tokenizer, Tokenizer::SkipSpecial::no), stop_(stops) {}

  bool stops_at(int32_t token) {
    stop_.push(decoder_.push(token));
    return stop_.stopped();
  }

 private:
  StreamDecoder decoder_;
  StopText stop_;
};

/// Several texts of one model, side by side.
struct Batch {
  std::vector<std::shared_ptr<TokenStream>> texts;
  std::vector<StopWatch> watches;  // of each text, or none
  EngineOptions options{};

  /// Every token that is left of them.
  void finish(const CancellationFlag* cancelled) {
    Engine engine(texts[0]->decoder(), options);
    for (const auto& text : texts) engine.submit(text);
    while (!engine.idle()) {
      for (const auto& [id, _, token] : engine.step(cancelled)) take(static_cast<size_t>(id), token);
    }
    for (const auto& text : texts) {
      if (const auto& failure = text->result().failure) throw Error(*failure);
    }
  }

 private:
  void take(size_t index, std::optional<int32_t> token) {
    if (!token) {
      texts[index]->forget();
    } else if (!watches.empty() && watches[index].stops_at(*token)) {
      texts[index]->stop(FinishReason::stop_text);
    }
  }
};

/// As much as the engine takes by itself, or as the largest text needs.
uint64_t usual_cache_bytes(const std::vector<std::shared_ptr<TokenStream>>& texts) {
  uint64_t bytes = EngineOptions{}.kv_cache_memory_bytes;
  for (const auto& text : texts) bytes = std::max(bytes, most_cache_bytes(*text));
  return bytes;
}

void finish_together(const std::vector<TextInTheMaking*>& texts, const nb::kwargs& arguments) {
  if (texts.empty()) return;
  Batch batch;
  for (TextInTheMaking* text : texts) batch.texts.push_back(text->stream());
  Keywords given(arguments);
  given.take("max_num_seqs", batch.options.max_num_seqs);
  given.take("max_num_batched_tokens", batch.options.max_num_batched_tokens);
  const auto invariant = given.take<bool>("batch_invariant");
  batch.options.as_alone = invariant.value_or(!batch.texts[0]->decoder().favors_many_rows());
  const auto bytes = given.take<uint64_t>("kv_cache_memory_bytes");
  batch.options.kv_cache_memory_bytes = bytes ? *bytes : usual_cache_bytes(batch.texts);
  const nb::object tokenizer = given.take_object("tokenizer");
  std::vector<nb::bytes> stop_strings;
  given.take("stop_strings", stop_strings);
  given.finish();
  if (!stop_strings.empty()) {
    std::vector<std::string> stops;
    for (const nb::bytes& stop : stop_strings) stops.emplace_back(stop.c_str(), stop.size());
    batch.watches.assign(texts.size(), StopWatch(nb::cast<const Tokenizer&>(tokenizer), stops));
  }
  Interruptible job;
  std::deque<PolledFlag> polled;
  for (const auto& text : batch.texts) polled.emplace_back(*text, job.flag());
  job.run([&] { batch.finish(job.flag()); });
}

std::string why_no_gpu() { return cuda::query_cuda().why_not; }

/// Opens no GPU: where there is one, only `load` tells whether it can do what is asked of it.
void check_choice(const BackendChoice& choice) {
  activation_mode_by_name(choice.activations);
  cuda::kernel_by_name(choice.kernel);
  const bool may_be_gpu = choice.device == "auto" || choice.device.starts_with("cuda");
  if (!may_be_gpu || !why_no_gpu().empty()) make_backend(choice);
}

/// Errors: TypeError and invalid_argument for values that `load` would refuse.
void check_running(const nb::kwargs& arguments) {
  Keywords given(arguments);
  BackendChoice choice;
  given.take("device", choice.device);
  given.take("activations", choice.activations);
  given.take("kernel", choice.kernel);
  check_choice(choice);
  if (const auto lm_head = given.take<std::string>("lm_head")) lm_head_by_name(*lm_head);
  if (const auto type = given.take<std::string>("kv_cache_dtype")) kv_type_asked_for(*type, kUsualKvType);
  given.take<std::filesystem::path>("packed_weights");
  given.take<bool>("fuse_layers");
  given.finish();
}

void bind_helpers(nb::module_& module) {
  module.def("check_running", &check_running, nb::arg("arguments"),
             nb::sig("def check_running(*, device: str = ..., activations: str = ..., lm_head: str = ..., "
                     "packed_weights: str | os.PathLike[str] = ..., fuse_layers: bool = ..., "
                     "kv_cache_dtype: str = ..., kernel: str = ...) -> None"),
             "Refuses values that `Model` would refuse.");
  module.def("why_no_gpu", &why_no_gpu, nb::call_guard<nb::gil_scoped_release>(),
             "Why no GPU can run models, in a line; nothing where one can.");
  module.def("check_state_target", &check_state_target, nb::arg("path"),
             nb::sig("def check_state_target(path: str | os.PathLike[str]) -> None"),
             "Refuses a file for a state that has no folder, or that exists and is no state.");
  nb::class_<JsonWords>(module, "JsonWords", "A vocabulary as texts of JSON need it.")
      .def(nb::init<const Tokenizer&>(), nb::arg("tokenizer"), nb::call_guard<nb::gil_scoped_release>());
}

void bind_stream(nb::module_& module) {
  nb::class_<TextInTheMaking>(module, "TokenStream", "A text in the making.")
      .def("next", &TextInTheMaking::next, nb::sig("def next(self) -> int | None"),
           "The next token; None once the text has ended. The first call runs the prompt.")
      .def("rest", &TextInTheMaking::rest, nb::sig("def rest(self) -> numpy.typing.NDArray[numpy.int32]"),
           "The tokens behind the prompt that `next` has not given, without the one that ends the text.")
      .def("fork", &TextInTheMaking::fork, nb::arg("seed"),
           "Another text behind the same prompt, which `finish_together` runs once.")
      .def("save_state", &TextInTheMaking::save_state, nb::arg("path"),
           nb::sig("def save_state(self, path: str | os.PathLike[str]) -> None"),
           "Leaves the tokens, and what the model remembers of them, in a file.")
      .def("logprobs", &TextInTheMaking::logprobs,
           nb::sig("def logprobs(self) -> list[tuple[int, float, dict[int, float]]]"),
           "Of each new token: its log-probability, and those of the likeliest.")
      .def_prop_ro("prompt", &TextInTheMaking::prompt,
                   nb::sig("def prompt(self) -> numpy.typing.NDArray[numpy.int32]"),
                   "What the new tokens follow: the tokens of a loaded state, and the prompt.")
      .def_prop_ro("proposed_tokens", [](TextInTheMaking& text) { return text.result().proposed_tokens; })
      .def_prop_ro("accepted_tokens", [](TextInTheMaking& text) { return text.result().accepted_tokens; })
      .def_prop_ro(
          "stop_token",
          [](const TextInTheMaking& text) {
            return text.result().stop_token ? nb::cast(*text.result().stop_token) : nb::none();
          },
          nb::sig("def stop_token(self) -> int | None"), "The token that ended the text.")
      .def_prop_ro(
          "finish_reason",
          [](const TextInTheMaking& text) { return std::string(to_string(text.result().reason)); },
          "\"stop_token\", \"complete\", \"max_tokens\" or \"context_limit\", once it has ended; "
          "\"stop_text\" behind `finish_together`.")
      .def_prop_ro("prefill_tokens_per_second",
                   [](const TextInTheMaking& text) { return text.result().prefill_tokens_per_second(); })
      .def_prop_ro("decode_tokens_per_second",
                   [](const TextInTheMaking& text) { return text.result().decode_tokens_per_second(); });
  module.def(
      "finish_together", &finish_together, nb::arg("texts"), nb::arg("arguments"),
      nb::sig("def finish_together(texts: collections.abc.Sequence[TokenStream], *, "
              "max_num_seqs: int = 16, max_num_batched_tokens: int = 512, "
              "kv_cache_memory_bytes: int | None = None, batch_invariant: bool | None = None, tokenizer: "
              "Tokenizer | None = None, "
              "stop_strings: collections.abc.Sequence[bytes] = ()) -> None"),
      "Makes texts of one model to their ends, in passes that they share; `rest` gives their tokens. "
      "Nothing is left to be saved. With batch_invariant (None: on the CPU) each is bit by bit what it would "
      "be alone.");
}

}  // namespace

void bind_model(nb::module_& module) {
  bind_helpers(module);
  nb::class_<LoadedModel>(module, "Model", "A model directory, dense or quantized, loaded.")
      .def(
          "__init__", &load, nb::arg("path"), nb::arg("device") = "auto", nb::arg("activations") = "fp32",
          nb::arg("packed_weights") = "", nb::arg("fuse_layers") = true, nb::arg("kv_cache_dtype") = "fp32",
          nb::arg("lm_head") = "auto", nb::arg("kernel") = "auto", nb::arg("on_note") = nb::none(),
          nb::sig("def __init__(self, path: str | os.PathLike[str], device: str = 'auto', activations: str = "
                  "'fp32', packed_weights: str | os.PathLike[str] = '', fuse_layers: bool = True, "
                  "kv_cache_dtype: str = 'fp32', lm_head: str = 'auto', kernel: str = 'auto', on_note: "
                  "collections.abc.Callable[[str], None] | None = None) -> None"),
          "`on_note` is told which kernels run and why, in a line.")
      .def_prop_ro("fuse_layers", &LoadedModel::fuse_layers,
                   "Whether linears that read one input are one product.")
      .def_prop_ro("device", &LoadedModel::device, "What computes: \"cpu: avx512 (vnni, amx), 2 threads\".")
      .def_prop_ro("bos_token_id", &begin_token, nb::sig("def bos_token_id(self) -> int | None"))
      .def_prop_ro(
          "eos_token_ids", [](const LoadedModel& model) { return model.decoder().spec().eos_tokens; },
          "The tokens that end a text.")
      .def_prop_ro(
          "context_length", [](const LoadedModel& model) { return context_limit(model.decoder().spec()); },
          "Positions that the model can use.")
      .def("logits", &logits, nb::arg("ids").noconvert(), nb::arg("last") = 0,
           nb::sig("def logits(self, ids: numpy.typing.NDArray[numpy.int32], last: int = 0) -> "
                   "numpy.typing.NDArray[numpy.float32]"),
           "Logits [tokens, vocab] of the token after each position; with `last` above 0 only of the last so "
           "many "
           "positions.")
      .def("score", &score, nb::arg("ids").noconvert(), nb::arg("first"),
           nb::sig("def score(self, ids: numpy.typing.NDArray[numpy.int32], first: int) -> "
                   "tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.bool_]]"),
           "Log-probability (nats) of each of ids[first:] given all before it, and whether it was the most "
           "likely one.")
      .def("start", &start, nb::arg("ids").noconvert(), nb::arg("arguments"),
           nb::sig("def start(self, ids: numpy.typing.NDArray[numpy.int32], *, max_new_tokens: int = 256, "
                   "min_new_tokens: int = 0, temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, "
                   "min_p: float = 0.0, repetition_penalty: float = 1.0, seed: int = 0, "
                   "logit_bias: collections.abc.Mapping[int, float] = {}, "
                   "stop_token_ids: collections.abc.Sequence[int] = (), logprobs: int | None = None, "
                   "num_assistant_tokens: int = 0, assistant: Model | None = None, "
                   "json_words: JsonWords | None = None, "
                   "load_state: str | os.PathLike[str] | None = None) -> TokenStream"),
           "What follows a prompt, or a saved state and a prompt, token by token.");
  bind_stream(module);
}

}  // namespace salient::python
