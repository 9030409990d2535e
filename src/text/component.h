#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/cancellation.h"
#include "base/json.h"
#include "text/vocabulary.h"

namespace salient {

// The five kinds of component of a tokenizer.json, in the order in which a text meets them. Each kind has a
// table of rows {type, how to build it} in its own file; a new component is a class and a row there.

/// A stretch of the text on its way to becoming tokens.
struct Piece {
  static constexpr int32_t kNoToken = -1;

  std::string text;
  /// An added token already found: no later stage touches it.
  int32_t token = kNoToken;
  /// True while the first character comes from the start of the whole text.
  bool starts_text = false;
  /// Normalizers refuse to make the text longer than this.
  size_t size_limit = 0;
};

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(Piece& piece) const = 0;
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  /// Cuts the pieces that are no tokens into smaller ones, none of them empty. Errors: cancelled.
  virtual void apply(std::vector<Piece>& pieces, const CancellationFlag* cancelled) const = 0;
};

class TokenModel {
 public:
  virtual ~TokenModel() = default;
  /// Appends the tokens of all pieces. Immutable: safe to call from several threads. Errors: cancelled.
  virtual void tokenize(const std::vector<Piece>& pieces, std::vector<int32_t>& ids,
                        const CancellationFlag* cancelled) const = 0;
};

class PostProcessor {
 public:
  virtual ~PostProcessor() = default;
  /// Puts the special tokens around those of a text.
  virtual std::vector<int32_t> apply(std::vector<int32_t> ids) const = 0;
};

/// What a decoder makes of bytes that are no UTF-8.
enum class InvalidBytes {
  replace,  ///< U+FFFD, as many as HF makes: the text is valid
  keep,     ///< the bytes: for one who joins them with those of later tokens
};

class TokenDecoder {
 public:
  virtual ~TokenDecoder() = default;
  /// From tokens to strings whose concatenation is the text.
  virtual void apply(std::vector<std::string>& tokens, InvalidBytes invalid) const = 0;
};

/// A component by its `type`, or null for a JSON null. Errors: bad_format, unsupported naming the component.
std::unique_ptr<Normalizer> build_normalizer(const JsonView& description);
std::unique_ptr<PreTokenizer> build_pretokenizer(const JsonView& description);
/// Fills `vocabulary`, which outlives the model; never null.
std::unique_ptr<TokenModel> build_model(const JsonView& description, Vocabulary& vocabulary);
std::unique_ptr<PostProcessor> build_post_processor(const JsonView& description);
std::unique_ptr<TokenDecoder> build_decoder(const JsonView& description);

/// For the tables: which of the `types` a component has. Errors: unsupported, naming the kind and the type.
size_t component_index(const JsonView& description, std::string_view kind,
                       std::span<const std::string_view> types);

}  // namespace salient
