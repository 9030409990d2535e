#pragma once

#include <memory>
#include <span>

#include "backend/backend.h"
#include "backend/cpu/product.h"

namespace salient {

/// A linear as the CPU back end multiplies it.
class CpuLinear final : public PreparedLinear {
 public:
  /// Errors: internal unless the bias is undefined or one floating-point row as long as the outputs.
  CpuLinear(std::unique_ptr<const WeightSource> weight, const Tensor& bias);

  int64_t out_features() const override { return weight_->outputs(); }
  int64_t in_features() const override { return weight_->depth(); }
  size_t byte_size() const override {
    return weight_->byte_size() + (bias_.defined() ? bias_.byte_size() : 0);
  }

  /// A copy that shares the weight and has it packed too.
  std::shared_ptr<const CpuLinear> with_packed(Tensor packed) const {
    auto result = std::make_shared<CpuLinear>(*this);
    result->packed_ = std::move(packed);
    return result;
  }

  const WeightSource& weight() const { return *weight_; }
  const uint16_t* packed() const {
    return packed_.defined() ? reinterpret_cast<const uint16_t*>(packed_.bytes()) : nullptr;
  }
  std::span<const float> bias() const {
    return bias_.defined() ? bias_.values<float>() : std::span<const float>();
  }

 private:
  std::shared_ptr<const WeightSource> weight_;
  Tensor bias_;    // f32 [out] or undefined
  Tensor packed_;  // bf16, see pack_weight, or undefined
};

/// Errors: internal for a linear of another back end.
const CpuLinear& own_linear(const PreparedLinear& linear);

}  // namespace salient
