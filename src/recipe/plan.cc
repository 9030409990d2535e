#include "recipe/plan.h"

#include <algorithm>
#include <set>

#include "base/cancellation.h"
#include "base/error.h"
#include "quant/packing.h"
#include "recipe/device_plan.h"
#include "recipe/effort.h"
#include "recipe/memory_plan.h"
#include "recipe/recipe_fields.h"

namespace salient {
namespace {

using Windows = std::vector<std::vector<int32_t>>;

/// Scaled weights are AWQ's, and nothing is accepted that only integers have.
void check_result(const OneshotOptions& options) {
  if (options.result == OneshotResult::quantized) return;
  const auto& awq = options.recipe.awq;
  if (!awq)
    fail(ErrorKind::invalid_argument, "scaled weights come from AWQ, but the recipe has no AWQModifier");
  const auto refuse = [](const std::string& what) {
    fail(ErrorKind::invalid_argument,
         "{} is for integers, but the result is scaled: every weight stays dense; leave one of the two out",
         what);
  };
  if (options.format) refuse(fmt::format("the format {}", to_string(*options.format)));
  if (awq->rounding)
    refuse(fmt::format("the rounding {}", kRoundingWords[static_cast<size_t>(*awq->rounding)]));
  if (awq->sweeps) refuse("sweeps");
  for (const ConfigGroup& group : options.recipe.quantization.config_groups) {
    if (group.weights.actorder == ActivationOrder::weight) refuse("actorder of " + group.name);
  }
}

void require_at_least(int64_t least, std::string_view name, int64_t value) {
  if (value >= least) return;
  fail(ErrorKind::invalid_argument, "{} is {}, but must be at least {}", name, value, least);
}

void check_calibration(const CalibrationOptions& calibration) {
  require_at_least(1, "num_samples", calibration.num_samples);
  require_at_least(1, "max_seq_length", calibration.max_seq_length);
  require_at_least(0, "seed", calibration.seed);
  require_at_least(0, "min_tokens_per_expert", calibration.min_tokens_per_expert);
}

/// Errors are measured before there is a plan that could keep a cap.
void check_cap(const OneshotOptions& options) {
  if (options.max_memory == 0 || !options.target_bits) return;
  fail(
      ErrorKind::invalid_argument,
      "target_bits beside max_memory: the errors that it chooses by are measured without regard to a cap; "
      "leave max_memory out, or choose without it first and run the recipe.yaml of that run, which names the "
      "bits that were chosen, under the cap");
}

void check_sweeps(const AwqModifier& awq) {
  const int sweeps = awq.sweeps.value_or(0);
  if (sweeps < 0 || sweeps > kMostSweeps) {
    fail(ErrorKind::invalid_argument, "sweeps is {}, but must be 0 to {}", sweeps, kMostSweeps);
  }
  if (sweeps > 0 && awq.rounding == Rounding::nearest) {
    fail(ErrorKind::invalid_argument,
         "{} sweeps are for compensated and matched rounding, but the rounding is nearest; leave one of the "
         "two out",
         sweeps);
  }
}

void check_rounding(const OneshotOptions& options) {
  if (options.recipe.awq) check_sweeps(*options.recipe.awq);
  const bool matched = options.recipe.awq && options.recipe.awq->rounding == Rounding::matched;
  if (!matched || options.calibration.propagation != Propagation::original) return;
  fail(
      ErrorKind::invalid_argument,
      "the rounding matched makes up for what earlier layers lost, which propagation original does not show; "
      "leave one of the two out");
}

/// Errors are measured on calibration tokens, and several widths need a format that has them.
void check_target_bits(const OneshotOptions& options) {
  if (!options.target_bits) return;
  if (options.result == OneshotResult::scaled) {
    fail(ErrorKind::invalid_argument,
         "target_bits is for integers, but the result is scaled: every weight stays dense; leave one of the "
         "two out");
  }
  if (!options.recipe.awq) {
    fail(ErrorKind::invalid_argument,
         "target_bits chooses numbers of bits by errors measured on calibration tokens, which rounding to "
         "nearest without AWQ does without; add an AWQModifier and data, or name a scheme");
  }
  if (options.integer_format() == Format::autoawq_gemm) {
    fail(ErrorKind::invalid_argument,
         "target_bits mixes numbers of bits, but autoawq-gemm holds 4-bit codes only; write pack-quantized");
  }
}

void check_resume(const OneshotOptions& options) {
  if (!options.resume || !options.work.empty()) return;
  fail(ErrorKind::invalid_argument,
       "resume needs the work directory of the run to go on with, but none is named; give work (--work DIR) "
       "beside it");
}

void check_options(const OneshotOptions& options) {
  throw_if_cancelled(options.cancelled);
  check_resume(options);
  check_effort(options);
  check_rounding(options);
  check_cap(options);
  check_result(options);
  check_target_bits(options);
  check_calibration(options.calibration);
  check_device_name(options.device);
  const bool cpu = options.device == "cpu" || options.device == "auto";
  if (options.calibration.precision == CalibrationPrecision::f32 && !cpu)
    fail(ErrorKind::invalid_argument, "precision f32 is for the CPU, not for device \"{}\"", options.device);
}

void refuse_quantized_input(const ModelWeights& weights) {
  if (!weights.quantization()) return;
  const QuantizationConfig& found = *weights.quantization();
  fail(ErrorKind::invalid_argument, "{}: already quantized ({}, {}); start from the original checkpoint",
       weights.checkpoint().directory().string(), to_string(found.format),
       describe(found.groups.front().scheme));
}

std::vector<std::string> foreign_linears(const ModelWeights& weights) {
  const DecoderSpec& spec = weights.spec();
  constexpr std::string_view kSuffix = ".weight";
  std::set<std::string> own{spec.embedding_name, spec.head_name + std::string(kSuffix)};
  if (spec.positions) own.insert(spec.positions->name);
  for (int64_t layer = 0; layer < spec.layers; ++layer) {
    for (const auto& slot : spec.linears(layer)) own.insert(slot.name + std::string(kSuffix));
    // Of heads with gains of their own a norm is a matrix.
    for (size_t role = 0; role < kNormRoles; ++role) {
      own.insert(spec.norm_name(layer, static_cast<NormRole>(role)) + std::string(kSuffix));
    }
  }
  std::vector<std::string> result;
  for (const auto& name : weights.checkpoint().tensor_names()) {
    if (!name.ends_with(kSuffix) || own.contains(name)) continue;
    if (weights.checkpoint().entry(name).shape.size() != 2) continue;
    result.push_back(name.substr(0, name.size() - kSuffix.size()));
  }
  return result;
}

int64_t masked_tokens(const CalibrationData& data) {
  int64_t count = 0;
  for (const auto& mask : data.masks) count += std::ranges::count(mask, uint8_t{0});
  return count;
}

int64_t count_tokens(const Windows& windows) {
  int64_t count = 0;
  for (const auto& window : windows) count += static_cast<int64_t>(window.size());
  return count;
}

/// Fewer calibration tokens than this are more likely a mistake than a wish.
constexpr int64_t kFewTokens = 512;

std::string few_tokens_warning(int64_t tokens) {
  return fmt::format(
      "calibrated on {} tokens: scales found on so few may fit little else; some ten thousand are usual",
      tokens);
}

/// Bytes of the packed tensors of a linear [out, in].
uint64_t packed_bytes(Format format, const QuantizationScheme& scheme, const Shape& shape,
                      DType scale_dtype) {
  uint64_t bytes = 0;
  const auto layout = packing_of(format).layout(scheme, shape[0], shape[1]);
  for (const auto& tensor : layout) {
    const size_t size = byte_size(is_floating(tensor.dtype) ? scale_dtype : tensor.dtype);
    bytes += static_cast<uint64_t>(element_count(tensor.shape)) * size;
  }
  return bytes;
}

/// Size of the checkpoint after: every tensor in the type of the output, the quantized linears as their
/// codes.
uint64_t bytes_after(const Job& job) {
  if (job.result == OneshotResult::scaled) return job.weights.checkpoint().byte_size();
  const auto storage = storage_type(job);
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
      bytes += packed_bytes(job.format, found->second.scheme, {slot.out_features, slot.in_features}, type);
    }
  }
  if (job.resolved.head) {
    const Tensor dense = job.weights.head().dense;
    if (!spec.tie_word_embeddings) bytes -= dense.byte_size();
    bytes += packed_bytes(job.format, job.resolved.head->scheme, dense.shape(), dense.dtype());
  }
  return bytes;
}

