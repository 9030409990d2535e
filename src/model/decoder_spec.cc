#include "model/decoder_spec.h"

#include <fmt/format.h>

#include <span>

namespace salient {
namespace {

constexpr std::string_view kRoleNames[kLinearRoles] = {
    "q",           "attention_gate", "k",           "v",         "q_a",         "q_b",
    "kv_a",        "kv_b",           "o",           "state_q",   "state_k",     "state_v",
    "state_gate",  "state_beta",     "state_decay", "state_out", "gate",        "up",
    "down",        "router",         "expert_gate", "expert_up", "expert_down", "shared_router",
    "shared_gate", "shared_up",      "shared_down"};

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
  /// How many heads a matrix keeps together; 1 where the parts stand one behind the other.
  int64_t heads_together(std::span<const LinearSlot> parts) const {
    const LinearRole first = parts.front().id.role;
    if (first == LinearRole::q && spec_.fused_by_head) {
      return parts[1].id.role == LinearRole::attention_gate ? spec_.heads : spec_.kv_heads;
    }
    const bool state = first == LinearRole::state_q || first == LinearRole::state_beta;
    return state && spec_.linear_attention->fused_by_head ? spec_.linear_attention->key_heads : 1;
  }

  /// In order, or, for a matrix that keeps the heads together, a slice of each for every head.
  void stack(std::span<LinearSlot> parts) const {
    const int64_t pieces = heads_together(parts);
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

void add_linear_attention(const DecoderSpec& spec, SlotList& slots) {
  const LinearAttention& state = *spec.linear_attention;
  slots.add(LinearRole::state_q, state.key_features(), spec.hidden_size, false);
  slots.add(LinearRole::state_k, state.key_features(), spec.hidden_size, false);
  slots.add(LinearRole::state_v, state.value_features(), spec.hidden_size, false);
  slots.add(LinearRole::state_gate, state.value_features(), spec.hidden_size, false);
  slots.add(LinearRole::state_beta, state.value_heads, spec.hidden_size, false);
  slots.add(LinearRole::state_decay, state.value_heads, spec.hidden_size, false);
  slots.add(LinearRole::state_out, spec.hidden_size, state.value_features(), false);
}

void add_attention(const DecoderSpec& spec, SlotList& slots) {
  const int64_t query_size = spec.heads * spec.head_dim;
  if (!spec.latent) {
    // A gate has a bias only as rows of the queries' matrix.
    const bool gate_bias =
        spec.qkv_bias && spec.stored_name(LinearRole::attention_gate) == spec.stored_name(LinearRole::q);
    slots.add(LinearRole::q, query_size, spec.hidden_size, spec.qkv_bias);
    if (spec.attention_gate) slots.add(LinearRole::attention_gate, query_size, spec.hidden_size, gate_bias);
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

std::string_view to_string(LinearRole role) { return kRoleNames[static_cast<size_t>(role)]; }

std::vector<LinearSlot> DecoderSpec::linears(int64_t layer) const {
  SlotList slots(*this, layer);
  if (has_state(layer)) {
    add_linear_attention(*this, slots);
  } else {
    add_attention(*this, slots);
  }
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

std::vector<int64_t> DecoderSpec::correction_shape() const {
  return moe->correction_is_row ? std::vector{int64_t{1}, moe->experts} : std::vector{moe->experts};
}

std::string NamePrefix::change(const std::string& name) const {
  return name.empty() || !name.starts_with(from) ? name : std::string(to) + name.substr(from.size());
}

void DecoderSpec::change_prefix(const NamePrefix& prefix) {
  const auto change = [&](std::string& name) { name = prefix.change(name); };
  for (std::string* name : {&embedding_name, &embedding_norm_name, &final_norm_name, &head_name})
    change(*name);
  for (std::string& name : linear_names) change(name);
  for (std::string& name : norm_names) change(name);
  if (positions) change(positions->name);
  if (moe) change(moe->correction_name);
  if (!linear_attention) return;
  for (std::string& name : linear_attention->tensor_names) change(name);
}

std::vector<int64_t> DecoderSpec::norm_shape(NormRole role) const {
  if (norm_names[static_cast<size_t>(role)].empty()) return {};
  const auto of_heads = [&](int64_t count) -> std::vector<int64_t> {
    if (query_key_gain == QueryKeyGain::per_head) return {count, head_dim};
    return {query_key_gain == QueryKeyGain::shared ? head_dim : count * head_dim};
  };
  switch (role) {
    case NormRole::query:
      return of_heads(heads);
    case NormRole::key:
      return of_heads(kv_heads);
    case NormRole::query_latent:
      return {latent->query_rank};
    case NormRole::key_latent:
      return {latent->key_value_rank};
    default:
      return {hidden_size};
  }
}

std::string DecoderSpec::norm_name(int64_t layer, NormRole role) const {
  const bool of_attention = role == NormRole::query || role == NormRole::key;
  if (of_attention && has_state(layer)) return {};
  return with_layer(norm_names[static_cast<size_t>(role)], layer);
}

std::string DecoderSpec::state_tensor_name(int64_t layer, StateTensor tensor) const {
  if (!has_state(layer)) return {};
  return with_layer(linear_attention->tensor_names[static_cast<size_t>(tensor)], layer);
}

std::vector<int64_t> DecoderSpec::state_tensor_shape(StateTensor tensor) const {
  const LinearAttention& state = *linear_attention;
  switch (tensor) {
    case StateTensor::convolution:
      return {state.channels(), 1, state.kernel};
    case StateTensor::log_decay:
    case StateTensor::step_bias:
      return {state.value_heads};
    case StateTensor::gain:
      return {state.value_dim};
  }
  return {};
}

}  // namespace salient
