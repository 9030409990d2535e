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

constexpr std::string_view kUnread[] = {".parquet", ".arrow", ".ndjson", ".csv",
                                        ".tsv",     ".gz",    ".zst",    ".zip"};
constexpr std::string_view kConversations[] = {"messages", "conversations", "conversation"};

void refuse_unread(const std::string& path) {
  if (path.ends_with(".parquet")) {
    fail(ErrorKind::unsupported,
         "{}: .parquet files are not read here; write a column as .jsonl (pandas.read_parquet(path)"
         ".to_json(\"data.jsonl\", orient=\"records\", lines=True)), or use Salient's Python package, which "
         "reads them through pyarrow",
         path);
  }
  for (const std::string_view ending : kUnread) {
    if (!path.ends_with(ending)) continue;
    fail(ErrorKind::unsupported, "{}: {} files are not read; expected plain text or .jsonl", path, ending);
  }
}

/// Calls `take` with the value of each line that is not blank.
template <typename Take>
void for_each_line(std::string_view content, const TextFile& file, const CancellationFlag* cancelled,
                   Take&& take) {
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
    take(JsonView(json, source));
  }
}

/// The text column of a row. Errors: bad_format when there is none, unsupported when there is a conversation
/// instead.
JsonView text_column(const JsonView& row, const std::string& column) {
  if (row.json().is_object() && !row.json().contains(column)) {
    for (const std::string_view conversation : kConversations) {
      if (!row.json().contains(conversation)) continue;
      fail(ErrorKind::unsupported,
           "{}: \"{}\" is a conversation, and chat templates follow in a later version; write conversations "
           "out as texts in a column \"{}\"",
           row.path(), conversation, column);
    }
  }
  return row.at(column);
}

std::vector<std::string> read_json_lines(std::string_view content, const TextFile& file,
                                         const CancellationFlag* cancelled) {
  std::vector<std::string> documents;
  for_each_line(content, file, cancelled, [&](const JsonView& row) {
    documents.push_back(text_column(row, file.text_column).as_string());
  });
  if (documents.empty()) fail(ErrorKind::bad_format, "{}: no documents", file.path);
  return documents;
}

/// Integers of [0, limit), quickly: only the path of a wrong one is written out.
std::vector<int32_t> read_integers(const JsonView& view, int64_t limit) {
  if (!view.json().is_array()) view.reject("expected a text or a list of token ids");
  std::vector<int32_t> values;
  values.reserve(view.json().size());
  for (const Json& value : view.json()) {
    const bool fits = value.is_number_unsigned() && value.get<uint64_t>() < static_cast<uint64_t>(limit);
    if (!fits) JsonView(value, fmt::format("{}[{}]", view.path(), values.size())).as_int(0, limit - 1);
    values.push_back(static_cast<int32_t>(value.get<int64_t>()));
  }
  return values;
}

std::vector<int32_t> without_padding(const std::vector<int32_t>& ids, const JsonView& mask) {
  const std::vector<int32_t> seen = read_integers(mask, 2);
  if (seen.size() != ids.size()) {
    mask.reject(fmt::format("{} values for {} ids", seen.size(), ids.size()));
  }
  std::vector<int32_t> kept;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (seen[i] != 0) kept.push_back(ids[i]);
  }
  return kept;
}

