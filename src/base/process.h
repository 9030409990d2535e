#pragma once

#include <cstdint>

namespace salient {

/// Most memory that this process has had resident, in bytes, mapped file pages included (VmHWM of Linux).
uint64_t peak_resident_bytes();

/// Likewise what it has resident now.
uint64_t resident_bytes();

/// Hands memory that was freed back to the system, which the allocator otherwise keeps: large matrices of
/// ever other sizes leave holes that no later one fits into.
void return_free_memory();

}  // namespace salient
