// Any bytes as a .jsonl or .json file of calibration data: an Error, or sequences of ids of the vocabulary.

#include <cstdint>
#include <cstdlib>
#include <string>

#include "expected_error.h"
#include "text/dataset.h"

namespace {

constexpr int64_t kVocabulary = 4;

const salient::Tokenizer& tokenizer() {
  static const auto instance = salient::Tokenizer::from_json(
      R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3}, "merges": ["a b"]}})",
      "t.json");
  return instance;
}

void exercise(const std::string& content, const char* path) {
  using namespace salient;
  const auto documents = parse_mixed_documents(content, {.path = path}, {.vocabulary = kVocabulary});
  for (const auto joined : {JoinedDocuments::none, JoinedDocuments::texts, JoinedDocuments::all}) {
    const auto made =
        make_sequences(&tokenizer(), documents, {.length = 3, .joined = joined, .shuffle_seed = 1});
    for (const auto& sequence : made.sequences) {
      if (sequence.empty() || sequence.size() > 3) std::abort();
      for (const int32_t id : sequence) {
        if (id < 0 || id >= kVocabulary) std::abort();
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string content(reinterpret_cast<const char*>(data), size);
  for (const char* path : {"a.jsonl", "a.json", "a.txt"}) {
    try {
      exercise(content, path);
    } catch (const salient::Error& error) {
      salient::expect_outside_error(error);
    }
  }
  return 0;
}
