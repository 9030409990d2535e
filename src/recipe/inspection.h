#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "model/weights.h"
#include "salient/oneshot.h"

namespace salient {

/// Tensors, elements and bytes of an element type.
struct TypeTotals {
  int64_t tensors = 0;
  int64_t elements = 0;
  uint64_t bytes = 0;
};

std::map<std::string, TypeTotals> totals_by_type(const Checkpoint& checkpoint);

/// Of the decoder, whatever a checkpoint stores beside it.
int64_t parameter_count(const DecoderSpec& spec);

/// "rope theta 10000, scaling default", "learned", "alibi".
std::string position_kind(const DecoderSpec& spec);

/// What AWQ would smooth in each layer.
std::vector<PlannedLayer> mapped_layers(const DecoderSpec& spec);

/// What a model directory holds: sizes, positions, element types, quantization.
Json inspection_json(const ModelWeights& weights);
/// `mapped_layers`: an array of mappings per layer.
Json mappings_json(const DecoderSpec& spec);
/// Name, type, shape and bytes of every tensor.
Json tensors_json(const Checkpoint& checkpoint);

}  // namespace salient
