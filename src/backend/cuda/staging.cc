#include "backend/cuda/staging.h"

#include <algorithm>
#include <cstring>

namespace salient::cuda {
namespace {

constexpr size_t kAlignment = 64;
}  // namespace

Staging::Staging(const driver::Driver& driver, driver::Stream stream) : driver_(driver), stream_(stream) {}

Staging::~Staging() {
  for (const Buffer& buffer : buffers_) {
    if (buffer.event != nullptr) driver_.try_call(driver_.destroy_event, buffer.event);
  }
  if (memory_ != nullptr) driver_.try_call(driver_.release_pinned, static_cast<void*>(memory_));
}

void Staging::open() {
  if (memory_ != nullptr) return;
  for (Buffer& buffer : buffers_) {
    if (buffer.event == nullptr)
      driver_.call(driver_.create_event, &buffer.event, driver::kEventWithoutTiming);
  }
  void* memory = nullptr;
  driver_.call(driver_.allocate_pinned, &memory, kBuffers * kBufferBytes, 0u);
  memory_ = static_cast<std::byte*>(memory);
  for (size_t i = 0; i < kBuffers; ++i) buffers_[i].memory = memory_ + i * kBufferBytes;
}

void Staging::next_buffer() {
  driver_.call(driver_.record_event, buffers_[current_].event, stream_);
  buffers_[current_].in_flight = true;
  current_ = (current_ + 1) % kBuffers;
  Buffer& buffer = buffers_[current_];
  if (buffer.in_flight) driver_.call(driver_.synchronize_event, buffer.event);
  buffer.in_flight = false;
  buffer.used_bytes = 0;
}

void Staging::copy_in(driver::Address to, const std::byte* from, size_t bytes) {
  open();
  while (bytes > 0) {
    const size_t wanted = std::min(bytes, kBufferBytes);
    if (kBufferBytes - buffers_[current_].used_bytes < wanted) next_buffer();
    Buffer& buffer = buffers_[current_];
    std::byte* staged = buffer.memory + buffer.used_bytes;
    std::memcpy(staged, from, wanted);
    driver_.call(driver_.copy_in, to, static_cast<const void*>(staged), wanted, stream_);
    buffer.used_bytes += (wanted + kAlignment - 1) / kAlignment * kAlignment;
    to += wanted;
    from += wanted;
    bytes -= wanted;
  }
}

/// The device writes a buffer behind its own reads of it: that these may be in flight does no harm.
void Staging::begin_copy_out(driver::Address from, size_t piece, size_t bytes) {
  const Buffer& buffer = buffers_[piece % kBuffers];
  const size_t begin = piece * kBufferBytes;
  driver_.call(driver_.copy_out, static_cast<void*>(buffer.memory), from + begin,
               std::min(kBufferBytes, bytes - begin), stream_);
  driver_.call(driver_.record_event, buffer.event, stream_);
}

void Staging::end_copy_out(std::byte* to, size_t piece, size_t bytes) {
  const Buffer& buffer = buffers_[piece % kBuffers];
  const size_t begin = piece * kBufferBytes;
  driver_.call(driver_.synchronize_event, buffer.event);
  std::memcpy(to + begin, buffer.memory, std::min(kBufferBytes, bytes - begin));
}

void Staging::copy_out(std::byte* to, driver::Address from, size_t bytes) {
  open();
  const size_t pieces = (bytes + kBufferBytes - 1) / kBufferBytes;
  for (size_t piece = 0; piece < pieces + kBuffers; ++piece) {
    if (piece >= kBuffers && piece - kBuffers < pieces) end_copy_out(to, piece - kBuffers, bytes);
    if (piece < pieces) begin_copy_out(from, piece, bytes);
  }
  driver_.call(driver_.synchronize_stream, stream_);
  for (Buffer& buffer : buffers_) {
    buffer.in_flight = false;
    buffer.used_bytes = 0;
  }
  current_ = 0;
}

}  // namespace salient::cuda
