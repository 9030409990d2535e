#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace salient {

/// How the weight of one linear becomes integers. w ~ (code - zero) * scale, codes unsigned.
struct QuantizationScheme {
  /// One scale for a whole output row.
  static constexpr int64_t kWholeRow = -1;
  /// One scale, and one zero, for the whole matrix: the strategy "tensor" of compressed-tensors.
  static constexpr int64_t kWholeMatrix = 0;

  /// 2 to 8.
  int num_bits = 4;
  /// Symmetric: the zero is 2^(num_bits-1) and is not stored. Asymmetric: an integer zero per group.
  bool symmetric = false;
  /// In-features that share a scale, kWholeRow or kWholeMatrix.
  int64_t group_size = 128;

  bool operator==(const QuantizationScheme&) const = default;
};

/// One entry of config_groups: these modules have this scheme.
struct SchemeGroup {
  std::string name;                  ///< "group_0"
  std::vector<std::string> targets;  ///< names, "re:" patterns, class names
  QuantizationScheme scheme;

  bool operator==(const SchemeGroup&) const = default;
};

/// On-disk layouts of quantized checkpoints.
enum class Format {
  pack_quantized,  ///< compressed-tensors, read by vLLM and transformers
  autoawq_gemm,    ///< AutoAWQ, version "gemm"
};

}  // namespace salient
