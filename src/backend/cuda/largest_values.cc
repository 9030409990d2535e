#include "backend/cuda/largest_values.h"

#include <algorithm>
#include <bit>

#include "backend/cuda/elementwise.h"
#include "backend/cuda/largest.h"
#include "backend/cuda/tensor_access.h"

namespace salient::cuda {
namespace {

static_assert(kMostLargest == salient::kMostLargest);

/// Values, indices, sums and counts of rows, one behind the other, so that one copy brings them.
class LargestBuffer {
 public:
  LargestBuffer(Device& device, const LargestProblem& problem)
      : device_(device),
        count_(static_cast<size_t>(problem.x.dim(0) * problem.wanted)),
        sums_(problem.scales.size()),
        memory_(device, 2 * (count_ + sums_) * sizeof(uint32_t)) {}

  float* values() const { return memory_.as<float>(); }
  int32_t* indices() const { return memory_.as<int32_t>() + count_; }
  float* sums() const { return memory_.as<float>() + 2 * count_; }
  int32_t* reaching() const { return memory_.as<int32_t>() + 2 * count_ + sums_; }

  void bring(LargestValues& result) const {
    std::vector<uint32_t> words(2 * (count_ + sums_));
    device_.copy_out(words.data(), memory_.address(), words.size() * sizeof(uint32_t));
    const uint32_t* from = words.data();
    take(from, count_, result.values);
    take(from, count_, result.indices);
    take(from, sums_, result.sums);
    take(from, sums_, result.reaching);
  }

 private:
  template <typename T>
  static void take(const uint32_t*& from, size_t count, std::vector<T>& to) {
    to.resize(count);
    std::ranges::transform(from, from + count, to.begin(),
                           [](uint32_t word) { return std::bit_cast<T>(word); });
    from += count;
  }

  Device& device_;
  size_t count_;
  size_t sums_;
  DeviceBuffer memory_;
};

}  // namespace

LargestValues largest_values(Device& device, const float* x, const LargestProblem& problem) {
  LargestValues result{.wanted = problem.wanted, .values = {}, .indices = {}, .sums = {}, .reaching = {}};
  if (problem.x.dim(0) == 0) return result;
  const int64_t rows = problem.x.dim(0);
  const LargestBuffer buffer(device, problem);
  const auto sizes = largest_workspace(device, rows, problem.x.dim(1), problem.wanted);
  const DeviceBuffer workspace(device, sizes.bytes);
  // By launches, which may be part of a graph.
  write_bytes(device, std::vector<std::byte>(sizes.counter_bytes), workspace.address());
  const Largest asked{.x = x,
                      .rows = rows,
                      .columns = problem.x.dim(1),
                      .wanted = problem.wanted,
                      .values = buffer.values(),
                      .indices = buffer.indices(),
                      .workspace = workspace.address()};
  cuda::largest(device, asked);
  if (!problem.scales.empty()) {
    const DeviceBuffer scales = sent(device, problem.scales);
    sum_rows(device, asked,
             {.scales = scales.as<float>(), .sums = buffer.sums(), .reaching = buffer.reaching()});
  }
  buffer.bring(result);
  return result;
}

}  // namespace salient::cuda
