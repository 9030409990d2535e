#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <thread>
#include <unordered_map>
#include <vector>

#include "backend/cuda/device.h"
#include "tensor/tensor_memory.h"

namespace salient::cuda {

/// The copies that tensors have on a device: which of them threads hold, since they have their addresses and
/// have not launched yet, and which were used longest ago. A device has one queue, so what is behind the
/// launches of an operation may take its memory. Whoever has the device has this too: not safe to share.
class DeviceCopies {
 public:
  /// By the calling thread. A copy is known from the first time on.
  void hold(void* address, TensorMemory& owner);
  /// Copies that the calling thread marks with this number are held by it too (TensorMemory::find_on).
  uint64_t hold_marked();
  /// It is about to be released.
  void forget(void* address) noexcept;
  /// All that the calling thread holds.
  void let_go() noexcept;

  /// Takes copies away, those used longest ago first, until so many bytes are free: on the host they become
  /// current. Returns how many it were, 0 if all are held. Errors: those of Device::copy_out.
  size_t take_away(size_t bytes, Device& device);
  /// Of copies that threads hold now, and of those that nobody holds.
  size_t held_bytes();
  size_t idle_bytes();

 private:
  struct Copy {
    void* address;
    TensorMemory* owner;
    int holds = 0;
    uint64_t placed = 0;  ///< the last use by which it has its place in the list
  };
  using Place = std::list<Copy>::iterator;
  struct Holder {
    std::thread::id thread;
    std::weak_ptr<const char> alive;  ///< expires with the thread
    std::vector<Place> copies;
    uint64_t marks_from = 0;  ///< its first mark since it let go, 0 for none
  };
  Holder& this_thread();
  void drop_ended_threads() noexcept;
  uint64_t first_held_mark() const;
  static void let_go(Holder& holder) noexcept;

  std::list<Copy> copies_;  // used longest ago first
  std::unordered_map<void*, Place> places_;
  std::vector<Holder> holders_;
  uint64_t use_ = 0;  // the last mark
};

}  // namespace salient::cuda
