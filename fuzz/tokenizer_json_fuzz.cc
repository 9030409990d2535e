// Any bytes as a tokenizer.json: an Error or a tokenizer, and then ids that decode to UTF-8.

#include <cstdint>
#include <cstdlib>

#include "expected_error.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using salient::Tokenizer;

constexpr std::string_view kText = "<s> the  Riv\u00e9r's 42\n\n\u4e2d\U0001f600 a\u0301\u0316 ab\u2581.";

void exercise(const Tokenizer& tokenizer) {
  const auto ids = tokenizer.encode(kText, Tokenizer::SpecialTokens::add);
  const std::string text = tokenizer.decode(ids, Tokenizer::SkipSpecial::no);
  salient::StreamDecoder stream(tokenizer, Tokenizer::SkipSpecial::yes);
  std::string streamed;
  for (const int32_t id : ids) streamed += stream.push(id);
  streamed += stream.finish();
  if (salient::first_invalid_byte(text) || salient::first_invalid_byte(streamed)) std::abort();
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    exercise(Tokenizer::from_json({reinterpret_cast<const char*>(data), size}, "tokenizer.json"));
  } catch (const salient::Error& error) {
    salient::expect_outside_error(error);
  }
  return 0;
}
