#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/file.h"

namespace salient {

/// Runs every file of fuzz/corpus/NAME through the function of a fuzz target.
inline void replay_corpus(const std::string& name, int (*target)(const uint8_t* data, size_t size)) {
  const auto folder = std::filesystem::path(SALIENT_SOURCE_DIR) / "fuzz/corpus" / name;
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    SCOPED_TRACE(entry.path().string());
    const std::string bytes = read_text_file(entry.path().string());
    EXPECT_EQ(target(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()), 0);
    ++count;
  }
  EXPECT_GT(count, 0u);
}

}  // namespace salient
