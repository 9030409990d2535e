#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "backend/backend.h"
#include "model/weights.h"
#include "recipe/calibration_data.h"
#include "recipe/resolve.h"

namespace salient {

/// Everything that is known before the first weight is read.
struct Job {
  /// Errors: those of opening the model and the data set, and of resolve_recipe; invalid_argument for a model
  /// that is quantized already, AWQ without a data set, scaled weights without AWQ or with what only integers
  /// have, and numbers out of range; cancelled.
  Job(const OneshotOptions& options, SelfData self);

  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  OneshotResult result;
  Format format;
  std::optional<AwqModifier> awq;
  Propagation propagation;
  uint64_t max_memory;  ///< 0: no cap
  ModelWeights weights;
  /// Linears that are no part of the decoder, such as a vision tower's or a layer's for speculation.
  std::vector<std::string> foreign;
  ResolvedRecipe resolved;
  std::optional<ChosenBits> bits{};  ///< see choose_bits
  CalibrationData data;
  uint64_t self_memory;       ///< bytes that drawing the data set "self" takes, 0 without it
  MatmulPrecision precision;  // falls back to f32 in the back end when the CPU has no bf16 arithmetic
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Backend> exact;
};

/// The type of all that stays floating where the result asks for one: that of AutoAWQ's kernels.
/// compressed-tensors keeps each tensor's own.
std::optional<DType> storage_type(const Job& job);

/// Mappings of a layer by the names of their modules.
std::vector<PlannedMapping> plan_mappings(std::span<const ResolvedMapping> mappings, const DecoderSpec& spec,
                                          int64_t layer);

/// What the job would do and take. Errors: out_of_memory, see plan_memory and check_device_memory.
OneshotPlan make_plan(const Job& job);

}  // namespace salient
