#include "runtime/json_constraint.h"

#include <algorithm>

#include "base/error.h"
#include "text/json_prefix.h"
#include "text/unicode.h"

namespace salient {
namespace {

bool is_characters(std::string_view bytes) {
  const auto needs_escape = [](char byte) {
    return byte == '"' || byte == '\\' || static_cast<uint8_t>(byte) < 0x20;
  };
  return std::ranges::none_of(bytes, needs_escape) && !first_invalid_byte(bytes);
}

/// With these alone every text of JSON that has begun can be brought to its end.
void require_single_characters(std::span<const std::string> tokens) {
  for (const char byte : std::string_view("{}[]\",:0aeflnrstu")) {
    const auto is_it = [&](const std::string& bytes) { return bytes.size() == 1 && bytes[0] == byte; };
    if (std::ranges::any_of(tokens, is_it)) continue;
    fail(ErrorKind::unsupported, "the vocabulary cannot write JSON: it has no token for {} alone", byte);
  }
}

/// Marks the tokens that `start` can take.
void mark_allowed(const TokenTrie& trie, const JsonPrefix& start, std::vector<JsonPrefix>& path,
                  std::vector<uint8_t>& allowed) {
  path.resize(trie.depth() + 1);
  path[0] = start;
  const auto nodes = trie.nodes();
  for (size_t i = 0; i < nodes.size();) {
    const TokenTrie::Node& node = nodes[i];
    JsonPrefix next = path[node.depth];
    if (!next.push(static_cast<char>(node.byte))) {
      i = node.end;
      continue;
    }
    path[node.depth + 1] = next;
    for (const int32_t token : trie.tokens(i)) allowed[static_cast<size_t>(token)] = 1;
    ++i;
  }
}

}  // namespace

JsonVocabulary::JsonVocabulary(const Tokenizer& tokenizer) : bytes_(tokenizer.token_bytes()) {
  std::vector<TokenTrie::Entry> all;
  std::vector<TokenTrie::Entry> others;
  characters_.resize(bytes_.size());
  for (size_t i = 0; i < bytes_.size(); ++i) {
    const auto token = static_cast<int32_t>(i);
    if (tokenizer.is_special(token)) bytes_[i].clear();
    if (bytes_[i].empty()) continue;
    all.push_back({bytes_[i], token});
    characters_[i] = is_characters(bytes_[i]) ? 1 : 0;
    if (characters_[i] == 0) others.push_back({bytes_[i], token});
  }
  require_single_characters(bytes_);
  all_ = TokenTrie(std::move(all));
  others_ = TokenTrie(std::move(others));
}

class JsonConstraint : public TokenConstraint {
 public:
  explicit JsonConstraint(std::shared_ptr<const JsonVocabulary> vocabulary)
      : vocabulary_(std::move(vocabulary)) {}

  std::span<const uint8_t> allowed() override {
    if (text_.in_string()) {
      allowed_ = vocabulary_->characters_;
      mark_allowed(vocabulary_->others_, text_, path_, allowed_);
    } else {
      allowed_.assign(vocabulary_->bytes_.size(), 0);
      mark_allowed(vocabulary_->all_, text_, path_, allowed_);
    }
    if (std::ranges::find(allowed_, 1) == allowed_.end())
      fail(ErrorKind::unsupported, "no token of the vocabulary goes on with the text of JSON");
    return allowed_;
  }

  void advance(int32_t token) override {
    for (const char byte : vocabulary_->bytes_[static_cast<size_t>(token)]) {
      if (!text_.push(byte)) fail(ErrorKind::internal, "token {} breaks the JSON text", token);
    }
  }

  bool complete() const override { return text_.complete(); }

  std::unique_ptr<TokenConstraint> copy() const override {
    auto result = std::make_unique<JsonConstraint>(vocabulary_);
    result->text_ = text_;
    return result;
  }

 private:
  std::shared_ptr<const JsonVocabulary> vocabulary_;
  JsonPrefix text_;
  std::vector<JsonPrefix> path_;
  std::vector<uint8_t> allowed_;
};

std::unique_ptr<TokenConstraint> make_json_constraint(std::shared_ptr<const JsonVocabulary> vocabulary) {
  return std::make_unique<JsonConstraint>(std::move(vocabulary));
}

}  // namespace salient
