#include "backend/cuda/driver_graph.h"

#include <cstring>

#include "base/error.h"

namespace salient::cuda {
namespace {

bool equal(const Grid& a, const Grid& b) { return a.x == b.x && a.y == b.y && a.z == b.z; }
bool equal(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

}  // namespace

DriverGraph::DriverGraph(const driver::Driver& driver, driver::Context context, KernelLibrary& kernels,
                         std::span<const Launch> launches)
    : DriverGraph(driver, context, kernels) {  // whose destructor runs where this fails
  build(launches);
}

DriverGraph::~DriverGraph() {
  const driver::ContextScope scope(driver_, context_);
  if (exec_ != nullptr) driver_.try_call(driver_.destroy_graph_exec, exec_);
  if (graph_ != nullptr) driver_.try_call(driver_.destroy_graph, graph_);
}

void DriverGraph::build(std::span<const Launch> launches) {
  driver_.call(driver_.create_graph, &graph_, 0u);
  for (const Launch& launch : launches) {
    void* argument = nullptr;
    const driver::KernelNode parameters = kernels_.node(launch, argument);
    const driver::GraphNode before = nodes_.empty() ? nullptr : nodes_.back().node;
    Node node{.kernel = launch.kernel.name,
              .grid = launch.grid,
              .shared_bytes = launch.shared_bytes,
              .arguments = {launch.arguments.begin(), launch.arguments.end()}};
    for_kernel(launch, [&] {
      driver_.call(driver_.add_kernel_node, &node.node, graph_, &before, size_t{nodes_.empty() ? 0u : 1u},
                   &parameters);
    });
    nodes_.push_back(std::move(node));
  }
  driver_.call(driver_.instantiate_graph, &exec_, graph_, 0ull);
}

void DriverGraph::update(Node& node, const Launch& launch) {
  if (node.kernel != launch.kernel.name)
    fail(ErrorKind::internal, "a graph with {} is run with {}", node.kernel, launch.kernel.name);
  if (equal(node.grid, launch.grid) && node.shared_bytes == launch.shared_bytes &&
      equal(node.arguments, launch.arguments))
    return;
  void* argument = nullptr;
  const driver::KernelNode parameters = kernels_.node(launch, argument);
  for_kernel(launch, [&] { driver_.call(driver_.set_kernel_node, exec_, node.node, &parameters); });
  node.grid = launch.grid;
  node.shared_bytes = launch.shared_bytes;
  node.arguments.assign(launch.arguments.begin(), launch.arguments.end());
}

void DriverGraph::run(std::span<const Launch> launches, driver::Stream stream) {
  if (launches.size() != nodes_.size())
    fail(ErrorKind::internal, "a graph of {} kernels is run with {}", nodes_.size(), launches.size());
  for (size_t i = 0; i < nodes_.size(); ++i) update(nodes_[i], launches[i]);
  driver_.call(driver_.launch_graph, exec_, stream);
}

}  // namespace salient::cuda
