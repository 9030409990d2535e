#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "gpu/random_data.h"
#include "gpu/sections.h"

namespace salient::gpu {
namespace {

/// Of the largest output: of products in f32, and of those of operands that were rounded to f16, or to bf16.
constexpr double kExactBound = 1e-5;
constexpr double kHalfBound = 3e-3;
constexpr double kBf16Bound = 24e-3;

double bound_of(std::string_view kernel) {
  if (kernel.starts_with("split")) return kExactBound;
  return kernel.ends_with("_bf16") ? kBf16Bound : kHalfBound;
}

struct AttentionCase {
  int64_t count = 1;
  int64_t first_position = 0;
  int64_t heads = 8;
  int64_t kv_heads = 8;
  int64_t head_dim = 128;
  KvType type = KvType::fp16;
  int64_t window = 0;
  float softcap = 0;
  bool slopes = false;
  bool paged = true;

  int64_t positions() const { return first_position + count; }
  std::string name() const {
    return fmt::format("{} queries at {}, {} / {} heads of {}, {}{}{}{}", count, first_position, heads,
                       kv_heads, head_dim, paged ? to_string(type) : "tensors",
                       window > 0 ? fmt::format(", window {}", window) : "", softcap > 0 ? ", softcap" : "",
                       slopes ? ", slopes" : "");
  }
};

/// Pages of keys and values of one layer.
class Pages {
 public:
  explicit Pages(const AttentionCase& c) : format_{c.type, c.kv_heads, c.head_dim} {
    for (int64_t page = 0; page * kPageRows < c.positions(); ++page)
      blocks_.push_back(std::make_shared<Tensor>(
          Tensor::zeros(DType::u8, {static_cast<int64_t>(2 * format_.page_bytes())})));
  }
  KvView view() const {
    return {.keys = {format_, blocks_, 0}, .values = {format_, blocks_, format_.page_bytes()}};
  }
  void store(Backend& backend, const Tensor& keys, const Tensor& values) const {
    const RowsForCache rows{.count = keys.dim(0), .first = 0, .pages = view()};
    backend.rope_and_store({.keys = keys, .values = values, .caches = {&rows, 1}});
  }
  std::span<const KvBlock> blocks() const { return blocks_; }

 private:
  KvFormat format_;
  std::vector<KvBlock> blocks_;
};

struct Inputs {
  Tensor query;
  Tensor keys;
  Tensor values;
  std::vector<float> slopes;
};

Inputs inputs_of(const AttentionCase& c) {
  Inputs in{.query = random_floats({c.count, c.heads * c.head_dim}, 31),
            .keys = random_floats({c.positions(), c.kv_heads * c.head_dim}, 32),
            .values = random_floats({c.positions(), c.kv_heads * c.head_dim}, 33),
            .slopes = {}};
  for (int64_t head = 0; c.slopes && head < c.heads; ++head)
    in.slopes.push_back(0.5f / static_cast<float>(head + 1));
  return in;
}

Tensor attend(Backend& backend, const AttentionCase& c, const Inputs& in, const KvView* cache) {
  Tensor output = Tensor::empty(DType::f32, in.query.shape());
  backend.attention({.query = in.query,
                     .cache = cache,
                     .keys = in.keys,
                     .values = in.values,
                     .output = output,
                     .heads = c.heads,
                     .kv_heads = c.kv_heads,
                     .head_dim = c.head_dim,
                     .value_dim = c.head_dim,
                     .first_position = c.first_position,
                     .window = c.window,
                     .scale = 1 / std::sqrt(static_cast<float>(c.head_dim)),
                     .softcap = c.softcap,
                     .slopes = in.slopes});
  return output;
}

/// The kernel that made the scores: its products are in f32, or of halves.
std::string kernel_name(const SectionRun& run) {
  for (const std::string& kernel : run.device().kernels())
    if (kernel.find("attention") != std::string::npos) return kernel;
  return "attention on the host";
}

void check_pages(SectionRun& run, const Pages& got, const Pages& expected) {
  for (size_t i = 0; i < expected.blocks().size(); ++i) {
    const Tensor& a = *got.blocks()[i];
    const Tensor& b = *expected.blocks()[i];
    run.check_bytes("rope_and_store", {a.bytes(), a.byte_size()}, {b.bytes(), b.byte_size()});
  }
}

void check_case(SectionRun& run, Backend& cuda, Backend& cpu, const AttentionCase& c) {
  run.attempt(c.name(), [&] {
    const Inputs in = inputs_of(c);
    const Pages on_cpu(c);
    const Pages on_device(c);
    const KvView cpu_view = on_cpu.view();
    const KvView device_view = on_device.view();
    if (c.paged) {
      on_cpu.store(cpu, in.keys, in.values);
      on_device.store(cuda, in.keys, in.values);
    }
    const Tensor expected = attend(cpu, c, in, c.paged ? &cpu_view : nullptr);
    run.device().take_kernels();
    const Tensor got = attend(cuda, c, in, c.paged ? &device_view : nullptr);
    got.bytes();  // launches may have been held back
    const std::string kernel = kernel_name(run);
    run.check(kernel, got, expected, {.bound = bound_of(kernel)});
    if (c.paged) check_pages(run, on_device, on_cpu);
    const Tensor again = attend(cuda, c, in, c.paged ? &device_view : nullptr);
    run.check_bytes(kernel + " again", {again.bytes(), again.byte_size()}, {got.bytes(), got.byte_size()});
  });
}

/// Single queries of several sequences, whose caches a back end has filled.
class Batch {
 public:
  Batch(Backend& backend, const AttentionCase& c, std::span<const int64_t> positions)
      : backend_(backend),
        case_(c),
        positions_(positions.begin(), positions.end()),
        query_(random_floats({std::ssize(positions), c.heads * c.head_dim}, 41)) {
    for (const int64_t position : positions_) {
      AttentionCase own = c;
      own.first_position = position;
      const Inputs in = inputs_of(own);
      pages_.emplace_back(own).store(backend, in.keys, in.values);
    }
    for (const Pages& pages : pages_) views_.push_back(pages.view());
  }

