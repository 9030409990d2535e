#pragma once

#include <array>
#include <cstddef>
#include <memory>

#include "backend/cuda/driver_api.h"

namespace salient::cuda {

/// Copies between pageable memory and a device through pinned buffers, the only memory that a device reads
/// while the host goes on: what the caller has may change as soon as a copy is queued, and large copies fill
/// one buffer while the device reads another. The context must be current in every call.
class Staging {
 public:
  static constexpr size_t kBufferBytes = size_t{4} << 20;
  static constexpr size_t kBuffers = 4;

  Staging(const driver::Driver& driver, driver::Stream stream);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// Queued.
  void copy_in(driver::Address to, const std::byte* from, size_t bytes);
  /// Waits for all that was queued.
  void copy_out(std::byte* to, driver::Address from, size_t bytes);

 private:
  /// Small copies share a buffer: an event is recorded only when it is left for the next.
  struct Buffer {
    std::byte* memory = nullptr;
    driver::Event event = nullptr;
    size_t used_bytes = 0;
    bool in_flight = false;
  };

  void open();
  void next_buffer();
  void begin_copy_out(driver::Address from, size_t piece, size_t bytes);
  void end_copy_out(std::byte* to, size_t piece, size_t bytes);

  const driver::Driver& driver_;
  driver::Stream stream_;
  std::byte* memory_ = nullptr;
  std::array<Buffer, kBuffers> buffers_;
  size_t current_ = 0;
};

}  // namespace salient::cuda
