#pragma once

#include "backend/cuda/largest.h"
#include "backend/cuda/last_block.cuh"

// A warp keeps the 64 largest keys that it has met, sorted, two a lane, and takes 64 new ones at a time:
// these are sorted by a bitonic network (Batcher 1968) and merged, but only if one of them beats the least of
// the 64; behind the first few steps that is rare, and then a step costs its loads and five shuffles
// (Johnson, Douze & Jegou 2017 call it WarpSelect). The block that is last to finish a row merges the lists
// of all its parts.

namespace salient::cuda {

/// Keys that compare as their values do, ties by the lower index first; no two of a row are the same, and
/// none is 0.
SALIENT_DEVICE uint64_t largest_key(float value, int64_t index) {
  const uint32_t bits = simt::bits_of_float(value + 0.0f);  // of both zeros the same
  uint32_t order = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
  if ((bits & 0x7fffffffu) > 0x7f800000u) order = 0;
  return uint64_t{order} << 32 | ~static_cast<uint32_t>(index);
}
SALIENT_DEVICE int32_t index_of_key(uint64_t key) {
  return static_cast<int32_t>(~static_cast<uint32_t>(key));
}
SALIENT_DEVICE float value_of_key(uint64_t key) {
  const auto order = static_cast<uint32_t>(key >> 32);
  if (order == 0) return simt::float_of_bits(0x7fc00000u);
  return simt::float_of_bits((order >> 31) != 0 ? order & 0x7fffffffu : ~order);
}

SALIENT_DEVICE uint64_t shuffle_key_xor(uint64_t key, int mask) {
  const uint32_t low = simt::shuffle_xor(static_cast<uint32_t>(key), mask);
  const uint32_t high = simt::shuffle_xor(static_cast<uint32_t>(key >> 32), mask);
  return uint64_t{high} << 32 | low;
}
SALIENT_DEVICE uint64_t larger_key(uint64_t a, uint64_t b) { return a > b ? a : b; }

SALIENT_DEVICE void order_keys(uint64_t& first, uint64_t& second, bool descending) {
  if ((first < second) != descending) return;
  const uint64_t kept = first;
  first = second;
  second = kept;
}

/// Element i of a list of 64 lies in register i / 32 of lane i % 32.
struct KeyList {
  uint64_t key[2];

  /// Compares elements whose places differ in `distance`, of a list in runs of `run` that are to be sorted
  /// one up, one down; `descending` says which way the first one goes.
  SALIENT_DEVICE void compare(int distance, int run, bool descending) {
    const int lane = simt::lane();
    if (distance == simt::kWarp) return order_keys(key[0], key[1], descending);
    SALIENT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int place = lane + i * simt::kWarp;
      const uint64_t other = shuffle_key_xor(key[i], distance);
      const bool down = ((place & run) == 0) == descending;
      const bool is_first = (lane & distance) == 0;
      key[i] = is_first == down ? larger_key(key[i], other) : (key[i] < other ? key[i] : other);
    }
  }
  SALIENT_DEVICE void sort(bool descending) {
    for (int run = 2; run <= kMostLargest; run *= 2)
      for (int distance = run / 2; distance > 0; distance /= 2) compare(distance, run, descending);
  }
  /// *this, in descending order, becomes the larger half of both; `rising` is in ascending order. The larger
  /// of each pair are a bitonic sequence.
  SALIENT_DEVICE void merge(const KeyList& rising) {
    key[0] = larger_key(key[0], rising.key[0]);
    key[1] = larger_key(key[1], rising.key[1]);
    for (int distance = kMostLargest / 2; distance > 0; distance /= 2) compare(distance, kMostLargest, true);
  }
  SALIENT_DEVICE uint64_t least() const {
    const uint32_t low = simt::shuffle(static_cast<uint32_t>(key[1]), simt::kWarp - 1);
    const uint32_t high = simt::shuffle(static_cast<uint32_t>(key[1] >> 32), simt::kWarp - 1);
    return uint64_t{high} << 32 | low;
  }
  /// Takes in what `fresh` holds, in any order.
  SALIENT_DEVICE void take(KeyList fresh) {
    const uint64_t least_kept = least();
    const bool some = fresh.key[0] > least_kept || fresh.key[1] > least_kept;
    if (simt::warp_max(some ? 1.0f : 0.0f) == 0.0f) return;
    fresh.sort(false);
    merge(fresh);
  }
};

