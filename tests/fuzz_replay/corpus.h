#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "base/file.h"

namespace salient {

/// Runs a fuzz target over the seeds of fuzz/corpus/<name>, so that every build checks them.
inline void replay_corpus(const std::string& name, int (*target)(const uint8_t* data, size_t size)) {
  std::vector<std::filesystem::path> seeds;
  for (const auto& entry : std::filesystem::directory_iterator(SALIENT_SOURCE_DIR "/fuzz/corpus/" + name)) {
    seeds.push_back(entry.path());
  }
  std::sort(seeds.begin(), seeds.end());
  ASSERT_FALSE(seeds.empty());
  for (const auto& seed : seeds) {
    const std::string bytes = read_text_file(seed.string());
    EXPECT_EQ(target(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()), 0) << seed;
  }
}

}  // namespace salient
