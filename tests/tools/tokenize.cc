// For scripts/compare_tokenizers.py: reads a request on each line of the input, {"text": ...} or {"ids":
// [...]}, and answers with a line of JSON. The arguments are a tokenizer.json or a model directory, and "add"
// or "omit".

#include <filesystem>
#include <iostream>

#include "base/error.h"
#include "base/json.h"
#include "text/tokenizer.h"

namespace {

using salient::Json;
using salient::Tokenizer;

Json answer(const Tokenizer& tokenizer, const Json& request, Tokenizer::SpecialTokens special) {
  if (request.contains("text")) {
    const auto ids = tokenizer.encode(request.at("text").get<std::string>(), special);
    return {{"ids", ids},
            {"text", tokenizer.decode(ids, Tokenizer::SkipSpecial::yes)},
            {"full_text", tokenizer.decode(ids, Tokenizer::SkipSpecial::no)}};
  }
  const auto ids = request.at("ids").get<std::vector<int32_t>>();
  return {{"text", tokenizer.decode(ids, Tokenizer::SkipSpecial::yes)},
          {"full_text", tokenizer.decode(ids, Tokenizer::SkipSpecial::no)}};
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) {
    std::cerr << "usage: salient_tokenize TOKENIZER_JSON|DIRECTORY add|omit\n";
    return 2;
  }
  const std::string path = arguments[1];
  const auto special = arguments[2] == std::string_view("add") ? Tokenizer::SpecialTokens::add
                                                               : Tokenizer::SpecialTokens::omit;
  try {
    const Tokenizer tokenizer =
        std::filesystem::is_directory(path) ? Tokenizer::from_directory(path) : Tokenizer::from_file(path);
    for (std::string line; std::getline(std::cin, line);) {
      std::cout << answer(tokenizer, salient::parse_json(line, "request"), special).dump() << '\n'
                << std::flush;
    }
  } catch (const salient::Error& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
