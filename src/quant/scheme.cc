#include "quant/scheme.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"

namespace salient {
namespace {

constexpr std::array<int64_t, 6> kGroupSizes{16, 32, 64, 128, 256, QuantizationScheme::kWholeRow};

struct Preset {
  std::string_view name;
  QuantizationScheme scheme;
};

constexpr QuantizationScheme symmetric_of(int num_bits) {
  return {.num_bits = num_bits, .symmetric = true, .group_size = 128};
}

constexpr std::array<Preset, 8> kPresets{{
    {"W2A16", symmetric_of(2)},
    {"W3A16", symmetric_of(3)},
    {"W4A16", symmetric_of(4)},
    {"W4A16_ASYM", {.num_bits = 4, .symmetric = false, .group_size = 128}},
    {"W5A16", symmetric_of(5)},
    {"W6A16", symmetric_of(6)},
    {"W7A16", symmetric_of(7)},
    {"W8A16", symmetric_of(8)},
}};

/// compressed-tensors 0.19 knows these too; they need floating-point codes or quantized activations.
constexpr std::array<std::string_view, 22> kForeignPresets{
    "UNQUANTIZED", "W8A8",     "INT8",  "W4AFP8",   "W2A8",  "W3A8",    "W4A8",        "W5A8",
    "W6A8",        "W7A8",     "W2A4",  "W3A4",     "W4A4",  "FP8",     "FP8_DYNAMIC", "FP8_BLOCK",
    "NVFP4",       "NVFP4A16", "MXFP4", "MXFP4A16", "MXFP8", "MXFP8A16"};

constexpr std::string_view kKnownPresets = "W2A16 to W8A16 and W4A16_ASYM";

struct FormatRow {
  std::string_view name;
  Format format;
};

/// The first name of a format is the one that is written.
constexpr std::array<FormatRow, 3> kFormats{{
    {"pack-quantized", Format::pack_quantized},
    {"compressed-tensors", Format::pack_quantized},
    {"autoawq-gemm", Format::autoawq_gemm},
}};

std::string describe_group(int64_t group_size) {
  if (group_size == QuantizationScheme::kWholeRow) return "one group per row";
  if (group_size == QuantizationScheme::kWholeMatrix) return "one group per matrix";
  return fmt::format("group {}", group_size);
}

}  // namespace

bool has_one_group_per_row(const QuantizationScheme& scheme) {
  return scheme.group_size == QuantizationScheme::kWholeRow ||
         scheme.group_size == QuantizationScheme::kWholeMatrix;
}

int64_t group_count(const QuantizationScheme& scheme, int64_t in_features) {
  if (has_one_group_per_row(scheme)) return 1;
  return (in_features + scheme.group_size - 1) / scheme.group_size;
}

int64_t group_width(const QuantizationScheme& scheme, int64_t in_features) {
  return has_one_group_per_row(scheme) ? in_features : scheme.group_size;
}

int max_code(const QuantizationScheme& scheme) { return (1 << scheme.num_bits) - 1; }

int symmetric_zero(const QuantizationScheme& scheme) { return 1 << (scheme.num_bits - 1); }

QuantizationScheme scheme_by_name(std::string_view name) {
  std::string upper(name);
  std::transform(upper.begin(), upper.end(), upper.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  for (const auto& preset : kPresets) {
    if (preset.name == upper) return preset.scheme;
  }
  if (std::find(kForeignPresets.begin(), kForeignPresets.end(), upper) != kForeignPresets.end()) {
    fail(ErrorKind::unsupported, "scheme \"{}\": Salient writes {} only", name, kKnownPresets);
  }
  fail(ErrorKind::invalid_argument, "scheme \"{}\" is unknown; the known ones are {}", name, kKnownPresets);
}

std::string_view strategy_name(const QuantizationScheme& scheme) {
  if (scheme.group_size == QuantizationScheme::kWholeRow) return "channel";
  return scheme.group_size == QuantizationScheme::kWholeMatrix ? "tensor" : "group";
}

std::string describe(const QuantizationScheme& scheme) {
  return fmt::format("int{} {}, {}", scheme.num_bits, scheme.symmetric ? "symmetric" : "asymmetric",
                     describe_group(scheme.group_size));
}

std::span<const int64_t> group_sizes() { return kGroupSizes; }

void validate(const QuantizationScheme& scheme) {
  if (scheme.num_bits < 1 || scheme.num_bits > 16) {
    fail(ErrorKind::invalid_argument, "num_bits is {}, which is no bit width of a code", scheme.num_bits);
  }
  if (scheme.num_bits < kLeastBits || scheme.num_bits > kMostBits) {
    fail(ErrorKind::invalid_argument, "num_bits is {}; Salient quantizes to {} to {} bits", scheme.num_bits,
         kLeastBits, kMostBits);
  }
  if (scheme.group_size == QuantizationScheme::kWholeMatrix) return;
  if (std::find(kGroupSizes.begin(), kGroupSizes.end(), scheme.group_size) != kGroupSizes.end()) return;
  fail(ErrorKind::invalid_argument, "group_size is {}; it must be 16, 32, 64, 128, 256 or -1 (the whole row)",
       scheme.group_size);
}

std::string_view to_string(Format format) {
  for (const auto& row : kFormats) {
    if (row.format == format) return row.name;
  }
  fail(ErrorKind::internal, "format {} has no name", static_cast<int>(format));
}

Format format_by_name(std::string_view name) {
  for (const auto& row : kFormats) {
    if (row.name == name) return row.format;
  }
  fail(ErrorKind::invalid_argument,
       "format \"{}\" is unknown; the known ones are pack-quantized (also compressed-tensors) and "
       "autoawq-gemm",
       name);
}

}  // namespace salient
