#include "backend/cpu/largest_values.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>

#include "base/parallel.h"

// Values are compared as keys: integers in the order of the values with the index behind, so that ties and
// NaN need no thought. A piece of a row keeps the keys that beat the least of its best ones; that is decided
// for a line of values at a time, of which behind the first few hundred hardly any has one.

namespace salient {
namespace {

/// Columns that a thread looks at: some microseconds.
constexpr size_t kPiece = 16384;
constexpr size_t kLine = 64;

/// Integers in the order of the values; 0 for NaN.
uint32_t order_of(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value + 0.0f);  // of both zeros the same
  const uint32_t order = bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
  return (bits & 0x7fffffffu) > 0x7f800000u ? 0 : order;
}
float value_of(uint32_t order) {
  if (order == 0) return NAN;
  return std::bit_cast<float>(order ^ ((order >> 31) != 0 ? 0x80000000u : 0xffffffffu));
}
uint64_t key_of(float value, size_t index) {
  return uint64_t{order_of(value)} << 32 | ~static_cast<uint32_t>(index);
}
int32_t index_of(uint64_t key) { return static_cast<int32_t>(~static_cast<uint32_t>(key)); }

/// The largest keys of those that come in the order of their indices.
class BestKeys {
 public:
  explicit BestKeys(size_t wanted) : wanted_(wanted) {}

  void take(std::span<const float> line, size_t first) {
    // NaN may be better as far as this tells, on both sides.
    uint32_t better = full_ ? 0 : 1;
    for (const float value : line) better |= value <= least_value_ ? 0u : 1u;
    if (better == 0) return;
    for (size_t i = 0; i < line.size(); ++i)
      if (!full_ || order_of(line[i]) > least_) take(key_of(line[i], first + i));
  }
  void take(uint64_t key) {
    keys_.push_back(key);
    if (keys_.size() < 2 * wanted_) return;
    shrink();
    full_ = true;
    least_ = static_cast<uint32_t>(keys_[wanted_ - 1] >> 32);
    least_value_ = value_of(least_);
  }
  /// In descending order.
  std::vector<uint64_t> sorted() {
    shrink();
    std::ranges::sort(keys_, std::greater<>());
    return std::move(keys_);
  }

 private:
  void shrink() {
    if (keys_.size() <= wanted_) return;
    std::ranges::nth_element(keys_, keys_.begin() + static_cast<ptrdiff_t>(wanted_ - 1), std::greater<>());
    keys_.resize(wanted_);
  }

  size_t wanted_;
  std::vector<uint64_t> keys_;
  bool full_ = false;
  uint32_t least_ = 0;       // the order of the least key that counts, once there are enough
  float least_value_ = NAN;  // what it stands for
};

std::vector<uint64_t> best_of(std::span<const float> values, size_t first, size_t wanted) {
  BestKeys best(wanted);
  for (size_t at = 0; at < values.size(); at += kLine)
    best.take(values.subspan(at, std::min(kLine, values.size() - at)), first + at);
  return best.sorted();
}

struct Tail {
  double sum = 0;
  int32_t reaching = 0;
};

Tail tail_of(std::span<const float> values, float largest, float last, float scale) {
  Tail tail;
  for (const float value : values) {
    tail.sum += std::exp((double{value} - double{largest}) * double{scale});
    tail.reaching += value >= last ? 1 : 0;
  }
  return tail;
}

/// A problem cut into pieces of rows.
class Pieces {
 public:
  explicit Pieces(const LargestProblem& problem)
      : x_(problem.x.values<float>()),
        rows_(static_cast<size_t>(problem.x.dim(0))),
        columns_(static_cast<size_t>(problem.x.dim(1))),
        of_row_((columns_ + kPiece - 1) / kPiece) {}

  size_t of_row() const { return of_row_; }
  size_t count() const { return rows_ * of_row_; }
  /// body(piece, its row, its first column, its values), in parallel.
  template <typename Body>
  void for_each(const Body& body) const {
    parallel_for(count(), 1, [&](size_t piece, size_t) {
      const size_t row = piece / of_row_;
      const size_t first = piece % of_row_ * kPiece;
      body(piece, row, first, x_.subspan(row * columns_ + first, std::min(kPiece, columns_ - first)));
    });
  }
  float at(size_t row, int32_t column) const { return x_[row * columns_ + static_cast<size_t>(column)]; }

 private:
  std::span<const float> x_;
  size_t rows_;
  size_t columns_;
  size_t of_row_;
};

void find_largest(const Pieces& pieces, LargestValues& result) {
  const auto wanted = static_cast<size_t>(result.wanted);
  std::vector<std::vector<uint64_t>> keys(pieces.count());
  pieces.for_each([&](size_t piece, size_t, size_t first, std::span<const float> values) {
    keys[piece] = best_of(values, first, wanted);
  });
  for (size_t at = 0; at < result.values.size(); at += wanted) {
    const size_t row = at / wanted;
    BestKeys best(wanted);
    for (size_t i = 0; i < pieces.of_row(); ++i)
      for (const uint64_t key : keys[row * pieces.of_row() + i]) best.take(key);
    const std::vector<uint64_t> sorted = best.sorted();
    for (size_t i = 0; i < sorted.size(); ++i) {
      result.indices[at + i] = index_of(sorted[i]);
      result.values[at + i] = pieces.at(row, result.indices[at + i]);
    }
  }
}

void sum_up(const Pieces& pieces, std::span<const float> scales, LargestValues& result) {
  const auto wanted = static_cast<size_t>(result.wanted);
  std::vector<Tail> tails(pieces.count());
  pieces.for_each([&](size_t piece, size_t row, size_t, std::span<const float> values) {
    const auto best = std::span(result.values).subspan(row * wanted, wanted);
    tails[piece] = tail_of(values, best.front(), best.back(), scales[row]);
  });
  for (size_t row = 0; row < scales.size(); ++row) {
    Tail whole;
    for (size_t i = 0; i < pieces.of_row(); ++i) {
      whole.sum += tails[row * pieces.of_row() + i].sum;
      whole.reaching += tails[row * pieces.of_row() + i].reaching;
    }
    result.sums.push_back(static_cast<float>(whole.sum));
    result.reaching.push_back(whole.reaching);
  }
}

}  // namespace

LargestValues largest_values(const LargestProblem& problem) {
  const auto count = static_cast<size_t>(problem.x.dim(0) * problem.wanted);
  LargestValues result{.wanted = problem.wanted,
                       .values = std::vector<float>(count),
                       .indices = std::vector<int32_t>(count, -1),
                       .sums = {},
                       .reaching = {}};
  const Pieces pieces(problem);
  find_largest(pieces, result);
  if (!problem.scales.empty()) sum_up(pieces, problem.scales, result);
  return result;
}

}  // namespace salient
