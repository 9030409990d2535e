#include "runtime/engine.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace salient {
namespace {

bool angles_hang_on_length(const DecoderSpec& spec) {
  return std::ranges::any_of(spec.ropes, [](const RopeSpec& rope) {
    return rope.scaling == RopeScaling::dynamic || rope.scaling == RopeScaling::longrope;
  });
}

void require_positive(const char* name, int64_t value) {
  if (value < 1) fail(ErrorKind::invalid_argument, "{} is {}, but must be positive", name, value);
}

using Parts = std::vector<TokenStream::Part>;

/// That a text may get.
int64_t tokens_to_come(const TokenStream& text) {
  const int64_t wanted = text.max_tokens() - std::ssize(text.result().tokens);
  const int64_t room = context_limit(text.decoder().spec()) - std::ssize(text.tokens());
  return std::clamp<int64_t>(room, 0, wanted);
}

int64_t most_blocks_of(const TokenStream& text) {
  return (std::ssize(text.tokens()) + tokens_to_come(text) + kPageRows - 1) / kPageRows;
}

/// That both begin with, and behind which `tokens` goes on.
int64_t common_pages(std::span<const int32_t> tokens, std::span<const int32_t> others) {
  const auto common = std::ranges::mismatch(tokens, others).in1 - tokens.begin();
  return std::min<int64_t>(common, std::ssize(tokens) - 1) / kPageRows;
}

/// Of the pending tokens of a prompt those that a pass takes where there is room for `room`: all, or up to
/// the end of a page, so that the bytes do not hang on what else runs.
int64_t piece_of(const TokenStream& prompt, int64_t room) {
  if (prompt.pending() <= room) return prompt.pending();
  const int64_t length = prompt.cache().length();
  return std::max<int64_t>(0, (length + room) / kPageRows * kPageRows - length);
}

/// Of the pending tokens of a prompt those that a pass takes where nothing else runs; none where there is no
/// room for them, unless the pass would be empty.
int64_t piece_as_alone(const TokenStream& prompt, int64_t room, bool is_first) {
  const int64_t count = Decoder::prompt_chunk(prompt.cache().length(), prompt.pending());
  return count <= room || is_first ? count : 0;
}

/// Adds passes for parts in groups of so many.
void add_passes(std::span<const TokenStream::Part> parts, int64_t at_most, std::vector<Parts>& passes) {
  for (size_t begin = 0; begin < parts.size();) {
    const auto count = std::min(static_cast<size_t>(at_most), parts.size() - begin);
    const auto group = parts.subspan(begin, count);
    passes.emplace_back(group.begin(), group.end());
    begin += count;
  }
}

}  // namespace

Engine::Engine(const Decoder& decoder, const EngineOptions& options)
    : decoder_(decoder),
      options_(options),
      apart_(options.as_alone && !decoder.rows_are_apart()),
      keeps_prefixes_(options.enable_prefix_caching && !decoder.spec().linear_attention &&
                      !angles_hang_on_length(decoder.spec()) && !apart_) {
  require_positive("max_num_seqs", options.max_num_seqs);
  require_positive("max_num_batched_tokens", options.max_num_batched_tokens);
  // None where no layer attends.
  const uint64_t block_bytes = std::max<uint64_t>(1, decoder.make_cache().block_bytes());
  most_blocks_ = static_cast<int64_t>(options.kv_cache_memory_bytes / block_bytes);
  if (most_blocks_ < 1) {
    fail(ErrorKind::invalid_argument, "kv_cache_memory_bytes is {}, but {} positions of {} take {}",
         options.kv_cache_memory_bytes, kPageRows, decoder.spec().architecture, block_bytes);
  }
  const uint64_t free = decoder.free_device_bytes().value_or(options.kv_cache_memory_bytes);
  most_at_work_ = std::min(most_blocks_, static_cast<int64_t>(free / 8 * 7 / block_bytes));
}

uint64_t most_cache_bytes(const TokenStream& text) {
  return static_cast<uint64_t>(most_blocks_of(text)) * text.cache().block_bytes();
}

int64_t Engine::submit(std::shared_ptr<TokenStream> text) {
  const auto is_it = [&](const Request& request) { return request.text == text; };
  if (&text->decoder() != &decoder_ || std::ranges::any_of(waiting_, is_it) ||
      std::ranges::any_of(running_, is_it)) {
    fail(ErrorKind::invalid_argument, "a text of another model, or one that is in the making already");
  }
  check_tokens(decoder_.spec(), text->tokens());
  const int64_t blocks = most_blocks_of(*text);
  if (blocks > most_blocks_) {
    fail(ErrorKind::invalid_argument,
         "a prompt of {} tokens and {} more take {} blocks of {} positions, but kv_cache_memory_bytes ({}) "
         "holds {}",
         std::ssize(text->tokens()), tokens_to_come(*text), blocks, kPageRows, options_.kv_cache_memory_bytes,
         most_blocks_);
  }
  const bool shares = text->cache().length() == 0 && text->cache().type() == decoder_.kv_type();
  waiting_.push_back({submitted_, std::move(text), blocks, shares});
  return submitted_++;
}

/// Whether there were any.
bool Engine::end_cancelled() {
  bool any = false;
  for (auto* queue : {&running_, &waiting_}) {
    for (const Request& request : *queue) any = request.text->end_if_cancelled() || any;
  }
  return any;
}

