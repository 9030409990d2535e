#include "recipe/work_directory.h"

#include <algorithm>

#include "base/digest.h"
#include "base/error.h"
#include "base/file.h"
#include "base/name_pattern.h"

namespace salient {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kJobName = "job.json";
constexpr std::string_view kLockName = "job.lock";
constexpr std::string_view kLayerStart = "layer-";
constexpr std::string_view kLayerEnd = ".safetensors";

bool is_own(const fs::path& path) {
  const std::string name = path.filename().string();
  if (name == kLockName || name == kJobName || name.starts_with(std::string(kJobName) + ".partial-"))
    return true;
  static const NamePattern layer("re:layer-[0-9]{5}\\.safetensors(\\.partial)?$");
  return layer.matches(name);
}

std::string checksum_of(std::string_view text) { return Digest().add_text(text).hex(); }

/// Names, types and shapes of all tensors, and the values that the first layer reads; those of the layers are
/// looked at when their turn comes.
std::string model_checksum(const ModelWeights& weights) {
  Digest digest;
  add_headers(digest, weights.checkpoint());
  const auto add = [&](const Tensor& tensor) {
    if (tensor.defined()) digest.add({tensor.bytes(), tensor.byte_size()});
  };
  add(weights.embedding());
  add(weights.positions());
  add(weights.embedding_norm().weight);
  add(weights.embedding_norm().bias);
  weights.release_embedding();
  return digest.hex();
}

std::string tokenizer_checksum(const fs::path& directory) {
  const fs::path path = directory / "tokenizer.json";
  return file_exists(path) ? checksum_of(read_text_file(path.string())) : "none";
}

template <typename Value>
void add_sequences(const std::vector<std::vector<Value>>& sequences, Digest& digest) {
  for (const auto& sequence : sequences) {
    const uint64_t count = sequence.size();
    digest.add(std::as_bytes(std::span(&count, 1))).add(std::as_bytes(std::span(sequence)));
  }
}

std::string data_checksum(const CalibrationData& data) {
  Digest digest;
  add_sequences(data.sequences, digest);
  add_sequences(data.masks, digest);
  return digest.hex();
}

/// Of what is done to keep a cap all that changes results.
std::string describe_memory(const MemoryPlan& plan) {
  return fmt::format(
      "hidden states {}, batches of {}{}", plan.storage == HiddenStates::f32 ? "f32" : "bf16",
      plan.rows_per_batch,
      plan.gram_block > 0 ? fmt::format(", Gram matrices in blocks of {}", plan.gram_block) : "");
}

/// All that the bytes of the output depend on, by the words of error messages.
Json describe_job(const OneshotOptions& options, const Job& job, const OneshotPlan& plan) {
  // The number of tokens stands in the recipe's record too; that they changed is for the data set to say.
  OneshotOptions uncapped = options;
  uncapped.max_memory = 0;  // what the cap came to stands under "memory plan"
  const std::string recipe = recipe_to_yaml(uncapped, job.weights.spec(), 0);
  return {{"version of Salient", SALIENT_VERSION},
          {"arithmetic", job.backend->arithmetic()},
          {"recipe", checksum_of(recipe)},
          {"model", model_checksum(job.weights)},
          {"tokenizer", tokenizer_checksum(options.model)},
          {"calibration data", data_checksum(job.data)},
          {"memory plan", describe_memory(plan.memory)}};
}

/// Whether a reader learns something from the value itself.
bool is_readable(const std::string& part) {
  return part == "version of Salient" || part == "arithmetic" || part == "memory plan";
}

void require_same_job(const fs::path& directory, const Json& now) {
  const std::string source = (directory / kJobName).string();
  const Json then = read_json_file(source);
  const JsonView view(then, source);
  for (const auto& [part, value] : now.items()) {
    const std::string& before = view.at(part).as_string();
    const auto& after = value.get_ref<const std::string&>();
    if (before == after) continue;
    const std::string values = is_readable(part) ? fmt::format(" (\"{}\", now \"{}\")", before, after) : "";
    fail(ErrorKind::invalid_argument, "{}: the work directory holds another job: the {} changed{}",
         directory.string(), part, values);
  }
}

bool holds_foreign_files(const fs::path& directory) {
  const std::vector<fs::path> files = list_directory(directory);
  return !std::all_of(files.begin(), files.end(), is_own);
}

}  // namespace