  /// Of sequences [begin, end), side by side.
  Tensor attend(size_t begin, size_t end) const {
    const auto rows = [&](const Tensor& all, size_t first, size_t last) {
      return all.slice(static_cast<int64_t>(first), static_cast<int64_t>(last));
    };
    Tensor output = Tensor::empty(DType::f32, rows(query_, begin, end).shape());
    std::vector<Tensor> queries;
    std::vector<Tensor> outputs;
    for (size_t i = begin; i < end; ++i) {
      queries.push_back(rows(query_, i, i + 1));
      outputs.push_back(rows(output, i - begin, i - begin + 1));
    }
    std::vector<AttentionProblem> problems;
    const Tensor none;  // they are in the cache
    for (size_t i = begin; i < end; ++i)
      problems.push_back({.query = queries[i - begin],
                          .cache = &views_[i],
                          .keys = none,
                          .values = none,
                          .output = outputs[i - begin],
                          .heads = case_.heads,
                          .kv_heads = case_.kv_heads,
                          .head_dim = case_.head_dim,
                          .value_dim = case_.head_dim,
                          .first_position = positions_[i],
                          .window = case_.window,
                          .scale = 1 / std::sqrt(static_cast<float>(case_.head_dim))});
    backend_.attention(problems);
    return output;
  }

