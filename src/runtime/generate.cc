#include "runtime/generate.h"

#include <algorithm>
#include <chrono>
#include <cmath>

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

/// One text in the making.
class TokenLoop {
 public:
  TokenLoop(const Decoder& decoder, const GenerateRequest& request)
      : decoder_(decoder),
        request_(request),
        sampler_(request.sampling),
        cache_(decoder.make_cache()),
        seen_(request.prompt.begin(), request.prompt.end()) {
    result_.prompt_tokens = static_cast<int64_t>(request.prompt.size());
  }

  GenerateResult run(const TokenCallback& on_token) {
    try {
      result_.reason = loop(on_token);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::cancelled) throw;
      result_.reason = FinishReason::cancelled;
    }
    return std::move(result_);
  }

 private:
  FinishReason loop(const TokenCallback& on_token) {
    auto start = Clock::now();
    Tensor logits = forward(request_.prompt);
    result_.prefill_seconds = seconds_since(start);
    start = Clock::now();
    while (static_cast<int64_t>(result_.tokens.size()) < request_.max_tokens) {
      const int32_t token = sampler_.sample(logits.values<float>(), seen_);
      result_.decode_seconds = seconds_since(start);
      if (std::ranges::find(request_.stop_tokens, token) != request_.stop_tokens.end()) {
        result_.stop_token = token;
        return FinishReason::stop_token;
      }
      seen_.push_back(token);
      result_.tokens.push_back(token);
      if (!on_token(token)) return FinishReason::callback;
      if (static_cast<int64_t>(result_.tokens.size()) == request_.max_tokens) break;
      if (cache_.length() == context_limit(decoder_.spec())) return FinishReason::context_limit;
      logits = forward({&token, 1});
      ++result_.decode_steps;
      result_.decode_seconds = seconds_since(start);
    }
    return FinishReason::max_tokens;
  }

  Tensor forward(std::span<const int32_t> tokens) {
    throw_if_cancelled(request_.cancelled);
    return decoder_.forward(tokens, cache_, {LogitRows::last, request_.cancelled});
  }

  const Decoder& decoder_;
  const GenerateRequest& request_;
  Sampler sampler_;
  KvCache cache_;
  std::vector<int32_t> seen_;
  GenerateResult result_;
};

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
  fail(ErrorKind::invalid_argument, "windows of {} tokens are longer than the model's {} positions", tokens,
       context_limit(spec));
}

GenerateResult generate(const Decoder& decoder, const GenerateRequest& request,
                        const TokenCallback& on_token) {
  check(decoder.spec(), request);
  return TokenLoop(decoder, request).run(on_token);
}

}  // namespace salient
