#include "salient/oneshot.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <set>

#include "awq/apply.h"
#include "awq/awq.h"
#include "awq/mapping.h"
#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "checkpoint/checkpoint_writer.h"
#include "quant/packing.h"
#include "recipe/resolve.h"
#include "runtime/generate.h"
#include "text/dataset.h"
#include "text/tokenizer.h"

namespace salient {
namespace {

using Windows = std::vector<std::vector<int32_t>>;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// `directory` is `inner` or a folder above it.
bool contains_path(const std::filesystem::path& directory, const std::filesystem::path& inner) {
  const auto outer = std::filesystem::weakly_canonical(directory);
  const auto path = std::filesystem::weakly_canonical(inner);
  return std::mismatch(outer.begin(), outer.end(), path.begin(), path.end()).first == outer.end();
}

/// Whatever stands at the output is going to be removed: never the input, and nothing but a model or an empty
/// folder.
void check_output(const OneshotOptions& options) {
  if (options.output.empty()) fail(ErrorKind::invalid_argument, "the output directory has no name");
  if (!path_exists(options.output)) return;
  if (!options.overwrite)
    fail(ErrorKind::invalid_argument,
         "{}: the output exists already; overwrite (--overwrite) replaces a model directory", options.output);
  for (const auto& input : {options.model, options.calibration.dataset}) {
    if (input.empty() || !contains_path(options.output, input)) continue;
    fail(ErrorKind::invalid_argument, "{}: to overwrite it would remove the input {}", options.output, input);
  }
  std::error_code code;
  const bool directory = std::filesystem::is_directory(options.output, code);
  const bool empty = directory && std::filesystem::is_empty(options.output, code);
  if (!code && directory && (empty || path_exists(std::filesystem::path(options.output) / "config.json")))
    return;
  fail(ErrorKind::invalid_argument, "{}: neither empty nor a model directory, so it is not overwritten",
       options.output);
}

void refuse_quantized_input(const ModelWeights& weights) {
  if (!weights.quantization()) return;
  const QuantizationConfig& found = *weights.quantization();
  fail(ErrorKind::invalid_argument, "{}: already quantized ({}, {}); start from the original checkpoint",
       weights.checkpoint().directory().string(), to_string(found.format),
       describe(found.groups.front().scheme));
}

/// A type that AutoAWQ's kernels need; compressed-tensors keeps each tensor's own.
std::optional<DType> storage_type(Format format) {
  if (format == Format::autoawq_gemm) return DType::f16;
  return std::nullopt;
}

Windows calibration_windows(const OneshotOptions& options, const DecoderSpec& spec) {
  if (!options.recipe.awq) return {};
  const auto& calibration = options.calibration;
  if (calibration.dataset.empty()) {
    fail(ErrorKind::invalid_argument,
         "AWQ needs calibration text: name a .txt or .jsonl file (--data), or do without AWQ (--method rtn)");
  }
  check_window(spec, calibration.max_seq_length);
  const Tokenizer tokenizer = Tokenizer::from_directory(options.model);
  return read_token_windows(tokenizer, {.path = calibration.dataset, .text_column = calibration.text_column},
                            {.window = static_cast<size_t>(calibration.max_seq_length),
                             .maximum = static_cast<size_t>(calibration.num_samples)});
}

int64_t count_tokens(const Windows& windows) {
  int64_t count = 0;
  for (const auto& window : windows) count += static_cast<int64_t>(window.size());
  return count;
}

/// Everything that is known before the first weight is read.
struct Job {
  explicit Job(const OneshotOptions& options)
      : format(options.format),
        awq(options.recipe.awq),
        weights(options.model),
        resolved((refuse_quantized_input(weights), resolve_recipe(options, weights.spec()))),
        windows(calibration_windows(options, weights.spec())),
        precision(options.calibration.precision == CalibrationPrecision::f32 ? MatmulPrecision::f32
                                                                             : MatmulPrecision::bf16),
        backend(make_cpu_backend({.precision = precision})),
        exact(make_cpu_backend({.precision = MatmulPrecision::f32})) {}

