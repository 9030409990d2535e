#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "quant/quantized_weight.h"

namespace salient {

/// Tensors of one linear by suffix, e.g. {"qweight": ..., "qzeros": ..., "scales": ...}, as a format stores
/// them under "<linear>.<suffix>".
using PackedTensors = std::map<std::string, Tensor>;

/// What a layout stores under one suffix. A floating dtype stands for any of F32, F16 and BF16.
struct PackedTensorLayout {
  std::string suffix;
  DType dtype;
  Shape shape;
  bool optional = false;
};

/// One on-disk layout: a pair of inverse functions.
struct Packing {
  Format format;
  /// Every suffix that may stand behind a linear's name, the one that marks it as quantized first.
  std::vector<std::string> suffixes;
  /// The tensors of a linear of this size, without making them. Errors: unsupported when the layout cannot
  /// express the scheme.
  std::vector<PackedTensorLayout> (*layout)(const QuantizationScheme& scheme, int64_t out_features,
                                            int64_t in_features);
  /// Errors: unsupported when the layout cannot express the weight (the reason and the sizes named).
  PackedTensors (*pack)(const QuantizedWeight& weight);
  /// `in_features`/`out_features` follow from the tensors; `scheme` from the config block. Errors: bad_format
  /// naming suffix, shape or dtype that do not fit together.
  QuantizedWeight (*unpack)(const PackedTensors& tensors, const QuantizationScheme& scheme);
};

/// The table of packings, one row per Format.
const std::vector<Packing>& packings();
const Packing& packing_of(Format format);

}  // namespace salient
