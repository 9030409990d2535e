#define LLVMFuzzerTestOneInput recipe_fuzz
#include "../../fuzz/recipe_fuzz.cc"
#undef LLVMFuzzerTestOneInput

#include "fuzz_replay/corpus.h"

TEST(FuzzReplay, Recipe) { salient::replay_corpus("recipe", recipe_fuzz); }
