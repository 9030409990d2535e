#define LLVMFuzzerTestOneInput model_config_fuzz
#include "../../fuzz/model_config_fuzz.cc"
#undef LLVMFuzzerTestOneInput

#include "fuzz_replay/corpus.h"

TEST(FuzzReplay, ModelConfig) { salient::replay_corpus("model_config", model_config_fuzz); }
