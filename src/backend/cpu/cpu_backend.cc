#include "backend/cpu/cpu_backend.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>

#include "backend/cpu/attention.h"
#include "backend/cpu/code_sweeps.h"
#include "backend/cpu/column_rounding.h"
#include "backend/cpu/cpu_linear.h"
#include "backend/cpu/factor.h"
#include "backend/cpu/isa.h"
#include "backend/cpu/kv_rows.h"
#include "backend/cpu/panel_weight.h"
#include "backend/cpu/product.h"
#include "backend/cpu/rounding_loss.h"
#include "backend/cpu/stream.h"
#include "backend/cpu/tile_product.h"
#include "base/error.h"
#include "base/parallel.h"

namespace salient {
namespace {

/// Beyond most caches; where one is larger, what it gives is what weights of such a size find too.
constexpr size_t kStreamBytes = size_t{1} << 30;

void require(bool condition, const char* what) {
  if (!condition) fail(ErrorKind::internal, "cpu back end: {}", what);
}

void require_shape(const char* what, const Tensor& tensor, const Shape& shape) {
  if (tensor.dtype() == DType::f32 && tensor.shape() == shape) return;
  fail(ErrorKind::internal, "cpu back end: {} is {} {}, expected F32 {}", what, to_string(tensor.dtype()),
       to_string(tensor.shape()), to_string(shape));
}

void require_matrix(const char* what, const Tensor& tensor) {
  if (tensor.dtype() == DType::f32 && tensor.shape().size() == 2) return;
  fail(ErrorKind::internal, "cpu back end: {} is {} {}, expected an F32 matrix", what,
       to_string(tensor.dtype()), to_string(tensor.shape()));
}

bool is_weight_type(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

/// Positions whose keys and values an attention may read.
int64_t keys_of(const AttentionProblem& problem) {
  if (problem.cache != nullptr) {
    const auto& [keys, values] = *problem.cache;
    const bool fits = keys.format.heads == problem.kv_heads && values.format.heads == problem.kv_heads &&
                      keys.format.dim == problem.head_dim && values.format.dim == problem.value_dim;
    require(fits, "the cache of an attention holds other heads");
    return std::min(keys.rows(), values.rows());
  }
  require_matrix("keys of an attention", problem.keys);
  const int64_t capacity = problem.keys.dim(0);
  require_shape("keys of an attention", problem.keys, {capacity, problem.kv_heads * problem.head_dim});
  require_shape("values of an attention", problem.values, {capacity, problem.kv_heads * problem.value_dim});
  return capacity;
}

/// Runs body(begin, end) over rows in pieces of about 16384 elements: a few microseconds each.
template <typename Body>
void parallel_rows(int64_t rows, int64_t features, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, features));
  parallel_for(static_cast<size_t>(rows), static_cast<size_t>(grain), [&](size_t begin, size_t end) {
    body(static_cast<int64_t>(begin), static_cast<int64_t>(end));
  });
}

class CpuBackend final : public Backend {
 public:
  CpuBackend(const IsaChoice& choice, const CpuBackendOptions& options)
      : choice_(choice),
        kernels_(kernels_for(choice.isa)),
        panels_(panel_kernels_for(choice)),
        asked_(options.precision),
        activations_(options.activations),
        repack_(options.repack),
        fuse_(options.fuse_layers),
        can_round_(choice.isa == Isa::avx512 && gemm_has_fast_bf16()),
        tiles_(can_round_ && choice.amx ? fast_tile_kernels() : nullptr) {}

