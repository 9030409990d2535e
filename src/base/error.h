#pragma once

#include <fmt/format.h>

#include <utility>

#include "salient/error.h"

namespace salient {

/// Throws Error with a formatted message.
template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

/// Runs `body`; an Error that leaves it gets `context: ` in front.
template <typename Body>
auto with_context(std::string_view context, Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (Error& error) {
    error.prepend(context);
    throw;
  }
}

}  // namespace salient
