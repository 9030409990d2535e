#pragma once

#include <span>

#include "backend/cpu/panels.h"
#include "backend/cpu/product.h"

namespace salient {

/// Where the parts of a weight in panels lie in one run of bytes, which is all that has to be kept of it.
struct PanelLayout {
  int64_t outputs;
  int64_t depth;
  int64_t group_width;  ///< a multiple of 8, or at least the depth
  PanelCode code;
  PanelScale scale_type;
  int middle;         ///< the zero of a symmetric scheme of as many bits
  bool stored_zeros;  ///< else every zero is the middle

  int64_t panels() const { return (outputs + kPanelRows - 1) / kPanelRows; }
  int64_t lines() const { return (depth + kLineColumns - 1) / kLineColumns; }
  int64_t groups() const { return (depth + group_width - 1) / group_width; }
  int64_t group_lines() const { return (group_width + kLineColumns - 1) / kLineColumns; }
  /// Lines of a block but for the last of a group, and blocks of a row; see QuantizeProblem.
  int64_t block_lines() const;
  int64_t blocks() const;
  /// In a panel.
  size_t zeros_offset() const;
  size_t codes_offset() const;
  size_t panel_bytes() const;
  size_t byte_size() const { return static_cast<size_t>(panels()) * panel_bytes(); }
  /// As numbers, and back. i64 [8]. Errors: bad_format for numbers that no weight has.
  Tensor to_numbers() const;
  static PanelLayout from_numbers(const Tensor& numbers);
  /// The kernels' view of such bytes, which start on a cache line.
  Panels view(const std::byte* bytes) const;
};

/// A weight of 2 to 8 bits in panels.
class PanelWeight final : public WeightSource {
 public:
  /// Whether the layout takes it: groups of a multiple of 8 columns or whole rows.
  static bool takes(const QuantizationScheme& scheme, int64_t in_features);

  /// Packs, in parallel. Its parts are as require_parts wants them.
  explicit PanelWeight(const QuantizedWeight& weight);
  /// Bytes that were packed before. Errors: bad_format when they are not as many as the layout says, or on no
  /// cache line.
  PanelWeight(const PanelLayout& layout, Tensor bytes);

  /// The inverse of packing: the codes of a row as QuantizedWeight has them. [row_bytes]
  void unpack_row(int64_t row, std::span<uint8_t> out) const;

  void multiply_directly(const CpuContext& context, std::span<const Product> products) const override;
  /// Weights in panels with codes of one kind, whose groups are as wide: one form of the activations serves
  /// them.
  bool joins(const WeightSource& other) const override;
  bool takes_integers() const override { return true; }
  GemmOperand<float> f32_block(const CpuContext& context, const WeightRange& range) const override;
  bool stored_as(MatmulPrecision) const override { return false; }
  int64_t outputs() const override { return layout_.outputs; }
  int64_t depth() const override { return layout_.depth; }
  size_t byte_size() const override { return layout_.byte_size(); }

  const PanelLayout& layout() const { return layout_; }
  const Tensor& bytes() const { return bytes_; }
  Panels view() const { return layout_.view(bytes_.bytes()); }

 private:
  PanelLayout layout_;
  Tensor bytes_;  // u8
};

}  // namespace salient
