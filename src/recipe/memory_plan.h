#pragma once

#include "recipe/plan.h"

namespace salient {

/// What the job keeps resident, made to fit under its cap if it has one. Errors: out_of_memory when nothing
/// fits, with the smallest cap that something would fit under.
MemoryPlan plan_memory(const Job& job);

/// What the program counts as under a cap: 128 MiB, or the next multiple if that is not enough. The choice
/// must not hang on how many threads there are or what else lies in the process, or the results would.
uint64_t program_allowance(uint64_t program);

/// The smallest batches that the plan may come to: the longest sequence runs as a whole.
inline constexpr int64_t kFewestRowsPerBatch = 128;

/// The narrowest blocks that Gram matrices are kept in; inputs as wide as the hidden states of a narrower
/// model stay whole.
inline constexpr int64_t kLeastGramBlock = 1024;

}  // namespace salient
