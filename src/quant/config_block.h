#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "quant/scheme.h"
#include "quant/scheme_groups.h"

namespace salient {

/// What config.json's "quantization_config" says, whichever ecosystem wrote it.
struct QuantizationConfig {
  Format format = Format::pack_quantized;
  /// At least one; exactly one for autoawq_gemm.
  std::vector<SchemeGroup> groups{};
  /// Linears that stay dense: full names ("lm_head", "model.layers.0.mlp.gate_proj"); for pack_quantized also
  /// "re:..." patterns as found in files, for autoawq_gemm substrings (modules_to_not_convert)
  /// and "lm_head", which AutoAWQ keeps dense without listing it.
  std::vector<std::string> ignore{};
};

/// Writes the block as compressed-tensors 0.19 or AutoAWQ 0.2.9 write it. A symmetric scheme for
/// autoawq_gemm is written as "zero_point": true, since its packing stores the zeros. Errors: internal when
/// several groups are to go into autoawq_gemm.
Json write_config_block(const QuantizationConfig& config);

/// Reads the block of either ecosystem: keys of old and new versions, upper and lower case. Errors:
/// bad_format, unsupported (quant method, bits, version, activation quantization), each with the path and
/// value.
QuantizationConfig read_config_block(const JsonView& block);

}  // namespace salient
