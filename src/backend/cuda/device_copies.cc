#include "backend/cuda/device_copies.h"

#include <algorithm>

namespace salient::cuda {
namespace {

/// Lists of so many threads stay for the next time. Threads come and go.
constexpr size_t kThreadsKept = 16;

}  // namespace

std::vector<DeviceCopies::Place>& DeviceCopies::held_by_this_thread() {
  const auto self = std::this_thread::get_id();
  for (Holder& holder : holders_)
    if (holder.thread == self) return holder.copies;
  return holders_.emplace_back(Holder{self, {}}).copies;
}

void DeviceCopies::hold(void* address, TensorMemory& owner) {
  std::vector<Place>& held = held_by_this_thread();
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
  held.push_back(std::prev(copies_.end()));
  ++copies_.back().holds;
}

void DeviceCopies::forget(void* address) noexcept {
  const auto found = places_.find(address);
  if (found == places_.end()) return;
  if (found->second->holds > 0)
    for (Holder& holder : holders_) std::erase(holder.copies, found->second);
  copies_.erase(found->second);
  places_.erase(found);
}

void DeviceCopies::let_go() noexcept {
  const auto self = std::this_thread::get_id();
  const auto holder = std::ranges::find(holders_, self, &Holder::thread);
  if (holder == holders_.end()) return;
  for (const Place& copy : holder->copies) {
    --copy->holds;
    copy->let_go = clock_;
  }
  holder->copies.clear();
  if (holders_.size() > kThreadsKept) holders_.erase(holder);
}

bool DeviceCopies::give_up(Copy& copy, Device& device) {
  const Stays stays(copy);
  return copy.owner->give_up(
      [&](std::byte* to, const void* from, size_t bytes) { device.copy_out(to, from, bytes); });
}

size_t DeviceCopies::take_away(size_t bytes, Device& device, Which which) {
  const auto may_go = [&](const Copy& copy) {
    return copy.holds == 0 && (which == Which::idle || copy.let_go < sent_);
  };
  size_t taken = 0;
  for (auto next = copies_.begin(); next != copies_.end() && taken < bytes;) {
    const size_t size = next->owner->byte_size();
    if (!may_go(*next) || !give_up(*next, device)) {
      ++next;
      continue;
    }
    void* address = next->address;
    places_.erase(address);
    next = copies_.erase(next);
    device.release(address);
    taken += size;
    taken_bytes_ += size;
  }
  return taken;
}

bool DeviceCopies::can_free(size_t bytes) const {
  size_t idle = 0;
  for (auto copy = copies_.begin(); copy != copies_.end() && idle < bytes; ++copy)
    idle += copy->holds == 0 ? copy->owner->byte_size() : 0;
  return idle >= bytes;
}

size_t DeviceCopies::held_bytes() const {
  size_t bytes = 0;
  for (const Copy& copy : copies_) bytes += copy.holds > 0 ? copy.owner->byte_size() : 0;
  return bytes;
}

size_t DeviceCopies::idle_bytes() const {
  size_t bytes = 0;
  for (const Copy& copy : copies_) bytes += copy.holds == 0 ? copy.owner->byte_size() : 0;
  return bytes;
}

}  // namespace salient::cuda
