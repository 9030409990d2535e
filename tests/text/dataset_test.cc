#include "text/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
#include <thread>

#include <fmt/ranges.h>

#include "base/error.h"
#include "base/file.h"
#include "support/temporary_directory.h"

namespace salient {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class DatasetTest : public testing::Test {
 protected:
  std::string write(const std::string& name, std::string_view content) const {
    const std::string path = (directory_.path() / name).string();
    write_file_atomically(path, content);
    return path;
  }

 private:
  TemporaryDirectory directory_;
};

template <typename Body>
std::string message_of(ErrorKind kind, Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind);
    return error.what();
  }
  return "nothing was thrown";
}

TEST_F(DatasetTest, ReadsPlainTextAsOneDocument) {
  EXPECT_THAT(read_documents({.path = write("a.txt", "one\n\ntwo\n")}), ElementsAre("one\n\ntwo\n"));
  EXPECT_THAT(read_documents({.path = write("wiki.test.raw", "x")}), ElementsAre("x"));
}

TEST_F(DatasetTest, ReadsAColumnOfJsonLines) {
  const std::string path =
      write("a.jsonl", "{\"text\": \"one\\n\", \"q\": \"Q1\"}\r\n\n{\"text\": \"two\", \"q\": \"Q2\"}");
  EXPECT_THAT(read_documents({.path = path}), ElementsAre("one\n", "two"));
  EXPECT_THAT(read_documents({.path = path, .text_column = "q"}), ElementsAre("Q1", "Q2"));
  EXPECT_THAT(message_of(ErrorKind::bad_format, [&] { read_documents({.path = path, .text_column = "z"}); }),
              HasSubstr("a.jsonl: line 1: the key \"z\" is missing"));
}

TEST_F(DatasetTest, SaysWhereAFileIsWrong) {
  EXPECT_THAT(
      message_of(ErrorKind::bad_format, [&] { read_documents({.path = write("a.txt", "ok \xC3( no")}); }),
      HasSubstr("a.txt: not UTF-8: byte 3 is 0xC3"));
  EXPECT_THAT(
      message_of(ErrorKind::bad_format,
                 [&] { read_documents({.path = write("b.jsonl", "{\"text\": \"x\"}\n{\"text\": 5}\n")}); }),
      HasSubstr("b.jsonl: line 2: text: expected a string, got 5"));
  EXPECT_THAT(message_of(ErrorKind::bad_format, [&] { read_documents({.path = write("c.jsonl", "\n \n")}); }),
              HasSubstr("c.jsonl: no documents"));
  EXPECT_THAT(message_of(ErrorKind::unsupported, [&] { read_documents({.path = write("d.parquet", "x")}); }),
              HasSubstr(".parquet files are not read"));
  message_of(ErrorKind::not_found, [&] { read_documents({.path = "/nonexistent/a.txt"}); });
}

TEST(TokenizeDocuments, JoinsThemAndMarksEach) {
  const Tokenizer tokenizer = Tokenizer::from_json(
      R"({"added_tokens": [{"id": 2, "content": "<s>", "special": true}],
          "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}},
            {"Sequence": {"id": "A"}}], "special_tokens": {"<s>": {"ids": [2]}}},
          "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}})",
      "t.json");
  const std::vector<std::string> documents = {"ab", "b"};
  EXPECT_THAT(tokenize_documents(tokenizer, documents, {.special = Tokenizer::SpecialTokens::add}),
              ElementsAre(2, 0, 1, 2, 1));
  EXPECT_THAT(tokenize_documents(tokenizer, documents, {}), ElementsAre(0, 1, 1));
}

TEST_F(DatasetTest, ReadingStopsOnRequest) {
  const Tokenizer tokenizer = Tokenizer::from_json(
      R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}})", "t.json");
  const std::vector<std::string> documents = {"ab", "b"};
  const CancellationFlag stop{true};
  const auto path = write("a.jsonl", "{\"text\": \"ab\"}\n");
  message_of(ErrorKind::cancelled, [&] { read_documents({.path = path}, &stop); });
  message_of(ErrorKind::cancelled, [&] { tokenize_documents(tokenizer, documents, {.cancelled = &stop}); });
  EXPECT_EQ(
      message_of(ErrorKind::cancelled,
                 [&] { read_token_windows(tokenizer, {.path = path}, {.window = 1, .cancelled = &stop}); }),
      "stopped on request");
}

/// As a single word, and cut into words of one letter.
TEST(TokenizeDocuments, StopsInsideALongText) {
  const auto tokenizer = [](const std::string& pretokenizer) {
    return Tokenizer::from_json(
        R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]})" + pretokenizer +
            "}",
        "t.json");
  };
  std::string text(size_t{4} << 20, 'a');
  for (size_t i = 1; i < text.size(); i += 2) text[i] = 'b';
  for (const char* pretokenizer : {"", R"(, "pre_tokenizer": {"type": "Split", "pattern": {"String": "b"},
                                          "behavior": "Isolated"})"}) {
    CancellationFlag stop{false};
    std::thread other([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      stop = true;
    });
    EXPECT_EQ(message_of(ErrorKind::cancelled,
                         [&] {
                           for (int i = 0; i < 100; ++i)
                             tokenizer(pretokenizer).encode(text, Tokenizer::SpecialTokens::omit, &stop);
                         }),
              "stopped on request");
    other.join();
  }
}

