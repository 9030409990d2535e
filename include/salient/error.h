#pragma once

#include <exception>
#include <string>
#include <string_view>

namespace salient {

/// What went wrong, so that a caller can react without reading the text.
enum class ErrorKind {
  invalid_argument,  ///< the caller asked for something that makes no sense
  not_found,         ///< a file, tensor or name does not exist
  bad_format,        ///< a file does not say what its format promises
  unsupported,       ///< valid, but Salient cannot do it
  io,                ///< the operating system refused
  out_of_memory,     ///< an allocation failed or a memory limit cannot be kept
  cancelled,         ///< the caller asked to stop
  internal,          ///< a bug in Salient
};

/// Spelling of a kind as it appears in messages and in `--json` output.
std::string_view to_string(ErrorKind kind);

/// The one exception of Salient. `what()` is one line: who, where, what and the values.
class Error : public std::exception {
 public:
  Error(ErrorKind kind, std::string message) : kind_(kind), message_(std::move(message)) {}

  ErrorKind kind() const { return kind_; }
  const char* what() const noexcept override { return message_.c_str(); }

  /// Puts `context: ` before the message, as each outer layer learns where the error belongs.
  void prepend(std::string_view context);

 private:
  ErrorKind kind_;
  std::string message_;
};

}  // namespace salient
