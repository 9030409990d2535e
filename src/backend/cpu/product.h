#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/gemm.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/panels.h"
#include "backend/cpu/tiles.h"

namespace salient {

/// What every product of a back end needs: its kernels, the library for dense blocks, and what multiplies
/// bf16 in its place where the processor has tiles.
struct CpuContext {
  const CpuKernels& kernels;
  Gemm& gemm;
  const PanelKernels& panels;
  const TileKernels* tiles = nullptr;
};

/// A block of a weight matrix: rows [row, row + rows), columns [column, column + columns).
struct WeightRange {
  int64_t row;
  int64_t rows;
  int64_t column;
  int64_t columns;
};

struct Product;

/// A weight [out, in] at rest in any type, as blocks of the type that a product computes with.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  /// Products from the weights as they are, nothing expanded: in exact f32 arithmetic for few rows, and with
  /// activations as integers for any number where the weight takes them. They share x, rows and activations;
  /// the first has this weight, the others have weights that join it.
  virtual void multiply_directly(const CpuContext& context, std::span<const Product> products) const = 0;
  /// Whether a product with `other` can be one with this weight's.
  virtual bool joins(const WeightSource& other) const = 0;
  virtual bool takes_integers() const { return false; }

  /// The block in f32 or bf16: a pointer into the weight itself when it is stored so (`stored_as`), else
  /// expanded into the calling thread's scratch. As an operand [in, out]: one stored like the weight is
  /// marked as transposed. Rows begin at a multiple of 16, columns of 8.
  virtual GemmOperand<float> f32_block(const CpuContext& context, const WeightRange& range) const = 0;
  virtual GemmOperand<uint16_t> bf16_block(const CpuContext& context, const WeightRange& range) const;
  virtual bool stored_as(MatmulPrecision precision) const = 0;

  virtual int64_t outputs() const = 0;
  virtual int64_t depth() const = 0;
  virtual size_t byte_size() const = 0;
};

/// A weight whose rows lie one behind the other.
class RowWeight : public WeightSource {
 public:
  /// y [rows, out] for outputs [begin, end), exact f32 arithmetic, for few rows.
  struct FewRows {
    const float* x;
    int64_t rows;
    const float* bias;
    float* y;
    int64_t y_stride;
    int64_t begin;
    int64_t end;
  };
  virtual void multiply_few_rows(const CpuKernels& kernels, const FewRows& problem) const = 0;
  virtual size_t row_bytes() const = 0;

  void multiply_directly(const CpuContext& context, std::span<const Product> products) const override;
  bool joins(const WeightSource& other) const override;
  size_t byte_size() const override { return static_cast<size_t>(outputs()) * row_bytes(); }
};

/// A dense weight f32, f16 or bf16 [out, in].
class DenseWeight final : public RowWeight {
 public:
  explicit DenseWeight(Tensor weight) : weight_(std::move(weight)) {}

  void multiply_few_rows(const CpuKernels& kernels, const FewRows& problem) const override;
  GemmOperand<float> f32_block(const CpuContext& context, const WeightRange& range) const override;
  GemmOperand<uint16_t> bf16_block(const CpuContext& context, const WeightRange& range) const override;
  bool stored_as(MatmulPrecision precision) const override;
  int64_t outputs() const override { return weight_.dim(0); }
  int64_t depth() const override { return weight_.dim(1); }
  size_t row_bytes() const override {
    return static_cast<size_t>(depth()) * salient::byte_size(weight_.dtype());
  }

 private:
  const std::byte* at(int64_t row, int64_t column) const;

  Tensor weight_;
};

/// Errors: internal unless codes, scales and zeros have the types and shapes of their scheme.
void require_parts(const QuantizedWeight& weight);

/// A weight of 2 to 8 bits: its codes as they are, in nibbles or bytes, its scales in f32. For what
/// PanelWeight does not take.
class IntegerWeight final : public RowWeight {
 public:
  explicit IntegerWeight(const QuantizedWeight& weight);

  void multiply_few_rows(const CpuKernels& kernels, const FewRows& problem) const override;
  GemmOperand<float> f32_block(const CpuContext& context, const WeightRange& range) const override;
  bool stored_as(MatmulPrecision) const override { return false; }
  int64_t outputs() const override { return outputs_; }
  int64_t depth() const override { return depth_; }
  size_t row_bytes() const override;

 private:
  IntegerRows rows_from(int64_t row) const;

  int code_bits_;
  int64_t outputs_;
  int64_t depth_;
  int64_t group_width_;
  int64_t groups_;
  int64_t row_bytes_;
  Tensor codes_;   // u8 [out, row bytes]
  Tensor scales_;  // f32 [out, groups]
  Tensor zeros_;   // u8 [out, groups]; undefined where they are all what the kernels take for granted
};

/// y [rows, out] = x [rows, in] W^T + bias.
struct Product {
  const WeightSource& weight;
  const float* x;
  int64_t rows;
  std::span<const float> bias;  ///< [out] or empty
  float* y;
  MatmulPrecision precision;
  ActivationMode activations = ActivationMode::fp32;
  const uint16_t* packed = nullptr;  ///< the weight as pack_weight leaves it, or null
};

/// Few rows go to the kernels, many to the library; all to the kernels where activations become integers.
void multiply(const CpuContext& context, const Product& product);
/// The same for products that share everything but weight, bias and y: those of neighbours that join are one.
void multiply_together(const CpuContext& context, std::span<const Product> products);

/// Pieces of parallel work on several products, counted through: those of the first come first.
class PieceCount {
 public:
  void add(int64_t pieces) { ends_.push_back((ends_.empty() ? 0 : ends_.back()) + pieces); }
  int64_t all() const { return ends_.empty() ? 0 : ends_.back(); }
  struct Place {
    size_t product;
    int64_t piece;  ///< of the product
  };
  Place at(int64_t index) const {
    size_t product = 0;
    while (index >= ends_[product]) ++product;
    return {product, product == 0 ? index : index - ends_[product - 1]};
  }

 private:
  std::vector<int64_t> ends_;
};

/// gram [k, k] += x^T x, both triangles.
struct GramProblem {
  const float* x;  ///< [rows, k]
  int64_t rows;
  int64_t k;
  MatmulPrecision precision;
  float* gram;
};

void accumulate_gram(const CpuContext& context, const GramProblem& problem);

inline int64_t blocks_of(int64_t count, int64_t block) { return (count + block - 1) / block; }

/// The blocks of a lower triangle in one row after the other: 0 -> (0, 0), 1 -> (1, 0), 2 -> (1, 1), ...
struct TriangleBlock {
  int64_t row = 0;
  int64_t column = 0;
};

TriangleBlock triangle_block(int64_t index);

/// result [a_columns, b_columns] += a^T b.
struct CrossProblem {
  const float* a;  ///< [rows, a_columns]
  const float* b;  ///< [rows, b_columns]
  int64_t rows;
  int64_t a_columns;
  int64_t b_columns;
  MatmulPrecision precision;
  float* result;
};

void accumulate_product(const CpuContext& context, const CrossProblem& problem);

/// result[r] = x_r S x_r^T.
struct QuadraticFormProblem {
  const float* x;  ///< [rows, k]
  int64_t rows;
  int64_t k;
  const float* symmetric;  ///< S [k, k]; blocks above the diagonal are not read
  double* result;          ///< [rows]
};

void quadratic_form(const CpuContext& context, const QuadraticFormProblem& problem);
/// The same for rows [row, row + rows), inside the calling thread.
void quadratic_form_rows(const CpuContext& context, const QuadraticFormProblem& problem, int64_t row,
                         int64_t rows);

}  // namespace salient
