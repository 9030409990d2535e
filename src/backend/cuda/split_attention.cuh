#pragma once

#include "backend/cuda/attention_rows.cuh"

namespace salient::cuda {

inline constexpr int kLaneFeatures = 8;  // that a lane has of a key, and of a value

/// Eight features as the types of pages keep them. kUnroll keys with their values are on their way to each
/// lane at once: with four blocks on a multiprocessor of an H100, which needs 40 KiB on their way to read at
/// the speed of its memory, that is 64 KiB or more.
struct FloatFeatures {
  static constexpr int kBytes = 32;
  simt::Words4 words[2];

  SALIENT_DEVICE void load(const RowLayout&, std::byte*, const std::byte* from, int) {
    const auto* at = reinterpret_cast<const simt::Words4*>(from);
    words[0] = simt::load_stream(at);
    words[1] = simt::load_stream(at + 1);
  }
  SALIENT_DEVICE void clear() { words[0] = words[1] = {}; }
  SALIENT_DEVICE void widen(float (&to)[kLaneFeatures]) const {
    SALIENT_UNROLL for (int i = 0; i < kLaneFeatures; ++i) to[i] =
        simt::float_of_bits(words[i / 4].word[i % 4]);
  }
  SALIENT_DEVICE float scale() const { return 1; }
};

template <typename T>
struct HalfFeatures {
  static constexpr int kBytes = 16;
  simt::Words4 words;

  SALIENT_DEVICE void load(const RowLayout&, std::byte*, const std::byte* from, int) {
    words = simt::load_stream(reinterpret_cast<const simt::Words4*>(from));
  }
  SALIENT_DEVICE void clear() { words = {}; }
  SALIENT_DEVICE void widen(float (&to)[kLaneFeatures]) const {
    SALIENT_UNROLL for (int i = 0; i < kLaneFeatures; i += 2) {
      to[i] = T::low(words.word[i / 2]);
      to[i + 1] = T::high(words.word[i / 2]);
    }
  }
  SALIENT_DEVICE float scale() const { return 1; }
};

struct ByteFeatures {
  static constexpr int kBytes = 8;
  simt::Words2 words;
  float scale_;

  SALIENT_DEVICE void load(const RowLayout& layout, std::byte* page, const std::byte* from, int row) {
    words = *reinterpret_cast<const simt::Words2*>(from);
    scale_ = scales_of_page(layout, page)[row];
  }
  SALIENT_DEVICE void clear() {
    words = {};
    scale_ = 0;
  }
  SALIENT_DEVICE void widen(float (&to)[kLaneFeatures]) const { widen_codes(words, to); }
  SALIENT_DEVICE float scale() const { return scale_; }
};

/// What a group of lanes has of the rows after some of their keys: each lane eight features.
template <int kRows>
struct RowSums {
  Total total[kRows];
  float mixed[kRows][kLaneFeatures] = {};

  SALIENT_DEVICE void rescale(int row, float factor) {
    SALIENT_UNROLL for (int i = 0; i < kLaneFeatures; ++i) mixed[row][i] *= factor;
  }

