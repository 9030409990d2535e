#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "base/error.h"
#include "text/unicode.h"

namespace salient {
namespace {

constexpr size_t kPatternLimit = 64 * 1024;
// A search may use this many steps and, since one match can be a long run of spaces, some for each byte.
constexpr size_t kStepLimit = 1'000'000;
constexpr size_t kStepsPerByte = 4;
constexpr size_t kJitStackLimit = 8 * 1024 * 1024;

std::string error_text(int code) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(code, buffer, sizeof buffer) < 0) return fmt::format("error {}", code);
  return reinterpret_cast<const char*>(buffer);
}

PCRE2_SPTR units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

struct CompileContextDeleter {
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
};

}  // namespace

struct Regex::Code {
  ~Code() { pcre2_code_free(code); }
  pcre2_code* code = nullptr;
};

Regex::Regex(std::string_view pattern) : pattern_(pattern), code_(std::make_unique<Code>()) {
  if (pattern.size() > kPatternLimit) {
    fail(ErrorKind::unsupported, "regular expression of {} bytes (at most {})", pattern.size(),
         kPatternLimit);
  }
  const std::string translated = translate_pattern(pattern);
  const std::unique_ptr<pcre2_compile_context, CompileContextDeleter> context(
      pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  // In Ruby syntax ^ and $ match at every line.
  constexpr uint32_t kOptions = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  int error = 0;
  size_t offset = 0;
  code_->code = pcre2_compile(units(translated), translated.size(), kOptions, &error, &offset, context.get());
  if (code_->code == nullptr) {
    fail(ErrorKind::bad_format, "regular expression \"{}\": {}", pattern_, error_text(error));
  }
  pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE);  // where there is no JIT, the interpreter serves
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

struct RegexSearch::Match {
  ~Match() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    if (stack != nullptr) pcre2_jit_stack_free(stack);
  }
  pcre2_match_data* data = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_jit_stack* stack = nullptr;
};

RegexSearch::RegexSearch(const Regex& regex, const CancellationFlag* cancelled)
    : regex_(regex), cancelled_(cancelled), match_(std::make_unique<Match>()) {
  match_->data = pcre2_match_data_create_from_pattern(regex.code_->code, nullptr);
  match_->context = pcre2_match_context_create(nullptr);
  if (match_->data == nullptr || match_->context == nullptr) {
    fail(ErrorKind::out_of_memory, "regular expression \"{}\": no memory to search", regex.pattern());
  }
}

RegexSearch::~RegexSearch() = default;

bool RegexSearch::find(std::string_view text, size_t from, TextRange& found) {
  const auto search = [&] {
    // The caller has checked the text once; checking again before each match would make long texts quadratic.
    return pcre2_match(regex_.code_->code, units(text), text.size(), from, PCRE2_NO_UTF_CHECK, match_->data,
                       match_->context);
  };
  int result = search();
  if (result == PCRE2_ERROR_JIT_STACKLIMIT && match_->stack == nullptr) {
    match_->stack = pcre2_jit_stack_create(32 * 1024, kJitStackLimit, nullptr);
    pcre2_jit_stack_assign(match_->context, nullptr, match_->stack);
    result = search();
  }
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0) {
    fail(ErrorKind::invalid_argument, "regular expression \"{}\" gave up on a text of {} bytes: {}",
         regex_.pattern(), text.size(), error_text(result));
  }
  const size_t* ends = pcre2_get_ovector_pointer(match_->data);
  found = {.begin = ends[0], .end = ends[1], .is_match = true};
  return true;
}

void RegexSearch::cut(std::string_view text, std::vector<TextRange>& ranges) {
  ranges.clear();
  if (text.empty()) return;
  pcre2_set_match_limit(match_->context, static_cast<uint32_t>(std::min(
                                             kStepLimit + kStepsPerByte * text.size(), size_t{UINT32_MAX})));
  size_t covered = 0;
  size_t from = 0;
  bool after_match = false;
  TextRange found;
  while (from <= text.size() && find(text, from, found)) {
    throw_if_cancelled(cancelled_);
    if (found.begin == found.end && after_match && found.end == covered) {
      // An empty match right behind the last one: look again from the next character.
      if (from == text.size()) break;
      next_character(text, from);
      continue;
    }
    if (covered != found.begin) ranges.push_back({.begin = covered, .end = found.begin});
    ranges.push_back(found);
    covered = from = found.end;
    after_match = true;
  }
  if (covered != text.size()) ranges.push_back({.begin = covered, .end = text.size()});
}

}  // namespace salient
