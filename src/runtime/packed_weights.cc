#include "runtime/packed_weights.h"

#include <algorithm>

#include "base/digest.h"
#include "base/durable_file.h"
#include "base/error.h"
#include "checkpoint/shard_file.h"

namespace salient {
namespace {

namespace fs = std::filesystem;

/// Of a tensor's entry in the header.
constexpr size_t kRoomPerTensor = 160;
constexpr const char* kHeadName = "head";

std::string name_of(int64_t layer, const LinearId& id) {
  return fmt::format("{}.{}.{}", layer, to_string(id.role), id.expert);
}

std::string layout_name(const std::string& name) { return name + ".layout"; }

template <typename Value>
void add_value(Digest& digest, const Value& value) {
  digest.add(std::as_bytes(std::span(&value, 1)));
}

void add_stamp(Digest& digest, const fs::path& file) {
  std::error_code code;
  const uintmax_t size = fs::file_size(file, code);
  const auto time = code ? fs::file_time_type() : fs::last_write_time(file, code);
  if (code) fail(ErrorKind::io, "{}: cannot read its size and time: {}", file.string(), code.message());
  digest.add_text(file.filename().string());
  add_value(digest, size);
  add_value(digest, time.time_since_epoch().count());
}

std::string checksum_of(const ModelWeights& weights, bool rounds) {
  const Checkpoint& checkpoint = weights.checkpoint();
  Digest digest;
  digest.add_text(fs::weakly_canonical(checkpoint.directory()).string());
  add_headers(digest, checkpoint);
  for (const std::string& name : checkpoint.tensor_names()) add_value(digest, checkpoint.entry(name).begin);
  std::vector<fs::path> files = list_directory(checkpoint.directory());
  std::ranges::sort(files);
  for (const fs::path& file : files) {
    if (file.extension() == ".safetensors") add_stamp(digest, file);
  }
  if (rounds) digest.add_text("head in 8 bits");
  return digest.hex();
}

/// In the model's own folder the file would pass for one of the checkpoint's.
void make_folder(const std::string& folder, const fs::path& model) {
  std::error_code code;
  fs::create_directories(folder, code);
  if (code) fail(ErrorKind::io, "{}: cannot create: {}", folder, code.message());
  if (fs::equivalent(folder, model, code)) {
    fail(ErrorKind::invalid_argument, "{}: packed weights cannot lie in the model's own folder", folder);
  }
}

/// Where one process writes the file: it holds the lock, so that what lies there is a killed one's.
class PartialFile {
 public:
  explicit PartialFile(const fs::path& final)
      : lock_path_(final.string() + ".lock"), path_(final.string() + ".partial"), lock_(lock_path_, "held") {
    remove_file(path_);
  }
  ~PartialFile() {
    remove_file(path_);
    remove_file(lock_path_);
  }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  const fs::path& path() const { return path_; }

 private:
  static void remove_file(const fs::path& path) {
    std::error_code ignored;
    fs::remove(path, ignored);
  }

