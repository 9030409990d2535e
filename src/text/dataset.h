#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
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
/// for .json, .parquet etc., cancelled.
std::vector<std::string> read_documents(const TextFile& file, const CancellationFlag* cancelled = nullptr);

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

/// A file cut into windows, documents joined without special tokens of the post-processor. Errors: those of
/// the three above.
std::vector<std::vector<int32_t>> read_token_windows(const Tokenizer& tokenizer, const TextFile& file,
                                                     const WindowOptions& options);

}  // namespace salient
