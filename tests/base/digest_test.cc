#include "base/digest.h"

#include <gtest/gtest.h>

namespace salient {
namespace {

std::string digest_of(std::string_view text) { return Digest().add(std::as_bytes(std::span(text))).hex(); }

/// The values of XXH64 with seed 0, as other programs print them.
TEST(Digest, IsXxh64) {
  EXPECT_EQ(digest_of(""), "ef46db3751d8e999");
  EXPECT_EQ(digest_of("a"), "d24ec4f1a98c6e5b");
  EXPECT_EQ(digest_of("abc"), "44bc2cf5ad770999");
  EXPECT_EQ(digest_of("Nobody inspects the spammish repetition"), "fbcea83c8a378bf1");
}

TEST(Digest, PiecesMakeNoDifference) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += static_cast<char>(i * 7);
  const auto bytes = std::as_bytes(std::span(text));
  for (const size_t piece : {1u, 3u, 31u, 32u, 33u, 64u, 100u}) {
    Digest digest;
    for (size_t at = 0; at < bytes.size(); at += piece)
      digest.add(bytes.subspan(at, std::min(piece, bytes.size() - at)));
    EXPECT_EQ(digest.hex(), digest_of(text)) << piece;
  }
}

TEST(Digest, TellsWhereTextsEnd) {
  EXPECT_NE(Digest().add_text("ab").add_text("c").hex(), Digest().add_text("a").add_text("bc").hex());
}

}  // namespace
}  // namespace salient
