#include "runtime/linear_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/parallel.h"

namespace salient {
namespace {

/// Of the squares of a query or key under the root (transformers and the kernels of its authors).
constexpr float kLengthEpsilon = 1e-6f;

/// Head by head what the delta rule reads, f32, rows of the batch.
struct DeltaInput {
  Tensor mixed;  ///< [rows, channels] queries, keys and values, convolved
  Tensor write;  ///< [rows, value heads] in (0, 1), how much of a value is written
  Tensor keep;   ///< [rows, value heads] in (0, 1), what the state is multiplied by before
};

Tensor join_columns(std::initializer_list<const Tensor*> parts, int64_t rows, int64_t columns) {
  Tensor joined = Tensor::empty(DType::f32, {rows, columns});
  float* to = joined.mutable_values<float>().data();
  for (int64_t row = 0; row < rows; ++row) {
    for (const Tensor* part : parts) {
      to = std::copy_n(part->values<float>().data() + row * part->dim(1), part->dim(1), to);
    }
  }
  return joined;
}

/// Where the sequence goes on: a copy, so that who keeps an earlier state keeps it.
RecurrentState state_before(const LinearAttention& spec, int64_t layer, const SequenceSpan& sequence) {
  if (sequence.first_position > 0 && sequence.cache != nullptr) {
    const RecurrentState& last = sequence.cache->state(layer);
    return {last.tail.to(DType::f32), last.matrices.to(DType::f32)};
  }
  return {Tensor::zeros(DType::f32, {spec.kernel - 1, spec.channels()}),
          Tensor::zeros(DType::f32, {spec.value_heads, spec.key_dim, spec.value_dim})};
}

/// y[t][c] = sum over k of weight[c][k] * x[t + k - (kernel - 1)][c]: each channel on its own, over the rows
/// before it, of which the tail holds those of earlier passes.
void convolve(const Tensor& weight, const Tensor& rows, RecurrentState& state, Tensor& convolved) {
  const int64_t channels = rows.dim(1);
  const int64_t kernel = weight.dim(2);
  const int64_t count = rows.dim(0);
  Tensor padded = Tensor::empty(DType::f32, {kernel - 1 + count, channels});
  if (kernel > 1) std::memcpy(padded.mutable_bytes(), state.tail.bytes(), state.tail.byte_size());
  std::memcpy(padded.mutable_bytes() + state.tail.byte_size(), rows.bytes(), rows.byte_size());
  const float* taps = weight.values<float>().data();
  const float* from = padded.values<float>().data();
  float* to = convolved.mutable_values<float>().data();
  parallel_for(static_cast<size_t>(count), 16, [&](size_t begin, size_t end) {
    for (auto t = static_cast<int64_t>(begin); t < static_cast<int64_t>(end); ++t) {
      for (int64_t c = 0; c < channels; ++c) {
        float sum = 0;
        for (int64_t k = 0; k < kernel; ++k) sum += taps[c * kernel + k] * from[(t + k) * channels + c];
        to[t * channels + c] = sum;
      }
    }
  });
  state.tail = padded.slice(count, count + kernel - 1).to(DType::f32);
}

/// scale * x / |x|
void copy_unit(const float* x, float scale, std::span<float> unit) {
  float squares = kLengthEpsilon;
  for (size_t i = 0; i < unit.size(); ++i) squares += x[i] * x[i];
  const float factor = scale / std::sqrt(squares);
  for (size_t i = 0; i < unit.size(); ++i) unit[i] = x[i] * factor;
}

/// One token of one head. The state S [key_dim, value_dim] forgets, then learns what it does not yet answer:
/// S = keep S; S += k (write (v - S^T k))^T; out = S^T q.
struct DeltaStep {
  std::span<const float> query;
  std::span<const float> key;
  const float* value;
  float write;
  float keep;
};

void apply_step(const DeltaStep& step, std::span<float> correction, float* state, float* out) {
  const size_t width = correction.size();
  std::ranges::fill(correction, 0.0f);
  for (size_t i = 0; i < step.key.size(); ++i) {
    float* row = state + i * width;
    for (size_t j = 0; j < width; ++j) {
      row[j] *= step.keep;
      correction[j] += row[j] * step.key[i];
    }
  }
  for (size_t j = 0; j < width; ++j) correction[j] = step.write * (step.value[j] - correction[j]);
  std::fill_n(out, width, 0.0f);
  for (size_t i = 0; i < step.key.size(); ++i) {
    float* row = state + i * width;
    for (size_t j = 0; j < width; ++j) {
      row[j] += step.key[i] * correction[j];
      out[j] += row[j] * step.query[i];
    }
  }
}

/// The sequence's tokens in order, for one value head; output [rows, value features].
void run_head(const LinearAttention& spec, const SequenceSpan& sequence, const DeltaInput& input,
              int64_t head, Tensor& matrices, Tensor& output) {
  const int64_t key_head = head / (spec.value_heads / spec.key_heads);
  const float scale = 1 / std::sqrt(static_cast<float>(spec.key_dim));
  std::vector<float> query(static_cast<size_t>(spec.key_dim));
  std::vector<float> key(query.size());
  std::vector<float> correction(static_cast<size_t>(spec.value_dim));
  float* state = matrices.mutable_values<float>().data() + head * spec.key_dim * spec.value_dim;
  for (int64_t row = sequence.begin; row < sequence.begin + sequence.count; ++row) {
    const float* mixed = input.mixed.values<float>().data() + row * spec.channels();
    copy_unit(mixed + key_head * spec.key_dim, scale, query);
    copy_unit(mixed + spec.key_features() + key_head * spec.key_dim, 1, key);
    const int64_t gate = row * spec.value_heads + head;
    apply_step({.query = query,
                .key = key,
                .value = mixed + 2 * spec.key_features() + head * spec.value_dim,
                .write = input.write.values<float>()[static_cast<size_t>(gate)],
                .keep = input.keep.values<float>()[static_cast<size_t>(gate)]},
               correction, state,
               output.mutable_values<float>().data() + row * spec.value_features() + head * spec.value_dim);
  }
}

/// ln(1 + e^x); beyond 20 the logarithm is x to f32 precision, and e^x would run over.
float softplus(float x) { return x > 20 ? x : std::log1p(std::exp(x)); }

/// keep = exp(-exp(log_decay) softplus(decay + step_bias)), in place.
void make_keep(const PreparedLayer& weights, Tensor& decay) {
  const auto log_decay = weights[StateTensor::log_decay].values<float>();
  const auto step_bias = weights[StateTensor::step_bias].values<float>();
  const auto values = decay.mutable_values<float>();
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t head = i % log_decay.size();
    values[i] = std::exp(-std::exp(log_decay[head]) * softplus(values[i] + step_bias[head]));
  }
}

DeltaInput delta_input(const LayerRun& run, const PreparedLayer& weights, const Tensor& x) {
  const Linears linear(run, weights);
  auto own = linear.of_one_input({LinearRole::state_q, LinearRole::state_k, LinearRole::state_v,
                                  LinearRole::state_beta, LinearRole::state_decay},
                                 x);
  DeltaInput input;
  input.mixed = join_columns({&own[0], &own[1], &own[2]}, x.dim(0), run.spec.linear_attention->channels());
  input.write = std::move(own[3]);
  run.backend.activation(Activation::sigmoid, input.write);
  input.keep = std::move(own[4]);
  make_keep(weights, input.keep);
  return input;
}

/// The norm of each head stands before the gate, and has no offset whatever the family's norms have.
Tensor gated_output(const LayerRun& run, const PreparedLayer& weights, const Tensor& gate, Tensor mixed) {
  run.backend.rms_norm(mixed, weights[StateTensor::gain], run.spec.norm.epsilon, mixed);
  Tensor result = Tensor::empty(DType::f32, mixed.shape());
  run.backend.gated_activation(Activation::silu, gate, mixed, result);
  return result;
}

}  // namespace

