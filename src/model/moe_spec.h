#pragma once

#include "model/families.h"

namespace salient {

/// The experts as config.json configures them under the keys of the family. Errors: bad_format, unsupported.
MoeSpec read_moe_spec(const JsonView& config, const MoeFamily& family, int64_t layers);

}  // namespace salient