PlannedLayer plan_layer(const Job& job, int64_t layer) {
  const auto index = static_cast<size_t>(layer);
  PlannedLayer planned{.layer = layer, .mappings = {}, .linears = job.resolved.planned[index]};
  if (job.awq) planned.mappings = plan_mappings(job.resolved.mappings[index], job.weights.spec(), layer);
  return planned;
}

/// On a GPU products are of halves: more digits than bf16 has, fewer than f32. Plans follow sizes there, so
/// that another run gives the same bytes.
std::unique_ptr<Backend> calibration_backend(const OneshotOptions& options, MatmulPrecision precision) {
  const bool halves = options.calibration.precision != CalibrationPrecision::f32;
  if (halves || options.device != "auto") {
    auto gpu = make_gpu_backend({.device = options.device, .measure = false, .on_note = options.on_note});
    if (gpu) return gpu;
  }
  return make_cpu_backend({.precision = precision, .repack = false});
}

}  // namespace

Job::Job(const OneshotOptions& options, SelfData self)
    : result((check_options(options), options.result)),
      format(options.integer_format()),
      awq(options.recipe.awq),
      propagation(*options.calibration.propagation),
      max_memory(options.max_memory),
      weights(options.model),
      foreign((refuse_quantized_input(weights), foreign_linears(weights))),
      resolved(resolve_recipe(options, weights.spec(), foreign)),
      data(calibration_data(options, weights.spec(), self)),
      self_memory(self_data_memory(options, weights)),
      precision(options.calibration.precision == CalibrationPrecision::f32 ? MatmulPrecision::f32
                                                                           : MatmulPrecision::bf16),
      backend(calibration_backend(options, precision)),
      exact(make_cpu_backend({.precision = MatmulPrecision::f32, .repack = false})) {}

