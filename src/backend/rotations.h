#pragma once

#include "backend/backend.h"

namespace salient {

/// Queries and keys as Backend::rope has them, one after the other; nothing where nothing is to be rotated.
inline void rotate_one_by_one(Backend& backend, const RopeStoreProblem& problem) {
  if (!problem.cosine.defined()) return;
  for (Tensor x : {problem.query, problem.keys})
    backend.rope({.cosine = problem.cosine,
                  .sine = problem.sine,
                  .head_dim = problem.head_dim,
                  .pairs = problem.pairs,
                  .x = x});
}

}  // namespace salient
