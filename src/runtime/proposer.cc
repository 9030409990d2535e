#include "runtime/proposer.h"

#include <algorithm>

#include "base/error.h"
#include "runtime/generate.h"

namespace salient {
namespace {

/// What guesses may go on with.
class GuessedText {
 public:
  explicit GuessedText(const TokenConstraint* constraint)
      : text_(constraint == nullptr ? nullptr : constraint->copy()) {}

  bool ended() const { return text_ && text_->complete(); }
  std::span<const uint8_t> allowed() { return text_ ? text_->allowed() : std::span<const uint8_t>(); }
  void add(int32_t token) {
    if (text_) text_->advance(token);
  }
  /// False for one that may not follow.
  bool take(int32_t token) {
    if (!text_) return true;
    if (ended()) return false;
    const auto allowed = text_->allowed();
    if (token < 0 || token >= std::ssize(allowed) || allowed[static_cast<size_t>(token)] == 0) return false;
    text_->advance(token);
    return true;
  }

 private:
  std::unique_ptr<TokenConstraint> text_;  // null: none
};

class LookupProposer : public Proposer {
 public:
  std::vector<int32_t> propose(const ProposalRequest& request) override {
    std::vector<int32_t> tokens = looked_up_tokens(request.seen, request.count);
    GuessedText text(request.constraint);
    tokens.erase(std::ranges::find_if_not(tokens, [&](int32_t token) { return text.take(token); }),
                 tokens.end());
    return tokens;
  }
  std::unique_ptr<Proposer> copy() const override { return make_lookup_proposer(); }
};

class DraftProposer : public Proposer {
 public:
  explicit DraftProposer(const Decoder& draft) : draft_(draft), cache_(draft.make_cache()) {}

  std::vector<int32_t> propose(const ProposalRequest& request) override {
    const auto& [seen, count, sampler, constraint, cancelled] = request;
    const int64_t room = context_limit(draft_.spec()) - std::ssize(seen);
    const auto unknown = [&](int32_t token) { return token >= draft_.spec().vocab_size; };
    if (room < 0 || std::ranges::any_of(seen, unknown)) return {};
    std::vector<int32_t> tokens(seen.begin(), seen.end());
    keep_common(tokens);
    GuessedText text(constraint);
    for (int64_t i = 0; i < std::min(count, room + 1) && !text.ended(); ++i) {
      const auto fed = static_cast<size_t>(cache_.length());
      const Tensor logits =
          draft_.forward(std::span(tokens).subspan(fed), cache_, {LogitRows::last, cancelled});
      fed_ = tokens;
      const DrawContext context{.logits = {}, .seen = tokens, .allowed = text.allowed()};
      try {
        tokens.push_back(guess(logits, sampler, context, static_cast<uint64_t>(i)));
      } catch (const Error&) {
        break;  // biases ban what the constraint allows: an error of the text only if it really comes here
      }
      text.add(tokens.back());
    }
    return {tokens.begin() + std::ssize(seen), tokens.end()};
  }

  std::unique_ptr<Proposer> copy() const override { return std::make_unique<DraftProposer>(*this); }

 private:
  /// The token that the sampler gives `ahead` draws after the next one.
  int32_t guess(const Tensor& logits, const Sampler& sampler, DrawContext context, uint64_t ahead) const {
    const ShortlistNeeds needs = shortlist_needs(sampler.options());
    const Shortlists lists = draft_.shortlists(logits, {&needs, 1});
    if (lists.defined()) {
      if (const auto token = sampler.peek(lists[0], context, ahead)) return *token;
    }
    context.logits = logits.values<float>();
    return sampler.peek(context, ahead);
  }

  /// Forgets what the text did not become, and the last token, whose logits are needed again.
  void keep_common(const std::vector<int32_t>& tokens) {
    const auto common = std::ranges::mismatch(fed_, tokens).in1 - fed_.begin();
    cache_.truncate(std::min({cache_.length(), static_cast<int64_t>(common), std::ssize(tokens) - 1}));
  }

  const Decoder& draft_;
  KvCache cache_;
  std::vector<int32_t> fed_;  // of which the cache holds the first ones
};

}  // namespace

std::vector<int32_t> looked_up_tokens(std::span<const int32_t> seen, int64_t count) {
  constexpr size_t kLongestMatch = 3;
  constexpr size_t kShortestMatch = 2;  // what follows a single token is anybody's guess
  if (seen.empty()) return {};
  for (size_t length = std::min(kLongestMatch, seen.size() - 1); length >= kShortestMatch; --length) {
    const auto last = seen.last(length);
    for (size_t begin = seen.size() - length; begin-- > 0;) {
      if (!std::ranges::equal(seen.subspan(begin, length), last)) continue;
      std::vector<int32_t> tokens(seen.begin() + static_cast<ptrdiff_t>(begin + length), seen.end());
      for (size_t i = 0; std::ssize(tokens) < count; ++i) tokens.push_back(int32_t{tokens[i]});
      tokens.resize(static_cast<size_t>(count));
      return tokens;
    }
  }
  return {};
}

std::unique_ptr<Proposer> make_lookup_proposer() { return std::make_unique<LookupProposer>(); }

std::unique_ptr<Proposer> make_draft_proposer(const Decoder& draft) {
  if (draft.spec().linear_attention) {
    fail(ErrorKind::unsupported,
         "{} has linear attention, whose states cannot go back to where a proposal was wrong: it is no draft",
         draft.spec().architecture);
  }
  return std::make_unique<DraftProposer>(draft);
}

}  // namespace salient
