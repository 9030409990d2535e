#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/cancellation.h"

namespace salient {

class JsonView;

/// Text to token ids and back, as a `tokenizer.json` of Hugging Face describes it. Immutable: threads may
/// share one; copies are cheap.
class Tokenizer {
 public:
  /// Errors: not_found, io, bad_format, unsupported (naming the component and its type).
  static Tokenizer from_file(const std::string& tokenizer_json);

  /// `tokenizer.json` and the tokens that `tokenizer_config.json`, if there is one, adds to it. Whether a
  /// text gets a begin token is for the post-processor in tokenizer.json alone to say, as in transformers 5.
  /// Errors: as from_file.
  static Tokenizer from_directory(const std::string& model_directory);

  /// The content of a tokenizer.json; `source` leads every message.
  static Tokenizer from_json(std::string_view tokenizer_json, std::string_view source);

  /// Whether the special tokens of the post-processor (begin, end) go around the text. Special tokens that
  /// stand in the text itself are always recognised.
  enum class SpecialTokens { add, omit };

  /// Errors: invalid_argument when `text` is no UTF-8, naming the byte; cancelled.
  std::vector<int32_t> encode(std::string_view text, SpecialTokens special,
                              const CancellationFlag* cancelled = nullptr) const;

  /// Whether special tokens are left out of the text.
  enum class SkipSpecial { yes, no };

  /// Valid UTF-8, whatever the ids; ids that are no token's count for nothing.
  std::string decode(std::span<const int32_t> ids, SkipSpecial skip) const;

  /// Number of tokens, added ones included.
  size_t vocabulary_size() const;
  std::optional<int32_t> token_id(std::string_view token) const;
  /// How the vocabulary spells a token. Errors: not_found.
  std::string_view token(int32_t id) const;
  bool is_special(int32_t id) const;
  /// By id: the bytes, perhaps part of a character, by which a token lengthens a text that has begun; none
  /// for an id that is no token's.
  std::vector<std::string> token_bytes() const;

  /// Whether two tokenizers spell the same tokens under the same ids.
  friend bool same_vocabulary(const Tokenizer& a, const Tokenizer& b);

 private:
  friend class StreamDecoder;
  struct Parts;

  static Tokenizer build(const JsonView& description, const JsonView* configuration);
  explicit Tokenizer(std::shared_ptr<const Parts> parts) : parts_(std::move(parts)) {}

  enum class Position { first, later };
  /// The bytes, perhaps part of a character, by which a token lengthens the text.
  std::string bytes_of(int32_t id, Position position) const;

  std::shared_ptr<const Parts> parts_;
};

/// Turns ids that come one by one into text, as soon as whole characters are there. The pieces together are
/// what Tokenizer::decode gives (except that HF turns a run of byte tokens with one wrong byte into U+FFFD
/// altogether, which nobody can do who has already shown the first of them).
class StreamDecoder {
 public:
  StreamDecoder(Tokenizer tokenizer, Tokenizer::SkipSpecial skip)
      : tokenizer_(std::move(tokenizer)), skip_(skip) {}

  /// The text that is complete now; often empty. To go on after a prompt, push its ids first and drop their
  /// text.
  std::string push(int32_t id);

  /// What is left: U+FFFD for bytes that never became a character. The next push begins a new text.
  std::string finish();

 private:
  Tokenizer tokenizer_;
  Tokenizer::SkipSpecial skip_;
  bool is_first_ = true;
  std::string pending_;  // the beginning of a character
};

}  // namespace salient
