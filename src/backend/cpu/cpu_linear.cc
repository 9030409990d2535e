#include "backend/cpu/cpu_linear.h"

#include "base/error.h"

namespace salient {

CpuLinear::CpuLinear(std::unique_ptr<const WeightSource> weight, const Tensor& bias)
    : weight_(std::move(weight)) {
  if (!bias.defined()) return;
  if (!is_floating(bias.dtype()) || bias.shape() != Shape{weight_->outputs()}) {
    fail(ErrorKind::internal,
         "cpu back end: the bias of a linear must be one floating-point row as long as its outputs");
  }
  bias_ = bias.to(DType::f32);
}

const CpuLinear& own_linear(const PreparedLinear& linear) {
  const auto* own = dynamic_cast<const CpuLinear*>(&linear);
  if (own == nullptr) fail(ErrorKind::internal, "cpu back end: a linear of another back end");
  return *own;
}

}  // namespace salient
