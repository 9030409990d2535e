#include "backend/kernel_bench.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>

#include "backend/cpu/cpu_backend.h"
#include "base/error.h"
#include "base/random.h"
#include "base/stopwatch.h"

namespace salient {
namespace {

constexpr uint64_t kSeed = 1;
/// More than a shared third-level cache keeps. A weight that is much smaller stays in a cache, which its
/// bandwidth then shows.
constexpr size_t kStreamedBytes = size_t{640} << 20;
constexpr size_t kMostCopies = 512;
/// Rows that the portable kernels multiply; for more they take that many times as long.
constexpr int64_t kReferenceRows = kRowsAsAlone;
constexpr int kReferenceRuns = 4;
constexpr std::array kModes{ActivationMode::int8, ActivationMode::int16, ActivationMode::fp32};

/// Each table with all that goes with it and with less, slowest first.
constexpr std::array kEveryIsa{
    "portable", "avx2,no-vnni",    "avx2", "avx512,no-vnni,no-amx", "avx512,no-amx",
    "avx512",   "neon,no-dotprod", "neon"};

bool has_same_products(const IsaChoice& a, const IsaChoice& b) {
  const PanelKernels one = panel_kernels_for(a);
  const PanelKernels other = panel_kernels_for(b);
  return one.multiply_integers == other.multiply_integers && one.multiply_in_tiles == other.multiply_in_tiles;
}

/// What the processor lacks is left out, and of two that mean the same the longer.
std::vector<std::string> every_isa() {
  std::vector<std::string> result;
  for (const std::string isa : kEveryIsa) {
    const bool known = std::ranges::any_of(supported_isas(), [&](Isa each) {
      return std::string_view(isa).substr(0, isa.find(',')) == to_string(each);
    });
    if (!known) continue;
    if (!result.empty() && has_same_products(choose_isa(result.back()), choose_isa(isa))) result.pop_back();
    result.push_back(isa);
  }
  if (result.size() > 1) result.erase(result.begin());  // the portable kernels, which all are compared with
  return result;
}

bool is_best(const IsaChoice& choice) {
  return choice.isa == supported_isas().back() && has_same_products(choice, choose_isa(""));
}

QuantizedWeight random_weight(const KernelShape& shape) {
  const QuantizationScheme scheme{.num_bits = 4, .symmetric = false, .group_size = shape.group_size};
  QuantizedWeight weight = allocate_quantized_weight(scheme, shape.outputs, shape.depth, DType::f16);
  uint64_t drawn = 0;
  for (uint8_t& two : weight.codes.mutable_values<uint8_t>())
    two = static_cast<uint8_t>(random_bits(kSeed, drawn++));
  for (uint8_t& zero : weight.zeros.mutable_values<uint8_t>())
    zero = static_cast<uint8_t>(random_bits(kSeed, drawn++) % 16);
  for (Half& scale : weight.scales.mutable_values<Half>())
    scale = to_half(static_cast<float>(0.005 + 0.01 * random_uniform(kSeed, drawn++)));
  return weight;
}

Tensor random_inputs(int64_t rows, int64_t depth) {
  Tensor result = Tensor::empty(DType::f32, {rows, depth});
  uint64_t drawn = 0;
  for (float& value : result.mutable_values<float>())
    value = static_cast<float>(2 * random_uniform(kSeed + 1, drawn++) - 1);
  return result;
}

double fastest_seconds(int runs, const CancellationFlag* cancelled, const std::function<void()>& body) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < runs; ++i) {
    throw_if_cancelled(cancelled);
    double seconds = 0;
    {
      const Stopwatch watch(seconds);
      body();
    }
    best = std::min(best, seconds);
  }
  return best;
}

Tensor product(Backend& backend, const PreparedLinear& weight, const Tensor& x) {
  Tensor y = Tensor::empty(DType::f32, {x.dim(0), weight.out_features()});
  backend.linear(weight, x, y);
  return y;
}

/// In memory of its own.
std::unique_ptr<PreparedLinear> copy_of(const PackedWeight& weight, Backend& backend) {
  Tensor bytes = Tensor::empty(DType::u8, weight.bytes.shape());
  std::memcpy(bytes.mutable_bytes(), weight.bytes.bytes(), bytes.byte_size());
  return backend.prepare(PackedWeight{weight.layout, bytes}, {});
}

}  // namespace

void check_kernel_shape(const KernelShape& shape) {
  const int64_t width = shape.group_size == QuantizationScheme::kWholeRow ? shape.depth : shape.group_size;
  constexpr int64_t kMost = int64_t{1} << 20;
  const bool in_groups = width >= 8 && width % 8 == 0 && shape.depth % width == 0;
  const auto fits = [](int64_t size) { return size >= 1 && size <= kMost; };
  if (fits(shape.outputs) && fits(shape.depth) && in_groups) return;
  fail(ErrorKind::invalid_argument,
       "{} outputs of {} inputs in groups of {}: expected up to {} of either, and inputs in whole groups of "
       "a multiple of 8",
       shape.outputs, shape.depth, shape.group_size, kMost);
}

