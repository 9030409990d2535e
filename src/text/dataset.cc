#include "text/dataset.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "text/unicode.h"

namespace salient {
namespace {

void require_utf8(std::string_view content, const std::string& path) {
  if (const auto offset = first_invalid_byte(content)) {
    fail(ErrorKind::bad_format, "{}: not UTF-8: byte {} is 0x{:02X}", path, *offset,
         static_cast<unsigned char>(content[*offset]));
  }
}

std::vector<std::string> read_json_lines(std::string_view content, const TextFile& file,
                                         const CancellationFlag* cancelled) {
  std::vector<std::string> documents;
  size_t line_number = 0;
  for (size_t begin = 0; begin < content.size();) {
    const size_t end = std::min(content.find('\n', begin), content.size());
    const std::string_view line = content.substr(begin, end - begin);
    begin = end + 1;
    ++line_number;
    throw_if_cancelled(cancelled);
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string source = fmt::format("{}: line {}", file.path, line_number);
    const Json json = parse_json(line, source);
    documents.push_back(JsonView(json, source).at(file.text_column).as_string());
  }
  if (documents.empty()) fail(ErrorKind::bad_format, "{}: no documents", file.path);
  return documents;
}

/// Fisher and Yates's shuffle. The remainder's bias is below count / 2^64.
std::vector<size_t> window_order(size_t count, std::optional<uint64_t> seed) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  if (!seed) return order;
  uint64_t state = *seed;
  for (size_t i = count; i > 1; --i) std::swap(order[i - 1], order[split_mix(state += kSplitMixStep) % i]);
  return order;
}

}  // namespace

std::vector<std::string> read_documents(const TextFile& file, const CancellationFlag* cancelled) {
  throw_if_cancelled(cancelled);
  for (const auto* structured : {".json", ".parquet", ".arrow", ".csv", ".tsv", ".gz", ".zst", ".zip"}) {
    if (!file.path.ends_with(structured)) continue;
    fail(ErrorKind::unsupported, "{}: {} files are not read; expected plain text or .jsonl", file.path,
         structured);
  }
  std::string content = read_text_file(file.path);
  require_utf8(content, file.path);
  if (file.path.ends_with(".jsonl")) return read_json_lines(content, file, cancelled);
  std::vector<std::string> documents;
  documents.push_back(std::move(content));
  return documents;
}

std::vector<int32_t> tokenize_documents(const Tokenizer& tokenizer, std::span<const std::string> documents,
                                        const TokenizeOptions& options) {
  std::vector<int32_t> ids;
  for (const std::string& document : documents) {
    const auto more = tokenizer.encode(document, options.special, options.cancelled);
    ids.insert(ids.end(), more.begin(), more.end());
  }
  return ids;
}

std::vector<std::vector<int32_t>> token_windows(std::span<const int32_t> ids, const WindowOptions& options) {
  const auto tokens = static_cast<int64_t>(options.window);  // below 0: a caller's negative number
  if (tokens < 1) {
    fail(ErrorKind::invalid_argument, "text: windows of {} tokens asked for; at least 1 is needed", tokens);
  }
  if (options.maximum == 0)
    fail(ErrorKind::invalid_argument, "text: 0 windows asked for; at least 1 is needed");
  const size_t available = ids.size() / options.window;
  if (available == 0) {
    fail(ErrorKind::invalid_argument, "text: {} tokens are too few for one window of {}", ids.size(),
         options.window);
  }
  std::vector<size_t> order = window_order(available, options.shuffle_seed);
  order.resize(std::min(available, options.maximum));
  std::vector<std::vector<int32_t>> windows;
  windows.reserve(order.size());
  for (const size_t index : order) {
    const auto window = ids.subspan(index * options.window, options.window);
    windows.emplace_back(window.begin(), window.end());
  }
  return windows;
}

std::vector<std::vector<int32_t>> read_token_windows(const Tokenizer& tokenizer, const TextFile& file,
                                                     const WindowOptions& options) {
  const auto documents = read_documents(file, options.cancelled);
  const auto ids = tokenize_documents(tokenizer, documents, {.cancelled = options.cancelled});
  return with_context(file.path, [&] { return token_windows(ids, options); });
}

}  // namespace salient
