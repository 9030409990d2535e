#pragma once

#include <cstdint>
#include <memory>
#include <span>

namespace salient {

/// What a text in the making may go on with. It begins with the first token behind the prompt.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;

  /// For each token of the vocabulary whether it may come next: 1, else 0. Tokens behind the end may not.
  /// Valid until the next call. Errors: unsupported when none may.
  virtual std::span<const uint8_t> allowed() = 0;
  /// A token that was allowed comes next.
  virtual void advance(int32_t token) = 0;
  /// Nothing is missing any more: the text ends.
  virtual bool complete() const = 0;
  /// One for a copy of the text.
  virtual std::unique_ptr<TokenConstraint> copy() const = 0;
};

}  // namespace salient
