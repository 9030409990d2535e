#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/generate.h"
#include "runtime/prefix_cache.h"

namespace salient {

struct EngineOptions {
  /// Texts that run side by side; the others wait, in the order they came.
  int64_t max_num_seqs = 16;
  /// Tokens of a pass: one of each text in the making, and parts of prompts as far as there is room, in pages
  /// of kPageRows; a page at least whatever this says.
  int64_t max_num_batched_tokens = 512;
  /// Of keys and values: of the texts that run, each counted with all tokens that it may come to, and of kept
  /// prefixes. A text waits until there is room. Caches of drafts are not counted.
  uint64_t kv_cache_memory_bytes = uint64_t{1} << 30;
  /// Whether what prompts and texts have left in their caches serves those that begin alike. Without
  /// effect for models that cannot use it: with linear attention, or angles that hang on a prompt's length.
  bool enable_prefix_caching = true;
  /// Whether texts get the bytes that they get alone also where sums of many rows are rounded in another
  /// order than those of few: with weights or activations in floating point, on a GPU always. There, prompts
  /// have passes of their own and take no prefixes, and no more than kRowsAsAlone texts share one. Without, a
  /// back end that favors many rows has one pass for all texts and prompts.
  bool as_alone = false;
};

/// Of keys and values that a text holds when it has come to its last token.
uint64_t most_cache_bytes(const TokenStream& text);

/// What a step has brought.
struct EngineOutput {
  int64_t id;
  std::shared_ptr<const TokenStream> text;
  std::optional<int32_t> token;  ///< nothing: the text has ended
};

/// Many texts at once: continuous batching (Yu et al. 2022, "Orca") with prompts in pieces beside the
/// texts in the making (Agrawal et al. 2023, "Sarathi"), over a cache in pages (Kwon et al. 2023,
/// "PagedAttention"). One thread at a time may use an engine.
class Engine {
 public:
  /// The decoder must outlive the engine. Errors: invalid_argument for options that are not positive.
  Engine(const Decoder& decoder, const EngineOptions& options);

  /// Puts a text behind those that wait and gives it a number, from 0 on. The caller may look at it between
  /// steps, and end it; its result says how it went. Errors: invalid_argument for a token outside the
  /// vocabulary, a text of another decoder or one that is here already, and for one that would not fit into
  /// kv_cache_memory_bytes alone.
  int64_t submit(std::shared_ptr<TokenStream> text);
  int64_t submit(const GenerateRequest& request) {
    return submit(std::make_shared<TokenStream>(decoder_, request));
  }

  /// One pass. What it brought, in the order the texts came. Texts whose flag is raised end, be it in the
  /// middle of a pass that `cancelled` has stopped. Errors: those of Decoder::run; cancelled when it was no
  /// text's flag that was raised; those of TokenStream::next, which end the text that has them. The others
  /// are as before and may go on, and what they had brought comes with the next step.
  std::vector<EngineOutput> step(const CancellationFlag* cancelled = nullptr);
  /// Whether there is nothing left to do.
  bool idle() const { return waiting_.empty() && running_.empty(); }

  int64_t running() const { return std::ssize(running_); }
  int64_t waiting() const { return std::ssize(waiting_); }
  /// Blocks that are kept for texts to come.
  size_t kept_blocks() const { return prefixes_.size(); }

 private:
  struct Request {
    int64_t id;
    std::shared_ptr<TokenStream> text;
    int64_t blocks;  // that it may come to
    bool shares;     // what it has run with others: not a text from a state, which may be of anybody's making
  };

  void admit();
  std::vector<TokenStream::Part> next_tokens() const;
  std::vector<TokenStream::Part> prompt_pieces(int64_t room);
  bool is_run_for_another(const Request& request) const;
  std::vector<std::vector<TokenStream::Part>> passes();
  void draw(const Request& request);
  void keep_prefix(const TokenStream& text);
  void hand_on(const TokenStream& prompt);
  bool end_cancelled();
  void remove_ended();
  int64_t reserved_blocks() const;

  const Decoder& decoder_;
  EngineOptions options_;
  bool apart_;  // by as_alone
  bool keeps_prefixes_;
  int64_t most_blocks_;
  int64_t most_at_work_;  // blocks of several texts, so that none has to leave the device within a pass
  int64_t submitted_ = 0;
  std::deque<Request> waiting_;
  std::deque<Request> running_;
  std::vector<EngineOutput> outputs_;  // of the step, or of one that failed
  PrefixCache prefixes_;
};

}  // namespace salient
