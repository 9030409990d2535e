#include "backend/cuda/cuda_backend.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "backend/checks.h"
#include "backend/cuda/elementwise.h"
#include "backend/cuda/largest_values.h"
#include "backend/cuda/norms.h"
#include "backend/cuda/paged_attention.h"
#include "backend/cuda/quantizer.h"
#include "backend/cuda/rows.h"
#include "backend/cuda/tensor_access.h"
#include "backend/rotations.h"
#include "base/error.h"

namespace salient::cuda {
namespace {

/// What is copied to measure the bandwidth: many times the second-level cache.
constexpr size_t kStreamBytes = size_t{1} << 30;
/// Where little is free.
constexpr size_t kLeastStreamBytes = size_t{1} << 20;

class CudaLinear final : public PreparedLinear {
 public:
  CudaLinear(std::shared_ptr<CudaMemory> memory, ProductWeight weight)
      : memory_(std::move(memory)), weight_(std::move(weight)) {}
  ~CudaLinear() override {
    const std::lock_guard lock(memory_->mutex());
    weight_.reset();
  }
  int64_t out_features() const override { return weight_->out; }
  int64_t in_features() const override { return weight_->in; }
  size_t byte_size() const override { return weight_->byte_size(); }
  const ProductWeight& weight() const { return *weight_; }

 private:
  std::shared_ptr<CudaMemory> memory_;
  std::optional<ProductWeight> weight_;
};

const ProductWeight& own_weight(const PreparedLinear& linear) {
  const auto* own = dynamic_cast<const CudaLinear*>(&linear);
  if (own == nullptr) fail(ErrorKind::internal, "cuda: a linear of another back end");
  return own->weight();
}

bool fits_f16(const Tensor& dense) {
  if (dense.dtype() == DType::f16) return true;
  const Tensor values = dense.to(DType::f32);
  return std::ranges::all_of(values.values<float>(),
                             [](float value) { return std::abs(value) <= simt::F16::kLargest; });
}

/// Whether the table of embeddings goes to the device. Where there was no room for it, or others had to make
/// it, it stays on the host for a while: there the rows of some tokens are soon taken, while it would come at
/// each token anew and push out what the same token needs next.
class TableVisits {
 public:
  bool may_come() { return on_host_ <= 0 || on_host_.fetch_sub(1) <= 0; }
  void pause() { on_host_ = kPause; }

 private:
  static constexpr int kPause = 4096;
  std::atomic<int> on_host_ = 0;  // calls to come
};

class CudaBackend final : public Backend {
 public:
  CudaBackend(std::unique_ptr<Device> device, const CudaBackendOptions& options)
      : half_(options.half),
        family_(options.family),
        access_(std::move(device)),
        products_(access_.memory()->device()),
        cpu_(make_cpu_backend()) {
    products_.force(options.family);
    if (!options.measure) return;
    const DeviceProperties& properties = access_.properties();
    table_.emplace(options.table_file,
                   fmt::format("{}, sm_{}, {} multiprocessors", properties.name,
                               properties.compute_capability, properties.multiprocessors));
    products_.measure(&*table_);
  }

  std::string description() const override;
  std::string arithmetic() const override;
  int64_t rows_as_alone() const override { return kRowsAsAlone; }
  bool favors_many_rows() const override { return true; }
  double measure_bandwidth() override;
  std::optional<uint64_t> free_device_bytes() override {
    return access_.run([](SpillingDevice& device) { return device.room_bytes(); });
  }
  ActivationMode activations() const override {
    return half_ == HalfType::f16 ? ActivationMode::fp16 : ActivationMode::bf16;
  }

