#include "backend/cpu/panel_weight.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

#include "backend/cpu/scratch.h"
#include "base/error.h"
#include "base/parallel.h"

namespace salient {
namespace {

constexpr size_t kCacheLine = 64;
/// Of what panels.h describes: to be raised with every change of it.
constexpr int64_t kLayoutVersion = 2;
/// A cache line of them, so that what follows them in a file begins on one.
constexpr int64_t kLayoutNumbers = 8;
/// Scale types and kinds of codes are one number.
constexpr int64_t kScaleTypes = 3;
constexpr size_t kHugePage = size_t{2} << 20;

size_t whole_lines(size_t bytes) { return (bytes + kCacheLine - 1) / kCacheLine * kCacheLine; }

size_t scale_bytes(PanelScale type) { return type == PanelScale::f32 ? 4 : 2; }

/// On pages of 2 MiB, the last one too if that wastes little: a token reads every weight once, and 4 KiB
/// pages would cost a look-up for every 64 lines.
Tensor weight_memory(size_t bytes) {
  const Shape shape{static_cast<int64_t>(bytes)};
  if (bytes < kHugePage) return Tensor::empty(DType::u8, shape);
  const size_t rounded = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kHugePage, rounded));
  if (memory == nullptr) fail(ErrorKind::out_of_memory, "cannot allocate {} bytes for a weight", bytes);
  const std::shared_ptr<std::byte> owner(memory, [](std::byte* p) { std::free(p); });
#if defined(MADV_HUGEPAGE)
  const bool wastes_little = rounded - bytes <= bytes / 8;
  ::madvise(memory, wastes_little ? rounded : rounded - kHugePage, MADV_HUGEPAGE);  // a wish, no more
#endif
  return Tensor::in(DType::u8, shape, owner);
}

/// Nibbles 0 to 7 in the order 0 4 1 5 2 6 3 7: of columns in the order of a row, those of a line.
uint32_t interleave(uint32_t nibbles) {
  const uint32_t bytes = (nibbles ^ (nibbles >> 8)) & 0x0000ff00u;
  nibbles ^= bytes ^ (bytes << 8);
  const uint32_t halves = (nibbles ^ (nibbles >> 4)) & 0x00f000f0u;
  return nibbles ^ halves ^ (halves << 4);
}

/// Its inverse: the same exchanges, last one first.
uint32_t separate(uint32_t nibbles) {
  const uint32_t halves = (nibbles ^ (nibbles >> 4)) & 0x00f000f0u;
  nibbles ^= halves ^ (halves << 4);
  const uint32_t bytes = (nibbles ^ (nibbles >> 8)) & 0x0000ff00u;
  return nibbles ^ bytes ^ (bytes << 8);
}

PanelScale panel_scale(DType dtype) {
  if (dtype == DType::f16) return PanelScale::f16;
  return dtype == DType::bf16 ? PanelScale::bf16 : PanelScale::f32;
}

PanelLayout layout_of(const QuantizedWeight& weight) {
  return {.outputs = weight.out_features,
          .depth = weight.in_features,
          .group_width = group_width(weight.scheme, weight.in_features),
          .code = weight.code_bits() == 4 ? PanelCode::nibble : PanelCode::byte,
          .scale_type = panel_scale(weight.scales.dtype()),
          .middle = symmetric_zero(weight.scheme),
          .stored_zeros = !weight.scheme.symmetric};
}

/// What packing reads and writes.
struct Packing {
  const PanelLayout& layout;
  const QuantizedWeight& weight;
  std::byte* out;

  void pack(int64_t panel) const {
    const int64_t rows = std::min(kPanelRows, layout.outputs - panel * kPanelRows);
    std::byte* to = out + static_cast<size_t>(panel) * layout.panel_bytes();
    std::memset(to, 0, layout.codes_offset());
    pack_grid(weight.scales.bytes(), scale_bytes(layout.scale_type), panel, rows, to);
    if (layout.stored_zeros) pack_grid(weight.zeros.bytes(), 1, panel, rows, to + layout.zeros_offset());
    pack_codes(panel, rows, reinterpret_cast<uint32_t*>(to + layout.codes_offset()));
  }