Tensor linear_attention_block(const LayerRun& run, const PreparedLayer& weights, const Tensor& x) {
  const LinearAttention& spec = *run.spec.linear_attention;
  DeltaInput input = delta_input(run, weights, x);
  const Tensor gate = Linears(run, weights)(LinearRole::state_gate, x);
  std::vector<RecurrentState> states;
  Tensor convolved = Tensor::empty(DType::f32, input.mixed.shape());
  for (const SequenceSpan& sequence : run.sequences) {
    const int64_t end = sequence.begin + sequence.count;
    RecurrentState& state = states.emplace_back(state_before(spec, run.layer, sequence));
    Tensor part = convolved.slice(sequence.begin, end);
    convolve(weights[StateTensor::convolution], input.mixed.slice(sequence.begin, end), state, part);
  }
  run.backend.activation(run.spec.activation, convolved);
  input.mixed = convolved;
  Tensor mixed = Tensor::empty(DType::f32, {x.dim(0), spec.value_features()});
  const auto heads = static_cast<size_t>(spec.value_heads);
  parallel_for(states.size() * heads, 1, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      run_head(spec, run.sequences[i / heads], input, static_cast<int64_t>(i % heads),
               states[i / heads].matrices, mixed);
    }
  });
  for (size_t i = 0; i < states.size(); ++i) {
    if (run.sequences[i].cache != nullptr) run.sequences[i].cache->store(run.layer, std::move(states[i]));
  }
  return Linears(run, weights)(LinearRole::state_out, gated_output(run, weights, gate, mixed));
}

}  // namespace salient
