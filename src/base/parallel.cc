#include "base/parallel.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace salient {
namespace {

/// One call of parallel_for: chunks are handed out by a counter.
struct Job {
  size_t count;
  size_t grain;
  size_t chunks;
  const std::function<void(size_t, size_t)>* body;
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error{};
  std::mutex error_mutex{};

  void run() {
    for (size_t chunk = next.fetch_add(1); chunk < chunks && !failed; chunk = next.fetch_add(1)) {
      const size_t begin = chunk * grain;
      try {
        (*body)(begin, std::min(count, begin + grain));
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        failed = true;
      }
    }
  }
};

thread_local bool inside_parallel_for = false;

/// Marks this thread as working on a job, for nested calls.
struct InsideScope {
  InsideScope() { inside_parallel_for = true; }
  ~InsideScope() { inside_parallel_for = false; }
};

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

/// Workers wait for a new generation: a short spin first (a decode step starts hundreds of jobs a few
/// microseconds apart), then asleep, so that an idle or crowded machine is not disturbed.
class ThreadPool {
 public:
  explicit ThreadPool(size_t threads) : wanted_(threads) {
    // Where the system allows no more threads or has no memory for them, those that started do the work.
    try {
      workers_.reserve(threads - 1);
      for (size_t i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
    } catch (const std::bad_alloc&) {
    }
  }
  ~ThreadPool() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
      generation_.fetch_add(1);
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  size_t wanted() const { return wanted_; }

  void run(Job& job) {
    {
      const std::lock_guard lock(mutex_);
      job_ = &job;
      busy_ = workers_.size();
      generation_.fetch_add(1);
    }
    wake_.notify_all();
    {
      const InsideScope scope;
      job.run();
    }
    for (int spin = 0; spin < kSpins && busy_.load() != 0; ++spin) pause_briefly();
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return busy_.load() == 0; });
    job_ = nullptr;
  }

 private:
  static constexpr int kSpins = 2000;  // about 20-50 microseconds

  void work() {
    const InsideScope scope;
    size_t seen = 0;
    while (true) {
      for (int spin = 0; spin < kSpins && generation_.load() == seen; ++spin) pause_briefly();
      Job* job = nullptr;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load() != seen; });
        if (stop_) return;
        seen = generation_.load();
        job = job_;
      }
      job->run();
      const std::lock_guard lock(mutex_);
      if (busy_.fetch_sub(1) == 1) done_.notify_one();
    }
  }

  size_t wanted_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::atomic<size_t> generation_{0};
  std::atomic<size_t> busy_{0};
  Job* job_ = nullptr;
  bool stop_ = false;
};

constexpr int kMostThreads = 1024;

size_t processors_by_affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return std::max(1u, std::thread::hardware_concurrency());
  return static_cast<size_t>(std::max(1, CPU_COUNT(&set)));
}

size_t processors_by_cgroup() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) return SIZE_MAX;
  const double processors = std::strtod(quota.c_str(), nullptr) / period;
  return processors > 0 ? std::max<size_t>(1, static_cast<size_t>(std::ceil(processors))) : SIZE_MAX;
}

size_t default_thread_count() {
  if (const char* text = std::getenv("SALIENT_THREADS")) {
    char* end = nullptr;
    const long value = std::strtol(text, &end, 10);
    if (*text != '\0' && *end == '\0' && value >= 1 && value <= kMostThreads)
      return static_cast<size_t>(value);
    fail(ErrorKind::invalid_argument, "SALIENT_THREADS: \"{}\" is no number of threads from 1 to {}", text,
         kMostThreads);
  }
  return std::min({processors_by_affinity(), processors_by_cgroup(), size_t{kMostThreads}});
}

std::atomic<size_t> wanted_threads{0};  // 0: not known yet

void survive_forks();

/// The pool and the lock of the job that owns it. Never destroyed: threads may be at work while the process
/// exits.
struct SharedPool {
  SharedPool() { survive_forks(); }

  std::mutex mutex;
  std::unique_ptr<ThreadPool> pool;
};

SharedPool& shared_pool() {
  static SharedPool& shared = *new SharedPool;
  return shared;
}

/// A forked process has a copy of the pool but none of its threads, and a lock whose owner may be gone.
void forget_pool_in_child() {
  static ThreadPool* abandoned = nullptr;    // reachable, so that no checker takes it for a leak
  abandoned = shared_pool().pool.release();  // to destroy it would be to join threads that are not there
  static_cast<void>(abandoned);
  new (&shared_pool().mutex) std::mutex;
  inside_parallel_for = false;
}

/// Forking waits for the job at work, so that no lock of a library that it calls is copied as held. A body
/// that forks would wait for itself.
void survive_forks() {
  // It can only fail for lack of memory, and matters in processes that fork.
  static_cast<void>(pthread_atfork(
      [] {
        if (!inside_parallel_for) shared_pool().mutex.lock();
      },
      [] {
        if (!inside_parallel_for) shared_pool().mutex.unlock();
      },
      forget_pool_in_child));
}

}  // namespace

size_t thread_count() {
  size_t wanted = wanted_threads.load();
  if (wanted != 0) return wanted;
  const size_t found = default_thread_count();
  // Whoever has named a number meanwhile is right.
  return wanted_threads.compare_exchange_strong(wanted, found) ? found : wanted;
}

void set_thread_count(size_t count) {
  if (count < 1 || count > kMostThreads) {
    fail(ErrorKind::invalid_argument, "{} is no number of threads from 1 to {}", count, kMostThreads);
  }
  wanted_threads = count;
}

void parallel_for(size_t count, size_t grain, const std::function<void(size_t, size_t)>& body) {
  if (count == 0) return;
  grain = std::max<size_t>(1, grain);
  Job job{.count = count, .grain = grain, .chunks = (count + grain - 1) / grain, .body = &body};
  if (inside_parallel_for || job.chunks == 1) {
    job.run();
  } else {
    SharedPool& shared = shared_pool();
    // The lock keeps callers in different threads apart: one job owns the pool at a time.
    const std::lock_guard lock(shared.mutex);
    const size_t threads = thread_count();
    if (threads == 1) {
      const InsideScope scope;
      job.run();
    } else {
      if (!shared.pool || shared.pool->wanted() != threads)
        shared.pool = std::make_unique<ThreadPool>(threads);
      shared.pool->run(job);
    }
  }
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace salient
