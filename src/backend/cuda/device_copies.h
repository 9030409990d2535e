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

  /// The device has been given all launches of those who let go.
  void all_sent() noexcept;
  /// body() while the copy at this address stays.
  template <typename Body>
  void keep(const void* address, const Body& body) {
    const auto found = places_.find(const_cast<void*>(address));
    if (found == places_.end()) return body();
    const Stays stays(*found->second);
    body();
  }

  enum class Which {
    idle,             ///< that nobody holds
    behind_launches,  ///< of these what no launch uses that the device has not been given
  };
  /// Takes copies away, those used longest ago first, until so many bytes are free: on the host they become
  /// current. Returns how many it were, 0 if all are held. It may be called again by what copy_out does.
  /// Errors: those of Device::copy_out.
  size_t take_away(size_t bytes, Device& device, Which which = Which::idle);
  /// Whether those that nobody holds are at least so many bytes.
  bool can_free(size_t bytes);
  /// Taken away so far.
  size_t taken_bytes() const { return taken_bytes_; }
  /// Of copies that threads hold now, and of those that nobody holds.
  size_t held_bytes();
  size_t idle_bytes();

 private:
  struct Copy {
    void* address;
    TensorMemory* owner;
    int holds = 0;
    uint64_t let_go = 0;  // when, by the clock
    uint64_t placed = 0;  ///< the last use by which it has its place in the list
  };
  struct Stays {
    explicit Stays(Copy& one) : copy(one) { ++copy.holds; }
    ~Stays() { --copy.holds; }
    Stays(const Stays&) = delete;
    Stays& operator=(const Stays&) = delete;
    Copy& copy;
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
  void let_go(Holder& holder) noexcept;
  bool give_up(Copy& copy, Device& device);

  std::list<Copy> copies_;  // used longest ago first
  std::unordered_map<void*, Place> places_;
  std::vector<Holder> holders_;
  size_t taken_bytes_ = 0;
  uint64_t clock_ = 0;
  uint64_t sent_ = 0;      // what was let go before is used by no launch that is yet to be sent
  uint64_t use_ = 0;       // the last mark
  uint64_t sent_use_ = 0;  // the same of marks
};

}  // namespace salient::cuda
