#include "calibrate/activation_statistics.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/parallel.h"

namespace salient {

ActivationStatistics::ActivationStatistics(int64_t features, int64_t gram_block)
    : absolute_sum_(static_cast<size_t>(features), 0.0), gram_(features, gram_block) {}

void ActivationStatistics::add(Backend& backend, MatmulPrecision precision, const Tensor& x) {
  const auto columns = static_cast<size_t>(features());
  const int64_t rows = x.dim(0);
  const std::span<const float> data = x.values<float>();
  constexpr size_t kColumnsPerChunk =
      64;  // four cache lines of a row; the f32 sums of a chunk stay in registers
  parallel_for(columns, kColumnsPerChunk, [&](size_t begin, size_t end) {
    float sums[kColumnsPerChunk] = {};
    for (int64_t row = 0; row < rows; ++row) {
      const float* values = data.data() + static_cast<size_t>(row) * columns;
      for (size_t c = begin; c < end; ++c) sums[c - begin] += std::fabs(values[c]);
    }
    for (size_t c = begin; c < end; ++c) absolute_sum_[c] += static_cast<double>(sums[c - begin]);
  });
  gram_.add(backend, precision, x);
  tokens_ += rows;
}

void ActivationStatistics::merge(const ActivationStatistics& other) {
  if (other.features() != features()) {
    fail(ErrorKind::internal, "statistics of {} features merged into {}", other.features(), features());
  }
  for (size_t c = 0; c < absolute_sum_.size(); ++c) absolute_sum_[c] += other.absolute_sum_[c];
  gram_.add(other.gram_);
  tokens_ += other.tokens_;
}

std::vector<float> ActivationStatistics::mean_absolute() const {
  std::vector<float> mean(absolute_sum_.size(), 0.0f);
  const double count = static_cast<double>(std::max<int64_t>(1, tokens_));
  for (size_t c = 0; c < mean.size(); ++c) mean[c] = static_cast<float>(absolute_sum_[c] / count);
  return mean;
}

}  // namespace salient
