#include "text/token_trie.h"

#include <algorithm>
#include <string_view>
#include <tuple>

namespace salient {
namespace {

size_t common_prefix(std::string_view a, std::string_view b) {
  return static_cast<size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

}  // namespace

TokenTrie::TokenTrie(std::vector<Entry> entries) {
  std::ranges::sort(entries, [](const Entry& a, const Entry& b) {
    return std::tie(a.bytes, a.token) < std::tie(b.bytes, b.token);
  });
  nodes_.clear();
  std::vector<size_t> path;  // nodes of the bytes of the last entry
  const auto leave = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back())
      nodes_[path.back()].end = static_cast<uint32_t>(nodes_.size());
  };
  std::string_view before;
  for (const auto& [bytes, token] : entries) {
    leave(common_prefix(before, bytes));
    for (size_t depth = path.size(); depth < bytes.size(); ++depth) {
      path.push_back(nodes_.size());
      nodes_.push_back({.byte = static_cast<uint8_t>(bytes[depth]),
                        .depth = static_cast<uint32_t>(depth),
                        .end = 0,
                        .first_token = static_cast<uint32_t>(tokens_.size())});
    }
    tokens_.push_back(token);
    depth_ = std::max(depth_, bytes.size());
    before = bytes;
  }
  leave(0);
  nodes_.push_back({.byte = 0, .depth = 0, .end = 0, .first_token = static_cast<uint32_t>(tokens_.size())});
}

}  // namespace salient
