#pragma once

#include <gmock/gmock.h>

#include "salient/error.h"

namespace salient {

/// Matches a callable that throws Error of `kind` whose message matches `message`:
/// EXPECT_THAT([&] { call(); }, throws_error(ErrorKind::bad_format, HasSubstr("row 3")));
template <typename Matcher>
auto throws_error(ErrorKind kind, Matcher message) {
  return ::testing::Throws<Error>(::testing::AllOf(::testing::Property("kind", &Error::kind, kind),
                                                   ::testing::Property("what", &Error::what, message)));
}

}  // namespace salient
