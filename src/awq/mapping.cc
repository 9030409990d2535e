#include "awq/mapping.h"

#include <fmt/format.h>

#include <algorithm>

namespace salient {
namespace {

/// Without what every name of its block begins with: "model.layers.{}.mlp.experts.3.up_proj" ->
/// "experts.3.up_proj".
std::string short_name(const std::string& pattern) {
  std::string name = pattern.substr(pattern.find("{}") + 3);
  if (const auto dot = name.find('.'); dot != std::string::npos) name.erase(0, dot + 1);
  return name;
}

/// `expert` stands for its number, or for all of them: "*".
std::string short_name(const DecoderSpec& spec, const LinearId& id, std::string_view expert) {
  std::string name = short_name(spec.linear_names[static_cast<size_t>(id.role)]);
  if (const auto place = name.find("{}"); place != std::string::npos) name.replace(place, 2, expert);
  return name;
}

bool is_value_to_output(const ResolvedMapping& mapping) {
  const auto* linear = std::get_if<LinearId>(&mapping.smooth);
  return linear != nullptr && linear->role == LinearRole::v;
}

/// The linears of a layer that read the output of the norm before a block.
std::vector<LinearId> readers(const DecoderSpec& spec, int64_t layer,
                              std::initializer_list<LinearRole> roles) {
  std::vector<LinearId> result;
  for (const LinearSlot& slot : spec.linears(layer)) {
    if (std::find(roles.begin(), roles.end(), slot.id.role) != roles.end()) result.push_back(slot.id);
  }
  return result;
}

std::vector<LinearId> attention_readers(const DecoderSpec& spec, int64_t layer) {
  return readers(spec, layer,
                 {LinearRole::q, LinearRole::attention_gate, LinearRole::k, LinearRole::v, LinearRole::q_a,
                  LinearRole::kv_a, LinearRole::state_q, LinearRole::state_k, LinearRole::state_v,
                  LinearRole::state_gate, LinearRole::state_beta, LinearRole::state_decay});
}

std::vector<LinearId> mlp_readers(const DecoderSpec& spec, int64_t layer) {
  using enum LinearRole;
  auto result =
      readers(spec, layer, {gate, router, expert_gate, expert_up, shared_router, shared_gate, shared_up});
  const auto plain = readers(spec, layer, {up});
  result.insert(result.end(), plain.begin(), plain.end());
  return result;
}

void append(const std::vector<LinearId>& from, std::vector<LinearId>& to) {
  to.insert(to.end(), from.begin(), from.end());
}

/// What reads the input of the attention, and what reads that of the feed-forward block; one list of a
/// parallel block.
std::vector<std::vector<LinearId>> block_readers(const DecoderSpec& spec, int64_t layer) {
  std::vector<LinearId> first = attention_readers(spec, layer);
  if (!spec.parallel_block) return {std::move(first), mlp_readers(spec, layer)};
  append(mlp_readers(spec, layer), first);
  return {std::move(first)};
}

/// act(gate) * up and max(0, up) carry a positive factor of up through.
void append_up_to_down(const DecoderSpec& spec, int64_t layer, std::vector<ResolvedMapping>& mappings) {
  if (!spec.gated_mlp && spec.activation != Activation::relu) return;
  constexpr std::pair<LinearRole, LinearRole> kPairs[] = {{LinearRole::up, LinearRole::down},
                                                          {LinearRole::expert_up, LinearRole::expert_down},
                                                          {LinearRole::shared_up, LinearRole::shared_down}};
  for (const auto& [from, to] : kPairs) {
    for (const LinearId& id : readers(spec, layer, {from})) {
      mappings.push_back({id, {LinearId(to, id.expert)}});
    }
  }
}

}  // namespace

std::string ResolvedMapping::describe(const DecoderSpec& spec) const {
  const auto* norm = std::get_if<NormRole>(&smooth);
  const auto name_of = [&](const LinearId& id) {
    return short_name(spec, id, norm == nullptr ? fmt::format("{}", id.expert) : "*");
  };
  std::vector<std::string> to;
  for (const LinearId& id : balance) {
    std::string name = name_of(id);
    if (std::find(to.begin(), to.end(), name) == to.end()) to.push_back(std::move(name));
  }
  const std::string from = norm == nullptr ? name_of(std::get<LinearId>(smooth))
                                           : short_name(spec.norm_names[static_cast<size_t>(*norm)]);
  return fmt::format("{} -> {}", from, fmt::join(to, ", "));
}

std::string ResolvedMapping::smooth_name(const DecoderSpec& spec, int64_t layer) const {
  if (const auto* norm = std::get_if<NormRole>(&smooth)) return spec.norm_name(layer, *norm);
  return spec.linear_name(layer, std::get<LinearId>(smooth));
}

std::vector<std::string> ResolvedMapping::balance_names(const DecoderSpec& spec, int64_t layer) const {
  std::vector<std::string> names;
  for (const LinearId& id : balance) {
    std::string name = spec.linear_name(layer, id);
    if (names.empty() || names.back() != name) names.push_back(std::move(name));  // parts of one fused matrix
  }
  return names;
}

std::vector<ResolvedMapping> default_mappings(const DecoderSpec& spec, int64_t layer) {
  std::vector<ResolvedMapping> mappings;
  const auto append_norm = [&](NormRole norm, const std::vector<LinearId>& linears) {
    // A family may have none before the block, or none with weights.
    if (!spec.norm_shape(norm).empty()) mappings.push_back({norm, linears});
  };
  const auto blocks = block_readers(spec, layer);
  append_norm(NormRole::attention, blocks.front());
  if (!spec.latent && !spec.has_state(layer)) {
    mappings.push_back({LinearId(LinearRole::v), {LinearRole::o}});
  } else if (spec.latent) {
    if (spec.latent->query_rank > 0) mappings.push_back({NormRole::query_latent, {LinearRole::q_b}});
    mappings.push_back({NormRole::key_latent, {LinearRole::kv_b}});
  }
  if (blocks.size() > 1) append_norm(NormRole::mlp, blocks.back());
  append_up_to_down(spec, layer, mappings);
  return mappings;
}

PerLinear<LinearId> input_representatives(const DecoderSpec& spec, int64_t layer) {
  PerLinear<LinearId> result;
  for (const LinearSlot& slot : spec.linears(layer)) result.emplace(slot.id, slot.id);
  for (const auto& linears : block_readers(spec, layer)) {
    for (const LinearId& id : linears) result.at(id) = linears.front();
  }
  return result;
}

int64_t smooth_channel(const DecoderSpec& spec, const ResolvedMapping& mapping, int64_t column) {
  if (!is_value_to_output(mapping)) return column;
  const int64_t heads_per_kv_head = spec.heads / spec.kv_heads;
  const int64_t kv_head = column / spec.value_dim / heads_per_kv_head;
  return kv_head * spec.value_dim + column % spec.value_dim;
}

int64_t smooth_channel_count(const DecoderSpec& spec, const ResolvedMapping& mapping, int64_t columns) {
  return is_value_to_output(mapping) ? spec.value_features() : columns;
}

}  // namespace salient