/// "ids 1 2" or "text abc" for each document.
std::vector<std::string> described(const std::vector<Document>& documents) {
  std::vector<std::string> result;
  for (const Document& document : documents) {
    if (const auto* text = std::get_if<std::string>(&document)) {
      result.push_back("text " + *text);
    } else {
      result.push_back(fmt::format("ids {}", fmt::join(std::get<1>(document), " ")));
    }
  }
  return result;
}

TEST(MixedDocuments, AreTextsAndIds) {
  const std::string lines =
      "{\"text\": \"ab\"}\n{\"input_ids\": [1, 2]}\n[3]\n\"c\"\n{\"text\": [4, 5], \"input_ids\": [6]}\n"
      "{\"input_ids\": [7, 8, 9], \"attention_mask\": [0, 1, 1], \"loss_mask\": [0, 0, 1]}\n";
  EXPECT_THAT(described(parse_mixed_documents(lines, {.path = "a.jsonl"}, {.vocabulary = 10})),
              ElementsAre("text ab", "ids 1 2", "ids 3", "text c", "ids 4 5", "ids 8 9"));
  EXPECT_THAT(described(parse_mixed_documents("[[0, 9], []]", {.path = "a.json"}, {.vocabulary = 10})),
              ElementsAre("ids 0 9", "ids "));
  EXPECT_THAT(described(parse_mixed_documents("[1]", {.path = "a.txt"}, {.vocabulary = 10})),
              ElementsAre("text [1]"));
}

TEST(MixedDocuments, SayWhereTheyAreWrong) {
  const auto error = [](ErrorKind kind, const char* content, const char* path = "a.jsonl") {
    return message_of(kind, [&] { parse_mixed_documents(content, {.path = path}, {.vocabulary = 10}); });
  };
  const auto format = ErrorKind::bad_format;
  EXPECT_EQ(error(format, "[1]\n\n{\"input_ids\": [1, 10]}"),
            "a.jsonl: line 3: input_ids[1]: 10 is outside [0, 9]");
  EXPECT_EQ(error(format, "{\"input_ids\": [-1]}"), "a.jsonl: line 1: input_ids[0]: -1 is outside [0, 9]");
  EXPECT_EQ(error(format, "{\"input_ids\": [1.5]}"),
            "a.jsonl: line 1: input_ids[0]: expected an integer, got 1.5");
  EXPECT_EQ(error(format, "{\"text\": 5}"), "a.jsonl: line 1: text: expected a text or a list of token ids");
  EXPECT_EQ(error(format, "[[1], [2, 30]]", "a.json"), "a.json[1][1]: 30 is outside [0, 9]");
  EXPECT_EQ(error(format, "{\"input_ids\": [1, 2], \"attention_mask\": [1]}"),
            "a.jsonl: line 1: attention_mask: 1 values for 2 ids");
  EXPECT_THAT(error(format, "5"), HasSubstr("a.jsonl: line 1: expected an object"));
  EXPECT_EQ(error(format, "{\"q\": 1}"), "a.jsonl: line 1: the key \"text\" is missing");
  EXPECT_EQ(error(format, " \n"), "a.jsonl: no documents");
  EXPECT_EQ(error(format, "[]", "a.json"), "a.json: no documents");
  EXPECT_THAT(error(format, "a\xFF", "a.txt"), HasSubstr("not UTF-8"));
  EXPECT_THAT(error(ErrorKind::unsupported, "{\"messages\": [{\"role\": \"user\"}]}"),
              HasSubstr("a.jsonl: line 1: \"messages\" is a conversation, and chat templates follow"));
  EXPECT_THAT(message_of(ErrorKind::unsupported, [] { read_mixed_documents({.path = "a.parquet"}, {}); }),
              HasSubstr("a.parquet: .parquet files are not read here; write a column as .jsonl"));
  EXPECT_THAT(message_of(ErrorKind::unsupported, [] { read_mixed_documents({.path = "a.csv"}, {}); }),
              HasSubstr(".csv files are not read"));
}

class MakeSequences : public testing::Test {
 protected:
  const Tokenizer tokenizer_ = Tokenizer::from_json(
      R"({"added_tokens": [{"id": 3, "content": "<s>", "special": true}],
          "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}},
            {"Sequence": {"id": "A"}}], "special_tokens": {"<s>": {"ids": [3]}}},
          "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2}, "merges": []}})",
      "t.json");
  const std::vector<Document> documents_{"abc", std::vector<int32_t>{2, 2, 2, 2}, "", "ba",
                                         std::vector<int32_t>{1}};
};

TEST_F(MakeSequences, JoinsTextsAndKeepsIdsApart) {
  const TokenSequences made = make_sequences(&tokenizer_, documents_, {.length = 2});
  EXPECT_THAT(made.sequences, ElementsAre(ElementsAre(0, 1), ElementsAre(2, 1), ElementsAre(2, 2)));
  EXPECT_EQ(made.available, 3u);
  EXPECT_EQ(made.left_out, 1u);
}

