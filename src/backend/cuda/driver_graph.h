#pragma once

#include <span>
#include <string>
#include <vector>

#include "backend/cuda/device.h"
#include "backend/cuda/kernel_library.h"

namespace salient::cuda {

/// Launches one behind the other as a graph of the driver, which starts them all with one call. What a run
/// changes against the last is set in the instantiated graph. It goes before its device does.
class DriverGraph final : public LaunchGraph {
 public:
  /// The context must be current, in `run` too.
  DriverGraph(const driver::Driver& driver, driver::Context context, KernelLibrary& kernels,
              std::span<const Launch> launches);
  ~DriverGraph() override;
  DriverGraph(const DriverGraph&) = delete;
  DriverGraph& operator=(const DriverGraph&) = delete;

  /// Errors: internal for other kernels than those captured.
  void run(std::span<const Launch> launches, driver::Stream stream);

 private:
  struct Node {
    driver::GraphNode node = nullptr;
    std::string kernel;
    Grid grid;
    size_t shared_bytes = 0;
    std::vector<std::byte> arguments;
  };

  DriverGraph(const driver::Driver& driver, driver::Context context, KernelLibrary& kernels)
      : driver_(driver), context_(context), kernels_(kernels) {}
  void build(std::span<const Launch> launches);
  void update(Node& node, const Launch& launch);

  const driver::Driver& driver_;
  driver::Context context_;
  KernelLibrary& kernels_;
  driver::Graph graph_ = nullptr;
  driver::GraphExec exec_ = nullptr;
  std::vector<Node> nodes_;
};

}  // namespace salient::cuda
