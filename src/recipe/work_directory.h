#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/durable_file.h"
#include "recipe/layer_file.h"
#include "recipe/plan.h"

namespace salient {

/// Where a run keeps its finished layers (OneshotOptions::work): "job.json" says what the job is, each layer
/// has a file of its own, and a lock keeps other processes away. Files of other names are never touched.
class WorkDirectory {
 public:
  /// Takes the directory for this job; without `options.resume` it must be empty or absent. Errors:
  /// invalid_argument when it is not, when it holds another job (what changed is named) or no job at all, and
  /// when another process uses it; io.
  WorkDirectory(const OneshotOptions& options, const Job& job, const OneshotPlan& plan);

  /// Errors: io.
  void store(const LayerWeights& original, const QuantizedLayer& layer) const;
  /// A layer that an earlier run finished; nothing, with a warning if its file is damaged, when it must be
  /// worked on. Errors: invalid_argument when the model's layer is another than then.
  std::optional<QuantizedLayer> load(const LayerJob& job, const LayerWeights& original,
                                     std::vector<std::string>& warnings) const;
  /// Removes what this class has written, and the directory if nothing else is left in it.
  void remove();

 private:
  std::filesystem::path layer_path(int64_t layer) const;

  std::filesystem::path path_;
  const DecoderSpec& spec_;
  std::string job_;  // checksum of all that the job is
  std::unique_ptr<FileLock> lock_;
};

/// What stands in the way of working there: a directory that is not empty without `resume`, and one that lies
/// in the output or around it. Errors: invalid_argument, io.
void check_work_directory(const OneshotOptions& options);

}  // namespace salient
