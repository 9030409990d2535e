#include <algorithm>

#include "backend/cpu/product.h"
#include "backend/cpu/scratch.h"
#include "base/error.h"

namespace salient {
namespace {

const float* as_floats(const std::byte* data) { return reinterpret_cast<const float*>(data); }
const uint16_t* as_words(const std::byte* data) { return reinterpret_cast<const uint16_t*>(data); }

}  // namespace

GemmOperand<uint16_t> WeightSource::bf16_block(const CpuContext& context, const WeightRange& range) const {
  const GemmOperand<float> exact = f32_block(context, range);
  auto* rounded = scratch<uint16_t>(ScratchUse::rounded_weights, range.rows * range.columns);
  const bool by_rows = exact.transposed == Transposed::yes;
  const int64_t lines = by_rows ? range.rows : range.columns;
  const int64_t length = by_rows ? range.columns : range.rows;
  for (int64_t i = 0; i < lines; ++i)
    context.kernels.narrow_bf16(exact.data + i * exact.stride, length, rounded + i * length);
  return {rounded, length, exact.transposed};
}

const std::byte* DenseWeight::at(int64_t row, int64_t column) const {
  return weight_.bytes() + static_cast<size_t>(row * depth() + column) * salient::byte_size(weight_.dtype());
}

bool DenseWeight::stored_as(MatmulPrecision precision) const {
  return weight_.dtype() == (precision == MatmulPrecision::f32 ? DType::f32 : DType::bf16);
}

void DenseWeight::multiply_few_rows(const CpuKernels& kernels, const FewRows& problem) const {
  const DotProblem dot{.x = problem.x,
                       .rows = problem.rows,
                       .x_stride = depth(),
                       .weights = at(problem.begin, 0),
                       .weight_stride = depth(),
                       .outputs = problem.end - problem.begin,
                       .depth = depth(),
                       .bias = problem.bias == nullptr ? nullptr : problem.bias + problem.begin,
                       .y = problem.y + problem.begin,
                       .y_stride = problem.y_stride};
  switch (weight_.dtype()) {
    case DType::f32:
      return kernels.dot_f32(dot);
    case DType::f16:
      return kernels.dot_f16(dot);
    default:
      return kernels.dot_bf16(dot);
  }
}

GemmOperand<float> DenseWeight::f32_block(const CpuContext& context, const WeightRange& range) const {
  if (weight_.dtype() == DType::f32) {
    return {as_floats(at(range.row, range.column)), depth(), Transposed::yes};
  }
  auto* wide = scratch<float>(ScratchUse::weights, range.rows * range.columns);
  const auto widen = weight_.dtype() == DType::f16 ? context.kernels.widen_f16 : context.kernels.widen_bf16;
  for (int64_t row = 0; row < range.rows; ++row) {
    widen(as_words(at(range.row + row, range.column)), range.columns, wide + row * range.columns);
  }
  return {wide, range.columns, Transposed::yes};
}

GemmOperand<uint16_t> DenseWeight::bf16_block(const CpuContext& context, const WeightRange& range) const {
  if (weight_.dtype() != DType::bf16) return WeightSource::bf16_block(context, range);
  return {as_words(at(range.row, range.column)), depth(), Transposed::yes};
}

void require_parts(const QuantizedWeight& weight) {
  const int num_bits = weight.scheme.num_bits;
  const int64_t depth = weight.in_features;
  const int64_t width = group_width(weight.scheme, depth);
  const bool known_width = num_bits >= kLeastBits && num_bits <= kMostBits;
  if (!known_width || width <= 0 || (width % 2 != 0 && width != depth)) {
    fail(ErrorKind::internal, "the integer kernels got {} bits in groups of {}", num_bits,
         weight.scheme.group_size);
  }
  const Shape per_group{weight.out_features, weight.groups()};
  const Shape per_row{weight.out_features, weight.row_bytes()};
  const Tensor& zeros = weight.zeros;
  if (weight.codes.dtype() != DType::u8 || weight.codes.shape() != per_row ||
      weight.scales.shape() != per_group || zeros.defined() == weight.scheme.symmetric ||
      (zeros.defined() && (zeros.dtype() != DType::u8 || zeros.shape() != per_group))) {
    fail(ErrorKind::internal, "int{} weight [{}, {}] with codes {}, scales {} and zeros {}", num_bits,
         weight.out_features, depth, to_string(weight.codes.shape()), to_string(weight.scales.shape()),
         to_string(zeros.shape()));
  }
}

IntegerWeight::IntegerWeight(const QuantizedWeight& weight)
    : code_bits_(weight.code_bits()),
      outputs_(weight.out_features),
      depth_(weight.in_features),
      group_width_(group_width(weight.scheme, depth_)),
      codes_(weight.codes),
      scales_(weight.scales.to(DType::f32)),
      zeros_(weight.zeros) {
  require_parts(weight);
  groups_ = weight.groups();
  row_bytes_ = weight.row_bytes();
  // Kernels know the symmetric zero of the width that they read.
  if (weight.scheme.symmetric && weight.scheme.num_bits != code_bits_) {
    zeros_ = Tensor::empty(DType::u8, {outputs_, groups_});
    std::ranges::fill(zeros_.mutable_values<uint8_t>(), static_cast<uint8_t>(symmetric_zero(weight.scheme)));
  }
}

IntegerRows IntegerWeight::rows_from(int64_t row) const {
  return {.codes = codes_.values<uint8_t>().data() + row * row_bytes_,
          .row_bytes = row_bytes_,
          .scales = scales_.values<float>().data() + row * groups_,
          .zeros = zeros_.defined() ? zeros_.values<uint8_t>().data() + row * groups_ : nullptr,
          .groups = groups_,
          .group_width = group_width_};
}

void IntegerWeight::multiply_few_rows(const CpuKernels& kernels, const FewRows& problem) const {
  const auto dot = code_bits_ == 4 ? kernels.dot_w4 : kernels.dot_w8;
  dot({.x = problem.x,
       .rows = problem.rows,
       .x_stride = depth_,
       .weights = rows_from(problem.begin),
       .outputs = problem.end - problem.begin,
       .depth = depth_,
       .bias = problem.bias == nullptr ? nullptr : problem.bias + problem.begin,
       .y = problem.y + problem.begin,
       .y_stride = problem.y_stride});
}

GemmOperand<float> IntegerWeight::f32_block(const CpuContext& context, const WeightRange& range) const {
  auto* wide = scratch<float>(ScratchUse::weights, range.rows * range.columns);
  const auto expand = code_bits_ == 4 ? context.kernels.expand_w4 : context.kernels.expand_w8;
  expand({.weights = rows_from(range.row),
          .rows = range.rows,
          .column = range.column,
          .columns = range.columns,
          .out = wide,
          .stride = range.columns});
  return {wide, range.columns, Transposed::yes};
}

size_t IntegerWeight::row_bytes() const {
  const size_t per_group = sizeof(float) + (zeros_.defined() ? 1 : 0);
  return static_cast<size_t>(row_bytes_) + static_cast<size_t>(groups_) * per_group;
}

}  // namespace salient
