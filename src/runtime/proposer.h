#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/decoder.h"
#include "runtime/sampler.h"
#include "runtime/token_constraint.h"

namespace salient {

/// At most `count` tokens that may follow `seen`.
struct ProposalRequest {
  std::span<const int32_t> seen;
  int64_t count;
  const Sampler& sampler;  ///< about to draw the first of them
  /// What may follow `seen`; null: any token. What it forbids is not proposed.
  const TokenConstraint* constraint = nullptr;
  const CancellationFlag* cancelled = nullptr;
};

/// Guesses the tokens that a text goes on with, for a model to look at all of them in one pass.
///
/// Each token is drawn from the model's own distribution with the number that its place has, as without
/// guesses; a guess counts if the draw gives it. So the text is the same whatever is proposed, also when it
/// is sampled. Speculative sampling by rejection (Leviathan et al. 2023) keeps the distribution only; what it
/// accepts more of a guess that was sampled, this gets back by drawing the guess with the same number.
class Proposer {
 public:
  virtual ~Proposer() = default;
  virtual std::vector<int32_t> propose(const ProposalRequest& request) = 0;
  /// One for a copy of the sequence.
  virtual std::unique_ptr<Proposer> copy() const = 0;
};

/// Prompt look-up: what followed the last tokens where they came last before, over and over where the end of
/// `seen` cuts it short: `count` tokens, or none. The longest match counts, of three tokens or two.
std::vector<int32_t> looked_up_tokens(std::span<const int32_t> seen, int64_t count);

std::unique_ptr<Proposer> make_lookup_proposer();

/// What a smaller model would draw. It must outlive the proposer. Errors: unsupported for linear attention,
/// whose states cannot go back to where a guess was wrong.
std::unique_ptr<Proposer> make_draft_proposer(const Decoder& draft);

}  // namespace salient
