#include "model/decoder_spec.h"

#include <algorithm>

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
constexpr int64_t kDefaultWindow = 4096;
constexpr int64_t kDefaultMaxWindowLayers = 28;

constexpr std::string_view kRoleNames[kLinearRoles] = {"q", "k", "v", "o", "gate", "up", "down"};

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

void read_sizes(const JsonView& config, const Family& family, DecoderSpec& spec) {
  spec.hidden_size = config.at("hidden_size").as_int(1, kMaximumFeatures);
  spec.intermediate_size = config.at("intermediate_size").as_int(1, kMaximumFeatures);
  spec.layers = config.at("num_hidden_layers").as_int(1, kMaximumLayers);
  spec.heads = config.at("num_attention_heads").as_int(1, kMaximumHeads);
  const bool absent = !config.json().contains("num_key_value_heads");
  const int64_t kv_heads = absent && family.default_kv_heads > 0 ? family.default_kv_heads : spec.heads;
  spec.kv_heads = size_or(config, "num_key_value_heads", kv_heads, kMaximumHeads);
  spec.vocab_size = config.at("vocab_size").as_int(1, kMaximumFeatures);
  spec.max_position_embeddings =
      size_or(config, "max_position_embeddings", family.default_max_position_embeddings, kMaximumPositions);
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
  if (spec.heads * spec.head_dim > kMaximumFeatures) {
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
int64_t sliding_window(const JsonView& config) {
  if (!config.json().contains("sliding_window")) return kDefaultWindow;
  return size_or(config, "sliding_window", 0, kMaximumPositions);
}

std::vector<int64_t> windows_by_layer_types(const JsonView& config, int64_t layers) {
  const int64_t window = config.bool_or("use_sliding_window", false) ? sliding_window(config) : 0;
  std::vector<int64_t> result;
  if (const auto types = config.find("layer_types")) {
    for (const JsonView& type : types->elements()) result.push_back(window_of_type(type, window));
    if (static_cast<int64_t>(result.size()) != layers) {
      types->reject(fmt::format("{} entries for {} layers", result.size(), layers));
    }
    return result;
  }
  const int64_t first = config.int_or("max_window_layers", kDefaultMaxWindowLayers);
  for (int64_t layer = 0; layer < layers; ++layer) result.push_back(layer >= first ? window : 0);
  return result;
}

std::vector<int64_t> read_windows(WindowRule rule, const JsonView& config, int64_t layers) {
  switch (rule) {
    case WindowRule::never:
      break;
    case WindowRule::every_layer:
      return std::vector<int64_t>(static_cast<size_t>(layers), sliding_window(config));
    case WindowRule::by_layer_types:
      return windows_by_layer_types(config, layers);
  }
  return std::vector<int64_t>(static_cast<size_t>(layers), 0);
}

Activation read_activation(const JsonView& config) {
  const std::string name = config.string_or("hidden_act", "silu");
  const auto activation = activation_from_name(name);
  if (!activation) {
    fail(ErrorKind::unsupported, "{}: hidden_act: the activation \"{}\" is not supported", config.path(),
         name);
  }
  return *activation;
}

double read_epsilon(const JsonView& config) {
  const double epsilon = config.double_or("rms_norm_eps", 1e-6);
  if (!(epsilon >= 0 && epsilon < 1))
    config.at("rms_norm_eps").reject(fmt::format("{} is outside [0, 1)", epsilon));
  return epsilon;
}

void set_names(const TensorNames& names, DecoderSpec& spec) {
  spec.embedding_name = names.embedding;
  spec.final_norm_name = names.final_norm;
  spec.head_name = names.head;
  std::copy(names.linears.begin(), names.linears.end(), spec.linear_names.begin());
  std::copy(names.norms.begin(), names.norms.end(), spec.norm_names.begin());
  if (spec.query_key_norm) return;
  spec.norm_names[static_cast<size_t>(NormRole::query)].clear();
  spec.norm_names[static_cast<size_t>(NormRole::key)].clear();
}

std::string with_layer(const std::string& pattern, int64_t layer) {
  return pattern.empty() ? pattern : fmt::format(fmt::runtime(pattern), layer);
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
  const int64_t query_size = heads * head_dim;
  const int64_t kv_size = kv_heads * head_dim;
  std::vector<LinearSlot> slots{
      {LinearRole::q, "", query_size, hidden_size, qkv_bias},
      {LinearRole::k, "", kv_size, hidden_size, qkv_bias},
      {LinearRole::v, "", kv_size, hidden_size, qkv_bias},
      {LinearRole::o, "", hidden_size, query_size, output_bias},
      {LinearRole::gate, "", intermediate_size, hidden_size, mlp_bias},
      {LinearRole::up, "", intermediate_size, hidden_size, mlp_bias},
      {LinearRole::down, "", hidden_size, intermediate_size, mlp_bias},
  };
  for (LinearSlot& slot : slots) slot.name = with_layer(linear_names[static_cast<size_t>(slot.role)], layer);
  return slots;
}

std::string DecoderSpec::norm_name(int64_t layer, NormRole role) const {
  return with_layer(norm_names[static_cast<size_t>(role)], layer);
}

DecoderSpec make_decoder_spec(const JsonView& config) {
  const Family& family = find_family(config);
  DecoderSpec spec;
  spec.architecture = family.architecture;
  read_sizes(config, family, spec);
  spec.norm_epsilon = read_epsilon(config);
  spec.activation = read_activation(config);
  spec.rope = read_rope_spec(config, spec.head_dim, spec.max_position_embeddings);
  spec.query_key_norm = family.query_key_norm;
  spec.qkv_bias = has_bias(family.qkv_bias, config);
  spec.output_bias = has_bias(family.output_bias, config);
  spec.mlp_bias = has_bias(family.mlp_bias, config);
  spec.tie_word_embeddings = config.bool_or("tie_word_embeddings", false);
  spec.window = read_windows(family.window, config, spec.layers);
  const auto bos_tokens = read_token_ids(config.find("bos_token_id"));
  if (!bos_tokens.empty()) spec.bos_token = bos_tokens.front();
  spec.eos_tokens = read_token_ids(config.find("eos_token_id"));
  set_names(family.names, spec);
  return spec;
}

std::vector<std::string> known_architectures() {
  std::vector<std::string> result;
  for (const Family& family : families()) result.emplace_back(family.architecture);
  return result;
}

}  // namespace salient