  /// Joins what the lanes `mask` further on have of other keys.
  SALIENT_DEVICE void join(int mask) {
    SALIENT_UNROLL for (int row = 0; row < kRows; ++row) {
      const float other_highest = simt::shuffle_xor(total[row].highest, mask);
      const float other_sum = simt::shuffle_xor(total[row].sum, mask);
      const float own = raise(total[row], other_highest);
      const float other = simt::power_of_two(other_highest - finite_highest(total[row].highest));
      total[row].sum += other * other_sum;
      SALIENT_UNROLL for (int i = 0; i < kLaneFeatures; ++i) mixed[row][i] =
          own * mixed[row][i] + other * simt::shuffle_xor(mixed[row][i], mask);
    }
  }
};

/// A warp at work. A group of `key_lanes` lanes has a key to itself; its lane i has features [8i, 8i + 8) of
/// the key and of its value.
template <typename Features, int kRows, int kUnroll>
class SplitWarp {
 public:
  SALIENT_DEVICE SplitWarp(const AttentionArguments& a, const AttentionSequence& sequence, int first_row)
      : a_(a),
        blocks_(sequence.blocks),
        lane_(simt::lane() % a.key_lanes),
        group_(simt::lane() / a.key_lanes) {
    SALIENT_UNROLL for (int r = 0; r < kRows; ++r) {
      const bool inside = first_row + r < a.rows;
      rows_[r] =
          attention_row(a, sequence, simt::block_y(), simt::grid_y(), inside ? first_row + r : first_row);
      if (!inside) rows_[r].position = -1;  // before all keys
      const float* from = a.query + rows_[r].head * a.keys.dim + kLaneFeatures * lane_;
      SALIENT_UNROLL for (int i = 0; i < kLaneFeatures; ++i) query_[r][i] =
          kLaneFeatures * lane_ < a.keys.dim ? from[i] : 0.0f;
    }
  }

  SALIENT_DEVICE static int keys_at_once(const AttentionArguments& a) {
    return kUnroll * (simt::kWarp / a.key_lanes);
  }

  /// Keys [begin, begin + keys_at_once()) as far as they are before `end`; none of them in another page.
  SALIENT_DEVICE void add_keys(int begin, int end, RowSums<kRows>& sums) {
    Features keys[kUnroll];
    Features values[kUnroll];
    load(a_.keys, begin, end, keys);
    load(a_.values, begin, end, values);
    float scores[kRows][kUnroll];
    SALIENT_UNROLL for (int u = 0; u < kUnroll; ++u) multiply(keys[u], u, scores);
    for (int mask = a_.key_lanes / 2; mask > 0; mask /= 2) {
      SALIENT_UNROLL for (int r = 0; r < kRows; ++r) {
        SALIENT_UNROLL for (int u = 0; u < kUnroll; ++u) scores[r][u] +=
            simt::shuffle_xor(scores[r][u], mask);
      }
    }
    SALIENT_UNROLL for (int u = 0; u < kUnroll; ++u)
        finish_scores(keys[u].scale(), key_of(begin, u), u, scores);
    SALIENT_UNROLL for (int r = 0; r < kRows; ++r) weigh(r, scores[r], sums);
    SALIENT_UNROLL for (int u = 0; u < kUnroll; ++u) mix(values[u], u, scores, sums);
  }

 private:
  SALIENT_DEVICE int key_of(int begin, int u) const {
    return begin + u * (simt::kWarp / a_.key_lanes) + group_;
  }

  SALIENT_DEVICE void load(const RowLayout& layout, int begin, int end, Features (&to)[kUnroll]) const {
    constexpr auto kRowsOfPage = static_cast<int>(kPageRows);
    std::byte* page = head_of_page(layout, blocks_, begin / kRowsOfPage, simt::block_y());
    SALIENT_UNROLL for (int u = 0; u < kUnroll; ++u) {
      const int key = key_of(begin, u);
      const int row = key % kRowsOfPage;
      if (key < end && kLaneFeatures * lane_ < layout.dim) {
        to[u].load(layout, page, row_of_page(layout, page, row) + Features::kBytes * lane_, row);
      } else {
        to[u].clear();
      }
    }
  }

  SALIENT_DEVICE void multiply(const Features& key, int u, float (&scores)[kRows][kUnroll]) const {
    float features[kLaneFeatures];
    key.widen(features);
    SALIENT_UNROLL for (int r = 0; r < kRows; ++r) {
      float sum = 0;
      SALIENT_UNROLL for (int i = 0; i < kLaneFeatures; ++i) sum += query_[r][i] * features[i];
      scores[r][u] = sum;
    }
  }

