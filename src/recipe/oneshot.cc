#include "salient/oneshot.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <system_error>
#include <thread>

#include "awq/apply.h"
#include "awq/awq.h"
#include "base/error.h"
#include "base/file.h"
#include "base/parallel.h"
#include "base/process.h"
#include "checkpoint/checkpoint_writer.h"
#include "quant/packing.h"
#include "recipe/bit_choice.h"
#include "recipe/effort.h"
#include "recipe/plan.h"
#include "recipe/report_json.h"
#include "recipe/work_directory.h"

namespace salient {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Writes one decoder layer and remembers which tensors of the source it replaces.
class LayerWriter {
 public:
  LayerWriter(const Job& job, CheckpointWriter& writer)
      : spec_(job.weights.spec()), packing_(packing_of(job.format)), result_(job.result), writer_(writer) {}

  void write(int64_t layer, const LayerWeights& weights) {
    const std::vector<LinearSlot> slots = spec_.linears(layer);
    std::map<std::string, Tensor> stacks;
    for (size_t begin = 0; begin < slots.size();) {
      const std::string name = module_name(layer, slots[begin]);
      std::vector<LinearPart> parts;
      size_t end = begin;
      for (; end < slots.size() && module_name(layer, slots[end]) == name &&
             slots[end].id.expert == slots[begin].id.expert;
           ++end) {
        parts.push_back({slots[end], weights[slots[end].id]});
      }
      if (keeps_stack(slots[begin])) {
        place_in_stack(parts, stacks[name]);
      } else {
        write_linear(name, parts);
      }
      begin = end;
    }
    for (const auto& [name, stack] : stacks) add(name, stack);
    for (size_t i = 0; i < kNormRoles; ++i) {
      const NormWeight& norm = weights.norms[i];
      const std::string name = spec_.norm_name(layer, static_cast<NormRole>(i));
      if (norm.defined()) add(name + ".weight", norm.weight);
      if (norm.bias.defined()) add(name + ".bias", norm.bias);
    }
  }

  /// The tensors of a linear outside of the layers, in place of its dense weight, if the file has one.
  void write_packed(const std::string& name, const QuantizedWeight& weight) {
    replaced_.insert(name + ".weight");
    const PackedTensors packed = with_context(name, [&] { return packing_.pack(weight); });
    for (const auto& [suffix, tensor] : packed) add(name + "." + suffix, tensor);
  }

  const std::set<std::string>& replaced() const { return replaced_; }

 private:
  /// Integers are written expert by expert, as loaders of quantized files expect; what stays dense as it
  /// came.
  bool keeps_stack(const LinearSlot& slot) const {
    return result_ == OneshotResult::scaled && slot.storage == LinearStorage::expert_stack;
  }

  std::string module_name(int64_t layer, const LinearSlot& slot) const {
    return keeps_stack(slot) ? slot.name : spec_.linear_name(layer, slot.id);
  }

  /// `stack`: [experts, out, in], made when its first expert comes.
  void place_in_stack(std::span<const LinearPart> parts, Tensor& stack) const {
    const LinearSlot& slot = parts.front().slot;
    const Tensor expert = join_parts(parts).dense;
    if (!stack.defined()) {
      stack = Tensor::empty(expert.dtype(), {spec_.moe->experts, slot.rows.count, slot.in_features});
    }
    std::memcpy(stack.mutable_bytes() + static_cast<size_t>(slot.id.expert) * expert.byte_size(),
                expert.bytes(), expert.byte_size());
  }

  void write_linear(const std::string& name, std::span<const LinearPart> parts) {
    const LinearSlot& slot = parts.front().slot;
    const LinearWeight linear = join_parts(parts);
    replaced_.insert(slot.storage == LinearStorage::expert_stack ? slot.name : name + ".weight");
    if (linear.quantized) {
      write_packed(name, *linear.quantized);
    } else {
      add(name + ".weight",
          slot.storage == LinearStorage::transposed ? transposed(linear.dense) : linear.dense);
    }
    if (linear.bias.defined()) add(name + ".bias", linear.bias);
  }

