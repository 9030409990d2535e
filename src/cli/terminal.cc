#include "cli/terminal.h"

#include <fmt/format.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace salient::cli {
namespace {

std::atomic<bool> interrupt_flag{false};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<time_t>::is_always_lock_free,
              "a signal handler may only touch lock-free atomics");

/// A burst of signals is one request: `timeout` sends two, and impatient users more. One that comes later
/// than this stops at once.
constexpr time_t kPatienceSeconds = 5;
std::atomic<time_t> first_signal{0};

extern "C" void raise_interrupt_flag(int signal) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  time_t first = 0;  // becomes the time of an earlier signal, which another thread may be handling right now
  if (first_signal.compare_exchange_strong(first, now.tv_sec)) {
    interrupt_flag.store(true);
  } else if (now.tv_sec - first > kPatienceSeconds) {
    ::signal(signal, SIG_DFL);
    raise(signal);
  }
}

}  // namespace

std::string format_bytes(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  return fmt::format("{:.2f} {}", value, kUnits[unit]);
}

std::string format_duration(double seconds) {
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 3600) return fmt::format("{}:{:02} min", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02} h", whole / 3600, whole / 60 % 60, whole % 60);
}

void print_table(const std::vector<std::pair<std::string, std::string>>& rows) {
  size_t width = 0;
  for (const auto& [name, value] : rows) width = std::max(width, name.size());
  for (const auto& [name, value] : rows) fmt::print("  {:<{}}  {}\n", name, width, value);
  std::fflush(stdout);
}

StatusLine::StatusLine() : is_terminal_(::isatty(STDERR_FILENO) == 1) {}
StatusLine::~StatusLine() { finish(); }

void StatusLine::update(const std::string& text) {
  if (is_terminal_) {
    fmt::print(stderr, "\r\x1b[K{}", text);
    open_ = true;
  } else {
    fmt::print(stderr, "{}\n", text);
  }
  std::fflush(stderr);
}

std::string StatusLine::bar(double fraction) const {
  if (!is_terminal_) return "";
  constexpr int kWidth = 24;
  const int filled = std::clamp(static_cast<int>(std::lround(fraction * kWidth)), 0, kWidth);
  return fmt::format("[{:#<{}}{: <{}}] ", "", filled, "", kWidth - filled);
}

void StatusLine::finish() {
  if (open_) fmt::print(stderr, "\n");
  open_ = false;
}

std::atomic<bool>& interrupted() {
  static const bool installed = [] {
    struct sigaction action {};
    action.sa_handler = raise_interrupt_flag;
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
    return true;
  }();
  static_cast<void>(installed);
  return interrupt_flag;
}

}  // namespace salient::cli
