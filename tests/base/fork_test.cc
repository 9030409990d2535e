#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "backend/backend.h"
#include "base/parallel.h"
#include "support/random.h"

namespace salient {
namespace {

#if defined(__SANITIZE_THREAD__)
constexpr bool kThreadSanitizer = true;  // it does not follow a process of several threads that forks
#else
constexpr bool kThreadSanitizer = false;
#endif

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kAddressSanitizer = true;  // a fork may copy a lock of its allocator that another thread holds
#else
constexpr bool kAddressSanitizer = false;
#endif

/// Runs `body` in a forked process; whether it came back true within half a minute.
template <typename Body>
bool holds_in_child(Body&& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(30);  // a child that hangs is killed
    _exit(body() ? 0 : 1);
  }
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool every_index_runs() {
  std::vector<std::atomic<int>> seen(1001);
  parallel_for(seen.size(), 13, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) seen[i]++;
  });
  return std::all_of(seen.begin(), seen.end(), [](const auto& count) { return count.load() == 1; });
}

/// The parameter: how many threads the parent uses.
class Fork : public ::testing::TestWithParam<size_t> {
 protected:
  void SetUp() override {
    if (kThreadSanitizer) GTEST_SKIP();
    set_thread_count(GetParam());
    EXPECT_TRUE(every_index_runs());
  }
};

TEST_P(Fork, AChildHasThreadsOfItsOwn) {
  EXPECT_TRUE(holds_in_child([] { return every_index_runs() && every_index_runs(); }));
  EXPECT_TRUE(holds_in_child([] { return holds_in_child(every_index_runs); }));
  EXPECT_TRUE(every_index_runs());
}

TEST_P(Fork, AChildMayChangeTheNumberOfThreads) {
  EXPECT_TRUE(holds_in_child([] {
    set_thread_count(2);
    return every_index_runs();
  }));
}

TEST_P(Fork, AJobOfAnotherThreadDoesNotMatter) {
  if (kAddressSanitizer) GTEST_SKIP();
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) every_index_runs();
  });
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(holds_in_child(every_index_runs));
  stop = true;
  other.join();
}

/// A body that forks: the child can use the pool, though it cannot finish the job it came from.
TEST_P(Fork, InsideAJobTheChildStartsAfresh) {
  std::atomic<int> good{0};
  parallel_for(3, 1, [&](size_t, size_t) { good += holds_in_child(every_index_runs) ? 1 : 0; });
  EXPECT_EQ(good.load(), 3);
}

/// oneDNN brings OpenMP along, whose threads do not survive a fork either.
TEST_P(Fork, AChildMultipliesMatrices) {
  for (const MatmulPrecision precision : {MatmulPrecision::f32, MatmulPrecision::bf16}) {
    const auto backend = make_cpu_backend({.precision = precision});
    LinearWeight weight;
    weight.dense = random_tensor({96, 64}, 1, 1.0f);
    const auto prepared = backend->prepare(weight);
    const Tensor x = random_tensor({40, 64}, 2, 1.0f);
    Tensor expected = Tensor::empty(DType::f32, {40, 96});
    backend->linear(*prepared, x, expected);
    EXPECT_TRUE(holds_in_child([&] {
      Tensor y = Tensor::empty(DType::f32, {40, 96});
      backend->linear(*prepared, x, y);
      return std::ranges::equal(y.values<float>(), expected.values<float>());
    }));
    EXPECT_TRUE(holds_in_child([&] {
      const auto own = make_cpu_backend({.precision = precision});
      Tensor y = Tensor::empty(DType::f32, {40, 96});
      own->linear(*own->prepare(weight), x, y);
      return std::ranges::equal(y.values<float>(), expected.values<float>());
    }));
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, Fork, ::testing::Values(1, 3));

}  // namespace
}  // namespace salient
