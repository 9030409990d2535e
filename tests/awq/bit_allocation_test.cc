#include "awq/bit_allocation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "support/error_matcher.h"

namespace salient {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Errors fall by 4 with each bit, as those of rounding do.
BitUnit unit_of(double error_at_least_bits, int64_t elements) {
  BitUnit unit;
  for (size_t i = 0; i < kBitWidths; ++i) {
    unit.error[i] = error_at_least_bits * std::pow(0.25, static_cast<double>(i));
    unit.size[i] = elements * (kLeastBits + static_cast<int>(i));
  }
  return unit;
}

std::vector<BitUnit> random_units(uint32_t seed, size_t count) {
  std::mt19937 random(seed);
  std::vector<BitUnit> units;
  for (size_t i = 0; i < count; ++i) {
    units.push_back(unit_of(0.001 * static_cast<double>(1 + random() % 1000), 1 + random() % 64));
    // Measured curves are not always convex, nor falling.
    for (double& error : units.back().error) error *= 0.5 + static_cast<double>(random() % 1000) / 1000;
  }
  return units;
}

size_t index_of(int bits) { return static_cast<size_t>(bits - kLeastBits); }

int64_t size_of(const std::vector<BitUnit>& units, const std::vector<int>& bits) {
  int64_t size = 0;
  for (size_t i = 0; i < units.size(); ++i) size += units[i].size[index_of(bits[i])];
  return size;
}

double error_of(const std::vector<BitUnit>& units, const std::vector<int>& bits) {
  double error = 0;
  for (size_t i = 0; i < units.size(); ++i) error += units[i].error[index_of(bits[i])];
  return error;
}

int64_t least_size(const std::vector<BitUnit>& units) {
  return size_of(units, std::vector<int>(units.size(), kLeastBits));
}
int64_t most_size(const std::vector<BitUnit>& units) {
  return size_of(units, std::vector<int>(units.size(), kMostBits));
}

/// The least error of all choices within the budget.
double best_error(const std::vector<BitUnit>& units, int64_t budget) {
  double best = std::numeric_limits<double>::infinity();
  std::vector<int> bits(units.size(), kLeastBits);
  for (;;) {
    if (size_of(units, bits) <= budget) best = std::min(best, error_of(units, bits));
    size_t i = 0;
    while (i < bits.size() && ++bits[i] > kMostBits) bits[i++] = kLeastBits;
    if (i == bits.size()) return best;
  }
}

TEST(BitAllocation, TheEndsAreTheFewestAndTheMostBits) {
  const std::vector<BitUnit> units{unit_of(1, 10), unit_of(0.2, 30)};
  EXPECT_THAT(allocate_bits(units, least_size(units)), Each(kLeastBits));
  EXPECT_THAT(allocate_bits(units, most_size(units)), Each(kMostBits));
  EXPECT_THAT(allocate_bits(units, 1'000'000), Each(kMostBits));
}

TEST(BitAllocation, BitsGoWhereTheyTakeAwayMost) {
  // Sixteen times the error is worth two bits more of as many elements.
  const std::vector<BitUnit> units{unit_of(1, 10), unit_of(16, 10)};
  EXPECT_THAT(allocate_bits(units, 10 * (3 + 5)), ElementsAre(3, 5));
  // The same error in a quarter of the elements is worth one bit more.
  const std::vector<BitUnit> sizes{unit_of(1, 40), unit_of(1, 10)};
  EXPECT_THAT(allocate_bits(sizes, 40 * 4 + 10 * 5), ElementsAre(4, 5));
}

TEST(BitAllocation, EqualUnitsAreServedInTheirOrder) {
  const std::vector<BitUnit> units(4, unit_of(1, 10));
  EXPECT_THAT(allocate_bits(units, 4 * 20 + 20), ElementsAre(3, 3, 2, 2));
}

TEST(BitAllocation, WhatDoesNotFitLeavesItsRoomToOthers) {
  const std::vector<BitUnit> units{unit_of(100, 50), unit_of(1, 10)};
  EXPECT_THAT(allocate_bits(units, least_size(units) + 49), ElementsAre(2, 6));
}

TEST(BitAllocation, AWidthThatTakesNothingAwayIsPassedOver) {
  BitUnit unit = unit_of(1, 10);
  unit.error = {1, 1.5, 0.25, 0.25, 0.5, 0.25, 0.25};
  const std::vector<BitUnit> units{unit};
  EXPECT_THAT(allocate_bits(units, 10 * 3), ElementsAre(2));
  EXPECT_THAT(allocate_bits(units, 10 * 8), ElementsAre(4));
  unit.error.fill(0);
  EXPECT_THAT(allocate_bits(std::vector<BitUnit>{unit}, 10 * 8), ElementsAre(2));
}

TEST(BitAllocation, KeepsTheBudgetAndNeverLosesByALargerOne) {
  for (uint32_t seed = 0; seed < 30; ++seed) {
    const auto units = random_units(seed, 1 + seed);
    double last = std::numeric_limits<double>::infinity();
    for (int64_t budget = least_size(units); budget <= most_size(units); budget += 3) {
      const auto bits = allocate_bits(units, budget);
      ASSERT_LE(size_of(units, bits), budget);
      const double error = error_of(units, bits);
      ASSERT_LE(error, last * (1 + 1e-12)) << "seed " << seed << ", budget " << budget;
      last = error;
      ASSERT_EQ(bits, allocate_bits(units, budget));
    }
  }
}

/// What is lost against the best choice is less than the last step that did not fit would have gained; where
/// the budget is that of a corner of the common hull nothing is lost.
TEST(BitAllocation, IsTheBestChoiceAtItsOwnSizes) {
  for (uint32_t seed = 0; seed < 12; ++seed) {
    const auto units = random_units(seed + 100, 4);
    for (int64_t budget = least_size(units); budget <= most_size(units); budget += 17) {
      const auto bits = allocate_bits(units, budget);
      const double error = error_of(units, bits);
      const double best = best_error(units, budget);
      ASSERT_LE(best, error * (1 + 1e-12));
      double largest_unit = 0;
      for (const BitUnit& unit : units) largest_unit = std::max(largest_unit, unit.error.front());
      ASSERT_LE(error, best + largest_unit);
    }
  }
}

TEST(BitAllocation, ABudgetBelowTheLeastIsACallersMistake) {
  const std::vector<BitUnit> units{unit_of(1, 10)};
  EXPECT_THAT([&] { allocate_bits(units, 19); },
              throws_error(ErrorKind::internal, HasSubstr("take 1 more than there are")));
}

}  // namespace
}  // namespace salient
