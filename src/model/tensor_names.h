#pragma once

#include <array>
#include <initializer_list>
#include <string_view>

#include "model/layer_parts.h"

namespace salient {

/// Where a family keeps its tensors; "{}" stands for the layer, a second one for the expert. Linears that
/// share a name are rows of one matrix.
struct TensorNames {
  std::string_view embedding = "model.embed_tokens.weight";
  std::string_view embedding_norm = {};
  std::string_view positions = {};
  std::string_view final_norm = "model.norm";
  std::string_view head = "lm_head";
  std::array<std::string_view, kLinearRoles> linears;
  std::array<std::string_view, kNormRoles> norms;
  std::array<std::string_view, kStateTensors> state_tensors = {};  ///< in full
};

struct NamedLinear {
  LinearRole role;
  std::string_view name;
};
struct NamedNorm {
  NormRole role;
  std::string_view name;
};

/// Names by role, so that a row of the table reads like the model.
constexpr std::array<std::string_view, kLinearRoles> linear_names(std::initializer_list<NamedLinear> list) {
  std::array<std::string_view, kLinearRoles> names{};
  for (const NamedLinear& entry : list) names[static_cast<size_t>(entry.role)] = entry.name;
  return names;
}
constexpr std::array<std::string_view, kNormRoles> norm_names(std::initializer_list<NamedNorm> list) {
  std::array<std::string_view, kNormRoles> names{};
  for (const NamedNorm& entry : list) names[static_cast<size_t>(entry.role)] = entry.name;
  return names;
}

extern const TensorNames kLlamaNames;
extern const TensorNames kGemma2Names;
extern const TensorNames kPhi3Names;
extern const TensorNames kCohereNames;
extern const TensorNames kOlmoNames;
extern const TensorNames kPostNormNames;
extern const TensorNames kOptNames;
extern const TensorNames kGpt2Names;
extern const TensorNames kBloomNames;
extern const TensorNames kMixtralNames;
extern const TensorNames kQwenMoeNames;
extern const TensorNames kGlmMoeNames;
extern const TensorNames kAfmoeNames;
extern const TensorNames kDeepseekNames;
extern const TensorNames kQwenNextNames;
extern const TensorNames kQwen35Names;

}  // namespace salient
