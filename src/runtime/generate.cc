#include "runtime/generate.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/stopwatch.h"
#include "runtime/logprobs.h"

namespace salient {
namespace {

double rate(int64_t count, double seconds) { return seconds > 0 ? static_cast<double>(count) / seconds : 0; }

void check_not_negative(std::string_view name, int64_t value) {
  if (value < 0) fail(ErrorKind::invalid_argument, "{} {} is negative", name, value);
}

/// `tokens`: before the first that is drawn.
void check(const DecoderSpec& spec, const GenerateRequest& request, size_t tokens) {
  if (tokens == 0) fail(ErrorKind::invalid_argument, "the prompt is empty");
  check_not_negative("max_tokens", request.max_tokens);
  check_not_negative("logprobs", request.logprobs.value_or(0));
  const int64_t limit = context_limit(spec);
  if (static_cast<int64_t>(tokens) > limit)
    fail(ErrorKind::invalid_argument, "the prompt has {} tokens, the model's context {}", tokens, limit);
  for (const auto& [token, bias] : request.sampling.logit_bias) {
    if (token >= 0 && token < spec.vocab_size) continue;
    fail(ErrorKind::invalid_argument, "logit_bias is for token {}, but the vocabulary has {} entries", token,
         spec.vocab_size);
  }
}

SamplingOptions with_seed(SamplingOptions options, uint64_t seed) {
  options.seed = seed;
  return options;
}

/// Without them a text is drawn from its whole row, or ends with what is in the way of that.
Shortlists shortlists_if_possible(const Decoder& decoder, const Tensor& logits,
                                  std::span<const ShortlistNeeds> needs) {
  try {
    return decoder.shortlists(logits, needs);
  } catch (const Error&) {
    return {};
  }
}

/// Null without speculation.
std::unique_ptr<Proposer> make_proposer(const DecoderSpec& spec, const SpeculationOptions& options) {
  check_not_negative("the number of tokens to propose", options.tokens);
  if (options.tokens == 0) return nullptr;
  if (spec.linear_attention) {
    fail(ErrorKind::unsupported,
         "{} has linear attention, whose states cannot go back to where a proposal was wrong: no speculation",
         spec.architecture);
  }
  return options.draft == nullptr ? make_lookup_proposer() : make_draft_proposer(*options.draft);
}

}  // namespace

std::string_view to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::stop_token:
      return "stop_token";
    case FinishReason::stop_text:
      return "stop_text";
    case FinishReason::complete:
      return "complete";
    case FinishReason::max_tokens:
      return "max_tokens";
    case FinishReason::context_limit:
      return "context_limit";
    case FinishReason::callback:
      return "callback";
    case FinishReason::cancelled:
      return "cancelled";
    case FinishReason::error:
      return "error";
  }
  return "max_tokens";
}

double GenerateResult::prefill_tokens_per_second() const {
  return rate(prompt_tokens - cached_tokens, prefill_seconds);
}

double GenerateResult::decode_tokens_per_second() const {
  const int64_t drawn = std::ssize(tokens) + (stop_token ? 1 : 0);
  return rate(std::max<int64_t>(0, drawn - 1), decode_seconds);
}

int64_t context_limit(const DecoderSpec& spec) {
  if (spec.alibi) return INT32_MAX;  // no position is out of reach
  if (spec.ropes.empty()) return spec.max_position_embeddings;
  const RopeSpec& rope = spec.ropes.front();
  double stretched = 0;
  if (rope.scaling == RopeScaling::linear || rope.scaling == RopeScaling::dynamic) {
    stretched = rope.factor * static_cast<double>(rope.max_position_embeddings);
  } else if (rope.scaling != RopeScaling::none) {
    stretched = rope.factor * static_cast<double>(rope.original_max_position_embeddings);
  }
  // Positions are i32-sized in the files' bounds; the factor may be absurd.
  const auto bounded = static_cast<int64_t>(std::min(stretched, 0x1p31));
  return std::max(spec.max_position_embeddings, bounded);
}

void check_window(const DecoderSpec& spec, int64_t tokens) {
  if (tokens <= context_limit(spec)) return;
  fail(ErrorKind::invalid_argument, "a sequence of {} tokens is longer than the model's {} positions", tokens,
       context_limit(spec));
}

