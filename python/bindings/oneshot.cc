#include "salient/oneshot.h"

#include "base/error.h"
#include "bindings/arrays.h"
#include "bindings/interruptible.h"
#include "bindings/keywords.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/reshard.h"
#include "model/weights.h"
#include "quant/scheme.h"
#include "recipe/calibration_data.h"
#include "recipe/effort.h"
#include "recipe/recipe_fields.h"
#include "recipe/report_html.h"
#include "recipe/report_json.h"

namespace salient::python {
namespace {

/// Which tokens of a sequence count, [tokens].
using MaskArray = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

DuoScaling duo_scaling_of(const nb::object& value) {
  if (nb::isinstance<nb::bool_>(value)) return nb::cast<bool>(value) ? DuoScaling::on : DuoScaling::off;
  if (nb::isinstance<nb::str>(value) && nb::cast<std::string>(value) == "both") return DuoScaling::both;
  fail(ErrorKind::invalid_argument, "duo_scaling: {} is none of True, False and \"both\"",
       nb::cast<std::string>(nb::repr(value)));
}

/// Whoever gives ids has chosen them: none is left out or too long unless a limit is named.
void take_all_sequences(CalibrationOptions& calibration) {
  size_t longest = 1;
  for (const auto& ids : calibration.sequences) longest = std::max(longest, ids.size());
  calibration.max_seq_length = static_cast<int64_t>(longest);
  calibration.num_samples = std::max<int64_t>(1, static_cast<int64_t>(calibration.sequences.size()));
}

void take_calibration(Keywords& keywords, CalibrationOptions& calibration) {
  std::string dataset;
  keywords.take_path("dataset", dataset);
  if (!dataset.empty()) calibration.datasets = {{.data = dataset}};
  keywords.take("text_column", calibration.text_column);
  keywords.take("seed", calibration.seed);
  if (const auto sequences = keywords.take<std::vector<IdArray>>("sequences", Keywords::Convert::no)) {
    calibration.datasets.clear();  // of the recipe: what is given counts more
    calibration.sequences = to_sequences(*sequences);
    take_all_sequences(calibration);
  }
  if (const auto masks = keywords.take<std::vector<MaskArray>>("masks", Keywords::Convert::no)) {
    for (const MaskArray& mask : *masks)
      calibration.masks.emplace_back(mask.data(), mask.data() + mask.size());
  }
  keywords.take("num_samples", calibration.num_samples);
  keywords.take("max_seq_length", calibration.max_seq_length);
  keywords.take("min_tokens_per_expert", calibration.min_tokens_per_expert);
  if (const auto quantized = keywords.take<bool>("propagate_error"))
    calibration.propagation = *quantized ? Propagation::quantized : Propagation::original;
  if (const auto all = keywords.take<bool>("calibrate_all_experts"))
    calibration.experts = *all ? ExpertCalibration::all : ExpertCalibration::routed;
}

/// What stands beside the recipe, in the arguments of AutoAWQ's quantize.
void take_awq(Keywords& keywords, Recipe& recipe) {
  const auto clip = keywords.take<bool>("apply_clip");
  const nb::object duo = keywords.take_object("duo_scaling");
  if (!clip && duo.is_none()) return;
  if (!recipe.awq)
    fail(ErrorKind::invalid_argument, "apply_clip and duo_scaling are for AWQ, which the recipe lacks");
  if (clip) recipe.awq->clip = *clip ? ClipSearch::on : ClipSearch::off;
  if (!duo.is_none()) recipe.awq->duo_scaling = duo_scaling_of(duo);
}

/// Without output.
OneshotOptions job_options(Keywords& keywords) {
  OneshotOptions options;
  keywords.take_path("model", options.model);
  keywords.take("recipe_source", options.recipe_source);
  parse_recipe(keywords.take<std::string>("recipe").value_or(""), options.recipe_source, options);
  take_awq(keywords, options.recipe);
  if (const auto format = keywords.take<std::string>("format")) options.format = format_by_name(*format);
  if (const auto scaled = keywords.take<bool>("scaled_only"))
    options.result = *scaled ? OneshotResult::scaled : OneshotResult::quantized;
  if (const auto effort = keywords.take<std::string>("effort")) {
    const size_t index = read_word(JsonView(Json(*effort), "effort"), kEffortWords);
    take_effort("effort", static_cast<Effort>(index), options);
  }
  if (const auto bits = keywords.take<double>("target_bits")) options.target_bits = *bits;
  keywords.take("device", options.device);
  take_calibration(keywords, options.calibration);
  return options;
}

std::string run_oneshot(const nb::kwargs& arguments) {
  Keywords keywords(arguments);
  OneshotOptions options = job_options(keywords);
  keywords.take_path("output", options.output);
  keywords.take("shard_size", options.shard_size);
  keywords.take("overwrite", options.overwrite);
  keywords.take("max_memory", options.max_memory);
  keywords.take_path("work", options.work);
  keywords.take("resume", options.resume);
  const nb::object progress = keywords.take_object("progress");
  keywords.finish();
  Interruptible job;
  options.cancelled = job.flag();
  if (!progress.is_none()) {
    options.on_progress = [&](const Progress& state) {
      job.call_back(
          [&] { progress(state.layers_done, state.layers, state.elapsed_seconds, state.remaining_seconds); });
    };
  }
  Json json;
  job.run([&] { json = to_json(oneshot(options)); });
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);  // a path may hold what is no UTF-8
}

std::string run_plan(const nb::kwargs& arguments) {
  Keywords keywords(arguments);
  OneshotOptions options = job_options(keywords);
  keywords.finish();
  Json json;
  Interruptible job;
  options.cancelled = job.flag();
  job.run([&] { json = to_json(plan_oneshot(options), options); });
  return json.dump();
}

void run_check(const nb::kwargs& arguments) {
  Keywords keywords(arguments);
  OneshotOptions options = job_options(keywords);
  keywords.finish();
  Interruptible job;
  options.cancelled = job.flag();
  job.run([&] { check_oneshot(options); });
}

/// What a recipe says beside what to do to the weights; null where it says nothing.
std::string read_recipe(const std::string& text, const std::string& source) {
  constexpr int64_t kUnsaid = -1;
  OneshotOptions options;
  options.calibration.num_samples = kUnsaid;
  options.calibration.max_seq_length = kUnsaid;
  options.calibration.seed = kUnsaid;
  options.calibration.text_column.clear();
  OneshotOptions other = options;  // starting from another value shows whether one is said
  other.calibration.experts = ExpertCalibration::routed;
  other.calibration.shuffle = !options.calibration.shuffle;
  parse_recipe(text, source, options);
  parse_recipe(text, source, other);
  const CalibrationOptions& calibration = options.calibration;
  Json all_experts;
  if (calibration.experts == other.calibration.experts)
    all_experts = calibration.experts == ExpertCalibration::all;
  const auto said = [&](int64_t value) { return value == kUnsaid ? Json() : Json(value); };
  const bool shuffle_said = calibration.shuffle == other.calibration.shuffle;
  const bool documents_said = calibration.documents != DocumentPolicy::automatic;
  return Json{{"needs_data", options.recipe.awq.has_value()},
              {"names_data", !calibration.datasets.empty()},
              {"seed", said(calibration.seed)},
              {"text_column", calibration.text_column.empty() ? Json() : Json(calibration.text_column)},
              {"concatenate_data",
               documents_said ? Json(calibration.documents == DocumentPolicy::concatenate) : Json()},
              {"shuffle_calibration_samples", shuffle_said ? Json(calibration.shuffle) : Json()},
              {"num_calibration_samples", said(options.calibration.num_samples)},
              {"max_seq_length", said(options.calibration.max_seq_length)},
              {"moe_calibrate_all_experts", all_experts}}
      .dump();
}

/// What the data set "self" is of a model.
nb::list sample_self(const std::filesystem::path& model, int64_t num_samples, int64_t max_seq_length,
                     int64_t seed, const nb::object& progress) {
  Interruptible job;
  OneshotOptions options;
  options.model = model.string();
  options.calibration.datasets = {{.data = std::string(kSelfData)}};
  options.calibration.num_samples = num_samples;
  options.calibration.max_seq_length = max_seq_length;
  options.calibration.seed = seed;
  options.cancelled = job.flag();
  if (!progress.is_none()) {
    options.on_sampling = [&](const SamplingProgress& state) {
      job.call_back([&] { progress(state.tokens_done, state.tokens); });
    };
  }
  CalibrationData data;
  job.run([&] { data = calibration_data(options, ModelWeights(options.model).spec(), SelfData::draw); });
  nb::list result;
  for (auto& ids : data.sequences) result.append(to_numpy(std::move(ids)));
  return result;
}

void reshard(const std::filesystem::path& source, const std::filesystem::path& target, size_t shard_size,
             bool overwrite) {
  CheckpointWriter::Options options{.target = target.string(), .shard_size = shard_size};
  if (overwrite) options.if_exists = OutputDirectory::IfExists::replace;
  Interruptible job;
  job.run([&] { reshard_checkpoint(source.string(), options, job.flag()); });
}

}  // namespace

