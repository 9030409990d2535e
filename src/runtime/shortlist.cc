#include "runtime/shortlist.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/candidates.h"

namespace salient {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Nearer than this no decision is taken without the whole row: far more than rounding can do to sums over a
/// vocabulary.
constexpr double kMargin = 1e-9;

bool changes_logits(const SamplingOptions& options) {
  return options.repetition_penalty != 1.0 || !options.logit_bias.empty();
}

/// Whether no logit can rise, so that those that are not in a list stay below its last one.
bool only_lowers(const SamplingOptions& options) {
  return options.repetition_penalty >= 1.0 &&
         std::ranges::all_of(options.logit_bias, [](const auto& entry) { return entry.second <= 0; });
}

bool may_be_drawn(int32_t token, const DrawContext& context) {
  if (std::ranges::find(context.forbidden, token) != context.forbidden.end()) return false;
  return context.allowed.empty() ||
         (token < std::ssize(context.allowed) && context.allowed[static_cast<size_t>(token)] != 0);
}

struct ListedCandidate : Candidate {
  bool changed;
};

/// The candidates of a list behind bias and penalty, likeliest first, and where all others are.
struct Few {
  std::vector<ListedCandidate> candidates;
  double bound = -kInfinity;  ///< no other logit is larger
  bool complete = false;      ///< there are no others

  Few(const Shortlist& list, const SamplingOptions& options, const DrawContext& context) {
    for (size_t i = 0; i < list.logits.size(); ++i) {
      const float logit = list.logits[i];
      // Nothing finite comes behind these.
      complete = complete || list.tokens[i] < 0 || std::isnan(logit) || logit == -INFINITY;
      if (complete) break;
      if (std::isfinite(logit) && may_be_drawn(list.tokens[i], context))
        candidates.push_back({{list.tokens[i], double{logit}}, false});
    }
    if (!complete) {
      const bool ties = list.reaching != std::ssize(list.logits);
      bound = double{ties ? list.logits.back() : std::nextafter(list.logits.back(), -INFINITY)};
    }
    if (changes_logits(options)) change(options, context.seen);
    std::erase_if(candidates, [](const Candidate& candidate) { return !std::isfinite(candidate.logit); });
    std::ranges::sort(candidates, likelier);
  }

 private:
  void change(const SamplingOptions& options, std::span<const int32_t> seen) {
    std::ranges::sort(candidates, {}, &Candidate::token);
    std::vector<bool> penalize(candidates.size());
    for (const int32_t token : seen) {
      const auto found = std::ranges::lower_bound(candidates, token, {}, &Candidate::token);
      if (found != candidates.end() && found->token == token)
        penalize[static_cast<size_t>(found - candidates.begin())] = true;
    }
    for (size_t i = 0; i < candidates.size(); ++i) {
      double& logit = candidates[i].logit;
      const double before = logit;
      const auto bias = options.logit_bias.find(candidates[i].token);
      if (bias != options.logit_bias.end()) logit += bias->second;
      if (penalize[i]) logit = penalized(logit, options.repetition_penalty);
      candidates[i].changed = logit != before;
    }
  }
};

/// What is known of a sum.
struct Range {
  double least = 0;
  double most = 0;
};

/// Weights exp(score) of the tokens that stand before all others, likeliest first, and of the others.
class Weights {
 public:
  Weights(std::span<const Candidate> before, Range others, double most_of_others)
      : others_(others), most_of_others_(most_of_others) {
    for (const Candidate& candidate : before)
      entries_.push_back({candidate.token, std::exp(candidate.logit)});
  }

  std::optional<int32_t> draw(const SamplingOptions& options, double uniform) {
    if (options.top_p < 1 && !keep_top_p(options.top_p)) return std::nullopt;
    if (options.min_p > 0 && !keep_min_p(options.min_p)) return std::nullopt;
    const Range all = total();
    const double margin = kMargin * all.most;
    double sum = 0;
    for (const TokenProbability& entry : entries_) {
      sum += entry.probability;
      if (sum <= uniform * all.least - margin) continue;
      if (sum > uniform * all.most + margin) return entry.token;
      break;
    }
    return std::nullopt;
  }

 private:
  Range total() const {
    double sum = 0;
    for (const TokenProbability& entry : entries_) sum += entry.probability;
    return {sum + others_.least, sum + others_.most};
  }

  /// False where it cannot be told how many are kept.
  bool keep_top_p(double top_p) {
    const Range all = total();
    double kept = 0;
    size_t first = 0;  // number that may be all that is kept
    for (size_t count = 1; count <= entries_.size(); ++count) {
      kept += entries_[count - 1].probability;
      if (first == 0 && (all.least - kept) / all.least <= 1 - top_p + kMargin) first = count;
      if (!((all.most - kept) / all.most <= 1 - top_p - kMargin)) continue;
      if (first != count) return false;
      entries_.resize(count);
      others_ = {};
      most_of_others_ = 0;
      return true;
    }
    return false;
  }

