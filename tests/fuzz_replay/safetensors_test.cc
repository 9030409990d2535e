#define LLVMFuzzerTestOneInput safetensors_fuzz
#include "../../fuzz/safetensors_fuzz.cc"
#undef LLVMFuzzerTestOneInput

#include "fuzz_replay/corpus.h"

TEST(FuzzReplay, Safetensors) { salient::replay_corpus("safetensors", safetensors_fuzz); }
