#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/cancellation.h"
#include "text/tokenizer.h"

namespace salient {

struct TextFile {
  std::string path;
  /// Which member of a .jsonl line holds the text.
  std::string text_column = "text";
};

/// The documents of a file: one for each line of a .jsonl file, or all of a plain text (.txt or any other
/// name). Errors: not_found, io, bad_format (naming file and line, or the byte that is no UTF-8), unsupported
/// for .parquet etc. and for conversations, cancelled.
std::vector<std::string> read_documents(const TextFile& file, const CancellationFlag* cancelled = nullptr);

/// A text, or the token ids that somebody has made of one.
using Document = std::variant<std::string, std::vector<int32_t>>;

struct DocumentOptions {
  int64_t vocabulary = 0;  ///< ids are below it
  const CancellationFlag* cancelled = nullptr;
};

/// The documents of a file that may hold token ids: each line of a .jsonl file, or element of the list in a
/// .json file, is a text, a list of ids, or an object whose text column holds either, or which has input_ids
/// instead; ids of which an attention_mask beside them says 0 are padding and left out. Anything else is one
/// text. Errors: as read_documents, and bad_format naming file, line and place of an id outside the
/// vocabulary.
std::vector<Document> read_mixed_documents(const TextFile& file, const DocumentOptions& options);
/// The same of the content of a file.
std::vector<Document> parse_mixed_documents(std::string content, const TextFile& file,
                                            const DocumentOptions& options);

struct TokenizeOptions {
  Tokenizer::SpecialTokens special = Tokenizer::SpecialTokens::omit;
  const CancellationFlag* cancelled = nullptr;
};

/// The ids of the documents, one document after the other, each with the special tokens asked for. Errors:
/// those of Tokenizer::encode.
std::vector<int32_t> tokenize_documents(const Tokenizer& tokenizer, std::span<const std::string> documents,
                                        const TokenizeOptions& options);

struct WindowOptions {
  size_t window = 512;  ///< tokens in each
  size_t maximum = std::numeric_limits<size_t>::max();
  /// Windows in the order of the text, or drawn at random: the same seed gives the same windows on any
  /// machine.
  std::optional<uint64_t> shuffle_seed = std::nullopt;
  const CancellationFlag* cancelled = nullptr;  ///< polled while documents are read and tokenized
};

/// Neighbouring windows that do not overlap; a rest that fills none is left out. Errors: invalid_argument
/// when there is not enough for one window.
std::vector<std::vector<int32_t>> token_windows(std::span<const int32_t> ids, const WindowOptions& options);

/// Which documents are joined before they are cut into windows; each of the others is a sequence.
enum class JoinedDocuments { none, texts, all };

struct SequenceOptions {
  size_t length = 512;  ///< tokens of a window; at most so many of a document
  size_t maximum = std::numeric_limits<size_t>::max();
  JoinedDocuments joined = JoinedDocuments::texts;
  /// A document by itself with fewer tokens is left out.
  size_t shortest = 2;
  /// As in WindowOptions, of windows and documents.
  std::optional<uint64_t> shuffle_seed = std::nullopt;
  const CancellationFlag* cancelled = nullptr;
};

struct TokenSequences {
  std::vector<std::vector<int32_t>> sequences;
  size_t available = 0;  ///< before `maximum` cut them off
  size_t left_out = 0;   ///< documents that were too short
};

/// Sequences of tokens: windows of what is joined (texts without special tokens of the post-processor), and
/// behind them the other documents (texts with them), cut to `length`. `tokenizer` may be null where no
/// document is a text. Errors: invalid_argument when there are none; those of Tokenizer::encode.
TokenSequences make_sequences(const Tokenizer* tokenizer, std::span<const Document> documents,
                              const SequenceOptions& options);

/// A file cut into windows, documents joined without special tokens of the post-processor. Errors: those of
/// the three above.
std::vector<std::vector<int32_t>> read_token_windows(const Tokenizer& tokenizer, const TextFile& file,
                                                     const WindowOptions& options);

}  // namespace salient
