#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "support/program.h"

namespace salient {

inline const std::string kDemo = SALIENT_SOURCE_DIR "/examples/demo";
inline const std::string kModel = kDemo + "/model";

/// The program on the demo model, writing into a folder of its own.
class CommandLine : public ::testing::Test {
 protected:
  std::string out(const std::string& name = "quantized") const { return (scratch_.path() / name).string(); }

  std::vector<std::string> quantize(std::vector<std::string> more, const std::string& samples = "4") const {
    std::vector<std::string> arguments{"quantize",
                                       kModel,
                                       "-o",
                                       out(),
                                       "--data",
                                       kDemo + "/calibration.txt",
                                       "--num-calibration-samples",
                                       samples,
                                       "--max-seq-length",
                                       "128"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  /// Names in the scratch folder, hidden ones too.
  std::vector<std::string> left_behind() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(scratch_.path()))
      names.push_back(entry.path().filename().string());
    return names;
  }

  TemporaryDirectory scratch_;
};

}  // namespace salient