  void add(const std::string& name, const Tensor& tensor) {
    replaced_.insert(name);
    writer_.add(name, tensor);
  }

  const DecoderSpec& spec_;
  const Packing& packing_;
  const OneshotResult result_;
  CheckpointWriter& writer_;
  std::set<std::string> replaced_;
};

/// One run: layers one after another, then everything else.
class OneshotRun {
 public:
  OneshotRun(OneshotOptions options, Job& job) : options_(std::move(options)), job_(job) {}

  OneshotReport run() {
    const OneshotPlan plan = make_plan(job_);
    memory_ = plan.memory;
    const ThreadCountScope threads(memory_.threads);
    if (!options_.work.empty()) work_.emplace(options_, job_, plan);
    CheckpointWriter writer({.target = options_.output,
                             .shard_size = options_.shard_size,
                             .if_exists = options_.overwrite ? OutputDirectory::IfExists::replace
                                                             : OutputDirectory::IfExists::refuse,
                             .expected_tensors = expected_tensors()});
    LayerWriter layers(job_, writer);
    report_.warnings = plan.warnings;
    const int64_t finished = restore(layers);
    std::optional<LayerStream> stream = stream_behind(finished);
    own_start_ = Clock::now();
    for (int64_t layer = finished; layer < job_.weights.spec().layers; ++layer)
      layers.write(layer, quantize(layer, stream));
    report_.result = plan.result;
    report_.model = options_.model;
    report_.method = method_text(options_);
    report_.bits = plan.bits;
    report_.quantized_linears = plan.quantized_linears;
    report_.calibration_tokens = plan.calibration_tokens;
    report_.masked_tokens = plan.masked_tokens;
    report_.gram_block = plan.memory.gram_block;
    if (plan.head) write_head(layers, writer);
    write_rest(layers, writer);
    writer.finish();
    if (work_) work_->remove();
    report_.bytes_before = plan.bytes_before;
    report_.bytes_after = writer.bytes_written();
    report_.seconds = seconds_since(job_.start);
    report_.peak_memory = peak_resident_bytes();
    check_cap();
    return std::move(report_);
  }

 private:
  bool follows_original() const { return job_.awq && job_.awq->rounding == Rounding::matched; }

  /// At most four tensors stand for a quantized weight.
  size_t expected_tensors() const {
    return job_.weights.checkpoint().tensor_names().size() +
           3 * static_cast<size_t>(job_.resolved.quantized_linears);
  }

  LayerJob job_of(int64_t layer) const {
    return {.backend = *job_.backend,
            .exact = *job_.exact,
            .spec = job_.weights.spec(),
            .layer = layer,
            .linears = job_.resolved.linears[static_cast<size_t>(layer)],
            .mappings = mappings_of(layer),
            .storage = storage_type(job_),
            .precision = job_.precision,
            .result = job_.result,
            .propagation = *options_.calibration.propagation,
            .experts = options_.calibration.experts,
            .min_tokens_per_expert = options_.calibration.min_tokens_per_expert,
            .place = place(),
            .rows_per_batch = memory_.rows_per_batch,
            .gram_block = memory_.gram_block,
            .follows_original = follows_original(),
            .cancelled = options_.cancelled};
  }

  /// The plan leaves room, so this is worth telling. Not if the process held more before the work.
  void check_cap() {
    if (memory_.cap == 0 || report_.peak_memory <= memory_.cap || peak_before_ > memory_.cap) return;
    report_.warnings.push_back(
        fmt::format("{} bytes were resident at the worst moment, more than the cap of {}",
                    report_.peak_memory, memory_.cap));
  }

  /// A work directory is there for such files; beside the output there will be room for a model.
  HiddenPlace place() const {
    const char* temporary = std::getenv("TMPDIR");
    std::filesystem::path output = std::filesystem::absolute(options_.output).lexically_normal();
    if (!output.has_filename()) output = output.parent_path();  // "out/" names the same folder as "out"
    return {.storage = memory_.storage,
            .directories = {options_.work, output.parent_path().string(),
                            temporary != nullptr ? temporary : "/tmp", "/var/tmp"}};
  }

