// What it costs to hand a job to the thread pool: the time of parallel_for over as many empty chunks as there
// are threads, jobs following one another at once or after a pause of the caller, as between the products of
// a decoded token; and of jobs whose chunks take 5 microseconds each, which two threads finish in half of the
// time that one needs. With processes that keep the processors busy beside it, a pool that spins without
// bound, or waits for threads that have nothing to do, loses whole slices of the scheduler's time: see the
// mean.
//
// Usage: pool_bench [BUSY], the number of busy processes (0); SALIENT_THREADS applies.

#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "base/parallel.h"

namespace salient {
namespace {

using Clock = std::chrono::steady_clock;

double microseconds(Clock::duration duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

void work_for(double duration) {
  const auto start = Clock::now();
  while (microseconds(Clock::now() - start) < duration) {
  }
}

struct JobKind {
  size_t chunks;
  double chunk_time;  // microseconds
  double pause;       // of the caller between two jobs, microseconds
};

void measure(const JobKind& kind) {
  const int jobs = static_cast<int>(std::clamp(2e6 / (kind.pause + kind.chunk_time + 10), 500.0, 20000.0));
  std::vector<double> times;
  for (int i = 0; i < jobs; ++i) {
    work_for(kind.pause);
    const auto start = Clock::now();
    parallel_for(kind.chunks, 1, [&](size_t, size_t) { work_for(kind.chunk_time); });
    times.push_back(microseconds(Clock::now() - start));
  }
  std::sort(times.begin(), times.end());
  const double mean = std::accumulate(times.begin(), times.end(), 0.0) / static_cast<double>(jobs);
  const auto share = [&](double part) { return times[static_cast<size_t>(part * (jobs - 1))]; };
  fmt::print("{:>8} {:>12.0f} {:>10.0f} {:>10.2f} {:>10.2f} {:>10.2f} {:>10.2f}\n", kind.chunks,
             kind.chunk_time, kind.pause, share(0.5), mean, share(0.99), times.back());
  std::fflush(stdout);
}

/// Processes that compute nothing until the program ends.
class BusyProcesses {
 public:
  explicit BusyProcesses(int count) {
    for (int i = 0; i < count; ++i) {
      const pid_t child = fork();
      if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (true) asm volatile("");
      }
      if (child > 0) children_.push_back(child);
    }
  }
  ~BusyProcesses() {
    for (const pid_t child : children_) {
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
    }
  }
  BusyProcesses(const BusyProcesses&) = delete;
  BusyProcesses& operator=(const BusyProcesses&) = delete;

 private:
  std::vector<pid_t> children_;
};

void run(int busy) {
  const BusyProcesses processes(busy);
  fmt::print("{} threads, {} busy processes; microseconds\n", thread_count(), busy);
  fmt::print("{:>8} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10}\n", "chunks", "a chunk", "pause", "median",
             "mean", "99 %", "most");
  const size_t threads = thread_count();
  for (const double pause : {0.0, 5.0, 30.0, 1000.0}) measure({threads, 0, pause});
  for (const double pause : {0.0, 5.0}) measure({8 * threads, 5, pause});
}

}  // namespace
}  // namespace salient

int main(int count, char** arguments) {
  salient::run(count > 1 ? std::atoi(arguments[1]) : 0);
  return 0;
}
