// Speed of the back end's operations: best of several runs, with the description of what ran.
// Usage: backend_bench; SALIENT_ISA and SALIENT_THREADS apply.

#include <time.h>

#include <algorithm>
#include <functional>
#include <random>

#include "backend/backend.h"
#include "base/error.h"

namespace salient {
namespace {

Tensor random(Shape shape) {
  static std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  Tensor result = Tensor::empty(DType::f32, std::move(shape));
  for (float& value : result.mutable_values<float>()) value = normal(generator);
  return result;
}

struct Timing {
  double wall;
  double cpu;  ///< of all threads: what is left of a measurement on a machine that others use too
};

double now(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

/// Seconds of the fastest of `runs` runs, after one that warms up.
Timing fastest(int runs, const std::function<void()>& body) {
  body();
  Timing best{.wall = 1e300, .cpu = 1e300};
  for (int i = 0; i < runs; ++i) {
    const double wall = now(CLOCK_MONOTONIC);
    const double cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    body();
    best.wall = std::min(best.wall, now(CLOCK_MONOTONIC) - wall);
    best.cpu = std::min(best.cpu, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
  }
  return best;
}

/// "1.234 ms wall, 2.345 ms cpu"
std::string milliseconds(const Timing& timing) {
  return fmt::format("{:9.3f} ms wall {:9.3f} ms cpu", timing.wall * 1e3, timing.cpu * 1e3);
}

QuantizedWeight random_integers(int num_bits, int64_t outputs, int64_t depth) {
  QuantizedWeight weight;
  weight.scheme = {.num_bits = num_bits, .group_size = 128};
  weight.out_features = outputs;
  weight.in_features = depth;
  weight.codes = Tensor::empty(DType::u8, {outputs, weight.row_bytes()});
  std::mt19937 generator(2);
  for (uint8_t& byte : weight.codes.mutable_values<uint8_t>()) byte = static_cast<uint8_t>(generator());
  weight.scales = random({outputs, depth / 128});
  weight.zeros = Tensor::empty(DType::u8, {outputs, depth / 128});
  for (uint8_t& zero : weight.zeros.mutable_values<uint8_t>()) zero = static_cast<uint8_t>(generator() % 16);
  return weight;
}

struct LinearCase {
  int64_t rows;
  int64_t outputs;
  int64_t depth;
};

void bench_linear(Backend& backend, const LinearCase& size, std::string_view name,
                  const LinearWeight& weight) {
  const auto prepared = backend.prepare(weight);
  const Tensor x = random({size.rows, size.depth});
  Tensor y = Tensor::empty(DType::f32, {size.rows, size.outputs});
  const Timing timing = fastest(15, [&] { backend.linear(*prepared, x, y); });
  const double flops = 2.0 * static_cast<double>(size.rows * size.outputs * size.depth);
  fmt::print(
      "linear {:>9} [{:>4} x {}] x [{} x {}]  {} {:8.1f} GFLOP per cpu second {:6.1f} GB/s of weights\n",
      name, size.rows, size.depth, size.outputs, size.depth, milliseconds(timing), flops / timing.cpu * 1e-9,
      static_cast<double>(prepared->byte_size()) / timing.wall * 1e-9);
}

void bench_linears(Backend& backend) {
  for (const LinearCase size :
       {LinearCase{2048, 1536, 576}, {256, 1536, 576}, {16, 1536, 576}, {1, 5632, 2048}, {4, 5632, 2048}}) {
    const int64_t depth = (size.depth + 127) / 128 * 128;
    const Tensor weight = random({size.outputs, size.depth});
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      bench_linear(backend, size, to_string(dtype), {.dense = weight.to(dtype), .quantized = {}, .bias = {}});
    }
    for (const int bits : {4, 8}) {
      bench_linear(backend, {size.rows, size.outputs, depth}, fmt::format("int{} g128", bits),
                   {.dense = {}, .quantized = random_integers(bits, size.outputs, depth), .bias = {}});
    }
  }
}

void bench_gram(Backend& backend, MatmulPrecision precision) {
  for (const int64_t k : {576, 1536}) {
    const Tensor x = random({2048, k});
    Tensor gram = Tensor::zeros(DType::f32, {k, k});
    const Timing timing = fastest(10, [&] { backend.accumulate_gram(x, precision, gram); });
    const double flops = 2.0 * 2048 * static_cast<double>(k * k);
    fmt::print("gram   2048 rows, k = {:<4}  {} {:8.1f} GFLOP per cpu second, counting the whole matrix\n", k,
               milliseconds(timing), flops / timing.cpu * 1e-9);
  }
}

struct AttentionCase {
  int64_t count;
  int64_t first_position;
};

void bench_attention(Backend& backend) {
  for (const AttentionCase size : {AttentionCase{512, 0}, {2048, 0}, {1, 511}, {1, 4095}}) {
    const int64_t positions = size.first_position + size.count;
    const Tensor query = random({size.count, 9 * 64});
    const Tensor keys = random({positions, 3 * 64});
    const Tensor values = random({positions, 3 * 64});
    Tensor output = Tensor::empty(DType::f32, query.shape());
    const Timing timing = fastest(10, [&] {
      backend.attention({.query = query,
                         .keys = keys,
                         .values = values,
                         .output = output,
                         .heads = 9,
                         .kv_heads = 3,
                         .head_dim = 64,
                         .first_position = size.first_position,
                         .window = 0,
                         .scale = 0.125f});
    });
    fmt::print("attention, 9/3 heads of 64: {} queries after {} positions  {}\n", size.count,
               size.first_position, milliseconds(timing));
  }
}

void bench_elementwise(Backend& backend) {
  const Tensor x = random({2048, 1536});
  const Tensor weight = random({1536});
  Tensor y = random({2048, 1536});
  const auto report = [](std::string_view name, const Timing& timing) {
    fmt::print("{:<10} [2048 x 1536]  {}\n", name, milliseconds(timing));
  };
  report("rms_norm", fastest(10, [&] { backend.rms_norm(x, weight, 1e-6, y); }));
  report("silu * up", fastest(10, [&] { backend.gated_activation(Activation::silu, x, x, y); }));
  report("add", fastest(10, [&] { backend.add(x, y); }));
  report("all_finite", fastest(10, [&] { backend.all_finite(x); }));
}

void run() {
  for (const MatmulPrecision precision : {MatmulPrecision::f32, MatmulPrecision::bf16}) {
    const auto backend = make_cpu_backend({.precision = precision});
    fmt::print("== {}\n", backend->description());
    bench_linears(*backend);
    bench_gram(*backend, precision);
    bench_attention(*backend);
    if (precision == MatmulPrecision::f32) bench_elementwise(*backend);
  }
}

}  // namespace
}  // namespace salient

int main() {
  try {
    salient::run();
  } catch (const std::exception& error) {
    fmt::print(stderr, "backend_bench: {}\n", error.what());
    return 1;
  }
}
