#include "bindings/interruptible.h"

#include <cxxabi.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "bindings/module.h"

namespace salient::python {
namespace {

/// How long Ctrl-C may go unnoticed.
constexpr auto kSignalInterval = std::chrono::milliseconds(50);

}  // namespace

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
  {
    const Worker worker(*this, work);
    bool finished = false;
    while (!finished) {
      finished = wait_for_work();
      serve_callback();
      if (!finished) check_signals();
    }
  }
  if (caller_error_) std::rethrow_exception(caller_error_);
  if (work_error_) std::rethrow_exception(work_error_);
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
    while (true) pause();
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
