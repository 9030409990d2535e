#pragma once

#include <string>

#include "base/json.h"

namespace salient::gpu {

/// A number as JSON; what JSON has no number for as text.
Json number(double value);

/// What has been found out so far. It is on disk after each case, so that a run that is killed leaves what it
/// did.
class Report {
 public:
  /// Empty; with a path `save` writes it there.
  explicit Report(std::string path = {}) : path_(std::move(path)) {}
  /// What an earlier process left. Errors: those of read_json_file.
  static Report read(const std::string& path);

  Json& root() { return root_; }
  const Json& root() const { return root_; }
  /// Made when it is asked for first.
  Json& section(const std::string& name);
  /// Whole or not at all. A thousand times in a run: it does not wait for the disk. Errors: io.
  void save() const;

 private:
  std::string path_;
  Json root_ = Json::object();
};

/// Failed checks and cases of all sections.
int64_t failures(const Report& report);

}  // namespace salient::gpu
