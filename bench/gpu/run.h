#pragma once

#include <chrono>
#include <functional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/cuda_backend.h"
#include "gpu/report.h"
#include "gpu/traced_device.h"

namespace salient::gpu {

/// How much is run: what a simulator takes in seconds, or a device in a minute or in ten.
enum class Size { tiny, quick, full };

struct Options {
  Size size = Size::full;
  int device = 0;
  /// Checkpoints to run on both back ends; empty: the demo's model, quantized before.
  std::vector<std::string> models{};
  std::string demo = "examples/demo";
};

/// The device answers no more: a kernel did what none may do, and nothing works in this process from then on.
class DeviceLost : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// How far what was computed may be from what it ought to be.
struct Tolerance {
  double bound;  ///< of |got - expected| / size
  /// f32 like `expected`, the size of each; undefined: the largest number of `expected` for all of them.
  const Tensor& sizes = kUndefined;

  static const Tensor kUndefined;
};

/// A section of the report while it is made, which consists of cases. What fails in one is noted with the
/// names of the case and of the kernels that ran, and the next one comes. Where the device is lost, the case
/// is noted as done and DeviceLost leaves: another process goes on behind it, for cases that are done are not
/// run again.
class SectionRun {
 public:
  struct Settings {
    std::string section;
    double seconds;  ///< cases that would begin later are left out
    /// A case that takes longer ends the process: a kernel that never ends holds the host, too. 0: no limit.
    unsigned case_seconds = 0;
  };
  SectionRun(cuda::Device& device, const Options& options, Report& report, const Settings& settings);

  TracedDevice& device() { return device_; }
  const TracedDevice& device() const { return device_; }
  const Options& options() const { return options_; }
  Size size() const { return options_.size; }
  bool tiny() const { return options_.size == Size::tiny; }
  /// Of the three, what is meant for the size.
  template <typename T>
  T by_size(T tiny, T quick, T full) const {
    return options_.size == Size::tiny ? tiny : options_.size == Size::quick ? quick : full;
  }

  Json& json() { return report_.section(section_); }
  const Report& report() const { return report_; }
  /// Runs `body`, unless that was done or there is no time left.
  void attempt(const std::string& name, const std::function<void()>& body);
  /// Whether a case that is not done comes next, for what has to be made before.
  bool is_next_open() const { return begun_ >= done(); }

  /// Compares, under the name of what is checked; where they differ it is told how, and in which element
  /// first.
  void check(const std::string& name, const Tensor& got, const Tensor& expected, const Tolerance& tolerance);
  /// The same for one number of which it is known how far it is off.
  void check(const std::string& name, double error, double bound);
  void check_bytes(const std::string& name, std::span<const std::byte> got,
                   std::span<const std::byte> expected);
  /// A check that failed: `failure` tells more.
  void fail(const std::string& name, Json failure);

  /// Computes on the device. It must go before anybody uses the device directly.
  std::unique_ptr<Backend> make_backend(const cuda::CudaBackendOptions& options = {});
  /// Bytes a second that copies read and write, as the section "device" has measured; 0 where nobody has.
  double bandwidth() const;
  double seconds() const;

 private:
  int64_t done() const;
  void begin_case(const std::string& name);
  void end_case();
  void note(const std::string& name, double error, double bound, const std::set<std::string>& kernels);
  bool answers();

  TracedDevice device_;
  const Options& options_;
  Report& report_;
  std::string section_;
  double limit_;
  unsigned case_limit_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  int64_t begun_ = 0;  // cases so far
  std::string case_;
};

/// Parts of the report in the order in which they are made.
struct SectionEntry {
  const char* name;
  void (*run)(SectionRun& run);
  double seconds;         ///< that it may take
  unsigned case_seconds;  ///< that a case of it may take
};
std::span<const SectionEntry> sections();

}  // namespace salient::gpu