  /// Takes over the layers that an earlier run has finished, up to the first that it has not.
  int64_t restore(LayerWriter& layers) {
    int64_t layer = 0;
    for (; work_ && layer < job_.weights.spec().layers; ++layer) {
      throw_if_cancelled(options_.cancelled);
      const LayerWeights original = job_.weights.layer(layer);
      std::optional<QuantizedLayer> found = work_->load(job_of(layer), original, report_.warnings);
      if (!found) break;
      layers.write(layer, found->weights);
      job_.weights.release_layer(layer);
      warn_of(found->report);
      report_.layers.push_back(std::move(found->report));
      ++report_.resumed_layers;
      tell_progress();
    }
    return layer;
  }

  /// The calibration tokens before layer `layer`; nothing where none are needed any more.
  std::optional<LayerStream> stream_behind(int64_t layer) {
    std::optional<LayerStream> stream;
    if (job_.data.sequences.empty() || layer == job_.weights.spec().layers) return stream;
    stream.emplace(LayerStream::Options{.backend = *job_.backend,
                                        .weights = job_.weights,
                                        .windows = job_.data.sequences,
                                        .place = place(),
                                        .rows_per_batch = memory_.rows_per_batch,
                                        .with_original = follows_original(),
                                        .masks = job_.data.masks,
                                        .cancelled = options_.cancelled});
    for (int64_t passed = 0; passed < layer; ++passed) {
      const LayerWeights original = job_.weights.layer(passed);
      const auto found = work_->load(job_of(passed), original, report_.warnings);
      if (!found) fail(ErrorKind::io, "{}: layer {} was damaged during the run", options_.work, passed);
      pass_layer(job_of(passed), original, found->weights, *stream);
      job_.weights.release_layer(passed);
    }
    return stream;
  }

  LayerWeights quantize(int64_t layer, std::optional<LayerStream>& stream) {
    throw_if_cancelled(options_.cancelled);
    const auto layer_start = Clock::now();
    const LayerJob job = job_of(layer);
    read_ahead(layer + 1);
    const LayerWeights original = job_.weights.layer(layer);
    QuantizedLayer result =
        stream ? quantize_layer(job, *options_.recipe.awq, original, *stream) : round_layer(job, original);
    result.report.seconds.total = seconds_since(layer_start);
    if (work_) work_->store(original, result);
    job_.weights.release_layer(layer);
    return_free_memory();
    warn_of(result.report);
    report_.layers.push_back(std::move(result.report));
    tell_progress();
    return std::move(result.weights);
  }

  /// The disk is at work on the next layer while this one is: advice, whose failure costs time only.
  void read_ahead(int64_t layer) {
    if (layer == job_.weights.spec().layers) return;
    try {
      reader_ = std::jthread([&weights = job_.weights, layer] {
        try {
          weights.read_ahead_layer(layer);
        } catch (const std::exception&) {
        }
      });
    } catch (const std::system_error&) {  // no more threads
    }
  }

  void warn_of(const LayerReport& layer) {
    for (const MappingReport& mapping : layer.mappings) {
      if (mapping.failure.empty()) continue;
      report_.warnings.push_back(
          fmt::format("layer {}: {} is left alone: {}", layer.layer, mapping.mapping, mapping.failure));
    }
    for (const LinearReport& linear : layer.linears) {
      if (linear.dead_channels == 0) continue;
      report_.warnings.push_back(fmt::format(
          "{}: no calibration token activated {} of its input channels, so nothing is known of them",
          linear.name, linear.dead_channels));
    }
  }

  std::span<const ResolvedMapping> mappings_of(int64_t layer) const {
    if (job_.resolved.mappings.empty()) return {};
    return job_.resolved.mappings[static_cast<size_t>(layer)];
  }

