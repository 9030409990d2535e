#pragma once

#include <list>
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
  /// It is about to be released.
  void forget(void* address) noexcept;
  /// All that the calling thread holds.
  void let_go() noexcept;

  /// Takes copies away, those used longest ago first, until so many bytes are free: on the host they become
  /// current. Returns how many it were, 0 if all are held. Errors: those of Device::copy_out.
  size_t take_away(size_t bytes, Device& device);
  /// Of copies that threads hold now, and of those that nobody holds.
  size_t held_bytes() const;
  size_t idle_bytes() const;

 private:
  struct Copy {
    void* address;
    TensorMemory* owner;
    int holds = 0;
  };
  using Place = std::list<Copy>::iterator;
  struct Holder {
    std::thread::id thread;
    std::vector<Place> copies;
  };
  std::vector<Place>& held_by_this_thread();
  bool give_up(const Copy& copy, Device& device);

  std::list<Copy> copies_;  // used longest ago first
  std::unordered_map<void*, Place> places_;
  std::vector<Holder> holders_;
};

}  // namespace salient::cuda
