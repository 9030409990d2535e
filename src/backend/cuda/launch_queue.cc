#include "backend/cuda/launch_queue.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace salient::cuda {
namespace {

bool same(const Kernel& a, const Kernel& b) { return a.name == b.name || std::strcmp(a.name, b.name) == 0; }

}  // namespace

LaunchQueue::~LaunchQueue() { release_held(); }

void* LaunchQueue::allocate(size_t bytes) {
  if (releases_.empty()) return device_.allocate(bytes);
  try {
    return device_.allocate(bytes);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::out_of_memory) throw;
  }
  send_held();
  return device_.allocate(bytes);
}

void LaunchQueue::release(void* memory) noexcept {
  if (memory == nullptr) return;
  if (holds_back()) {
    releases_.push_back(memory);
  } else {
    device_.release(memory);
  }
}

void LaunchQueue::release_held() noexcept {
  for (void* memory : releases_) device_.release(memory);
  releases_.clear();
}

void LaunchQueue::copy_in(void* to, const void* from, size_t bytes) {
  stop();
  device_.copy_in(to, from, bytes);
}

void LaunchQueue::copy_out(void* to, const void* from, size_t bytes) {
  stop();
  device_.copy_out(to, from, bytes);
}

void LaunchQueue::copy(void* to, const void* from, size_t bytes) {
  stop();
  device_.copy(to, from, bytes);
}

void LaunchQueue::fill_zero(void* to, size_t bytes) {
  stop();
  device_.fill_zero(to, bytes);
}

void LaunchQueue::multiply(const HalfProduct& product) {
  stop();
  device_.multiply(product);
}

void LaunchQueue::run(LaunchGraph& graph, std::span<const Launch> launches) {
  stop();
  device_.run(graph, launches);
}

void LaunchQueue::synchronize() {
  stop();
  device_.synchronize();
}

double LaunchQueue::seconds_of(const std::function<void()>& work) {
  stop();
  return device_.seconds_of([&] {
    work();
    stop();
  });
}

void LaunchQueue::launch(const Launch& launch) {
  if (run_.empty()) {
    candidates_.clear();
    for (KnownRun known = known_.begin(); known != known_.end(); ++known)
      if (known->graph && known->place == place_) candidates_.push_back(known);
    holding_ = !candidates_.empty();
  }
  run_.push_back({.kernel = launch.kernel,
                  .grid = launch.grid,
                  .shared_bytes = launch.shared_bytes,
                  .arguments = {launch.arguments.begin(), launch.arguments.end()}});
  if (holding_) {
    keep_candidates(launch.kernel);
  } else {
    device_.launch(launch);
  }
  if (run_.size() < kMostLaunches) return;
  end_run();
  ++place_;
}

/// Those whose next kernel is this one; without any all goes its way.
void LaunchQueue::keep_candidates(const Kernel& kernel) {
  const size_t last = run_.size() - 1;
  std::erase_if(candidates_, [&](const KnownRun& known) {
    return known->kernels.size() <= last || !same(known->kernels[last], kernel);
  });
  if (candidates_.empty()) send_held();
}

void LaunchQueue::stop() {
  end_run();
  place_ = 0;
}

/// What was held, one by one; the rest of the run goes straight on.
void LaunchQueue::send_held() {
  holding_ = false;
  struct Ending {
    LaunchQueue& queue;
    ~Ending() { queue.release_held(); }
  } const ending{*this};
  const std::vector<Launch> all = launches();
  size_t sent = 0;
  try {
    for (; sent < all.size(); ++sent) device_.launch(all[sent]);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::out_of_memory) throw;
    fail(ErrorKind::internal, "{} launches that were held back, from {} on, are lost: {}", all.size() - sent,
         all[sent].kernel.name, error.what());
  }
}

/// False where the device has no memory for it: then it has not begun, and gives its own memory back.
bool LaunchQueue::run_graph(Known& known) {
  try {
    device_.run(*known.graph, launches());
    return true;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::out_of_memory) throw;
  }
  known.graph.reset();
  return false;
}

std::vector<Launch> LaunchQueue::launches() const {
  std::vector<Launch> result;
  result.reserve(run_.size());
  for (const Held& held : run_)
    result.push_back({.kernel = held.kernel,
                      .grid = held.grid,
                      .shared_bytes = held.shared_bytes,
                      .arguments = held.arguments});
  return result;
}

void LaunchQueue::end_run() {
  if (run_.empty()) return;
  // Whatever fails on the way, the next run begins anew.
  struct Ending {
    LaunchQueue& queue;
    ~Ending() {
      queue.holding_ = false;
      queue.run_.clear();
      queue.release_held();
    }
  } const ending{*this};
  const auto whole =
      std::ranges::find_if(candidates_, [&](const KnownRun& known) { return is_complete(*known); });
  if (holding_ && whole != candidates_.end()) {
    known_.splice(known_.begin(), known_, *whole);
    if (!run_graph(known_.front())) send_held();
    return;
  }
  if (holding_) send_held();
  remember_run();
}

/// Launches have gone their way already: a run without a graph is slower, no more.
void LaunchQueue::capture(Known& known) {
  try {
    known.graph = device_.capture(launches());
  } catch (const Error&) {
    known.refused = true;
  }
}

void LaunchQueue::remember_run() {
  if (run_.size() < kLeastLaunches) return;
  const auto alike = [&](const Known& known) {
    return known.place == place_ && known.kernels.size() == run_.size() &&
           std::ranges::equal(known.kernels, run_,
                              [](const Kernel& a, const Held& b) { return same(a, b.kernel); });
  };
  const auto found = std::ranges::find_if(known_, alike);
  if (found != known_.end()) {
    if (!found->graph && !found->refused) capture(*found);
    known_.splice(known_.begin(), known_, found);
    return;
  }
  Known& fresh = known_.emplace_front();
  fresh.place = place_;
  for (const Held& held : run_) fresh.kernels.push_back(held.kernel);
  if (known_.size() > kMostGraphs) known_.pop_back();
}

}  // namespace salient::cuda
