#include "model/decoder_spec.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "base/error.h"
#include "model/families.h"
#include "model/rope_spec.h"

namespace salient {
namespace {

// Far above any published model, low enough that no product of two overflows and nothing absurd is allocated.
constexpr int64_t kMaximumFeatures = int64_t{1} << 24;
constexpr int64_t kMaximumLayers = 4096;
constexpr int64_t kMaximumHeads = int64_t{1} << 14;
constexpr int64_t kMaximumPositions = int64_t{1} << 31;
constexpr int64_t kMaximumExperts = int64_t{1} << 14;
constexpr int64_t kDefaultMaxWindowLayers = 28;

constexpr std::string_view kRoleNames[kLinearRoles] = {
    "q",           "k",         "v",           "q_a",
    "q_b",         "kv_a",      "kv_b",        "o",
    "gate",        "up",        "down",        "router",
    "expert_gate", "expert_up", "expert_down", "shared_router",
    "shared_gate", "shared_up", "shared_down"};

[[noreturn]] void refuse_architecture(const JsonView& config, std::string_view name) {
  fail(ErrorKind::unsupported, "{}: the architecture \"{}\" is not supported (known: {})", config.path(),
       name, fmt::join(known_architectures(), ", "));
}

/// The row that "architectures" names, or, when the key is missing, "model_type".
const Family& find_family(const JsonView& config) {
  const auto architectures = config.find("architectures");
  if (architectures && !architectures->elements().empty()) {
    const std::string& name = architectures->elements().front().as_string();
    for (const Family& family : families()) {
      if (family.architecture == name) return family;
    }
    refuse_architecture(config, name);
  }
  const std::string& type = config.at("model_type").as_string();
  for (const Family& family : families()) {
    if (family.model_type == type) return family;
  }
  refuse_architecture(config, type);
}

int64_t size_or(const JsonView& config, std::string_view key, int64_t fallback, int64_t maximum) {
  const auto value = config.find(key);
  return value ? value->as_int(1, maximum) : fallback;
}

/// The same thing under the names that families have given it.
std::optional<JsonView> find_any(const JsonView& config, std::initializer_list<std::string_view> keys) {
  for (const std::string_view key : keys) {
    if (const auto value = config.find(key)) return value;
  }
  return std::nullopt;
}

int64_t size_of_any(const JsonView& config, std::initializer_list<std::string_view> keys, int64_t maximum) {
  const auto value = find_any(config, keys);
  return value ? value->as_int(1, maximum) : config.at(*keys.begin()).as_int(1, maximum);
}

/// Without gating the block is four times as wide as the hidden state unless a key says otherwise.
int64_t intermediate_size(const JsonView& config, const Family& family, int64_t hidden_size) {
  const auto value = find_any(config, {"ffn_dim", "n_inner", "intermediate_size"});
  if (value) return value->as_int(1, kMaximumFeatures);
  return family.gated_mlp ? config.at("intermediate_size").as_int(1, kMaximumFeatures) : 4 * hidden_size;
}

void read_head_sizes(const JsonView& config, const Family& family, DecoderSpec& spec) {
  const bool absent = !config.json().contains("num_key_value_heads");
  const int64_t kv_heads = absent && family.default_kv_heads > 0 ? family.default_kv_heads : spec.heads;
  spec.kv_heads =
      family.grouped_query ? size_or(config, "num_key_value_heads", kv_heads, kMaximumHeads) : spec.heads;
  spec.head_dim = size_or(config, "head_dim", family.default_head_dim, kMaximumFeatures);
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

void read_latent_attention(const JsonView& config, DecoderSpec& spec) {
  LatentAttention latent;
  latent.query_rank =
      size_or(config, "q_lora_rank", config.json().contains("q_lora_rank") ? 0 : 1536, kMaximumFeatures);
  latent.key_value_rank = size_or(config, "kv_lora_rank", 512, kMaximumFeatures);
  latent.plain_dim = size_or(config, "qk_nope_head_dim", 128, kMaximumFeatures);
  latent.rotated_dim = size_or(config, "qk_rope_head_dim", 64, kMaximumFeatures);
  spec.kv_heads = spec.heads;
  spec.head_dim = latent.plain_dim + latent.rotated_dim;
  spec.value_dim = size_or(config, "v_head_dim", 128, kMaximumFeatures);
  if (!config.bool_or("rope_interleave", true)) spec.rope_pairs = RopePairs::halves;
  spec.latent = latent;
}

void read_sizes(const JsonView& config, const Family& family, DecoderSpec& spec) {
  spec.hidden_size = size_of_any(config, {"hidden_size", "n_embd", "n_embed"}, kMaximumFeatures);
  spec.intermediate_size = intermediate_size(config, family, spec.hidden_size);
  spec.layers = size_of_any(config, {"num_hidden_layers", "n_layer"}, kMaximumLayers);
  spec.heads = size_of_any(config, {"num_attention_heads", "n_head"}, kMaximumHeads);
  spec.vocab_size = config.at("vocab_size").as_int(1, kMaximumFeatures);
  const auto positions = find_any(config, {"max_position_embeddings", "n_positions", "seq_length"});
  spec.max_position_embeddings =
      positions ? positions->as_int(1, kMaximumPositions) : family.default_max_position_embeddings;
  if (family.latent_attention) {
    read_latent_attention(config, spec);
  } else {
    read_head_sizes(config, family, spec);
  }
  if (spec.heads * std::max(spec.head_dim, spec.value_dim) > kMaximumFeatures) {
    config.reject(fmt::format("{} heads of {} features are too many", spec.heads, spec.head_dim));
  }
}

bool has_bias(BiasRule rule, const JsonView& config) {
  switch (rule) {
    case BiasRule::never:
      return false;
    case BiasRule::always:
      return true;
    case BiasRule::attention_bias:
      return config.bool_or("attention_bias", false);
    case BiasRule::mlp_bias:
      return config.bool_or("mlp_bias", false);
    case BiasRule::qkv_bias:
      return config.bool_or("qkv_bias", true);
    case BiasRule::enable_bias:
      return config.bool_or("enable_bias", true);
  }
  return false;
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
  const int64_t first = config.int_or("max_window_layers", kDefaultMaxWindowLayers);
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
                 size_or(config, "sliding_window_pattern", family.default_window_pattern, kMaximumLayers) !=
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
  const auto value = find_any(config, {"rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"});
  if (!value) return norm;
  norm.epsilon = value->as_double();
  if (!(norm.epsilon >= 0 && norm.epsilon < 1)) {
    value->reject(fmt::format("{} is outside [0, 1)", norm.epsilon));
  }
  return norm;
}

double positive_or(const JsonView& config, std::string_view key, double fallback) {
  const auto value = config.find(key);
  if (!value) return config.json().contains(key) ? 0 : fallback;
  const double number = value->as_double();
  if (!(number > 0 && number < 1e9)) value->reject(fmt::format("{} is outside (0, 1e9)", number));
  return number;
}

double yarn_correction(const DecoderSpec& spec) {
  const RopeSpec& rope = spec.ropes.front();
  if (!spec.latent || rope.scaling == RopeScaling::none || !rope.mscale_all_dim || rope.factor <= 1) return 1;
  return std::pow(0.1 * *rope.mscale_all_dim * std::log(rope.factor) + 1, 2);
}

void read_scales(const JsonView& config, const Family& family, DecoderSpec& spec) {
  double width = static_cast<double>(spec.head_dim);
  if (family.query_pre_attn_scalar) width = positive_or(config, "query_pre_attn_scalar", 256);
  spec.attention_scale = 1 / std::sqrt(width);
  if (!spec.ropes.empty()) spec.attention_scale *= yarn_correction(spec);
  if (family.scaled_embedding) spec.embedding_scale = std::sqrt(static_cast<double>(spec.hidden_size));
  if (family.default_logit_scale != 1) {
    spec.logit_scale = positive_or(config, "logit_scale", family.default_logit_scale);
  }
  if (!family.softcaps) return;
  spec.attention_softcap = positive_or(config, "attn_logit_softcapping", family.default_attention_softcap);
  spec.logit_softcap = positive_or(config, "final_logit_softcapping", family.default_logit_softcap);
}

void read_positions(const JsonView& config, const Family& family, DecoderSpec& spec) {
  spec.rope_of_layer.assign(static_cast<size_t>(spec.layers), -1);
  spec.alibi = family.position == PositionRule::alibi;
  if (family.position == PositionRule::learned) {
    const int64_t count = spec.max_position_embeddings + family.position_offset;
    spec.positions = {std::string(family.names.positions), count, family.position_offset};
  }
  if (family.position != PositionRule::rope && family.position != PositionRule::rope_by_window) return;
  const int64_t rotated = spec.latent ? spec.latent->rotated_dim : spec.head_dim;
  RopeContext context{.head_dim = rotated,
                      .max_position_embeddings = spec.max_position_embeddings,
                      .default_theta = family.default_rope_theta,
                      .longrope_only = family.longrope_only};
  if (family.position == PositionRule::rope_by_window) context.layer_type = "full_attention";
  spec.ropes.push_back(read_rope_spec(config, context));
  std::fill(spec.rope_of_layer.begin(), spec.rope_of_layer.end(), 0);
  if (family.position == PositionRule::rope) return;
  context.layer_type = "sliding_attention";
  spec.ropes.push_back(read_rope_spec(config, context));
  for (size_t layer = 0; layer < spec.window.size(); ++layer) {
    if (spec.window[layer] > 0) spec.rope_of_layer[layer] = 1;
  }
}

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

MoeSpec read_moe(const JsonView& config, const MoeFamily& family, int64_t layers) {
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

void check_fixed(const JsonView& config, const Family& family) {
  for (const auto& fixed : family.fixed) {
    const auto value = config.find(fixed.key);
    if (!value || value->as_bool() == fixed.value) continue;
    fail(ErrorKind::unsupported, "{}: only {} is supported", value->path(), fixed.value);
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
  spec.optional_prefix = family.optional_prefix;
  std::copy(names.linears.begin(), names.linears.end(), spec.linear_names.begin());
  std::copy(names.norms.begin(), names.norms.end(), spec.norm_names.begin());
  const auto without = [&](NormRole role) { spec.norm_names[static_cast<size_t>(role)].clear(); };
  if (!spec.query_key_norm) {
    without(NormRole::query);
    without(NormRole::key);
  }
  if (!spec.latent || spec.latent->query_rank == 0) without(NormRole::query_latent);
}

std::string with_layer(const std::string& pattern, int64_t layer, int64_t expert = 0) {
  return pattern.empty() ? pattern : fmt::format(fmt::runtime(pattern), layer, expert);
}

/// Collects the slots of one layer.
class SlotList {
 public:
  SlotList(const DecoderSpec& spec, int64_t layer) : spec_(spec), layer_(layer) {}

  void add(const LinearId& id, int64_t out, int64_t in, bool bias) {
    LinearSlot slot{.id = id,
                    .name = with_layer(spec_.stored_name(id.role), layer_, id.expert),
                    .out_features = out,
                    .in_features = in,
                    .bias = bias,
                    .storage = is_expert(id.role) ? spec_.expert_storage : spec_.storage,
                    .rows = {.count = out, .first = 0, .block = out, .stride = out}};
    slots_.push_back(std::move(slot));
  }

  /// Linears of one name, which stand one after the other, become rows of one matrix.
  std::vector<LinearSlot> finish() {
    for (size_t begin = 0; begin < slots_.size();) {
      size_t end = begin + 1;
      while (end < slots_.size() && slots_[end].name == slots_[begin].name &&
             slots_[end].id.expert == slots_[begin].id.expert) {
        ++end;
      }
      if (end - begin > 1) stack({slots_.begin() + static_cast<ptrdiff_t>(begin), end - begin});
      begin = end;
    }
    return std::move(slots_);
  }

 private:
  /// In order, or, for a fused qkv that keeps the heads together, a slice of each for every kv head.
  void stack(std::span<LinearSlot> parts) const {
    const bool by_head = spec_.fused_by_head && parts.front().id.role == LinearRole::q;
    const int64_t pieces = by_head ? spec_.kv_heads : 1;
    int64_t total = 0;
    for (const LinearSlot& part : parts) total += part.out_features;
    int64_t first = 0;
    for (LinearSlot& part : parts) {
      const int64_t block = part.out_features / pieces;
      part.rows = {.count = total, .first = first, .block = block, .stride = total / pieces};
      first += block;
    }
  }

  const DecoderSpec& spec_;
  int64_t layer_;
  std::vector<LinearSlot> slots_;
};

void add_attention(const DecoderSpec& spec, SlotList& slots) {
  const int64_t query_size = spec.heads * spec.head_dim;
  if (!spec.latent) {
    slots.add(LinearRole::q, query_size, spec.hidden_size, spec.qkv_bias);
    slots.add(LinearRole::k, spec.key_features(), spec.hidden_size, spec.qkv_bias);
    slots.add(LinearRole::v, spec.value_features(), spec.hidden_size, spec.qkv_bias);
  } else {
    const LatentAttention& latent = *spec.latent;
    if (latent.query_rank == 0) {
      slots.add(LinearRole::q, query_size, spec.hidden_size, false);
    } else {
      slots.add(LinearRole::q_a, latent.query_rank, spec.hidden_size, spec.qkv_bias);
      slots.add(LinearRole::q_b, query_size, latent.query_rank, false);
    }
    slots.add(LinearRole::kv_a, latent.key_value_rank + latent.rotated_dim, spec.hidden_size, spec.qkv_bias);
    slots.add(LinearRole::kv_b, spec.heads * (latent.plain_dim + spec.value_dim), latent.key_value_rank,
              false);
  }
  slots.add(LinearRole::o, spec.hidden_size, spec.heads * spec.value_dim, spec.output_bias);
}

/// Roles of a feed-forward block, the dense one's, an expert's or the shared expert's.
struct MlpRoles {
  LinearRole gate;
  LinearRole up;
  LinearRole down;
};

void add_mlp(const DecoderSpec& spec, const MlpRoles& roles, int64_t expert, int64_t width, SlotList& slots) {
  if (spec.gated_mlp) slots.add({roles.gate, expert}, width, spec.hidden_size, spec.mlp_bias);
  slots.add({roles.up, expert}, width, spec.hidden_size, spec.mlp_bias);
  slots.add({roles.down, expert}, spec.hidden_size, width, spec.mlp_bias);
}

void add_experts(const DecoderSpec& spec, SlotList& slots) {
  const MoeSpec& moe = *spec.moe;
  slots.add(LinearRole::router, moe.experts, spec.hidden_size, false);
  for (int64_t expert = 0; expert < moe.experts; ++expert) {
    add_mlp(spec, {LinearRole::expert_gate, LinearRole::expert_up, LinearRole::expert_down}, expert,
            moe.intermediate_size, slots);
  }
  if (moe.shared_router) slots.add(LinearRole::shared_router, 1, spec.hidden_size, false);
  if (moe.shared_intermediate == 0) return;
  add_mlp(spec, {LinearRole::shared_gate, LinearRole::shared_up, LinearRole::shared_down}, 0,
          moe.shared_intermediate, slots);
}

}  // namespace

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

std::string_view to_string(LinearRole role) { return kRoleNames[static_cast<size_t>(role)]; }

std::vector<LinearSlot> DecoderSpec::linears(int64_t layer) const {
  SlotList slots(*this, layer);
  add_attention(*this, slots);
  if (has_experts(layer)) {
    add_experts(*this, slots);
  } else {
    add_mlp(*this, {LinearRole::gate, LinearRole::up, LinearRole::down}, 0, intermediate_size, slots);
  }
  return slots.finish();
}

const std::string& DecoderSpec::stored_name(LinearRole role) const {
  const auto index = static_cast<size_t>(role);
  if (!is_expert(role) || expert_storage != LinearStorage::expert_stack) return linear_names[index];
  return stored_expert_names[index - static_cast<size_t>(LinearRole::expert_gate)];
}

std::string DecoderSpec::linear_name(int64_t layer, const LinearId& id) const {
  return with_layer(linear_names[static_cast<size_t>(id.role)], layer, id.expert);
}

std::string DecoderSpec::correction_name(int64_t layer) const {
  return has_experts(layer) ? with_layer(moe->correction_name, layer) : std::string();
}

void DecoderSpec::remove_prefix() {
  const auto strip = [&](std::string& name) {
    if (name.starts_with(optional_prefix)) name.erase(0, optional_prefix.size());
  };
  for (std::string* name : {&embedding_name, &embedding_norm_name, &final_norm_name}) strip(*name);
  for (std::string& name : linear_names) strip(name);
  for (std::string& name : norm_names) strip(name);
  if (positions) strip(positions->name);
}

std::vector<int64_t> DecoderSpec::norm_shape(NormRole role) const {
  if (norm_names[static_cast<size_t>(role)].empty()) return {};
  switch (role) {
    case NormRole::query:
      return norm_per_head ? std::vector{heads, head_dim} : std::vector{head_dim};
    case NormRole::key:
      return norm_per_head ? std::vector{kv_heads, head_dim} : std::vector{head_dim};
    case NormRole::query_latent:
      return {latent->query_rank};
    case NormRole::key_latent:
      return {latent->key_value_rank};
    default:
      return {hidden_size};
  }
}

std::string DecoderSpec::norm_name(int64_t layer, NormRole role) const {
  return with_layer(norm_names[static_cast<size_t>(role)], layer);
}

DecoderSpec make_decoder_spec(const JsonView& config) {
  const Family& family = find_family(config);
  check_fixed(config, family);
  DecoderSpec spec;
  spec.architecture = family.architecture;
  spec.rope_pairs = family.rope_pairs;
  spec.storage = family.storage;
  spec.fused_by_head = family.fused_by_head;
  spec.gated_mlp = family.gated_mlp;
  spec.parallel_block = family.parallel_block;
  spec.norm_per_head = family.norm_per_head;
  read_sizes(config, family, spec);
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
  if (family.moe != nullptr) spec.moe = read_moe(config, *family.moe, spec.layers);
  const auto bos_tokens = read_token_ids(config.find("bos_token_id"));
  if (!bos_tokens.empty()) spec.bos_token = bos_tokens.front();
  spec.eos_tokens = read_token_ids(config.find("eos_token_id"));
  set_names(family, spec);
  return spec;
}

std::vector<std::string> known_architectures() {
  std::vector<std::string> result;
  for (const Family& family : families()) result.emplace_back(family.architecture);
  return result;
}

}  // namespace salient
