#include <algorithm>
#include <cmath>
#include <numeric>

#include "awq/scale_search.h"
#include "base/error.h"
#include "base/stopwatch.h"
#include "gpu/random_data.h"
#include "gpu/sections.h"

namespace salient::gpu {
namespace {

/// Sums in f32 in another order, and of bf16 operands; what follows from sums that are so far off.
constexpr double kRounding = 1e-5;
constexpr double kBf16Rounding = 2e-2;
constexpr double kLossBound = 1e-3;

struct Sizes {
  int64_t rows;
  int64_t in;
  int64_t out;
};

/// A linear, what it reads, and the products of that: some channels much louder than others.
struct Problem {
  explicit Problem(const Sizes& sizes)
      : x(random_floats({sizes.rows, sizes.in}, 61)),
        weight(random_floats({sizes.out, sizes.in}, 62, 0.05f)),
        gram(Tensor::zeros(DType::f32, {sizes.in, sizes.in})) {
    const auto values = x.mutable_values<float>();
    for (size_t i = 0; i < values.size(); ++i)
      values[i] *= std::exp2(static_cast<float>(i % static_cast<size_t>(sizes.in) % 7) - 3);
    make_cpu_backend()->accumulate_gram(x, MatmulPrecision::f32, gram);
  }
  Tensor x;
  Tensor weight;
  Tensor gram;
};

struct Backends {
  Backend& cuda;
  Backend& cpu;
};

/// Runs `body` on both and compares; seconds are of the first call, copies included.
template <typename Body>
void compare(SectionRun& run, const Backends& on, const std::string& check, const std::string& name,
             double bound, const Body& body) {
  run.attempt(name, [&] {
    Tensor expected;
    Tensor got;
    Json row{{"operation", name}};
    double seconds = 0;
    {
      const Stopwatch watch(seconds);
      expected = body(on.cpu);
    }
    row["cpu_seconds"] = number(std::exchange(seconds, 0.0));
    {
      const Stopwatch watch(seconds);
      got = body(on.cuda);
      got.bytes();
    }
    row["cuda_seconds"] = number(seconds);
    run.check(check, got, expected, {.bound = bound});
    run.json()["rows"].push_back(std::move(row));
  });
}

Tensor floats_of(std::span<const double> values) {
  Tensor result = Tensor::empty(DType::f32, {std::ssize(values)});
  std::ranges::transform(values, result.mutable_values<float>().begin(),
                         [](double value) { return static_cast<float>(value); });
  return result;
}

double bound_of(MatmulPrecision precision) {
  return precision == MatmulPrecision::f32 ? kRounding : kBf16Rounding;
}
const char* name_of(MatmulPrecision precision) { return precision == MatmulPrecision::f32 ? "f32" : "bf16"; }

void check_statistics(SectionRun& run, const Backends& on, const Problem& problem) {
  for (const auto precision : {MatmulPrecision::f32, MatmulPrecision::bf16}) {
    const std::string of = name_of(precision);
    compare(run, on, "gram " + of, "gram " + of, bound_of(precision), [&](Backend& backend) {
      Tensor gram = Tensor::zeros(DType::f32, problem.gram.shape());
      for (int twice = 0; twice < 2; ++twice) backend.accumulate_gram(problem.x, precision, gram);
      return gram;
    });
    compare(run, on, "product " + of, "product of transposed " + of, bound_of(precision),
            [&](Backend& backend) {
              const Tensor other = random_floats({problem.x.dim(0), 72}, 63);
              Tensor result = Tensor::zeros(DType::f32, {problem.x.dim(1), 72});
              backend.accumulate_product(problem.x, other, precision, result);
              return result;
            });
  }
  compare(run, on, "quadratic form", "quadratic form", kRounding, [&](Backend& backend) {
    std::vector<double> result(static_cast<size_t>(problem.weight.dim(0)));
    backend.quadratic_form(problem.weight, problem.gram, result);
    return floats_of(result);
  });
}

std::vector<QuantizationScheme> schemes() {
  return {{.num_bits = 4, .symmetric = false, .group_size = 128},
          {.num_bits = 4, .symmetric = true, .group_size = 32},
          {.num_bits = 3, .symmetric = false, .group_size = 64},
          {.num_bits = 8, .symmetric = true, .group_size = QuantizationScheme::kWholeRow}};
}

/// Clips of each group: three quarters of its largest weight.
Tensor some_clips(const Tensor& weight, const QuantizationScheme& scheme) {
  const int64_t groups = group_count(scheme, weight.dim(1));
  const int64_t width = group_width(scheme, weight.dim(1));
  Tensor clips = Tensor::zeros(DType::f32, {weight.dim(0), groups});
  const auto to = clips.mutable_values<float>();
  const auto from = weight.values<float>();
  for (size_t i = 0; i < from.size(); ++i) {
    float& clip = to[i / static_cast<size_t>(weight.dim(1)) * static_cast<size_t>(groups) +
                     i % static_cast<size_t>(weight.dim(1)) / static_cast<size_t>(width)];
    clip = std::max(clip, 0.75f * std::abs(from[i]));
  }
  return clips;
}

void check_losses(SectionRun& run, const Backends& on, const Problem& problem) {
  const Tensor scales = random_floats({problem.weight.dim(1)}, 64);
  std::vector<float> column_scales;
  for (const float value : scales.values<float>()) column_scales.push_back(std::exp2(value));
  for (const QuantizationScheme& scheme : schemes()) {
    const RoundingRule rule{.scheme = scheme};
    const Tensor clips = some_clips(problem.weight, scheme);
    for (const bool clipped : {false, true}) {
      const RoundingLossProblem loss{.rule = rule,
                                     .weight = problem.weight,
                                     .column_scales = clipped ? std::span<const float>() : column_scales,
                                     .clip = clipped ? clips : Tensor(),
                                     .gram = problem.gram,
                                     .row_step = clipped ? 1 : 3};
      const auto name = fmt::format("{}, {}", describe(scheme), clipped ? "clipped" : "scaled");
      compare(run, on, "rounding loss", "rounding loss, " + name, kLossBound, [&](Backend& backend) {
        std::vector<double> result(static_cast<size_t>(rows_that_count(loss)));
        backend.rounding_loss(loss, result);
        return floats_of(result);
      });
      compare(run, on, "rounding loss by group", "rounding loss by group, " + name, kLossBound,
              [&](Backend& backend) {
                const int64_t groups = group_count(scheme, problem.weight.dim(1));
                std::vector<double> result(static_cast<size_t>(rows_that_count(loss) * groups));
                backend.rounding_loss_by_group(loss, result);
                return floats_of(result);
              });
    }
  }
}

/// Operands rounded to bf16, as calibration asks for.
void check_rounded_losses(SectionRun& run, const Backends& on, const Problem& problem) {
  const RoundingRule rule{.scheme = schemes().front()};
  const RoundingLossProblem loss{
      .rule = rule, .weight = problem.weight, .gram = problem.gram, .precision = MatmulPrecision::bf16};
  compare(run, on, "rounding loss bf16", "rounding loss bf16", kBf16Rounding, [&](Backend& backend) {
    std::vector<double> result(static_cast<size_t>(rows_that_count(loss)));
    backend.rounding_loss(loss, result);
    return floats_of(result);
  });
}

/// G with a hundredth more on its diagonal.
Tensor raised(const Tensor& gram) {
  Tensor result = gram.duplicate();
  const auto values = result.mutable_values<float>();
  for (size_t i = 0; i < values.size(); i += static_cast<size_t>(gram.dim(0)) + 1)
    values[i] = values[i] * 1.01f + 1e-3f;
  return result;
}

/// What a unit upper triangle has above its diagonal; below it nothing is said.
Tensor above_diagonal(Tensor matrix) {
  const auto size = static_cast<size_t>(matrix.dim(0));
  const auto values = matrix.mutable_values<float>();
  for (size_t row = 0; row < size; ++row) std::fill_n(&values[row * size], row, 0.0f);
  return matrix;
}

void check_solving(SectionRun& run, const Backends& on, const Problem& problem) {
  compare(run, on, "factorize", "factorize", 1e-3, [&](Backend& backend) {
    Tensor symmetric = raised(problem.gram);
    if (!backend.factorize(symmetric)) salient::fail(ErrorKind::internal, "it is said not to be definite");
    return above_diagonal(symmetric);
  });
  compare(run, on, "solve", "solve", 1e-3, [&](Backend& backend) {
    Tensor symmetric = raised(problem.gram);
    Tensor rows = problem.x.slice(0, 16).duplicate();
    if (!backend.solve(symmetric, rows)) salient::fail(ErrorKind::internal, "it is said not to be definite");
    return rows;
  });
}

/// Columns that stand on no 16 bytes, in rows of one group.
void check_odd_columns(SectionRun& run, const Backends& on) {
  const Problem problem(Sizes{.rows = 40, .in = 258, .out = 24});
  check_statistics(run, on, problem);
  const QuantizationScheme scheme{
      .num_bits = 4, .symmetric = false, .group_size = QuantizationScheme::kWholeRow};
  const RoundingRule rule{.scheme = scheme};
  const RoundingLossProblem loss{.rule = rule, .weight = problem.weight, .gram = problem.gram};
  compare(run, on, "rounding loss", "rounding loss, odd columns", kLossBound, [&](Backend& backend) {
    std::vector<double> result(static_cast<size_t>(rows_that_count(loss)));
    backend.rounding_loss(loss, result);
    return floats_of(result);
  });
  check_solving(run, on, problem);
}

void check_search(SectionRun& run, const Backends& on, const Problem& problem) {
  ActivationStatistics statistics(problem.x.dim(1));
  statistics.add(on.cpu, MatmulPrecision::f32, problem.x);
  std::vector<int64_t> channels(static_cast<size_t>(problem.x.dim(1)));
  std::iota(channels.begin(), channels.end(), int64_t{0});
  const BalanceLayer layer{.weight = [&] { return problem.weight; },
                           .rounding = RoundingRule{.scheme = schemes().front()}};
  compare(run, on, "scale search", "scale search", kLossBound, [&](Backend& backend) {
    const ScaleSearchResult found = search_scales({.backend = backend,
                                                   .layers = {&layer, 1},
                                                   .input = statistics,
                                                   .channel_of = channels,
                                                   .channels = std::ssize(channels),
                                                   .make_representable = [](std::span<float>) {},
                                                   .n_grid = run.tiny() ? 3 : 20});
    const double numbers[] = {found.loss_identity, found.loss};
    return floats_of(numbers);
  });
}

/// Losses of the rows of a rounded weight, by the CPU.
Tensor losses(Backend& cpu, const Problem& problem, const QuantizedWeight& rounded) {
  Tensor difference = dequantize(rounded);
  const auto values = difference.mutable_values<float>();
  const auto original = problem.weight.values<float>();
  for (size_t i = 0; i < values.size(); ++i) values[i] -= original[i];
  std::vector<double> result(static_cast<size_t>(problem.weight.dim(0)));
  cpu.quadratic_form(difference, raised(problem.gram), result);
  const double total = std::accumulate(result.begin(), result.end(), 0.0);
  return floats_of({&total, 1});
}

void check_rounding(SectionRun& run, const Backends& on, const Problem& problem) {
  Tensor upper = raised(problem.gram);
  on.cpu.factorize(upper);
  std::vector<int64_t> order(static_cast<size_t>(problem.weight.dim(1)));
  std::iota(order.begin(), order.end(), int64_t{0});
  for (const QuantizationScheme& scheme : schemes()) {
    const QuantizedWeight nearest = quantize_to_nearest(problem.weight, {}, scheme, DType::f16);
    const auto fresh = [&] {
      QuantizedWeight copy = nearest;
      copy.codes = nearest.codes.duplicate();
      copy.scales = nearest.scales.duplicate();
      return copy;
    };
    // Codes that stood at the edge between two may go the other way, and what follows makes up for it.
    compare(run, on, "loss of compensated rounding", "compensated rounding, " + describe(scheme), 1e-2,
            [&](Backend& backend) {
              QuantizedWeight rounded = fresh();
              backend.round_compensated({.weight = problem.weight, .upper = upper, .order = order}, rounded);
              return losses(on.cpu, problem, rounded);
            });
    const std::vector<float> ridge(order.size(), 1e-3f);
    compare(run, on, "loss behind sweeps", "sweeps, " + describe(scheme), 1e-2, [&](Backend& backend) {
      QuantizedWeight rounded = fresh();
      backend.sweep_codes(
          {.weight = problem.weight, .gram = problem.gram, .ridge = ridge, .sweeps = run.tiny() ? 1 : 2},
          rounded);
      return losses(on.cpu, problem, rounded);
    });
  }
}

}  // namespace

void check_calibration(SectionRun& run) {
  const Sizes sizes = run.by_size<Sizes>({40, 128, 24}, {1024, 512, 384}, {2048, 1024, 768});
  const auto cuda = run.make_backend();
  const auto cpu = make_cpu_backend();
  const Backends on{*cuda, *cpu};
  const Problem problem(sizes);
  check_statistics(run, on, problem);
  check_losses(run, on, problem);
  check_rounded_losses(run, on, problem);
  check_odd_columns(run, on);
  check_search(run, on, problem);
  check_solving(run, on, problem);
  check_rounding(run, on, problem);
}

}  // namespace salient::gpu
