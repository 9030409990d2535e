#pragma once

#include <list>
#include <memory>
#include <vector>

#include "backend/cuda/forwarding_device.h"

namespace salient::cuda {

/// A device whose launches repeat. Between two points where the host waits or copies lie launches, cut into
/// runs of kMostLaunches; a run of kernels that comes for the second time at its place is captured, and from
/// then on it is held back and given to the device as one graph, which spares the pauses between small
/// kernels (for a token of a model of 8B parameters some 400 of them, each a few microseconds long), while
/// the host prepares the next run. Nothing has to be told: launches are compared with those of the graphs,
/// and the first that fits none sends all on their way as they are. Arguments and grids may differ from one
/// time to the next.
///
/// What is held back has been asked for: where the device has no memory for a graph, its launches go one by
/// one; where it has none for one of those, they are lost. The call that happens to send them then fails with
/// an internal error, since who takes out_of_memory for its own would go another way, without them.
class LaunchQueue final : public ForwardingDevice {
 public:
  /// Shorter runs gain nothing; longer ones would keep the device waiting, and memory from being used again.
  static constexpr size_t kLeastLaunches = 8;
  static constexpr size_t kMostLaunches = 64;
  static constexpr size_t kMostGraphs = 128;

  explicit LaunchQueue(Device& device) : ForwardingDevice(device) {}
  ~LaunchQueue() override;

  /// Memory whose release is held back with launches that use it comes free where there is no other.
  void* allocate(size_t bytes) override;
  void release(void* memory) noexcept override;
  void copy_in(void* to, const void* from, size_t bytes) override;
  void copy_out(void* to, const void* from, size_t bytes) override;
  void copy(void* to, const void* from, size_t bytes) override;
  void fill_zero(void* to, size_t bytes) override;
  void launch(const Launch& launch) override;
  void synchronize() override;
  double seconds_of(const std::function<void()>& work) override;
  /// Whether there are launches that the device has not been given.
  bool holds_back() const { return holding_ && !run_.empty(); }
  void multiply(const HalfProduct& product) override;
  void run(LaunchGraph& graph, std::span<const Launch> launches) override;

 private:
  struct Held {
    Kernel kernel;
    Grid grid;
    size_t shared_bytes;
    std::vector<std::byte> arguments;
  };
  /// A run of kernels that came, by their names, and its graph once it came again.
  struct Known {
    int place;  ///< among the runs since the host waited
    std::vector<Kernel> kernels;
    std::unique_ptr<LaunchGraph> graph;
    bool refused = false;  ///< to be captured
  };
  using KnownRun = std::list<Known>::iterator;

  bool is_complete(const Known& known) const { return known.kernels.size() == run_.size(); }
  /// The host waits or copies.
  void stop();
  void end_run();
  void remember_run();
  void capture(Known& known);
  void keep_candidates(const Kernel& kernel);
  bool run_graph(Known& known);
  void send_held();
  std::vector<Launch> launches() const;
  void release_held() noexcept;

  std::list<Known> known_;            // the last one that ran first
  std::vector<KnownRun> candidates_;  // those with a graph that begin as the run does
  std::vector<Held> run_;             // since the last point
  int place_ = 0;
  bool holding_ = false;         // none of the run has been sent
  std::vector<void*> releases_;  // of memory that what is held may use
};

}  // namespace salient::cuda
