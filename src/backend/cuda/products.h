#pragma once

#include "backend/cuda/device.h"

namespace salient {
enum class MatmulPrecision;
}

namespace salient::cuda {

/// What becomes of a product that has been computed.
enum class ProductUse { set, add, subtract };
/// Of which part of a square result: `mirrored` computes what is on and below the diagonal and stores it on
/// both sides of it, for symmetric results; `upper` leaves blocks below the diagonal alone.
enum class ProductPart { all, mirrored, upper };

struct ProductOperand {
  const float* data;
  int64_t stride;  ///< elements from a row to the next
};

/// c [m, n] = a b. Operands on 16 bytes with strides of a multiple of 4, and as many columns in memory; c on
/// 8 bytes with an even stride and even n.
struct ProductArguments {
  ProductOperand a;
  ProductOperand b;
  float* c;
  int64_t c_stride;
  int m;
  int n;
  int k;
  ProductUse use;
  ProductPart part;
};

/// The same for operands that lie anyhow: a[row, k] stands at a + row * a_row + k * a_depth.
struct PlainProductArguments {
  const float* a;
  int64_t a_row;
  int64_t a_depth;
  const float* b;
  int64_t b_depth;
  int64_t b_column;
  float* c;
  int64_t c_stride;
  int m;
  int n;
  int k;
  ProductUse use;
  ProductPart part;
};

/// See QuadraticForm. x and S on 16 bytes, columns a multiple of 4.
struct FormArguments {
  const float* x;          ///< [rows, columns]
  const float* symmetric;  ///< S [columns, columns]
  float* sums;             ///< [rows, segments]
  int rows;
  int columns;
  int group_width;  ///< `columns`, or a power of two from 16 on
  int segments;     ///< of kSegment columns, in a row
};
struct SumArguments {
  const float* sums;  ///< [rows, segments]
  double* result;     ///< [rows, groups]
  int64_t rows;
  int groups;
  int segments;
  int segments_per_group;
};
struct PlainFormArguments {
  const float* x;          ///< [rows, columns]
  const float* symmetric;  ///< S [columns, columns]
  double* result;          ///< [rows, groups], a block each
  int columns;
  int group_width;
  int groups;
};

inline constexpr int kProductThreads = 256;
/// A block computes so many rows and columns of a result, so much of the depth at a time.
inline constexpr int kProductTile = 128;
inline constexpr int kProductDepth = 32;
inline constexpr int kExactPlanes = 3;
inline constexpr int kSegment = 16;

/// Shared memory of a product: two of everything, so that one is filled while the other is multiplied.
inline constexpr size_t product_shared_bytes(int planes) {
  return size_t{2} * 2 * static_cast<size_t>(planes) * kProductTile * kProductDepth * 2;
}
static_assert(product_shared_bytes(kExactPlanes) <= size_t{99} << 10);

// By how a and b lie in memory: `rows` as [m, k] and [n, k], `columns` as [k, m] and [k, n].
inline constexpr Kernel kProductOfRows{"product_of_rows", kProductThreads};
inline constexpr Kernel kProductOfRowsAndColumns{"product_of_rows_and_columns", kProductThreads};
inline constexpr Kernel kProductOfColumns{"product_of_columns", kProductThreads};
inline constexpr Kernel kRoundedProductOfColumns{"rounded_product_of_columns", kProductThreads};
inline constexpr Kernel kForm{"form_of_rows", kProductThreads};
inline constexpr Kernel kRoundedForm{"rounded_form_of_rows", kProductThreads};
inline constexpr Kernel kSumSegments{"sum_segments", kProductThreads};
// For operands that do not stand on 16 bytes, or not row by row: weights of models do.
inline constexpr Kernel kPlainProduct{"plain_product", kProductThreads};
inline constexpr Kernel kPlainForm{"plain_form", kProductThreads};

/// How an operand lies in memory, as seen from the product: as it is written in a [m, k] b [k, n], or
/// transposed, a as [k, m] and b as [n, k].
enum class Layout { plain, transposed };

/// c [m, n] (use) a b, f32 on the device, its products and sums as exact as f32.
struct DenseProduct {
  ProductOperand a;
  Layout a_layout = Layout::plain;
  ProductOperand b;
  Layout b_layout = Layout::plain;
  float* c;
  int64_t c_stride;
  int64_t m;
  int64_t n;
  int64_t k;
  ProductUse use = ProductUse::set;
  ProductPart part = ProductPart::all;
};
void multiply(Device& device, const DenseProduct& problem);

/// Backend::accumulate_gram.
struct GramSum {
  const float* x;  ///< [rows, k]
  int64_t rows;
  int64_t k;
  MatmulPrecision precision;
  float* gram;  ///< [k, k]
};
void accumulate_gram(Device& device, const GramSum& problem);

/// Backend::accumulate_product.
struct ProductSum {
  const float* a;  ///< [rows, a_columns]
  const float* b;  ///< [rows, b_columns]
  int64_t rows;
  int64_t a_columns;
  int64_t b_columns;
  MatmulPrecision precision;
  float* result;  ///< [a_columns, b_columns]
};
void accumulate_product(Device& device, const ProductSum& problem);

/// result[r] = x_r S x_r^T of each row, or of each group of columns of each row with nothing of S but the
/// square block of the group: [rows, groups]. What rounding errors cost, see Backend::rounding_loss. S is
/// symmetric; of its blocks above the diagonal nothing is read. The products are as exact as f32 or of values
/// rounded to bf16; the result's sums are in f64.
struct QuadraticForm {
  const float* x;          ///< [rows, columns]
  const float* symmetric;  ///< [columns, columns]
  int64_t rows;
  int64_t columns;
  int64_t group_width;  ///< `columns` for whole rows
  MatmulPrecision precision;
  float* workspace;  ///< of form_workspace_bytes
  double* result;
};
size_t form_workspace_bytes(int64_t rows, int64_t columns);
void quadratic_form(Device& device, const QuadraticForm& problem);

}  // namespace salient::cuda
