#pragma once

#include <cstddef>

namespace salient {

/// Bytes a second that all threads together read from memory, each byte once, in a buffer of `bytes` that
/// caches should not hold. The fastest of a few passes.
double stream_bandwidth(size_t bytes);

}  // namespace salient
