#include "base/error.h"

#include <gtest/gtest.h>

namespace salient {
namespace {

TEST(Error, ContextStandsBeforeTheMessageOutermostFirst) {
  try {
    with_context("checkpoint", [] {
      with_context("model.safetensors", [] { fail(ErrorKind::bad_format, "offset {} of {}", 7, 3); });
    });
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_format);
    EXPECT_STREQ(error.what(), "checkpoint: model.safetensors: offset 7 of 3");
  }
}

TEST(Error, WithContextPassesTheResultThrough) {
  EXPECT_EQ(with_context("x", [] { return 5; }), 5);
}

}  // namespace
}  // namespace salient