  Clock::time_point start = Clock::now();
  Format format;
  std::optional<AwqModifier> awq;
  ModelWeights weights;
  ResolvedRecipe resolved;
  Windows windows;
  MatmulPrecision precision;  // falls back to f32 in the back end when the CPU has no bf16 arithmetic
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Backend> exact;
};

/// Bytes of the packed tensors of a linear.
uint64_t packed_bytes(const LinearSlot& slot, const Job& job, const QuantizationScheme& scheme,
                      DType scale_dtype) {
  uint64_t bytes = 0;
  const auto layout = packing_of(job.format).layout(scheme, slot.out_features, slot.in_features);
  for (const auto& tensor : layout) {
    const size_t size = byte_size(is_floating(tensor.dtype) ? scale_dtype : tensor.dtype);
    bytes += static_cast<uint64_t>(element_count(tensor.shape)) * size;
  }
  return bytes;
}

/// Size of the checkpoint after: every tensor in the type of the output, the quantized linears as their
/// codes.
uint64_t bytes_after(const Job& job) {
  const auto storage = storage_type(job.format);
  uint64_t bytes = 0;
  for (const auto& name : job.weights.checkpoint().tensor_names()) {
    const Tensor tensor = job.weights.checkpoint().tensor(name);
    const bool converted = storage && is_floating(tensor.dtype());
    bytes += static_cast<uint64_t>(tensor.element_count()) * byte_size(converted ? *storage : tensor.dtype());
  }
  const auto& spec = job.weights.spec();
  for (int64_t layer = 0; layer < spec.layers; ++layer) {
    const auto& linears = job.resolved.linears[static_cast<size_t>(layer)];
    for (const auto& slot : spec.linears(layer)) {
      const auto found = linears.find(slot.id);
      if (found == linears.end()) continue;
      const DType type = storage.value_or(job.weights.storage_type(slot));
      bytes -= static_cast<uint64_t>(slot.out_features * slot.in_features) * byte_size(type);
      bytes += packed_bytes(slot, job, found->second.scheme, type);
    }
  }
  return bytes;
}

/// What rounding one linear holds: its weight; with compensation targets and errors as large, the scaled Gram
/// matrix and its factor; else the blocks of the clip search, which are smaller than the weight.
uint64_t rounding_bytes(const Job& job, const LinearSlot& slot) {
  const auto in = static_cast<uint64_t>(slot.in_features);
  const auto elements = static_cast<uint64_t>(slot.out_features) * in;
  if (!job.awq) return elements * 4;
  const uint64_t weights = job.awq->rounding == Rounding::compensated ? 3 * elements : 2 * elements;
  return (weights + 2 * in * in) * 4;
}

/// What the search for one mapping holds: the weights of its balance layers, of all experts one at a time,
/// and a block of rounding errors.
uint64_t search_bytes(const DecoderSpec& spec, int64_t layer, const ResolvedMapping& mapping) {
  uint64_t weights = 0;
  uint64_t expert = 0;
  uint64_t in = 0;
  for (const auto& slot : spec.linears(layer)) {
    if (std::ranges::find(mapping.balance, slot.id) == mapping.balance.end()) continue;
    in = static_cast<uint64_t>(slot.in_features);
    const uint64_t elements = static_cast<uint64_t>(slot.out_features) * in;
    if (is_expert(slot.id.role)) {
      expert = std::max(expert, elements);
    } else {
      weights += elements;
    }
  }
  constexpr uint64_t kErrorRows = 2048;
  return (weights + expert + kErrorRows * in) * 4;
}

/// Gram matrices of a layer: one per distinct input, and those of one expert.
uint64_t statistics_bytes(const DecoderSpec& spec, int64_t layer) {
  const PerLinear<LinearId> representatives = input_representatives(spec, layer);
  uint64_t bytes = 0;
  for (const auto& slot : spec.linears(layer)) {
    const auto in = static_cast<uint64_t>(slot.in_features);
    const bool counts = is_expert(slot.id.role) ? slot.id.expert == 0 && slot.id.role != LinearRole::expert_up
                                                : representatives.at(slot.id) == slot.id;
    if (counts) bytes += in * in * 4;
  }
  return bytes;
}

/// What is resident at the worst moment of `quantize_layer`: hidden states, and with experts what they read;
/// the layer as mapped and, at the end, as codes; Gram matrices; and either one batch's activations, a search
/// or what rounding the widest linear takes.
void plan_memory(const Job& job, OneshotPlan& plan) {
  const auto& spec = job.weights.spec();
  const int64_t layer = spec.layers - 1;  // the first may lack experts
  const auto& linears = job.resolved.linears.back();
  uint64_t work = 0;
  for (const auto& slot : spec.linears(layer)) {
    const auto elements = static_cast<uint64_t>(slot.out_features) * static_cast<uint64_t>(slot.in_features);
    plan.memory_layer += elements * byte_size(job.weights.storage_type(slot));
    const auto found = linears.find(slot.id);
    if (found == linears.end()) continue;
    plan.memory_layer += packed_bytes(slot, job, found->second.scheme, DType::f16);
    work = std::max(work, rounding_bytes(job, slot));
  }
  if (job.awq) {
    plan.memory_statistics = statistics_bytes(spec, layer);
    for (const auto& mapping : job.resolved.mappings.back())
      work = std::max(work, search_bytes(spec, layer, mapping));
  }
  const auto hidden = static_cast<uint64_t>(spec.hidden_size) * 4;
  const auto tokens = static_cast<uint64_t>(plan.calibration_tokens);
  const uint64_t rows = std::min<uint64_t>(tokens, kRowsPerBatch);
  const uint64_t batch = rows * static_cast<uint64_t>(4 * spec.hidden_size + 3 * spec.intermediate_size) * 4;
  plan.memory_hidden_states = tokens * hidden * (spec.has_experts(layer) ? 2 : 1);
  plan.memory_workspace = std::max(batch, work);
  plan.memory_peak =
      plan.memory_hidden_states + plan.memory_layer + plan.memory_statistics + plan.memory_workspace;
}

PlannedLayer plan_layer(const Job& job, int64_t layer) {
  const auto& spec = job.weights.spec();
  const auto index = static_cast<size_t>(layer);
  PlannedLayer planned{.layer = layer, .mappings = {}, .linears = job.resolved.planned[index]};
  if (!job.awq) return planned;
  for (const ResolvedMapping& mapping : job.resolved.mappings[index]) {
    planned.mappings.push_back({.smooth_layer = mapping.smooth_name(spec, layer),
                                .balance_layers = mapping.balance_names(spec, layer),
                                .summary = mapping.describe(spec)});
  }
  return planned;
}

OneshotPlan make_plan(const Job& job) {
  const auto& spec = job.weights.spec();
  OneshotPlan plan;
  plan.architecture = spec.architecture;
  plan.device = job.backend->description();
  for (int64_t layer = 0; layer < spec.layers; ++layer) plan.layers.push_back(plan_layer(job, layer));
  plan.groups = job.resolved.groups;
  plan.dense = job.resolved.dense;
  plan.warnings = job.resolved.warnings;
  plan.quantized_linears = job.resolved.quantized_linears;
  plan.calibration_tokens = count_tokens(job.windows);
  plan.bytes_before = job.weights.checkpoint().byte_size();
  plan.bytes_after = bytes_after(job);
  plan_memory(job, plan);
  return plan;
}

/// Writes one decoder layer and remembers which tensors of the source it replaces.
class LayerWriter {
 public:
  LayerWriter(const DecoderSpec& spec, Format format, CheckpointWriter& writer)
      : spec_(spec), packing_(packing_of(format)), writer_(writer) {}