  /// Lanes without features of the key have no scale of it: they take that of the first lane.
  SALIENT_DEVICE void finish_scores(float scale, int key, int u, float (&scores)[kRows][kUnroll]) const {
    const float key_scale = simt::shuffle(scale, simt::lane() - lane_);
    SALIENT_UNROLL for (int r = 0; r < kRows; ++r) {
      const bool seen = sees(a_, rows_[r].position, key);
      const float score = score_of(a_, scores[r][u] * key_scale, rows_[r].slope, key - rows_[r].position);
      scores[r][u] = seen ? score : -INFINITY;
    }
  }

  /// Scores become weights.
  SALIENT_DEVICE void weigh(int r, float (&scores)[kUnroll], RowSums<kRows>& sums) const {
    float highest = scores[0];
    SALIENT_UNROLL for (int u = 1; u < kUnroll; ++u) highest = fmaxf(highest, scores[u]);
    sums.rescale(r, raise(sums.total[r], highest));
    const float base = finite_highest(sums.total[r].highest);
    SALIENT_UNROLL for (int u = 0; u < kUnroll; ++u) {
      scores[u] = simt::power_of_two(scores[u] - base);
      sums.total[r].sum += scores[u];
    }
  }

  SALIENT_DEVICE void mix(const Features& value, int u, const float (&weights)[kRows][kUnroll],
                          RowSums<kRows>& sums) const {
    float features[kLaneFeatures];
    value.widen(features);
    SALIENT_UNROLL for (int r = 0; r < kRows; ++r) {
      const float weight = weights[r][u] * value.scale();
      SALIENT_UNROLL for (int i = 0; i < kLaneFeatures; ++i) sums.mixed[r][i] += weight * features[i];
    }
  }

