#pragma once

#include <array>
#include <memory>
#include <optional>

#include "checkpoint/checkpoint.h"
#include "model/decoder_spec.h"
#include "quant/config_block.h"
#include "quant/quantized_weight.h"

namespace salient {

/// The tensors of one decoder layer, by role. Dense ones are views into the checkpoint.
struct LayerWeights {
  std::array<LinearWeight, kLinearRoles> linears;
  std::array<Tensor, kNormRoles> norms;  ///< [features], undefined where the family has none

  LinearWeight& operator[](LinearRole role) { return linears[static_cast<size_t>(role)]; }
  const LinearWeight& operator[](LinearRole role) const { return linears[static_cast<size_t>(role)]; }
  Tensor& operator[](NormRole role) { return norms[static_cast<size_t>(role)]; }
  const Tensor& operator[](NormRole role) const { return norms[static_cast<size_t>(role)]; }
};

/// Finds a model's tensors in its checkpoint, layer by layer and on demand: dense, compressed-tensors or
/// AutoAWQ.
class ModelWeights {
 public:
  /// Opens the directory, reads config.json, checks that every tensor of the spec exists with the right shape
  /// and type. Errors: those of Checkpoint, make_decoder_spec and read_config_block; bad_format naming
  /// tensor, expected and found shape.
  explicit ModelWeights(const std::string& directory);

  const DecoderSpec& spec() const { return spec_; }
  const Checkpoint& checkpoint() const { return *checkpoint_; }
  const std::optional<QuantizationConfig>& quantization() const { return quantization_; }

  LayerWeights layer(int64_t index) const;
  /// Lets the pages of a layer's tensors go.
  void release_layer(int64_t index) const;
  /// [vocab, hidden]; the head's tensor when the file holds only that one of a tied pair.
  const Tensor& embedding() const { return embedding_; }
  Tensor final_norm() const;  ///< [hidden]
  LinearWeight head() const;  ///< [vocab, hidden]; the embedding when tied

 private:
  void check_tensors() const;
  void check_linear(const LinearSlot& slot) const;
  void check_dense(const std::string& name, const Shape& expected) const;
  void untie_different_head();
  bool is_quantized(const std::string& name) const;
  /// Names of the tensors that hold a linear.
  std::vector<std::string> tensor_names(const LinearSlot& slot) const;
  LinearWeight linear(const LinearSlot& slot) const;
  LinearSlot head_slot() const;

  std::unique_ptr<Checkpoint> checkpoint_;
  DecoderSpec spec_;
  std::optional<QuantizationConfig> quantization_;
  Tensor embedding_;
};

}  // namespace salient
