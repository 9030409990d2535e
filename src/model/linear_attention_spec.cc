#include "model/linear_attention_spec.h"

#include <fmt/format.h>

#include "base/error.h"
#include "model/config_keys.h"

namespace salient {
namespace {

/// A kernel longer than this would be no short convolution any more, and its tail no small state.
constexpr int64_t kMaximumKernel = 1024;

bool is_linear(const JsonView& type) {
  const std::string& name = type.as_string();
  if (name != "linear_attention" && name != "full_attention") {
    fail(ErrorKind::unsupported,
         "{}: the layer type \"{}\" is not supported (linear_attention, full_attention)", type.path(), name);
  }
  return name == "linear_attention";
}

std::vector<bool> linear_layers(const JsonView& config, const LinearAttentionFamily& family, int64_t layers) {
  std::vector<bool> result;
  const auto types = config.find("layer_types");
  if (!types) {
    const int64_t interval = size_or(config, "full_attention_interval", family.interval, kMaximumLayers);
    for (int64_t layer = 0; layer < layers; ++layer) result.push_back((layer + 1) % interval != 0);
    return result;
  }
  for (const JsonView& type : types->elements()) result.push_back(is_linear(type));
  if (static_cast<int64_t>(result.size()) != layers) {
    types->reject(fmt::format("{} entries for {} layers", result.size(), layers));
  }
  return result;
}

}  // namespace

LinearAttention read_linear_attention(const JsonView& config, const LinearAttentionFamily& family,
                                      int64_t layers) {
  LinearAttention state;
  state.key_heads = size_or(config, "linear_num_key_heads", family.key_heads, kMaximumHeads);
  state.value_heads = size_or(config, "linear_num_value_heads", family.value_heads, kMaximumHeads);
  state.key_dim = size_or(config, "linear_key_head_dim", family.key_dim, kMaximumFeatures);
  state.value_dim = size_or(config, "linear_value_head_dim", family.value_dim, kMaximumFeatures);
  state.kernel = size_or(config, "linear_conv_kernel_dim", family.kernel, kMaximumKernel);
  state.fused_by_head = family.fused_by_head;
  state.layers = linear_layers(config, family, layers);
  if (state.value_heads % state.key_heads != 0) {
    config.reject(fmt::format("linear_num_value_heads {} is no multiple of linear_num_key_heads {}",
                              state.value_heads, state.key_heads));
  }
  // What is remembered of a sequence is as large as the matrices of all heads.
  if (state.channels() > kMaximumFeatures || state.key_dim * state.value_features() > kMaximumFeatures * 16) {
    config.reject(fmt::format("linear attention with {} heads of {} and {} features is too large",
                              state.value_heads, state.key_dim, state.value_dim));
  }
  return state;
}

}  // namespace salient
