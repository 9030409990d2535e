#include "checkpoint/reshard.h"

#include <algorithm>

#include "base/error.h"
#include "checkpoint/checkpoint.h"

namespace salient {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kRecords[] = {"config.json", "recipe.yaml", "quantize_config.json",
                                         "quant_config.json"};

/// What describes the weights, and therefore does not travel to other weights, but goes with a copy of them.
void copy_records(const fs::path& source, CheckpointWriter& writer) {
  for (const fs::path& path : list_directory(source)) {
    const std::string name = path.filename().string();
    const bool is_record = std::find(std::begin(kRecords), std::end(kRecords), name) != std::end(kRecords);
    if ((!is_record && path.extension() != ".py") || !file_exists(path)) continue;
    writer.add_file(name, read_text_file(path.string()));
  }
}

}  // namespace

void reshard_checkpoint(const std::string& source, const CheckpointWriter::Options& target,
                        const CancellationFlag* cancelled) {
  const Checkpoint checkpoint(source);
  if (target.if_exists == OutputDirectory::IfExists::replace) check_replaceable(target.target, {&source, 1});
  if (!target.target.empty() && contains_path(source, target.target)) {
    fail(ErrorKind::invalid_argument, "{}: the target lies inside the source {}", target.target, source);
  }
  const std::vector<std::string> names = checkpoint.stored_tensor_names();
  CheckpointWriter::Options options = target;
  options.expected_tensors = names.size();
  CheckpointWriter writer(options);
  for (const std::string& name : names) {
    throw_if_cancelled(cancelled);
    writer.add(name, checkpoint.tensor(name));
    checkpoint.release(name);
  }
  copy_records(checkpoint.directory(), writer);
  writer.copy_companions(checkpoint.directory());
  writer.finish();
}

}  // namespace salient
