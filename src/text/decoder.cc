#include <array>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/component.h"
#include "text/metaspace.h"
#include "text/text_pattern.h"
#include "text/unicode.h"

namespace salient {
namespace {

constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";
constexpr size_t kTokenLimit = size_t{1} << 30;

/// Writes `text` into a vector of one string.
void become(std::vector<std::string>& tokens, std::string text) {
  tokens.clear();
  tokens.push_back(std::move(text));
}

class DecoderSequence : public TokenDecoder {
 public:
  explicit DecoderSequence(const JsonView& description) {
    for (const JsonView& part : description.at("decoders").elements()) {
      if (auto decoder = build_decoder(part)) parts_.push_back(std::move(decoder));
    }
  }
  void apply(std::vector<std::string>& tokens, InvalidBytes invalid) const override {
    for (const auto& part : parts_) part->apply(tokens, invalid);
  }

 private:
  std::vector<std::unique_ptr<TokenDecoder>> parts_;
};

class ByteLevelDecoder : public TokenDecoder {
 public:
  explicit ByteLevelDecoder(const JsonView&) {}

  void apply(std::vector<std::string>& tokens, InvalidBytes invalid) const override {
    std::string bytes;
    for (const std::string& token : tokens) append_bytes_of_token(bytes, token);
    if (invalid == InvalidBytes::keep) return become(tokens, std::move(bytes));
    std::string text;
    text.reserve(bytes.size());
    append_replacing_invalid(text, bytes);
    become(tokens, std::move(text));
  }
};

class ReplaceDecoder : public TokenDecoder {
 public:
  explicit ReplaceDecoder(const JsonView& description)
      : pattern_(description.at("pattern")), content_(description.at("content").as_string()) {}

  void apply(std::vector<std::string>& tokens, InvalidBytes) const override {
    TextPattern::Search search(pattern_);
    std::vector<TextRange> ranges;
    for (std::string& token : tokens) {
      // Only the bytes of an unfinished character can be invalid, and no pattern is about those.
      if (first_invalid_byte(token)) continue;
      token = replace_matches(search, token, {.content = content_, .size_limit = kTokenLimit}, ranges);
    }
  }

 private:
  TextPattern pattern_;
  std::string content_;
};

/// The byte that a token like `<0x0A>` stands for.
std::optional<char> byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  int value = 0;
  for (size_t i = 3; i < 5; ++i) {
    const char c = token[i];
    if (i == 3 && c == '+') continue;  // Rust's number parser takes a sign
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + digit;
  }
  return static_cast<char>(value);
}

class ByteFallbackDecoder : public TokenDecoder {
 public:
  explicit ByteFallbackDecoder(const JsonView&) {}

  void apply(std::vector<std::string>& tokens, InvalidBytes invalid) const override {
    std::vector<std::string> result;
    std::string run;
    for (std::string& token : tokens) {
      if (const auto byte = byte_of_token(token)) {
        run += *byte;
        continue;
      }
      end_run(run, result, invalid);
      result.push_back(std::move(token));
    }
    end_run(run, result, invalid);
    tokens = std::move(result);
  }

 private:
  /// HF's rule: one wrong byte spoils the whole run.
  static void end_run(std::string& run, std::vector<std::string>& result, InvalidBytes invalid) {
    if (run.empty()) return;
    if (invalid == InvalidBytes::keep || !first_invalid_byte(run)) {
      result.push_back(run);
    } else {
      for (size_t i = 0; i < run.size(); ++i) result.emplace_back(kReplacementCharacter);
    }
    run.clear();
  }
};

class FuseDecoder : public TokenDecoder {
 public:
  explicit FuseDecoder(const JsonView&) {}

  void apply(std::vector<std::string>& tokens, InvalidBytes) const override {
    std::string text;
    for (const std::string& token : tokens) text += token;
    become(tokens, std::move(text));
  }
};

class StripDecoder : public TokenDecoder {
 public:
  explicit StripDecoder(const JsonView& description)
      : content_(description.at("content").as_string()),
        start_(static_cast<size_t>(description.at("start").as_int(0))),
        stop_(static_cast<size_t>(description.at("stop").as_int(0))) {
    size_t offset = 0;
    if (!content_.empty()) next_character(content_, offset);
    if (offset == 0 || offset != content_.size()) description.at("content").reject("expected one character");
  }

  void apply(std::vector<std::string>& tokens, InvalidBytes) const override {
    for (std::string& token : tokens) {
      std::string_view text = token;
      for (size_t i = 0; i < start_ && text.starts_with(content_); ++i) text.remove_prefix(content_.size());
      for (size_t i = 0; i < stop_ && text.ends_with(content_); ++i) text.remove_suffix(content_.size());
      token = std::string(text);
    }
  }

 private:
  std::string content_;
  size_t start_;
  size_t stop_;
};

class MetaspaceDecoder : public TokenDecoder {
 public:
  explicit MetaspaceDecoder(const JsonView& description) : metaspace_(read_metaspace(description)) {}

  void apply(std::vector<std::string>& tokens, InvalidBytes) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      const bool drop = i == 0 && metaspace_.scheme != Metaspace::Scheme::never;
      tokens[i] = unmark(tokens[i], drop ? "" : " ");
    }
  }

 private:
  std::string unmark(std::string_view token, std::string_view space) const {
    std::string text;
    for (size_t offset = 0; offset < token.size();) {
      const size_t mark = std::min(token.find(metaspace_.replacement, offset), token.size());
      text += token.substr(offset, mark - offset);
      if (mark != token.size()) text += space;
      offset = std::min(mark + metaspace_.replacement.size(), token.size());
    }
    return text;
  }

  Metaspace metaspace_;
};

template <typename Component>
std::unique_ptr<TokenDecoder> make(const JsonView& description) {
  return std::make_unique<Component>(description);
}

struct DecoderRow {
  std::string_view type;
  std::unique_ptr<TokenDecoder> (*build)(const JsonView& description);
};

constexpr DecoderRow kDecoders[] = {
    {"Sequence", make<DecoderSequence>},   {"ByteLevel", make<ByteLevelDecoder>},
    {"Replace", make<ReplaceDecoder>},     {"ByteFallback", make<ByteFallbackDecoder>},
    {"Fuse", make<FuseDecoder>},           {"Strip", make<StripDecoder>},
    {"Metaspace", make<MetaspaceDecoder>},
};

}  // namespace

std::unique_ptr<TokenDecoder> build_decoder(const JsonView& description) {
  if (description.json().is_null()) return nullptr;
  const std::string& type = description.at("type").as_string();
  std::array<std::string_view, std::size(kDecoders)> types;
  for (size_t i = 0; i < types.size(); ++i) {
    if (kDecoders[i].type == type) return kDecoders[i].build(description);
    types[i] = kDecoders[i].type;
  }
  refuse_component(description, "decoder", types);
}

}  // namespace salient
