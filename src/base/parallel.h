#pragma once

#include <cstddef>
#include <functional>

namespace salient {

/// How many threads `parallel_for` uses: SALIENT_THREADS if set, else the processors this process may run on
/// (affinity mask and cgroup quota).
size_t thread_count();

/// Overrides the number of threads from the next job on. Errors: invalid_argument for less than 1 or more
/// than 1024.
void set_thread_count(size_t count);

/// While it lives, so many threads.
class ThreadCountScope {
 public:
  explicit ThreadCountScope(size_t count) : before_(thread_count()) { set_thread_count(count); }
  ~ThreadCountScope() { set_thread_count(before_); }
  ThreadCountScope(const ThreadCountScope&) = delete;
  ThreadCountScope& operator=(const ThreadCountScope&) = delete;

 private:
  size_t before_;
};

/// Runs `body(begin, end)` over [0, count) in chunks of `grain`. The chunks depend on `count` and `grain`
/// only, never on the number of threads, so a body whose chunks are independent gives the same bytes on any
/// machine. Nested calls run in the calling thread. The first exception of a chunk is rethrown after all
/// running chunks have ended. A forked process may call it too, and starts threads of its own.
void parallel_for(size_t count, size_t grain, const std::function<void(size_t begin, size_t end)>& body);

}  // namespace salient
