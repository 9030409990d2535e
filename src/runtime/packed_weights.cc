#include "runtime/packed_weights.h"

#include <unistd.h>

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

std::string name_of(int64_t layer, const LinearId& id) {
  return fmt::format("{}.{}.{}", layer, to_string(id.role), id.expert);
}

std::string layout_name(const std::string& name) { return name + ".layout"; }

template <typename Value>
void add_value(Digest& digest, const Value& value) {
  digest.add(std::as_bytes(std::span(&value, 1)));
}

std::string checksum_of(const ModelWeights& weights) {
  const Checkpoint& checkpoint = weights.checkpoint();
  Digest digest;
  digest.add_text(fs::weakly_canonical(checkpoint.directory()).string()).add_text(checkpoint.config().dump());
  for (const std::string& name : checkpoint.tensor_names()) {
    const SafetensorsEntry& entry = checkpoint.entry(name);
    digest.add_text(name).add_text(entry.dtype).add_text(to_string(entry.shape));
    add_value(digest, entry.begin);
  }
  std::vector<fs::path> files = list_directory(checkpoint.directory());
  std::ranges::sort(files);
  for (const fs::path& file : files) {
    if (file.extension() != ".safetensors") continue;
    digest.add_text(file.filename().string());
    add_value(digest, fs::file_size(file));
    add_value(digest, fs::last_write_time(file).time_since_epoch().count());
  }
  return digest.hex();
}

void make_folder(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail(ErrorKind::io, "{}: cannot create: {}", folder, error.message());
}

/// Removes what a load that did not finish has written.
class TemporaryFile {
 public:
  explicit TemporaryFile(const fs::path& final) : path_(final) {
    path_ += fmt::format(".{}.partial", ::getpid());
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  ~TemporaryFile() {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

void write_layer(ShardFile& file, Backend& backend, const ModelWeights& weights, int64_t layer) {
  for (const auto& [id, weight] : weights.layer(layer).linears) {
    if (!weight.quantized) continue;
    const auto prepared = backend.prepare(weight);
    const auto packed = backend.packed_weight(*prepared);
    if (!packed) continue;
    file.append(layout_name(name_of(layer, id)), packed->layout);
    file.append(name_of(layer, id), packed->bytes);
  }
  weights.release_layer(layer);
}

void write_file(const fs::path& path, Backend& backend, const ModelWeights& weights,
                const CancellationFlag* cancelled) {
  size_t tensors = 0;
  for (int64_t layer = 0; layer < weights.spec().layers; ++layer)
    tensors += 2 * weights.spec().linears(layer).size();
  const TemporaryFile temporary(path);
  ShardFile file(temporary.path(), (tensors + 1) * kRoomPerTensor);
  for (int64_t layer = 0; layer < weights.spec().layers; ++layer) {
    throw_if_cancelled(cancelled);
    write_layer(file, backend, weights, layer);
  }
  file.close();
  publish_file(temporary.path(), path);
}

/// Nothing for a file that is absent or damaged.
std::unique_ptr<SafetensorsFile> open_file(const fs::path& path) {
  if (!file_exists(path)) return nullptr;
  try {
    return std::make_unique<SafetensorsFile>(path.string());
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::bad_format) throw;
    return nullptr;
  }
}

}  // namespace

PackedWeights::PackedWeights(const std::string& folder, Backend& backend, const ModelWeights& weights,
                             const CancellationFlag* cancelled) {
  if (!weights.quantization()) return;
  make_folder(folder);
  path_ = fs::path(folder) / (checksum_of(weights) + ".safetensors");
  file_ = open_file(path_);
  if (file_) return;
  write_file(path_, backend, weights, cancelled);
  file_ = std::make_unique<SafetensorsFile>(path_.string());
}

bool PackedWeights::contains(int64_t layer, const LinearId& id) const {
  return file_ && file_->contains(name_of(layer, id));
}

std::unique_ptr<PreparedLinear> PackedWeights::prepare(Backend& backend, int64_t layer,
                                                       const LinearSlot& slot, const Tensor& bias) const {
  const std::string name = name_of(layer, slot.id);
  return with_context(path_.string() + " (remove it to have it made anew)", [&] {
    auto linear = backend.prepare({file_->tensor(layout_name(name)), file_->tensor(name)}, bias);
    if (linear->out_features() != slot.out_features || linear->in_features() != slot.in_features) {
      fail(ErrorKind::bad_format, "{} is [{}, {}], expected [{}, {}]", name, linear->out_features(),
           linear->in_features(), slot.out_features, slot.in_features);
    }
    return linear;
  });
}

}  // namespace salient
