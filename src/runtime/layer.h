#pragma once

#include <functional>
#include <initializer_list>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "model/weights.h"
#include "runtime/kv_cache.h"
#include "runtime/rope.h"
#include "tensor/tensor_pool.h"

namespace salient {

struct PreparedNorm {
  Tensor gain;  ///< f32, undefined where the family has no such norm, or no weights for it
  Tensor bias;  ///< f32 or undefined

  bool defined() const { return gain.defined(); }
};

PreparedNorm prepare_norm(const NormWeight& norm);

/// y = norm(x), as the family normalises; a new tensor, from `pool` if there is one. Gains are 1 where the
/// family's norms have no weights; for others an undefined norm is an internal error.
Tensor normalized(Backend& backend, const NormSpec& spec, const PreparedNorm& norm, const Tensor& x,
                  TensorPool* pool = nullptr);

/// One decoder layer ready to run.
struct PreparedLayer {
  PerLinear<std::shared_ptr<const PreparedLinear>> linears;
  /// If set, makes each linear whenever it is used, and `linears` is empty.
  std::function<std::shared_ptr<const PreparedLinear>(const LinearId& id)> make;
  std::array<PreparedNorm, kNormRoles> norms;
  Tensor router_correction;  ///< f32 [experts] or undefined
  std::array<Tensor, kStateTensors> state_tensors;

  std::shared_ptr<const PreparedLinear> operator[](const LinearId& id) const {
    return make ? make(id) : linears.at(id);
  }
  const PreparedNorm& operator[](NormRole role) const { return norms[static_cast<size_t>(role)]; }
  const Tensor& operator[](StateTensor tensor) const { return state_tensors[static_cast<size_t>(tensor)]; }
};

PreparedLayer prepare_layer(Backend& backend, const LayerWeights& weights);
/// The same but for the linears.
PreparedLayer prepare_all_but_linears(const LayerWeights& weights);

/// Rows [begin, begin + count) of a batch belong to one sequence and continue at position `first_position`.
/// Several of a batch may be of one sequence with a cache, in the order of their positions, unless the model
/// has linear attention.
struct SequenceSpan {
  int64_t begin;
  int64_t count;
  int64_t first_position;
  KvCache* cache;  ///< null: the sequence starts and ends in this batch
};

/// Angles of each rotation of the model for a batch of whole sequences, or of chunks that end at the last
/// position known.
std::vector<RopeTable> make_rope_tables(const DecoderSpec& spec, std::span<const SequenceSpan> sequences);

/// Sees the input of a linear [rows, in_features] before the product. Linears that share an input each report
/// it; an expert reports the rows that were routed to it.
using LinearObserver = std::function<void(const LinearId& id, const Tensor& input)>;

/// `stepwise`: when a linear is observed, what comes before it is done to the hidden states and nothing
/// behind it, so that an observer may end the run there. `free`: whatever is fastest, with the same results.
enum class LayerOrder { free, stepwise };

struct LayerRun {
  Backend& backend;
  const DecoderSpec& spec;
  std::span<const RopeTable> ropes;  ///< one row per row of the batch, see make_rope_tables
  int64_t layer;
  std::span<const SequenceSpan> sequences;
  const LinearObserver* observer = nullptr;
  TensorPool* pool = nullptr;  ///< where activations come from; null: from the system
  LayerOrder order = LayerOrder::free;

  /// f32 [rows of x, features], uninitialised.
  Tensor rows_like(const Tensor& x, int64_t features) const {
    return pool_or_new(pool, DType::f32, {x.dim(0), features});
  }
};

/// The linears of one layer at work: each reports its input to the observer first.
class Linears {
 public:
  Linears(const LayerRun& run, const PreparedLayer& weights) : run_(run), weights_(weights) {}
  /// y = x W^T + bias, a new tensor.
  Tensor operator()(const LinearId& id, const Tensor& x) const;
  /// Those of one x, in the order asked for: one product where the back end makes it one.
  std::vector<Tensor> of_one_input(std::initializer_list<LinearId> ids, const Tensor& x) const;

 private:
  const LayerRun& run_;
  const PreparedLayer& weights_;
};

/// Rows that go through everything behind attention as one, where the back end packs weights: their
/// activations stay in a second-level cache, and weights that come from further away serve each of them.
inline constexpr int64_t kRowsPerSlice = 256;
/// Whether so many rows pass the layer in slices, in parallel: plain feed-forward blocks and a slice or more
/// for each thread. Slices give the same bytes as whole batches, so that the number of threads may decide.
bool passes_in_slices(const DecoderSpec& spec, int64_t layer, int64_t rows, size_t threads);

/// hidden [rows, hidden_size] -> hidden, in place: x += attention(norm(x)); x += mlp(norm(x)), or both of the
/// same norm(x) in a parallel block. Families differ in which norms there are, before the blocks or behind.
void run_layer(const LayerRun& run, const PreparedLayer& weights, Tensor& hidden);

}  // namespace salient