  std::string description() const override;
  int64_t rows_as_alone() const override {
    return activations_ == ActivationMode::fp32 ? kRowsAsAlone : kAnyRows;
  }
  double measure_bandwidth() override { return stream_bandwidth(kStreamBytes); }
  std::string arithmetic() const override;
  ActivationMode activations() const override { return activations_; }
  std::unique_ptr<PreparedLinear> prepare(const LinearWeight& weight) override;
  std::optional<PackedWeight> packed_weight(const PreparedLinear& linear) override;
  std::unique_ptr<PreparedLinear> prepare(const PackedWeight& weight, const Tensor& bias) override;
  std::shared_ptr<const PreparedLinear> pack(const PreparedLinear& linear, TensorPool* pool) override;
  void linear(const PreparedLinear& weight, const Tensor& x, Tensor& y) override;
  void linears(std::span<const LinearOutput> outputs, const Tensor& x) override;
  void embed(const Tensor& table, std::span<const int32_t> tokens, Tensor& y) override;
  void rms_norm(const Tensor& x, const Tensor& weight, double epsilon, Tensor& y) override;
  void add_rms_norm(const AddNormProblem& problem) override;
  void layer_norm(const Tensor& x, const NormWeights& weights, double epsilon, Tensor& y) override;
  void add(const Tensor& x, Tensor& y) override;
  void scale(float factor, Tensor& x) override;
  void softcap(float cap, Tensor& x) override;
  void rope(const RopeProblem& problem) override;
  void store_rows(const KvStore& problem) override;
  void attention(const AttentionProblem& problem) override;
  void activation(Activation activation, Tensor& x) override;
  void gated_activation(Activation activation, const Tensor& gate, const Tensor& up, Tensor& y) override;
  void gather_rows(const Tensor& x, std::span<const int32_t> rows, Tensor& y) override;
  void scatter_add(const Tensor& x, std::span<const int32_t> rows, std::span<const float> factors,
                   Tensor& y) override;
  bool all_finite(const Tensor& x) override;
  void accumulate_gram(const Tensor& x, MatmulPrecision precision, Tensor& gram) override;
  void quadratic_form(const Tensor& x, const Tensor& symmetric, std::span<double> result) override;
  void rounding_loss(const RoundingLossProblem& problem, std::span<double> result) override;
  void rounding_loss_by_group(const RoundingLossProblem& problem, std::span<double> result) override;
  bool factorize(Tensor& symmetric) override;
  bool solve(Tensor& symmetric, Tensor& rows) override;
  void accumulate_product(const Tensor& a, const Tensor& b, MatmulPrecision precision,
                          Tensor& result) override;
  void round_compensated(const CompensationProblem& problem, QuantizedWeight& result) override;
  void sweep_codes(const CodeSweepProblem& problem, QuantizedWeight& result) override;

 private:
  std::string processor() const;
  std::string precision() const;
  GatedKernel* gated_kernel(Activation activation) const;
  Product product_of(const PreparedLinear& weight, const Tensor& x, Tensor& y) const;
  CpuContext context() { return {.kernels = kernels_, .gemm = gemm_, .panels = panels_, .tiles = tiles_}; }
  /// bf16 without its instructions would be slower than f32 and less exact.
  MatmulPrecision possible(MatmulPrecision precision) const {
    return can_round_ ? precision : MatmulPrecision::f32;
  }