  /// What is left is judged by the layers of this run and the time since it began with them: reading finished
  /// ones says nothing about it.
  void tell_progress() {
    if (!options_.on_progress) return;
    const auto done = static_cast<int64_t>(report_.layers.size());
    const int64_t own = done - report_.resumed_layers;
    const int64_t layers = job_.weights.spec().layers;
    const double left = done == layers ? 0
                        : own == 0     ? std::nan("")
                                       : seconds_since(own_start_) / static_cast<double>(own) *
                                         static_cast<double>(layers - done);
    options_.on_progress({.layer = report_.layers.back(),
                          .layers_done = done,
                          .layers = layers,
                          .elapsed_seconds = seconds_since(job_.start),
                          .remaining_seconds = left,
                          .resumed = own == 0});
  }

  void write_head(LayerWriter& layers, CheckpointWriter& writer) const {
    const Tensor dense = job_.weights.head().dense;
    const DecoderSpec& spec = job_.weights.spec();
    const std::string& name = spec.head_name;
    // A file of a tied pair may hold the head's tensor only.
    if (!job_.weights.checkpoint().contains(spec.embedding_name)) {
      writer.add(spec.embedding_name, job_.weights.embedding());
    }
    layers.write_packed(name, with_context(name, [&] {
                          return round_by_rows(dense, *job_.resolved.head, dense.dtype(), options_.cancelled);
                        }));
  }

  void write_rest(const LayerWriter& layers, CheckpointWriter& writer) const {
    const Checkpoint& source = job_.weights.checkpoint();
    const auto storage = storage_type(job_);
    for (const auto& name : source.tensor_names()) {
      if (layers.replaced().contains(name)) continue;
      throw_if_cancelled(options_.cancelled);
      const Tensor tensor = source.tensor(name);
      writer.add(name, is_floating(tensor.dtype()) ? store_as(name, tensor, storage.value_or(tensor.dtype()))
                                                   : tensor);
      source.release(name);
    }
    writer.copy_companions(source.directory());
    writer.add_file("recipe.yaml", recipe_to_yaml(options_, job_.weights.spec(), report_.calibration_tokens));
    writer.add_file("config.json", config().dump(2) + "\n");
  }

  /// An entry for modules that end so: in a model of more than text, loaders give modules other prefixes than
  /// the file gives tensors. AutoAWQ looks for an entry anywhere in a name.
  std::string ending(const std::string& module) const {
    if (!job_.weights.spec().text_part) return module;
    const size_t layers = module.find("layers.");
    const std::string end = module.substr(layers != std::string::npos ? layers : module.rfind('.') + 1);
    return job_.format == Format::autoawq_gemm ? end : "re:.*" + end + "$";
  }

  /// Entries for linears that are no part of the decoder: whoever reads the file takes every linear that is
  /// not ignored for a quantized one. A part of the model, such as a vision tower, is one entry: what lies in
  /// it has other names in the file than in memory, and loaders try every entry on every module.
  std::set<std::string> foreign_entries() const {
    std::set<std::string> entries;
    for (const std::string& name : job_.foreign) entries.insert(foreign_entry(name));
    return entries;
  }

  std::string foreign_entry(const std::string& name) const {
    const bool awq = job_.format == Format::autoawq_gemm;
    const std::string layers = layers_prefix();
    if (!layers.empty() && name.starts_with(layers)) {  // a layer behind the last one, for speculation
      const std::string layer =
          name.substr(layers.rfind("layers."), name.find('.', layers.size()) - layers.rfind("layers."));
      return awq ? layer + "." : fmt::format("re:(.*\\.)?{}\\..*", layer);
    }
    if (!job_.weights.spec().text_part) return name;
    constexpr std::string_view kOuter = "model.";
    const std::string inner = name.starts_with(kOuter) ? name.substr(kOuter.size()) : name;
    const std::string part = inner.substr(0, inner.find('.'));
    return awq ? part : fmt::format("re:(.*\\.)?{}(\\..*)?$", part);
  }

