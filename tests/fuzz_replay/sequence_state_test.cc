#define LLVMFuzzerTestOneInput sequence_state_fuzz
#include "../../fuzz/sequence_state_fuzz.cc"
#undef LLVMFuzzerTestOneInput

#include "fuzz_replay/corpus.h"
#include "support/error_matcher.h"

namespace {

std::string state_seed(const std::string& name) {
  return with_right_checksum(read_text_file(SALIENT_SOURCE_DIR "/fuzz/corpus/sequence_state/" + name));
}

TEST(FuzzReplay, SequenceState) { salient::replay_corpus("sequence_state", sequence_state_fuzz); }

TEST(FuzzReplay, SequenceStateSeedsReachTheTensors) {
  for (const char* name : {"pending", "complete", "complete_fp16", "complete_int8", "nothing_cached"})
    EXPECT_NO_THROW(require_state(state_seed(name))) << name;
  struct Case {
    const char* seed;
    ErrorKind kind;
    const char* message;
  };
  for (const auto& [seed, kind, message] : {
           Case{"other_model", ErrorKind::invalid_argument, "another model"},
           Case{"later_version", ErrorKind::unsupported, "version 3"},
           Case{"too_much_cached", ErrorKind::bad_format, "4 of 3 tokens cannot be cached"},
           Case{"wrong_token", ErrorKind::bad_format, "token 10 is none of the vocabulary's 10"},
           Case{"no_logits", ErrorKind::bad_format, "7 tensors where 8 are expected"},
           Case{"other_shape", ErrorKind::bad_format, "layer.1.keys"},
           Case{"other_type", ErrorKind::bad_format, "layer.0.matrices"},
           Case{"tokens_in_a_square", ErrorKind::bad_format, "tokens"},
           Case{"negative_draws", ErrorKind::bad_format, "draws"},
           Case{"huge_cached", ErrorKind::bad_format, "cannot be cached"},
           Case{"head_twice", ErrorKind::bad_format, "head"},
       }) {
    EXPECT_THAT([&] { require_state(state_seed(seed)); }, throws_error(kind, testing::HasSubstr(message)))
        << seed;
  }
}

}  // namespace
