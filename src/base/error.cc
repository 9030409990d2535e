#include "base/error.h"

namespace salient {

std::string_view to_string(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::invalid_argument:
      return "invalid_argument";
    case ErrorKind::not_found:
      return "not_found";
    case ErrorKind::bad_format:
      return "bad_format";
    case ErrorKind::unsupported:
      return "unsupported";
    case ErrorKind::io:
      return "io";
    case ErrorKind::out_of_memory:
      return "out_of_memory";
    case ErrorKind::cancelled:
      return "cancelled";
    case ErrorKind::internal:
      return "internal";
  }
  return "internal";
}

void Error::prepend(std::string_view context) { message_ = fmt::format("{}: {}", context, message_); }

}  // namespace salient
