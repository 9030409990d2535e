#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/json.h"
#include "support/program.h"

namespace salient {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kDemo = SALIENT_SOURCE_DIR "/examples/demo";

class ReportFiles : public ::testing::Test {
 protected:
  std::string path(const std::string& name) const { return (scratch_.path() / name).string(); }

  ProgramResult quantize(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments{"quantize", kDemo + "/model", "-o", path("out")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_salient(arguments);
  }

  /// Refused before the work: nothing is written.
  void expect_refused(const std::vector<std::string>& more, const std::string& message, int status) const {
    const ProgramResult result = quantize(more);
    EXPECT_EQ(result.status, status) << result.output;
    EXPECT_THAT(result.errors, HasSubstr(message));
    EXPECT_FALSE(fs::exists(path("out")));
  }

  TemporaryDirectory scratch_;
};

TEST_F(ReportFiles, OneOfEachKindIsWritten) {
  const ProgramResult run = quantize({"--data", kDemo + "/calibration.txt", "--num-calibration-samples", "4",
                                      "--max-seq-length", "64", "--report", path("r.json"), "--report",
                                      path("out/r.html"), "--eval", kDemo + "/evaluation.txt", "--json"});
  ASSERT_EQ(run.status, 0) << run.errors;
  const Json report = parse_json(run.output, "output");
  EXPECT_EQ(read_json_file(path("r.json")), report);
  EXPECT_TRUE(report.contains("evaluation"));
  EXPECT_EQ(report["model"], kDemo + "/model");
  EXPECT_THAT(read_text_file(path("out/r.html")),
              AllOf(HasSubstr("Quantization of model"), HasSubstr("perplexity"), HasSubstr("<svg")));
}

TEST_F(ReportFiles, WhatIsThereStaysUnlessItMayBeReplaced) {
  write_file_atomically(path("r.html"), "mine");
  expect_refused({"--method", "rtn", "--report", path("r.html")}, "exists already (--overwrite replaces it)",
                 2);
  EXPECT_EQ(read_text_file(path("r.html")), "mine");
  ASSERT_EQ(quantize({"--method", "rtn", "--report", path("r.html"), "--overwrite"}).status, 0);
  EXPECT_THAT(read_text_file(path("r.html")), HasSubstr("No losses were measured"));
}

TEST_F(ReportFiles, WhatCannotBeWrittenIsRefusedBeforeTheWork) {
  expect_refused({"--method", "rtn", "--report", path("r.txt")}, "a report is a .json or .html file", 2);
  expect_refused({"--method", "rtn", "--report", path("none/r.html")}, "none does not exist", 1);
  expect_refused({"--method", "rtn", "--report", path("out/sub/r.html")}, "will be gone when the run ends",
                 2);
  expect_refused({"--method", "rtn", "--work", path("work"), "--report", path("work/r.html")},
                 "will be gone when the run ends", 2);
  expect_refused({"--method", "rtn", "--report", "/proc/r.html"}, "--report: /proc/r.html", 1);
  fs::create_directory(path("folder.html"));
  expect_refused({"--method", "rtn", "--report", path("folder.html")}, "no regular file", 2);
  expect_refused({"--method", "rtn", "--report", path("out/config.json")},
                 "config.json is a file of the model", 2);
  expect_refused({"--method", "rtn", "--report", path("out/tokenizer.json")}, "is a file of the model", 2);
  expect_refused({"--method", "rtn", "--report", path("r.json"), "--report", path("r.yaml")}, "r.yaml", 2);
  expect_refused({"--method", "rtn", "--report", path("r.json"), "--dry-run"}, "has no run to report", 2);
  EXPECT_FALSE(fs::exists(path("r.json")));
}

TEST_F(ReportFiles, NearestHasNoLossesToPrint) {
  const ProgramResult run = quantize({"--method", "rtn"});
  ASSERT_EQ(run.status, 0) << run.errors;
  EXPECT_THAT(run.output, Not(HasSubstr("signal-to-noise")));
}

}  // namespace
}  // namespace salient
