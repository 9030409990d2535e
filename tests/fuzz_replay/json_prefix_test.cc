#define LLVMFuzzerTestOneInput fuzz_json_prefix
#include "../../fuzz/json_prefix_fuzz.cc"
#undef LLVMFuzzerTestOneInput

#include "fuzz_replay/corpus.h"

TEST(FuzzReplay, JsonPrefix) { salient::replay_corpus("json_prefix", fuzz_json_prefix); }
