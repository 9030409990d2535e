// Speed of products with int4 weights in panels, for every instruction set of this processor and every mode
// of activations: few rows in bytes of weights per second, beside what the memory gives to plain reading in
// the same minute, many rows in multiplications and additions per second. Seconds are those of processors,
// not of the wall.
//
// Usage: panel_bench [ISA]... with ISA as SALIENT_ISA spells it; SALIENT_THREADS applies.

#include <emmintrin.h>
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <random>

#include "backend/cpu/cpu_backend.h"
#include "base/error.h"
#include "base/parallel.h"

namespace salient {
namespace {

/// More than a shared third-level cache keeps.
constexpr size_t kStreamedBytes = size_t{640} << 20;
/// Of 2048 columns: half a megabyte.
constexpr int64_t kCachedOutputs = 512;
constexpr int kRuns = 5;

double processor_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

/// Of the fastest run, in processor time over the number of threads: what wall time would be on a machine
/// that nobody else uses.
double fastest_seconds(int runs, const std::function<void()>& body) {
  double best = 1e300;
  for (int i = 0; i < runs; ++i) {
    const double start = processor_seconds();
    body();
    best = std::min(best, processor_seconds() - start);
  }
  return best / static_cast<double>(thread_count());
}

/// A buffer on pages of 2 MiB that is only read.
class Stream {
 public:
  Stream() : data_(static_cast<std::byte*>(std::aligned_alloc(size_t{2} << 20, kStreamedBytes))) {
    ::madvise(data_, kStreamedBytes, MADV_HUGEPAGE);
    for (size_t i = 0; i < kStreamedBytes; i += 64) data_[i] = static_cast<std::byte>(i >> 6);
  }
  ~Stream() { std::free(data_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  /// Bytes per second.
  double bandwidth() const {
    std::atomic<int> sink{0};
    const double seconds = fastest_seconds(3, [&] {
      parallel_for(kStreamedBytes, size_t{1} << 20,
                   [&](size_t begin, size_t end) { sink += read(begin, end); });
    });
    return static_cast<double>(kStreamedBytes) / seconds;
  }

 private:
  int read(size_t begin, size_t end) const {
    __m128i sums[4] = {};
    for (size_t i = begin; i < end; i += 64) {
      const auto* line = reinterpret_cast<const __m128i*>(data_ + i);
      _mm_prefetch(reinterpret_cast<const char*>(line) + 2048, _MM_HINT_T0);
      for (int j = 0; j < 4; ++j) sums[j] = _mm_xor_si128(sums[j], _mm_load_si128(line + j));
    }
    return _mm_cvtsi128_si32(_mm_xor_si128(_mm_xor_si128(sums[0], sums[1]), _mm_xor_si128(sums[2], sums[3])));
  }

  std::byte* data_;
};

struct LinearShape {
  int64_t outputs;
  int64_t depth;
  int64_t group_size;
};

QuantizedWeight random_weight(const LinearShape& shape) {
  QuantizedWeight weight = allocate_quantized_weight({.num_bits = 4, .group_size = shape.group_size},
                                                     shape.outputs, shape.depth, DType::f16);
  std::mt19937 generator(2);
  for (uint8_t& byte : weight.codes.mutable_values<uint8_t>()) byte = static_cast<uint8_t>(generator());
  for (uint8_t& zero : weight.zeros.mutable_values<uint8_t>()) zero = static_cast<uint8_t>(generator() % 16);
  for (Half& scale : weight.scales.mutable_values<Half>()) scale = to_half(0.01f);
  return weight;
}

Tensor random_inputs(int64_t rows, int64_t depth) {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  Tensor result = Tensor::empty(DType::f32, {rows, depth});
  for (float& value : result.mutable_values<float>()) value = normal(generator);
  return result;
}

struct Contender {
  std::string isa;
  ActivationMode mode;
  std::unique_ptr<Backend> backend;
};

/// Each instruction set of this processor with all that goes with it, and with less.
std::vector<std::string> every_isa() {
  std::vector<std::string> result;
  for (const char* text :
       {"portable", "avx2,no-vnni", "avx2", "avx512,no-vnni,no-amx", "avx512,no-amx", "avx512"}) {
    const std::string_view name = std::string_view(text).substr(0, std::string_view(text).find(','));
    for (const Isa isa : supported_isas()) {
      if (name == to_string(isa)) result.emplace_back(text);
    }
  }
  return result;
}

std::vector<Contender> contenders(const std::vector<std::string>& isas) {
  std::vector<Contender> result;
  for (const std::string& isa : isas) {
    for (const ActivationMode mode : {ActivationMode::int8, ActivationMode::int16, ActivationMode::fp32})
      result.push_back({isa, mode, make_cpu_backend_for(choose_isa(isa), {.activations = mode})});
  }
  return result;
}

void bench_few_rows(const std::vector<Contender>& all, const LinearShape& shape, const Stream& stream) {
  const QuantizedWeight weight = random_weight(shape);
  std::vector<std::unique_ptr<PreparedLinear>> linears;
  size_t bytes = 0;
  while (bytes < kStreamedBytes) {
    linears.push_back(all.front().backend->prepare({.dense = {}, .quantized = weight, .bias = {}}));
    bytes += linears.back()->byte_size();
  }
  for (const Contender& contender : all) {
    const double roof = stream.bandwidth();
    for (const int64_t rows : {1, 4, 8}) {
      if (contender.isa == "portable" && rows > 1) continue;
      const Tensor x = random_inputs(rows, shape.depth);
      Tensor y = Tensor::empty(DType::f32, {rows, shape.outputs});
      const int runs = contender.isa == "portable" ? 1 : kRuns;
      const double seconds = fastest_seconds(runs, [&] {
        for (const auto& linear : linears) contender.backend->linear(*linear, x, y);
      });
      // A weight that stays in the second-level cache: what the arithmetic alone allows.
      const QuantizedWeight small = random_weight({kCachedOutputs, shape.depth, shape.group_size});
      const auto cached = all.front().backend->prepare({.dense = {}, .quantized = small, .bias = {}});
      Tensor few = Tensor::empty(DType::f32, {rows, kCachedOutputs});
      const double hot = fastest_seconds(10, [&] {
        for (int i = 0; i < 10; ++i) contender.backend->linear(*cached, x, few);
      });
      const double speed = static_cast<double>(bytes) / seconds;
      fmt::print(
          "{:<22} {:<6} {} rows x [{} x {}] g{}: {:6.2f} GB/s, {:5.1f} % of {:5.2f} GB/s; cached {:6.1f} "
          "GB/s\n",
          contender.isa, to_string(contender.mode), rows, shape.outputs, shape.depth, shape.group_size,
          speed * 1e-9, 100 * speed / roof, roof * 1e-9,
          static_cast<double>(cached->byte_size()) * 10 / hot * 1e-9);
      std::fflush(stdout);
    }
  }
}

void bench_many_rows(const std::vector<Contender>& all, const LinearShape& shape) {
  const auto linear =
      all.front().backend->prepare({.dense = {}, .quantized = random_weight(shape), .bias = {}});
  for (const Contender& contender : all) {
    if (contender.isa == "portable") continue;
    for (const int64_t rows : {16, 64, 512}) {
      const Tensor x = random_inputs(rows, shape.depth);
      Tensor y = Tensor::empty(DType::f32, {rows, shape.outputs});
      contender.backend->linear(*linear, x, y);
      const double seconds = fastest_seconds(kRuns, [&] { contender.backend->linear(*linear, x, y); });
      const double operations = 2.0 * static_cast<double>(rows * shape.outputs * shape.depth);
      fmt::print("{:<22} {:<6} {:>3} rows x [{} x {}] g{}: {:7.1f} GOP/s\n", contender.isa,
                 to_string(contender.mode), rows, shape.outputs, shape.depth, shape.group_size,
                 operations / seconds * 1e-9);
      std::fflush(stdout);
    }
  }
}

void run(std::vector<std::string> isas) {
  if (isas.empty()) isas = every_isa();
  const std::vector<Contender> all = contenders(isas);
  fmt::print("== {}\n", make_cpu_backend()->description());
  const Stream stream;
  bench_few_rows(all, {5632, 2048, 128}, stream);
  bench_many_rows(all, {5632, 2048, 128});
  bench_many_rows(all, {2048, 5632, 128});
  bench_many_rows(all, {2048, 2048, 32});
}

}  // namespace
}  // namespace salient

int main(int count, char** arguments) {
  try {
    salient::run({arguments + 1, arguments + count});
  } catch (const std::exception& error) {
    fmt::print(stderr, "panel_bench: {}\n", error.what());
    return 1;
  }
}
