#include "calibrate/self_text.h"

#include <algorithm>

#include "base/error.h"
#include "base/parallel.h"
#include "base/random.h"
#include "runtime/generate.h"
#include "runtime/sampler.h"

namespace salient {
namespace {

/// Of the softmax as it is: what the model takes for text, no more and no less likely.
constexpr double kTemperature = 1;

/// More rows make a product hardly faster per row.
constexpr uint64_t kMostTogether = 64;

/// Keys and values of one sequence.
uint64_t cache_bytes(const DecoderSpec& spec, int64_t length) {
  const auto blocks = static_cast<uint64_t>((length + kPageRows - 1) / kPageRows);
  return std::max<uint64_t>(1, blocks * KvLayout(spec, KvType::fp32).block_bytes);
}

/// Depends on nothing but the sizes, so that every machine draws the same sequences together.
int64_t drawn_together(const DecoderSpec& spec, const SelfTextOptions& options) {
  const uint64_t one = cache_bytes(spec, options.length);
  const uint64_t fit = std::clamp<uint64_t>(options.cache_bytes / one, 1, kMostTogether);
  return std::min(options.sequences, static_cast<int64_t>(fit));
}

/// Draws a few sequences side by side.
class SelfTextGroup {
 public:
  SelfTextGroup(const Decoder& decoder, const SelfTextStart& start, const SelfTextOptions& options,
                int64_t first, int64_t count)
      : decoder_(decoder), start_(start), options_(options), first_(first) {
    for (int64_t i = 0; i < count; ++i) {
      caches_.push_back(decoder.make_cache());
      sequences_.push_back({first_token(i)});
    }
  }

  std::vector<std::vector<int32_t>> run(const std::function<void()>& on_position) {
    std::vector<int32_t> last(sequences_.size());
    for (int64_t position = 1; position < options_.length; ++position) {
      for (size_t i = 0; i < last.size(); ++i) last[i] = sequences_[i].back();
      Tensor logits = decoder_.step(last, caches_, options_.cancelled);
      parallel_for(sequences_.size(), 1, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) sequences_[i].push_back(next_token(i, position, logits));
      });
      on_position();
    }
    return std::move(sequences_);
  }

 private:
  /// Each sequence has random numbers of its own, whatever is drawn beside it.
  uint64_t seed_of(int64_t index) const {
    return random_bits(options_.seed, static_cast<uint64_t>(first_ + index));
  }

  int32_t first_token(int64_t index) const {
    if (!start_.prefix.empty()) return start_.prefix.front();
    return start_.first_tokens[random_bits(seed_of(index), 0) % start_.first_tokens.size()];
  }

  int32_t next_token(size_t index, int64_t position, const Tensor& logits) const {
    if (static_cast<size_t>(position) < start_.prefix.size())
      return start_.prefix[static_cast<size_t>(position)];
    const auto row = logits.values<float>().subspan(index * static_cast<size_t>(logits.dim(1)),
                                                    static_cast<size_t>(start_.vocabulary));
    const auto counter = static_cast<uint64_t>(position);
    return draw_token(row, kTemperature, random_uniform(seed_of(static_cast<int64_t>(index)), counter));
  }

  const Decoder& decoder_;
  const SelfTextStart& start_;
  const SelfTextOptions& options_;
  int64_t first_;
  std::vector<KvCache> caches_;
  std::vector<std::vector<int32_t>> sequences_;
};

}  // namespace

SelfTextStart self_text_start(const Tokenizer& tokenizer, const DecoderSpec& spec) {
  SelfTextStart start;
  start.vocabulary = std::min<int64_t>(static_cast<int64_t>(tokenizer.vocabulary_size()), spec.vocab_size);
  const auto framed = tokenizer.encode("a", Tokenizer::SpecialTokens::add);
  const auto plain = tokenizer.encode("a", Tokenizer::SpecialTokens::omit);
  const auto text = std::search(framed.begin(), framed.end(), plain.begin(), plain.end());
  if (!plain.empty()) start.prefix.assign(framed.begin(), text);
  for (int64_t id = 0; id < start.vocabulary; ++id) {
    if (!tokenizer.is_special(static_cast<int32_t>(id)))
      start.first_tokens.push_back(static_cast<int32_t>(id));
  }
  if (start.first_tokens.empty()) {
    fail(ErrorKind::invalid_argument, "a vocabulary of {} tokens without one that stands for text",
         start.vocabulary);
  }
  return start;
}

std::vector<std::vector<int32_t>> sample_self_text(const Decoder& decoder, const SelfTextStart& start,
                                                   const SelfTextOptions& options) {
  check_window(decoder.spec(), options.length);
  const int64_t together = drawn_together(decoder.spec(), options);
  const int64_t total = options.sequences * options.length;
  std::vector<std::vector<int32_t>> result;
  for (int64_t first = 0; first < options.sequences; first += together) {
    const int64_t count = std::min(together, options.sequences - first);
    int64_t done = first * options.length + count;
    for (auto& sequence : SelfTextGroup(decoder, start, options, first, count).run([&] {
           done += count;
           if (options.on_progress) options.on_progress(done, total);
         })) {
      result.push_back(std::move(sequence));
    }
  }
  return result;
}

uint64_t self_text_memory(const DecoderSpec& spec, const SelfTextOptions& options) {
  const auto together = static_cast<uint64_t>(drawn_together(spec, options));
  return together *
         (cache_bytes(spec, options.length) + static_cast<uint64_t>(spec.vocab_size) * sizeof(float));
}

}  // namespace salient