  IsaChoice choice_;
  const CpuKernels& kernels_;
  PanelKernels panels_;
  MatmulPrecision asked_;
  ActivationMode activations_;
  bool repack_;
  bool fuse_;
  bool can_round_;
  const TileKernels* tiles_;
  Gemm gemm_;
};

std::string CpuBackend::processor() const {
  const std::vector<std::string> extensions = matrix_extensions(choice_);
  return fmt::format("cpu: {}{}", to_string(kernels_.isa),
                     extensions.empty() ? "" : fmt::format(" ({})", fmt::join(extensions, ", ")));
}

std::string CpuBackend::precision() const {
  const std::string_view dense = asked_ == MatmulPrecision::f32 ? "f32"
                                 : can_round_                   ? "bf16"
                                                                : "f32 (bf16 needs AVX512-BF16 or AMX-BF16)";
  if (activations_ == ActivationMode::fp32) return std::string(dense);
  return fmt::format("{}, {} activations", dense, to_string(activations_));
}

std::string CpuBackend::description() const {
  const size_t threads = thread_count();
  return fmt::format("{}, {} thread{}, {}", processor(), threads, threads == 1 ? "" : "s", precision());
}

std::string CpuBackend::arithmetic() const { return fmt::format("{}, {}", processor(), precision()); }

std::unique_ptr<PreparedLinear> CpuBackend::prepare(const LinearWeight& weight) {
  require(weight.defined(), "a linear without weight");
  if (weight.quantized) {
    require_parts(*weight.quantized);
    if (repack_ && PanelWeight::takes(weight.quantized->scheme, weight.quantized->in_features))
      return std::make_unique<CpuLinear>(std::make_unique<PanelWeight>(*weight.quantized), weight.bias);
    return std::make_unique<CpuLinear>(std::make_unique<IntegerWeight>(*weight.quantized), weight.bias);
  }
  const Tensor& dense = weight.dense;
  require(is_weight_type(dense.dtype()) && dense.shape().size() == 2,
          "a dense weight must be an F32, F16 or BF16 matrix");
  return std::make_unique<CpuLinear>(std::make_unique<DenseWeight>(dense), weight.bias);
}

std::optional<PackedWeight> CpuBackend::packed_weight(const PreparedLinear& linear) {
  const auto* panels = dynamic_cast<const PanelWeight*>(&own_linear(linear).weight());
  if (panels == nullptr) return std::nullopt;
  return PackedWeight{panels->layout().to_numbers(), panels->bytes()};
}

std::unique_ptr<PreparedLinear> CpuBackend::prepare(const PackedWeight& weight, const Tensor& bias) {
  auto panels = std::make_unique<PanelWeight>(PanelLayout::from_numbers(weight.layout), weight.bytes);
  return std::make_unique<CpuLinear>(std::move(panels), bias);
}

std::shared_ptr<const PreparedLinear> CpuBackend::pack(const PreparedLinear& linear, TensorPool* pool) {
  const CpuLinear& own = own_linear(linear);
  if (tiles_ == nullptr || possible(asked_) == MatmulPrecision::f32) return nullptr;
  if (activations_ != ActivationMode::fp32 && own.weight().takes_integers()) return nullptr;
  const int64_t elements = packed_elements(linear.out_features(), linear.in_features());
  Tensor packed = pool_or_new(pool, DType::bf16, {elements});
  pack_weight(context(), own.weight(), reinterpret_cast<uint16_t*>(packed.mutable_bytes()));
  return own.with_packed(std::move(packed));
}

Product CpuBackend::product_of(const PreparedLinear& weight, const Tensor& x, Tensor& y) const {
  const CpuLinear& own = own_linear(weight);
  require_matrix("x of a linear", x);
  require_shape("x of a linear", x, {x.dim(0), weight.in_features()});
  require_shape("y of a linear", y, {x.dim(0), weight.out_features()});
  return {.weight = own.weight(),
          .x = x.values<float>().data(),
          .rows = x.dim(0),
          .bias = own.bias(),
          .y = y.mutable_values<float>().data(),
          .precision = possible(asked_),
          .activations = activations_,
          .packed = own.packed()};
}

void CpuBackend::linear(const PreparedLinear& weight, const Tensor& x, Tensor& y) {
  multiply(context(), product_of(weight, x, y));
}

void CpuBackend::linears(std::span<const LinearOutput> outputs, const Tensor& x) {
  std::vector<Product> products;
  for (const LinearOutput& output : outputs) products.push_back(product_of(output.weight, x, output.y));
  if (fuse_) return multiply_together(context(), products);
  for (const Product& product : products) multiply(context(), product);
}

void CpuBackend::embed(const Tensor& table, std::span<const int32_t> tokens, Tensor& y) {
  require(is_weight_type(table.dtype()) && table.shape().size() == 2,
          "an embedding table must be an F32, F16 or BF16 matrix");
  const int64_t features = table.dim(1);
  require_shape("y of an embedding", y, {static_cast<int64_t>(tokens.size()), features});
  for (const int32_t token : tokens) {
    if (token >= 0 && token < table.dim(0)) continue;
    fail(ErrorKind::internal, "cpu back end: token {} of a table with {} rows", token, table.dim(0));
  }
  float* out = y.mutable_values<float>().data();
  const size_t row_bytes = static_cast<size_t>(features) * byte_size(table.dtype());
  parallel_rows(y.dim(0), features, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const std::byte* row = table.bytes() + static_cast<size_t>(tokens[static_cast<size_t>(r)]) * row_bytes;
      float* to = out + r * features;
      switch (table.dtype()) {
        case DType::f16:
          kernels_.widen_f16(reinterpret_cast<const uint16_t*>(row), features, to);
          break;
        case DType::bf16:
          kernels_.widen_bf16(reinterpret_cast<const uint16_t*>(row), features, to);
          break;
        default:
          std::copy_n(reinterpret_cast<const float*>(row), features, to);
      }
    }
  });
}

