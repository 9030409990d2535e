#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace salient {

/// Processors in the affinity mask of this process, at least 1.
size_t processors_by_affinity();

/// What a quota of processor time amounts to, rounded up; SIZE_MAX where there is none or the text is no
/// quota. `cpu_max` is the text of a cgroup v2 `cpu.max`, "200000 100000" or "max 100000".
size_t processors_of_quota(std::string_view cpu_max);
/// The texts of cgroup v1's `cpu.cfs_quota_us`, negative for none, and `cpu.cfs_period_us`.
size_t processors_of_quota(std::string_view quota, std::string_view period);

/// Directories below the mount point of the cgroups whose quotas bind a process: its own and every one above,
/// the innermost first, from the text of its /proc/PID/cgroup. `unified` are those of v2, `cpu` those of v1's
/// controller of processor time. Each list holds the root at least, since a container often sees its own
/// cgroup there and a path that leads nowhere.
struct CgroupDirectories {
  std::vector<std::string> unified;  ///< "/a/b", "/a", ""
  std::vector<std::string> cpu;
};
CgroupDirectories cgroup_directories(std::string_view membership);

/// The least of all quotas that bind a process whose /proc/PID/cgroup reads `membership`, with the cgroups
/// mounted at `mount`; SIZE_MAX without any.
size_t processors_by_cgroup(const std::string& mount, std::string_view membership);
/// The same for this process.
size_t processors_by_cgroup();

}  // namespace salient
