#pragma once

#include <span>
#include <string>
#include <vector>

#include "backend/cuda/device.h"
#include "backend/cuda/kernel_library.h"

namespace salient::cuda {

/// Launches one behind the other as a graph of the driver, which starts them all with one call. What a run
/// changes against the last is set in the instantiated graph. The context must be current in every call.
class DriverGraph final : public LaunchGraph {
 public:
  DriverGraph(const driver::Driver& driver, KernelLibrary& kernels, std::span<const Launch> launches);
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

  DriverGraph(const driver::Driver& driver, KernelLibrary& kernels) : driver_(driver), kernels_(kernels) {}
  void build(std::span<const Launch> launches);
  void update(Node& node, const Launch& launch);

  const driver::Driver& driver_;
  KernelLibrary& kernels_;
  driver::Graph graph_ = nullptr;
  driver::GraphExec exec_ = nullptr;
  std::vector<Node> nodes_;
};

}  // namespace salient::cuda
