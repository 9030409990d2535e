#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cmath>

#include "base/error.h"
#include "bindings/arrays.h"
#include "bindings/interruptible.h"
#include "evaluate/window_scores.h"
#include "recipe/inspection.h"
#include "runtime/generate.h"

namespace salient::python {
namespace {

std::unique_ptr<Backend> backend_of(const std::string& device) {
  if (device == "auto" || device == "cpu") return make_cpu_backend();
  fail(ErrorKind::invalid_argument, "device \"{}\" is not known (auto, cpu)", device);
}

/// A model directory, loaded.
class LoadedModel {
 public:
  LoadedModel(const std::string& path, const std::string& device)
      : backend_(backend_of(device)), decoder_(Decoder::load(path, *backend_)) {}

  std::string device() const { return backend_->description(); }
  const Decoder& decoder() const { return decoder_; }

  std::string info() const {
    const DecoderSpec& spec = decoder_.spec();
    Json json = inspection_json(decoder_.weights());
    json["bos_token_id"] = spec.bos_token ? Json(*spec.bos_token) : Json();
    json["eos_token_ids"] = spec.eos_tokens;
    json["context_length"] = context_limit(spec);
    return json.dump();
  }

  /// f32 [last or tokens, vocab]
  Tensor logits(std::span<const int32_t> ids, int64_t last, const CancellationFlag* cancelled) const {
    const auto count = static_cast<int64_t>(ids.size());
    if (last < 0 || last > count)
      fail(ErrorKind::invalid_argument, "last {} is no number of positions from 0 to {}", last, count);
    check_length(count);
    const int64_t first = last == 0 ? 0 : count - last;
    Tensor result = Tensor::empty(DType::f32, {count - first, decoder_.spec().vocab_size});
    KvCache cache = decoder_.make_cache();
    decoder_.forward_rows({ids, first, cancelled}, cache, [&](int64_t row, const Tensor& part) {
      Tensor target = result.slice(row - first, row - first + part.dim(0));
      std::memcpy(target.mutable_bytes(), part.bytes(), part.byte_size());
    });
    return result;
  }

  struct Scores {
    std::vector<double> log_probabilities;
    std::vector<uint8_t> most_likely;
  };
  /// Of ids[first:], each given all before it.
  Scores score(std::span<const int32_t> ids, int64_t first, const CancellationFlag* cancelled) const {
    const auto count = static_cast<int64_t>(ids.size());
    if (first < 1 || first >= count) {
      fail(ErrorKind::invalid_argument,
           "first {} is no position from 1 to {}: the first token has nothing before it", first, count - 1);
    }
    check_length(count - 1);
    Scores scores;
    KvCache cache = decoder_.make_cache();
    const auto context = ids.first(ids.size() - 1);
    decoder_.forward_rows({context, first - 1, cancelled}, cache, [&](int64_t row, const Tensor& part) {
      const auto vocabulary = static_cast<size_t>(part.dim(1));
      for (int64_t i = 0; i < part.dim(0); ++i) {
        const auto logits = part.values<float>().subspan(static_cast<size_t>(i) * vocabulary, vocabulary);
        const int32_t target = ids[static_cast<size_t>(row + i + 1)];
        check_token(target);
        const RowSummary summary = summarize(logits);
        scores.log_probabilities.push_back(static_cast<double>(logits[static_cast<size_t>(target)]) -
                                           summary.log_sum);
        scores.most_likely.push_back(summary.top == target ? 1 : 0);
      }
    });
    return scores;
  }

 private:
  void check_length(int64_t tokens) const {
    const int64_t limit = context_limit(decoder_.spec());
    if (tokens > limit)
      fail(ErrorKind::invalid_argument, "the text has {} tokens, the model's context {}", tokens, limit);
  }
  void check_token(int32_t id) const {
    const int64_t vocabulary = decoder_.spec().vocab_size;
    if (id < 0 || id >= vocabulary)
      fail(ErrorKind::invalid_argument, "token {} is not in the vocabulary of {}", id, vocabulary);
  }

