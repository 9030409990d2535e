#include "backend/cpu/cpu_backend.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>

#include "backend/checks.h"
#include "backend/cpu/attention.h"
#include "backend/cpu/code_sweeps.h"
#include "backend/cpu/column_rounding.h"
#include "backend/cpu/cpu_linear.h"
#include "backend/cpu/factor.h"
#include "backend/cpu/isa.h"
#include "backend/cpu/kv_rows.h"
#include "backend/cpu/largest_values.h"
#include "backend/cpu/panel_weight.h"
#include "backend/cpu/product.h"
#include "backend/cpu/rounding_loss.h"
#include "backend/cpu/stream.h"
#include "backend/cpu/tile_product.h"
#include "backend/rotations.h"
#include "base/error.h"
#include "base/parallel.h"

namespace salient {
namespace {

/// Beyond most caches; where one is larger, what it gives is what weights of such a size find too.
constexpr size_t kStreamBytes = size_t{1} << 30;

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
  bool favors_many_rows() const override { return false; }
  double measure_bandwidth() override { return stream_bandwidth(kStreamBytes); }
  std::string arithmetic() const override;
  ActivationMode activations() const override { return activations_; }
  std::unique_ptr<PreparedLinear> prepare(const LinearWeight& weight) override;
  bool keeps_packed_weights() const override { return true; }
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
  void rope_and_store(const RopeStoreProblem& problem) override;
  void attention(std::span<const AttentionProblem> problems) override;
  void activation(Activation activation, Tensor& x) override;
  void gated_activation(Activation activation, const Tensor& gate, const Tensor& up, Tensor& y) override;
  void gather_rows(const Tensor& x, std::span<const int32_t> rows, Tensor& y) override;
  void scatter_add(const Tensor& x, std::span<const int32_t> rows, std::span<const float> factors,
                   Tensor& y) override;
  LargestValues largest(const LargestProblem& problem) override {
    check_largest(problem);
    return largest_values(problem);
  }
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
  check_weight(weight);
  if (weight.quantized) {
    require_parts(*weight.quantized);
    if (repack_ && PanelWeight::takes(weight.quantized->scheme, weight.quantized->in_features))
      return std::make_unique<CpuLinear>(std::make_unique<PanelWeight>(*weight.quantized), weight.bias);
    return std::make_unique<CpuLinear>(std::make_unique<IntegerWeight>(*weight.quantized), weight.bias);
  }
  return std::make_unique<CpuLinear>(std::make_unique<DenseWeight>(weight.dense), weight.bias);
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
  check_linear(weight, x, y);
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
  check_embed(table, tokens, y);
  const int64_t features = table.dim(1);
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
  check_rms_norm(x, weight, y);
  const int64_t features = weight.dim(0);
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
  check_add_rms_norm(problem);
  const int64_t features = problem.weight.dim(0);
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
  check_layer_norm(x, weights, y);
  const Tensor& weight = weights.weight;
  const int64_t features = weight.shape().back();
  const int64_t heads = weight.element_count() / features;
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
  check_rope(problem);
  const int64_t pairs = problem.cosine.dim(1);
  const int64_t width = problem.x.dim(1);
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

void CpuBackend::rope_and_store(const RopeStoreProblem& problem) {
  check_rope_and_store(problem);
  rotate_one_by_one(*this, problem);
  for (const RowsForCache& cache : problem.caches) {
    const int64_t end = cache.begin + cache.count;
    const auto store = [&](const Tensor& x, const KvPages& pages) {
      store_rows(kernels_, {.x = x.slice(cache.begin, end), .first = cache.first, .pages = pages});
    };
    store(problem.keys, cache.pages.keys);
    store(problem.values, cache.pages.values);
  }
}

void CpuBackend::attention(std::span<const AttentionProblem> problems) {
  for (const AttentionProblem& problem : problems) check_attention(problem);
  for (const AttentionProblem& problem : problems) attend(context(), problem, possible(asked_));
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
  check_gated_activation(gate, up, y);
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
  check_gather(x, rows, y);
  const int64_t features = x.dim(1);
  const float* in = x.values<float>().data();
  float* out = y.mutable_values<float>().data();
  parallel_rows(y.dim(0), features, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::copy_n(in + rows[static_cast<size_t>(i)] * features, features, out + i * features);
  });
}

void CpuBackend::scatter_add(const Tensor& x, std::span<const int32_t> rows, std::span<const float> factors,
                             Tensor& y) {
  check_scatter(x, rows, factors, y);
  const int64_t features = y.dim(1);
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
  check_gram(x, gram);
  salient::accumulate_gram(context(), {.x = x.values<float>().data(),
                                       .rows = x.dim(0),
                                       .k = x.dim(1),
                                       .precision = possible(precision),
                                       .gram = gram.mutable_values<float>().data()});
}

void CpuBackend::quadratic_form(const Tensor& x, const Tensor& symmetric, std::span<double> result) {
  check_quadratic_form(x, symmetric, result.size());
  salient::quadratic_form(context(), {.x = x.values<float>().data(),
                                      .rows = x.dim(0),
                                      .k = x.dim(1),
                                      .symmetric = symmetric.values<float>().data(),
                                      .result = result.data()});
}

void CpuBackend::rounding_loss(const RoundingLossProblem& problem, std::span<double> result) {
  check_rounding_loss(problem, result.size(), 1);
  RoundingLossProblem possible_problem = problem;
  possible_problem.precision = possible(problem.precision);
  salient::rounding_loss(context(), possible_problem, result);
}

void CpuBackend::rounding_loss_by_group(const RoundingLossProblem& problem, std::span<double> result) {
  check_rounding_loss(problem, result.size(), group_count(problem.rule.scheme, problem.weight.dim(1)));
  salient::rounding_loss_by_group(context(), problem, result);
}

bool CpuBackend::factorize(Tensor& symmetric) {
  check_square("matrix of a factorization", symmetric);
  return salient::factorize(context(), symmetric.dim(0), symmetric.mutable_values<float>().data());
}

bool CpuBackend::solve(Tensor& symmetric, Tensor& rows) {
  check_solve(symmetric, rows);
  const int64_t k = rows.dim(1);
  return salient::solve(context(), k, symmetric.mutable_values<float>().data(), rows.dim(0),
                        rows.mutable_values<float>().data());
}

void CpuBackend::accumulate_product(const Tensor& a, const Tensor& b, MatmulPrecision precision,
                                    Tensor& result) {
  check_product(a, b, result);
  salient::accumulate_product(context(), {.a = a.values<float>().data(),
                                          .b = b.values<float>().data(),
                                          .rows = a.dim(0),
                                          .a_columns = a.dim(1),
                                          .b_columns = b.dim(1),
                                          .precision = possible(precision),
                                          .result = result.mutable_values<float>().data()});
}

void CpuBackend::round_compensated(const CompensationProblem& problem, QuantizedWeight& result) {
  check_compensation(problem, result);
  salient::round_compensated(context(), problem, result);
}

void CpuBackend::sweep_codes(const CodeSweepProblem& problem, QuantizedWeight& result) {
  check_sweep(problem, result);
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
