#pragma once

#include <cmath>

#include "backend/cuda/row_layout.cuh"

namespace salient::cuda {

/// Features [4i, 4i + 4) of a head.
struct alignas(16) FourFeatures {
  float x[4];
};

/// A whole warp rotates a head of one row.
SALIENT_DEVICE void rotate(const KvRowsArguments& a, float* head, int row) {
  for (int pair = simt::lane(); pair < a.pairs; pair += simt::kWarp) {
    float* first = head + a.first_feature + (a.neighbours ? 2 * pair : pair);
    float* second = first + (a.neighbours ? 1 : a.pairs);
    const float low = *first;
    const float high = *second;
    const float cosine = a.cosine[int64_t{row} * a.pairs + pair];
    const float sine = a.sine[int64_t{row} * a.pairs + pair];
    *first = low * cosine - high * sine;
    *second = high * cosine + low * sine;
  }
}

/// What features are multiplied by to become codes, and the scale that undoes it: the rule of the CPU. An
/// infinity or NaN makes the scale NaN.
struct RowScale {
  float scale;
  float factor;  ///< 0: codes are 0
};

SALIENT_DEVICE RowScale scale_of_row(int dim, const float* from) {
  constexpr float kLargest = 3.402823466e38f;
  float bound = 0;
  bool finite = true;
  for (int i = 4 * simt::lane(); i < dim; i += 4 * simt::kWarp) {
    for (int j = 0; j < 4; ++j) {
      const float size = fabsf(from[i + j]);
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
SALIENT_DEVICE void store_row(const RowLayout& layout, const BatchRow& place, int head, const float* from) {
  constexpr auto kRowsOfPage = static_cast<int>(kPageRows);
  const int row = place.position % kRowsOfPage;
  std::byte* page = head_of_page(layout, place.blocks, place.position / kRowsOfPage, head);
  std::byte* to = row_of_page(layout, page, row);
  RowScale scale{};
  if (layout.type == KvType::int8) {
    scale = scale_of_row(layout.dim, from);
    if (simt::lane() == 0) scales_of_page(layout, page)[row] = scale.scale;
  }
  for (int i = simt::lane(); 4 * i < layout.dim; i += simt::kWarp) {
    FourFeatures four;
    for (int j = 0; j < 4; ++j) four.x[j] = from[4 * i + j];
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
  int head = index % heads;
  if (head < a.query_heads)
    return rotate(a, a.query + (int64_t{row} * a.query_heads + head) * a.query_dim, row);
  head -= a.query_heads;
  const BatchRow place =
      a.batch != nullptr ? a.batch[row] : BatchRow{a.to_keys.blocks, a.first_position + row, row};
  if (head < a.key_heads) {
    float* key = a.keys + (int64_t{row} * a.key_heads + head) * a.to_keys.dim;
    rotate(a, key, row);
    simt::sync_warp();
    if (place.blocks != nullptr) store_row(a.to_keys, place, head, key);
    return;
  }
  head -= a.key_heads;
  const float* value = a.values + (int64_t{row} * a.value_heads + head) * a.to_values.dim;
  if (place.blocks != nullptr) store_row(a.to_values, place, head, value);
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
  std::byte* page = head_of_page(layout, layout.blocks, position / kRowsOfPage, simt::block_y());
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
