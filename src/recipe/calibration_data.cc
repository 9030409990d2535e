#include "recipe/calibration_data.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <numeric>

#include "base/cancellation.h"
#include "base/error.h"
#include "base/process.h"
#include "base/random.h"
#include "calibrate/self_text.h"
#include "recipe/recipe_fields.h"
#include "runtime/generate.h"
#include "text/dataset.h"
#include "text/tokenizer.h"

namespace salient {
namespace {

using Sequences = std::vector<std::vector<int32_t>>;

void check_sequence(std::span<const int32_t> sequence, int64_t longest, const DecoderSpec& spec) {
  const auto tokens = static_cast<int64_t>(sequence.size());
  if (tokens == 0) fail(ErrorKind::invalid_argument, "there are no tokens in it");
  if (tokens > longest) {
    fail(ErrorKind::invalid_argument, "{} tokens are more than max_seq_length allows, {}", tokens, longest);
  }
  check_window(spec, tokens);
  check_tokens(spec, sequence);
}

void check_mask(std::span<const uint8_t> mask, size_t tokens) {
  if (mask.size() == tokens) return;
  fail(ErrorKind::invalid_argument, "its mask has {} values for {} tokens", mask.size(), tokens);
}

/// The first `num_samples` of the sequences that the caller gives.
CalibrationData given_sequences(const CalibrationOptions& calibration, const DecoderSpec& spec) {
  const auto& masks = calibration.masks;
  if (!masks.empty() && masks.size() != calibration.sequences.size()) {
    fail(ErrorKind::invalid_argument, "{} masks for {} calibration sequences; give one for each, or none",
         masks.size(), calibration.sequences.size());
  }
  const auto count = std::min(calibration.sequences.size(), static_cast<size_t>(calibration.num_samples));
  CalibrationData data;
  bool counts = masks.empty();
  for (size_t i = 0; i < count; ++i) {
    const auto& sequence = calibration.sequences[i];
    with_context(fmt::format("calibration sequence {}", i), [&] {
      check_sequence(sequence, calibration.max_seq_length, spec);
      if (!masks.empty()) check_mask(masks[i], sequence.size());
    });
    data.sequences.push_back(sequence);
    if (masks.empty()) continue;
    data.masks.push_back(masks[i]);
    counts = counts || std::ranges::any_of(masks[i], [](uint8_t value) { return value != 0; });
  }
  if (!counts) {
    fail(ErrorKind::invalid_argument, "the masks of all {} calibration sequences leave every token out",
         count);
  }
  return data;
}

/// What one data set is asked for.
struct DatasetRequest {
  const OneshotOptions& options;
  const DecoderSpec& spec;
  const CalibrationDataset& dataset;
  int64_t count;
  uint64_t seed;
};

JoinedDocuments joined_documents(DocumentPolicy policy) {
  if (policy == DocumentPolicy::truncate) return JoinedDocuments::none;
  return policy == DocumentPolicy::concatenate ? JoinedDocuments::all : JoinedDocuments::texts;
}

TokenSequences read_sequences(const DatasetRequest& request) {
  const OneshotOptions& options = request.options;
  const CalibrationOptions& calibration = options.calibration;
  const auto& column = request.dataset.text_column;
  const std::vector<Document> documents = read_mixed_documents(
      {.path = request.dataset.data, .text_column = column.empty() ? calibration.text_column : column},
      {.vocabulary = request.spec.vocab_size, .cancelled = options.cancelled});
  const bool has_text = std::ranges::any_of(
      documents, [](const Document& document) { return std::holds_alternative<std::string>(document); });
  std::optional<Tokenizer> tokenizer;
  if (has_text) tokenizer = Tokenizer::from_directory(options.model);
  return with_context(request.dataset.data, [&] {
    return make_sequences(tokenizer ? &*tokenizer : nullptr, documents,
                          {.length = static_cast<size_t>(calibration.max_seq_length),
                           .maximum = static_cast<size_t>(request.count),
                           .joined = joined_documents(calibration.documents),
                           .shuffle_seed = calibration.shuffle ? std::optional(request.seed) : std::nullopt,
                           .cancelled = options.cancelled});
  });
}

/// The model is in memory as a whole, so caches may take half as much again: a large one has to write several
/// sequences at a time, or it reads all of its weights for each token.
SelfTextOptions self_options(const DatasetRequest& request, const ModelWeights& weights) {
  SelfTextOptions self{.sequences = request.count,
                       .length = request.options.calibration.max_seq_length,
                       .seed = request.seed,
                       .cancelled = request.options.cancelled};
  self.cache_bytes = std::max(self.cache_bytes, weights.checkpoint().byte_size() / 2);
  return self;
}

/// The model is in memory for that only.
Sequences draw_self(const DatasetRequest& request) {
  const OneshotOptions& options = request.options;
  const auto start = std::chrono::steady_clock::now();
  Sequences sequences;
  {
    const Tokenizer tokenizer = Tokenizer::from_directory(options.model);
    const auto backend = make_cpu_backend({.precision = MatmulPrecision::bf16});
    const Decoder decoder = Decoder::load(options.model, *backend, {.cancelled = options.cancelled});
    SelfTextOptions self = self_options(request, decoder.weights());
    self.on_progress = [&](int64_t done, int64_t tokens) {
      if (!options.on_sampling) return;
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
      options.on_sampling({.tokens_done = done, .tokens = tokens, .elapsed_seconds = elapsed.count()});
    };
    sequences = sample_self_text(decoder, self_text_start(tokenizer, request.spec), self);
  }
  return_free_memory();
  return sequences;
}

bool is_self(const CalibrationDataset& dataset) { return dataset.data == kSelfData; }

/// A mixture is told when it is not the one that was asked for; of a single data set `num_samples` is a
/// bound.
void warn_of(const DatasetRequest& request, const TokenSequences& read, CalibrationData& data) {
  const bool mixes = request.options.calibration.datasets.size() > 1;
  if (mixes && std::ssize(read.sequences) < request.count) {
    data.warnings.push_back(fmt::format("{}: {} sequences, where its weight asks for {}: it has no more",
                                        request.dataset.data, read.sequences.size(), request.count));
  }
  if (read.left_out > 0) {
    data.warnings.push_back(fmt::format("{}: {} documents of fewer than 2 tokens are left out",
                                        request.dataset.data, read.left_out));
  }
}

Sequences sequences_of(const DatasetRequest& request, SelfData self, CalibrationData& data) {
  throw_if_cancelled(request.options.cancelled);
  if (is_self(request.dataset)) {
    if (self == SelfData::draw) return draw_self(request);
    const auto length = static_cast<size_t>(request.options.calibration.max_seq_length);
    return Sequences(static_cast<size_t>(request.count), std::vector<int32_t>(length, 0));
  }
  TokenSequences read = read_sequences(request);
  warn_of(request, read, data);
  return std::move(read.sequences);
}

/// One sequence after the other from wherever the smallest part has been taken: each stretch of the result is
/// mixed as the whole is.
Sequences interleaved(std::vector<Sequences> parts) {
  struct Place {
    double part;
    size_t dataset;
    size_t index;
  };
  std::vector<Place> places;
  for (size_t i = 0; i < parts.size(); ++i) {
    for (size_t j = 0; j < parts[i].size(); ++j) {
      places.push_back({(static_cast<double>(j) + 0.5) / static_cast<double>(parts[i].size()), i, j});
    }
  }
  std::ranges::stable_sort(places, {}, &Place::part);
  Sequences result;
  for (const Place& place : places) result.push_back(std::move(parts[place.dataset][place.index]));
  return result;
}

void check_datasets(const CalibrationOptions& calibration, const DecoderSpec& spec) {
  for (const CalibrationDataset& dataset : calibration.datasets) {
    if (dataset.data.empty()) fail(ErrorKind::invalid_argument, "a calibration data set has no name");
    if (!(dataset.weight > 0 && std::isfinite(dataset.weight))) {
      fail(ErrorKind::invalid_argument, "{}: its weight {} is no number above 0", dataset.data,
           dataset.weight);
    }
    // A window of a single token would predict nothing; a document or a sequence may be one.
    const bool single = calibration.documents == DocumentPolicy::truncate && !is_self(dataset);
    if (calibration.max_seq_length >= (single ? 1 : 2)) continue;
    fail(ErrorKind::invalid_argument, "{}: max_seq_length is {}, but must be at least {}", dataset.data,
         calibration.max_seq_length, single ? 1 : 2);
  }
  check_window(spec, calibration.max_seq_length);
}

std::vector<int64_t> counts_of(const CalibrationOptions& calibration) {
  std::vector<double> weights;
  for (const CalibrationDataset& dataset : calibration.datasets) weights.push_back(dataset.weight);
  const std::vector<int64_t> counts = shares_of(calibration.num_samples, weights);
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] > 0) continue;
    fail(ErrorKind::invalid_argument,
         "{}: its weight {} is no whole one of {} sequences; give it more weight, or take more sequences",
         calibration.datasets[i].data, weights[i], calibration.num_samples);
  }
  return counts;
}

