#include "runtime/prefix_cache.h"

#include <algorithm>

namespace salient {
namespace {

constexpr auto kTokens = static_cast<size_t>(kPageRows);

/// Never 0. The finalizer of SplitMix64 (Steele et al. 2014) after each token.
uint64_t chained_key(uint64_t before, std::span<const int32_t> tokens) {
  uint64_t key = before;
  for (const int32_t token : tokens) {
    key += 0x9e3779b97f4a7c15u + static_cast<uint32_t>(token);
    key = (key ^ (key >> 30)) * 0xbf58476d1ce4e5b9u;
    key = (key ^ (key >> 27)) * 0x94d049bb133111ebu;
    key ^= key >> 31;
  }
  return std::max<uint64_t>(key, 1);
}

std::span<const int32_t> tokens_of(std::span<const int32_t> tokens, size_t block) {
  return tokens.subspan(block * kTokens, kTokens);
}

}  // namespace

PrefixCache::Entries::iterator PrefixCache::entry_of(uint64_t before, std::span<const int32_t> tokens) {
  const auto found = by_key_.find(chained_key(before, tokens));
  if (found == by_key_.end()) return entries_.end();
  const Entry& entry = *found->second;
  const bool same = entry.before == before && std::ranges::equal(entry.tokens, tokens);
  return same ? found->second : entries_.end();
}

/// Those behind go first, so that they are forgotten first.
void PrefixCache::use(std::span<const Entries::iterator> chain) {
  for (size_t i = chain.size(); i-- > 0;) entries_.splice(entries_.begin(), entries_, chain[i]);
}

std::vector<KvBlock> PrefixCache::find(std::span<const int32_t> tokens) {
  std::vector<KvBlock> blocks;
  std::vector<Entries::iterator> chain;
  uint64_t before = 0;
  for (size_t i = 0; (i + 1) * kTokens < tokens.size(); ++i) {
    const auto entry = entry_of(before, tokens_of(tokens, i));
    if (entry == entries_.end()) break;
    blocks.push_back(entry->block);
    chain.push_back(entry);
    before = entry->key;
  }
  use(chain);
  return blocks;
}

void PrefixCache::add(std::span<const int32_t> tokens, std::span<const KvBlock> blocks) {
  std::vector<Entries::iterator> chain;
  uint64_t before = 0;
  for (size_t i = 0; i < blocks.size() && (i + 1) * kTokens <= tokens.size(); ++i) {
    const auto part = tokens_of(tokens, i);
    auto entry = entry_of(before, part);
    if (entry == entries_.end()) {
      const uint64_t key = chained_key(before, part);
      if (by_key_.contains(key)) break;  // of other tokens with the same key
      entries_.push_front({key, before, {part.begin(), part.end()}, blocks[i]});
      entry = entries_.begin();
      by_key_.emplace(key, entry);
    }
    chain.push_back(entry);
    before = entry->key;
  }
  use(chain);
}

void PrefixCache::shrink(size_t most_blocks) {
  while (entries_.size() > most_blocks) {
    by_key_.erase(entries_.back().key);
    entries_.pop_back();
  }
}

}  // namespace salient