  /// "model.layers."; empty where layers go by another name.
  std::string layers_prefix() const {
    const std::string name = job_.weights.spec().linears(0).front().name;
    const size_t layers = name.find("layers.0.");
    return layers == std::string::npos ? std::string()
                                       : name.substr(0, layers + std::string_view("layers.").size());
  }

  /// The groups as a loader is to read them. In a model of more than text names and patterns of the file's
  /// tensors mean nothing to it: those targets become the endings of what they matched.
  std::vector<SchemeGroup> written_groups() const {
    std::vector<SchemeGroup> groups = job_.resolved.groups;
    // AutoAWQ's config has room for one scheme; that they are all the same was checked with the recipe.
    if (job_.format == Format::autoawq_gemm) groups.resize(1);
    if (!job_.weights.spec().text_part) return groups;
    for (SchemeGroup& group : groups) {
      std::erase_if(group.targets, [](const std::string& target) { return !is_class(target); });
      for (const auto& layer : job_.resolved.planned) {
        for (const PlannedLinear& linear : layer) {
          if (linear.group == group.name && !is_class(linear.target))
            group.targets.push_back(ending(linear.name));
        }
      }
    }
    return groups;
  }

  static bool is_class(const std::string& target) {
    return std::ranges::find(kLinearClasses, target) != std::end(kLinearClasses);
  }

  Json config() const {
    Json config = job_.weights.checkpoint().config();
    if (job_.result == OneshotResult::scaled) return config;
    if (const auto storage = storage_type(job_)) {
      config[config.contains("dtype") ? "dtype" : "torch_dtype"] = torch_name(*storage);
    }
    // A head of integers is no longer the embedding.
    if (job_.resolved.head) config["tie_word_embeddings"] = false;
    QuantizationConfig block{.format = job_.format, .groups = written_groups(), .ignore = {}};
    for (const auto& module : job_.resolved.dense) block.ignore.push_back(ending(module.name));
    for (const std::string& entry : foreign_entries()) block.ignore.push_back(entry);
    config["quantization_config"] = write_config_block(block);
    return config;
  }

  const OneshotOptions options_;
  Job& job_;
  MemoryPlan memory_;
  std::optional<WorkDirectory> work_;
  OneshotReport report_;
  uint64_t peak_before_ = peak_resident_bytes();
  Clock::time_point own_start_;  // of the first layer that this run works on
  std::jthread reader_;
};

}  // namespace

void check_output(const OneshotOptions& options) {
  if (options.output.empty()) fail(ErrorKind::invalid_argument, "the output directory has no name");
  check_work_directory(options);
  if (!path_exists(options.output)) return check_creatable(options.output);
  if (!options.overwrite)
    fail(ErrorKind::invalid_argument,
         "{}: the output exists already; overwrite (--overwrite) replaces a model directory", options.output);
  std::vector<std::string> inputs{options.model};
  for (const CalibrationDataset& dataset : options.calibration.datasets) {
    if (dataset.data != kSelfData) inputs.push_back(dataset.data);
  }
  check_replaceable(options.output, inputs);
}

void check_oneshot(const OneshotOptions& given) {
  const OneshotOptions options = settled(given);
  Job job(options, SelfData::stand_in);
  check_bit_choice(options, job);
  make_plan(job);
}

OneshotPlan plan_oneshot(const OneshotOptions& given) {
  const OneshotOptions options = settled(given);
  Job job(options, options.target_bits ? SelfData::draw : SelfData::stand_in);
  choose_bits(options, job);
  return make_plan(job);
}

OneshotReport oneshot(const OneshotOptions& given) {
  const OneshotOptions options = settled(given);
  check_output(options);
  // What does not fit is to be refused before text of the model's own is drawn.
  if (options.max_memory > 0) check_oneshot(options);
  Job job(options, SelfData::draw);
  return OneshotRun(choose_bits(options, job), job).run();
}

}  // namespace salient
