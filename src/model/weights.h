#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>

#include "checkpoint/checkpoint.h"
#include "model/families.h"
#include "quant/config_block.h"
#include "quant/quantized_weight.h"
#include "quant/scheme_groups.h"

namespace salient {

/// A norm as it is stored: the gain is weight + offset.
struct NormWeight {
  Tensor weight{};  ///< [features] or [heads, features]; undefined where the family has no such norm
  Tensor bias{};    ///< like weight, or undefined
  float offset = 0;

  bool defined() const { return weight.defined(); }
};

/// [columns, rows] of a matrix [rows, columns] of 2- or 4-byte elements, a copy.
Tensor transposed(const Tensor& matrix);

/// f32 weight + offset, a copy.
Tensor gain_of(const NormWeight& norm);

/// The tensors of one decoder layer, by role. Dense ones are views into the checkpoint where it stores them
/// as [out, in] rows.
struct LayerWeights {
  PerLinear<LinearWeight> linears;
  std::array<NormWeight, kNormRoles> norms;

  LinearWeight& operator[](const LinearId& id) { return linears[id]; }
  const LinearWeight& operator[](const LinearId& id) const { return linears.at(id); }
  NormWeight& operator[](NormRole role) { return norms[static_cast<size_t>(role)]; }
  const NormWeight& operator[](NormRole role) const { return norms[static_cast<size_t>(role)]; }
  /// f32 [experts], what is added to the router's scores for choosing; undefined for most families.
  Tensor router_correction{};
  /// f32, undefined where the layer has no linear attention.
  std::array<Tensor, kStateTensors> state_tensors{};
};

/// The stored matrix of linears that share one (see StoredRows), from each one's rows. A linear on its own
/// comes back as it is. All parts are dense, or all are quantized by one scheme.
struct LinearPart {
  const LinearSlot& slot;
  const LinearWeight& weight;
};
LinearWeight join_parts(std::span<const LinearPart> parts);

/// Finds a model's tensors in its checkpoint, layer by layer and on demand: dense, compressed-tensors or
/// AutoAWQ.
class ModelWeights {
 public:
  /// Opens the directory, reads config.json, checks that every tensor of the spec exists with the right shape
  /// and type. Errors: those of Checkpoint, make_decoder_spec and read_config_block; bad_format naming
  /// tensor, expected and found shape.
  /// `more`: families beside those of the table.
  explicit ModelWeights(const std::string& directory, std::span<const Family> more = {});

  const DecoderSpec& spec() const { return spec_; }
  const Checkpoint& checkpoint() const { return *checkpoint_; }
  const std::optional<QuantizationConfig>& quantization() const { return quantization_; }

  LayerWeights layer(int64_t index) const;
  /// The same; of the linears that `known` says true to only their biases.
  LayerWeights layer(int64_t index, const std::function<bool(const LinearSlot&)>& known) const;
  /// Type in which a dense linear is stored.
  DType storage_type(const LinearSlot& slot) const;
  /// Lets the pages of a layer's tensors go.
  void release_layer(int64_t index) const;
  /// Has the tensors of a layer's linears read while the caller goes on. Any thread may call it at any time.
  void read_ahead_layer(int64_t index) const;
  /// Likewise of the embedding and the learned positions.
  void release_embedding() const;
  /// [vocab, hidden]; the head's tensor when the file holds only that one of a tied pair.
  const Tensor& embedding() const { return embedding_; }
  /// Learned positions [rows, hidden]; undefined for a family without.
  Tensor positions() const;
  NormWeight embedding_norm() const;  ///< undefined for most families
  NormWeight final_norm() const;      ///< [hidden]; undefined where norms have no weights
  LinearWeight head() const;          ///< [vocab, hidden]; the embedding when tied
  bool has_quantized_head() const;    ///< whether the checkpoint stores integers of it
  /// Lets the pages of a head's tensors go.
  void release_head() const;

 private:
  void adapt_names();
  void check_tensors() const;
  void check_linear(const LinearSlot& slot) const;
  void check_norm(const std::string& name, const Shape& shape) const;
  void check_dense(const std::string& name, const Shape& expected) const;
  void untie_different_head();
  bool is_quantized(const std::string& name) const;
  /// Errors: bad_format for a linear stored as integers that no target of the config matches.
  const QuantizationScheme& scheme_of(const std::string& name) const;
  /// Names of the tensors that hold a linear.
  std::vector<std::string> tensor_names(const LinearSlot& slot) const;
  std::set<std::string> tensor_names(int64_t layer) const;
  Tensor dense_rows(const LinearSlot& slot) const;
  QuantizedWeight unpacked(const LinearSlot& slot) const;
  LinearWeight linear(const LinearSlot& slot) const;
  Tensor bias(const LinearSlot& slot) const;
  NormWeight norm(const std::string& name) const;
  LinearSlot head_slot() const;

  std::unique_ptr<Checkpoint> checkpoint_;
  DecoderSpec spec_;
  std::optional<QuantizationConfig> quantization_;
  std::optional<TargetList> targets_;  // of quantization_'s groups
  Tensor embedding_;
};

}  // namespace salient
