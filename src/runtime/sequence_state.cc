#include "runtime/sequence_state.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/sealed_file.h"

namespace salient {
namespace {

constexpr const char* kHead = "head";
constexpr const char* kTokens = "tokens";
constexpr const char* kScales = ".scales";
constexpr std::string_view kFormat = "salient sequence state";
constexpr int64_t kVersion = 2;
/// Of a layer at most: keys and values, with scales.
constexpr int64_t kTensorsPerLayer = 4;

std::string layer_prefix(int64_t layer) { return fmt::format("layer.{}.", layer); }

/// Evenly spread pieces, first and last bytes included.
void add_pieces(Digest& digest, std::span<const std::byte> bytes) {
  constexpr size_t kPieces = 16;
  constexpr size_t kPieceBytes = 256;
  if (bytes.size() <= kPieces * kPieceBytes) {
    digest.add(bytes);
    return;
  }
  for (size_t i = 0; i < kPieces; ++i)
    digest.add(bytes.subspan((bytes.size() - kPieceBytes) / (kPieces - 1) * i, kPieceBytes));
}

/// Errors: bad_format.
struct Head {
  KvType kv_type;
  int64_t cached;
  int64_t draws;
};

KvType kv_type_of(const JsonView& view) {
  try {
    return kv_type_by_name(view.as_string());
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::invalid_argument) view.reject(error.what());
    throw;
  }
}

Head read_head(const std::string& text, const StateOwner& owner) {
  const Json json = parse_json(text, kHead, DuplicateKeys::refuse);
  const JsonView view(json, kHead);
  if (view.at("format").as_string() != kFormat) view.at("format").reject("this is no state of a sequence");
  const int64_t version = view.at("version").as_int();
  if (version != kVersion)
    fail(ErrorKind::unsupported, "version {} of the format, of which {} is known", version, kVersion);
  const std::string& model = view.at("model").as_string();
  if (model != owner.digest) {
    fail(ErrorKind::invalid_argument,
         "the state is of another model or another config.json (digest {}, not {})", quoted_name(model),
         owner.digest);
  }
  return {.kv_type = kv_type_of(view.at("kv")),
          .cached = view.at("cached").as_int(0),
          .draws = view.at("draws").as_int(0)};
}

std::vector<int32_t> checked_tokens(const Tensor& tensor, const DecoderSpec& spec) {
  const auto values = tensor.values<int32_t>();
  const auto wrong =
      std::ranges::find_if(values, [&](int32_t token) { return token < 0 || token >= spec.vocab_size; });
  if (wrong != values.end())
    fail(ErrorKind::bad_format, "token {} is none of the vocabulary's {}", *wrong, spec.vocab_size);
  return {values.begin(), values.end()};
}

/// With the checksum.
int64_t expected_tensors(const Head& head, int64_t tokens, const DecoderSpec& spec) {
  int64_t count = 3;
  if (head.cached == 0) return count;
  for (int64_t layer = 0; layer < spec.layers; ++layer)
    count += head.kv_type == KvType::int8 && !spec.has_state(layer) ? 4 : 2;
  return count + (head.cached == tokens ? 1 : 0);
}

/// -1, which no tensor has, for what is no row.
int64_t row_length(const SafetensorsEntry& entry) { return entry.shape.size() == 1 ? entry.shape[0] : -1; }

KvTensors read_rows(const SealedFile& file, const std::string& name, const KvFormat& format, int64_t cached) {
  KvTensors rows;
  rows.elements = file.tensor(name, format.element_type(), {format.heads, cached, format.dim});
  if (format.type == KvType::int8)
    rows.scales = file.tensor(name + kScales, DType::f32, {format.heads, cached});
  return rows;
}

void write_rows(SealedFileWriter& writer, const std::string& name, const KvTensors& rows) {
  writer.add(name, rows.elements);
  if (rows.scales.defined()) writer.add(name + kScales, rows.scales);
}

void read_layer(const SealedFile& file, const DecoderSpec& spec, int64_t layer, const Head& head,
                KvCache& cache) {
  const std::string prefix = layer_prefix(layer);
  if (!spec.has_state(layer)) {
    const KvLayout layout(spec, head.kv_type);
    cache.restore(layer, read_rows(file, prefix + "keys", layout.keys, head.cached),
                  read_rows(file, prefix + "values", layout.values, head.cached));
    return;
  }
  const LinearAttention& linear = *spec.linear_attention;
  const Tensor tail = file.tensor(prefix + "tail", DType::f32, {linear.kernel - 1, linear.channels()});
  const Tensor matrices =
      file.tensor(prefix + "matrices", DType::f32, {linear.value_heads, linear.key_dim, linear.value_dim});
  cache.store(layer, RecurrentState{tail.to(DType::f32), matrices.to(DType::f32)});
}

/// Errors: those of read_sequence_state; any damage is bad_format.
SealedFile open_state(const std::filesystem::path& path) {
  if (!file_exists(path)) return SealedFile(path);  // which says what is wrong
  try {
    SealedFile file(path);
    file.entry(kHead);
    file.entry(kTokens);
    return file;
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::io) throw;
    fail(ErrorKind::bad_format, "no saved state, or a damaged one: {}", error.what());
  }
}

}  // namespace

