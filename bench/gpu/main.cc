// Says of a GPU whether the kernels compute what they ought to there, and how fast, as one JSON.

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>

#include "backend/cuda/driver.h"
#include "base/error.h"
#include "base/file.h"
#include "gpu/sections.h"
#include "gpu/supervisor.h"

namespace salient::gpu {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitNoDevice = 2;

struct Arguments {
  std::string out = "gpu.json";
  bool quick = false;
  double seconds = 540;
  std::vector<std::string> sections;
  Options options;
};

/// Asked in a process of its own: this one must not use the driver.
std::string why_no_device() {
  const std::string path =
      (std::filesystem::temp_directory_path() / fmt::format("salient-gpu-{}", ::getpid())).string();
  run_in_child(
      [&] {
        write_file_atomically(path, cuda::query_cuda().why_not);
        return 0;
      },
      60);
  const std::string why = file_exists(path) ? read_text_file(path) : "the driver does not answer";
  std::filesystem::remove(path);
  return why;
}

std::vector<SectionEntry> chosen_sections(const Arguments& arguments) {
  std::vector<SectionEntry> chosen;
  for (const SectionEntry& section : sections())
    if (arguments.sections.empty() ||
        std::ranges::find(arguments.sections, section.name) != arguments.sections.end())
      chosen.push_back(section);
  return chosen;
}

std::string now_text() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d", std::gmtime(&now));
  return text;
}

void make_section(const Arguments& arguments, const SectionEntry& section, Report& report, double seconds) {
  const auto device = cuda::open_cuda_device(arguments.options.device);
  SectionRun run(*device, arguments.options, report,
                 {.section = section.name, .seconds = seconds, .case_seconds = section.case_seconds});
  section.run(run);
}

int measure(const Arguments& arguments) {
  if (const std::string why = why_no_device(); !why.empty()) {
    fmt::print(stderr, "salient_gpu: {}\n", why);
    return kExitNoDevice;
  }
  Report report(arguments.out);
  report.root() = {
      {"format", 1}, {"salient", SALIENT_VERSION}, {"date", now_text()}, {"quick", arguments.quick}};
  report.save();
  const auto chosen = chosen_sections(arguments);
  const auto start = std::chrono::steady_clock::now();
  report = supervise({.path = arguments.out,
                      .sections = chosen,
                      .make = [&](const SectionEntry& section, Report& into,
                                  double seconds) { make_section(arguments, section, into, seconds); },
                      .seconds = arguments.seconds,
                      .say =
                          [](const std::string& line) {
                            fmt::print("{}\n", line);
                            std::fflush(stdout);
                          }});
  report.root()["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.save();
  const int64_t failed = failures(report);
  fmt::print("{}: {}\n", arguments.out, failed == 0 ? "nothing failed" : fmt::format("{} failed", failed));
  return failed == 0 ? 0 : kExitFailed;
}

void add_options(CLI::App& app, Arguments& arguments) {
  app.add_option("--out", arguments.out,
                 "Where the JSON goes (default gpu.json); it is written after each case");
  app.add_flag("--quick", arguments.quick, "Fewer shapes: some three minutes");
  app.add_option("--device", arguments.options.device,
                 "Which one, as `salient devices` numbers them (default 0)");
  app.add_option("--models", arguments.options.models,
                 "Checkpoints to run on both back ends (default: the demo's model, quantized before)");
  app.add_option("--demo", arguments.options.demo,
                 "Where the demo's model and texts lie (default examples/demo)");
  std::vector<std::string> names;
  for (const SectionEntry& section : sections()) names.emplace_back(section.name);
  app.add_option("--seconds", arguments.seconds,
                 "Of the whole run; what there is no time for is left out (default 540)")
      ->check(CLI::PositiveNumber);
  app.add_option("--section", arguments.sections, "Only these; several, separated by commas")
      ->delimiter(',')
      ->check(CLI::IsMember(names));
  app.footer("The exit status is 1 when a check failed and 2 without a device.");
}

}  // namespace
}  // namespace salient::gpu

int main(int argc, char** argv) {
  CLI::App app{"Checks and measures Salient's CUDA kernels on a GPU."};
  salient::gpu::Arguments arguments;
  salient::gpu::add_options(app, arguments);
  CLI11_PARSE(app, argc, argv);
  if (arguments.quick) arguments.options.size = salient::gpu::Size::quick;
  try {
    return salient::gpu::measure(arguments);
  } catch (const std::exception& error) {
    fmt::print(stderr, "salient_gpu: {}\n", error.what());
    return 1;
  }
}