  bool keep_min_p(double min_p) {
    if (most_of_others_ >= min_p * (1 - kMargin)) return false;
    others_ = {};
    while (entries_.size() > 1 && entries_.back().probability < min_p * (1 - kMargin)) entries_.pop_back();
    return entries_.size() == 1 || entries_.back().probability > min_p * (1 + kMargin);
  }

  std::vector<TokenProbability> entries_;  // not normalised: the likeliest has 1
  Range others_;
  double most_of_others_;  // of a single one
};

/// Of the weights that are not in the list, the largest candidate having 1.
Range weights_beyond(const Shortlist& list, double largest, double temperature, bool changed) {
  if (!list.sum || !std::isfinite(*list.sum)) return {0, kInfinity};
  const double first = list.logits.front();
  double listed = 0;
  for (const float logit : list.logits) listed += std::exp(score(logit, first, temperature));
  const double factor = std::exp(score(first, largest, temperature));
  const double sum = *list.sum;
  return {changed ? 0 : factor * std::max(0.0, sum * (1 - kSumError) - listed),
          factor * std::max(0.0, sum * (1 + kSumError) - listed)};
}

}  // namespace

ShortlistNeeds shortlist_needs(const SamplingOptions& options) {
  if (!only_lowers(options) || options.top_k > kMostLargest) return {};
  const bool changes = changes_logits(options);
  if (options.temperature == 0) return {.wanted = changes ? kMostLargest : 1};
  const auto scale = static_cast<float>(1 / options.temperature);
  if (options.top_k == 0 || options.top_k == kMostLargest) return {.wanted = kMostLargest, .scale = scale};
  return {.wanted = changes ? kMostLargest : options.top_k + 1};
}

std::optional<int32_t> draw_from(const Shortlist& list, const SamplingOptions& options,
                                 const DrawContext& context, double uniform) {
  if (list.logits.empty() || !only_lowers(options)) return std::nullopt;
  const Few few(list, options, context);
  if (few.candidates.empty()) return std::nullopt;
  const ListedCandidate& best = few.candidates.front();
  // One that is as it was stands before others that are as large: the list has the lowest of their ids.
  const bool stands_first = few.complete || best.logit > few.bound || !best.changed;
  if (options.temperature == 0) return stands_first ? std::optional(best.token) : std::nullopt;

  const double limit = score(few.bound, best.logit, options.temperature);
  std::vector<Candidate> before;  // all others, whatever these are
  Range others;
  for (const ListedCandidate& candidate : few.candidates) {
    const double own = score(candidate.logit, best.logit, options.temperature);
    if (few.complete || own > limit) {
      before.push_back({candidate.token, own});
    } else {
      others.least += std::exp(own);
    }
  }
  if (before.empty()) return std::nullopt;
  if (few.complete || (options.top_k > 0 && options.top_k <= std::ssize(before))) {
    keep_top_k(options.top_k, before);
    return draw_from(distribution_of(std::move(before), options), uniform);
  }
  if (options.top_k > 0) return std::nullopt;
  const bool changed = changes_logits(options) || !context.forbidden.empty() || !context.allowed.empty();
  const Range beyond = weights_beyond(list, best.logit, options.temperature, changed);
  others = {others.least + beyond.least, others.least + beyond.most};
  std::ranges::sort(before, likelier);  // the temperature may have made some equal
  return Weights(before, others, std::exp(limit)).draw(options, uniform);
}

Shortlists::Shortlists(Backend& backend, const Tensor& logits, std::span<const ShortlistNeeds> needs) {
  int64_t wanted = 0;
  bool sums = false;
  std::vector<float> scales(needs.size());
  for (size_t row = 0; row < needs.size(); ++row) {
    wanted = std::max(wanted, needs[row].wanted);
    sums = sums || needs[row].scale;
    scales[row] = needs[row].scale.value_or(0);
  }
  if (wanted == 0) return;
  values_ = std::make_shared<const LargestValues>(
      backend.largest({.x = logits, .wanted = wanted, .scales = sums ? scales : std::span<const float>()}));
  scales_ = std::make_shared<const std::vector<float>>(std::move(scales));
}

Shortlist Shortlists::operator[](int64_t row) const {
  const auto wanted = static_cast<size_t>(values_->wanted);
  const auto at = static_cast<size_t>(first_ + row);
  Shortlist list{.logits = std::span(values_->values).subspan(at * wanted, wanted),
                 .tokens = std::span(values_->indices).subspan(at * wanted, wanted)};
  if (values_->sums.empty()) return list;
  list.reaching = values_->reaching[at];
  if ((*scales_)[at] != 0) list.sum = values_->sums[at];
  return list;
}

Shortlists Shortlists::from(int64_t row) const {
  Shortlists result = *this;
  result.first_ += row;
  return result;
}

}  // namespace salient
