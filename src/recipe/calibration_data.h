#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "model/weights.h"
#include "salient/oneshot.h"

namespace salient {

/// What a data set is called whose text the model makes up.
inline constexpr std::string_view kSelfData = "self";

/// The sequences of a calibration.
struct CalibrationData {
  std::vector<std::vector<int32_t>> sequences;
  std::vector<std::vector<uint8_t>> masks;  ///< empty, or like `sequences`
  std::vector<std::string> warnings;
};

/// Whether the data set "self" is drawn, or only stood for by sequences of its lengths: a plan needs no more.
enum class SelfData { draw, stand_in };

/// Reads, cuts, draws and mixes what the options name; nothing without AWQ. Errors: invalid_argument for
/// options that contradict each other, too little data or sequences that are none; those of reading files, of
/// the tokenizer, and for "self" of Decoder::load; cancelled.
CalibrationData calibration_data(const OneshotOptions& options, const DecoderSpec& spec, SelfData self);

/// Bytes that drawing "self" takes: the whole model and the caches of what it writes; 0 without it.
uint64_t self_data_memory(const OneshotOptions& options, const ModelWeights& weights);

/// How many of `total` sequences each weight gets: in proportion, what is left over to the largest remainders
/// (of equal ones the first). Errors: invalid_argument for a weight that is not above 0.
std::vector<int64_t> shares_of(int64_t total, const std::vector<double>& weights);

/// Data sets as recipes write them: a name, or a list of names and {data, weight, text_column}. Errors:
/// bad_format, invalid_argument with path and value.
std::vector<CalibrationDataset> read_datasets(const JsonView& view);

/// A data set as a command line names it: "text.txt", or with its weight "text.txt:0.7".
CalibrationDataset parse_dataset(std::string_view text);

}  // namespace salient
