#include "base/parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/processors.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace salient {
namespace {

/// Chunks of a job that one thread takes from the front, one after the other, for the memory that they read
/// is then one stream, which the processor reads ahead; and the same one in the next job of that shape, so
/// that what fits stays in that thread's cache. Threads that have nothing left take from the back.
class alignas(64) Share {
 public:
  /// Of chunks [begin, end). Nobody may be taking any.
  void assign(size_t begin, size_t end) { left_.store(pack(begin, end), std::memory_order_relaxed); }

  std::optional<size_t> take_first() {
    return take([](uint64_t begin, uint64_t end) { return std::pair(begin, pack(begin + 1, end)); });
  }
  std::optional<size_t> take_last() {
    return take([](uint64_t begin, uint64_t end) { return std::pair(end - 1, pack(begin, end - 1)); });
  }

 private:
  static constexpr int kBits = 32;
  static constexpr uint64_t pack(uint64_t begin, uint64_t end) { return begin << kBits | end; }

  /// `split` says of what is left which chunk to take and what then remains.
  template <typename Split>
  std::optional<size_t> take(const Split& split) {
    uint64_t left = left_.load(std::memory_order_relaxed);
    while (true) {
      const uint64_t begin = left >> kBits;
      const uint64_t end = left & UINT32_MAX;
      if (begin >= end) return std::nullopt;
      const auto [chunk, rest] = split(begin, end);
      if (left_.compare_exchange_weak(left, rest, std::memory_order_relaxed)) return chunk;
    }
  }

  std::atomic<uint64_t> left_{0};
};

/// One call of parallel_for.
struct Job {
  size_t count;
  size_t grain;
  size_t chunks;
  const std::function<void(size_t, size_t)>* body;
  std::span<Share> shares{};  // the caller's first; no more than chunks
  std::atomic<bool> failed{false};
  std::exception_ptr error{};
  std::mutex error_mutex{};  // taken by chunks that throw only

