#include <array>

#include "base/error.h"
#include "text/component.h"
#include "text/text_pattern.h"
#include "text/unicode.h"

namespace salient {
namespace {

class NormalizerSequence : public Normalizer {
 public:
  explicit NormalizerSequence(const JsonView& description) {
    for (const JsonView& part : description.at("normalizers").elements()) {
      if (auto normalizer = build_normalizer(part)) parts_.push_back(std::move(normalizer));
    }
  }
  void apply(Piece& piece) const override {
    for (const auto& part : parts_) part->apply(piece);
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> parts_;
};

template <NormalizationForm form>
class UnicodeNormalizer : public Normalizer {
 public:
  explicit UnicodeNormalizer(const JsonView&) {}
  void apply(Piece& piece) const override { piece.text = normalize_unicode(piece.text, form); }
};

class LowercaseNormalizer : public Normalizer {
 public:
  explicit LowercaseNormalizer(const JsonView&) {}
  void apply(Piece& piece) const override { piece.text = to_lower_case(piece.text); }
};

class PrependNormalizer : public Normalizer {
 public:
  explicit PrependNormalizer(const JsonView& description) : prefix_(description.at("prepend").as_string()) {}
  void apply(Piece& piece) const override {
    if (!piece.text.empty()) piece.text.insert(0, prefix_);
  }

 private:
  std::string prefix_;
};

class ReplaceNormalizer : public Normalizer {
 public:
  explicit ReplaceNormalizer(const JsonView& description)
      : pattern_(description.at("pattern")), content_(description.at("content").as_string()) {}

  void apply(Piece& piece) const override {
    TextPattern::Search search(pattern_);
    std::vector<TextRange> ranges;
    std::string replaced =
        replace_matches(search, piece.text, {.content = content_, .size_limit = piece.size_limit}, ranges);
    if (!ranges.empty() && ranges[0].is_match) {
      piece.starts_text = piece.starts_text && keeps_start(piece.text, ranges[0].end);
    }
    piece.text = std::move(replaced);
  }

 private:
  /// HF lets the replacement stand where the last replaced character stood.
  bool keeps_start(std::string_view text, size_t length) const {
    if (length == 0) return true;
    size_t first = 0;
    next_character(text, first);
    return !content_.empty() && first == length;
  }

  TextPattern pattern_;
  std::string content_;
};

class StripNormalizer : public Normalizer {
 public:
  explicit StripNormalizer(const JsonView& description)
      : left_(description.at("strip_left").as_bool()), right_(description.at("strip_right").as_bool()) {}

  void apply(Piece& piece) const override {
    std::string& text = piece.text;
    size_t begin = 0;
    size_t end = 0;  // behind the last character that is no space
    bool seen = false;
    for (size_t offset = 0; offset < text.size();) {
      const size_t start = offset;
      if (is_white_space(next_character(text, offset))) continue;
      if (!seen) begin = start;
      seen = true;
      end = offset;
    }
    if (!seen) begin = text.size();
    if (!left_) begin = 0;
    if (!right_) end = text.size();
    piece.starts_text = piece.starts_text && begin == 0;
    text = begin < end ? text.substr(begin, end - begin) : std::string();
  }

 private:
  bool left_;
  bool right_;
};

template <typename Component>
std::unique_ptr<Normalizer> make(const JsonView& description) {
  return std::make_unique<Component>(description);
}

struct NormalizerRow {
  std::string_view type;
  std::unique_ptr<Normalizer> (*build)(const JsonView& description);
};

constexpr NormalizerRow kNormalizers[] = {
    {"Sequence", make<NormalizerSequence>},
    {"NFC", make<UnicodeNormalizer<NormalizationForm::nfc>>},
    {"NFD", make<UnicodeNormalizer<NormalizationForm::nfd>>},
    {"NFKC", make<UnicodeNormalizer<NormalizationForm::nfkc>>},
    {"NFKD", make<UnicodeNormalizer<NormalizationForm::nfkd>>},
    {"Lowercase", make<LowercaseNormalizer>},
    {"Prepend", make<PrependNormalizer>},
    {"Replace", make<ReplaceNormalizer>},
    {"Strip", make<StripNormalizer>},
};

}  // namespace

std::unique_ptr<Normalizer> build_normalizer(const JsonView& description) {
  if (description.json().is_null()) return nullptr;
  const std::string& type = description.at("type").as_string();
  std::array<std::string_view, std::size(kNormalizers)> types;
  for (size_t i = 0; i < types.size(); ++i) {
    if (kNormalizers[i].type == type) return kNormalizers[i].build(description);
    types[i] = kNormalizers[i].type;
  }
  refuse_component(description, "normalizer", types);
}

}  // namespace salient