void check_work_directory(const OneshotOptions& options) {
  if (options.work.empty()) return;
  const fs::path work = options.work;
  if (contains_path(options.output, work) || contains_path(work, options.output)) {
    fail(ErrorKind::invalid_argument, "{}: the work directory must lie apart from the output {}",
         options.work, options.output);
  }
  if (!path_exists(work)) return;
  if (!fs::is_directory(work)) fail(ErrorKind::invalid_argument, "{}: not a directory", options.work);
  if (!options.resume && !list_directory(work).empty()) {
    fail(ErrorKind::invalid_argument,
         "{}: the work directory is not empty: resume the job in it, or name another directory",
         options.work);
  }
}

WorkDirectory::WorkDirectory(const OneshotOptions& options, const Job& job, const OneshotPlan& plan)
    : path_(options.work), spec_(job.weights.spec()) {
  std::error_code code;
  fs::create_directories(path_, code);
  if (code) fail(ErrorKind::io, "{}: cannot create: {}", options.work, code.message());
  // A run that was killed before it had written what its job is has left nothing to go on with.
  if (!file_exists(path_ / kJobName) && holds_foreign_files(path_)) {
    fail(ErrorKind::invalid_argument, "{}: there is no job of Salient's in this directory, but other files",
         options.work);
  }
  lock_ = std::make_unique<FileLock>(path_ / kLockName,
                                     fmt::format("{}: another process works here", options.work));
  const Json now = describe_job(options, job, plan);
  job_ = checksum_of(now.dump());
  if (file_exists(path_ / kJobName)) {
    require_same_job(path_, now);
  } else {
    write_file_atomically((path_ / kJobName).string(), now.dump(2) + "\n");
  }
}

fs::path WorkDirectory::layer_path(int64_t layer) const {
  return path_ / fmt::format("{}{:05}{}", kLayerStart, layer, kLayerEnd);
}

void WorkDirectory::store(const LayerWeights& original, const QuantizedLayer& layer) const {
  write_layer_file(layer_path(layer.report.layer),
                   {.job = job_, .source = layer_checksum(original), .layer = layer}, spec_);
}

std::optional<QuantizedLayer> WorkDirectory::load(const LayerJob& job, const LayerWeights& original,
                                                  std::vector<std::string>& warnings) const {
  const fs::path path = layer_path(job.layer);
  if (!file_exists(path)) return std::nullopt;
  try {
    LayerFile file = read_layer_file(path, job, original);
    if (file.job != job_) fail(ErrorKind::bad_format, "{}: it belongs to another job", path.string());
    if (file.source != layer_checksum(original)) {
      fail(ErrorKind::invalid_argument,
           "{}: the work directory holds another job: layer {} of the model changed", path_.string(),
           job.layer);
    }
    return std::move(file.layer);
  } catch (const Error& error) {
    const bool damaged = error.kind() == ErrorKind::bad_format || error.kind() == ErrorKind::not_found ||
                         error.kind() == ErrorKind::unsupported;
    if (!damaged) throw;
    warnings.push_back(
        fmt::format("{}; layer {} and those behind it were worked on again", error.what(), job.layer));
    return std::nullopt;
  }
}

void WorkDirectory::remove() {
  std::error_code kept;
  for (const fs::path& file : list_directory(path_)) {
    if (is_own(file) && file.filename() != kLockName) fs::remove(file, kept);
  }
  fs::remove(path_ / kLockName, kept);
  lock_.reset();
  fs::remove(path_, kept);  // an empty one only
}

}  // namespace salient
