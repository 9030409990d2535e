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

/// Of so many pending tokens behind `length`, those that a pass takes where there is room for `room`: all, or
/// up to the end of a page, so that the bytes do not hang on what else runs.
int64_t prompt_piece(int64_t length, int64_t pending, int64_t room) {
  if (pending <= room) return pending;
  return std::max<int64_t>(0, (length + room) / kPageRows * kPageRows - length);
}

/// One pass for all where a row's result does not depend on the others; else texts in groups that get the
/// bytes they get alone, and prompts, which many rows serve better, apart from them.
std::vector<std::vector<TokenStream::Part>> passes_of(std::span<const TokenStream::Part> texts,
                                                      std::span<const TokenStream::Part> prompts,
                                                      int64_t rows_as_alone) {
  std::vector<std::vector<TokenStream::Part>> passes;
  const auto group = static_cast<size_t>(rows_as_alone);
  for (size_t begin = 0; begin < texts.size(); begin += group) {
    const auto part = texts.subspan(begin, std::min(group, texts.size() - begin));
    passes.emplace_back(part.begin(), part.end());
  }
  if (prompts.empty()) return passes;
  const bool joins = rows_as_alone == kAnyRows && !passes.empty();
  if (!joins) passes.emplace_back();
  passes.back().insert(passes.back().end(), prompts.begin(), prompts.end());
  return passes;
}

}  // namespace

Engine::Engine(const Decoder& decoder, const EngineOptions& options)
    : decoder_(decoder),
      options_(options),
      keeps_prefixes_(options.enable_prefix_caching && !decoder.spec().linear_attention &&
                      !angles_hang_on_length(decoder.spec())) {
  require_positive("max_num_seqs", options.max_num_seqs);
  require_positive("max_num_batched_tokens", options.max_num_batched_tokens);
  // None where no layer attends.
  const uint64_t block_bytes = std::max<uint64_t>(1, decoder.make_cache().block_bytes());
  most_blocks_ = static_cast<int64_t>(options.kv_cache_memory_bytes / block_bytes);
  if (most_blocks_ < 1) {
    fail(ErrorKind::invalid_argument, "kv_cache_memory_bytes is {}, but {} positions of {} take {}",
         options.kv_cache_memory_bytes, kPageRows, decoder.spec().architecture, block_bytes);
  }
}

int64_t Engine::submit(std::shared_ptr<TokenStream> text) {
  const auto is_it = [&](const Request& request) { return request.text == text; };
  if (&text->decoder() != &decoder_ || std::ranges::any_of(waiting_, is_it) ||
      std::ranges::any_of(running_, is_it)) {
    fail(ErrorKind::invalid_argument, "a text of another model, or one that is in the making already");
  }
  check_tokens(decoder_.spec(), text->tokens());
  const int64_t known = std::ssize(text->tokens());
  const int64_t wanted = text->max_tokens() - std::ssize(text->result().tokens);
  const int64_t most = std::clamp<int64_t>(context_limit(decoder_.spec()) - known, 0, wanted);
  const int64_t blocks = (known + most + kPageRows - 1) / kPageRows;
  if (blocks > most_blocks_) {
    fail(ErrorKind::invalid_argument,
         "a prompt of {} tokens and {} more take {} blocks of {} positions, but kv_cache_memory_bytes ({}) "
         "holds {}",
         known, most, blocks, kPageRows, options_.kv_cache_memory_bytes, most_blocks_);
  }
  const bool shares =
      keeps_prefixes_ && text->cache().length() == 0 && text->cache().type() == decoder_.kv_type();
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
    if (reserved_blocks() + next.blocks > most_blocks_) break;
    if (next.shares) next.text->begin_with(prefixes_.find(next.text->tokens()));
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

/// Of as many prompts as there is room for.
std::vector<TokenStream::Part> Engine::prompt_pieces(int64_t room) const {
  std::vector<TokenStream::Part> parts;
  for (const Request& request : running_) {
    TokenStream& text = *request.text;
    if (!text.in_prompt()) continue;
    const int64_t count = prompt_piece(text.cache().length(), text.pending(), room);
    if (count == 0) break;  // nobody overtakes
    parts.push_back({&text, count});
    room -= count;
  }
  return parts;
}

std::vector<EngineOutput> Engine::step(const CancellationFlag* cancelled) {
  end_cancelled();
  remove_ended();
  admit();
  try {
    if (!running_.empty()) throw_if_cancelled(cancelled);
    const std::vector<TokenStream::Part> texts = next_tokens();
    // A page at least, or texts in the making would keep prompts waiting for ever.
    const int64_t room = std::max(kPageRows, options_.max_num_batched_tokens - std::ssize(texts));
    for (const auto& pass : passes_of(texts, prompt_pieces(room), decoder_.rows_as_alone()))
      TokenStream::run(pass, cancelled);
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
  if (text.in_prompt() || (!text.speculates() && text.pending() > 0)) return;
  if (request.shares && text.result().tokens.empty()) keep_prefix(text);
  try {
    if (const auto token = text.next()) outputs_.push_back({request.id, request.text, *token});
    text.may_go_on();  // or a pass would be run for nothing
  } catch (...) {
    text.stop();  // it would fail for ever, and the others with it
    throw;
  }
}

void Engine::keep_prefix(const TokenStream& text) {
  const auto certain = static_cast<size_t>(text.certain_positions() / kPageRows);
  prefixes_.add(text.tokens(), text.cache().full_blocks().first(certain));
}

}  // namespace salient
