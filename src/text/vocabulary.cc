#include "text/vocabulary.h"

#include "base/error.h"

namespace salient {

void Vocabulary::add(std::string token, int64_t id) {
  if (id < 0 || id >= kIdLimit) {
    fail(ErrorKind::bad_format, "token \"{}\": id {} is outside [0, {})", token, id, kIdLimit);
  }
  const auto index = static_cast<size_t>(id);
  if (index >= tokens_.size()) tokens_.resize(index + 1);
  if (tokens_[index] != nullptr) {
    fail(ErrorKind::bad_format, "tokens \"{}\" and \"{}\" have the same id {}", *tokens_[index], token, id);
  }
  const auto [entry, is_new] = ids_.emplace(std::move(token), static_cast<int32_t>(id));
  if (!is_new) {
    fail(ErrorKind::bad_format, "token \"{}\" has two ids, {} and {}", entry->first, entry->second, id);
  }
  tokens_[index] = &entry->first;
}

std::optional<int32_t> Vocabulary::id(std::string_view token) const {
  const auto entry = ids_.find(token);
  if (entry == ids_.end()) return std::nullopt;
  return entry->second;
}

std::optional<std::string_view> Vocabulary::token(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= tokens_.size() || tokens_[static_cast<size_t>(id)] == nullptr) {
    return std::nullopt;
  }
  return *tokens_[static_cast<size_t>(id)];
}

}  // namespace salient
