#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace salient {

/// Folder with extra real models, texts and tokenizers that are not part of the project: $SALIENT_SHARED,
/// else the "shared" folder beside the checkout. Tests that use it skip when it is absent.
inline std::filesystem::path shared_data(const std::string& relative) {
  const char* root = std::getenv("SALIENT_SHARED");
  const std::filesystem::path base =
      root != nullptr ? root : std::filesystem::path(SALIENT_SOURCE_DIR) / "../shared";
  return base / relative;
}

}  // namespace salient

/// Defines `variable` as the path of an extra file or folder, or skips the test, saying so.
#define SALIENT_SHARED_OR_SKIP(variable, relative)        \
  const auto variable = ::salient::shared_data(relative); \
  if (!std::filesystem::exists(variable)) GTEST_SKIP() << "extra data not present: " << (relative)