  fs::path lock_path_;
  fs::path path_;
  FileLock lock_;
};

/// Nothing where another process is writing the file.
std::unique_ptr<PartialFile> claim(const fs::path& path) {
  try {
    return std::make_unique<PartialFile>(path);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::invalid_argument) throw;
    return nullptr;
  }
}

void append(ShardFile& file, Backend& backend, const std::string& name, const LinearWeight& weight) {
  const auto prepared = backend.prepare(weight);
  const auto packed = backend.packed_weight(*prepared);
  if (!packed) return;
  file.append(layout_name(name), packed->layout);
  file.append(name, packed->bytes);
}

void write_layer(ShardFile& file, Backend& backend, const ModelWeights& weights, int64_t layer) {
  for (const auto& [id, weight] : weights.layer(layer).linears) {
    if (weight.quantized) append(file, backend, name_of(layer, id), weight);
  }
  weights.release_layer(layer);
}

void write_file(const fs::path& path, Backend& backend, const ModelWeights& weights,
                const PackingOptions& options) {
  size_t tensors = 2;
  for (int64_t layer = 0; layer < weights.spec().layers; ++layer)
    tensors += 2 * weights.spec().linears(layer).size();
  ShardFile file(path, (tensors + 1) * kRoomPerTensor);
  for (int64_t layer = 0; layer < weights.spec().layers; ++layer) {
    throw_if_cancelled(options.cancelled);
    write_layer(file, backend, weights, layer);
  }
  throw_if_cancelled(options.cancelled);
  if (rounds_head(options.lm_head, backend, weights))
    append(file, backend, kHeadName, rounded_head(weights, options.lm_head));
  file.close();
}

struct Size {
  int64_t outputs;
  int64_t depth;
};

std::unique_ptr<PreparedLinear> prepare_from(const SafetensorsFile& file, Backend& backend,
                                             const std::string& name, const Size& size, const Tensor& bias) {
  auto linear = backend.prepare({file.tensor(layout_name(name)), file.tensor(name)}, bias);
  if (linear->out_features() != size.outputs || linear->in_features() != size.depth) {
    fail(ErrorKind::bad_format, "{} is [{}, {}], expected [{}, {}]", name, linear->out_features(),
         linear->in_features(), size.outputs, size.depth);
  }
  return linear;
}

Size size_of(const LinearSlot& slot) { return {slot.out_features, slot.in_features}; }
Size head_size(const DecoderSpec& spec) { return {spec.vocab_size, spec.hidden_size}; }

/// Nothing for a file that is absent, or of which a header or a layout is damaged. The weights themselves are
/// believed, as those of a checkpoint are: to look at them all would take the time that the file saves.
std::unique_ptr<SafetensorsFile> open_file(const fs::path& path, Backend& backend, const DecoderSpec& spec) {
  if (!file_exists(path)) return nullptr;
  try {
    auto file = std::make_unique<SafetensorsFile>(path.string());
    for (int64_t layer = 0; layer < spec.layers; ++layer) {
      for (const LinearSlot& slot : spec.linears(layer)) {
        const std::string name = name_of(layer, slot.id);
        if (file->contains(name)) prepare_from(*file, backend, name, size_of(slot), {});
      }
    }
    if (file->contains(kHeadName)) prepare_from(*file, backend, kHeadName, head_size(spec), {});
    return file;
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::io) throw;
    return nullptr;
  }
}

}  // namespace

PackedWeights::PackedWeights(Backend& backend, const ModelWeights& weights, const PackingOptions& options) {
  const bool rounds = rounds_head(options.lm_head, backend, weights);
  if (!weights.quantization() && !rounds) return;
  make_folder(options.folder, weights.checkpoint().directory());
  path_ = fs::path(options.folder) / (checksum_of(weights, rounds) + ".safetensors");
  const auto open = [&] { file_ = open_file(path_, backend, weights.spec()); };
  open();
  if (file_) return;
  const auto partial = claim(path_);
  if (!partial) return;
  open();  // whoever held the lock may just have written it
  if (file_) return;
  write_file(partial->path(), backend, weights, options);
  publish_file(partial->path(), path_);
  file_ = std::make_unique<SafetensorsFile>(path_.string());
}

bool PackedWeights::contains(int64_t layer, const LinearId& id) const {
  return file_ && file_->contains(name_of(layer, id));
}

std::unique_ptr<PreparedLinear> PackedWeights::prepare(Backend& backend, int64_t layer,
                                                       const LinearSlot& slot, const Tensor& bias) const {
  return prepare_from(*file_, backend, name_of(layer, slot.id), size_of(slot), bias);
}

bool PackedWeights::contains_head() const { return file_ && file_->contains(kHeadName); }

std::unique_ptr<PreparedLinear> PackedWeights::prepare_head(Backend& backend, const DecoderSpec& spec) const {
  return prepare_from(*file_, backend, kHeadName, head_size(spec), {});
}

}  // namespace salient
