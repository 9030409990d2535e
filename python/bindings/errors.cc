#include "base/error.h"

#include "bindings/module.h"

namespace salient::python {
namespace {

PyObject* format_error = nullptr;

PyObject* exception_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::invalid_argument:
      return PyExc_ValueError;
    case ErrorKind::not_found:
      return PyExc_FileNotFoundError;
    case ErrorKind::bad_format:
      return format_error;
    case ErrorKind::unsupported:
      return PyExc_NotImplementedError;
    case ErrorKind::io:
      return PyExc_OSError;
    case ErrorKind::out_of_memory:
      return PyExc_MemoryError;
    case ErrorKind::cancelled:
      return PyExc_KeyboardInterrupt;
    case ErrorKind::internal:
      return PyExc_RuntimeError;
  }
  return PyExc_RuntimeError;
}

void translate(const std::exception_ptr& pointer, void*) {
  try {
    std::rethrow_exception(pointer);
  } catch (const Error& error) {
    // Names of files and texts from outside may be no UTF-8.
    const std::string_view text = error.what();
    PyObject* message = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace");
    if (message == nullptr) return;
    PyErr_SetObject(exception_of(error.kind()), message);
    Py_DECREF(message);
  }
}

}  // namespace

void bind_errors(nb::module_& module) {
  nb::exception<Error> error(module, "FormatError", PyExc_ValueError);
  error.attr("__doc__") =
      "A file does not say what its format promises; the message names file, place and value.";
  format_error = error.ptr();
  // Tried before the one that nb::exception brings, as the last one registered.
  nb::register_exception_translator(translate);
}

}  // namespace salient::python
