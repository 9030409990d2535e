#define LLVMFuzzerTestOneInput report_fuzz
#include "../../fuzz/report_fuzz.cc"
#undef LLVMFuzzerTestOneInput

#include "fuzz_replay/corpus.h"

TEST(FuzzReplay, Report) { salient::replay_corpus("report", report_fuzz); }