  const AttentionArguments& a_;
  std::byte* const* blocks_;
  int lane_;   // of the group
  int group_;  // of the warp
  AttentionRow rows_[kRows];
  float query_[kRows][kLaneFeatures];
};

template <int kRows>
SALIENT_DEVICE void lay_out(const AttentionArguments& a, const RowSums<kRows>& sums) {
  const int lane = simt::lane();
  SALIENT_UNROLL for (int r = 0; r < kRows; ++r) {
    float* to = warp_sums(a, kRows, simt::warp(), r);
    if (lane == 0) {
      to[0] = sums.total[r].highest;
      to[1] = sums.total[r].sum;
    }
    if (lane >= a.key_lanes || kLaneFeatures * lane >= a.values.dim) continue;
    SALIENT_UNROLL for (int i = 0; i < kLaneFeatures; ++i) to[2 + kLaneFeatures * lane + i] =
        sums.mixed[r][i];
  }
}

/// Grid: rows / kRows, kv heads, sequences * splits (Dao et al. 2023, "Flash-Decoding"). All heads that share
/// a kv head are rows of one block as far as it has room for them, so that keys and values are read once for
/// them.
template <typename Features, int kRows, int kUnroll>
SALIENT_DEVICE void split_attention(const AttentionArguments& a) {
  using Worker = SplitWarp<Features, kRows, kUnroll>;
  const int first_row = simt::block_x() * kRows;
  const AttentionSequence sequence = sequence_of_block(a);
  if (split_of_block(a) >= sequence.splits.splits) return;  // the whole block
  const KeyRange keys = keys_of_split(a, sequence, split_of_block(a), first_row, first_row + kRows);
  Worker worker(a, sequence, first_row);
  RowSums<kRows> sums;
  const int step = Worker::keys_at_once(a);
  for (int key = keys.begin + simt::warp() * step; key < keys.end; key += kAttentionWarps * step)
    worker.add_keys(key, keys.end, sums);
  for (int mask = a.key_lanes; mask < simt::kWarp; mask *= 2) sums.join(mask);
  lay_out(a, sums);
  simt::sync_block();
  store_rows_of_block(a, first_row, kRows);
}

/// The highest score of all splits of a row and their sum, the same in all lanes.
SALIENT_DEVICE Total total_of_splits(const AttentionArguments& a, int splits, int64_t first) {
  Total total;
  for (int split = simt::lane(); split < splits; split += simt::kWarp)
    total.highest = fmaxf(total.highest, a.totals[2 * (first + split)]);
  total.highest = simt::warp_max(total.highest);
  for (int split = simt::lane(); split < splits; split += simt::kWarp) {
    const float* from = a.totals + 2 * (first + split);
    total.sum += simt::power_of_two(from[0] - finite_highest(total.highest)) * from[1];
  }
  total.sum = simt::warp_sum(total.sum);
  return total;
}

/// Grid: rows, kv heads, sequences. Each warp joins every fourth split, with the loads of eight on their way
/// at once, four features to a lane; then the warps' are joined. The order is always the same.
SALIENT_DEVICE void merge(const AttentionArguments& a) {
  const int row = simt::block_x();
  const int kv_head = simt::block_y();
  const int dim = a.values.dim;
  const AttentionSequence sequence = sequence_of_launch(a, simt::block_z());
  const int splits = sequence.splits.splits;
  if (splits == 1) return;  // the whole block
  const int64_t first = split_index(a, sequence.index, kv_head, row, 0);
  const Total total = total_of_splits(a, splits, first);
  float* parts = simt::shared_memory<float>();  // [warps, dim]
  for (int feature = 0; feature < dim; feature += 4 * simt::kWarp) {
    const int own = feature + 4 * simt::lane();
    float mixed[4] = {};
    for (int begin = 0; begin < splits; begin += simt::kWarp) {
      const int split = begin + simt::lane();
      const float highest = split < splits ? a.totals[2 * (first + split)] : -INFINITY;
      const float factor = simt::power_of_two(highest - finite_highest(total.highest));
      SALIENT_UNROLL for (int i = 0; i < simt::kWarp; i += kAttentionWarps) {
        const int from = begin + i + simt::warp();
        const float weight = simt::shuffle(factor, i + simt::warp());
        if (from >= splits || own >= dim) continue;
        const auto four = *reinterpret_cast<const simt::Words4*>(a.mixed + (first + from) * dim + own);
        SALIENT_UNROLL for (int j = 0; j < 4; ++j) mixed[j] += weight * simt::float_of_bits(four.word[j]);
      }
    }
    if (own >= dim) continue;
    SALIENT_UNROLL for (int j = 0; j < 4; ++j) parts[simt::warp() * dim + own + j] = mixed[j];
  }
  simt::sync_block();
  const int64_t head = attention_row(a, sequence, kv_head, simt::grid_y(), row).head;
  for (int feature = simt::thread(); feature < dim; feature += simt::block_threads()) {
    float mixed = 0;
    for (int warp = 0; warp < kAttentionWarps; ++warp) mixed += parts[warp * dim + feature];
    a.output[head * dim + feature] = mixed / total.sum;
  }
}

#define SALIENT_SPLIT_ATTENTION_KERNELS(X)                                                              \
  X(split_attention_fp32, AttentionArguments, 128, 3, split_attention<FloatFeatures, 1, 4>)             \
  X(split_attention_fp16, AttentionArguments, 128, 4, split_attention<HalfFeatures<simt::F16>, 1, 8>)   \
  X(split_attention_bf16, AttentionArguments, 128, 4, split_attention<HalfFeatures<simt::BF16>, 1, 8>)  \
  X(split_attention_int8, AttentionArguments, 128, 4, split_attention<ByteFeatures, 1, 8>)              \
  X(split_attention4_fp32, AttentionArguments, 128, 3, split_attention<FloatFeatures, 4, 4>)            \
  X(split_attention4_fp16, AttentionArguments, 128, 3, split_attention<HalfFeatures<simt::F16>, 4, 4>)  \
  X(split_attention4_bf16, AttentionArguments, 128, 3, split_attention<HalfFeatures<simt::BF16>, 4, 4>) \
  X(split_attention4_int8, AttentionArguments, 128, 3, split_attention<ByteFeatures, 4, 8>)             \
  X(merge_splits, AttentionArguments, 128, 1, merge)

}  // namespace salient::cuda
