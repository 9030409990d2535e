#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <unordered_map>
#include <vector>

#include "runtime/kv_cache.h"

namespace salient {

/// Blocks of keys and values by the tokens that they stand for, with all tokens before them: what one request
/// has run need not be run again for the next that begins alike. All blocks are of one model and type.
class PrefixCache {
 public:
  /// Those of the first tokens that are known, kPageRows each, and never of all tokens, the last of which has
  /// to be run for its logits.
  std::vector<KvBlock> find(std::span<const int32_t> tokens);
  /// Keeps blocks of the first tokens.
  void add(std::span<const int32_t> tokens, std::span<const KvBlock> blocks);
  /// Forgets blocks until there are so many, those that were of no use for the longest time first.
  void shrink(size_t most_blocks);
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    uint64_t key;
    uint64_t before;              ///< key of the block that it follows, 0 for the first
    std::vector<int32_t> tokens;  ///< [kPageRows], so that two of the same key are told apart
    KvBlock block;
  };
  using Entries = std::list<Entry>;

  Entries::iterator entry_of(uint64_t before, std::span<const int32_t> tokens);
  void use(std::span<const Entries::iterator> chain);

  Entries entries_;  // the last used first, in a chain those in front before those that follow
  std::unordered_map<uint64_t, Entries::iterator> by_key_;
};

}  // namespace salient