TEST_F(MakeSequences, JoinsAllOrNothing) {
  EXPECT_THAT(
      make_sequences(&tokenizer_, documents_, {.length = 4, .joined = JoinedDocuments::all}).sequences,
      ElementsAre(ElementsAre(0, 1, 2, 2), ElementsAre(2, 2, 2, 1)));
  const TokenSequences apart =
      make_sequences(&tokenizer_, documents_, {.length = 3, .joined = JoinedDocuments::none});
  EXPECT_THAT(apart.sequences, ElementsAre(ElementsAre(3, 0, 1), ElementsAre(2, 2, 2), ElementsAre(3, 1, 0)));
  EXPECT_EQ(apart.left_out, 2u) << "<s> alone, and one id";
  EXPECT_THAT(
      make_sequences(&tokenizer_, documents_, {.length = 1, .joined = JoinedDocuments::none}).sequences,
      ElementsAre(ElementsAre(3), ElementsAre(2), ElementsAre(3)));
}

TEST_F(MakeSequences, TakesSomeInARandomOrder) {
  std::vector<Document> documents;
  for (int32_t i = 0; i < 50; ++i) documents.emplace_back(std::vector<int32_t>{i, i});
  const auto drawn = [&](uint64_t seed) {
    return make_sequences(nullptr, documents, {.maximum = 10, .shuffle_seed = seed}).sequences;
  };
  EXPECT_EQ(drawn(1).size(), 10u);
  EXPECT_EQ(drawn(1), drawn(1));
  EXPECT_NE(drawn(1), drawn(2));
  EXPECT_EQ(make_sequences(nullptr, documents, {.maximum = 1}).sequences.front().front(), 0);
}

TEST_F(MakeSequences, RefusesTooLittle) {
  const auto error = [&](const SequenceOptions& options) {
    return message_of(ErrorKind::invalid_argument, [&] { make_sequences(&tokenizer_, documents_, options); });
  };
  EXPECT_EQ(error({.length = 100, .joined = JoinedDocuments::all}),
            "text: 10 tokens are too few for one window of 100; give more text, or a smaller max_seq_length");
  EXPECT_EQ(error({.joined = JoinedDocuments::none, .shortest = 9}),
            "text: none of the 5 documents has 9 tokens; all have 13 together");
  EXPECT_EQ(error({.length = 0}),
            "text: 18446744073709551615 sequences of 0 tokens asked for; at least 1 is needed");
  const CancellationFlag stop{true};
  message_of(ErrorKind::cancelled, [&] { make_sequences(&tokenizer_, documents_, {.cancelled = &stop}); });
}

TEST(TokenWindows, CutsInOrderAndDropsTheRest) {
  const std::vector<int32_t> ids = {0, 1, 2, 3, 4, 5, 6};
  EXPECT_THAT(token_windows(ids, {.window = 3}), ElementsAre(ElementsAre(0, 1, 2), ElementsAre(3, 4, 5)));
  EXPECT_THAT(token_windows(ids, {.window = 2, .maximum = 1}), ElementsAre(ElementsAre(0, 1)));
  EXPECT_EQ(message_of(ErrorKind::invalid_argument, [&] { token_windows(ids, {.window = 8}); }),
            "text: 7 tokens are too few for one window of 8");
  EXPECT_EQ(message_of(ErrorKind::invalid_argument, [&] { token_windows(ids, {.window = 0}); }),
            "text: windows of 0 tokens asked for; at least 1 is needed");
  EXPECT_EQ(message_of(ErrorKind::invalid_argument,
                       [&] { token_windows(ids, {.window = static_cast<size_t>(-3)}); }),
            "text: windows of -3 tokens asked for; at least 1 is needed");
  EXPECT_EQ(message_of(ErrorKind::invalid_argument, [&] { token_windows(ids, {.window = 2, .maximum = 0}); }),
            "text: 0 windows asked for; at least 1 is needed");
}

TEST(TokenWindows, DrawsTheSameWindowsForTheSameSeed) {
  std::vector<int32_t> ids(1000);
  std::iota(ids.begin(), ids.end(), 0);
  const auto drawn = token_windows(ids, {.window = 10, .maximum = 20, .shuffle_seed = 7});
  ASSERT_EQ(drawn.size(), 20u);
  EXPECT_EQ(drawn, token_windows(ids, {.window = 10, .maximum = 20, .shuffle_seed = 7}));
  EXPECT_NE(drawn, token_windows(ids, {.window = 10, .maximum = 20, .shuffle_seed = 8}));
  std::vector<int32_t> starts;
  for (const auto& window : drawn) {
    EXPECT_EQ(window.front() % 10, 0);
    EXPECT_EQ(window.back(), window.front() + 9);
    starts.push_back(window.front());
  }
  std::sort(starts.begin(), starts.end());
  EXPECT_EQ(std::unique(starts.begin(), starts.end()), starts.end());
}

}  // namespace
}  // namespace salient
