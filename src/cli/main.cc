#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <new>

#include "base/parallel.h"
#include "cli/commands.h"
#include "salient/error.h"

namespace {

constexpr int kExitError = 1;
constexpr int kExitUsage = 2;
constexpr int kExitInterrupted = 130;  // as shells report SIGINT

int report(const salient::Error& error) {
  fmt::print(stderr, "salient: {}\n", error.what());
  if (error.kind() == salient::ErrorKind::cancelled) return kExitInterrupted;
  return error.kind() == salient::ErrorKind::invalid_argument ? kExitUsage : kExitError;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Salient quantizes language models to 4 bits with AWQ and runs them."};
  app.set_version_flag("--version", std::string("salient ") + SALIENT_VERSION);
  app.require_subcommand(1);
  app.failure_message(CLI::FailureMessage::simple);
  size_t threads = 0;
  app.add_option("--threads", threads, "Threads (default: the processors this process may use)")->check(CLI::Range(1, 1024));
  app.parse_complete_callback([&] {
    if (threads > 0) salient::set_thread_count(threads);
  });
  salient::cli::add_quantize_command(app);
  salient::cli::add_eval_command(app);
  salient::cli::add_generate_command(app);
  salient::cli::add_inspect_command(app);
  try {
    app.parse(argc, argv);
    return EXIT_SUCCESS;
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? EXIT_SUCCESS : kExitUsage;
  } catch (const salient::Error& error) {
    return report(error);
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "salient: out of memory\n");
  } catch (const std::exception& error) {
    fmt::print(stderr, "salient: internal error: {}\n", error.what());
  }
  return kExitError;
}
