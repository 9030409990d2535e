#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

namespace salient {

class TensorMemory;

/// Memory of a device in which tensors keep copies of their bytes. Any thread may call it at any time.
/// Addresses are the device's and mean nothing to the host. Errors: out_of_memory; internal where a copy
/// fails.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  /// Uninitialised, for more than no bytes. Where there is no room, copies that nobody holds may have to give
  /// theirs up.
  virtual void* allocate(size_t bytes) = 0;
  /// What was queued before may still use it.
  virtual void release(void* address) noexcept = 0;
  /// In the order of the device's work; the host may change `from` when it returns.
  virtual void upload(void* to, const std::byte* from, size_t bytes) = 0;
  /// After all that was queued: the bytes are there when it returns.
  virtual void download(std::byte* to, const void* from, size_t bytes) = 0;
  /// On the device, in the order of its work.
  virtual void copy(void* to, const void* from, size_t bytes) = 0;

  /// The copy that `owner` has at `address` stays there until this thread lets go. Released or not held, it
  /// is for the device to take away (TensorMemory::give_up) if the device does such things.
  virtual void hold(void* /*address*/, TensorMemory& /*owner*/) {}
  /// What this thread holds, when work with the addresses has been queued or will not be.
  virtual void let_go() noexcept {}
  /// For many copies at once: visit(use) while no copy is taken away. What it marks with `use`
  /// (TensorMemory::find_on) is held until this thread lets go. `visit` must not call the device. Devices may
  /// do nothing.
  virtual void hold_marked(const std::function<void(uint64_t use)>& /*visit*/) {}
};

/// The memory of a tensor, of all its slices and shapes: bytes of the host and, once a back end has asked for
/// it, a copy on a device. It knows which of the two is current and copies when the other is read; memory
/// that nobody has written is never copied. Many threads may read at once, on the host and on a device. Who
/// writes is alone, but for threads that write different parts where no copy is due. One device serves it at
/// a time: another one takes over when it asks, while nobody else does. The device holds addresses that it
/// has given for the thread that asked, and may take the copy away afterwards.
class TensorMemory {
 public:
  /// Whose bytes are current. Fresh ones nobody has written.
  enum class State { fresh, host, device, both };

  /// Its own, uninitialised, on a cache line. Errors: out_of_memory.
  explicit TensorMemory(size_t bytes);
  /// Bytes that `owner` keeps alive, fresh or the host's.
  TensorMemory(std::byte* host, size_t bytes, std::shared_ptr<const void> owner, State state);
  ~TensorMemory();
  TensorMemory(const TensorMemory&) = delete;
  TensorMemory& operator=(const TensorMemory&) = delete;

  std::byte* host() const { return host_; }
  size_t byte_size() const { return bytes_; }
  State state() const { return state_.load(std::memory_order_acquire); }

  /// Makes the host's bytes current.
  void read_on_host() {
    if (state() == State::device) fetch();
  }
  /// And the device's stale.
  void write_on_host() {
    if (state() != State::host) claim();
  }

  /// The device's address of the first byte, current and held for this thread; null for no bytes.
  const void* read_on(const std::shared_ptr<DeviceMemory>& device);
  /// The same for memory of which a part is written, whereupon the host's bytes are stale.
  void* update_on(const std::shared_ptr<DeviceMemory>& device);
  /// The same where all is written: what stands there need not be current.
  void* overwrite_on(const std::shared_ptr<DeviceMemory>& device);

  /// In DeviceMemory::hold_marked alone: the address where the copy is current and, for bytes that are
  /// `written`, alone current; it is marked then. Else null.
  void* find_on(const std::shared_ptr<DeviceMemory>& device, bool written, uint64_t use) {
    if (written ? state() != State::device : !is_current_on(device)) return nullptr;
    if (device_ != device) return nullptr;
    last_use_.store(use, std::memory_order_relaxed);
    return address_;
  }
  /// The mark of this copy's last use; 0 for none.
  uint64_t last_use() const { return last_use_.load(std::memory_order_relaxed); }

  using Download = std::function<void(std::byte* to, const void* from, size_t bytes)>;
  /// For the device that has the copy and needs the room: the host's bytes become current, by `download`
  /// where they were stale, and the address is the device's to release. False while another thread is about
  /// to use the memory. Errors: those of `download`, whereupon all is as it was.
  bool give_up(const Download& download);

  bool is_current_on(const std::shared_ptr<DeviceMemory>& device) const {
    const State now = state();
    return (now == State::device || now == State::both) && device_ == device;
  }
  /// The device whose bytes alone are current; else null.
  std::shared_ptr<DeviceMemory> only_on() const { return state() == State::device ? device_ : nullptr; }

 private:
  void set(State state) { state_.store(state, std::memory_order_release); }
  void fetch();
  void claim();
  void bring_to_host();
  void attach(const std::shared_ptr<DeviceMemory>& device);
  void* bring(const std::shared_ptr<DeviceMemory>& device);

  std::byte* host_;
  size_t bytes_;
  bool own_ = false;                   // host_ is, to be freed
  std::shared_ptr<const void> owner_;  // of host_, if it is not own_
  std::atomic<State> state_;
  std::mutex mutex_;                      // for changes of what stands below, and of the state
  std::shared_ptr<DeviceMemory> device_;  // null before the first copy
  void* address_ = nullptr;               // of the copy, null where it was given up
  std::atomic<uint64_t> last_use_ = 0;    // as the device counts
};

}  // namespace salient
