#pragma once

#include "backend/cuda/floats.cuh"
#include "backend/cuda/rows.h"

namespace salient::cuda {

/// Eight elements a thread, so that halves too come by 16 bytes.
struct RowPlace {
  int row;
  int first;
};
SALIENT_DEVICE RowPlace row_place() {
  return {simt::block_x(), simt::block_y() * kRowPiece + simt::thread() * 8};
}

template <typename T>
SALIENT_DEVICE void take_halves(const TakeRowsArguments& a, int64_t row, const RowPlace& place) {
  const auto* from = static_cast<const uint16_t*>(a.table) + row * a.features;
  float* to = a.y + int64_t{place.row} * a.features;
  const bool aligned = on_16_bytes(a.table) && on_16_bytes(a.y) && a.features % 8 == 0;
  if (!aligned) {
    for (int i = place.first; i < place.first + 8 && i < a.features; ++i) to[i] = T::low(from[i]);
    return;
  }
  if (place.first >= a.features) return;
  const simt::Words4 words = *reinterpret_cast<const simt::Words4*>(from + place.first);
  SALIENT_UNROLL
  for (int half = 0; half < 2; ++half) {
    Floats4 values;
    SALIENT_UNROLL
    for (int pair = 0; pair < 2; ++pair) {
      values.value[2 * pair] = T::low(words.word[2 * half + pair]);
      values.value[2 * pair + 1] = T::high(words.word[2 * half + pair]);
    }
    store_floats(values, to, place.first + 4 * half, a.features, true);
  }
}

SALIENT_DEVICE void take_floats(const TakeRowsArguments& a, int64_t row, const RowPlace& place) {
  const auto* from = static_cast<const float*>(a.table) + row * a.features;
  float* to = a.y + int64_t{place.row} * a.features;
  const bool aligned = on_16_bytes(a.table) && on_16_bytes(a.y) && a.features % 4 == 0;
  SALIENT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int first = place.first + 4 * half;
    store_floats(load_floats(from, first, a.features, aligned), to, first, a.features, aligned);
  }
}

SALIENT_DEVICE void take_row_pieces(const TakeRowsArguments& a) {
  const RowPlace place = row_place();
  const int64_t row = a.rows[place.row];
  if (a.type == RowType::f32) {
    take_floats(a, row, place);
  } else if (a.type == RowType::f16) {
    take_halves<simt::F16>(a, row, place);
  } else {
    take_halves<simt::BF16>(a, row, place);
  }
}

SALIENT_DEVICE void scatter_row_pieces(const ScatterArguments& a) {
  const RowPlace place = row_place();
  const float* from = a.x + int64_t{place.row} * a.features;
  float* to = a.y + int64_t{a.rows[place.row]} * a.features;
  const float factor = a.factors[place.row];
  const bool aligned = on_16_bytes(a.x) && on_16_bytes(a.y) && a.features % 4 == 0;
  SALIENT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int first = place.first + 4 * half;
    const Floats4 x = load_floats(from, first, a.features, aligned);
    Floats4 y = load_floats(to, first, a.features, aligned);
    SALIENT_UNROLL
    for (int e = 0; e < 4; ++e) y.value[e] += factor * x.value[e];
    store_floats(y, to, first, a.features, aligned);
  }
}

#define SALIENT_ROW_KERNELS(X)                             \
  X(take_rows, TakeRowsArguments, 128, 1, take_row_pieces) \
  X(scatter_rows, ScatterArguments, 128, 1, scatter_row_pieces)

}  // namespace salient::cuda