std::string model_digest(const ModelWeights& weights) {
  const Checkpoint& checkpoint = weights.checkpoint();
  Digest digest;
  add_headers(digest, checkpoint);
  for (const std::string& name : checkpoint.tensor_names()) {
    if (!dtype_from_safetensors(checkpoint.entry(name).dtype))
      continue;  // of a type that Salient does not know, and so does not run
    const Tensor tensor = checkpoint.tensor(name);
    add_pieces(digest, {tensor.bytes(), tensor.byte_size()});
  }
  return digest.hex();
}

void write_sequence_state(const std::filesystem::path& path, const SequenceState& state,
                          const StateOwner& owner) {
  const int64_t cached = state.cache.length();
  SealedFileWriter writer(path, static_cast<size_t>(3 + kTensorsPerLayer * owner.spec.layers));
  const Json head{{"format", kFormat},     {"version", kVersion},
                  {"model", owner.digest}, {"kv", std::string(to_string(state.cache.type()))},
                  {"cached", cached},      {"draws", state.draws}};
  writer.add_text(kHead, head.dump());
  writer.add(kTokens, Tensor::of<int32_t>({std::ssize(state.tokens)}, state.tokens));
  writer.add("logits", state.logits);
  for (int64_t layer = 0; cached > 0 && layer < owner.spec.layers; ++layer) {
    const std::string prefix = layer_prefix(layer);
    if (owner.spec.has_state(layer)) {
      writer.add(prefix + "tail", state.cache.state(layer).tail);
      writer.add(prefix + "matrices", state.cache.state(layer).matrices);
    } else {
      write_rows(writer, prefix + "keys", state.cache.keys(layer));
      write_rows(writer, prefix + "values", state.cache.values(layer));
    }
  }
  writer.finish();
}

bool is_sequence_state(const std::filesystem::path& path) {
  if (!file_exists(path)) return false;
  try {
    open_state(path);
    return true;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::bad_format) throw;
    return false;
  }
}

void check_state_target(const std::filesystem::path& path) {
  const auto folder = std::filesystem::absolute(path).parent_path();
  if (!path_exists(folder)) {
    fail(ErrorKind::not_found, "{}: there is no folder {}", path.string(), folder.string());
  }
  if (path_exists(path) && !is_sequence_state(path)) {
    fail(ErrorKind::invalid_argument, "{}: it exists already and is no saved state; name another file",
         path.string());
  }
}

SequenceState read_sequence_state(const std::filesystem::path& path, const StateOwner& owner) {
  const SealedFile file = open_state(path);
  const std::string text = file.text(kHead);
  const Tensor tokens = file.tensor(kTokens, DType::i32, {row_length(file.entry(kTokens))});
  const auto [head, known] = with_context(path.string(), [&] {
    const Head read = read_head(text, owner);
    if (read.cached > tokens.dim(0))
      fail(ErrorKind::bad_format, "{} of {} tokens cannot be cached", read.cached, tokens.dim(0));
    const int64_t expected = expected_tensors(read, tokens.dim(0), owner.spec);
    if (std::ssize(file.names()) != expected)
      fail(ErrorKind::bad_format, "{} tensors where {} are expected", file.names().size(), expected);
    return std::pair(read, checked_tokens(tokens, owner.spec));
  });
  SequenceState state(KvCache(owner.spec, head.kv_type));
  state.tokens = known;
  if (head.cached > 0 && head.cached == tokens.dim(0))
    state.logits = file.tensor("logits", DType::f32, {owner.spec.vocab_size}).to(DType::f32);
  for (int64_t layer = 0; head.cached > 0 && layer < owner.spec.layers; ++layer)
    read_layer(file, owner.spec, layer, head, state.cache);
  state.cache.advance(head.cached);
  state.draws = head.draws;
  return state;
}

}  // namespace salient
