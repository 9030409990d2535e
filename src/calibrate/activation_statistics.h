#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "calibrate/gram_matrix.h"
#include "tensor/tensor.h"

namespace salient {

/// What AWQ needs to know about the input x of a linear: mean |x| per channel and the Gram matrix x^T x. Sums
/// over tokens, so statistics of several batches, processes or machines add up.
class ActivationStatistics {
 public:
  /// `gram_block`: columns of a block of the Gram matrix; 0: it is whole.
  explicit ActivationStatistics(int64_t features, int64_t gram_block = 0);

  /// x: f32 [rows, features].
  void add(Backend& backend, MatmulPrecision precision, const Tensor& x);
  /// Errors: internal when the features differ.
  void merge(const ActivationStatistics& other);

  int64_t features() const { return static_cast<int64_t>(absolute_sum_.size()); }
  int64_t tokens() const { return tokens_; }
  /// mean over tokens of |x|, [features]. Zeros before the first token.
  std::vector<float> mean_absolute() const;
  /// x^T x summed over the tokens.
  const GramMatrix& gram() const { return gram_; }
  /// The same for whoever may change it; undefined here from then on.
  GramMatrix take_gram() { return std::exchange(gram_, GramMatrix()); }

 private:
  int64_t tokens_ = 0;
  std::vector<double> absolute_sum_;
  GramMatrix gram_;
};

}  // namespace salient
