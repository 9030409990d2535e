#pragma once

#include <functional>

#include "gpu/run.h"

namespace salient::gpu {

/// Bytes over which repeated work wanders, so that what it reads comes from memory: several times the
/// second-level caches of all cards (50 MB of an H100, 72 MB of an RTX 4090).
inline constexpr size_t kWanderBytes = size_t{256} << 20;
/// Things of `bytes` each that are as much, at least two.
int copies_of(const SectionRun& run, size_t bytes);

/// How long one of several pieces of work takes when they are queued one behind the other.
struct Timing {
  double seconds = 0;  ///< the median of the repeats
  double least = 0;
  double most = 0;
  bool graph = false;  ///< launched as graphs, else one by one
  Json to_json() const;
};

/// `work(i)` queues piece i; pieces repeat from 0 on behind `pieces` of them. Launches of kernels alone run
/// as a graph, as in the back end; where they cannot, one by one, and kernels that take a few microseconds
/// wait for the host then.
Timing measure(SectionRun& run, int pieces, const std::function<void(int piece)>& work);

/// What each kernel took of something that ran, the slowest first: those of a name run again, alone.
Json profile(SectionRun& run, const Recording& recording);

/// What a device's maker says of its memory and, of halves summed in f32, its tensor cores; 0: not known.
struct Peak {
  double bytes_per_second = 0;
  double operations_per_second = 0;
};
Peak peak_of(const cuda::DeviceProperties& properties);

/// Share of a rate, null where the whole is not known.
Json share(double part, double whole);

}  // namespace salient::gpu