 private:
  void pack_codes(int64_t panel, int64_t rows, uint32_t* to) const {
    const int64_t row_bytes = weight.row_bytes();
    const int64_t bytes = layout.lines() * line_bytes(layout.code);
    const std::byte* from = weight.codes.bytes() + panel * kPanelRows * row_bytes;
    // Rows of bytes may end in the middle of a line.
    const bool whole = rows == kPanelRows && row_bytes * kPanelRows == bytes;
    if (!whole) std::memset(to, 0, static_cast<size_t>(bytes));
    for (int64_t at = 0; at < row_bytes; at += 4, to += kPanelRows) {
      for (int64_t row = 0; row < rows; ++row) {
        uint32_t word;
        std::memcpy(&word, from + row * row_bytes + at, sizeof word);
        to[row] = layout.code == PanelCode::nibble ? interleave(word) : word;
      }
    }
  }

  /// Elements [rows, groups] of the panel become [groups, 16].
  void pack_grid(const std::byte* from, size_t element, int64_t panel, int64_t rows, std::byte* to) const {
    const auto groups = static_cast<size_t>(layout.groups());
    const auto first = static_cast<size_t>(panel * kPanelRows);
    for (size_t row = 0; row < static_cast<size_t>(rows); ++row) {
      for (size_t group = 0; group < groups; ++group) {
        std::memcpy(to + (group * kPanelRows + row) * element,
                    from + ((first + row) * groups + group) * element, element);
      }
    }
  }
};

}  // namespace

int64_t PanelLayout::block_lines() const { return std::min(group_lines(), kMostBlockLines); }

int64_t PanelLayout::blocks() const {
  const auto blocks_of_lines = [](int64_t count) { return (count + kMostBlockLines - 1) / kMostBlockLines; };
  const int64_t whole = groups() - 1;
  return whole * blocks_of_lines(group_lines()) + blocks_of_lines(lines() - whole * group_lines());
}

size_t PanelLayout::zeros_offset() const {
  return whole_lines(static_cast<size_t>(groups() * kPanelRows) * scale_bytes(scale_type));
}

size_t PanelLayout::codes_offset() const {
  const size_t zeros = stored_zeros ? whole_lines(static_cast<size_t>(groups() * kPanelRows)) : 0;
  return zeros_offset() + zeros;
}

size_t PanelLayout::panel_bytes() const {
  return codes_offset() + static_cast<size_t>(lines() * line_bytes(code));
}

// What can be computed from them, panel_bytes, tells a file that was made for another layout.
Tensor PanelLayout::to_numbers() const {
  const std::array<int64_t, kLayoutNumbers> numbers{
      kLayoutVersion,
      outputs,
      depth,
      group_width,
      static_cast<int64_t>(code) * kScaleTypes + static_cast<int64_t>(scale_type),
      middle,
      stored_zeros ? 1 : 0,
      static_cast<int64_t>(panel_bytes())};
  return Tensor::of<int64_t>({kLayoutNumbers}, numbers);
}