CalibrationData read_data(const OneshotOptions& options, const DecoderSpec& spec, SelfData self) {
  const CalibrationOptions& calibration = options.calibration;
  check_datasets(calibration, spec);
  const std::vector<int64_t> counts = counts_of(calibration);
  CalibrationData data;
  std::vector<Sequences> parts;
  for (size_t i = 0; i < counts.size(); ++i) {
    // The first, and so an only one, has the seed as it is.
    const auto own = static_cast<uint64_t>(calibration.seed);
    const uint64_t seed = i == 0 ? own : random_bits(own, i);
    parts.push_back(sequences_of({.options = options,
                                  .spec = spec,
                                  .dataset = calibration.datasets[i],
                                  .count = counts[i],
                                  .seed = seed},
                                 self, data));
  }
  data.sequences = interleaved(std::move(parts));
  return data;
}

}  // namespace

CalibrationData calibration_data(const OneshotOptions& options, const DecoderSpec& spec, SelfData self) {
  const auto& calibration = options.calibration;
  if (!calibration.datasets.empty() && !calibration.sequences.empty()) {
    fail(ErrorKind::invalid_argument,
         "{}: a dataset stands beside {} calibration sequences; give one of both",
         calibration.datasets.front().data, calibration.sequences.size());
  }
  if (calibration.sequences.empty() && !calibration.masks.empty()) {
    fail(ErrorKind::invalid_argument, "{} masks without calibration sequences", calibration.masks.size());
  }
  if (!options.recipe.awq) return {};
  if (!calibration.sequences.empty()) return given_sequences(calibration, spec);
  if (calibration.datasets.empty()) {
    fail(ErrorKind::invalid_argument,
         "AWQ needs calibration text: name a .txt or .jsonl file, or \"self\" for text that the model makes "
         "up, "
         "or round to nearest without AWQ");
  }
  throw_if_cancelled(options.cancelled);
  return read_data(options, spec, self);
}