std::optional<DType> storage_type(const Job& job) {
  const bool converts = job.result == OneshotResult::quantized && job.format == Format::autoawq_gemm;
  return converts ? std::optional(DType::f16) : std::nullopt;
}

std::vector<PlannedMapping> plan_mappings(std::span<const ResolvedMapping> mappings, const DecoderSpec& spec,
                                          int64_t layer) {
  std::vector<PlannedMapping> planned;
  for (const ResolvedMapping& mapping : mappings) {
    planned.push_back({.smooth_layer = mapping.smooth_name(spec, layer),
                       .balance_layers = mapping.balance_names(spec, layer),
                       .summary = mapping.describe(spec)});
  }
  return planned;
}

OneshotPlan make_plan(const Job& job) {
  const auto& spec = job.weights.spec();
  OneshotPlan plan;
  plan.result = job.result;
  plan.architecture = spec.architecture;
  plan.device = job.backend->description();
  for (int64_t layer = 0; layer < spec.layers; ++layer) plan.layers.push_back(plan_layer(job, layer));
  plan.groups = job.resolved.groups;
  plan.bits = job.bits;
  plan.dense = job.resolved.dense;
  if (job.result == OneshotResult::quantized) {
    plan.head = job.resolved.planned_head;
    plan.warnings = job.resolved.warnings;
    plan.quantized_linears = job.resolved.quantized_linears;
  }
  plan.calibration_tokens = count_tokens(job.data.sequences);
  plan.masked_tokens = masked_tokens(job.data);
  plan.warnings.insert(plan.warnings.end(), job.data.warnings.begin(), job.data.warnings.end());
  const int64_t counted = plan.calibration_tokens - plan.masked_tokens;
  if (job.awq && counted < kFewTokens) plan.warnings.push_back(few_tokens_warning(counted));
  plan.bytes_before = job.weights.checkpoint().byte_size();
  plan.bytes_after = bytes_after(job);
  plan.memory = plan_memory(job);
  check_device_memory(job, plan.memory);
  return plan;
}

}  // namespace salient
