#include "awq/mapping.h"

#include <fmt/format.h>

namespace salient {
namespace {

/// "model.layers.0.self_attn.q_proj" -> "q_proj"
std::string last_part(const std::string& name) { return name.substr(name.rfind('.') + 1); }

std::string name_of(const DecoderSpec& spec, LinearRole role) {
  for (const auto& slot : spec.linears(0)) {
    if (slot.role == role) return last_part(slot.name);
  }
  return std::string(to_string(role));
}

std::string name_of(const DecoderSpec& spec, NormRole role) {
  const std::string name = spec.norm_name(0, role);  // "model.layers.0.input_layernorm.weight"
  return last_part(name.substr(0, name.rfind('.')));
}

bool is_value_to_output(const ResolvedMapping& mapping) {
  return mapping.smooth == std::variant<NormRole, LinearRole>(LinearRole::v);
}

}  // namespace

std::string ResolvedMapping::describe(const DecoderSpec& spec) const {
  const std::string from = std::visit([&](auto role) { return name_of(spec, role); }, smooth);
  std::vector<std::string> to;
  for (const LinearRole role : balance) to.push_back(name_of(spec, role));
  return fmt::format("{} -> {}", from, fmt::join(to, ", "));
}

std::vector<ResolvedMapping> default_mappings(const DecoderSpec&) {
  return {{NormRole::attention, {LinearRole::q, LinearRole::k, LinearRole::v}},
          {LinearRole::v, {LinearRole::o}},
          {NormRole::mlp, {LinearRole::gate, LinearRole::up}},
          {LinearRole::up, {LinearRole::down}}};
}

LinearRole input_representative(LinearRole role) {
  switch (role) {
    case LinearRole::k:
    case LinearRole::v:
      return LinearRole::q;
    case LinearRole::up:
      return LinearRole::gate;
    default:
      return role;
  }
}

int64_t smooth_channel(const DecoderSpec& spec, const ResolvedMapping& mapping, int64_t column) {
  if (!is_value_to_output(mapping)) return column;
  const int64_t heads_per_kv_head = spec.heads / spec.kv_heads;
  const int64_t kv_head = column / spec.head_dim / heads_per_kv_head;
  return kv_head * spec.head_dim + column % spec.head_dim;
}

int64_t smooth_channel_count(const DecoderSpec& spec, const ResolvedMapping& mapping) {
  if (is_value_to_output(mapping)) return spec.kv_heads * spec.head_dim;
  if (mapping.smooth == std::variant<NormRole, LinearRole>(LinearRole::up)) return spec.intermediate_size;
  return spec.hidden_size;
}

}  // namespace salient
