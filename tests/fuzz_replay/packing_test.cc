#define LLVMFuzzerTestOneInput packing_fuzz
#include "../../fuzz/packing_fuzz.cc"
#undef LLVMFuzzerTestOneInput

#include "fuzz_replay/corpus.h"

TEST(FuzzReplay, Packing) { salient::replay_corpus("packing", packing_fuzz); }
