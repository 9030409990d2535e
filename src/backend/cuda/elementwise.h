#pragma once

#include <span>

#include "backend/cuda/device.h"
#include "tensor/activation.h"

namespace salient::cuda {

/// y += x.
struct AddArguments {
  const float* x;
  float* y;
  int64_t count;
};
/// x *= factor; or, with a cap above 0, x = cap tanh(x / cap).
struct ScaleArguments {
  float* x;
  int64_t count;
  float factor;
  float cap;
};
/// y = activation(gate) * up; without `up` activation(gate).
struct ActivateArguments {
  const float* gate;
  const float* up;
  float* y;
  int64_t count;
  Activation activation;
};
/// *flag goes up by the number of warps that have met an infinite value or NaN.
struct NotFiniteArguments {
  const float* x;
  int64_t count;
  uint32_t* flag;
};

/// Bytes that travel with a launch: arguments may have 4 KiB. An array of a few hundred numbers is so written
/// in the order of the queue and, in a graph, without another node than a kernel's.
inline constexpr int kWriteBytes = 3584;
struct WriteArguments {
  void* to;
  int64_t count;
  uint32_t words[kWriteBytes / sizeof(uint32_t)];
};

/// Words that do not stand side by side.
struct WordWrite {
  uint64_t* to;
  uint64_t value;
};
inline constexpr int kMostWords = 224;
struct WriteWordsArguments {
  int count;
  WordWrite words[kMostWords];
};

inline constexpr int kElementwiseThreads = 256;
inline constexpr Kernel kAddValues{"add_values", kElementwiseThreads};
inline constexpr Kernel kScaleValues{"scale_values", kElementwiseThreads};
inline constexpr Kernel kActivate{"activate", kElementwiseThreads};
inline constexpr Kernel kFindNotFinite{"find_not_finite", kElementwiseThreads};
inline constexpr Kernel kWriteArguments{"write_arguments", kElementwiseThreads};
inline constexpr Kernel kWriteWords{"write_words", kElementwiseThreads};

/// y [count] += x.
void add(Device& device, const float* x, float* y, int64_t count);
/// x [count] *= factor.
void scale(Device& device, float factor, float* x, int64_t count);
/// x [count] = cap tanh(x / cap).
void softcap(Device& device, float cap, float* x, int64_t count);
/// x [count] = activation(x).
void activation(Device& device, Activation activation, float* x, int64_t count);
/// y [count] = activation(gate) * up; y may be gate.
struct GatedActivation {
  Activation activation;
  const float* gate;
  const float* up;
  float* y;
  int64_t count;
};
void gated_activation(Device& device, const GatedActivation& problem);

/// Adds to *flag, which was 0, unless all of x [count] is finite.
void find_not_finite(Device& device, const float* x, int64_t count, uint32_t* flag);
/// Whether no value of x is infinite or NaN; waits for it. `flag` is memory for its use.
bool all_finite(Device& device, const float* x, int64_t count, uint32_t* flag);

/// `bytes` to `to`, which stands on 4 bytes, by as many launches as it takes; `bytes` may be changed when it
/// returns.
void write_bytes(Device& device, std::span<const std::byte> bytes, void* to);
/// `bytes` to `to` by launches where they are few, so that they do not part a run of launches in two, else by
/// a copy. `bytes` may be changed when it returns.
void send_bytes(Device& device, std::span<const std::byte> bytes, void* to);
/// The same as write_bytes of single words.
void write_words(Device& device, std::span<const WordWrite> words);

}  // namespace salient::cuda