std::vector<KernelContender> kernel_contenders(std::span<const std::string> isas) {
  std::vector<std::string> names(isas.begin(), isas.end());
  const char* forced = std::getenv("SALIENT_ISA");
  if (names.empty() && forced != nullptr) names.emplace_back(forced);
  if (names.empty()) names = every_isa();
  const bool alone = names.size() == 1;
  std::vector<KernelContender> result;
  for (const std::string& name : names) {
    const IsaChoice choice = with_context("instruction set", [&] { return choose_isa(name); });
    if (alone) limit_dense_library(choice);
    for (const ActivationMode mode : kModes) {
      result.push_back({.isa = name,
                        .activations = mode,
                        .library_keeps_to_it = alone || is_best(choice),
                        .backend = make_cpu_backend_for(choice, {.activations = mode})});
    }
  }
  return result;
}

double output_difference(const Tensor& expected, const Tensor& y) {
  const auto right = expected.values<float>();
  const auto own = y.values<float>();
  double most = 0;
  double squares = 0;
  for (size_t i = 0; i < right.size(); ++i) {
    if (!std::isfinite(own[i]) || !std::isfinite(right[i])) return std::numeric_limits<double>::infinity();
    most = std::max(most, std::abs(double{own[i]} - double{right[i]}));
    squares += double{right[i]} * double{right[i]};
  }
  const double size = std::sqrt(squares / static_cast<double>(right.size()));
  return most == 0 ? 0 : most / size;
}

KernelBench::KernelBench(const KernelShape& shape, int64_t most_rows) : shape_(shape) {
  check_kernel_shape(shape);
  inputs_ = random_inputs(most_rows, shape.depth);
  const auto backend = make_cpu_backend_for(Isa::portable, {});
  const LinearWeight weight{.dense = {}, .quantized = random_weight(shape), .bias = {}};
  const auto first = backend->prepare(weight);
  const size_t copies = std::clamp<size_t>(kStreamedBytes / first->byte_size(), 1, kMostCopies);
  while (copies_.size() < copies)
    copies_.push_back(copy_of(backend->packed_weight(*first).value(), *backend));
}

bool KernelBench::has_product(const KernelContender& contender, int64_t rows) {
  return rows <= kRowsAsAlone || contender.activations != ActivationMode::fp32 ||
         contender.library_keeps_to_it;
}

Tensor KernelBench::sample(const Tensor& of, int64_t rows) const {
  const int64_t count = std::min(rows, kReferenceRows);
  Tensor result = Tensor::empty(DType::f32, {count, of.dim(1)});
  const auto row_bytes = static_cast<size_t>(of.dim(1)) * sizeof(float);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = i * (rows - 1) / std::max<int64_t>(1, count - 1);
    std::memcpy(result.mutable_bytes() + static_cast<size_t>(i) * row_bytes,
                of.bytes() + static_cast<size_t>(row) * row_bytes, row_bytes);
  }
  return result;
}

const KernelBench::Reference& KernelBench::reference(ActivationMode activations, int64_t rows) {
  const auto known = std::ranges::find_if(references_, [&](const Reference& each) {
    return each.activations == activations && each.rows == rows;
  });
  if (known != references_.end()) return *known;
  const auto backend = make_cpu_backend_for(Isa::portable, {.activations = activations});
  const Tensor x = sample(inputs_, rows);
  Reference made{.activations = activations, .rows = rows, .y = {}, .seconds = 0};
  made.seconds =
      fastest_seconds(kReferenceRuns, nullptr, [&] { made.y = product(*backend, *copies_.front(), x); }) *
      static_cast<double>(rows) / static_cast<double>(x.dim(0));
  references_.push_back(std::move(made));
  return references_.back();
}

KernelSpeed KernelBench::measure(const KernelContender& contender, int64_t rows, int repeats,
                                 const CancellationFlag* cancelled) {
  const Tensor x = inputs_.slice(0, rows);
  Tensor y = product(*contender.backend, *copies_.front(), x);
  const Reference& right = reference(contender.activations, rows);
  const Tensor own = sample(y, rows);
  const double difference = output_difference(right.y, own);
  const bool exact = contender.activations == ActivationMode::fp32;
  // Few rows are read from memory as in decoding, weight after weight; many make up for reading.
  const size_t weights = rows <= kRowsAsAlone ? copies_.size() : 1;
  const double seconds = fastest_seconds(repeats, cancelled, [&] {
    for (size_t i = 0; i < weights; ++i) contender.backend->linear(*copies_[i], x, y);
  });
  return {.rows = rows,
          .seconds = seconds / static_cast<double>(weights),
          .weight_bytes = static_cast<double>(copies_.front()->byte_size()),
          .operations = 2.0 * static_cast<double>(rows * shape_.outputs * shape_.depth),
          .portable_seconds = right.seconds,
          .difference = difference,
          .correct = exact ? difference <= kExactProductBound
                           : std::memcmp(own.bytes(), right.y.bytes(), own.byte_size()) == 0};
}

}  // namespace salient
