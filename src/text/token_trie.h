#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace salient {

/// Tokens by their bytes, as a tree that is walked front to back: whoever refuses the bytes of a node goes on
/// behind all that begin with them.
class TokenTrie {
 public:
  struct Entry {
    std::string bytes;  ///< not empty
    int32_t token;
  };

  struct Node {
    uint8_t byte;
    uint32_t depth;        ///< of the last byte; 0 is the first
    uint32_t end;          ///< the first node that does not begin with these bytes
    uint32_t first_token;  ///< in `tokens`; those of a node end where those of the next begin
  };

  TokenTrie() = default;
  /// Several tokens may have the same bytes.
  explicit TokenTrie(std::vector<Entry> entries);

  std::span<const Node> nodes() const { return {nodes_.data(), nodes_.size() - 1}; }
  /// Those whose bytes end with node `index`.
  std::span<const int32_t> tokens(size_t index) const {
    const uint32_t first = nodes_[index].first_token;
    return std::span(tokens_).subspan(first, nodes_[index + 1].first_token - first);
  }
  /// Bytes of the longest token.
  size_t depth() const { return depth_; }

 private:
  std::vector<Node> nodes_{Node{}};  // and one behind the last
  std::vector<int32_t> tokens_;
  size_t depth_ = 0;
};

}  // namespace salient
