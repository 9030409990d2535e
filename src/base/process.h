#pragma once

#include <cstdint>

namespace salient {

/// Most memory that this process has had resident, in bytes, mapped file pages included (getrusage).
uint64_t peak_resident_bytes();

}  // namespace salient