void CpuBackend::rms_norm(const Tensor& x, const Tensor& weight, double epsilon, Tensor& y) {
  require(weight.shape().size() == 1 && weight.dim(0) > 0, "a norm weight must be one row");
  const int64_t features = weight.dim(0);
  require_shape("weight of a norm", weight, {features});
  require_shape("y of a norm", y, x.shape());
  require(x.dtype() == DType::f32 && !x.shape().empty() && x.shape().back() % features == 0,
          "rows of a norm must be F32 and hold whole heads");
  const float* in = x.values<float>().data();
  const float* factors = weight.values<float>().data();
  float* out = y.mutable_values<float>().data();
  parallel_rows(x.element_count() / features, features, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      kernels_.rms_norm(in + r * features, factors, features, epsilon, out + r * features);
    }
  });
}

void CpuBackend::add_rms_norm(const AddNormProblem& problem) {
  const int64_t features = problem.weight.dim(0);
  require_shape("weight of a sum and norm", problem.weight, {features});
  for (const Tensor* rows : std::initializer_list<const Tensor*>{&problem.x, &problem.sum, &problem.y})
    require_shape("x, sum or y of a sum and norm", *rows, {problem.x.dim(0), features});
  const float* in = problem.x.values<float>().data();
  const float* gains = problem.weight.values<float>().data();
  float* sums = problem.sum.mutable_values<float>().data();
  float* out = problem.y.mutable_values<float>().data();
  parallel_rows(problem.x.dim(0), features, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin * features; at < end * features; at += features) {
      kernels_.add(in + at, features, sums + at);
      kernels_.rms_norm(sums + at, gains, features, problem.epsilon, out + at);
    }
  });
}

void CpuBackend::layer_norm(const Tensor& x, const NormWeights& weights, double epsilon, Tensor& y) {
  const Tensor& weight = weights.weight;
  require_shape("weight of a norm", weight, weight.shape());
  require(!weight.shape().empty() && weight.element_count() > 0, "a norm weight must not be empty");
  if (weights.bias.defined()) require_shape("bias of a norm", weights.bias, weight.shape());
  require_shape("y of a norm", y, x.shape());
  const int64_t features = weight.shape().back();
  const int64_t heads = weight.element_count() / features;
  require(x.dtype() == DType::f32 && !x.shape().empty() && x.shape().back() % weight.element_count() == 0,
          "rows of a norm must be F32 and hold whole heads");
  const float* in = x.values<float>().data();
  const float* factors = weight.values<float>().data();
  const float* offsets = weights.bias.defined() ? weights.bias.values<float>().data() : nullptr;
  float* out = y.mutable_values<float>().data();
  parallel_rows(x.element_count() / features, features, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t at = r % heads * features;
      kernels_.layer_norm({.x = in + r * features,
                           .weight = factors + at,
                           .bias = offsets == nullptr ? nullptr : offsets + at,
                           .count = features,
                           .epsilon = epsilon,
                           .y = out + r * features});
    }
  });
}

void CpuBackend::add(const Tensor& x, Tensor& y) {
  require_shape("x of a sum", x, y.shape());
  const float* in = x.values<float>().data();
  float* out = y.mutable_values<float>().data();
  parallel_rows(x.element_count(), 1,
                [&](int64_t begin, int64_t end) { kernels_.add(in + begin, end - begin, out + begin); });
}

void CpuBackend::scale(float factor, Tensor& x) {
  float* values = x.mutable_values<float>().data();
  parallel_rows(x.element_count(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) values[i] *= factor;
  });
}

void CpuBackend::softcap(float cap, Tensor& x) {
  float* values = x.mutable_values<float>().data();
  parallel_rows(x.element_count(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) values[i] = cap * std::tanh(values[i] / cap);
  });
}

