#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/file.h"
#include "support/temporary_directory.h"

namespace salient {

struct ProgramResult {
  int status = 0;  ///< exit status, or 128 + signal
  std::string output;
  std::string errors;
};

/// The salient program, or another, with arguments, started as a shell would.
class Program {
 public:
  explicit Program(const std::vector<std::string>& arguments, const std::string& program = SALIENT_BINARY) {
    pid_ = ::fork();
    if (pid_ < 0) throw std::runtime_error("fork failed");
    if (pid_ != 0) return;
    redirect(scratch_.path() / "out", STDOUT_FILENO);
    redirect(scratch_.path() / "err", STDERR_FILENO);
    std::vector<char*> argv{const_cast<char*>(program.c_str())};
    for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    ::execv(program.c_str(), argv.data());
    ::_exit(127);
  }

  void send(int signal) const { ::kill(pid_, signal); }
  std::string errors_so_far() const { return read(scratch_.path() / "err"); }

  ProgramResult wait() const {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    return {.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
            .output = read(scratch_.path() / "out"),
            .errors = read(scratch_.path() / "err")};
  }

 private:
  static void redirect(const std::filesystem::path& path, int descriptor) {
    if (std::freopen(path.c_str(), "w", descriptor == STDOUT_FILENO ? stdout : stderr) == nullptr)
      ::_exit(126);
  }
  static std::string read(const std::filesystem::path& path) {
    return std::filesystem::exists(path) ? read_text_file(path.string()) : "";
  }

  TemporaryDirectory scratch_;
  pid_t pid_;
};

inline ProgramResult run_salient(const std::vector<std::string>& arguments) {
  return Program(arguments).wait();
}

}  // namespace salient
