#include "text/tokenizer.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "text/added_tokens.h"
#include "text/component.h"
#include "text/unicode.h"

namespace salient {
namespace {

// Positions inside a text are 32-bit numbers, and a byte may take two in the byte-level alphabet.
constexpr size_t kTextLimit = size_t{512} << 20;
// A normalizer may make a text this many times longer (a Unicode character decomposes to 18 at most), plus
// some.
constexpr size_t kGrowthLimit = 64;
constexpr size_t kGrowthAllowance = 64 * 1024;

void require_text(std::string_view text) {
  if (text.size() > kTextLimit) {
    fail(ErrorKind::invalid_argument, "tokenizer: a text of {} bytes (at most {})", text.size(), kTextLimit);
  }
  if (const auto offset = first_invalid_byte(text)) {
    fail(ErrorKind::invalid_argument, "tokenizer: the text is not UTF-8 at byte {}", *offset);
  }
}

/// A token of tokenizer_config.json: its text, or an object with the fields of an added token.
void add_named_token(const JsonView& token, AddedTokens& added) {
  if (token.json().is_string()) return added.add({.content = token.as_string(), .special = true});
  AddedToken read = read_added_token(token);
  read.special = true;
  added.add(std::move(read));
}

/// What transformers adds when it opens a directory: the tokens of `added_tokens_decoder` in the order of
/// their ids, then the named special tokens.
void add_configured_tokens(const JsonView& configuration, AddedTokens& added) {
  if (const auto decoder = configuration.find("added_tokens_decoder")) {
    std::vector<std::pair<int64_t, AddedToken>> tokens;
    for (const auto& [id, entry] : decoder->members()) {
      if (id.empty() || id.size() > 9 || id.find_first_not_of("0123456789") != std::string::npos) {
        decoder->reject(fmt::format("\"{}\" is no token id", id));
      }
      tokens.emplace_back(std::stoll(id), read_added_token(entry));
    }
    std::stable_sort(tokens.begin(), tokens.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    for (auto& [id, token] : tokens) added.add(std::move(token));
  }
  for (const auto* name :
       {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
    if (const auto token = configuration.find(name)) add_named_token(*token, added);
  }
  for (const auto* name : {"additional_special_tokens", "extra_special_tokens"}) {
    const auto tokens = configuration.find(name);
    if (!tokens || !tokens->json().is_array()) continue;
    for (const JsonView& token : tokens->elements()) add_named_token(token, added);
  }
}

/// A token whose text is the same wherever it stands, to be put before another one that is not the first.
std::optional<int32_t> find_anchor(const Vocabulary& vocabulary) {
  for (char letter = 'a'; letter <= 'z'; ++letter) {
    if (const auto id = vocabulary.id(std::string_view(&letter, 1))) return id;
  }
  return std::nullopt;
}

std::string join(const std::vector<std::string>& strings) {
  std::string text;
  for (const std::string& string : strings) text += string;
  return text;
}

}  // namespace

struct Tokenizer::Parts {
  Parts(const JsonView& description, const JsonView* configuration);

  std::vector<Piece> cut_added_tokens(std::string_view text) const;

  Vocabulary vocabulary;
  std::unique_ptr<TokenModel> model;
  AddedTokens added;
  std::unique_ptr<Normalizer> normalizer;
  std::unique_ptr<PreTokenizer> pretokenizer;
  std::unique_ptr<PostProcessor> post_processor;
  std::unique_ptr<TokenDecoder> decoder;
  std::optional<int32_t> anchor;
};

Tokenizer::Parts::Parts(const JsonView& description, const JsonView* configuration)
    : model(build_model(description.at("model"), vocabulary)), added(vocabulary) {
  // Truncation and padding, which a file may hold too, are for the caller to ask for.
  const auto part = [&](std::string_view key, auto build) {
    const auto found = description.find(key);
    return found ? build(*found) : nullptr;
  };
  normalizer = part("normalizer", build_normalizer);
  pretokenizer = part("pre_tokenizer", build_pretokenizer);
  post_processor = part("post_processor", build_post_processor);
  decoder = part("decoder", build_decoder);
  if (const auto tokens = description.find("added_tokens")) {
    for (const JsonView& entry : tokens->elements()) added.add(read_added_token(entry));
  }
  if (configuration != nullptr) {
    with_context(configuration->path(), [&] { add_configured_tokens(*configuration, added); });
  }
  added.prepare(normalizer.get());
  anchor = find_anchor(vocabulary);
  if (post_processor == nullptr) return;
  for (const int32_t id : post_processor->apply({})) {
    if (!vocabulary.token(id))
      description.at("post_processor").reject(fmt::format("id {} is no token's", id));
  }
}

std::vector<Piece> Tokenizer::Parts::cut_added_tokens(std::string_view text) const {
  const size_t size_limit = kGrowthLimit * text.size() + kGrowthAllowance;
  std::vector<Piece> raw;
  added.cut({.text = std::string(text), .starts_text = true}, AddedTokens::Stage::before_normalization, raw);
  std::vector<Piece> pieces;
  for (Piece& piece : raw) {
    if (piece.token != Piece::kNoToken) {
      pieces.push_back(std::move(piece));
      continue;
    }
    piece.size_limit = size_limit;
    if (normalizer) normalizer->apply(piece);
    added.cut(std::move(piece), AddedTokens::Stage::after_normalization, pieces);
  }
  std::erase_if(pieces,
                [](const Piece& piece) { return piece.token == Piece::kNoToken && piece.text.empty(); });
  return pieces;
}

Tokenizer Tokenizer::build(const JsonView& description, const JsonView* configuration) {
  return Tokenizer(std::make_shared<const Parts>(description, configuration));
}

Tokenizer Tokenizer::from_json(std::string_view tokenizer_json, std::string_view source) {
  const Json json = parse_json(tokenizer_json, source);
  return build(JsonView(json, std::string(source)), nullptr);
}

Tokenizer Tokenizer::from_file(const std::string& tokenizer_json) {
  return from_json(read_text_file(tokenizer_json), tokenizer_json);
}

Tokenizer Tokenizer::from_directory(const std::string& model_directory) {
  const std::filesystem::path directory(model_directory);
  const std::string path = (directory / "tokenizer.json").string();
  const std::string configuration_path = (directory / "tokenizer_config.json").string();
  if (!path_exists(path)) {
    const bool has_sentencepiece = path_exists(directory / "tokenizer.model");
    fail(ErrorKind::not_found, "{}: no tokenizer.json{}", model_directory,
         has_sentencepiece
             ? " (tokenizer.model alone is not supported: transformers can save it as tokenizer.json)"
             : "");
  }
  const Json json = read_json_file(path);
  if (!path_exists(configuration_path)) return build(JsonView(json, path), nullptr);
  const Json configuration_json = read_json_file(configuration_path);
  const JsonView configuration(configuration_json, configuration_path);
  return build(JsonView(json, path), &configuration);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, SpecialTokens special,
                                       const CancellationFlag* cancelled) const {
  throw_if_cancelled(cancelled);
  require_text(text);
  std::vector<Piece> pieces = parts_->cut_added_tokens(text);
  throw_if_cancelled(cancelled);
  if (parts_->pretokenizer) parts_->pretokenizer->apply(pieces, cancelled);
  std::vector<int32_t> ids;
  parts_->model->tokenize(pieces, ids, cancelled);
  const bool surround = special == SpecialTokens::add && parts_->post_processor;
  return surround ? parts_->post_processor->apply(std::move(ids)) : ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, SkipSpecial skip) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    const auto token = parts_->vocabulary.token(id);
    if (token && !(skip == SkipSpecial::yes && is_special(id))) tokens.emplace_back(*token);
  }
  if (parts_->decoder) {
    parts_->decoder->apply(tokens, InvalidBytes::replace);
    return join(tokens);
  }
  for (size_t i = 1; i < tokens.size(); ++i) tokens[i].insert(0, 1, ' ');
  return join(tokens);
}

std::string Tokenizer::bytes_of(int32_t id, Position position) const {
  const std::string token(this->token(id));
  const bool is_later = position == Position::later;
  if (!parts_->decoder) return is_later ? " " + token : token;
  const auto decode_all = [&](std::vector<std::string> tokens) {
    parts_->decoder->apply(tokens, InvalidBytes::keep);
    return join(tokens);
  };
  if (!is_later || !parts_->anchor) return decode_all({token});
  const std::string anchor(this->token(*parts_->anchor));
  const std::string before = decode_all({anchor});
  std::string both = decode_all({anchor, token});
  return both.starts_with(before) ? both.substr(before.size()) : decode_all({token});
}

size_t Tokenizer::vocabulary_size() const { return parts_->vocabulary.size(); }

std::optional<int32_t> Tokenizer::token_id(std::string_view token) const {
  return parts_->vocabulary.id(token);
}

std::string_view Tokenizer::token(int32_t id) const {
  if (const auto token = parts_->vocabulary.token(id)) return *token;
  fail(ErrorKind::not_found, "tokenizer: id {} is no token's", id);
}

bool Tokenizer::is_special(int32_t id) const { return parts_->added.is_special(id); }

std::vector<std::string> Tokenizer::token_bytes() const {
  std::vector<std::string> result(static_cast<size_t>(parts_->vocabulary.next_id()));
  for (size_t i = 0; i < result.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    if (parts_->vocabulary.token(id)) result[i] = bytes_of(id, Position::later);
  }
  return result;
}

bool same_vocabulary(const Tokenizer& a, const Tokenizer& b) {
  const Vocabulary& one = a.parts_->vocabulary;
  const Vocabulary& other = b.parts_->vocabulary;
  if (one.next_id() != other.next_id()) return false;
  for (int32_t id = 0; id < one.next_id(); ++id) {
    if (one.token(id) != other.token(id)) return false;
  }
  return true;
}

std::string StreamDecoder::push(int32_t id) {
  const bool is_token = tokenizer_.parts_->vocabulary.token(id).has_value();
  if (!is_token || (skip_ == Tokenizer::SkipSpecial::yes && tokenizer_.is_special(id))) return {};
  pending_ += tokenizer_.bytes_of(id, is_first_ ? Tokenizer::Position::first : Tokenizer::Position::later);
  is_first_ = false;
  size_t complete = 0;
  while (complete < pending_.size()) {
    const Utf8Step step = utf8_step(std::string_view(pending_).substr(complete));
    if (step.kind == Utf8Step::Kind::incomplete) break;
    complete += step.length;
  }
  std::string text;
  append_replacing_invalid(text, std::string_view(pending_).substr(0, complete));
  pending_.erase(0, complete);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  append_replacing_invalid(text, pending_);
  pending_.clear();
  is_first_ = true;
  return text;
}

}  // namespace salient