void CpuBackend::rope(const RopeProblem& problem) {
  require_matrix("x of a rotation", problem.x);
  require_matrix("cosines of a rotation", problem.cosine);
  const int64_t pairs = problem.cosine.dim(1);
  const int64_t width = problem.x.dim(1);
  require_shape("cosines of a rotation", problem.cosine, {problem.x.dim(0), pairs});
  require_shape("sines of a rotation", problem.sine, {problem.x.dim(0), pairs});
  require(problem.head_dim > 0 && width % problem.head_dim == 0 && problem.first >= 0 &&
              problem.first + 2 * pairs <= problem.head_dim,
          "heads of a rotation do not fit");
  const float* cosines = problem.cosine.values<float>().data();
  const float* sines = problem.sine.values<float>().data();
  float* out = problem.x.mutable_values<float>().data();
  auto* kernel = problem.pairs == RopePairs::halves ? kernels_.rope : rope_neighbours;
  parallel_rows(problem.x.dim(0), width, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t column = problem.first; column < width; column += problem.head_dim) {
        kernel(cosines + r * pairs, sines + r * pairs, pairs, out + r * width + column);
      }
    }
  });
}

void CpuBackend::store_rows(const KvStore& problem) {
  const KvFormat& format = problem.pages.format;
  require_shape("rows for a cache", problem.x, {problem.x.dim(0), format.heads * format.dim});
  require(problem.first >= 0 && problem.first + problem.x.dim(0) <= problem.pages.rows(),
          "rows for a cache stand past its pages");
  salient::store_rows(kernels_, problem);
}

void CpuBackend::attention(const AttentionProblem& problem) {
  require(problem.head_dim > 0 && problem.kv_heads > 0 && problem.heads % problem.kv_heads == 0,
          "query heads of an attention must be a multiple of its kv heads");
  require(problem.window >= 0 && problem.first_position >= 0,
          "window or position of an attention is negative");
  require_matrix("query of an attention", problem.query);
  const int64_t count = problem.query.dim(0);
  require_shape("query of an attention", problem.query, {count, problem.heads * problem.head_dim});
  require_shape("output of an attention", problem.output, {count, problem.heads * problem.value_dim});
  require(problem.slopes.empty() || static_cast<int64_t>(problem.slopes.size()) == problem.heads,
          "an attention has one slope per head");
  require(keys_of(problem) >= problem.first_position + count, "queries of an attention stand past its keys");
  attend(context(), problem, possible(asked_));
}

GatedKernel* CpuBackend::gated_kernel(Activation activation) const {
  switch (activation) {
    case Activation::silu:
      return kernels_.gated_silu;
    case Activation::gelu:
      return kernels_.gated_gelu;
    case Activation::gelu_tanh:
      return kernels_.gated_gelu_tanh;
    case Activation::relu:
      return kernels_.gated_relu;
    case Activation::sigmoid:
      return kernels_.gated_sigmoid;
  }
  fail(ErrorKind::internal, "cpu back end: activation {}", static_cast<int>(activation));
}

void CpuBackend::gated_activation(Activation activation, const Tensor& gate, const Tensor& up, Tensor& y) {
  require_shape("up of an activation", up, gate.shape());
  require_shape("y of an activation", y, gate.shape());
  GatedKernel* kernel = gated_kernel(activation);
  const float* gates = gate.values<float>().data();
  const float* ups = up.values<float>().data();
  float* out = y.mutable_values<float>().data();
  parallel_rows(gate.element_count(), 1, [&](int64_t begin, int64_t end) {
    kernel(gates + begin, ups + begin, end - begin, out + begin);
  });
}

void CpuBackend::activation(Activation activation, Tensor& x) {
  static constexpr std::array<float, 1024> kOnes = [] {
    std::array<float, 1024> ones{};
    ones.fill(1.0f);
    return ones;
  }();
  GatedKernel* kernel = gated_kernel(activation);
  float* values = x.mutable_values<float>().data();
  parallel_rows(x.element_count(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += static_cast<int64_t>(kOnes.size())) {
      const int64_t count = std::min(end - i, static_cast<int64_t>(kOnes.size()));
      kernel(values + i, kOnes.data(), count, values + i);
    }
  });
}