void Engine::remove_ended() {
  for (auto* queue : {&running_, &waiting_}) {
    for (const Request& request : *queue) {
      if (!request.text->ended()) continue;
      if (request.shares) keep_prefix(*request.text);
      outputs_.push_back({request.id, request.text, std::nullopt});
    }
    std::erase_if(*queue, [](const Request& request) { return request.text->ended(); });
  }
  prefixes_.shrink(static_cast<size_t>(most_blocks_ - reserved_blocks()));
}

int64_t Engine::reserved_blocks() const {
  int64_t blocks = 0;
  for (const Request& request : running_) blocks += request.blocks;
  return blocks;
}

void Engine::admit() {
  while (!waiting_.empty() && running() < options_.max_num_seqs) {
    const Request& next = waiting_.front();
    if (reserved_blocks() + next.blocks > (running_.empty() ? most_blocks_ : most_at_work_)) break;
    running_.push_back(next);
    waiting_.pop_front();
  }
  prefixes_.shrink(static_cast<size_t>(most_blocks_ - reserved_blocks()));
}

/// Of every text in the making. Those that speculate have passes of their own.
std::vector<TokenStream::Part> Engine::next_tokens() const {
  std::vector<TokenStream::Part> parts;
  for (const Request& request : running_) {
    TokenStream& text = *request.text;
    if (!text.in_prompt() && !text.speculates() && text.pending() > 0) parts.push_back({&text, 1});
  }
  return parts;
}

/// Whether what a text begins with is being run for one before it, so that it will find that.
bool Engine::is_run_for_another(const Request& request) const {
  const auto tokens = request.text->tokens();
  if (!request.shares || request.text->cache().length() > 0) return false;
  return std::ranges::any_of(running_, [&](const Request& before) {
    if (before.id >= request.id || !before.shares || !before.text->in_prompt()) return false;
    if (std::ranges::equal(before.text->tokens(), tokens)) return true;
    return keeps_prefixes_ &&
           before.text->cache().length() < common_pages(tokens, before.text->tokens()) * kPageRows;
  });
}

/// Of as many prompts as there is room for.
std::vector<TokenStream::Part> Engine::prompt_pieces(int64_t room) {
  std::vector<TokenStream::Part> parts;
  for (const Request& request : running_) {
    TokenStream& text = *request.text;
    if (!text.in_prompt() || is_run_for_another(request)) continue;
    if (keeps_prefixes_ && request.shares && text.cache().length() == 0)
      text.begin_with(prefixes_.find(text.tokens()));
    const int64_t count = apart_ ? piece_as_alone(text, room, parts.empty()) : piece_of(text, room);
    if (count == 0) break;  // nobody overtakes
    parts.push_back({&text, count});
    room -= count;
  }
  return parts;
}

/// One for all where a row's result does not depend on the others, or hardly costs anything beside them; else
/// texts in groups that get the bytes they get alone, and prompts, which many rows serve better, apart from
/// them.
std::vector<std::vector<TokenStream::Part>> Engine::passes() {
  const Parts texts = next_tokens();
  // A page at least, or texts in the making would keep prompts waiting for ever.
  const int64_t room = std::max(kPageRows, options_.max_num_batched_tokens - std::ssize(texts));
  const Parts prompts = prompt_pieces(room);
  std::vector<Parts> passes;
  const int64_t most = decoder_.favors_many_rows() ? kAnyRows : decoder_.rows_as_alone();
  add_passes(texts, apart_ ? kRowsAsAlone : most, passes);
  if (!apart_ && most == kAnyRows && !passes.empty()) {
    passes.back().insert(passes.back().end(), prompts.begin(), prompts.end());
  } else {
    add_passes(prompts, apart_ ? 1 : kAnyRows, passes);
  }
  return passes;
}

std::vector<EngineOutput> Engine::step(const CancellationFlag* cancelled) {
  end_cancelled();
  remove_ended();
  admit();
  try {
    if (!running_.empty()) throw_if_cancelled(cancelled);
    for (const Parts& pass : passes()) TokenStream::run(pass, cancelled);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::cancelled || !end_cancelled()) throw;
  }
  for (const Request& request : running_) draw(request);
  remove_ended();
  std::ranges::stable_sort(outputs_, {}, &EngineOutput::id);
  return std::exchange(outputs_, {});
}

/// The next token of a text, unless its prompt has not been run to the end.
void Engine::draw(const Request& request) {
  TokenStream& text = *request.text;
  const bool begins = request.shares && text.result().tokens.empty();
  if (begins) keep_prefix(text);
  if (text.in_prompt() || (!text.speculates() && text.pending() > 0)) return;
  if (begins) hand_on(text);
  try {
    if (const auto token = text.next()) outputs_.push_back({request.id, request.text, *token});
    text.may_go_on();  // or a pass would be run for nothing
  } catch (const Error& error) {
    text.stop_with(error);  // it would fail for ever, and the others with it
  }
}

/// Gives what the last token of a prompt has left to others of the same prompt. Of those that wait only to
/// the next ones, in whose stead others that hold the same memory run.
void Engine::hand_on(const TokenStream& prompt) {
  const auto take = [&](const Request& request) {
    TokenStream& text = *request.text;
    if (!request.shares || !std::ranges::equal(text.tokens(), prompt.tokens())) return false;
    if (text.in_prompt() && text.cache().length() == 0) text.begin_as(prompt);
    return true;
  };
  for (const Request& request : running_) take(request);
  for (const Request& request : waiting_) {
    if (!take(request)) break;
  }
}

void Engine::keep_prefix(const TokenStream& text) {
  if (!keeps_prefixes_) return;
  const auto certain = static_cast<size_t>(text.certain_positions() / kPageRows);
  prefixes_.add(text.tokens(), text.cache().full_blocks().first(certain));
}

}  // namespace salient
