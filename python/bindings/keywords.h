#pragma once

#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>

#include "bindings/module.h"

namespace salient::python {

/// Keyword arguments of a function with more of them than a signature can show; None is as good as absent.
class Keywords {
 public:
  explicit Keywords(const nb::kwargs& arguments) : left_(nb::dict(arguments)) {}

  /// Whether a value is converted, such as a list of numbers into an array.
  enum class Convert { yes, no };

  /// Nothing when absent. Errors: TypeError, naming the argument, for a value of another type.
  template <typename T>
  std::optional<T> take(const char* name, Convert convert = Convert::yes) {
    const nb::object value = take_object(name);
    if (value.is_none()) return std::nullopt;
    T result;
    if (!nb::try_cast(value, result, convert == Convert::yes)) wrong_type(name, value);
    return result;
  }
  template <typename T>
  void take(const char* name, T& target) {
    if (auto value = take<T>(name)) target = std::move(*value);
  }
  void take_path(const char* name, std::string& target) {
    if (const auto path = take<std::filesystem::path>(name)) target = path->string();
  }
  nb::object take_object(const char* name) {
    if (!left_.contains(name)) return nb::none();
    const nb::object value = left_[name];
    nb::del(left_[name]);
    return value;
  }

  /// Errors: TypeError for what nobody took.
  void finish() const {
    for (const auto [name, value] : left_) {
      throw nb::type_error(("unknown argument " + nb::cast<std::string>(nb::repr(name))).c_str());
    }
  }

 private:
  [[noreturn]] static void wrong_type(const char* name, const nb::object& value) {
    const auto text = nb::cast<std::string>(nb::repr(value));
    throw nb::type_error((std::string(name) + ": " + text + " is of the wrong type").c_str());
  }

  nb::dict left_;
};

}  // namespace salient::python
