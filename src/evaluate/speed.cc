#include "evaluate/speed.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/process.h"
#include "base/random.h"
#include "base/stopwatch.h"
#include "runtime/generate.h"

namespace salient {
namespace {

constexpr uint64_t kSeed = 0;

/// One run of one case.
class SpeedRun {
 public:
  SpeedRun(const Decoder& decoder, const SpeedCase& of, const CancellationFlag* cancelled)
      : decoder_(decoder), of_(of), cancelled_(cancelled) {
    for (int64_t i = 0; i < of.batch_size; ++i) caches_.push_back(decoder.make_cache());
  }

  double prefill_seconds() {
    double seconds = 0;
    for (KvCache& cache : caches_) {
      const std::vector<int32_t> prompt = random_tokens(of_.prefill_length);
      const Stopwatch watch(seconds);
      find_likeliest(decoder_, decoder_.forward(prompt, cache, {LogitRows::last, cancelled_}));
    }
    return seconds;
  }

  double decode_seconds() {
    double seconds = 0;
    for (int64_t step = 0; step < of_.decode_length; ++step) {
      const std::vector<int32_t> tokens = random_tokens(of_.batch_size);
      const Stopwatch watch(seconds);
      find_likeliest(decoder_, decoder_.step(tokens, caches_, cancelled_));
    }
    return seconds;
  }

  double cache_bytes() const {
    double bytes = 0;
    for (const KvCache& cache : caches_) bytes += static_cast<double>(cache.byte_size());
    return bytes;
  }

 private:
  std::vector<int32_t> random_tokens(int64_t count) {
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    for (int32_t& token : tokens) {
      token = static_cast<int32_t>(random_bits(kSeed, drawn_++) %
                                   static_cast<uint64_t>(decoder_.spec().vocab_size));
    }
    return tokens;
  }

  const Decoder& decoder_;
  const SpeedCase& of_;
  const CancellationFlag* cancelled_;
  std::vector<KvCache> caches_;
  uint64_t drawn_ = 0;
};

}  // namespace

void find_likeliest(const Decoder& decoder, const Tensor& logits) {
  const std::vector<ShortlistNeeds> needs(static_cast<size_t>(logits.dim(0)), {.wanted = 1});
  decoder.shortlists(logits, needs);
}

void check_speed_case(const DecoderSpec& spec, const SpeedCase& of) {
  if (of.batch_size < 1 || of.prefill_length < 1 || of.decode_length < 0) {
    fail(ErrorKind::invalid_argument,
         "batch size {}, prefill length {}, decode length {}: the first two must be at least 1",
         of.batch_size, of.prefill_length, of.decode_length);
  }
  check_window(spec, of.prefill_length + of.decode_length);
}

Speed measure_speed(const Decoder& decoder, const SpeedCase& of, int repeats,
                    const CancellationFlag* cancelled) {
  check_speed_case(decoder.spec(), of);
  Speed speed{.of = of, .weight_bytes_per_step = decoder.step_weight_bytes(of.batch_size)};
  for (int repeat = 0; repeat < repeats; ++repeat) {
    SpeedRun run(decoder, of, cancelled);
    const auto prompts = static_cast<double>(of.batch_size * of.prefill_length);
    const auto decoded = static_cast<double>(of.batch_size * of.decode_length);
    speed.prefill_tokens_per_second =
        std::max(speed.prefill_tokens_per_second, prompts / run.prefill_seconds());
    const double before = run.cache_bytes();
    if (of.decode_length > 0) {
      speed.decode_tokens_per_second =
          std::max(speed.decode_tokens_per_second, decoded / run.decode_seconds());
    }
    speed.cache_bytes_per_step = (before + run.cache_bytes()) / 2;
    speed.memory = std::max(speed.memory, resident_bytes());
  }
  return speed;
}

}  // namespace salient
