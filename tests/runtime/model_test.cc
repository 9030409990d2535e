#include "salient/model.h"

#include <gtest/gtest.h>

#include "support/golden_model.h"
#include "support/shared_data.h"

namespace salient {
namespace {

TEST(Model, ContinuesAStory) {
  SALIENT_SHARED_OR_SKIP(path, "models/stories260k");
  const Model model = Model::load(path.string());
  std::string streamed;
  const auto whole = model.generate("Once upon a time", {.max_tokens = 60}, [&](std::string_view text) {
    streamed += text;
    return true;
  });
  EXPECT_EQ(whole.text, streamed);
  EXPECT_EQ(whole.reason, FinishReason::max_tokens);
  EXPECT_EQ(whole.tokens.size(), 60u);
  EXPECT_EQ(whole.text.rfind(", there was a little", 0), 0u) << whole.text;
  const auto cut = model.generate("Once upon a time", {.max_tokens = 60, .stop = {"little"}});
  EXPECT_EQ(cut.text, ", there was a ");
  EXPECT_EQ(cut.reason, FinishReason::stop_text);
  const auto ended =
      model.generate("Once upon a time", {.max_tokens = 60}, [](std::string_view) { return false; });
  EXPECT_EQ(ended.reason, FinishReason::callback);
}

TEST(Model, RefusesAnUnknownDevice) {
  try {
    Model::load("anywhere", {.device = "tpu"});
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "device \"tpu\" is not known (auto, cpu, cuda, cuda:N)");
  }
}

}  // namespace
}  // namespace salient
