#pragma once

#include "backend/cuda/simt.h"

namespace salient::cuda {

/// For all threads of a block: whether it is the last of so many that come here with one counter, which was
/// zero; it then sees what the others have written, and nobody looks at the counter any more. `shared`: a
/// word that nothing else uses at the time.
SALIENT_DEVICE bool is_last_block(uint32_t* counter, int blocks, uint32_t* shared) {
  simt::fence();
  simt::sync_block();
  if (simt::thread() == 0) *shared = simt::increment(counter);
  simt::sync_block();
  const bool last = *shared + 1 == static_cast<uint32_t>(blocks);
  if (last) simt::fence();
  return last;
}

}  // namespace salient::cuda
