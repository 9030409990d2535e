#include <nanobind/stl/filesystem.h>

#include "base/json.h"
#include "bindings/arrays.h"
#include "bindings/interruptible.h"
#include "bindings/keywords.h"
#include "evaluate/report_json.h"
#include "recipe/inspection.h"
#include "text/dataset.h"

namespace salient::python {
namespace {

std::string inspect(const std::filesystem::path& path) {
  const nb::gil_scoped_release released;
  return inspection_json(ModelWeights(path.string())).dump();
}

std::vector<std::string> tensor_names(const std::filesystem::path& path) {
  const nb::gil_scoped_release released;
  return Checkpoint(path.string()).tensor_names();
}

Json measure_windows(const std::string& model, const std::string& against, const TokenWindows& windows,
                     const EvaluationOptions& options) {
  const auto backend = make_cpu_backend();
  const ModelWeights weights(model);
  if (against.empty()) return to_json(measure_perplexity(*backend, weights, windows, options));
  return to_json(measure_divergence(*backend, weights, ModelWeights(against), windows, options));
}

std::string measure(const std::filesystem::path& model, const std::vector<IdArray>& arrays,
                    const std::filesystem::path& against, const nb::object& progress) {
  const TokenWindows windows = to_sequences(arrays);
  Interruptible job;
  EvaluationOptions options{.cancelled = job.flag()};
  if (!progress.is_none()) {
    options.on_progress = [&](int64_t step, int64_t steps) { job.call_back([&] { progress(step, steps); }); };
  }
  Json json;
  job.run([&] { json = measure_windows(model.string(), against.string(), windows, options); });
  return json.dump();
}

nb::list read_windows(const Tokenizer& tokenizer, const std::filesystem::path& path,
                      const std::string& text_column, size_t window, std::optional<size_t> maximum) {
  std::vector<std::vector<int32_t>> windows;
  Interruptible job;
  WindowOptions options{.window = window};
  options.cancelled = job.flag();
  if (maximum) options.maximum = *maximum;
  job.run([&] {
    windows = read_token_windows(tokenizer, {.path = path.string(), .text_column = text_column}, options);
  });
  nb::list result;
  for (auto& ids : windows) result.append(to_numpy(std::move(ids)));
  return result;
}

std::vector<std::string> read_texts(const std::filesystem::path& path, const std::string& text_column) {
  std::vector<std::string> texts;
  Interruptible job;
  job.run([&] { texts = read_documents({.path = path.string(), .text_column = text_column}, job.flag()); });
  return texts;
}

}  // namespace

void bind_measure(nb::module_& module) {
  module.def("inspect", &inspect, nb::arg("path"),
             nb::sig("def inspect(path: str | os.PathLike[str]) -> str"),
             "What a model directory holds, as JSON.");
  module.def("tensor_names", &tensor_names, nb::arg("path"),
             nb::sig("def tensor_names(path: str | os.PathLike[str]) -> list[str]"),
             "Names of the tensors of a model directory.");
  module.def(
      "measure", &measure, nb::arg("model"), nb::arg("windows").noconvert(), nb::arg("against") = "",
      nb::arg("progress") = nb::none(),
      nb::sig(
          "def measure(model: str, windows: collections.abc.Sequence[numpy.typing.NDArray[numpy.int32]], "
          "against: str = '', progress: collections.abc.Callable[[int, int], None] | None = None) -> str"),
      "Perplexity over windows of ids, and how far from the model `against`, as JSON. `progress(step, "
      "steps)`.");
  module.def("read_windows", &read_windows, nb::arg("tokenizer"), nb::arg("path"),
             nb::arg("text_column") = "text", nb::arg("window") = 512, nb::arg("maximum") = nb::none(),
             nb::sig("def read_windows(tokenizer: Tokenizer, path: str | os.PathLike[str], text_column: str "
                     "= 'text', window: int = 512, "
                     "maximum: int | None = None) -> list[numpy.typing.NDArray[numpy.int32]]"),
             "The documents of a .txt or .jsonl file joined and cut into windows of `window` tokens.");
  module.def("read_texts", &read_texts, nb::arg("path"), nb::arg("text_column") = "text",
             nb::sig("def read_texts(path: str | os.PathLike[str], text_column: str = 'text') -> list[str]"),
             "The documents of a .txt or .jsonl file.");
}

}  // namespace salient::python