void bind_oneshot(nb::module_& module) {
  constexpr const char* kSignature =
      "(*, model: str, recipe: str, recipe_source: str, format: str | None = None, effort: str | None = "
      "None, "
      "target_bits: float | None = None, device: str = 'cpu', "
      "dataset: str = '', text_column: str = 'text', "
      "sequences: collections.abc.Sequence[numpy.typing.NDArray[numpy.int32]] | None = None, "
      "masks: collections.abc.Sequence[numpy.typing.NDArray[numpy.uint8]] | None = None, seed: int | None = "
      "None, "
      "num_samples: int | None = None, max_seq_length: int | None = None, propagate_error: bool | None = "
      "None, "
      "calibrate_all_experts: bool | None = None, min_tokens_per_expert: int | None = None, "
      "apply_clip: bool | None = None, duo_scaling: bool | str | None = None, scaled_only: bool | None = "
      "None";
  static const std::string oneshot_signature = fmt::format(
      "def oneshot{}, output: str, shard_size: int = 5000000000, overwrite: bool = False, "
      "max_memory: int = 0, work: str = '', resume: bool = False, "
      "progress: collections.abc.Callable[[int, int, float, float], None] | None = None) -> str",
      kSignature);
  static const std::string plan_signature = fmt::format("def plan{}) -> str", kSignature);
  static const std::string check_signature = fmt::format("def check{}) -> None", kSignature);
  module.def(
      "oneshot", &run_oneshot, nb::sig(oneshot_signature.c_str()),
      "Quantizes a model directory into another; the report as JSON. `recipe` is the text of a recipe, JSON "
      "where `recipe_source` ends in .json, else YAML. `max_memory`: bytes, 0 for no cap. "
      "`progress(layers_done, layers, elapsed, left)`.");
  module.def(
      "report_html", [](const std::string& report) { return report_html(parse_json(report, "report")); },
      nb::arg("report"), "The report that oneshot gives, as a page of HTML that stands alone.");
  module.def("plan", &run_plan, nb::sig(plan_signature.c_str()), "What oneshot would do, as JSON.");
  module.def("sample_self", &sample_self, nb::arg("model"), nb::arg("num_samples"), nb::arg("max_seq_length"),
             nb::arg("seed"), nb::arg("progress") = nb::none(),
             nb::sig("def sample_self(model: str | os.PathLike[str], num_samples: int, max_seq_length: int, "
                     "seed: int, progress: collections.abc.Callable[[int, int], None] | None = None) -> "
                     "list[numpy.typing.NDArray[numpy.int32]]"),
             "Sequences of ids drawn from the model itself. `progress(tokens_done, tokens)`.");
  module.def("shares_of", &shares_of, nb::arg("total"), nb::arg("weights"),
             "How many of `total` sequences each weight gets, by the largest remainders.");
  module.def("check", &run_check, nb::sig(check_signature.c_str()),
             "Raises what plan would before it measures anything.");
  module.def("read_recipe", &read_recipe, nb::arg("text"), nb::arg("source"),
             "Whether a recipe needs_data and names_data, and what it says of num_calibration_samples, "
             "max_seq_length, moe_calibrate_all_experts, seed, text_column, concatenate_data and "
             "shuffle_calibration_samples, as JSON. "
             "Raises what is "
             "wrong with it.");
  module.def(
      "reshard", &reshard, nb::arg("source"), nb::arg("target"), nb::arg("shard_size"), nb::arg("overwrite"),
      nb::sig("def reshard(source: str | os.PathLike[str], target: str | os.PathLike[str], shard_size: int, "
              "overwrite: bool) -> None"),
      "Copies a model directory with shards of another size; it appears whole or not at all.");
  module.def(
      "parse_byte_size", [](const std::string& text) { return parse_byte_size(text); }, nb::arg("text"),
      "Bytes of \"5GB\", \"512MiB\", \"1500000\".");
}

}  // namespace salient::python