/// The list of each warp of a block to the one of the first warp. `lists` is shared memory, a list a warp.
SALIENT_DEVICE void merge_warps(KeyList& list, uint64_t* lists) {
  constexpr int kWarps = kLargestThreads / simt::kWarp;
  for (int distance = kWarps / 2; distance > 0; distance /= 2) {
    uint64_t* own = lists + simt::warp() * kMostLargest;
    for (int i = 0; i < 2; ++i) own[simt::lane() + i * simt::kWarp] = list.key[i];
    simt::sync_block();
    if (simt::warp() < distance) {
      KeyList rising;
      const uint64_t* other = lists + (simt::warp() + distance) * kMostLargest;
      for (int i = 0; i < 2; ++i) rising.key[i] = other[kMostLargest - 1 - simt::lane() - i * simt::kWarp];
      list.merge(rising);
    }
    simt::sync_block();
  }
}

/// The same for rows of which one value is wanted.
SALIENT_DEVICE uint64_t largest_of_block(uint64_t key, uint64_t* keys) {
  for (int mask = simt::kWarp / 2; mask > 0; mask /= 2) key = larger_key(key, shuffle_key_xor(key, mask));
  if (simt::lane() == 0) keys[simt::warp()] = key;
  simt::sync_block();
  for (int i = 0; i < kLargestThreads / simt::kWarp; ++i) key = larger_key(key, keys[i]);
  return key;
}

SALIENT_DEVICE KeyList largest_of_part(const LargestArguments& a, int64_t row) {
  const int64_t begin = int64_t{simt::block_x()} * a.part_columns;
  const int64_t end = begin + a.part_columns < a.columns ? begin + a.part_columns : a.columns;
  const float* x = a.x + row * a.columns;
  KeyList list{};
  for (int64_t step = begin; step < end; step += kLargestStep) {
    KeyList fresh;
    SALIENT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int64_t index = step + simt::thread() + i * kLargestThreads;
      fresh.key[i] = index < end ? largest_key(x[index], index) : 0;
    }
    if (a.wanted > 1) {
      list.take(fresh);
    } else {
      list.key[0] = larger_key(list.key[0], larger_key(fresh.key[0], fresh.key[1]));
    }
  }
  return list;
}

SALIENT_DEVICE KeyList largest_of_parts(const LargestArguments& a, const uint64_t* keys) {
  const int count = a.parts * a.wanted;
  KeyList list{};
  for (int step = 0; step < count; step += kLargestStep) {
    KeyList fresh;
    SALIENT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int index = step + simt::thread() + i * kLargestThreads;
      fresh.key[i] = index < count ? keys[index] : 0;
    }
    if (a.wanted > 1) {
      list.take(fresh);
    } else {
      list.key[0] = larger_key(list.key[0], larger_key(fresh.key[0], fresh.key[1]));
    }
  }
  return list;
}

/// The lists of all warps as one, in the first warp.
SALIENT_DEVICE void join_warps(const LargestArguments& a, KeyList& list, uint64_t* shared) {
  if (a.wanted > 1) return merge_warps(list, shared);
  list.key[0] = largest_of_block(list.key[0], shared);
  simt::sync_block();
}

