#include "backend/cpu/gemm.h"

#include <signal.h>
#include <sys/time.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "backend/backend_fixture.h"

extern "C" int omp_get_max_threads(void);

namespace salient::test {
namespace {

int threads_of_this_process() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("Threads:")) return std::stoi(line.substr(8));
  }
  return -1;
}

TEST(Gemm, TheLibraryStartsNoThreadsAndKeepsTheOpenMpSetting) {
  set_thread_count(2);
  parallel_for(16, 1, [](size_t, size_t) {});
  const int openmp_threads = omp_get_max_threads();
  const int before = threads_of_this_process();
  std::mt19937 generator(7);
  const Tensor x = random_tensor(generator, {600, 500});
  const Tensor weight = random_tensor(generator, {400, 500});
  for (const MatmulPrecision precision : {MatmulPrecision::f32, MatmulPrecision::bf16}) {
    const auto backend = make_cpu_backend_for(supported_isas().back(), {.precision = precision});
    Tensor y = Tensor::empty(DType::f32, {600, 400});
    backend->linear(*backend->prepare({.dense = weight, .quantized = {}, .bias = {}}), x, y);
    Tensor gram = Tensor::zeros(DType::f32, {500, 500});
    backend->accumulate_gram(x, precision, gram);
  }
  EXPECT_EQ(threads_of_this_process(), before);
  EXPECT_EQ(omp_get_max_threads(), openmp_threads);
}

volatile sig_atomic_t alarms = 0;

/// Signals as often as the system allows while this process computes; with one busy thread they interrupt it.
class Alarms {
 public:
  Alarms() {
    struct sigaction action {};
    action.sa_handler = [](int) { alarms = alarms + 1; };
    sigaction(SIGVTALRM, &action, &before_);
    constexpr itimerval kOften{{0, 20}, {0, 20}};
    setitimer(ITIMER_VIRTUAL, &kOften, nullptr);
  }
  ~Alarms() {
    constexpr itimerval kNever{};
    setitimer(ITIMER_VIRTUAL, &kNever, nullptr);
    sigaction(SIGVTALRM, &before_, nullptr);
  }

 private:
  struct sigaction before_ {};
};

/// The library's code leaves less of the stack to signal handlers than it must, for some shapes.
TEST(Gemm, SignalsDoNotDisturbProducts) {
  Gemm gemm;
  const std::vector<float> ones(256 * 256, 1.0f);
  std::vector<float> c(96 * 96);
  const Alarms ticking;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  for (int64_t i = 0; std::chrono::steady_clock::now() < deadline; ++i) {
    const int64_t depth = i % 2 == 0 ? 96 : 192;
    gemm(GemmProblem<float>{.m = 96,
                            .n = 96,
                            .k = depth,
                            .a = {ones.data(), 256},
                            .b = {ones.data(), 256, Transposed::yes},
                            .c = c.data(),
                            .c_stride = 96});
    for (const float value : c) ASSERT_EQ(value, static_cast<float>(depth)) << i;
  }
  EXPECT_GT(alarms, 0);
}

TEST(Gemm, ThreadsShareOneObject) {
  if (!gemm_has_fast_bf16()) GTEST_SKIP() << "no bf16 products on this processor";
  Gemm gemm;
  const std::vector<uint16_t> ones(64 * 64, to_bfloat16(1.0f).bits);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int64_t n = 1; n <= 64; ++n) {
        std::vector<float> c(static_cast<size_t>(32 * n), -1.0f);
        gemm(GemmProblem<uint16_t>{.m = 32,
                                   .n = n,
                                   .k = 64,
                                   .a = {ones.data(), 64},
                                   .b = {ones.data(), 64},
                                   .c = c.data(),
                                   .c_stride = n});
        for (const float value : c) wrong[t] += value != 64.0f;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

}  // namespace
}  // namespace salient::test
