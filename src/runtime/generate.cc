#include "runtime/generate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace salient {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double rate(int64_t count, double seconds) { return seconds > 0 ? static_cast<double>(count) / seconds : 0; }

void check(const DecoderSpec& spec, const GenerateRequest& request) {
  if (request.prompt.empty()) fail(ErrorKind::invalid_argument, "the prompt is empty");
  if (request.max_tokens < 0)
    fail(ErrorKind::invalid_argument, "max_tokens {} is negative", request.max_tokens);
  const int64_t limit = context_limit(spec);
  if (static_cast<int64_t>(request.prompt.size()) > limit) {
    fail(ErrorKind::invalid_argument, "the prompt has {} tokens, the model's context {}",
         request.prompt.size(), limit);
  }
}

}  // namespace

std::string_view to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::stop_token:
      return "stop_token";
    case FinishReason::stop_text:
      return "stop_text";
    case FinishReason::max_tokens:
      return "max_tokens";
    case FinishReason::context_limit:
      return "context_limit";
    case FinishReason::callback:
      return "callback";
    case FinishReason::cancelled:
      return "cancelled";
  }
  return "max_tokens";
}

double GenerateResult::prefill_tokens_per_second() const { return rate(prompt_tokens, prefill_seconds); }

double GenerateResult::decode_tokens_per_second() const { return rate(decode_steps, decode_seconds); }

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

TokenStream::TokenStream(const Decoder& decoder, const GenerateRequest& request)
    : decoder_(decoder),
      max_tokens_((check(decoder.spec(), request), request.max_tokens)),
      min_tokens_(request.min_tokens),
      stop_tokens_(request.stop_tokens.begin(), request.stop_tokens.end()),
      cancelled_(request.cancelled),
      sampler_(request.sampling),
      cache_(decoder.make_cache()),
      seen_(request.prompt.begin(), request.prompt.end()) {
  result_.prompt_tokens = static_cast<int64_t>(request.prompt.size());
}

std::optional<int32_t> TokenStream::next() {
  if (ended_) return std::nullopt;
  try {
    return step();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::cancelled) throw;
    end(FinishReason::cancelled);
    return std::nullopt;
  }
}

std::optional<int32_t> TokenStream::step() {
  if (!prepare_logits()) return std::nullopt;
  const auto start = Clock::now();
  if (static_cast<int64_t>(result_.tokens.size()) < min_tokens_) forbid_stop_tokens();
  const int32_t token = sampler_.sample(logits_.values<float>(), seen_);
  result_.decode_seconds += seconds_since(start);
  if (std::ranges::find(stop_tokens_, token) != stop_tokens_.end()) {
    result_.stop_token = token;
    end(FinishReason::stop_token);
    return std::nullopt;
  }
  seen_.push_back(token);
  result_.tokens.push_back(token);
  return token;
}

void TokenStream::forbid_stop_tokens() {
  const auto logits = logits_.mutable_values<float>();
  for (const int32_t token : stop_tokens_) {
    if (token >= 0 && static_cast<size_t>(token) < logits.size()) {
      logits[static_cast<size_t>(token)] = -std::numeric_limits<float>::infinity();
    }
  }
}

/// False when no token may follow.
bool TokenStream::prepare_logits() {
  const auto start = Clock::now();
  if (!logits_.defined()) {
    forward(seen_);
    result_.prefill_seconds = seconds_since(start);
  }
  if (static_cast<int64_t>(result_.tokens.size()) >= max_tokens_) {
    end(FinishReason::max_tokens);
  } else if (!result_.tokens.empty() && cache_.length() == context_limit(decoder_.spec())) {
    end(FinishReason::context_limit);
  } else if (!result_.tokens.empty()) {
    forward({&seen_.back(), 1});
    ++result_.decode_steps;
    result_.decode_seconds += seconds_since(start);
  }
  return !ended_;
}

void TokenStream::forward(std::span<const int32_t> tokens) {
  throw_if_cancelled(cancelled_);
  logits_ = decoder_.forward(tokens, cache_, {LogitRows::last, cancelled_});
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