Document read_document(const JsonView& row, const TextFile& file, const DocumentOptions& options) {
  if (row.json().is_string()) return row.as_string();
  if (row.json().is_array()) return read_integers(row, options.vocabulary);
  const bool has_text = row.json().is_object() && row.json().contains(file.text_column);
  const auto input_ids = has_text ? std::optional(row.at(file.text_column)) : row.find("input_ids");
  const JsonView value = input_ids ? *input_ids : text_column(row, file.text_column);
  if (value.json().is_string()) return value.as_string();
  std::vector<int32_t> ids = read_integers(value, options.vocabulary);
  const auto mask = row.find("attention_mask");
  return mask ? without_padding(ids, *mask) : ids;
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

/// Documents on their way to sequences: the ids of those that are joined stand behind one another, and so do
/// those of the others, whose ends are kept.
class SequenceCutter {
 public:
  SequenceCutter(const Tokenizer* tokenizer, const SequenceOptions& options)
      : tokenizer_(tokenizer), options_(options) {}

  void add(const Document& document) {
    throw_if_cancelled(options_.cancelled);
    if (const auto* ids = std::get_if<std::vector<int32_t>>(&document)) {
      return add(*ids, options_.joined == JoinedDocuments::all);
    }
    if (tokenizer_ == nullptr) fail(ErrorKind::internal, "a text came without a tokenizer");
    const bool joined = options_.joined != JoinedDocuments::none;
    const auto special = joined ? Tokenizer::SpecialTokens::omit : Tokenizer::SpecialTokens::add;
    add(tokenizer_->encode(std::get<std::string>(document), special, options_.cancelled), joined);
  }

  /// `documents`: how many there were.
  TokenSequences take(size_t documents) const {
    const size_t windows = joined_.size() / options_.length;
    TokenSequences result{.available = windows + single_.size(), .left_out = left_out_};
    if (result.available == 0) refuse(documents);
    std::vector<size_t> order = window_order(result.available, options_.shuffle_seed);
    order.resize(std::min(result.available, options_.maximum));
    for (const size_t index : order) {
      if (index >= windows) {
        result.sequences.push_back(single_[index - windows]);
        continue;
      }
      const auto begin = joined_.begin() + static_cast<ptrdiff_t>(index * options_.length);
      result.sequences.emplace_back(begin, begin + static_cast<ptrdiff_t>(options_.length));
    }
    return result;
  }

 private:
  void add(std::span<const int32_t> ids, bool joined) {
    if (joined) {
      joined_.insert(joined_.end(), ids.begin(), ids.end());
    } else if (ids.size() < options_.shortest) {
      ++left_out_;
      left_out_tokens_ += ids.size();
    } else {
      const auto cut = ids.first(std::min(ids.size(), options_.length));
      single_.emplace_back(cut.begin(), cut.end());
    }
  }

  [[noreturn]] void refuse(size_t documents) const {
    if (left_out_ == documents) {
      fail(ErrorKind::invalid_argument, "text: none of the {} documents has {} tokens; all have {} together",
           documents, options_.shortest, left_out_tokens_);
    }
    fail(ErrorKind::invalid_argument,
         "text: {} tokens are too few for one window of {}; give more text, or a smaller max_seq_length",
         joined_.size(), options_.length);
  }

  const Tokenizer* tokenizer_;
  const SequenceOptions& options_;
  std::vector<int32_t> joined_;
  std::vector<std::vector<int32_t>> single_;
  size_t left_out_ = 0;
  size_t left_out_tokens_ = 0;
};

}  // namespace

std::vector<std::string> read_documents(const TextFile& file, const CancellationFlag* cancelled) {
  throw_if_cancelled(cancelled);
  refuse_unread(file.path);
  if (file.path.ends_with(".json")) {
    fail(ErrorKind::unsupported, "{}: .json files are not read; expected plain text or .jsonl", file.path);
  }
  std::string content = read_text_file(file.path);
  require_utf8(content, file.path);
  if (file.path.ends_with(".jsonl")) return read_json_lines(content, file, cancelled);
  std::vector<std::string> documents;
  documents.push_back(std::move(content));
  return documents;
}

std::vector<Document> read_mixed_documents(const TextFile& file, const DocumentOptions& options) {
  throw_if_cancelled(options.cancelled);
  refuse_unread(file.path);
  return parse_mixed_documents(read_text_file(file.path), file, options);
}

std::vector<Document> parse_mixed_documents(std::string content, const TextFile& file,
                                            const DocumentOptions& options) {
  require_utf8(content, file.path);
  std::vector<Document> documents;
  const auto take = [&](const JsonView& row) {
    throw_if_cancelled(options.cancelled);
    documents.push_back(read_document(row, file, options));
  };
  if (file.path.ends_with(".jsonl")) {
    for_each_line(content, file, options.cancelled, take);
  } else if (file.path.ends_with(".json")) {
    const Json json = parse_json(content, file.path);
    for (const JsonView& row : JsonView(json, file.path).elements()) take(row);
  } else {
    documents.emplace_back(std::move(content));
  }
  if (documents.empty()) fail(ErrorKind::bad_format, "{}: no documents", file.path);
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

TokenSequences make_sequences(const Tokenizer* tokenizer, std::span<const Document> documents,
                              const SequenceOptions& options) {
  if (options.length == 0 || options.maximum == 0) {
    fail(ErrorKind::invalid_argument, "text: {} sequences of {} tokens asked for; at least 1 is needed",
         options.maximum, options.length);
  }
  SequenceCutter cutter(tokenizer, options);
  for (const Document& document : documents) cutter.add(document);
  return cutter.take(documents.size());
}

std::vector<std::vector<int32_t>> read_token_windows(const Tokenizer& tokenizer, const TextFile& file,
                                                     const WindowOptions& options) {
  const auto documents = read_documents(file, options.cancelled);
  const auto ids = tokenize_documents(tokenizer, documents, {.cancelled = options.cancelled});
  return with_context(file.path, [&] { return token_windows(ids, options); });
}

}  // namespace salient
