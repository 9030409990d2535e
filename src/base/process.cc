#include "base/process.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <string>

namespace salient {

namespace {

constexpr uint64_t kKiB = 1024;

/// What /proc/self/status says under a name in kB; 0 where it says nothing.
uint64_t status_bytes(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name + ":")) return std::stoull(line.substr(name.size() + 1)) * kKiB;
  }
  return 0;
}

}  // namespace

/// getrusage counts what the process that started this one held when it did so.
uint64_t peak_resident_bytes() {
  if (const uint64_t peak = status_bytes("VmHWM"); peak > 0) return peak;
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) * kKiB;
}

uint64_t resident_bytes() {
  std::ifstream statistics("/proc/self/statm");
  uint64_t virtual_pages = 0;
  uint64_t pages = 0;
  statistics >> virtual_pages >> pages;
  return pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

void return_free_memory() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

}  // namespace salient
