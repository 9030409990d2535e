#define LLVMFuzzerTestOneInput layer_file_fuzz
#include "../../fuzz/layer_file_fuzz.cc"
#undef LLVMFuzzerTestOneInput

#include "fuzz_replay/corpus.h"

namespace {

constexpr const char* kSeeds = SALIENT_SOURCE_DIR "/fuzz/corpus/layer_file/";

TEST(FuzzReplay, LayerFile) { salient::replay_corpus("layer_file", layer_file_fuzz); }

/// Else everything would end at the door.
TEST(FuzzReplay, LayerFileSeedsReachTheTensors) {
  const auto whole = [](const std::string& name) {
    return with_right_checksum(read_text_file(kSeeds + name));
  };
  EXPECT_NO_THROW(require_layer(whole("quantized"), OneshotResult::quantized));
  EXPECT_NO_THROW(require_layer(whole("scaled"), OneshotResult::scaled));
  EXPECT_THROW(require_layer(read_text_file(std::string(kSeeds) + "quantized"), OneshotResult::quantized),
               Error);
}

}  // namespace
