#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "model/weights.h"
#include "runtime/kv_cache.h"

namespace salient {

/// A sequence on its way: its tokens, and what the model remembers of them. Copies may go different ways.
struct SequenceState {
  explicit SequenceState(KvCache empty) : cache(std::move(empty)) {}

  std::vector<int32_t> tokens{};
  KvCache cache;      ///< of the first cache.length() of them
  Tensor logits{};    ///< f32 [vocab] of the token behind the last, when all are in the cache; else undefined
  int64_t draws = 0;  ///< numbers that a Sampler has used for it
};

/// Whose states these are: what the model remembers is of use to this model only.
struct StateOwner {
  const DecoderSpec& spec;
  std::string digest;  ///< see model_digest
};

/// Tells models apart: a checksum of config.json, of the name, type and shape of every tensor, and of pieces
/// of its values, spread over it. Another fine-tuning of the same model changes them; whoever changes a few
/// values on purpose is not found out.
std::string model_digest(const ModelWeights& weights);

inline StateOwner state_owner(const ModelWeights& weights) { return {weights.spec(), model_digest(weights)}; }

/// A sealed safetensors file of "head" (JSON: format, version, model, kv, cached, draws), "tokens" i32
/// [tokens], "logits" f32 [vocab] when all of them are cached, and, when anything is, for each layer
/// "layer.N.keys" and "layer.N.values", see KvTensors ("layer.N.keys.scales" and "layer.N.values.scales" with
/// int8), or, of linear attention, "layer.N.tail" and "layer.N.matrices" as in RecurrentState. It appears
/// whole or not at all. Errors: io.
void write_sequence_state(const std::filesystem::path& path, const SequenceState& state,
                          const StateOwner& owner);

/// Whether such a file, undamaged, of whichever model stands there. Errors: io.
bool is_sequence_state(const std::filesystem::path& path);

/// To be asked before a long text rather than behind it. Errors: not_found without the folder;
/// invalid_argument where anything but a saved state stands, which is not to be replaced; io.
void check_state_target(const std::filesystem::path& path);

/// Errors: not_found, io; invalid_argument for the state of another model; bad_format or unsupported for a
/// file that is not what was written.
SequenceState read_sequence_state(const std::filesystem::path& path, const StateOwner& owner);

}  // namespace salient