  void run(size_t chunk) {
    const size_t begin = chunk * grain;
    try {
      (*body)(begin, std::min(count, begin + grain));
    } catch (...) {
      const std::lock_guard lock(error_mutex);
      if (!error) error = std::current_exception();
      failed = true;
    }
  }
  void run_alone() {
    for (size_t chunk = 0; chunk < chunks && !failed; ++chunk) run(chunk);
  }
  /// Threads that have no share of their own only take from others.
  void run_shares(size_t own) {
    while (!failed) {
      std::optional<size_t> chunk;
      if (own < shares.size()) chunk = shares[own].take_first();
      for (size_t i = 1; !chunk && i <= shares.size(); ++i)
        chunk = shares[(own + i) % shares.size()].take_last();
      if (!chunk) return;
      run(*chunk);
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
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/// Returns once `value` is no longer `old`. A decode step starts hundreds of jobs a few microseconds apart,
/// so it spins first; then it sleeps, so that an idle or crowded machine is not disturbed. The spin is
/// bounded by time, for a pause takes from 10 to 140 cycles.
void wait_while(const std::atomic<uint32_t>& value, uint32_t old, std::chrono::microseconds spin) {
  constexpr int kPauses = 16;  // between two looks at the clock
  const auto start = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < kPauses; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
      pause_briefly();
    }
  } while (std::chrono::steady_clock::now() - start < spin);
  value.wait(old, std::memory_order_acquire);
}

size_t processors() { return std::min(processors_by_affinity(), processors_by_cgroup()); }

/// Threads that help whoever runs a job. The caller opens a gate, and works; workers that come while it is
/// open join, the others have missed nothing; when no chunk is left the caller closes the gate and waits for
/// those inside. So it never waits for a thread that sleeps or that the scheduler has put aside, unless that
/// thread holds a chunk. No lock is taken, and no system call made while nobody sleeps.
class ThreadPool {
 public:
  explicit ThreadPool(size_t threads)
      : wanted_(threads), spin_(threads <= processors() ? kSpin : kCrowdedSpin), shares_(threads) {
    // Where the system allows no more threads or has no memory for them, those that started do the work.
    try {
      workers_.reserve(threads - 1);
      for (size_t i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
    } catch (const std::system_error&) {
    } catch (const std::bad_alloc&) {
    }
  }
  ~ThreadPool() {
    stop_.store(true, std::memory_order_relaxed);
    announce();
    for (auto& worker : workers_) worker.join();
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  size_t wanted() const { return wanted_; }

  void run(Job& job) {
    job_ = &job;
    share_out(job);
    gate_.store(kOpen, std::memory_order_release);
    announce();
    {
      const InsideScope scope;
      job.run_shares(0);
    }
    uint32_t inside = gate_.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
    while (inside != 0) {
      wait_while(gate_, inside, spin_);
      inside = gate_.load(std::memory_order_acquire);
    }
  }

 private:
  static constexpr std::chrono::microseconds kSpin{50};
  /// With more threads than processors whoever spins keeps another from its work.
  static constexpr std::chrono::microseconds kCrowdedSpin{2};
  static constexpr uint32_t kOpen = uint32_t{1} << 31;  // of the gate; the rest counts the workers inside

  void share_out(Job& job) {
    const size_t count = std::min(wanted_, job.chunks);
    const auto begin_of = [&](size_t share) { return (job.chunks * share + count - 1) / count; };
    for (size_t i = 0; i < count; ++i) shares_[i].assign(begin_of(i), begin_of(i + 1));
    job.shares = std::span(shares_).first(count);
  }

  void announce() {
    news_.fetch_add(1, std::memory_order_seq_cst);
    news_.notify_all();
  }

  void work(size_t own) {
    const InsideScope scope;
    uint32_t seen = 0;
    while (true) {
      wait_while(news_, seen, spin_);
      seen = news_.load(std::memory_order_acquire);
      if (stop_.load(std::memory_order_relaxed)) return;
      if (!enter()) continue;
      job_->run_shares(own);
      // Nothing of the job may be touched from here on. The last one wakes a caller that has fallen asleep.
      if (gate_.fetch_sub(1, std::memory_order_acq_rel) == 1) gate_.notify_one();
    }
  }

  /// Whether the gate was open; then the job stays until this worker has left.
  bool enter() {
    uint32_t gate = gate_.load(std::memory_order_relaxed);
    while ((gate & kOpen) != 0) {
      if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire, std::memory_order_relaxed))
        return true;
    }
    return false;
  }

  size_t wanted_;
  std::chrono::microseconds spin_;
  std::vector<std::thread> workers_;
  alignas(64) std::atomic<uint32_t> news_{0};
  std::atomic<bool> stop_{false};
  alignas(64) std::atomic<uint32_t> gate_{0};
  // Written while the gate is closed and nobody inside.
  Job* job_ = nullptr;
  std::vector<Share> shares_;  // of the caller first
};

constexpr int kMostThreads = 1024;

size_t default_thread_count() {
  if (const char* text = std::getenv("SALIENT_THREADS")) {
    char* end = nullptr;
    const long value = std::strtol(text, &end, 10);
    if (*text != '\0' && *end == '\0' && value >= 1 && value <= kMostThreads)
      return static_cast<size_t>(value);
    fail(ErrorKind::invalid_argument, "SALIENT_THREADS: \"{}\" is no number of threads from 1 to {}", text,
         kMostThreads);
  }
  return std::min(processors(), size_t{kMostThreads});
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
  // A share counts chunks in 32 bits.
  if (inside_parallel_for || job.chunks == 1 || job.chunks > UINT32_MAX) {
    job.run_alone();
  } else {
    SharedPool& shared = shared_pool();
    // The lock keeps callers in different threads apart: one job owns the pool at a time.
    const std::lock_guard lock(shared.mutex);
    const size_t threads = thread_count();
    if (threads == 1) {
      const InsideScope scope;
      job.run_alone();
    } else {
      if (!shared.pool || shared.pool->wanted() != threads)
        shared.pool = std::make_unique<ThreadPool>(threads);
      shared.pool->run(job);
    }
  }
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace salient