  std::unique_ptr<PreparedLinear> prepare(const LinearWeight& weight) override;
  std::shared_ptr<const PreparedLinear> pack(const PreparedLinear&, TensorPool*) override { return nullptr; }
  bool keeps_packed_weights() const override { return false; }
  std::optional<PackedWeight> packed_weight(const PreparedLinear&) override { return std::nullopt; }
  std::unique_ptr<PreparedLinear> prepare(const PackedWeight&, const Tensor&) override {
    fail(ErrorKind::bad_format, "cuda: it has not packed such a weight");
  }
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
  LargestValues largest(const LargestProblem& problem) override;
  bool all_finite(const Tensor& x) override;
  void accumulate_gram(const Tensor& x, MatmulPrecision precision, Tensor& gram) override {
    check_gram(x, gram);
    cuda::accumulate_gram(access_, x, precision, gram);
  }
  void quadratic_form(const Tensor& x, const Tensor& symmetric, std::span<double> result) override {
    check_quadratic_form(x, symmetric, result.size());
    cuda::quadratic_form(access_, x, symmetric, result);
  }
  void rounding_loss(const RoundingLossProblem& problem, std::span<double> result) override {
    rounding_losses({&problem, 1}, result);
  }
  void rounding_loss_by_group(const RoundingLossProblem& problem, std::span<double> result) override {
    rounding_losses_by_group({&problem, 1}, result);
  }
  void rounding_losses(std::span<const RoundingLossProblem> problems, std::span<double> result) override {
    if (problems.empty()) return;
    check_rounding_losses(problems, result.size(), 1);
    cuda::rounding_losses(access_, problems, problems.front().weight.dim(1), result);
  }
  void rounding_losses_by_group(std::span<const RoundingLossProblem> problems,
                                std::span<double> result) override {
    if (problems.empty()) return;
    const QuantizationScheme& scheme = problems.front().rule.scheme;
    const int64_t columns = problems.front().weight.dim(1);
    check_rounding_losses(problems, result.size(), group_count(scheme, columns));
    cuda::rounding_losses(access_, problems, group_width(scheme, columns), result);
  }
  bool factorize(Tensor& symmetric) override {
    check_square("matrix of a factorization", symmetric);
    return cuda::factorize(access_, symmetric);
  }
  bool solve(Tensor& symmetric, Tensor& rows) override {
    check_solve(symmetric, rows);
    return cuda::solve(access_, symmetric, rows);
  }
  void accumulate_product(const Tensor& a, const Tensor& b, MatmulPrecision precision,
                          Tensor& result) override {
    check_product(a, b, result);
    cuda::accumulate_product(access_, {a, b}, precision, result);
  }
  void round_compensated(const CompensationProblem& problem, QuantizedWeight& result) override {
    check_compensation(problem, result);
    cuda::round_compensated(access_, problem, result);
  }
  void sweep_codes(const CodeSweepProblem& problem, QuantizedWeight& result) override {
    check_sweep(problem, result);
    cuda::sweep_codes(access_, problem, result);
  }

 private:
  const float* read(const Tensor& tensor) const { return access_.read(tensor); }
  float* update(Tensor& tensor) const { return access_.update(tensor); }
  float* write(Tensor& tensor) const { return access_.write(tensor); }
  template <typename Body>
  auto on_device(const Body& body) const {
    return access_.run(body);
  }
  void embed_on_device(const Tensor& table, std::span<const int32_t> tokens, Tensor& y);

