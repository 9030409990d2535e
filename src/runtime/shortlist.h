#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "runtime/sampler.h"

namespace salient {

/// What there has to be of a row of logits for a token to be drawn without the others.
struct ShortlistNeeds {
  int64_t wanted = 0;            ///< largest logits; 0: it takes the whole row
  std::optional<float> scale{};  ///< of the sum over the row, if that is wanted
};

/// What tokens may be drawn from where the settings allow: most of them leave nothing of a row but what a few
/// values decide, if only it is known that all others are less.
ShortlistNeeds shortlist_needs(const SamplingOptions& options);

/// The largest logits of a row, and what is known of the rest.
struct Shortlist {
  std::span<const float> logits;    ///< as LargestValues has them
  std::span<const int32_t> tokens;  ///< -1: there are no more
  std::optional<float> sum{};       ///< of exp((logit - the largest) scale) over the row
  std::optional<int64_t> reaching{};
};

/// The token that `draw` gives for the whole row, whose logits `context` need not have; nothing where the
/// list does not tell. `uniform` of [0, 1).
std::optional<int32_t> draw_from(const Shortlist& list, const SamplingOptions& options,
                                 const DrawContext& context, double uniform);

/// Those of the rows of a pass, found together. Copies share memory.
class Shortlists {
 public:
  Shortlists() = default;
  /// Of logits [rows, vocab]; none where no row can do with one.
  Shortlists(Backend& backend, const Tensor& logits, std::span<const ShortlistNeeds> needs);

  bool defined() const { return values_ != nullptr; }
  Shortlist operator[](int64_t row) const;
  /// Row `row` as the first.
  Shortlists from(int64_t row) const;

 private:
  std::shared_ptr<const LargestValues> values_;
  std::shared_ptr<const std::vector<float>> scales_;  // of each row; 0: its sum was not wanted
  int64_t first_ = 0;
};

}  // namespace salient
