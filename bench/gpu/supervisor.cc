#include "gpu/supervisor.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

#include "base/error.h"

namespace salient::gpu {
namespace {

using Clock = std::chrono::steady_clock;

/// Processes that a section may take; each but the last has found a case that breaks the device.
constexpr int kMostTries = 12;
/// What a process takes beside its section: loading kernels, making weights anew.
constexpr double kSecondsBeside = 20;

constexpr int kDeviceLost = 3;
constexpr int kFailed = 4;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// What stands in the report of a section whose process is gone.
void note_end(Report& report, const std::string& name, const ChildEnd& end) {
  Json& section = report.section(name);
  const std::string running = section.value("running", std::string());
  section.erase("running");
  section["failures"].push_back(
      {{"check", "process"}, {"case", running.empty() ? "between cases" : running}, {"text", end.text()}});
  if (!running.empty()) section["cases"] = section.value("cases", int64_t{0}) + 1;
}

void leave_out(const Supervision& how, const SectionEntry& section) {
  Report report = Report::read(how.path);
  report.section(section.name) = {{"cases", 0}, {"failures", Json::array()}, {"left_out", {"all of it"}}};
  report.save();
}

/// Runs a section in this process.
int make_section(const Supervision& how, const SectionEntry& section, double seconds) {
  Report report = Report::read(how.path);
  try {
    how.make(section, report, seconds);
  } catch (const DeviceLost&) {
    return kDeviceLost;
  } catch (const std::exception& error) {
    report.section(section.name)["failures"].push_back(
        {{"check", "section"}, {"case", section.name}, {"text", error.what()}});
    report.save();
    return kFailed;
  }
  report.section(section.name)["complete"] = true;
  report.save();
  return 0;
}

void supervise_section(const Supervision& how, const SectionEntry& section, double seconds) {
  const auto start = Clock::now();
  for (int tries = 1; tries <= kMostTries; ++tries) {
    const double left = seconds - seconds_since(start);
    if (tries > 1 && left <= 0) break;
    const ChildEnd end =
        run_in_child([&] { return make_section(how, section, left); }, left + kSecondsBeside);
    Report report = Report::read(how.path);
    const bool exited = end.kind == ChildEnd::Kind::exited;
    const bool over = exited && end.number != kDeviceLost;
    if (!exited) note_end(report, section.name, end);
    Json& json = report.section(section.name);
    json["seconds"] = seconds_since(start);
    json["processes"] = tries;
    report.save();
    if (over) return;
    how.say(fmt::format("  {} goes on in another process: {}", section.name, end.text()));
  }
}

}  // namespace

std::string ChildEnd::text() const {
  switch (kind) {
    case Kind::exited:
      return number == kDeviceLost ? "the device was lost" : fmt::format("status {}", number);
    case Kind::killed:
      if (number == SIGALRM) return "the case did not end in time";
      return fmt::format("killed by signal {}", number);
    case Kind::out_of_time:
      return "the process did not end in time";
  }
  return {};
}

ChildEnd run_in_child(const std::function<int()>& body, double seconds) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) fail(ErrorKind::io, "no process can be started");
  if (child == 0) {
    int status = kFailed;
    try {
      status = body();
    } catch (...) {  // what it has to say is in the report
    }
    std::fflush(nullptr);
    ::_exit(status);
  }
  const auto start = Clock::now();
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    if (seconds_since(start) > seconds) {
      ::kill(child, SIGKILL);
      ::waitpid(child, &status, 0);
      return {ChildEnd::Kind::out_of_time, SIGKILL};
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  if (WIFSIGNALED(status)) return {ChildEnd::Kind::killed, WTERMSIG(status)};
  return {ChildEnd::Kind::exited, WEXITSTATUS(status)};
}

Report supervise(const Supervision& how) {
  const auto begin = Clock::now();
  for (const SectionEntry& section : how.sections) {
    const double left = how.seconds - seconds_since(begin);
    if (left <= 0) {
      leave_out(how, section);
      continue;
    }
    const auto start = Clock::now();
    const int64_t before = failures(Report::read(how.path));
    supervise_section(how, section, std::min(section.seconds, left));
    const Report report = Report::read(how.path);
    how.say(fmt::format("{:<18} {:6.1f} s, {} failed", section.name, seconds_since(start),
                        failures(report) - before));
  }
  return Report::read(how.path);
}

}  // namespace salient::gpu
