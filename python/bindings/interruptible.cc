#include "bindings/interruptible.h"

#include <chrono>
#include <thread>

#include "bindings/module.h"

namespace salient::python {
namespace {

/// How long Ctrl-C may go unnoticed.
constexpr auto kSignalInterval = std::chrono::milliseconds(50);

}  // namespace

void Interruptible::run(const std::function<void()>& work) {
  std::thread worker([&] {
    try {
      work();
    } catch (...) {
      work_error_ = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    finished_ = true;
    changed_.notify_all();
  });
  while (true) {
    wait_for_work();
    serve_callback();
    if (finished_) break;
    check_signals();
  }
  {
    const nb::gil_scoped_release released;
    worker.join();
  }
  if (caller_error_) std::rethrow_exception(caller_error_);
  if (work_error_) std::rethrow_exception(work_error_);
}

void Interruptible::call_back(const std::function<void()>& callback) {
  std::unique_lock lock(mutex_);
  callback_ = &callback;
  changed_.notify_all();
  changed_.wait(lock, [this] { return callback_ == nullptr; });
}

void Interruptible::wait_for_work() {
  const nb::gil_scoped_release released;
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kSignalInterval, [this] { return finished_ || callback_ != nullptr; });
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

}  // namespace salient::python
