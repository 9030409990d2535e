#pragma once

#include <span>
#include <string>
#include <string_view>

#include "salient/scheme.h"

namespace salient {

/// Whether a row is never divided: kWholeRow and kWholeMatrix. The rows of a whole matrix are stored as one
/// group each, all with the same scale and zero, so that only what makes the grid has to tell the two apart.
bool has_one_group_per_row(const QuantizationScheme& scheme);
/// Groups in a row of `in_features` columns.
int64_t group_count(const QuantizationScheme& scheme, int64_t in_features);
/// Columns of one group: group_size, or in_features when a row is never divided.
int64_t group_width(const QuantizationScheme& scheme, int64_t in_features);
/// Largest code: 2^num_bits - 1.
int max_code(const QuantizationScheme& scheme);
/// The zero that a symmetric scheme implies: 2^(num_bits-1).
int symmetric_zero(const QuantizationScheme& scheme);

/// The least and largest number of bits of a code.
inline constexpr int kLeastBits = 2;
inline constexpr int kMostBits = 8;

/// The presets by the names that compressed-tensors gives them: "W2A16" to "W8A16" (symmetric, group 128) and
/// "W4A16_ASYM" (asymmetric, group 128). Errors: unsupported for a preset of the field that Salient cannot
/// write yet, invalid_argument (with the known names) for anything else.
QuantizationScheme scheme_by_name(std::string_view name);
/// compressed-tensors' name of how weights share a scale: "group", "channel" or "tensor".
std::string_view strategy_name(const QuantizationScheme& scheme);
/// "int4 asymmetric, group 128".
std::string describe(const QuantizationScheme& scheme);
/// Every size that a group of columns may have, a whole row included. kWholeMatrix, which validate() lets
/// pass too, is not among them: it is no number of columns.
std::span<const int64_t> group_sizes();

/// Errors: invalid_argument unless 2 to 8 bits and a group size of 16, 32, 64, 128, 256, -1 or
/// 0.
void validate(const QuantizationScheme& scheme);

std::string_view to_string(Format format);
/// "compressed-tensors" and "pack-quantized", "autoawq-gemm". Errors: invalid_argument.
Format format_by_name(std::string_view name);

}  // namespace salient
