#pragma once

#include <nanobind/nanobind.h>

namespace salient::python {

namespace nb = nanobind;

// Each file of this folder adds its part to the module salient._core.
void bind_errors(nb::module_& module);
void bind_tensors(nb::module_& module);
void bind_tokenizer(nb::module_& module);
void bind_model(nb::module_& module);
void bind_oneshot(nb::module_& module);
void bind_measure(nb::module_& module);
void bind_weights(nb::module_& module);

}  // namespace salient::python
