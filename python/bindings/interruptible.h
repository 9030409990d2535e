#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>

#include "base/cancellation.h"

namespace salient::python {

/// Runs long work on a thread of its own, without the GIL, while the calling thread looks out for signals:
/// Ctrl-C raises the flag, waits until the work has cleaned up after itself, and comes out as
/// KeyboardInterrupt. Callbacks run in the calling thread, where Jupyter and debuggers expect them.
class Interruptible {
 public:
  /// Raised when the work is to end early.
  const CancellationFlag* flag() const { return &flag_; }

  /// From the calling thread, which holds the GIL. Rethrows what the work or a callback threw.
  void run(const std::function<void()>& work);

  /// From the working thread: runs `callback` in the calling thread, with the GIL, and waits for it. After a
  /// callback that threw, further ones are skipped and the flag is raised.
  void call_back(const std::function<void()>& callback);

  /// Ends all work of all threads, and keeps them from beginning any: what Python's atexit is to call, before
  /// the interpreter ends its threads and the process its libraries.
  static void end_all();

 private:
  class Worker;
  struct Live;

  /// Whether the work is done.
  bool wait_for_work();
  void serve_callback();
  void check_signals();
  void abandon();

  CancellationFlag flag_{false};
  std::mutex mutex_{};
  std::condition_variable changed_{};
  const std::function<void()>* callback_ = nullptr;
  bool finished_ = false;
  bool abandoned_ = false;  // nobody is there any more to run callbacks
  std::exception_ptr work_error_{};
  std::exception_ptr caller_error_{};  // of a callback or a signal handler
};

}  // namespace salient::python
