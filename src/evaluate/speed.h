#pragma once

#include <cstdint>

#include "base/cancellation.h"
#include "runtime/decoder.h"

namespace salient {

/// So many sequences with a prompt each, then so many tokens more of each, all sequences a token at a time.
struct SpeedCase {
  int64_t batch_size = 1;
  int64_t prefill_length = 1;
  int64_t decode_length = 1;
};

struct Speed {
  SpeedCase of;
  double prefill_tokens_per_second = 0;  ///< of all sequences, one after the other
  double decode_tokens_per_second = 0;   ///< of all sequences together
  /// What a decoded step of all sequences reads: every weight that it uses once, as the back end keeps it,
  /// and keys and values, in the mean over the steps.
  double weight_bytes_per_step = 0;
  double cache_bytes_per_step = 0;
  uint64_t memory = 0;  ///< resident behind the last step, in bytes

  /// Bytes a second of weights.
  double weight_bandwidth() const {
    return weight_bytes_per_step * decode_tokens_per_second / static_cast<double>(of.batch_size);
  }
};

/// Finds the likeliest token of each row of logits [rows, vocab], as whoever draws does; waits for a device.
void find_likeliest(const Decoder& decoder, const Tensor& logits);

/// Errors: invalid_argument for a case that the model's positions cannot hold or that has no prompt.
void check_speed_case(const DecoderSpec& spec, const SpeedCase& of);

/// Runs random tokens; the fastest of `repeats` runs counts, prefill and decoding each for itself. Errors:
/// invalid_argument for a case that the model's positions cannot hold or that has no prompt; cancelled.
Speed measure_speed(const Decoder& decoder, const SpeedCase& of, int repeats,
                    const CancellationFlag* cancelled);

}  // namespace salient
