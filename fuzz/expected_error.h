#pragma once

#include <cstdlib>

#include "base/error.h"

namespace salient {

/// What outside input may cause. An internal error is a bug however it was provoked, so it counts as a crash.
inline void expect_outside_error(const Error& error) {
  if (error.kind() == ErrorKind::internal) std::abort();
}

}  // namespace salient
