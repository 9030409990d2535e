#include "base/processors.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>

namespace salient {
namespace {

size_t processors_of_time(double quota, double period) {
  const double processors = quota / period;
  if (!(quota > 0) || !(period > 0) || !(processors < 1e6)) return SIZE_MAX;
  return std::max<size_t>(1, static_cast<size_t>(std::ceil(processors)));
}

/// The number that the text begins with, 0 without.
double leading_number(std::string_view text) { return std::strtod(std::string(text).c_str(), nullptr); }

/// Empty where there is no such file.
std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// "/a/b" -> "/a/b", "/a", "". Of a path that leads out of what can be seen only the root remains.
std::vector<std::string> with_those_above(std::string path) {
  if (path.empty() || path.front() != '/' || path.find("/..") != std::string::npos) path = "";
  std::vector<std::string> result;
  while (!path.empty()) {
    if (path.back() == '/') {
      path.pop_back();
      continue;
    }
    result.push_back(path);
    path.erase(path.rfind('/'));
  }
  result.emplace_back();
  return result;
}

/// Whether "cpu" is among names separated by commas.
bool names_cpu(std::string_view controllers) {
  while (!controllers.empty()) {
    const size_t end = std::min(controllers.find(','), controllers.size());
    if (controllers.substr(0, end) == "cpu") return true;
    controllers.remove_prefix(std::min(end + 1, controllers.size()));
  }
  return false;
}

}  // namespace

size_t processors_by_affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return std::max(1u, std::thread::hardware_concurrency());
  return static_cast<size_t>(std::max(1, CPU_COUNT(&set)));
}

size_t processors_of_quota(std::string_view cpu_max) {
  const size_t space = cpu_max.find(' ');
  if (space == std::string_view::npos) return SIZE_MAX;
  return processors_of_quota(cpu_max.substr(0, space), cpu_max.substr(space + 1));
}

size_t processors_of_quota(std::string_view quota, std::string_view period) {
  return processors_of_time(leading_number(quota), leading_number(period));
}

// A line is "hierarchy:controllers:path", with hierarchy 0 and no controllers for v2; the path may hold
// colons.
CgroupDirectories cgroup_directories(std::string_view membership) {
  CgroupDirectories result{{""}, {""}};
  std::istringstream lines{std::string(membership)};
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    auto directories = with_those_above(line.substr(second + 1));
    if (controllers.empty()) result.unified = std::move(directories);
    if (names_cpu(controllers)) result.cpu = std::move(directories);
  }
  return result;
}

size_t processors_by_cgroup(const std::string& mount, std::string_view membership) {
  const CgroupDirectories directories = cgroup_directories(membership);
  size_t least = SIZE_MAX;
  for (const std::string& directory : directories.unified)
    least = std::min(least, processors_of_quota(text_of(mount + directory + "/cpu.max")));
  for (const char* controller : {"/cpu", "/cpu,cpuacct"}) {
    for (const std::string& directory : directories.cpu) {
      const std::string path = mount + controller + directory;
      least = std::min(least, processors_of_quota(text_of(path + "/cpu.cfs_quota_us"),
                                                  text_of(path + "/cpu.cfs_period_us")));
    }
  }
  return least;
}

size_t processors_by_cgroup() { return processors_by_cgroup("/sys/fs/cgroup", text_of("/proc/self/cgroup")); }

}  // namespace salient
