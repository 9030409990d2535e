#include "bindings/interruptible.h"

#include <cxxabi.h>
#include <unistd.h>

#include <chrono>
#include <set>
#include <thread>

#include "bindings/module.h"

namespace salient::python {
namespace {

/// How long Ctrl-C may go unnoticed.
constexpr auto kSignalInterval = std::chrono::milliseconds(50);
/// How long the end of the interpreter waits for work to notice its flag.
constexpr auto kLongestEnd = std::chrono::seconds(10);

/// Where a thread of Python's stays while the process ends, instead of being unwound through functions that
/// do not survive it; Python 3.14 does the same.
[[noreturn]] void stay() {
  while (true) pause();
}

}  // namespace

/// All work under way. Never destroyed: threads may outlive the interpreter.
struct Interruptible::Live {
  std::mutex mutex{};
  std::condition_variable changed{};
  std::set<Interruptible*> jobs{};
  bool ending = false;
  const pid_t process = getpid();  // a forked child has the list, but not the threads

  static Live& instance() {
    static auto& live = *new Live;
    return live;
  }
  /// False when the interpreter is about to end, and nothing new may begin.
  bool add(Interruptible* job) {
    const std::lock_guard lock(mutex);
    if (!ending) jobs.insert(job);
    return !ending;
  }
  void remove(Interruptible* job) {
    const std::lock_guard lock(mutex);
    jobs.erase(job);
    changed.notify_all();
  }
  bool is_ending() {
    const std::lock_guard lock(mutex);
    return ending;
  }
};

/// The thread that works. However the calling thread leaves, the work ends before what it refers to is gone.
class Interruptible::Worker {
 public:
  Worker(Interruptible& job, const std::function<void()>& work)
      : job_(job), thread_([&job, &work] {
          try {
            work();
          } catch (...) {
            job.work_error_ = std::current_exception();
          }
          Live::instance().remove(&job);
          const std::lock_guard lock(job.mutex_);
          job.finished_ = true;
          job.changed_.notify_all();
        }) {}
  ~Worker() {
    job_.abandon();
    thread_.join();
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

 private:
  Interruptible& job_;
  std::thread thread_;
};

void Interruptible::run(const std::function<void()>& work) {
  if (Live::instance().add(this)) {
    const Worker worker(*this, work);
    bool finished = false;
    while (!finished) {
      finished = wait_for_work();
      serve_callback();
      if (!finished) check_signals();
    }
  }
  if (Live::instance().is_ending()) {
    PyEval_SaveThread();
    stay();
  }
  if (caller_error_) std::rethrow_exception(caller_error_);
  if (work_error_) std::rethrow_exception(work_error_);
}

void Interruptible::end_all() {
  const nb::gil_scoped_release released;
  Live& live = Live::instance();
  if (live.process != getpid()) return;
  std::unique_lock lock(live.mutex);
  live.ending = true;
  for (Interruptible* job : live.jobs) job->abandon();
  live.changed.wait_for(lock, kLongestEnd, [&] { return live.jobs.empty(); });
}

void Interruptible::call_back(const std::function<void()>& callback) {
  std::unique_lock lock(mutex_);
  if (abandoned_) return;
  callback_ = &callback;
  changed_.notify_all();
  changed_.wait(lock, [this] { return callback_ == nullptr; });
}

bool Interruptible::wait_for_work() {
  PyThreadState* state = PyEval_SaveThread();
  bool finished = false;
  {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kSignalInterval, [this] { return finished_ || callback_ != nullptr; });
    finished = finished_;
  }
  try {
    PyEval_RestoreThread(state);
  } catch (const abi::__forced_unwind&) {
    // The interpreter shuts down and ends this thread by unwinding its stack, which the functions between
    // here and Python's do not survive. So it stays here until the process ends, as Python 3.14 has it.
    abandon();
    stay();
  }
  return finished;
}

void Interruptible::serve_callback() {
  const std::function<void()>* callback = nullptr;
  {
    const std::lock_guard lock(mutex_);
    callback = callback_;
  }
  if (callback == nullptr) return;
  try {
    if (!caller_error_) (*callback)();
  } catch (...) {
    caller_error_ = std::current_exception();
    flag_ = true;
  }
  const std::lock_guard lock(mutex_);
  callback_ = nullptr;
  changed_.notify_all();
}

void Interruptible::check_signals() {
  if (caller_error_ || PyErr_CheckSignals() == 0) return;
  caller_error_ = std::make_exception_ptr(nb::python_error());
  flag_ = true;
}

/// The work has ended, or is to end as soon as it can, without callbacks.
void Interruptible::abandon() {
  const std::lock_guard lock(mutex_);
  flag_ = true;
  abandoned_ = true;
  callback_ = nullptr;
  changed_.notify_all();
}

}  // namespace salient::python
