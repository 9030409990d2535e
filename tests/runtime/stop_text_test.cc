#include "runtime/stop_text.h"

#include <gtest/gtest.h>

namespace salient {
namespace {

TEST(StopText, HoldsBackWhatMayBecomeAStop) {
  StopText stop({"END", "\n\n", ""});
  EXPECT_EQ(stop.push("one E"), "one ");
  EXPECT_EQ(stop.push("N"), "");
  EXPECT_EQ(stop.push("T\n"), "ENT");
  EXPECT_EQ(stop.push("x"), "\nx");
  EXPECT_EQ(stop.push("yENDz"), "y");
  EXPECT_TRUE(stop.stopped());
  EXPECT_EQ(stop.push("more"), "");
  EXPECT_EQ(stop.finish(), "");
}

TEST(StopText, TheEarliestStopWins) {
  StopText stop({"bc", "abcd"});
  EXPECT_EQ(stop.push("xabcd"), "x");
  EXPECT_TRUE(stop.stopped());
}

TEST(StopText, WhatWasHeldBackComesAtTheEnd) {
  StopText stop({"END"});
  EXPECT_EQ(stop.push("the EN"), "the ");
  EXPECT_EQ(stop.finish(), "EN");
  EXPECT_FALSE(stop.stopped());
}

}  // namespace
}  // namespace salient
