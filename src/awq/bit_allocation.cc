#include "awq/bit_allocation.h"

#include <algorithm>
#include <tuple>

#include "base/error.h"

namespace salient {
namespace {

/// From one corner of a unit's hull to the next.
struct Step {
  size_t unit;
  size_t to;  ///< index of a width
  int64_t cost;
  double gain_per_bit;
};

/// The steps of one unit: each takes away less per bit than the one before it.
void append_steps(const BitUnit& unit, size_t index, std::vector<Step>& steps) {
  for (size_t from = 0; from + 1 < kBitWidths;) {
    Step best{.unit = index, .to = from, .cost = 0, .gain_per_bit = 0};
    for (size_t to = from + 1; to < kBitWidths; ++to) {
      const int64_t cost = unit.size[to] - unit.size[from];
      const double gain = (unit.error[from] - unit.error[to]) / static_cast<double>(cost);
      if (gain > best.gain_per_bit) best = {.unit = index, .to = to, .cost = cost, .gain_per_bit = gain};
    }
    if (best.to == from) return;  // no further bit takes anything away
    steps.push_back(best);
    from = best.to;
  }
}

}  // namespace

std::vector<int> allocate_bits(std::span<const BitUnit> units, int64_t budget) {
  std::vector<Step> steps;
  for (size_t i = 0; i < units.size(); ++i) {
    budget -= units[i].size.front();
    append_steps(units[i], i, steps);
  }
  if (budget < 0) fail(ErrorKind::internal, "the fewest bits take {} more than there are", -budget);
  std::sort(steps.begin(), steps.end(), [](const Step& a, const Step& b) {
    return std::tuple(-a.gain_per_bit, a.unit, a.to) < std::tuple(-b.gain_per_bit, b.unit, b.to);
  });
  std::vector<int> bits(units.size(), kLeastBits);
  std::vector<bool> ended(units.size());
  for (const Step& step : steps) {
    if (ended[step.unit] || step.cost > budget) {
      ended[step.unit] = true;
      continue;
    }
    budget -= step.cost;
    bits[step.unit] = kLeastBits + static_cast<int>(step.to);
  }
  return bits;
}

}  // namespace salient
