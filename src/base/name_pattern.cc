#include "base/name_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/error.h"

namespace salient {
namespace {

constexpr std::string_view kRegexMark = "re:";
// Far above what a sensible pattern needs for a name, far below what would be noticed.
constexpr uint32_t kStepLimit = 1'000'000;

PCRE2_SPTR units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

std::string error_text(int code) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(code, buffer, sizeof buffer) < 0) return fmt::format("error {}", code);
  return reinterpret_cast<const char*>(buffer);
}

struct MatchDataDeleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct MatchContextDeleter {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

}  // namespace

NamePattern::NamePattern(std::string text) : text_(std::move(text)) {
  if (!text_.starts_with(kRegexMark)) return;
  const std::string_view pattern = std::string_view(text_).substr(kRegexMark.size());
  int error = 0;
  size_t offset = 0;
  pcre2_code* code =
      pcre2_compile(units(pattern), pattern.size(), PCRE2_ANCHORED | PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C,
                    &error, &offset, nullptr);
  if (code == nullptr) {
    fail(ErrorKind::invalid_argument, "\"{}\" is not a regular expression: {} at character {}", text_,
         error_text(error), offset + 1);
  }
  code_ = std::shared_ptr<void>(code, [](void* owned) { pcre2_code_free(static_cast<pcre2_code*>(owned)); });
}

bool NamePattern::matches(std::string_view name) const {
  if (!is_regex()) return name == text_;
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const std::unique_ptr<pcre2_match_data, MatchDataDeleter> data(
      pcre2_match_data_create_from_pattern(code, nullptr));
  const std::unique_ptr<pcre2_match_context, MatchContextDeleter> context(
      pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(context.get(), kStepLimit);
  pcre2_set_depth_limit(context.get(), kStepLimit / 100);
  const int found = pcre2_match(code, units(name), name.size(), 0, 0, data.get(), context.get());
  if (found >= 0) return true;
  if (found == PCRE2_ERROR_NOMATCH) return false;
  fail(ErrorKind::invalid_argument, "\"{}\" cannot be matched against \"{}\": {}", text_, name,
       error_text(found));
}

}  // namespace salient
