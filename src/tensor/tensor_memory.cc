#include "tensor/tensor_memory.h"

#include <algorithm>
#include <cstdlib>

#include "base/error.h"

namespace salient {
namespace {

constexpr size_t kAlignment = 64;  // a cache line and a zmm register

std::byte* allocate(size_t bytes) {
  const size_t rounded = (std::max<size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  void* memory = std::aligned_alloc(kAlignment, rounded);
  if (memory == nullptr) fail(ErrorKind::out_of_memory, "cannot allocate {} bytes for a tensor", bytes);
  return static_cast<std::byte*>(memory);
}

}  // namespace

TensorMemory::TensorMemory(size_t bytes)
    : host_(allocate(bytes)), bytes_(bytes), own_(true), state_(State::fresh) {}

TensorMemory::TensorMemory(std::byte* host, size_t bytes, std::shared_ptr<const void> owner, State state)
    : host_(host), bytes_(bytes), owner_(std::move(owner)), state_(state) {}

TensorMemory::~TensorMemory() {
  {
    const std::lock_guard lock(mutex_);  // the device may be taking the copy away
    if (address_ != nullptr) device_->release(address_);
  }
  if (own_) std::free(host_);
}

void TensorMemory::bring_to_host() {
  if (state() != State::device) return;
  device_->download(host_, address_, bytes_);
  set(State::both);
}

void TensorMemory::fetch() {
  const std::lock_guard lock(mutex_);
  bring_to_host();
}

void TensorMemory::claim() {
  const std::lock_guard lock(mutex_);
  bring_to_host();
  set(State::host);
}

/// A copy on this device, current or not, and held.
void TensorMemory::attach(const std::shared_ptr<DeviceMemory>& device) {
  if (device_ != device || address_ == nullptr) {
    void* address = device->allocate(bytes_);
    if (address_ != nullptr) {
      bring_to_host();
      if (state() == State::both) set(State::host);
      device_->release(address_);
    }
    if (device_ != device) device_ = device;  // others may be reading it
    address_ = address;
    last_use_.store(0, std::memory_order_relaxed);
  }
  device_->hold(address_, *this);
}

void* TensorMemory::bring(const std::shared_ptr<DeviceMemory>& device) {
  attach(device);
  if (state() == State::host) {
    device_->upload(address_, host_, bytes_);
    set(State::both);
  }
  return address_;
}

const void* TensorMemory::read_on(const std::shared_ptr<DeviceMemory>& device) {
  if (bytes_ == 0) return nullptr;
  const std::lock_guard lock(mutex_);
  return bring(device);
}

void* TensorMemory::update_on(const std::shared_ptr<DeviceMemory>& device) {
  if (bytes_ == 0) return nullptr;
  const std::lock_guard lock(mutex_);
  void* address = bring(device);
  set(State::device);
  return address;
}

void* TensorMemory::overwrite_on(const std::shared_ptr<DeviceMemory>& device) {
  if (bytes_ == 0) return nullptr;
  const std::lock_guard lock(mutex_);
  attach(device);
  set(State::device);
  return address_;
}

bool TensorMemory::give_up(const Download& download) {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return false;
  if (state() == State::device) download(host_, address_, bytes_);
  if (state() != State::fresh) set(State::host);
  address_ = nullptr;
  return true;
}

}  // namespace salient