TokenStream::TokenStream(const Decoder& decoder, const GenerateRequest& request, SequenceState state)
    : decoder_(decoder),
      sampling_(request.sampling),
      max_tokens_(request.max_tokens),
      min_tokens_(request.min_tokens),
      stop_tokens_(request.stop_tokens.begin(), request.stop_tokens.end()),
      cancelled_(request.cancelled),
      logprobs_(request.logprobs),
      sampler_(request.sampling, static_cast<uint64_t>(state.draws)),
      cache_(std::move(state.cache)),
      seen_(std::move(state.tokens)),
      most_proposed_(request.speculation.tokens),
      next_proposed_(most_proposed_),
      proposer_(make_proposer(decoder.spec(), request.speculation)),
      constraint_(request.constraint == nullptr ? nullptr : request.constraint->copy()) {
  seen_.insert(seen_.end(), request.prompt.begin(), request.prompt.end());
  check(decoder.spec(), request, seen_.size());
  result_.prompt_tokens = std::ssize(seen_);
  result_.cached_tokens = cache_.length();
  if (cache_.length() < std::ssize(seen_)) return;
  if (!state.logits.defined())
    fail(ErrorKind::invalid_argument, "a state without logits has all of its {} tokens cached", seen_.size());
  take_logits(state.logits.reshape({1, decoder.spec().vocab_size}));
}

TokenStream::TokenStream(const TokenStream& other, uint64_t seed)
    : decoder_(other.decoder_),
      sampling_(with_seed(other.sampling_, seed)),
      max_tokens_(other.max_tokens_),
      min_tokens_(other.min_tokens_),
      stop_tokens_(other.stop_tokens_),
      cancelled_(other.cancelled_),
      logprobs_(other.logprobs_),
      sampler_(sampling_, other.sampler_.draws()),
      cache_(other.cache_),
      seen_(other.seen_),
      logits_(other.logits_),
      row_(other.row_),
      shortlists_(other.shortlists_),
      most_proposed_(other.most_proposed_),
      next_proposed_(other.next_proposed_),
      proposer_(other.proposer_ ? other.proposer_->copy() : nullptr),
      proposed_(other.proposed_),
      constraint_(other.constraint_ ? other.constraint_->copy() : nullptr),
      ended_(other.ended_),
      result_(other.result_) {}

template <typename Work>
bool TokenStream::unless_cancelled(const Work& work) {
  try {
    work();
    return true;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::cancelled) throw;
    end(FinishReason::cancelled);
    return false;
  }
}

void TokenStream::begin_with(std::span<const KvBlock> blocks) {
  cache_.begin_with(blocks);
  result_.cached_tokens = cache_.length();
}

void TokenStream::begin_as(const TokenStream& other) {
  cache_ = other.cache_;
  take_logits(other.logits_);
  result_.cached_tokens = cache_.length();
}

void TokenStream::forget() {
  cache_ = decoder_.make_cache();
  logits_ = Tensor();
  shortlists_ = {};
  proposer_.reset();
}

void TokenStream::prefill() {
  if (ended_ || logits_.defined()) return;
  unless_cancelled([&] {
    const Stopwatch watch(result_.prefill_seconds);
    throw_if_cancelled(cancelled_);
    take_logits(decoder_.forward(std::span(seen_).subspan(static_cast<size_t>(cache_.length())), cache_,
                                 {LogitRows::last, cancelled_}));
  });
}

std::optional<int32_t> TokenStream::next() {
  prefill();
  if (!may_go_on()) return std::nullopt;
  const Stopwatch watch(result_.decode_seconds);
  if (needs_pass() && !unless_cancelled([&] { run_pass(); })) return std::nullopt;
  return draw();
}

DrawContext TokenStream::draw_context() {
  DrawContext context{.logits = {}, .seen = seen_};
  if (constraint_ || std::ssize(result_.tokens) < min_tokens_) context.forbidden = stop_tokens_;
  if (constraint_) context.allowed = constraint_->allowed();
  return context;
}

ShortlistNeeds TokenStream::needs() const {
  if (logprobs_) return {};  // which the whole row goes into
  ShortlistNeeds needs = shortlist_needs(sampling_);
  // The first one may be forbidden.
  if (needs.wanted > 0 && (constraint_ || min_tokens_ > 0)) needs.wanted = kMostLargest;
  return needs;
}

int32_t TokenStream::draw_token() {
  DrawContext context = draw_context();
  if (!shortlists_.defined()) {
    const std::vector<ShortlistNeeds> all(static_cast<size_t>(logits_.dim(0)), needs());
    shortlists_ = decoder_.shortlists(logits_, all);
  }
  // The row alone, where its bytes have to be brought from a device.
  Tensor logits = row();
  if (shortlists_.defined()) {
    if (const auto token = sampler_.sample(shortlists_[row_], context)) return *token;
    logits = logits.duplicate();
  }
  context.logits = logits.values<float>();
  return sampler_.sample(context);
}

std::optional<int32_t> TokenStream::draw() {
  const int32_t token = draw_token();
  const Tensor logits = this->row();
  const auto row = static_cast<size_t>(row_);
  const bool accepted = row < proposed_.size() && proposed_[row] == token;
  result_.accepted_tokens += accepted ? 1 : 0;
  if (std::ranges::find(stop_tokens_, token) != stop_tokens_.end()) {
    result_.stop_token = token;
    end(FinishReason::stop_token);
    return std::nullopt;
  }
  row_ = accepted ? row_ + 1 : logits_.dim(0);
  if (!proposed_.empty() && !accepted) note_acceptance(static_cast<int64_t>(row));
  if (logprobs_) result_.logprobs.push_back(token_logprobs(logits.values<float>(), token, *logprobs_));
  seen_.push_back(token);
  result_.tokens.push_back(token);
  if (constraint_) constraint_->advance(token);
  if (constraint_ && constraint_->complete()) end(FinishReason::complete);
  return token;
}

