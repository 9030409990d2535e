#pragma once

#include <functional>
#include <string>

#include "gpu/run.h"

namespace salient::gpu {

/// How a process ended.
struct ChildEnd {
  enum class Kind { exited, killed, out_of_time };
  Kind kind;
  int number = 0;  ///< status, or signal

  std::string text() const;
};

/// Runs `body` in a process of its own, which is killed after so many seconds; its status is what `body`
/// returns. The caller must not have used the driver: processes do not share it.
ChildEnd run_in_child(const std::function<int()>& body, double seconds);

/// Makes the sections of `names` (empty: all) in the report at `path`, each in a process of its own: after a
/// kernel that broke the device, or never ended, another one goes on behind the case that did it. Returns the
/// report.
struct Supervision {
  std::string path;
  std::span<const SectionEntry> sections;
  /// Makes a section in this process.
  std::function<void(const SectionEntry& section, Report& report, double seconds)> make;
  /// Of all sections; those that no time is left for are left out.
  double seconds = 1e9;
  std::function<void(const std::string& line)> say = [](const std::string&) {};
};
Report supervise(const Supervision& how);

}  // namespace salient::gpu