  HalfType half_;
  std::optional<ProductFamily> family_;
  TensorAccess access_;
  std::optional<ProductTable> table_;
  Products products_;
  PagedAttention attention_{access_};
  TableVisits table_visits_;
  std::unique_ptr<Backend> cpu_;
};

std::string CudaBackend::description() const {
  const DeviceProperties& device = access_.properties();
  return fmt::format("cuda: {} (sm_{}), {} operands", device.name, device.compute_capability,
                     half_ == HalfType::f16 ? "fp16" : "bf16");
}

/// How sums are shared out depends on the number of multiprocessors, and on plans.
std::string CudaBackend::arithmetic() const {
  const DeviceProperties& device = access_.properties();
  const bool library = access_.run([](Device& own) { return own.multiplies(); });
  return fmt::format("cuda: sm_{}, {} multiprocessors, {} operands, {} kernels, {}",
                     device.compute_capability, device.multiprocessors,
                     half_ == HalfType::f16 ? "fp16" : "bf16",
                     family_  ? to_string(*family_)
                     : table_ ? "measured"
                              : "planned",
                     library ? "cuBLASLt" : "no cuBLASLt");
}

double CudaBackend::measure_bandwidth() {
  return on_device([](Device& device) {
    const size_t bytes = std::clamp(device.free_bytes() / 4, kLeastStreamBytes, kStreamBytes);
    const DeviceBuffer from(device, bytes);
    const DeviceBuffer to(device, bytes);
    const auto seconds_of = [&](int times) {
      return device.seconds_of([&] {
        for (int i = 0; i < times; ++i) device.copy(to.address(), from.address(), bytes);
      });
    };
    constexpr int kTimes = 20;
    seconds_of(2);
    const double seconds = seconds_of(kTimes);
    return 2.0 * kTimes * static_cast<double>(bytes) / seconds;  // read and written
  });
}

std::unique_ptr<PreparedLinear> CudaBackend::prepare(const LinearWeight& weight) {
  check_weight(weight);
  const bool codes = weight.quantized && packs_codes(weight.quantized->scheme);
  const Tensor dense = codes ? Tensor() : weight.quantized ? dequantize(*weight.quantized) : weight.dense;
  const HalfType half = codes || fits_f16(dense) ? half_ : HalfType::bf16;
  const PackedProduct packed = codes ? pack_codes(*weight.quantized) : pack_halves(dense, half);
  const Tensor bias = weight.bias.defined() ? weight.bias.to(DType::f32) : Tensor();
  const auto offsets = bias.defined() ? bias.values<float>() : std::span<const float>();
  return on_device([&](Device& device) {
    ProductWeight prepared(device, packed, half);
    if (!offsets.empty()) prepared.bias = DeviceBuffer::of(device, offsets);
    return std::make_unique<CudaLinear>(access_.memory(), std::move(prepared));
  });
}

void CudaBackend::linear(const PreparedLinear& weight, const Tensor& x, Tensor& y) {
  const LinearOutput output{weight, y};
  linears({&output, 1}, x);
}

void CudaBackend::linears(std::span<const LinearOutput> outputs, const Tensor& x) {
  for (const LinearOutput& output : outputs) check_linear(output.weight, x, output.y);
  if (x.dim(0) == 0) return;
  std::vector<float*> addresses;
  addresses.reserve(outputs.size());
  const float* input = read(x);
  for (const LinearOutput& output : outputs) addresses.push_back(write(output.y));
  on_device([&](Device&) {
    products_.set_input(input, static_cast<int>(x.dim(0)), static_cast<int>(x.dim(1)));
    for (size_t i = 0; i < outputs.size(); ++i)
      products_.multiply(own_weight(outputs[i].weight), addresses[i]);
  });
}

void CudaBackend::embed(const Tensor& table, std::span<const int32_t> tokens, Tensor& y) {
  check_embed(table, tokens, y);
  const auto done = [&] {
    embed_on_device(table, tokens, y);
    return true;
  };
  if (!table_visits_.may_come()) return cpu_->embed(table, tokens, y);
  const size_t taken = access_.memory()->taken_bytes();
  const bool had_room = done_where_there_is_room(done);
  if (!had_room || access_.memory()->taken_bytes() != taken) table_visits_.pause();
  if (!had_room) cpu_->embed(table, tokens, y);
}

void CudaBackend::embed_on_device(const Tensor& table, std::span<const int32_t> tokens, Tensor& y) {
  const void* rows = access_.read_bytes(table);
  float* to = write(y);
  on_device([&](Device& device) {
    const DeviceBuffer ids = sent(device, tokens);
    cuda::embed(device, {.table = rows,
                         .type = table.dtype(),
                         .tokens = ids.as<int32_t>(),
                         .y = to,
                         .count = y.dim(0),
                         .features = table.dim(1)});
  });
}

void CudaBackend::rms_norm(const Tensor& x, const Tensor& weight, double epsilon, Tensor& y) {
  check_rms_norm(x, weight, y);
  const Norm problem{.x = read(x),
                     .weight = read(weight),
                     .y = write(y),
                     .rows = x.element_count() / weight.dim(0),
                     .features = weight.dim(0),
                     .epsilon = epsilon};
  on_device([&](Device& device) { normalize(device, problem); });
}

void CudaBackend::add_rms_norm(const AddNormProblem& problem) {
  check_add_rms_norm(problem);
  const Norm asked{.x = read(problem.x),
                   .weight = read(problem.weight),
                   .sum = update(problem.sum),
                   .y = write(problem.y),
                   .rows = problem.x.dim(0),
                   .features = problem.weight.dim(0),
                   .epsilon = problem.epsilon};
  on_device([&](Device& device) { normalize(device, asked); });
}

void CudaBackend::layer_norm(const Tensor& x, const NormWeights& weights, double epsilon, Tensor& y) {
  check_layer_norm(x, weights, y);
  const int64_t features = weights.weight.shape().back();
  const Norm problem{.x = read(x),
                     .weight = read(weights.weight),
                     .bias = weights.bias.defined() ? read(weights.bias) : nullptr,
                     .y = write(y),
                     .rows = x.element_count() / features,
                     .features = features,
                     .heads = weights.weight.element_count() / features,
                     .epsilon = epsilon,
                     .centered = true};
  on_device([&](Device& device) { normalize(device, problem); });
}

void CudaBackend::add(const Tensor& x, Tensor& y) {
  require_shape("x of a sum", x, y.shape());
  const float* from = read(x);
  float* to = update(y);
  on_device([&](Device& device) { cuda::add(device, from, to, y.element_count()); });
}

void CudaBackend::scale(float factor, Tensor& x) {
  float* values = update(x);
  on_device([&](Device& device) { cuda::scale(device, factor, values, x.element_count()); });
}

void CudaBackend::softcap(float cap, Tensor& x) {
  float* values = update(x);
  on_device([&](Device& device) { cuda::softcap(device, cap, values, x.element_count()); });
}

void CudaBackend::activation(Activation activation, Tensor& x) {
  float* values = update(x);
  on_device([&](Device& device) { cuda::activation(device, activation, values, x.element_count()); });
}

void CudaBackend::gated_activation(Activation activation, const Tensor& gate, const Tensor& up, Tensor& y) {
  check_gated_activation(gate, up, y);
  const GatedActivation problem{.activation = activation,
                                .gate = read(gate),
                                .up = read(up),
                                .y = write(y),
                                .count = y.element_count()};
  on_device([&](Device& device) { cuda::gated_activation(device, problem); });
}

void CudaBackend::gather_rows(const Tensor& x, std::span<const int32_t> rows, Tensor& y) {
  check_gather(x, rows, y);
  if (rows.empty()) return;
  const float* from = read(x);
  float* to = write(y);
  on_device([&](Device& device) {
    const DeviceBuffer places = sent(device, rows);
    cuda::gather_rows(
        device, {.x = from, .rows = places.as<int32_t>(), .y = to, .count = y.dim(0), .features = x.dim(1)});
  });
}

void CudaBackend::scatter_add(const Tensor& x, std::span<const int32_t> rows, std::span<const float> factors,
                              Tensor& y) {
  check_scatter(x, rows, factors, y);
  if (rows.empty()) return;
  const float* from = read(x);
  float* to = update(y);
  on_device([&](Device& device) {
    const DeviceBuffer places = sent(device, rows);
    const DeviceBuffer weights = sent(device, factors);
    cuda::scatter_add(device, {.x = from,
                               .rows = places.as<int32_t>(),
                               .factors = weights.as<float>(),
                               .y = to,
                               .count = x.dim(0),
                               .features = y.dim(1)});
  });
}

LargestValues CudaBackend::largest(const LargestProblem& problem) {
  check_largest(problem);
  const float* x = read(problem.x);
  return on_device([&](Device& device) { return largest_values(device, x, problem); });
}

bool CudaBackend::all_finite(const Tensor& x) {
  const float* values = read(x);
  return on_device([&](Device& device) {
    const DeviceBuffer flag(device, sizeof(uint32_t));
    return cuda::all_finite(device, values, x.element_count(), flag.as<uint32_t>());
  });
}

void CudaBackend::rope(const RopeProblem& problem) {
  check_rope(problem);
  const Rotation rotation{.cosine = read(problem.cosine),
                          .sine = read(problem.sine),
                          .pairs = problem.cosine.dim(1),
                          .first = problem.first,
                          .layout = problem.pairs};
  const RotatedHeads heads{
      .x = update(problem.x), .heads = problem.x.dim(1) / problem.head_dim, .head_dim = problem.head_dim};
  on_device([&](Device& device) { cuda::rope(device, rotation, heads, problem.x.dim(0)); });
}

void CudaBackend::rope_and_store(const RopeStoreProblem& problem) {
  check_rope_and_store(problem);
  if (attention_.rope_and_store(problem)) return;
  rotate_one_by_one(*this, problem);
  for (const RowsForCache& cache : problem.caches) {
    const RopeStoreProblem one{.keys = problem.keys, .values = problem.values, .caches = {&cache, 1}};
    if (!attention_.rope_and_store(one)) cpu_->rope_and_store(one);
  }
}

void CudaBackend::attention(std::span<const AttentionProblem> problems) {
  for (const AttentionProblem& problem : problems) check_attention(problem);
  attention_.attend(problems, *cpu_);
}

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(std::unique_ptr<Device> device,
                                           const CudaBackendOptions& options) {
  return std::make_unique<CudaBackend>(std::move(device), options);
}

}  // namespace salient::cuda
