// The fuzz target is compiled here under another name, so that plain builds run its corpus too.
#define LLVMFuzzerTestOneInput fuzz_tokenizer_json
#include "../../fuzz/tokenizer_json_fuzz.cc"
#undef LLVMFuzzerTestOneInput

#include "fuzz_replay/corpus.h"

TEST(FuzzReplay, TokenizerJson) { salient::replay_corpus("tokenizer_json", fuzz_tokenizer_json); }
