#include "model/moe_spec.h"

#include <fmt/format.h>

#include <algorithm>

#include "model/config_keys.h"

namespace salient {
namespace {

std::vector<bool> moe_layers(const JsonView& config, MoeLayerRule rule, int64_t layers) {
  std::vector<bool> result(static_cast<size_t>(layers), true);
  if (rule == MoeLayerRule::dense_before) {
    const int64_t dense = std::clamp<int64_t>(config.int_or("first_k_dense_replace", 3), 0, layers);
    std::fill_n(result.begin(), dense, false);
  }
  if (rule != MoeLayerRule::sparse_step) return result;
  const int64_t step = size_or(config, "decoder_sparse_step", 1, kMaximumLayers);
  for (int64_t layer = 0; layer < layers; ++layer)
    result[static_cast<size_t>(layer)] = (layer + 1) % step == 0;
  if (const auto dense = config.find("mlp_only_layers")) {
    for (const JsonView& layer : dense->elements())
      result[static_cast<size_t>(layer.as_int(0, layers - 1))] = false;
  }
  return result;
}

/// Experts of DeepSeek-V3 are chosen within groups, and their weights are scaled.
void read_expert_groups(const JsonView& config, MoeSpec& moe) {
  moe.groups = size_or(config, "n_group", 8, moe.experts);
  moe.groups_per_token = size_or(config, "topk_group", 4, moe.groups);
  moe.scale = positive_or(config, "routed_scaling_factor", 2.5);
  if (moe.experts % moe.groups != 0 || moe.experts / moe.groups < 2) {
    config.reject(fmt::format("{} experts do not make {} groups of at least two", moe.experts, moe.groups));
  }
}

}  // namespace

MoeSpec read_moe_spec(const JsonView& config, const MoeFamily& family, int64_t layers) {
  MoeSpec moe;
  moe.experts = config.at(family.experts_key).as_int(1, kMaximumExperts);
  moe.experts_per_token = config.at("num_experts_per_tok").as_int(1, moe.experts);
  moe.intermediate_size = config.at(family.intermediate_key).as_int(1, kMaximumFeatures);
  moe.layers = moe_layers(config, family.layers, layers);
  moe.score = family.score;
  moe.normalize =
      family.normalize_key.empty() || config.bool_or(family.normalize_key, family.normalize_default);
  moe.correction_name = family.correction;
  moe.shared_router = family.shared_router;
  if (family.grouped) read_expert_groups(config, moe);
  if (moe.experts_per_token > moe.experts / moe.groups * moe.groups_per_token) {
    config.reject(fmt::format("{} experts per token, but {} groups hold fewer", moe.experts_per_token,
                              moe.groups_per_token));
  }
  if (!family.shared_size_key.empty()) {
    moe.shared_intermediate = config.at(family.shared_size_key).as_int(1, kMaximumFeatures);
  }
  if (!family.shared_count_key.empty()) {
    moe.shared_intermediate =
        moe.intermediate_size * size_or(config, family.shared_count_key, 1, kMaximumExperts);
  }
  return moe;
}

}  // namespace salient
