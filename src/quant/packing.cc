#include "quant/packing.h"

#include <algorithm>

#include "base/error.h"
#include "quant/packing_formats.h"

namespace salient {

const std::vector<Packing>& packings() {
  static const std::vector<Packing> table{compressed_tensors_packing(), autoawq_gemm_packing()};
  return table;
}

const Packing& packing_of(Format format) {
  for (const auto& packing : packings()) {
    if (packing.format == format) return packing;
  }
  fail(ErrorKind::internal, "the format {} has no packing", to_string(format));
}

const Tensor& require_tensor(const PackedTensors& tensors, const std::string& suffix, size_t rank,
                             std::initializer_list<DType> dtypes) {
  const auto found = tensors.find(suffix);
  if (found == tensors.end()) fail(ErrorKind::bad_format, "{} is missing", suffix);
  const Tensor& tensor = found->second;
  if (std::find(dtypes.begin(), dtypes.end(), tensor.dtype()) == dtypes.end()) {
    fail(ErrorKind::bad_format, "{} has type {}, expected {}", suffix, to_string(tensor.dtype()),
         to_string(*dtypes.begin()));
  }
  if (tensor.shape().size() != rank) {
    fail(ErrorKind::bad_format, "{} has shape {}, expected {} dimensions", suffix, to_string(tensor.shape()),
         rank);
  }
  return tensor;
}

void require_shape(const Tensor& tensor, std::string_view suffix, const Shape& expected,
                   std::string_view reason) {
  if (tensor.shape() == expected) return;
  fail(ErrorKind::bad_format, "{} has shape {}, expected {} by {}", suffix, to_string(tensor.shape()),
       to_string(expected), reason);
}

}  // namespace salient
