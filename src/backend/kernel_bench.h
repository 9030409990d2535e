#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/cancellation.h"

namespace salient {

/// A linear with weights of 4 bits, asymmetric, scales in f16.
struct KernelShape {
  int64_t outputs;
  int64_t depth;
  int64_t group_size = 128;
};

/// Errors: invalid_argument for a shape that has no such weight.
void check_kernel_shape(const KernelShape& shape);

/// One instruction set in one mode of activations.
struct KernelContender {
  std::string isa;  ///< as SALIENT_ISA spells it
  ActivationMode activations;
  /// Whether exact products with many rows, which are the dense library's, keep to `isa` too.
  bool library_keeps_to_it;
  std::unique_ptr<Backend> backend;
};

/// Every mode for each of `isas`; with none those that SALIENT_ISA names or else all kernels of this
/// processor that have faster ones than the portable. One instruction set alone binds the dense library of
/// the process as well, as far as it was not used yet. Errors: invalid_argument, unsupported.
std::vector<KernelContender> kernel_contenders(std::span<const std::string> isas);

/// What a product takes, and whether it is what the portable kernels make of the same inputs.
struct KernelSpeed {
  int64_t rows = 0;
  double seconds = 0;           ///< of one product, when the weight comes from memory
  double weight_bytes = 0;      ///< that it reads
  double operations = 0;        ///< multiplications and additions
  double portable_seconds = 0;  ///< of the portable kernels, for as many rows
  double difference = 0;        ///< see output_difference
  bool correct = false;
};

/// The largest difference of an output, as a share of the root of the mean square of `expected`; infinite
/// where either holds anything but numbers. f32, of one shape.
double output_difference(const Tensor& expected, const Tensor& y);
/// Exact products sum in an order of their own: of outputs that are sums of `depth` random terms, f32 keeps
/// seven digits, and the zeros are subtracted behind the sums. One wrong code of 14336 is 1e-3.
inline constexpr double kExactProductBound = 1e-4;

/// Products with one weight of random codes, of which it keeps as many copies as no cache holds.
class KernelBench {
 public:
  /// Products have up to `most_rows` rows. Errors: as check_kernel_shape.
  KernelBench(const KernelShape& shape, int64_t most_rows);

  /// The fastest of `repeats` runs. Errors: cancelled.
  KernelSpeed measure(const KernelContender& contender, int64_t rows, int repeats,
                      const CancellationFlag* cancelled);
  /// Whether exact products with so many rows are those of the kernels, or of a library that keeps to their
  /// instruction set.
  static bool has_product(const KernelContender& contender, int64_t rows);

 private:
  /// What the portable kernels make of some rows.
  struct Reference {
    ActivationMode activations;
    int64_t rows;
    Tensor y;
    double seconds;
  };

  const Reference& reference(ActivationMode activations, int64_t rows);
  /// Some of the first `rows` inputs, from the first to the last.
  Tensor sample(const Tensor& of, int64_t rows) const;

  KernelShape shape_;
  Tensor inputs_;  // f32 [most rows, depth]
  std::vector<std::unique_ptr<PreparedLinear>> copies_;
  std::vector<Reference> references_;
};

}  // namespace salient