uint64_t self_data_memory(const OneshotOptions& options, const ModelWeights& weights) {
  const auto& datasets = options.calibration.datasets;
  const auto self = std::ranges::find_if(datasets, is_self);
  if (!options.recipe.awq || self == datasets.end()) return 0;
  const DatasetRequest request{.options = options,
                               .spec = weights.spec(),
                               .dataset = *self,
                               .count = options.calibration.num_samples,
                               .seed = 0};
  return weights.checkpoint().byte_size() + self_text_memory(weights.spec(), self_options(request, weights));
}

std::vector<int64_t> shares_of(int64_t total, const std::vector<double>& weights) {
  for (const double weight : weights) {
    if (weight > 0 && std::isfinite(weight)) continue;
    fail(ErrorKind::invalid_argument, "the weight {} of a data set is no number above 0", weight);
  }
  // Relative to the largest, so that no sum of large ones overflows.
  const double largest = weights.empty() ? 1 : *std::ranges::max_element(weights);
  double sum = 0;
  for (const double weight : weights) sum += weight / largest;
  std::vector<int64_t> shares;
  std::vector<double> remainders;
  int64_t left = total;
  for (const double weight : weights) {
    const double exact = static_cast<double>(total) * (weight / largest / sum);
    shares.push_back(std::min(left, static_cast<int64_t>(exact)));
    remainders.push_back(exact - static_cast<double>(shares.back()));
    left -= shares.back();
  }
  std::vector<size_t> order(weights.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::ranges::greater{}, [&](size_t i) { return remainders[i]; });
  for (size_t i = 0; left > 0 && !order.empty(); i = (i + 1) % order.size(), --left) ++shares[order[i]];
  return shares;
}

std::vector<CalibrationDataset> read_datasets(const JsonView& view) {
  const auto read = [](const JsonView& entry) {
    if (!entry.json().is_object()) return CalibrationDataset{.data = entry.as_string()};
    constexpr std::string_view kKeys[] = {"data", "weight", "text_column"};
    check_keys(entry, kKeys);
    CalibrationDataset dataset{.data = entry.at("data").as_string(),
                               .weight = entry.double_or("weight", 1),
                               .text_column = entry.string_or("text_column", "")};
    if (!(dataset.weight > 0 && std::isfinite(dataset.weight))) {
      reject_value(entry.at("weight"), ErrorKind::invalid_argument, "is no number above 0");
    }
    return dataset;
  };
  std::vector<CalibrationDataset> datasets;
  if (!view.json().is_array()) {
    datasets.push_back(read(view));
  } else {
    for (const JsonView& entry : view.elements()) datasets.push_back(read(entry));
  }
  for (const CalibrationDataset& dataset : datasets) {
    if (dataset.data.empty()) reject_value(view, ErrorKind::invalid_argument, "names a data set \"\"");
  }
  return datasets;
}

CalibrationDataset parse_dataset(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon != std::string_view::npos && colon > 0) {
    double weight = 0;
    const char* end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data() + colon + 1, end, weight);
    if (error == std::errc() && rest == end)
      return {.data = std::string(text.substr(0, colon)), .weight = weight};
  }
  return {.data = std::string(text)};
}

}  // namespace salient
