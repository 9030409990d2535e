#pragma once

#include <string_view>

#include "salient/oneshot.h"

namespace salient {

/// `options`, with everything that their effort decides where they do not say it themselves. What a recipe
/// says of scaled weights stays absent: nobody rounds them.
OneshotOptions settled(OneshotOptions options);

/// Errors: invalid_argument for another effort than the default where there is no rounding that it could
/// choose: without AWQ, and of scaled weights.
void check_effort(const OneshotOptions& options);

/// Sets the effort that was asked for by `flag` ("--effort") beside the recipe that was read into `options`,
/// which says already what the result is. Errors: those of check_effort, for the default too;
/// invalid_argument beside a recipe that names rounding or propagate_error itself, as an effort stands for
/// both.
void take_effort(std::string_view flag, Effort effort, OneshotOptions& options);

}  // namespace salient
