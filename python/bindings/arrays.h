#pragma once

#include <nanobind/ndarray.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bindings/module.h"
#include "tensor/tensor.h"

namespace salient::python {

/// Token ids [tokens] as they come from Python; arguments of this type are declared noconvert, or other
/// numbers would be cut to fit.
using IdArray = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::vector<int32_t> to_ids(const IdArray& array);
std::vector<std::vector<int32_t>> to_sequences(const std::vector<IdArray>& arrays);

/// A NumPy array that takes the values over.
nb::object to_numpy(std::vector<int32_t> values);
/// A NumPy array that shares the memory of a tensor that nobody else holds. Not for bf16, which NumPy lacks.
nb::object to_numpy(const Tensor& tensor);
/// The same of one that others hold: read-only.
nb::object to_numpy_view(const Tensor& tensor);

/// A view of whatever speaks DLPack or the buffer protocol, or of a salient._core.Tensor. Errors:
/// invalid_argument, naming `what`, unless it lies contiguously in the memory of the CPU with elements of a
/// type that checkpoints have.
Tensor to_tensor(nb::handle object, std::string_view what);

/// "float32", "bfloat16", "float16". Errors: invalid_argument.
DType floating_type(const std::string& name);

}  // namespace salient::python
