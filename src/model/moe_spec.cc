#include "model/moe_spec.h"

#include "base/error.h"
#include "model/config_keys.h"

namespace salient {
namespace {

using Layers = std::vector<bool>;

Layers sparse_steps(const JsonView& config, int64_t layers) {
  Layers result;
  const int64_t step = size_or(config, "decoder_sparse_step", 1, kMaximumLayers);
  for (int64_t layer = 0; layer < layers; ++layer) result.push_back((layer + 1) % step == 0);
  if (const auto dense = config.find("mlp_only_layers")) {
    for (const JsonView& layer : dense->elements())
      result[static_cast<size_t>(layer.as_int(0, layers - 1))] = false;
  }
  return result;
}

Layers from_layer(int64_t first, int64_t layers) {
  Layers result;
  for (int64_t layer = 0; layer < layers; ++layer) result.push_back(layer >= first);
  return result;
}

/// An end of -1 is the last layer.
Layers interval_layers(const JsonView& config, int64_t layers) {
  const int64_t step = size_or(config, "moe_layer_interval", 1, kMaximumLayers);
  const int64_t first = config.int_or("moe_layer_start_index", 1);
  const int64_t end = config.int_or("moe_layer_end_index", -1);
  const int64_t last = end == -1 ? layers - 1 : end;
  Layers result;
  for (int64_t layer = 0; layer < layers; ++layer)
    result.push_back((layer + 1) % step == 0 && layer >= first && layer <= last);
  return result;
}

Layers listed_layers(const JsonView& config, int64_t layers) {
  const auto types = config.find("mlp_layer_types");
  if (!types) return from_layer(1, layers);
  Layers result;
  for (const JsonView& type : types->elements()) {
    const std::string& name = type.as_string();
    if (name != "dense" && name != "sparse") type.reject(fmt::format("\"{}\" is no kind of layer", name));
    result.push_back(name == "sparse");
  }
  if (static_cast<int64_t>(result.size()) != layers) {
    types->reject(fmt::format("{} entries for {} layers", result.size(), layers));
  }
  return result;
}

Layers moe_layers(const JsonView& config, const MoeFamily& family, int64_t layers) {
  switch (family.layers) {
    case MoeLayerRule::all:
      break;
    case MoeLayerRule::sparse_step:
      return sparse_steps(config, layers);
    case MoeLayerRule::dense_before:
      return from_layer(config.int_or(family.dense_layers_key, family.default_dense_layers), layers);
    case MoeLayerRule::interval:
      return interval_layers(config, layers);
    case MoeLayerRule::listed:
      return listed_layers(config, layers);
  }
  return Layers(static_cast<size_t>(layers), true);
}

bool has_groups(const JsonView& config, GroupRule rule) {
  if (rule != GroupRule::by_topk_method) return rule == GroupRule::always;
  const auto method = config.find("topk_method");
  if (!method || method->as_string() == "greedy") return false;
  if (method->as_string() == "group_limited_greedy") return true;
  fail(ErrorKind::unsupported, "{}: \"{}\" is not supported (greedy, group_limited_greedy)", method->path(),
       method->as_string());
}

void read_groups(const JsonView& config, const MoeFamily& family, MoeSpec& moe) {
  moe.groups = size_or(config, "n_group", family.default_groups, moe.experts);
  moe.groups_per_token = size_or(config, "topk_group", family.default_groups_per_token, moe.groups);
  moe.group_score = family.group_score;
  const int64_t least = family.group_score == GroupScore::best_two ? 2 : 1;
  if (moe.experts % moe.groups != 0 || moe.experts / moe.groups < least) {
    config.reject(
        fmt::format("{} experts do not make {} groups of at least {}", moe.experts, moe.groups, least));
  }
}

/// As wide as several experts, 0 for none.
int64_t shared_width(const JsonView& config, const MoeFamily& family, int64_t expert_width) {
  if (!family.shared_size_key.empty()) return config.at(family.shared_size_key).as_int(1, kMaximumFeatures);
  if (family.shared_count_key.empty()) return 0;
  const auto count = config.find(family.shared_count_key);
  return expert_width * (count ? count->as_int(0, kMaximumExperts) : family.default_shared_count);
}

}  // namespace

MoeSpec read_moe_spec(const JsonView& config, const MoeFamily& family, int64_t layers) {
  MoeSpec moe;
  moe.experts = size_of_any(config, {family.experts_key, family.other_experts_key}, kMaximumExperts);
  moe.experts_per_token =
      size_of_any(config, {family.per_token_key, family.other_per_token_key}, moe.experts);
  moe.intermediate_size = config.at(family.intermediate_key).as_int(1, kMaximumFeatures);
  moe.layers = moe_layers(config, family, layers);
  moe.score = family.score;
  moe.normalize =
      family.normalize_key.empty() || config.bool_or(family.normalize_key, family.normalize_default);
  if (!family.least_sum_key.empty()) moe.least_sum = positive_or(config, family.least_sum_key, 1e-12);
  if (!family.scale_key.empty()) moe.scale = positive_or(config, family.scale_key, family.default_scale);
  moe.correction_name = family.correction;
  moe.correction_is_row = family.correction_is_row;
  moe.shared_router = family.shared_router;
  if (has_groups(config, family.groups)) read_groups(config, family, moe);
  if (moe.experts_per_token > moe.experts / moe.groups * moe.groups_per_token) {
    config.reject(fmt::format("{} experts per token, but {} groups hold fewer", moe.experts_per_token,
                              moe.groups_per_token));
  }
  moe.shared_intermediate = shared_width(config, family, moe.intermediate_size);
  return moe;
}

}  // namespace salient
