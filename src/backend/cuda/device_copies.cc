#include "backend/cuda/device_copies.h"

#include <algorithm>

namespace salient::cuda {
namespace {

/// Lists of so many threads stay for the next time. Threads come and go.
constexpr size_t kThreadsKept = 16;

std::weak_ptr<const char> life_of_this_thread() {
  thread_local const auto life = std::make_shared<const char>();
  return life;
}

}  // namespace

DeviceCopies::Holder& DeviceCopies::this_thread() {
  const auto self = std::this_thread::get_id();
  for (Holder& holder : holders_)
    if (holder.thread == self && !holder.alive.expired()) return holder;
  return holders_.emplace_back(Holder{self, life_of_this_thread(), {}});
}

void DeviceCopies::hold(void* address, TensorMemory& owner) {
  std::vector<Place>& held = this_thread().copies;
  const auto found = places_.find(address);
  if (found == places_.end()) {
    copies_.push_back({.address = address, .owner = &owner});
    try {
      places_.emplace(address, std::prev(copies_.end()));
    } catch (...) {
      copies_.pop_back();
      throw;
    }
  } else {
    copies_.splice(copies_.end(), copies_, found->second);
  }
  copies_.back().placed = use_;
  held.push_back(std::prev(copies_.end()));
  ++copies_.back().holds;
}

uint64_t DeviceCopies::hold_marked() {
  Holder& holder = this_thread();
  ++use_;
  if (holder.marks_from == 0) holder.marks_from = use_;
  return use_;
}

void DeviceCopies::forget(void* address) noexcept {
  const auto found = places_.find(address);
  if (found == places_.end()) return;
  if (found->second->holds > 0)
    for (Holder& holder : holders_) std::erase(holder.copies, found->second);
  copies_.erase(found->second);
  places_.erase(found);
}

void DeviceCopies::let_go(Holder& holder) noexcept {
  for (const Place& copy : holder.copies) {
    --copy->holds;
    copy->let_go = clock_;
  }
  holder.copies.clear();
  holder.marks_from = 0;
}

void DeviceCopies::let_go() noexcept {
  const auto self = std::this_thread::get_id();
  const auto holder = std::ranges::find_if(
      holders_, [&](const Holder& one) { return one.thread == self && !one.alive.expired(); });
  if (holder == holders_.end()) return;
  let_go(*holder);
  if (holders_.size() > kThreadsKept) holders_.erase(holder);
}

/// After an error they may have ended without letting go.
void DeviceCopies::drop_ended_threads() noexcept {
  for (auto holder = holders_.begin(); holder != holders_.end();) {
    if (!holder->alive.expired()) {
      ++holder;
      continue;
    }
    let_go(*holder);
    holder = holders_.erase(holder);
  }
}

/// Marks tell no thread from another: what was marked since the first one that is held counts as held.
uint64_t DeviceCopies::first_held_mark() const {
  uint64_t first = UINT64_MAX;
  for (const Holder& holder : holders_)
    if (holder.marks_from != 0) first = std::min(first, holder.marks_from);
  return first;
}

void DeviceCopies::all_sent() noexcept {
  sent_ = ++clock_;
  sent_use_ = std::min(use_, first_held_mark() - 1);
}

bool DeviceCopies::give_up(Copy& copy, Device& device) {
  const Stays stays(copy);
  return copy.owner->give_up(
      [&](std::byte* to, const void* from, size_t bytes) { device.copy_out(to, from, bytes); });
}

size_t DeviceCopies::take_away(size_t bytes, Device& device, Which which) {
  drop_ended_threads();
  const uint64_t held_from = first_held_mark();
  const auto may_go = [&](const Copy& copy, uint64_t last_use) {
    if (copy.holds > 0 || last_use >= held_from) return false;
    return which == Which::idle || (copy.let_go < sent_ && last_use <= sent_use_);
  };
  size_t taken = 0;
  for (auto next = copies_.begin(); next != copies_.end() && taken < bytes;) {
    const Place copy = next;
    const uint64_t last_use = copy->owner->last_use();
    if (last_use > copy->placed) {  // marked since it got its place, which is among the last ones now
      copy->placed = last_use;
      ++next;
      copies_.splice(copies_.end(), copies_, copy);
      if (next == copies_.end()) next = copy;
      continue;
    }
    const size_t size = copy->owner->byte_size();
    if (!may_go(*copy, last_use) || !give_up(*copy, device)) {
      ++next;
      continue;
    }
    void* address = copy->address;
    places_.erase(address);
    next = copies_.erase(next);
    device.release(address);
    taken += size;
    taken_bytes_ += size;
  }
  return taken;
}

bool DeviceCopies::can_free(size_t bytes) {
  drop_ended_threads();
  const uint64_t held_from = first_held_mark();
  size_t idle = 0;
  for (auto copy = copies_.begin(); copy != copies_.end() && idle < bytes; ++copy)
    if (copy->holds == 0 && copy->owner->last_use() < held_from) idle += copy->owner->byte_size();
  return idle >= bytes;
}

size_t DeviceCopies::held_bytes() {
  drop_ended_threads();
  const uint64_t held_from = first_held_mark();
  size_t bytes = 0;
  for (const Copy& copy : copies_)
    if (copy.holds > 0 || copy.owner->last_use() >= held_from) bytes += copy.owner->byte_size();
  return bytes;
}

size_t DeviceCopies::idle_bytes() {
  size_t bytes = 0;
  for (const Copy& copy : copies_) bytes += copy.owner->byte_size();
  return bytes - held_bytes();
}

}  // namespace salient::cuda
