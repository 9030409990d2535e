#pragma once

#include <initializer_list>
#include <string_view>

#include "quant/packing.h"

// What the files of the packings share with the table in packing.cc.
namespace salient {

Packing compressed_tensors_packing();
Packing autoawq_gemm_packing();

/// The tensor `suffix`. Errors: bad_format when it is missing, has another rank or another type than
/// `dtypes`.
const Tensor& require_tensor(const PackedTensors& tensors, const std::string& suffix, size_t rank,
                             std::initializer_list<DType> dtypes);

/// Errors: bad_format unless `tensor` has this shape; `reason` says where the expectation comes from.
void require_shape(const Tensor& tensor, std::string_view suffix, const Shape& expected,
                   std::string_view reason);

}  // namespace salient