  void write(int64_t layer, const LayerWeights& weights) {
    const std::vector<LinearSlot> slots = spec_.linears(layer);
    for (size_t begin = 0; begin < slots.size();) {
      const std::string name = spec_.linear_name(layer, slots[begin].id);
      std::vector<LinearPart> parts;
      size_t end = begin;
      for (; end < slots.size() && spec_.linear_name(layer, slots[end].id) == name; ++end) {
        parts.push_back({slots[end], weights[slots[end].id]});
      }
      write_linear(name, parts);
      begin = end;
    }
    for (size_t i = 0; i < kNormRoles; ++i) {
      const NormWeight& norm = weights.norms[i];
      const std::string name = spec_.norm_name(layer, static_cast<NormRole>(i));
      if (norm.defined()) add(name + ".weight", norm.weight);
      if (norm.bias.defined()) add(name + ".bias", norm.bias);
    }
  }

  const std::set<std::string>& replaced() const { return replaced_; }

 private:
  void write_linear(const std::string& name, std::span<const LinearPart> parts) {
    const LinearSlot& slot = parts.front().slot;
    const LinearWeight linear = join_parts(parts);
    replaced_.insert(slot.storage == LinearStorage::expert_stack ? slot.name : name + ".weight");
    if (linear.quantized) {
      const PackedTensors packed = with_context(name, [&] { return packing_.pack(*linear.quantized); });
      for (const auto& [suffix, tensor] : packed) add(name + "." + suffix, tensor);
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
  CheckpointWriter& writer_;
  std::set<std::string> replaced_;
};

/// One run: layers one after another, then everything else.
class OneshotRun {
 public:
  OneshotRun(const OneshotOptions& options, Job& job) : options_(options), job_(job) {}

  OneshotReport run() {
    const OneshotPlan plan = make_plan(job_);
    CheckpointWriter writer({.target = options_.output,
                             .shard_size = options_.shard_size,
                             .if_exists = options_.overwrite ? OutputDirectory::IfExists::replace
                                                             : OutputDirectory::IfExists::refuse,
                             .expected_tensors = expected_tensors()});
    LayerWriter layers(job_.weights.spec(), options_.format, writer);
    std::optional<LayerStream> stream;
    if (!job_.windows.empty()) {
      stream.emplace(LayerStream::Options{.backend = *job_.backend,
                                          .weights = job_.weights,
                                          .windows = job_.windows,
                                          .cancelled = options_.cancelled});
    }
    for (int64_t layer = 0; layer < job_.weights.spec().layers; ++layer)
      layers.write(layer, quantize(layer, stream));
    report_.quantized_linears = plan.quantized_linears;
    report_.calibration_tokens = plan.calibration_tokens;
    write_rest(layers, writer);
    writer.finish();
    report_.bytes_before = plan.bytes_before;
    report_.bytes_after = writer.bytes_written();
    report_.seconds = seconds_since(job_.start);
    report_.peak_memory = peak_resident_bytes();
    return std::move(report_);
  }

 private:
  /// At most four tensors stand for a quantized weight.
  size_t expected_tensors() const {
    return job_.weights.checkpoint().tensor_names().size() +
           3 * static_cast<size_t>(job_.resolved.quantized_linears);
  }

  LayerWeights quantize(int64_t layer, std::optional<LayerStream>& stream) {
    throw_if_cancelled(options_.cancelled);
    const auto layer_start = Clock::now();
    const LayerJob job{.backend = *job_.backend,
                       .exact = *job_.exact,
                       .spec = job_.weights.spec(),
                       .layer = layer,
                       .linears = job_.resolved.linears[static_cast<size_t>(layer)],
                       .mappings = mappings_of(layer),
                       .storage = storage_type(options_.format),
                       .precision = job_.precision,
                       .propagation = options_.calibration.propagation,
                       .experts = options_.calibration.experts,
                       .min_tokens_per_expert = options_.calibration.min_tokens_per_expert,
                       .cancelled = options_.cancelled};
    const LayerWeights original = job_.weights.layer(layer);
    QuantizedLayer result =
        stream ? quantize_layer(job, *options_.recipe.awq, original, *stream) : round_layer(job, original);
    job_.weights.release_layer(layer);
    return_free_memory();
    result.report.seconds = seconds_since(layer_start);
    report_.layers.push_back(std::move(result.report));
    tell_progress();
    return std::move(result.weights);
  }

  std::span<const ResolvedMapping> mappings_of(int64_t layer) const {
    if (job_.resolved.mappings.empty()) return {};
    return job_.resolved.mappings[static_cast<size_t>(layer)];
  }

  void tell_progress() const {
    if (!options_.on_progress) return;
    const auto done = static_cast<int64_t>(report_.layers.size());
    const int64_t layers = job_.weights.spec().layers;
    const double elapsed = seconds_since(job_.start);
    options_.on_progress(
        {.layer = report_.layers.back(),
         .layers_done = done,
         .layers = layers,
         .elapsed_seconds = elapsed,
         .remaining_seconds = elapsed / static_cast<double>(done) * static_cast<double>(layers - done)});
  }

  void write_rest(const LayerWriter& layers, CheckpointWriter& writer) const {
    const Checkpoint& source = job_.weights.checkpoint();
    const auto storage = storage_type(options_.format);
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
    writer.add_file("config.json", config(layers).dump(2) + "\n");
  }

  /// An entry for modules that end so: their prefixes may differ from those of the tensors. AutoAWQ looks for
  /// an entry anywhere in a name.
  std::string ending(const std::string& module) const {
    return options_.format == Format::autoawq_gemm ? module : "re:.*" + module + "$";
  }

  /// The decoder's linears that stay dense.
  std::vector<std::string> dense_linears() const {
    std::vector<std::string> result;
    for (const auto& module : job_.resolved.dense) {
      if (!job_.weights.spec().text_part) {
        result.push_back(module.name);
        continue;
      }
      const size_t layers = module.name.find("layers.");
      result.push_back(
          ending(module.name.substr(layers != std::string::npos ? layers : module.name.rfind('.') + 1)));
    }
    return result;
  }

  /// Linears that are no part of the decoder, such as a vision tower's: whoever reads the file takes every
  /// linear that is not ignored for a quantized one.
  std::vector<std::string> foreign_linears(const LayerWriter& layers) const {
    const DecoderSpec& spec = job_.weights.spec();
    std::set<std::string> own = layers.replaced();
    own.insert({spec.embedding_name, spec.head_name + ".weight"});
    if (spec.positions) own.insert(spec.positions->name);
    constexpr std::string_view kSuffix = ".weight";
    std::vector<std::string> result;
    for (const auto& name : job_.weights.checkpoint().tensor_names()) {
      if (!name.ends_with(kSuffix) || own.contains(name)) continue;
      if (job_.weights.checkpoint().entry(name).shape.size() != 2) continue;
      result.push_back(ending(name.substr(0, name.size() - kSuffix.size())));
    }
    return result;
  }

  Json config(const LayerWriter& layers) const {
    Json config = job_.weights.checkpoint().config();
    if (const auto storage = storage_type(options_.format)) {
      config[config.contains("dtype") ? "dtype" : "torch_dtype"] = torch_name(*storage);
    }
    QuantizationConfig block{
        .format = options_.format, .groups = job_.resolved.groups, .ignore = dense_linears()};
    // AutoAWQ's config has room for one scheme; that they are all the same was checked with the recipe.
    if (options_.format == Format::autoawq_gemm) block.groups.resize(1);
    for (std::string& name : foreign_linears(layers)) block.ignore.push_back(std::move(name));
    config["quantization_config"] = write_config_block(block);
    return config;
  }

  const OneshotOptions& options_;
  Job& job_;
  OneshotReport report_;
};

}  // namespace

OneshotPlan plan_oneshot(const OneshotOptions& options) {
  check_output(options);
  return make_plan(Job(options));
}

OneshotReport oneshot(const OneshotOptions& options) {
  check_output(options);
  Job job(options);
  return OneshotRun(options, job).run();
}

}  // namespace salient
