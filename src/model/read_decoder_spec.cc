#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/config_keys.h"
#include "model/families.h"
#include "model/linear_attention_spec.h"
#include "model/moe_spec.h"
#include "model/rope_spec.h"

namespace salient {
namespace {

[[noreturn]] void refuse_architecture(const JsonView& config, std::string_view name) {
  fail(ErrorKind::unsupported, "{}: the architecture \"{}\" is not supported (known: {})", config.path(),
       name, fmt::join(known_architectures(), ", "));
}

/// The first of "architectures", or, when the key is missing, "model_type".
std::string declared_name(const JsonView& config) {
  const auto architectures = config.find("architectures");
  if (architectures && !architectures->elements().empty())
    return architectures->elements().front().as_string();
  return config.at("model_type").as_string();
}

/// The row of an architecture or a model_type; null when the table has none.
template <typename Row>
const Row* find_row(std::span<const Row> table, std::string_view name) {
  for (const Row& row : table) {
    if (row.architecture == name || row.model_type == name) return &row;
  }
  return nullptr;
}

const Family& find_family(const JsonView& config, std::string_view name, std::span<const Family> more) {
  if (const Family* own = find_row(more, name)) return *own;
  if (const Family* family = find_row(families(), name)) return *family;
  refuse_architecture(config, name);
}

/// Without gating the block is four times as wide as the hidden state unless a key says otherwise.
int64_t intermediate_size(const JsonView& config, const Family& family, int64_t hidden_size,
                          int64_t fallback) {
  if (!family.gated_mlp) fallback = 4 * hidden_size;
  return size_of_any(config, {"intermediate_size", "ffn_dim", "n_inner"}, kMaximumFeatures, fallback);
}

void read_head_sizes(const JsonView& config, const Family& family, DecoderSpec& spec) {
  const bool absent = !config.json().contains("num_key_value_heads");
  const int64_t kv_heads = absent && family.default_kv_heads > 0 ? family.default_kv_heads : spec.heads;
  spec.kv_heads =
      family.grouped_query ? size_or(config, "num_key_value_heads", kv_heads, kMaximumHeads) : spec.heads;
  const int64_t head_dim = config.json().contains("head_dim") ? 0 : family.default_head_dim;
  spec.head_dim = size_or(config, "head_dim", head_dim, kMaximumFeatures);
  if (spec.heads % spec.kv_heads != 0) {
    config.reject(fmt::format("num_attention_heads {} is no multiple of num_key_value_heads {}", spec.heads,
                              spec.kv_heads));
  }
  if (spec.head_dim == 0) {
    if (spec.hidden_size % spec.heads != 0) {
      config.reject(
          fmt::format("hidden_size {} is no multiple of num_attention_heads {} and there is no head_dim",
                      spec.hidden_size, spec.heads));
    }
    spec.head_dim = spec.hidden_size / spec.heads;
  }
  spec.value_dim = spec.head_dim;
}

void read_latent_attention(const JsonView& config, const LatentDefaults& defaults, DecoderSpec& spec) {
  const auto size = [&](std::string_view key, int64_t fallback) {
    return size_or(config, key, fallback, kMaximumFeatures);
  };
  LatentAttention latent;
  latent.query_rank = size("q_lora_rank", config.json().contains("q_lora_rank") ? 0 : defaults.query_rank);
  latent.key_value_rank = size("kv_lora_rank", defaults.key_value_rank);
  latent.plain_dim = size("qk_nope_head_dim", defaults.plain_dim);
  latent.rotated_dim = size("qk_rope_head_dim", defaults.rotated_dim);
  spec.kv_heads = spec.heads;
  spec.head_dim = latent.plain_dim + latent.rotated_dim;
  spec.value_dim = size("v_head_dim", defaults.value_dim);
  spec.latent = latent;
}

void read_sizes(const JsonView& config, const Family& family, const SizeDefaults& defaults,
                DecoderSpec& spec) {
  spec.hidden_size =
      size_of_any(config, {"hidden_size", "n_embd", "n_embed"}, kMaximumFeatures, defaults.hidden_size);
  spec.intermediate_size = intermediate_size(config, family, spec.hidden_size, defaults.intermediate_size);
  spec.layers = size_of_any(config, {"num_hidden_layers", "n_layer"}, kMaximumLayers, defaults.layers);
  spec.heads = size_of_any(config, {"num_attention_heads", "n_head"}, kMaximumHeads, defaults.heads);
  spec.vocab_size = size_of_any(config, {"vocab_size"}, kMaximumFeatures, defaults.vocab_size);
  const auto positions = find_any(config, {"max_position_embeddings", "n_positions", "seq_length"});
  spec.max_position_embeddings =
      positions ? positions->as_int(1, kMaximumPositions) : family.default_max_position_embeddings;
  if (family.latent != nullptr) {
    read_latent_attention(config, *family.latent, spec);
  } else {
    read_head_sizes(config, family, spec);
  }
  if (spec.heads * std::max(spec.head_dim, spec.value_dim) > kMaximumFeatures) {
    config.reject(fmt::format("{} heads of {} features are too many", spec.heads, spec.head_dim));
  }
}

bool has_bias(const BiasRule& rule, const JsonView& config) {
  return rule.key.empty() ? rule.fallback : config.bool_or(rule.key, rule.fallback);
}

/// Window of one layer from its entry in "layer_types".
int64_t window_of_type(const JsonView& type, int64_t window) {
  if (type.as_string() == "full_attention") return 0;
  if (type.as_string() != "sliding_attention") {
    fail(ErrorKind::unsupported, "{}: the layer type \"{}\" is not supported", type.path(), type.as_string());
  }
  if (window == 0) type.reject("sliding_attention, but use_sliding_window is off or sliding_window is null");
  return window;
}

/// config.json's "sliding_window"; absent is the default of the config classes, null is none.
int64_t sliding_window(const JsonView& config, const Family& family) {
  if (!config.json().contains("sliding_window")) return family.default_sliding_window;
  return size_or(config, "sliding_window", 0, kMaximumPositions);
}

/// Windows as "layer_types" lists them, if it is there.
std::optional<std::vector<int64_t>> listed_windows(const JsonView& config, int64_t window, int64_t layers) {
  const auto types = config.find("layer_types");
  if (!types) return std::nullopt;
  std::vector<int64_t> result;
  for (const JsonView& type : types->elements()) result.push_back(window_of_type(type, window));
  if (static_cast<int64_t>(result.size()) != layers) {
    types->reject(fmt::format("{} entries for {} layers", result.size(), layers));
  }
  return result;
}

/// Which layers the window applies to where "layer_types" does not say.
bool has_window(const Family& family, const JsonView& config, int64_t layer) {
  const int64_t first = config.int_or("max_window_layers", family.default_max_window_layers);
  switch (family.window) {
    case WindowRule::never:
      return false;
    case WindowRule::every_layer:
    case WindowRule::every_layer_if_used:
      return true;
    case WindowRule::by_layer_types:
      return layer >= first;
    case WindowRule::every_other_layer_if_used:
      return layer % 2 == 0 && layer < first;
    case WindowRule::alternating:
      return (layer + 1) %
                 size_or(config, family.window_pattern_key, family.default_window_pattern, kMaximumLayers) !=
             0;
  }
  return false;
}

std::vector<int64_t> read_windows(const Family& family, const JsonView& config, int64_t layers) {
  const bool optional = family.window == WindowRule::by_layer_types ||
                        family.window == WindowRule::every_layer_if_used ||
                        family.window == WindowRule::every_other_layer_if_used;
  const bool used = !optional || config.bool_or("use_sliding_window", false);
  const int64_t window = used ? sliding_window(config, family) : 0;
  const bool listed = family.window == WindowRule::by_layer_types ||
                      family.window == WindowRule::alternating ||
                      family.window == WindowRule::every_other_layer_if_used;
  if (auto windows = listed ? listed_windows(config, window, layers) : std::nullopt) return *windows;
  std::vector<int64_t> result;
  for (int64_t layer = 0; layer < layers; ++layer)
    result.push_back(has_window(family, config, layer) ? window : 0);
  return result;
}

Activation read_activation(const JsonView& config, const Family& family) {
  const auto name = find_any(config, {"activation_function", "hidden_activation", "hidden_act"});
  if (!name) return family.activation;
  const auto activation = activation_from_name(name->as_string());
  if (!activation) {
    fail(ErrorKind::unsupported, "{}: the activation \"{}\" is not supported", name->path(),
         name->as_string());
  }
  return *activation;
}

NormSpec read_norm(const JsonView& config, const Family& family) {
  NormSpec norm = family.norm;
  norm.epsilon = family.default_epsilon;
  if (family.fixed_epsilon) return norm;
  const auto value = find_any(config, {"rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"});
  if (!value) return norm;
  norm.epsilon = value->as_double();
  if (!(norm.epsilon >= 0 && norm.epsilon < 1)) {
    value->reject(fmt::format("{} is outside [0, 1)", norm.epsilon));
  }
  return norm;
}

/// A soft-cap; null is none.
double softcap_or(const JsonView& config, std::string_view key, double fallback) {
  return positive_or(config, key, config.json().contains(key) ? 0 : fallback);
}

double yarn_correction(const DecoderSpec& spec) {
  const RopeSpec& rope = spec.ropes.front();
  if (!spec.latent || rope.scaling == RopeScaling::none || !rope.mscale_all_dim || rope.factor <= 1) return 1;
  return std::pow(0.1 * *rope.mscale_all_dim * std::log(rope.factor) + 1, 2);
}

/// Granite names all of its scales.
void read_multipliers(const JsonView& config, DecoderSpec& spec) {
  spec.embedding_scale = positive_or(config, "embedding_multiplier", 1);
  spec.residual_scale = positive_or(config, "residual_multiplier", 1);
  spec.attention_scale = positive_or(config, "attention_multiplier", 1);
  spec.logit_scale = 1 / positive_or(config, "logits_scaling", 1);
}

void read_scales(const JsonView& config, const Family& family, DecoderSpec& spec) {
  double width = static_cast<double>(spec.head_dim);
  if (family.query_pre_attn_scalar) width = positive_or(config, "query_pre_attn_scalar", 256);
  spec.attention_scale = 1 / std::sqrt(width);
  if (!spec.ropes.empty()) spec.attention_scale *= yarn_correction(spec);
  if (family.scaled_embedding ||
      (!family.scaled_embedding_key.empty() && config.bool_or(family.scaled_embedding_key, false))) {
    spec.embedding_scale = std::sqrt(static_cast<double>(spec.hidden_size));
  }
  if (family.default_logit_scale != 1) {
    spec.logit_scale = positive_or(config, "logit_scale", family.default_logit_scale);
  }
  if (family.multipliers) read_multipliers(config, spec);
  if (!family.softcaps) return;
  spec.attention_softcap = softcap_or(config, "attn_logit_softcapping", family.default_attention_softcap);
  spec.logit_softcap = softcap_or(config, "final_logit_softcapping", family.default_logit_softcap);
}

/// The rotations of a family, and which layer has which.
void read_ropes(const JsonView& config, const Family& family, DecoderSpec& spec) {
  RopeContext context{.head_dim = spec.latent ? spec.latent->rotated_dim : spec.head_dim,
                      .max_position_embeddings = spec.max_position_embeddings,
                      .default_theta = family.default_rope_theta,
                      .default_local_theta = family.default_local_theta,
                      .default_partial_factor = family.default_partial_rotary_factor,
                      .multimodal = family.multimodal_rope,
                      .longrope_only = family.longrope_only};
  const bool by_window = family.position == PositionRule::rope_by_window;
  if (by_window) context.layer_type = "full_attention";
  spec.ropes.push_back(read_rope_spec(config, context));
  std::fill(spec.rope_of_layer.begin(), spec.rope_of_layer.end(), 0);
  if (by_window) {
    context.layer_type = "sliding_attention";
    spec.ropes.push_back(read_rope_spec(config, context));
  }
  const bool in_windows =
      family.position == PositionRule::rope_in_windows ||
      (family.position == PositionRule::rope_in_windows_if_any && sliding_window(config, family) > 0);
  for (size_t layer = 0; layer < spec.window.size(); ++layer) {
    if (by_window && spec.window[layer] > 0) spec.rope_of_layer[layer] = 1;
    if (in_windows && spec.window[layer] == 0) spec.rope_of_layer[layer] = -1;
  }
}

void read_positions(const JsonView& config, const Family& family, DecoderSpec& spec) {
  spec.rope_of_layer.assign(static_cast<size_t>(spec.layers), -1);
  switch (family.position) {
    case PositionRule::alibi:
      spec.alibi = true;
      return;
    case PositionRule::learned:
      spec.positions = {std::string(family.names.positions),
                        spec.max_position_embeddings + family.position_offset, family.position_offset};
      return;
    default:
      return read_ropes(config, family, spec);
  }
}

void check_fixed(const JsonView& config, const Family& family) {
  for (const auto& fixed : family.fixed) {
    const auto value = config.find(fixed.key);
    if (!value || value->as_bool() == fixed.value) continue;
    fail(ErrorKind::unsupported, "{}: only {} is supported", value->path(), fixed.value);
  }
  for (const std::string_view key : family.unset) {
    if (const auto value = config.find(key)) {
      fail(ErrorKind::unsupported, "{}: {} is not supported, only null", value->path(), value->json().dump());
    }
  }
  const auto width = config.find("word_embed_proj_dim");
  if (width && width->as_int() != config.at("hidden_size").as_int()) {
    fail(ErrorKind::unsupported, "{}: embeddings narrower than the hidden state are not supported",
         width->path());
  }
}

void set_names(const Family& family, DecoderSpec& spec) {
  const TensorNames& names = family.names;
  spec.embedding_name = names.embedding;
  spec.embedding_norm_name = names.embedding_norm;
  spec.final_norm_name = names.final_norm;
  spec.head_name = names.head;
  spec.other_prefixes.assign(family.other_prefixes.begin(), family.other_prefixes.end());
  std::copy(names.linears.begin(), names.linears.end(), spec.linear_names.begin());
  std::copy(names.norms.begin(), names.norms.end(), spec.norm_names.begin());
  if (spec.linear_attention) {
    std::copy(names.state_tensors.begin(), names.state_tensors.end(),
              spec.linear_attention->tensor_names.begin());
  }
  const auto without = [&](NormRole role) { spec.norm_names[static_cast<size_t>(role)].clear(); };
  if (!spec.query_key_norm) {
    without(NormRole::query);
    without(NormRole::key);
  }
  if (!spec.latent || spec.latent->query_rank == 0) without(NormRole::query_latent);
}

void read_tokens(const JsonView& config, DecoderSpec& spec) {
  const auto bos_tokens = read_token_ids(config.find("bos_token_id"));
  if (!bos_tokens.empty()) spec.bos_token = bos_tokens.front();
  if (const auto eos_tokens = config.find("eos_token_id")) spec.eos_tokens = read_token_ids(eos_tokens);
}

DecoderSpec read_spec(const JsonView& config, const Family& family, const SizeDefaults& sizes) {
  check_fixed(config, family);
  DecoderSpec spec;
  spec.architecture = family.architecture;
  const bool halves = !family.interleave_key.empty() && !config.bool_or(family.interleave_key, true);
  spec.rope_pairs = halves ? RopePairs::halves : family.rope_pairs;
  spec.storage = family.storage;
  spec.fused_by_head = family.fused_by_head;
  spec.gated_mlp = family.gated_mlp;
  spec.parallel_block = family.parallel_block;
  spec.query_key_gain = family.query_key_gain;
  spec.attention_gate = family.attention_gate;
  read_sizes(config, family, sizes, spec);
  spec.norm = read_norm(config, family);
  spec.activation = read_activation(config, family);
  spec.query_key_norm =
      family.query_key_norm == QueryKeyNorm::always ||
      (family.query_key_norm == QueryKeyNorm::use_qk_norm && config.bool_or("use_qk_norm", false));
  spec.qkv_bias = has_bias(family.qkv_bias, config);
  spec.output_bias = has_bias(family.output_bias, config);
  spec.mlp_bias = has_bias(family.mlp_bias, config);
  spec.tie_word_embeddings = config.bool_or("tie_word_embeddings", family.default_tied);
  spec.window = read_windows(family, config, spec.layers);
  read_positions(config, family, spec);
  read_scales(config, family, spec);
  if (family.linear_attention != nullptr) {
    spec.linear_attention = read_linear_attention(config, *family.linear_attention, spec.layers);
  }
  if (family.moe != nullptr) spec.moe = read_moe_spec(config, *family.moe, spec.layers);
  read_tokens(config, spec);
  set_names(family, spec);
  return spec;
}

/// The text part of a model of more. What the outer config.json says of tokens goes before; whether it ties
/// embeddings is up to the class in transformers: some do not look at what the text part says.
DecoderSpec read_text_part(const JsonView& config, const MultimodalFamily& outer,
                           std::span<const Family> more) {
  const bool flat = outer.flat && !config.find("text_config");
  const JsonView text = flat ? config : config.at("text_config");
  const std::string type =
      flat ? std::string(outer.text_type) : text.string_or("model_type", outer.text_type);
  const Family& family = find_family(text, type, more);
  DecoderSpec spec = read_spec(text, family, flat ? SizeDefaults{} : family.text_sizes);
  spec.architecture = outer.architecture;
  spec.text_part = true;
  const bool tied = config.bool_or("tie_word_embeddings", outer.default_tied);
  spec.tie_word_embeddings = tied || (outer.tied_by_text && spec.tie_word_embeddings);
  read_tokens(config, spec);
  spec.other_prefixes.assign(text_part_prefixes().begin(), text_part_prefixes().end());
  return spec;
}

}  // namespace

DecoderSpec make_decoder_spec(const JsonView& config) { return make_decoder_spec(config, {}); }

DecoderSpec make_decoder_spec(const JsonView& config, std::span<const Family> more) {
  const std::string name = declared_name(config);
  if (const Family* own = find_row(more, name)) return read_spec(config, *own, {});
  if (const auto* outer = find_row(multimodal_families(), name)) return read_text_part(config, *outer, more);
  const Family& family = find_family(config, name, more);
  if (family.text_part_only) refuse_architecture(config, name);
  return read_spec(config, family, {});
}

std::vector<int32_t> read_token_ids(const std::optional<JsonView>& value) {
  std::vector<int32_t> result;
  if (!value) return result;
  const auto views = value->json().is_array() ? value->elements() : std::vector<JsonView>{*value};
  for (const JsonView& view : views) {
    const int64_t id = view.as_int(-1, INT32_MAX);
    if (id >= 0) result.push_back(static_cast<int32_t>(id));
  }
  return result;
}

std::vector<std::string> known_architectures() {
  std::vector<std::string> result;
  for (const Family& family : families()) {
    if (!family.text_part_only) result.emplace_back(family.architecture);
  }
  for (const MultimodalFamily& family : multimodal_families()) result.emplace_back(family.architecture);
  return result;
}

}  // namespace salient
