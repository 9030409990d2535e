#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/parallel.h"
#include "cli/bench_kernels.h"
#include "cli/commands.h"
#include "cli/terminal.h"
#include "evaluate/speed.h"
#include "runtime/generate.h"

namespace salient::cli {
namespace {

struct BenchArguments {
  std::string model;
  std::vector<int64_t> batch_sizes{1};
  std::vector<int64_t> prefill_lengths;  // empty: the usual ones that fit
  int64_t decode_length = 64;
  int repeats = 2;
  DeviceOptions device;
  std::string activations = kActivationsToRun;
  std::string lm_head = "auto";
  std::string packed_weights;
  std::string kv_type = kKvTypeToRun;
  bool fuse_layers = true;
  bool kernels = false;
  BenchKernelsArguments of_kernels;
  bool json = false;
};

struct BenchResult {
  std::string device;
  std::string head_form;
  double head_bytes = 0;
  double load_seconds = 0;
  double bandwidth = 0;  // bytes a second
  std::vector<Speed> rows;
};

double roof_share(const BenchResult& result, const Speed& row) {
  return row.weight_bandwidth() / result.bandwidth;
}

void print_header(const BenchArguments& arguments, const BenchResult& result) {
  print_table(
      {{"model", fmt::format("{}, loaded in {}", arguments.model, format_duration(result.load_seconds))},
       {"device", result.device},
       {"keys and values", arguments.kv_type},
       {"lm_head", fmt::format("{}, {:.1f} MB", result.head_form, result.head_bytes / 1e6)},
       {"memory bandwidth", fmt::format("{:.1f} GB/s, measured now", result.bandwidth / 1e9)}});
  fmt::print("\n{:>11} {:>10} {:>14} {:>13} {:>17} {:>16} {:>10} {:>12} {:>6} {:>9}\n", "Activations",
             "Batch Size", "Prefill Length", "Decode Length", "Prefill tokens/s", "Decode tokens/s",
             "MB/token", "Weights GB/s", "roof", "Memory");
}

void print_row(const std::string& activations, const BenchResult& result, const Speed& row) {
  fmt::print(
      "{:>11} {:>10} {:>14} {:>13} {:>17.1f} {:>16.2f} {:>10.1f} {:>12.2f} {:>5.0f}% {:>9}\n", activations,
      row.of.batch_size, row.of.prefill_length, row.of.decode_length, row.prefill_tokens_per_second,
      row.decode_tokens_per_second,
      (row.weight_bytes_per_step + row.cache_bytes_per_step) / static_cast<double>(row.of.batch_size) / 1e6,
      row.weight_bandwidth() / 1e9, 100 * roof_share(result, row), format_bytes(row.memory));
  std::fflush(stdout);
}

Json to_json(const BenchArguments& arguments, const BenchResult& result) {
  Json rows = Json::array();
  for (const Speed& row : result.rows) {
    rows.push_back({{"batch_size", row.of.batch_size},
                    {"prefill_length", row.of.prefill_length},
                    {"decode_length", row.of.decode_length},
                    {"prefill_tokens_per_second", row.prefill_tokens_per_second},
                    {"decode_tokens_per_second", row.decode_tokens_per_second},
                    {"weight_bytes_per_step", row.weight_bytes_per_step},
                    {"cache_bytes_per_step", row.cache_bytes_per_step},
                    {"weight_bytes_per_second", row.weight_bandwidth()},
                    {"share_of_bandwidth", roof_share(result, row)},
                    {"memory", row.memory}});
  }
  return {{"model", arguments.model},
          {"device", result.device},
          {"threads", thread_count()},
          {"activations", arguments.activations},
          {"kv_cache_dtype", arguments.kv_type},
          {"lm_head", result.head_form},
          {"lm_head_bytes", result.head_bytes},
          {"fuse_layers", arguments.fuse_layers},
          {"load_seconds", result.load_seconds},
          {"bandwidth", result.bandwidth},
          {"repeats", arguments.repeats},
          {"rows", std::move(rows)}};
}

/// In order of the rows. What cannot run is refused before anything is measured.
std::vector<SpeedCase> cases_of(const BenchArguments& arguments, const DecoderSpec& spec) {
  std::vector<int64_t> lengths = arguments.prefill_lengths;
  if (lengths.empty()) {
    const int64_t most = std::max<int64_t>(1, context_limit(spec) - arguments.decode_length);
    for (const int64_t usual : {32, 128, 512}) lengths.push_back(std::min<int64_t>(usual, most));
    lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  }
  std::vector<SpeedCase> cases;
  for (const int64_t batch_size : arguments.batch_sizes) {
    for (const int64_t prefill_length : lengths) {
      cases.push_back({batch_size, prefill_length, arguments.decode_length});
      check_speed_case(spec, cases.back());
    }
  }
  return cases;
}

void run_bench(const BenchArguments& arguments) {
  if (arguments.kernels) {
    BenchKernelsArguments of_kernels = arguments.of_kernels;
    of_kernels.repeats = arguments.repeats;
    of_kernels.json = arguments.json;
    if (arguments.model.empty()) return run_bench_kernels(of_kernels);
    fail(ErrorKind::invalid_argument, "--kernels measures no model: leave {} out", arguments.model);
  }
  if (arguments.model.empty()) fail(ErrorKind::invalid_argument, "bench needs a model, or --kernels");
  const auto backend = make_backend({.device = arguments.device.device,
                                     .activations = arguments.activations,
                                     .fuse_layers = arguments.fuse_layers,
                                     .kernel = arguments.device.kernel,
                                     .on_note = print_note});
  BenchResult result{.device = backend->description()};
  const auto start = std::chrono::steady_clock::now();
  const Decoder decoder = Decoder::load(arguments.model, *backend,
                                        {.packed_weights = arguments.packed_weights,
                                         .kv_type = kv_type_by_name(arguments.kv_type),
                                         .lm_head = lm_head_by_name(arguments.lm_head),
                                         .cancelled = &interrupted()});
  result.load_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.head_form = decoder.head_form();
  result.head_bytes = decoder.head_bytes();
  const std::vector<SpeedCase> cases = cases_of(arguments, decoder.spec());
  result.bandwidth = backend->measure_bandwidth();
  if (!arguments.json) print_header(arguments, result);
  // Threads, scratch memory and mapped weights are there from then on.
  measure_speed(decoder,
                {.prefill_length = std::min<int64_t>(32, cases[0].prefill_length),
                 .decode_length = std::min<int64_t>(1, cases[0].decode_length)},
                1, &interrupted());
  for (const SpeedCase& of : cases) {
    result.rows.push_back(measure_speed(decoder, of, arguments.repeats, &interrupted()));
    if (!arguments.json) print_row(arguments.activations, result, result.rows.back());
  }
  if (arguments.json) fmt::print("{}\n", to_json(arguments, result).dump(2));
}

/// What says how a model runs is refused with --kernels, and the other way round.
void add_kernels_options(CLI::App& command, BenchArguments& arguments) {
  auto* kernels = command.add_flag("--kernels", arguments.kernels,
                                   "Measure products with int4 weights instead of a model: every instruction "
                                   "set and mode of activations, checked against the portable kernels");
  for (const char* name :
       {"--batch-size", "--prefill-length", "--decode-length", "--device", "--kernel", "--activations",
        "--lm-head", "--kv-cache-dtype", "--packed-weights", "--fuse-layers"})
    command.get_option(name)->excludes(kernels);
  BenchKernelsArguments& of_kernels = arguments.of_kernels;
  command
      .add_option(
          "--shape", of_kernels.shapes,
          "With --kernels: outputs and inputs of a linear, as in 5632x2048; may be repeated (default: "
          "the linears of TinyLlama 1.1B and Llama 3 8B)")
      ->needs(kernels);
  command
      .add_option(
          "--isa", of_kernels.isas,
          "With --kernels: an instruction set as SALIENT_ISA spells it; may be repeated (default: all "
          "that this processor has)")
      ->needs(kernels);
  command
      .add_option("--rows", of_kernels.rows,
                  "With --kernels: rows of activations; one or several, separated by commas (default "
                  "1,2,4,8,512)")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16))
      ->needs(kernels);
  command
      .add_option("--group-size", of_kernels.group_size,
                  "With --kernels: columns that share a scale, -1 for whole rows (default 128)")
      ->needs(kernels);
}

}  // namespace

