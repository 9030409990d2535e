#pragma once

#include "salient/oneshot.h"

namespace salient {

/// `options`, with everything that their effort decides where they do not say it themselves. What a recipe
/// says of scaled weights stays absent: nobody rounds them.
OneshotOptions settled(OneshotOptions options);

}  // namespace salient