/// So many of the last proposals were drawn.
void TokenStream::note_acceptance(int64_t count) {
  const bool all = count == std::ssize(proposed_);
  next_proposed_ = std::min(most_proposed_, all ? 2 * std::max(next_proposed_, count) : count + 1);
}

bool TokenStream::may_go_on() {
  if (ended_) return false;
  if (std::ssize(result_.tokens) >= max_tokens_) {
    end(FinishReason::max_tokens);
  } else if (std::ssize(seen_) > context_limit(decoder_.spec())) {
    end(FinishReason::context_limit);
  }
  return !ended_;
}

void TokenStream::propose() {
  cache_.truncate(std::ssize(seen_) - 1);
  const int64_t wanted = max_tokens_ - std::ssize(result_.tokens) - 1;
  const int64_t room = context_limit(decoder_.spec()) - std::ssize(seen_);
  const int64_t count = std::min({next_proposed_, wanted, room});
  proposed_.clear();
  if (count > 0) proposed_ = proposer_->propose({seen_, count, sampler_, constraint_.get(), cancelled_});
  // A draft's vocabulary may be filled up to more entries than the model's.
  const auto unknown = [&](int32_t token) { return token >= decoder_.spec().vocab_size; };
  proposed_.erase(std::ranges::find_if(proposed_, unknown), proposed_.end());
  result_.proposed_tokens += std::ssize(proposed_);
}

/// Of the last token and what is proposed behind it.
void TokenStream::run_pass() {
  throw_if_cancelled(cancelled_);
  if (proposer_) propose();
  std::vector<int32_t> tokens{seen_.back()};
  tokens.insert(tokens.end(), proposed_.begin(), proposed_.end());
  take_logits(tokens.size() == 1 ? decoder_.forward(tokens, cache_, {LogitRows::last, cancelled_})
                                 : decoder_.forward_each(tokens, cache_, cancelled_));
  ++result_.decode_steps;
}

void TokenStream::run(std::span<const Part> parts, const CancellationFlag* cancelled) {
  if (parts.empty()) return;
  std::vector<SequencePart> sequences;
  std::vector<ShortlistNeeds> needs;
  for (const auto& [stream, tokens] : parts) {
    const auto begin = static_cast<size_t>(stream->cache_.length());
    sequences.push_back({.tokens = std::span(stream->seen_).subspan(begin, static_cast<size_t>(tokens)),
                         .cache = stream->cache_,
                         .sequence_length = std::ssize(stream->seen_),
                         .logit_rows = tokens == stream->unrun() ? 1 : 0});
    if (sequences.back().logit_rows > 0) needs.push_back(stream->needs());
  }
  double seconds = 0;
  Tensor logits;
  Shortlists shortlists;
  {
    const Stopwatch watch(seconds);
    const Decoder& decoder = parts[0].stream->decoder_;
    logits = decoder.run(sequences, cancelled);
    shortlists = shortlists_if_possible(decoder, logits, needs);
  }
  int64_t row = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    TokenStream& stream = *parts[i].stream;
    (stream.in_prompt() ? stream.result_.prefill_seconds : stream.result_.decode_seconds) += seconds;
    if (!stream.in_prompt()) ++stream.result_.decode_steps;
    if (sequences[i].logit_rows == 0) continue;
    stream.take_logits(logits.slice(row, row + 1));
    if (shortlists.defined() && needs[static_cast<size_t>(row)].wanted > 0)
      stream.shortlists_ = shortlists.from(row);
    ++row;
  }
}

void TokenStream::take_logits(Tensor logits) {
  logits_ = std::move(logits);
  row_ = 0;
  shortlists_ = {};
}

SequenceState TokenStream::state() {
  cache_.truncate(certain_positions());
  SequenceState state(cache_);
  state.tokens = seen_;
  state.draws = static_cast<int64_t>(sampler_.draws());
  if (!needs_pass()) state.logits = logits_.slice(row_, row_ + 1).reshape({decoder_.spec().vocab_size});
  return state;
}

void TokenStream::stop_with(const Error& failure) {
  end(FinishReason::error);
  result_.failure = failure;
}

void TokenStream::end(FinishReason reason) {
  ended_ = true;
  result_.reason = reason;
}

GenerateResult generate(const Decoder& decoder, const GenerateRequest& request,
                        const TokenCallback& on_token) {
  TokenStream stream(decoder, request);
  while (const std::optional<int32_t> token = stream.next()) {
    if (!on_token(*token)) stream.stop();
  }
  return stream.result();
}

}  // namespace salient
