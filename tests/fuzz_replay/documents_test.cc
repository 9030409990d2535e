#define LLVMFuzzerTestOneInput fuzz_documents
#include "../../fuzz/documents_fuzz.cc"
#undef LLVMFuzzerTestOneInput

#include "fuzz_replay/corpus.h"

TEST(FuzzReplay, Documents) { salient::replay_corpus("documents", fuzz_documents); }