void CpuBackend::gather_rows(const Tensor& x, std::span<const int32_t> rows, Tensor& y) {
  require_matrix("x of a gathering", x);
  const int64_t features = x.dim(1);
  require_shape("y of a gathering", y, {static_cast<int64_t>(rows.size()), features});
  const float* in = x.values<float>().data();
  float* out = y.mutable_values<float>().data();
  parallel_rows(y.dim(0), features, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::copy_n(in + rows[static_cast<size_t>(i)] * features, features, out + i * features);
  });
}

void CpuBackend::scatter_add(const Tensor& x, std::span<const int32_t> rows, std::span<const float> factors,
                             Tensor& y) {
  require_matrix("y of a scattering", y);
  const int64_t features = y.dim(1);
  require_shape("x of a scattering", x, {static_cast<int64_t>(rows.size()), features});
  require(factors.size() == rows.size(), "a scattering has one factor per row");
  const float* in = x.values<float>().data();
  float* out = y.mutable_values<float>().data();
  parallel_rows(x.dim(0), features, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float factor = factors[static_cast<size_t>(i)];
      float* to = out + rows[static_cast<size_t>(i)] * features;
      for (int64_t c = 0; c < features; ++c) to[c] += factor * in[i * features + c];
    }
  });
}

bool CpuBackend::all_finite(const Tensor& x) {
  const float* values = x.values<float>().data();
  std::atomic<bool> finite{true};
  parallel_rows(x.element_count(), 1, [&](int64_t begin, int64_t end) {
    if (!kernels_.all_finite(values + begin, end - begin)) finite = false;
  });
  return finite;
}

void CpuBackend::accumulate_gram(const Tensor& x, MatmulPrecision precision, Tensor& gram) {
  require_matrix("x of a Gram matrix", x);
  const int64_t k = x.dim(1);
  require_shape("Gram matrix", gram, {k, k});
  salient::accumulate_gram(context(), {.x = x.values<float>().data(),
                                       .rows = x.dim(0),
                                       .k = k,
                                       .precision = possible(precision),
                                       .gram = gram.mutable_values<float>().data()});
}

void CpuBackend::quadratic_form(const Tensor& x, const Tensor& symmetric, std::span<double> result) {
  require_matrix("x of a quadratic form", x);
  require_shape("matrix of a quadratic form", symmetric, {x.dim(1), x.dim(1)});
  require(static_cast<int64_t>(result.size()) == x.dim(0), "a quadratic form has one result per row");
  salient::quadratic_form(context(), {.x = x.values<float>().data(),
                                      .rows = x.dim(0),
                                      .k = x.dim(1),
                                      .symmetric = symmetric.values<float>().data(),
                                      .result = result.data()});
}

void require_loss_problem(const RoundingLossProblem& problem, size_t results, int64_t results_per_row) {
  require_matrix("weight of a rounding loss", problem.weight);
  const int64_t k = problem.weight.dim(1);
  require_shape("Gram matrix of a rounding loss", problem.gram, {k, k});
  require(problem.column_scales.empty() || static_cast<int64_t>(problem.column_scales.size()) == k,
          "a rounding loss has one scale per column");
  require(problem.rule.scheme.group_size != QuantizationScheme::kWholeMatrix || problem.rule.grid.has_value(),
          "a rounding loss of a whole matrix needs its grid");
  require(problem.row_step >= 1, "the row step of a rounding loss is not positive");
  if (problem.clip.defined()) {
    require_shape("clip of a rounding loss", problem.clip,
                  {problem.weight.dim(0), group_count(problem.rule.scheme, k)});
  }
  require(static_cast<int64_t>(results) == rows_that_count(problem) * results_per_row,
          "a rounding loss has one result per row, or per group");
}

void CpuBackend::rounding_loss(const RoundingLossProblem& problem, std::span<double> result) {
  require_loss_problem(problem, result.size(), 1);
  RoundingLossProblem possible_problem = problem;
  possible_problem.precision = possible(problem.precision);
  salient::rounding_loss(context(), possible_problem, result);
}