SALIENT_DEVICE void find_largest(const LargestArguments& a) {
  auto* shared = simt::shared_memory<uint64_t>();
  const int64_t row = simt::block_y();
  KeyList list = largest_of_part(a, row);
  join_warps(a, list, shared);
  uint64_t* keys = a.workspace + row * a.parts * a.wanted;
  const auto write = [&](const auto& put) {
    if (simt::warp() != 0) return;
    for (int i = 0; i < 2; ++i) {
      const int place = simt::lane() + i * simt::kWarp;
      if (place < a.wanted) put(place, list.key[i]);
    }
  };
  write([&](int place, uint64_t key) { keys[int64_t{simt::block_x()} * a.wanted + place] = key; });
  if (!is_last_block(a.counters + row, a.parts, reinterpret_cast<uint32_t*>(shared))) return;
  list = largest_of_parts(a, keys);
  simt::sync_block();
  join_warps(a, list, shared);
  write([&](int place, uint64_t key) {
    a.values[row * a.wanted + place] = key == 0 ? 0.0f : value_of_key(key);
    a.indices[row * a.wanted + place] = key == 0 ? -1 : index_of_key(key);
  });
  if (simt::thread() == 0) a.counters[row] = 0;
}

/// What a thread, a warp or a block has summed up.
struct RowTail {
  float sum = 0;
  uint32_t reaching = 0;

  SALIENT_DEVICE void add(float other_sum, uint32_t other_reaching) {
    sum += other_sum;
    reaching += other_reaching;
  }
};

/// Of all threads of the block, the same in each. `shared` has room for two words a warp, which nothing else
/// uses before the next barrier.
SALIENT_DEVICE RowTail tail_of_block(RowTail tail, uint32_t* shared) {
  for (int mask = simt::kWarp / 2; mask > 0; mask /= 2)
    tail.add(simt::shuffle_xor(tail.sum, mask), simt::shuffle_xor(tail.reaching, mask));
  if (simt::lane() == 0) {
    shared[2 * simt::warp()] = simt::bits_of_float(tail.sum);
    shared[2 * simt::warp() + 1] = tail.reaching;
  }
  simt::sync_block();
  RowTail whole;
  for (int i = 0; i < kLargestThreads / simt::kWarp; ++i)
    whole.add(simt::float_of_bits(shared[2 * i]), shared[2 * i + 1]);
  simt::sync_block();
  return whole;
}

SALIENT_DEVICE RowTail tail_of_part(const LargestSumArguments& a, int64_t row) {
  constexpr float kLog2E = 1.44269504f;
  const int64_t begin = int64_t{simt::block_x()} * a.part_columns;
  const int64_t end = begin + a.part_columns < a.columns ? begin + a.part_columns : a.columns;
  const float* x = a.x + row * a.columns;
  const float largest = a.values[row * a.wanted];
  const float last = a.values[row * a.wanted + a.wanted - 1];
  const float scale = a.scales[row] * kLog2E;
  RowTail tail;
  for (int64_t i = begin + simt::thread(); i < end; i += kLargestThreads)
    tail.add(simt::power_of_two((x[i] - largest) * scale), x[i] >= last ? 1 : 0);
  return tail;
}

/// Sums of parts are added by the block that comes last, in an order that does not depend on which it is.
SALIENT_DEVICE void sum_row(const LargestSumArguments& a) {
  auto* shared = simt::shared_memory<uint32_t>();
  const int64_t row = simt::block_y();
  RowTail tail = tail_of_block(tail_of_part(a, row), shared);
  uint32_t* parts = a.workspace + row * a.parts * 2;
  if (simt::thread() == 0) {
    parts[2 * simt::block_x()] = simt::bits_of_float(tail.sum);
    parts[2 * simt::block_x() + 1] = tail.reaching;
  }
  if (!is_last_block(a.counters + row, a.parts, shared)) return;
  tail = {};
  for (int i = simt::thread(); i < a.parts; i += kLargestThreads)
    tail.add(simt::float_of_bits(parts[2 * i]), parts[2 * i + 1]);
  simt::sync_block();
  tail = tail_of_block(tail, shared);
  if (simt::thread() != 0) return;
  a.sums[row] = tail.sum;
  a.reaching[row] = static_cast<int32_t>(tail.reaching);
  a.counters[row] = 0;
}

#define SALIENT_LARGEST_KERNELS(X)                           \
  X(largest_of_rows, LargestArguments, 256, 1, find_largest) \
  X(sums_of_rows, LargestSumArguments, 256, 1, sum_row)

}  // namespace salient::cuda