void add_bench_command(CLI::App& app) {
  auto arguments = std::make_shared<BenchArguments>();
  auto* command = app.add_subcommand("bench", "Measure how fast a model reads prompts and writes tokens");
  const auto positive = CLI::Range(int64_t{1}, int64_t{1} << 30);
  command->add_option("model", arguments->model, "Model directory, dense or quantized");
  command
      ->add_option("--batch-size", arguments->batch_sizes,
                   "Sequences side by side; one or several, separated by commas (default 1)")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{4096}));
  command
      ->add_option("--prefill-length", arguments->prefill_lengths,
                   "Tokens of each prompt; one or several, separated by commas (default 32,128,512, as far "
                   "as the model has positions)")
      ->delimiter(',')
      ->check(positive);
  command
      ->add_option("--decode-length", arguments->decode_length,
                   "Tokens decoded behind each prompt (default 64)")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30));
  command
      ->add_option("--repeat", arguments->repeats,
                   "Runs of each row, of which the fastest counts (default 2)")
      ->check(CLI::Range(1, 1000));
  add_device_options(*command, arguments->device);
  add_activations_option(*command, arguments->activations);
  add_kv_cache_option(*command, arguments->kv_type);
  add_lm_head_option(*command, arguments->lm_head);
  add_packed_weights_option(*command, arguments->packed_weights);
  command->add_flag("--fuse-layers,!--no-fuse-layers", arguments->fuse_layers,
                    "Whether linears that read the same input (q, k and v; gate and up) are one product (the "
                    "default) or one after the other; the results are the same");
  add_kernels_options(*command, *arguments);
  command->add_flag("--json", arguments->json, "Report as JSON on standard output");
  command->footer(
      "Tokens are random. \"roof\" is the share of the memory bandwidth, measured in the same run, at which "
      "decoding reads weights,\nabove 100 % where a cache holds them; MB/token counts keys and values too.\n"
      "With --kernels up to 8 rows read weight after weight from memory. \"x portable\" is how many times "
      "faster than the\nportable kernels. Exact products (fp32) of more than 8 rows are oneDNN's: they are "
      "shown for the best instruction set,\nor for one that is asked for alone. The exit status is 1 when a "
      "product is wrong: integers give the same bytes\neverywhere, fp32 is within 1e-4 of the outputs' root "
      "mean square.");
  command->callback([arguments] { run_bench(*arguments); });
}

}  // namespace salient::cli
