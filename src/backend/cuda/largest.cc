#include "backend/cuda/largest.h"

#include <algorithm>

#include "backend/cuda/launch.h"

namespace salient::cuda {
namespace {

struct Parts {
  int count;
  int columns;
};

/// Enough to keep every multiprocessor at work with a single row, none of less than four steps.
Parts parts_of(const Device& device, int64_t columns) {
  constexpr int64_t kLeast = 4 * kLargestStep;
  const int64_t most = 2 * device.properties().multiprocessors;
  const int64_t count = std::clamp<int64_t>((columns + kLeast - 1) / kLeast, 1, most);
  const int64_t steps = (columns + count * kLargestStep - 1) / (count * kLargestStep);
  const int64_t each = std::max<int64_t>(1, steps) * kLargestStep;
  return {.count = std::max(1, blocks_for(columns, each)), .columns = static_cast<int>(each)};
}

size_t counter_bytes_of(int64_t rows) {
  return (static_cast<size_t>(rows) * sizeof(uint32_t) + 15) / 16 * 16;
}

/// A grid has at most so many along y.
constexpr int64_t kMostRows = 65535;

uint32_t* counters_of(const Largest& problem) { return static_cast<uint32_t*>(problem.workspace); }
/// Behind the counters.
template <typename T>
T* parts_of(const Largest& problem) {
  return reinterpret_cast<T*>(static_cast<std::byte*>(problem.workspace) + counter_bytes_of(problem.rows));
}

}  // namespace

LargestWorkspace largest_workspace(const Device& device, int64_t rows, int64_t columns, int64_t wanted) {
  const int64_t keys = rows * parts_of(device, columns).count * wanted;
  const size_t counters = counter_bytes_of(rows);
  return {.counter_bytes = counters, .bytes = counters + static_cast<size_t>(keys) * sizeof(uint64_t)};
}

void largest(Device& device, const Largest& problem) {
  if (problem.rows == 0) return;
  if (problem.wanted < 1 || problem.wanted > kMostLargest || problem.rows > kMostRows)
    fail(ErrorKind::internal, "cuda: the {} largest of {} rows", problem.wanted, problem.rows);
  const Parts parts = parts_of(device, problem.columns);
  const LargestArguments arguments{.x = problem.x,
                                   .columns = problem.columns,
                                   .parts = parts.count,
                                   .part_columns = parts.columns,
                                   .wanted = static_cast<int>(problem.wanted),
                                   .workspace = parts_of<uint64_t>(problem),
                                   .counters = counters_of(problem),
                                   .values = problem.values,
                                   .indices = problem.indices};
  constexpr size_t kLists = kLargestThreads / 32 * kMostLargest * sizeof(uint64_t);
  launch(device, kLargest, {.x = parts.count, .y = static_cast<int>(problem.rows)}, arguments, kLists);
}

void sum_rows(Device& device, const Largest& problem, const LargestSums& wanted) {
  if (problem.rows == 0) return;
  const Parts parts = parts_of(device, problem.columns);
  const LargestSumArguments arguments{.x = problem.x,
                                      .columns = problem.columns,
                                      .parts = parts.count,
                                      .part_columns = parts.columns,
                                      .wanted = static_cast<int>(problem.wanted),
                                      .values = problem.values,
                                      .scales = wanted.scales,
                                      .workspace = parts_of<uint32_t>(problem),
                                      .counters = counters_of(problem),
                                      .sums = wanted.sums,
                                      .reaching = wanted.reaching};
  constexpr size_t kWords = 2 * kLargestThreads / 32 * sizeof(uint32_t);
  launch(device, kLargestSums, {.x = parts.count, .y = static_cast<int>(problem.rows)}, arguments, kWords);
}

}  // namespace salient::cuda
