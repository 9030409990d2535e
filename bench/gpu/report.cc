#include "gpu/report.h"

#include <cmath>
#include <filesystem>
#include <fstream>

#include "base/error.h"

namespace salient::gpu {

Json number(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "nan" : value > 0 ? "infinite" : "-infinite";
}

Report Report::read(const std::string& path) {
  Report report(path);
  report.root_ = read_json_file(path);
  return report;
}

Json& Report::section(const std::string& name) {
  Json& section = root_["sections"][name];
  if (section.is_null()) section = Json::object();
  return section;
}

void Report::save() const {
  if (path_.empty()) return;
  const std::string partial = path_ + ".partial";
  std::ofstream stream(partial, std::ios::binary | std::ios::trunc);
  stream << root_.dump(1) << "\n";
  stream.close();
  if (!stream) fail(ErrorKind::io, "{}: cannot write", path_);
  std::filesystem::rename(partial, path_);
}

int64_t failures(const Report& report) {
  int64_t count = 0;
  const auto sections = report.root().find("sections");
  if (sections == report.root().end()) return 0;
  for (const Json& section : *sections) {
    if (const auto found = section.find("failures"); found != section.end())
      count += static_cast<int64_t>(found->size());
    count += section.value("more_failures", int64_t{0});
  }
  return count;
}

}  // namespace salient::gpu
