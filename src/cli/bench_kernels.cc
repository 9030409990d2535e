#include "cli/bench_kernels.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "backend/kernel_bench.h"
#include "base/error.h"
#include "base/json.h"
#include "base/parallel.h"
#include "cli/terminal.h"

namespace salient::cli {
namespace {

/// The linears of TinyLlama 1.1B, then those of Llama 3 8B.
constexpr const char* kUsualShapes[] = {"2048x2048", "5632x2048",  "2048x5632",
                                        "4096x4096", "14336x4096", "4096x14336"};

struct KernelRow {
  KernelShape shape;
  const KernelContender& contender;
  KernelSpeed speed;
  double bandwidth;  ///< of memory, bytes a second, measured beside it

  double weight_bandwidth() const { return speed.weight_bytes / speed.seconds; }
  double operations_per_second() const { return speed.operations / speed.seconds; }
  double times_portable() const { return speed.portable_seconds / speed.seconds; }
  bool is_streamed() const { return speed.rows <= kRowsAsAlone; }
};

/// The whole of `text`, or 0.
int64_t count_of(std::string_view text) {
  int64_t result = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), result);
  return error == std::errc() && end == text.data() + text.size() ? result : 0;
}

KernelShape parse_shape(const std::string& text, int64_t group_size) {
  const size_t cross = std::min(text.find('x'), text.size() - 1);
  const KernelShape shape{.outputs = count_of(std::string_view(text).substr(0, cross)),
                          .depth = count_of(std::string_view(text).substr(cross + 1)),
                          .group_size = group_size};
  if (shape.outputs > 0 && shape.depth > 0) return shape;
  fail(ErrorKind::invalid_argument, "--shape {}: expected OUTxIN, as in 5632x2048", text);
}

std::vector<KernelShape> shapes_of(const BenchKernelsArguments& arguments) {
  std::vector<std::string> texts = arguments.shapes;
  if (texts.empty()) texts.assign(std::begin(kUsualShapes), std::end(kUsualShapes));
  std::vector<KernelShape> result;
  for (const std::string& text : texts) result.push_back(parse_shape(text, arguments.group_size));
  for (const KernelShape& shape : result) with_context("--shape", [&] { check_kernel_shape(shape); });
  return result;
}

std::string said(const KernelRow& row) {
  if (!row.speed.correct) return fmt::format("WRONG by {:.1e}", row.speed.difference);
  if (row.contender.activations == ActivationMode::fp32) return fmt::format("{:.1e}", row.speed.difference);
  return "same bytes";
}

void print_header() {
  fmt::print("\n{:>12} {:<21} {:>11} {:>4} {:>12} {:>12} {:>5} {:>9} {:>12} {}\n", "OUTxIN", "ISA",
             "Activations", "Rows", "microseconds", "Weights GB/s", "roof", "GOP/s", "x portable", "Outputs");
}

void print_row(const KernelRow& row) {
  const bool streamed = row.is_streamed();
  fmt::print("{:>12} {:<21} {:>11} {:>4} {:>12.1f} {:>12} {:>5} {:>9.1f} {:>12.1f} {}\n",
             fmt::format("{}x{}", row.shape.outputs, row.shape.depth), row.contender.isa,
             to_string(row.contender.activations), row.speed.rows, row.speed.seconds * 1e6,
             streamed ? fmt::format("{:.2f}", row.weight_bandwidth() / 1e9) : "",
             streamed ? fmt::format("{:.0f}%", 100 * row.weight_bandwidth() / row.bandwidth) : "",
             row.operations_per_second() / 1e9, row.times_portable(), said(row));
  std::fflush(stdout);
}

Json to_json(const KernelRow& row) {
  return {{"outputs", row.shape.outputs},
          {"inputs", row.shape.depth},
          {"isa", row.contender.isa},
          {"activations", to_string(row.contender.activations)},
          {"rows", row.speed.rows},
          {"seconds", row.speed.seconds},
          {"weight_bytes", row.speed.weight_bytes},
          {"weight_bytes_per_second", row.weight_bandwidth()},
          {"bandwidth", row.bandwidth},
          {"share_of_bandwidth", row.weight_bandwidth() / row.bandwidth},
          {"operations_per_second", row.operations_per_second()},
          {"portable_seconds", row.speed.portable_seconds},
          {"times_portable", row.times_portable()},
          {"difference", row.speed.difference},
          {"correct", row.speed.correct}};
}

}  // namespace

void run_bench_kernels(const BenchKernelsArguments& arguments) {
  const std::vector<KernelShape> shapes = shapes_of(arguments);
  const std::vector<KernelContender> contenders = kernel_contenders(arguments.isas);
  if (!arguments.json) {
    print_table({{"weights", fmt::format("int4 asymmetric, group {}", arguments.group_size)},
                 {"threads", fmt::format("{}", thread_count())}});
    print_header();
  }
  Json rows = Json::array();
  size_t wrong = 0;
  for (const KernelShape& shape : shapes) {
    KernelBench bench(shape, *std::ranges::max_element(arguments.rows));
    const double bandwidth = contenders.front().backend->measure_bandwidth();
    for (const KernelContender& contender : contenders) {
      for (const int64_t count : arguments.rows) {
        if (!KernelBench::has_product(contender, count)) continue;
        const KernelSpeed speed = bench.measure(contender, count, arguments.repeats, &interrupted());
        const KernelRow row{shape, contender, speed, bandwidth};
        if (!speed.correct) ++wrong;
        rows.push_back(to_json(row));
        if (!arguments.json) print_row(row);
      }
    }
  }
  const size_t count = rows.size();
  if (arguments.json) {
    const Json result{{"threads", thread_count()},
                      {"group_size", arguments.group_size},
                      {"repeats", arguments.repeats},
                      {"rows", std::move(rows)}};
    fmt::print("{}\n", result.dump(2));
  }
  if (wrong > 0)
    fail(ErrorKind::internal, "{} of {} products are not what the portable kernels make", wrong, count);
}

}  // namespace salient::cli
