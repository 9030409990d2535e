#pragma once

#include <cmath>

#include "backend/cuda/row_layout.cuh"

namespace salient::cuda {

/// Features [4i, 4i + 4) of a head.
struct alignas(16) FourFeatures {
  float x[4];
};

/// A feature after the rotation, from the head before it.
SALIENT_DEVICE float rotated(const KvRowsArguments& a, const float* head, int row, int feature) {
  const int place = feature - a.first_feature;
  const float own = head[feature];
  if (place < 0 || place >= 2 * a.pairs) return own;
  const bool second = a.neighbours ? place % 2 == 1 : place >= a.pairs;
  const int pair = a.neighbours ? place / 2 : place % a.pairs;
  const int distance = a.neighbours ? 1 : a.pairs;
  const float other = head[second ? feature - distance : feature + distance];
  const float cosine = a.cosine[int64_t{row} * a.pairs + pair];
  const float sine = a.sine[int64_t{row} * a.pairs + pair];
  return second ? own * cosine + other * sine : own * cosine - other * sine;
}

SALIENT_DEVICE void rotate_in_place(const KvRowsArguments& a, float* head, int row) {
  for (int pair = simt::lane(); pair < a.pairs; pair += simt::kWarp) {
    const int low = a.first_feature + (a.neighbours ? 2 * pair : pair);
    const int high = a.neighbours ? low + 1 : low + a.pairs;
    const float first = rotated(a, head, row, low);
    const float second = rotated(a, head, row, high);
    head[low] = first;
    head[high] = second;
  }
}

/// What features are multiplied by to become codes, and the scale that undoes it: the rule of the CPU's
/// store_rows. An infinity or NaN makes the scale NaN.
struct RowScale {
  float scale;
  float factor;  ///< 0: codes are 0
};

template <typename Feature>
SALIENT_DEVICE RowScale scale_of_row(int dim, const Feature& feature) {
  constexpr float kLargest = 3.402823466e38f;
  float bound = 0;
  bool finite = true;
  for (int i = 4 * simt::lane(); i < dim; i += 4 * simt::kWarp) {
    for (int j = 0; j < 4; ++j) {
      const float size = fabsf(feature(i + j));
      finite = finite && size <= kLargest;
      bound = fmaxf(bound, size);
    }
  }
  bound = simt::warp_max(bound);
  finite = simt::warp_max(finite ? 0.0f : 1.0f) == 0.0f;
  if (!finite) return {NAN, 0};
  return {bound / 127, bound > 1e-30f ? 127 / bound : 0.0f};
}

SALIENT_DEVICE uint32_t codes_of(const FourFeatures& features, float factor) {
  uint32_t codes = 0;
  for (int j = 0; j < 4; ++j) {
    const int code = factor == 0 ? 0 : static_cast<int>(rintf(features.x[j] * factor));
    codes |= static_cast<uint32_t>(code & 0xff) << 8 * j;
  }
  return codes;
}

/// A whole warp keeps a head of one row.
template <typename Feature>
SALIENT_DEVICE void store_row(const RowLayout& layout, int head, int position, const Feature& feature) {
  const int row = position % static_cast<int>(kPageRows);
  std::byte* page = head_of_page(layout, position / static_cast<int>(kPageRows), head);
  std::byte* to = row_of_page(layout, page, row);
  RowScale scale{};
  if (layout.type == KvType::int8) {
    scale = scale_of_row(layout.dim, feature);
    if (simt::lane() == 0) scales_of_page(layout, page)[row] = scale.scale;
  }
  for (int i = simt::lane(); 4 * i < layout.dim; i += simt::kWarp) {
    FourFeatures four;
    for (int j = 0; j < 4; ++j) four.x[j] = feature(4 * i + j);
    if (layout.type == KvType::fp32) {
      reinterpret_cast<FourFeatures*>(to)[i] = four;
    } else if (layout.type == KvType::fp16) {
      reinterpret_cast<simt::Words2*>(to)[i] = {simt::pack_clamped<simt::F16>(four.x[0], four.x[1]),
                                                simt::pack_clamped<simt::F16>(four.x[2], four.x[3])};
    } else if (layout.type == KvType::bf16) {
      reinterpret_cast<simt::Words2*>(to)[i] = {simt::pack_bf16(four.x[0], four.x[1]),
                                                simt::pack_bf16(four.x[2], four.x[3])};
    } else {
      reinterpret_cast<uint32_t*>(to)[i] = codes_of(four, scale.factor);
    }
  }
}

SALIENT_DEVICE void rotate_and_store(const KvRowsArguments& a) {
  const int heads = a.query_heads + a.key_heads + a.value_heads;
  const int index = simt::block_x() * (simt::block_threads() / simt::kWarp) + simt::warp();
  const int row = index / heads;
  if (row >= a.count) return;  // the whole warp
  const int position = a.first_position + row;
  int head = index % heads;
  if (head < a.query_heads)
    return rotate_in_place(a, a.query + (int64_t{row} * a.query_heads + head) * a.query_dim, row);
  head -= a.query_heads;
  if (head < a.key_heads) {
    const float* from = a.keys + (int64_t{row} * a.key_heads + head) * a.to_keys.dim;
    return store_row(a.to_keys, head, position, [&](int i) { return rotated(a, from, row, i); });
  }
  head -= a.key_heads;
  const float* from = a.values + (int64_t{row} * a.value_heads + head) * a.to_values.dim;
  store_row(a.to_values, head, position, [&](int i) { return from[i]; });
}

/// Grid: pieces of eight features / threads, heads, keys or values.
SALIENT_DEVICE void halve_rows(const HalfRowsArguments& a) {
  constexpr auto kRowsOfPage = static_cast<int>(kPageRows);
  const int which = simt::block_z();
  const RowLayout& layout = a.from[which];
  const int chunks = layout.dim / 8;
  const int64_t index = int64_t{simt::block_x()} * simt::block_threads() + simt::thread();
  const auto row = static_cast<int>(index / chunks);
  if (row >= a.count) return;
  const int position = a.first + row;
  const auto chunk = static_cast<int>(index % chunks);
  std::byte* page = head_of_page(layout, position / kRowsOfPage, simt::block_y());
  const std::byte* from = row_of_page(layout, page, position % kRowsOfPage);
  simt::Words4 halves;
  if (layout.type == KvType::int8) {
    halves = halves_of(reinterpret_cast<const simt::Words2*>(from)[chunk],
                       scales_of_page(layout, page)[position % kRowsOfPage]);
  } else {
    const auto* words = reinterpret_cast<const simt::Words4*>(from) + 2 * chunk;
    const simt::Words4 low = simt::load_stream(words);
    const simt::Words4 high = simt::load_stream(words + 1);
    float x[8];
    SALIENT_UNROLL for (int i = 0; i < 8; ++i) x[i] =
        simt::float_of_bits(i < 4 ? low.word[i % 4] : high.word[i % 4]);
    halves = halves_of(x);
  }
  const int64_t head_chunks = int64_t{a.count} * chunks;
  static_cast<simt::Words4*>(a.to[which])[simt::block_y() * head_chunks + index] = halves;
}

#define SALIENT_KV_ROWS_KERNELS(X)                      \
  X(kv_rows, KvRowsArguments, 128, 1, rotate_and_store) \
  X(half_rows, HalfRowsArguments, 256, 1, halve_rows)

}  // namespace salient::cuda
