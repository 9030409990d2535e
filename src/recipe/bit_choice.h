#pragma once

#include "recipe/plan.h"

namespace salient {

/// With target_bits the options with a group for each number of bits that has been chosen, targets being the
/// names of its linears; `job` is made to fit them. Without, the options as they are. Reads every layer and
/// runs the calibration tokens through it. Errors: invalid_argument for a target below what the fewest bits
/// take or above what the most take; those of the measurement; cancelled.
OneshotOptions choose_bits(const OneshotOptions& options, Job& job);

/// Only what is wrong with the target.
void check_bit_choice(const OneshotOptions& options, Job& job);

}  // namespace salient