void CpuBackend::rounding_loss_by_group(const RoundingLossProblem& problem, std::span<double> result) {
  require_loss_problem(problem, result.size(), group_count(problem.rule.scheme, problem.weight.dim(1)));
  salient::rounding_loss_by_group(context(), problem, result);
}

bool CpuBackend::factorize(Tensor& symmetric) {
  require_matrix("matrix of a factorization", symmetric);
  require_shape("matrix of a factorization", symmetric, {symmetric.dim(0), symmetric.dim(0)});
  return salient::factorize(context(), symmetric.dim(0), symmetric.mutable_values<float>().data());
}

bool CpuBackend::solve(Tensor& symmetric, Tensor& rows) {
  require_matrix("matrix of a solution", symmetric);
  require_matrix("rows of a solution", rows);
  const int64_t k = rows.dim(1);
  require_shape("matrix of a solution", symmetric, {k, k});
  return salient::solve(context(), k, symmetric.mutable_values<float>().data(), rows.dim(0),
                        rows.mutable_values<float>().data());
}

void CpuBackend::accumulate_product(const Tensor& a, const Tensor& b, MatmulPrecision precision,
                                    Tensor& result) {
  require_matrix("left side of a product", a);
  require_matrix("right side of a product", b);
  require(a.dim(0) == b.dim(0), "both sides of a product have as many rows");
  require_shape("product", result, {a.dim(1), b.dim(1)});
  salient::accumulate_product(context(), {.a = a.values<float>().data(),
                                          .b = b.values<float>().data(),
                                          .rows = a.dim(0),
                                          .a_columns = a.dim(1),
                                          .b_columns = b.dim(1),
                                          .precision = possible(precision),
                                          .result = result.mutable_values<float>().data()});
}

void CpuBackend::round_compensated(const CompensationProblem& problem, QuantizedWeight& result) {
  require_matrix("weight of a compensated rounding", problem.weight);
  const int64_t k = problem.weight.dim(1);
  require_shape("factor of a compensated rounding", problem.upper, {k, k});
  require(static_cast<int64_t>(problem.order.size()) == k,
          "a compensated rounding has one place in the order for each column");
  require(result.out_features == problem.weight.dim(0) && result.in_features == k,
          "a compensated rounding has as many codes as weights");
  salient::round_compensated(context(), problem, result);
}

void CpuBackend::sweep_codes(const CodeSweepProblem& problem, QuantizedWeight& result) {
  require_matrix("weight of a code sweep", problem.weight);
  const int64_t k = problem.weight.dim(1);
  require_shape("Gram matrix of a code sweep", problem.gram, {k, k});
  require(static_cast<int64_t>(problem.ridge.size()) == k, "a code sweep has a ridge for each column");
  require(result.out_features == problem.weight.dim(0) && result.in_features == k,
          "a code sweep has as many codes as weights");
  salient::sweep_codes(context(), problem, result);
}

}  // namespace

void limit_dense_library(const IsaChoice& choice) {
  if (choice.isa == Isa::portable) limit_gemm(GemmLimit::sse41);
  if (choice.isa == Isa::avx2) limit_gemm(GemmLimit::avx2);
  if (choice.isa == Isa::avx512 && !choice.amx) limit_gemm(GemmLimit::avx512_bf16);
}

std::unique_ptr<Backend> make_cpu_backend_for(const IsaChoice& choice, const CpuBackendOptions& options) {
  if (!cpu_supports(choice.isa)) {
    fail(ErrorKind::unsupported, "cpu back end: this processor lacks {}", to_string(choice.isa));
  }
  return std::make_unique<CpuBackend>(choice, options);
}

std::unique_ptr<Backend> make_cpu_backend(const CpuBackendOptions& options) {
  const char* forced = std::getenv("SALIENT_ISA");
  const IsaChoice choice =
      with_context("SALIENT_ISA", [&] { return choose_isa(forced == nullptr ? "" : forced); });
  if (forced != nullptr) limit_dense_library(choice);  // which is bound to what the kernels are forced to
  return make_cpu_backend_for(choice, options);
}

}  // namespace salient
