#include "base/parallel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <thread>
#include <vector>

#include "base/error.h"
#include "support/error_matcher.h"

namespace salient {
namespace {

TEST(ParallelFor, EveryIndexRunsExactlyOnceForAnyThreadCount) {
  for (const size_t threads : {1, 2, 3, 7}) {
    set_thread_count(threads);
    std::vector<std::atomic<int>> seen(1001);
    parallel_for(seen.size(), 13, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) seen[i]++;
    });
    for (const auto& count : seen) EXPECT_EQ(count.load(), 1);
  }
}

TEST(ParallelFor, ChunksDependOnCountAndGrainOnly) {
  set_thread_count(3);
  std::atomic<size_t> wrong{0};
  parallel_for(100, 32, [&](size_t begin, size_t end) {
    if (begin % 32 != 0 || end != std::min<size_t>(100, begin + 32)) wrong++;
  });
  EXPECT_EQ(wrong.load(), 0u);
}

TEST(ParallelFor, NestedCallsRun) {
  set_thread_count(2);
  std::atomic<int> total{0};
  parallel_for(8, 1, [&](size_t, size_t) {
    parallel_for(8, 1, [&](size_t begin, size_t end) { total += static_cast<int>(end - begin); });
  });
  EXPECT_EQ(total.load(), 64);
}

TEST(ParallelFor, AnExceptionReachesTheCallerAndThePoolSurvives) {
  set_thread_count(2);
  EXPECT_THROW(parallel_for(100, 1,
                            [](size_t begin, size_t) {
                              if (begin == 50) fail(ErrorKind::internal, "chunk {}", begin);
                            }),
               Error);
  std::atomic<int> total{0};
  parallel_for(10, 1, [&](size_t, size_t) { total++; });
  EXPECT_EQ(total.load(), 10);
}

TEST(ParallelFor, ManySmallJobsInARow) {
  set_thread_count(4);
  size_t total = 0;
  for (int i = 0; i < 5000; ++i) {
    std::atomic<size_t> sum{0};
    parallel_for(8, 2, [&](size_t begin, size_t end) { sum += end - begin; });
    total += sum;
  }
  EXPECT_EQ(total, 40000u);
}

TEST(ParallelFor, TheNumberOfThreadsCanBeAskedAndSetWhileAJobRuns) {
  for (const size_t threads : {1, 3}) {
    set_thread_count(threads);
    std::atomic<int> started{0};
    std::atomic<bool> end{false};
    std::thread other([&] {
      parallel_for(2, 1, [&](size_t, size_t) {
        ++started;
        while (!end) std::this_thread::yield();
      });
    });
    while (started == 0) std::this_thread::yield();
    EXPECT_EQ(thread_count(), threads);
    set_thread_count(2);
    EXPECT_EQ(thread_count(), 2u);
    end = true;
    other.join();
  }
}

TEST(ParallelFor, NumbersOfThreadsHaveLimits) {
  set_thread_count(2);
  for (const size_t count : {size_t{0}, size_t{1025}, std::numeric_limits<size_t>::max()}) {
    EXPECT_THAT(
        [&] { set_thread_count(count); },
        throws_error(ErrorKind::invalid_argument,
                     ::testing::StrEq(fmt::format("{} is no number of threads from 1 to 1024", count))));
  }
  EXPECT_EQ(thread_count(), 2u);
}

}  // namespace
}  // namespace salient
