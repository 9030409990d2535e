#pragma once

#include "base/json.h"
#include "salient/oneshot.h"

namespace salient {

/// Everything that a LayerReport says, so that a run that goes on behind finished layers reports as one that
/// was never interrupted. Not the JSON of reports, which is for readers.
Json layer_record(const LayerReport& layer);

/// The inverse. Errors: bad_format for a record that lacks something or holds another type.
LayerReport read_layer_record(const JsonView& record);

}  // namespace salient