 private:
  Backend& backend_;
  AttentionCase case_;
  std::vector<int64_t> positions_;
  Tensor query_;
  std::vector<Pages> pages_;
  std::vector<KvView> views_;
};

/// Right and, of few, the bytes that each gets alone.
void check_batch(SectionRun& run, Backend& cuda, Backend& cpu, const AttentionCase& c,
                 std::span<const int64_t> positions) {
  const size_t count = positions.size();
  run.attempt(fmt::format("{} sequences, {}", count, c.name()), [&] {
    const Tensor expected = Batch(cpu, c, positions).attend(0, count);
    const Batch batch(cuda, c, positions);
    run.device().take_kernels();
    const Tensor got = batch.attend(0, count);
    got.bytes();
    const std::string kernel = kernel_name(run);
    run.check(kernel, got, expected, {.bound = bound_of(kernel)});
    for (size_t i = 0; std::ssize(positions) <= kRowsAsAlone && i < count; ++i) {
      const Tensor alone = batch.attend(i, i + 1);
      const Tensor own = got.slice(static_cast<int64_t>(i), static_cast<int64_t>(i + 1));
      run.check_bytes(kernel + " as alone", {own.bytes(), own.byte_size()},
                      {alone.bytes(), alone.byte_size()});
    }
  });
}

void check_batches(SectionRun& run, Backend& cuda, Backend& cpu) {
  const std::vector<int64_t> few = run.tiny() ? std::vector<int64_t>{130, 0, 64}
                                              : std::vector<int64_t>{1000, 0, 64, 4095, 127, 500, 63, 2};
  std::vector<int64_t> many;
  for (int64_t i = 0; i < (run.tiny() ? 9 : 32); ++i) many.push_back(i * i * (run.tiny() ? 3 : 7) % 2000);
  for (const KvType type : {KvType::fp16, KvType::bf16, KvType::fp32, KvType::int8}) {
    for (const int64_t kv_heads : {8, 4, 1}) {
      for (const int64_t window : {0, 100}) {
        if (run.tiny() && window != 0) continue;
        const AttentionCase c{
            .kv_heads = kv_heads, .head_dim = run.tiny() ? 64 : 128, .type = type, .window = window};
        check_batch(run, cuda, cpu, c, few);
        check_batch(run, cuda, cpu, c, many);
      }
    }
  }
}

struct Stretch {
  int64_t count;
  int64_t first_position;
};

std::vector<Stretch> stretches(const SectionRun& run) {
  if (run.tiny()) return {{1, 130}, {2, 60}, {9, 60}};
  return {{1, 0},   {1, 63}, {1, 64},   {1, 127},  {1, 128}, {1, 129},   {1, 1000}, {2, 300},   {4, 500},
          {8, 255}, {9, 0},  {16, 111}, {17, 111}, {64, 0},  {100, 130}, {128, 0},  {129, 127}, {300, 77}};
}

std::vector<AttentionCase> cases(const SectionRun& run) {
  std::vector<AttentionCase> list;
  const std::vector<int64_t> dims =
      run.tiny() ? std::vector<int64_t>{64, 128, 256} : std::vector<int64_t>{64, 80, 96, 128, 256};
  const std::vector<int64_t> kv_heads =
      run.tiny() ? std::vector<int64_t>{4, 1} : std::vector<int64_t>{8, 2, 1};
  for (const auto [count, first] : stretches(run)) {
    for (const int64_t dim : dims) {
      for (const int64_t kv : kv_heads) {
        const AttentionCase c{.count = count,
                              .first_position = first,
                              .heads = run.tiny() ? 4 : 8,
                              .kv_heads = kv,
                              .head_dim = dim};
        for (const KvType type : {KvType::fp16, KvType::bf16, KvType::fp32, KvType::int8}) {
          list.push_back(c);
          list.back().type = type;
        }
        list.push_back(c);
        list.back().paged = false;
      }
    }
  }
  return list;
}

/// What changes scores and which keys count.
std::vector<AttentionCase> special_cases(const SectionRun& run) {
  std::vector<AttentionCase> list;
  for (const auto [count, first] : stretches(run)) {
    const AttentionCase c{.count = count,
                          .first_position = first,
                          .heads = run.tiny() ? 2 : 8,
                          .kv_heads = 2,
                          .head_dim = run.tiny() ? 64 : 128};
    for (const int64_t window : {1, 40, 100}) {
      list.push_back(c);
      list.back().window = window;
    }
    list.push_back(c);
    list.back().softcap = 2;
    list.push_back(c);
    list.back().slopes = true;
    for (const KvType type : {KvType::fp16, KvType::bf16, KvType::fp32, KvType::int8}) {
      list.push_back(c);
      list.back().heads = 6;  // three to a kv head
      list.back().type = type;
    }
  }
  // So many rows that two blocks of 128 are there for each multiprocessor.
  for (const int64_t dim : {64, 128})
    for (const KvType type : {KvType::fp16, KvType::bf16})
      list.push_back(
          {.count = run.tiny() ? 64 : 2048, .heads = 32, .kv_heads = 8, .head_dim = dim, .type = type});
  if (run.tiny()) return list;
  for (const KvType type : {KvType::fp16, KvType::bf16, KvType::int8}) {
    list.push_back({.first_position = 8191, .heads = 32, .type = type});
    list.push_back({.first_position = 32767, .heads = 32, .type = type});
    list.push_back({.count = 1024, .first_position = 1024, .heads = 32, .type = type});
  }
  return list;
}

}  // namespace

void check_attention(SectionRun& run) {
  const auto cuda = run.make_backend();
  const auto cpu = make_cpu_backend();
  for (const AttentionCase& c : cases(run)) check_case(run, *cuda, *cpu, c);
  for (const AttentionCase& c : special_cases(run)) check_case(run, *cuda, *cpu, c);
  check_batches(run, *cuda, *cpu);
}

}  // namespace salient::gpu
