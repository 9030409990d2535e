#pragma once

#include <atomic>

#include "base/error.h"

namespace salient {

/// A flag that the caller may raise from a signal handler or another thread; long work polls it.
using CancellationFlag = std::atomic<bool>;

/// Whether the flag is up. A null flag never is.
inline bool is_cancelled(const CancellationFlag* flag) { return flag != nullptr && flag->load(); }

/// Throws Error{cancelled} once the flag is up.
inline void throw_if_cancelled(const CancellationFlag* flag) {
  if (is_cancelled(flag)) fail(ErrorKind::cancelled, "stopped on request");
}

}  // namespace salient
