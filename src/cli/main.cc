#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"
#include "cli/commands.h"
#include "cli/flag_errors.h"

namespace {

constexpr int kExitError = 1;
constexpr int kExitUsage = 2;
constexpr int kExitInterrupted = 130;  // as shells report SIGINT

int report(const salient::Error& error) {
  fmt::print(stderr, "salient: {}\n", error.what());
  if (error.kind() == salient::ErrorKind::cancelled) return kExitInterrupted;
  return error.kind() == salient::ErrorKind::invalid_argument ? kExitUsage : kExitError;
}

/// CLI11 reports a mistyped command only as a missing one.
void check_command_name(const CLI::App& app, int argc, char** argv) {
  std::vector<std::string> names;
  for (const auto* command : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--threads") ++i;  // its value
    if (word.starts_with("--threads")) continue;
    if (word.starts_with("-")) return;  // --help, or one that nobody knows
    if (std::find(names.begin(), names.end(), word) != names.end()) return;
    salient::fail(salient::ErrorKind::invalid_argument, "there is no command \"{}\"; commands: {}", word,
                  fmt::join(names, ", "));
  }
}

/// Of the program and of each command, so that the help of each shows it.
void add_threads_option(CLI::App& app, size_t& threads) {
  app.add_option("--threads", threads, "Threads (default: the processors this process may use)")
      ->check(CLI::Range(1, 1024));
  app.parse_complete_callback([&threads] {
    if (threads > 0) salient::set_thread_count(threads);
  });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Salient quantizes language models to 2 to 8 bits with AWQ and runs them."};
  app.set_version_flag("--version", std::string("salient ") + SALIENT_VERSION);
  app.require_subcommand(1);
  app.failure_message(CLI::FailureMessage::simple);
  app.footer(
      "Environment:\n"
      "  SALIENT_THREADS  threads, as --threads\n"
      "  SALIENT_ISA      portable, avx2, avx512 or neon: kernels to use instead of the best this processor "
      "has;\n"
      "                   no-vnni, no-amx, no-dotprod: without these extensions, as in avx512,no-amx\n"
      "Exit status: 0 done, 2 the request makes no sense (flags, recipe, or how they go together), 1 any\n"
      "             other error, 130 stopped by Ctrl-C or SIGTERM");
  size_t threads = 0;
  salient::cli::add_quantize_command(app);
  salient::cli::add_eval_command(app);
  salient::cli::add_generate_command(app);
  salient::cli::add_bench_command(app);
  salient::cli::add_inspect_command(app);
  salient::cli::add_devices_command(app);
  add_threads_option(app, threads);
  for (CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    add_threads_option(*command, threads);
  try {
    check_command_name(app, argc, argv);
    app.parse(argc, argv);
    if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return EXIT_SUCCESS;
    fmt::print(stderr, "salient: standard output: cannot write\n");
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help and --version
    const std::string unexpected = salient::cli::unexpected_argument(app);
    if (unexpected.empty()) {
      app.exit(error);
    } else {
      fmt::print(stderr, "salient: {}\n", unexpected);
    }
    return kExitUsage;
  } catch (const salient::Error& error) {
    return report(error);
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "salient: out of memory\n");
  } catch (const std::exception& error) {
    fmt::print(stderr, "salient: internal error: {}\n", error.what());
  }
  return kExitError;
}