  std::unique_ptr<Backend> backend_;
  Decoder decoder_;
};

void load(LoadedModel* place, const std::string& path, const std::string& device) {
  const nb::gil_scoped_release released;
  new (place) LoadedModel(path, device);
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

struct GenerateArguments {
  int64_t max_new_tokens;
  SamplingOptions sampling;
  std::vector<int32_t> stop_token_ids;
};

nb::dict to_dict(const GenerateResult& result) {
  nb::dict dict;
  dict["tokens"] = to_numpy(result.tokens);
  dict["finish_reason"] = std::string(to_string(result.reason));
  dict["stop_token"] = result.stop_token ? nb::cast(*result.stop_token) : nb::none();
  dict["prefill_tokens_per_second"] = result.prefill_tokens_per_second();
  dict["decode_tokens_per_second"] = result.decode_tokens_per_second();
  return dict;
}

nb::dict generate_ids(const LoadedModel& model, const IdArray& prompt, const GenerateArguments& arguments,
                      const nb::object& on_token) {
  const std::vector<int32_t> ids = to_ids(prompt);
  GenerateResult result;
  Interruptible job;
  const auto tell = [&](int32_t token) {
    bool goes_on = true;
    if (!on_token.is_none()) job.call_back([&] { goes_on = nb::cast<bool>(on_token(token)); });
    return goes_on;
  };
  job.run([&] {
    result = generate(model.decoder(),
                      {.prompt = ids,
                       .max_tokens = arguments.max_new_tokens,
                       .sampling = arguments.sampling,
                       .stop_tokens = arguments.stop_token_ids,
                       .cancelled = job.flag()},
                      tell);
  });
  return to_dict(result);
}

}  // namespace

void bind_model(nb::module_& module) {
  nb::class_<LoadedModel>(module, "Model", "A model directory, dense or quantized, loaded.")
      .def("__init__", &load, nb::arg("path"), nb::arg("device") = "auto")
      .def_prop_ro("device", &LoadedModel::device, "What computes: \"cpu, avx512, 8 threads\".")
      .def("info", &LoadedModel::info,
           "JSON: what inspect says, begin and end tokens and the length of the context.")
      .def("logits", &logits, nb::arg("ids"), nb::arg("last") = 0,
           nb::sig("def logits(self, ids: numpy.typing.NDArray[numpy.int32], last: int = 0) -> "
                   "numpy.typing.NDArray[numpy.float32]"),
           "Logits [tokens, vocab] of the token after each position; with `last` above 0 only of the last so "
           "many "
           "positions.")
      .def("score", &score, nb::arg("ids"), nb::arg("first"),
           nb::sig("def score(self, ids: numpy.typing.NDArray[numpy.int32], first: int) -> "
                   "tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.bool_]]"),
           "Log-probability (nats) of each of ids[first:] given all before it, and whether no token was "
           "likelier.")
      .def(
          "generate",
          [](const LoadedModel& model, const IdArray& ids, int64_t max_new_tokens, double temperature,
             int64_t top_k, double top_p, double min_p, double repetition_penalty, uint64_t seed,
             const std::vector<int32_t>& stop_token_ids, const nb::object& on_token) {
            return generate_ids(model, ids,
                                {max_new_tokens,
                                 {.repetition_penalty = repetition_penalty,
                                  .temperature = temperature,
                                  .top_k = top_k,
                                  .top_p = top_p,
                                  .min_p = min_p,
                                  .seed = seed},
                                 stop_token_ids},
                                on_token);
          },
          nb::arg("ids"), nb::kw_only(), nb::arg("max_new_tokens") = 256, nb::arg("temperature") = 0.0,
          nb::arg("top_k") = 0, nb::arg("top_p") = 1.0, nb::arg("min_p") = 0.0,
          nb::arg("repetition_penalty") = 1.0, nb::arg("seed") = 0,
          nb::arg("stop_token_ids") = std::vector<int32_t>{}, nb::arg("on_token") = nb::none(),
          nb::sig("def generate(self, ids: numpy.typing.NDArray[numpy.int32], *, max_new_tokens: int = 256, "
                  "temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0, "
                  "repetition_penalty: float = 1.0, seed: int = 0, "
                  "stop_token_ids: collections.abc.Sequence[int] = (), "
                  "on_token: collections.abc.Callable[[int], bool] | None = None) -> dict[str, typing.Any]"),
          "Continues a prompt. `on_token` sees each new token; False ends the text. Returns tokens (int32, "
          "without "
          "prompt and stop token), finish_reason, stop_token and the speeds.");
}

}  // namespace salient::python