PanelLayout PanelLayout::from_numbers(const Tensor& numbers) {
  constexpr int64_t kMost = int64_t{1} << 31;
  const auto is_size = [](int64_t value) { return value >= 1 && value <= kMost; };
  if (numbers.dtype() == DType::i64 && numbers.shape() == Shape{kLayoutNumbers}) {
    const auto n = numbers.values<int64_t>();
    const bool sizes = is_size(n[1]) && is_size(n[2]) && is_size(n[3]);
    const bool groups = n[3] % kLineColumns == 0 || n[3] >= n[2];
    const bool known = n[4] >= 0 && n[4] < 2 * kScaleTypes && n[5] >= 0 &&
                       n[5] <= (n[4] < kScaleTypes ? 8 : 128) && (n[6] == 0 || n[6] == 1);
    if (n[0] == kLayoutVersion && sizes && groups && known) {
      const PanelLayout layout{.outputs = n[1],
                               .depth = n[2],
                               .group_width = n[3],
                               .code = static_cast<PanelCode>(n[4] / kScaleTypes),
                               .scale_type = static_cast<PanelScale>(n[4] % kScaleTypes),
                               .middle = static_cast<int>(n[5]),
                               .stored_zeros = n[6] == 1};
      if (static_cast<int64_t>(layout.panel_bytes()) == n[7]) return layout;
    }
  }
  fail(ErrorKind::bad_format, "no layout of panels, or that of another version");
}

Panels PanelLayout::view(const std::byte* bytes) const {
  const auto* first = reinterpret_cast<const uint8_t*>(bytes);
  return {.code = code,
          .codes = first + codes_offset(),
          .scales = first,
          .scale_type = scale_type,
          .zeros = stored_zeros ? first + zeros_offset() : nullptr,
          .panel_bytes = static_cast<int64_t>(panel_bytes()),
          .zero = middle,
          .lines = lines(),
          .groups = groups(),
          .group_lines = group_lines()};
}

bool PanelWeight::takes(const QuantizationScheme& scheme, int64_t in_features) {
  const int64_t width = group_width(scheme, in_features);
  return width % kLineColumns == 0 || width >= in_features;
}

PanelWeight::PanelWeight(const QuantizedWeight& weight)
    : layout_(layout_of(weight)), bytes_(weight_memory(layout_.byte_size())) {
  const Packing packing{.layout = layout_, .weight = weight, .out = bytes_.mutable_bytes()};
  parallel_for(static_cast<size_t>(layout_.panels()), 4, [&](size_t begin, size_t end) {
    for (size_t panel = begin; panel < end; ++panel) packing.pack(static_cast<int64_t>(panel));
  });
}

PanelWeight::PanelWeight(const PanelLayout& layout, Tensor bytes)
    : layout_(layout), bytes_(std::move(bytes)) {
  const bool aligned = reinterpret_cast<uintptr_t>(bytes_.bytes()) % kCacheLine == 0;
  if (bytes_.dtype() == DType::u8 && bytes_.byte_size() == layout_.byte_size() && aligned) return;
  fail(ErrorKind::bad_format, "a weight [{}, {}] in panels is {} bytes on a cache line, not {}{}",
       layout_.outputs, layout_.depth, layout_.byte_size(), bytes_.byte_size(), aligned ? "" : " on none");
}

void PanelWeight::unpack_row(int64_t row, std::span<uint8_t> out) const {
  const Panels panels = view();
  const uint8_t* from = panels.codes + row / kPanelRows * panels.panel_bytes + row % kPanelRows * 4;
  for (size_t at = 0; at < out.size(); at += 4, from += kQuadBytes) {
    uint32_t word;
    std::memcpy(&word, from, sizeof word);
    if (panels.code == PanelCode::nibble) word = separate(word);
    std::memcpy(out.data() + at, &word, sizeof word);
  }
}

GemmOperand<float> PanelWeight::f32_block(const CpuContext& context, const WeightRange& range) const {
  const int64_t panels = blocks_of(range.rows, kPanelRows);
  const int64_t lines = blocks_of(range.columns, kLineColumns);
  const int64_t stride = panels * kPanelRows;
  auto* wide = scratch<float>(ScratchUse::weights, lines * kLineColumns * stride);
  for (int64_t panel = 0; panel < panels; ++panel) {
    context.panels.expand({.weights = view(),
                           .panel = range.row / kPanelRows + panel,
                           .line = range.column / kLineColumns,
                           .lines = lines,
                           .out = wide + panel * kPanelRows,
                           .stride = stride});
  }
  return {wide, stride, Transposed::no};
}

}  // namespace salient
