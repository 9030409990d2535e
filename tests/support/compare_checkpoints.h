#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "checkpoint/checkpoint.h"

namespace salient {

inline bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         std::equal(a.bytes(), a.bytes() + a.byte_size(), b.bytes());
}

/// Both directories hold the same tensors and the same config.
inline void expect_same_checkpoints(const std::string& first, const std::string& second) {
  const Checkpoint a(first);
  const Checkpoint b(second);
  EXPECT_EQ(a.config(), b.config());
  ASSERT_EQ(a.tensor_names(), b.tensor_names());
  for (const auto& name : a.tensor_names()) EXPECT_TRUE(same_bytes(a.tensor(name), b.tensor(name))) << name;
}

}  // namespace salient
