#include "base/parallel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
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

/// Whoever asks next waits for the pool, and a worker that wakes late finds a gate that is another job's.
TEST(ParallelFor, CallersInSeveralThreadsTakeTurns) {
  set_thread_count(3);
  std::vector<size_t> totals(4);
  std::vector<std::thread> callers;
  for (size_t caller = 0; caller < totals.size(); ++caller) {
    callers.emplace_back([&totals, caller] {
      for (size_t i = 0; i < 2000; ++i) {
        std::atomic<size_t> sum{0};
        parallel_for(caller + 2, 1, [&](size_t begin, size_t) { sum += begin + 1; });
        totals[caller] += sum;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (size_t caller = 0; caller < totals.size(); ++caller)
    EXPECT_EQ(totals[caller], 2000 * (caller + 2) * (caller + 3) / 2);
}

TEST(ParallelFor, WhatOneThreadIsNotDoneWithOthersTake) {
  set_thread_count(2);
  constexpr size_t kChunks = 100;
  std::atomic<size_t> others{0};
  bool all_others_ran = false;
  parallel_for(kChunks, 1, [&](size_t begin, size_t) {
    if (begin != 0) {
      others++;
      return;
    }
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (others < kChunks - 1 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    all_others_ran = others == kChunks - 1;
  });
  EXPECT_TRUE(all_others_ran);
}

/// With fewer chunks than threads, and behind a job that has left chunks undone.
TEST(ParallelFor, EveryChunkOfShortJobsRunsExactlyOnce) {
  set_thread_count(7);
  for (const size_t count : {1, 2, 6, 7, 8, 50}) {
    EXPECT_THROW(parallel_for(500, 1, [](size_t, size_t) { fail(ErrorKind::internal, "all of them"); }),
                 Error);
    std::vector<std::atomic<int>> seen(count);
    parallel_for(count, 1, [&](size_t begin, size_t) { seen[begin]++; });
    for (const auto& times : seen) EXPECT_EQ(times.load(), 1) << "of " << count;
  }
}

/// Long enough for workers to fall asleep between jobs, and in one for the caller to.
TEST(ParallelFor, SleepersWake) {
  for (const size_t threads : {2, 5}) {
    set_thread_count(threads);
    for (int round = 0; round < 5; ++round) {
      std::this_thread::sleep_for(std::chrono::milliseconds(3));
      const auto caller = std::this_thread::get_id();
      std::atomic<int> met{0};
      parallel_for(2, 1, [&](size_t, size_t) {
        // Neither chunk ends before both have begun: two threads are at work.
        ++met;
        while (met < 2) std::this_thread::yield();
        if (std::this_thread::get_id() != caller) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      });
      EXPECT_EQ(met.load(), 2);
    }
  }
}

TEST(ParallelFor, TheNumberOfThreadsMayChangeBetweenAnyTwoJobs) {
  for (size_t i = 0; i < 300; ++i) {
    set_thread_count(1 + i % 5);
    std::atomic<size_t> sum{0};
    parallel_for(20, 3, [&](size_t begin, size_t end) { sum += end - begin; });
    EXPECT_EQ(sum.load(), 20u);
  }
}

TEST(ParallelFor, AnExceptionOfAnyThreadIsTheOnlyOneAndStopsTheRest) {
  for (const size_t threads : {1, 2, 6}) {
    set_thread_count(threads);
    std::atomic<size_t> ran{0};
    EXPECT_THROW(parallel_for(100000, 1,
                              [&](size_t, size_t) {
                                ++ran;
                                fail(ErrorKind::internal, "every chunk fails");
                              }),
                 Error);
    EXPECT_LE(ran.load(), threads);
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
