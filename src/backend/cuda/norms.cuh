#pragma once

#include <cmath>

#include "backend/cuda/floats.cuh"
#include "backend/cuda/norms.h"

namespace salient::cuda {

/// A row in the registers of kWarps warps, so many elements at a time: with one token at work a norm takes as
/// long as its loads are on their way, and a row that stays needs only one round of them.
template <int kWarps>
class NormRow {
 public:
  static constexpr int kVectors = 8;
  static constexpr int kLanes = kWarps * simt::kWarp;
  static constexpr int kPiece = kLanes * kVectors * 4;

  SALIENT_DEVICE NormRow(const NormArguments& a, int64_t row)
      : x_(a.x + row * a.features),
        sum_(a.sum == nullptr ? nullptr : a.sum + row * a.features),
        y_(a.y + row * a.features),
        count_(row < a.rows ? a.features : 0),
        lane_(simt::thread() % kLanes),
        aligned_(on_16_bytes(a.x) && on_16_bytes(a.sum) && on_16_bytes(a.y) && on_16_bytes(a.weight) &&
                 on_16_bytes(a.bias) && a.features % 4 == 0) {}

  SALIENT_DEVICE int count() const { return count_; }

  /// Elements of the piece that begins at `first`, summed up with what was there.
  SALIENT_DEVICE void load(int first) {
    SALIENT_UNROLL
    for (int v = 0; v < kVectors; ++v) values_[v] = load_floats(x_, place(first, v), count_, aligned_);
    if (sum_ == nullptr) return;
    SALIENT_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const Floats4 before = load_floats(sum_, place(first, v), count_, aligned_);
      SALIENT_UNROLL
      for (int e = 0; e < 4; ++e) values_[v].value[e] = before.value[e] + values_[v].value[e];
      store_floats(values_[v], sum_, place(first, v), count_, aligned_);
    }
  }
  /// The same elements again, if the row has more than one piece.
  SALIENT_DEVICE void load_again(int first) {
    if (count_ <= kPiece) return;
    const float* from = sum_ == nullptr ? x_ : sum_;
    SALIENT_UNROLL
    for (int v = 0; v < kVectors; ++v) values_[v] = load_floats(from, place(first, v), count_, aligned_);
  }

  SALIENT_DEVICE float total() const {
    float result = 0;
    SALIENT_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const float(&x)[4] = values_[v].value;
      result += (x[0] + x[1]) + (x[2] + x[3]);
    }
    return result;
  }
  /// Of the distances from `mean`.
  SALIENT_DEVICE float squares(int first, float mean) const {
    float result = 0;
    SALIENT_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      SALIENT_UNROLL
      for (int e = 0; e < 4; ++e) {
        const float distance = place(first, v) + e < count_ ? values_[v].value[e] - mean : 0.0f;
        result += distance * distance;
      }
    }
    return result;
  }
  SALIENT_DEVICE void store(int first, float mean, float factor, const float* weight, const float* bias) {
    SALIENT_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const Floats4 gain = load_floats(weight, place(first, v), count_, aligned_);
      SALIENT_UNROLL
      for (int e = 0; e < 4; ++e) {
        float& value = values_[v].value[e];
        value = (value - mean) * factor * gain.value[e];
      }
    }
    if (bias != nullptr) add(first, bias);
    SALIENT_UNROLL
    for (int v = 0; v < kVectors; ++v) store_floats(values_[v], y_, place(first, v), count_, aligned_);
  }

 private:
  SALIENT_DEVICE int place(int first, int v) const { return first + (v * kLanes + lane_) * 4; }
  SALIENT_DEVICE void add(int first, const float* bias) {
    SALIENT_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const Floats4 offset = load_floats(bias, place(first, v), count_, aligned_);
      SALIENT_UNROLL
      for (int e = 0; e < 4; ++e) values_[v].value[e] += offset.value[e];
    }
  }

  const float* x_;
  float* sum_;
  float* y_;
  int count_;
  int lane_;
  bool aligned_;
  Floats4 values_[kVectors];
};

/// Sums in f32: a thread adds up at most 32 numbers of a piece, warps and pieces what comes of that.
template <int kWarps>
SALIENT_DEVICE void normalize_rows(const NormArguments& a) {
  constexpr int kRows = kNormThreads / simt::kWarp / kWarps;
  float* parts = simt::shared_memory<float>();
  const int64_t row_index = int64_t{simt::block_x()} * kRows + simt::warp() / kWarps;
  using Row = NormRow<kWarps>;
  Row row(a, row_index);
  const auto features = static_cast<float>(a.features);
  float mean = 0;
  if (a.centered != 0) {
    float total = 0;
    for (int first = 0; first < row.count(); first += Row::kPiece) {
      row.load(first);
      total += row.total();
    }
    mean = sum_over_warps<kWarps>(total, parts) / features;
  }
  float squares = 0;
  for (int first = 0; first < row.count(); first += Row::kPiece) {
    if (a.centered != 0) {
      row.load_again(first);
    } else {
      row.load(first);
    }
    squares += row.squares(first, mean);
  }
  const float variance = sum_over_warps<kWarps>(squares, parts + kNormThreads / simt::kWarp) / features;
  const float factor = 1.0f / sqrtf(variance + a.epsilon);
  const int64_t weights = row_index % a.heads * a.features;
  for (int first = 0; first < row.count(); first += Row::kPiece) {
    row.load_again(first);
    row.store(first, mean, factor, a.weight + weights, a.bias == nullptr ? nullptr : a.bias + weights);
  }
}

#define SALIENT_NORM_KERNELS(X)                             \
  X(norm_of_warp, NormArguments, 256, 1, normalize_rows<1>) \
  X(norm_of_block, NormArguments, 256, 1, normalize_rows<8>)

}  // namespace salient::cuda
