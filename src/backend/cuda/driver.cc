#include "backend/cuda/driver.h"

#include <algorithm>
#include <array>

#include "backend/cuda/driver_api.h"
#include "backend/cuda/driver_graph.h"
#include "backend/cuda/half_products.h"
#include "backend/cuda/kernel_library.h"
#include "backend/cuda/memory_pool.h"
#include "backend/cuda/staging.h"
#include "base/error.h"

namespace salient::cuda {
namespace {

using driver::Address;
using driver::ContextScope;
using driver::Driver;

Address address_of(const void* memory) { return reinterpret_cast<Address>(memory); }

std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

/// What is built with CUDA 12.8 or a later 12 runs on drivers from 12.8, what is built with a 13 on all of
/// 13: the machine code of a release is for drivers of its major version or later ones.
int oldest_driver(int toolkit) { return std::max(toolkit / 1000 * 1000, 12080); }

/// The driver, ready to be asked for devices. Errors: unsupported.
std::unique_ptr<Driver> load_driver(const CudaLibraries& libraries) {
  if (libraries.kernels.images.empty())
    fail(ErrorKind::unsupported,
         "this build has no CUDA kernels: nvcc was not found when it was built (./dev build brings it where "
         "there is a driver)");
  std::unique_ptr<Driver> driver;
  try {
    driver = std::make_unique<Driver>(libraries.driver);
  } catch (const Error& error) {
    fail(ErrorKind::unsupported, "no NVIDIA driver: {}", error.what());
  }
  int version = 0;
  if (driver->version.function != nullptr) driver->version.function(&version);
  if (const int oldest = oldest_driver(libraries.kernels.toolkit); version < oldest) {
    fail(ErrorKind::unsupported, "the driver (CUDA {}) is too old: {} or newer is needed",
         version_text(version), version_text(oldest));
  }
  if (!driver->missing.empty())
    fail(ErrorKind::unsupported, "the NVIDIA driver has no function {}", driver->missing);
  const driver::Result started = driver->init.function(0);
  if (started == driver::kNoDevice) fail(ErrorKind::unsupported, "the NVIDIA driver sees no device");
  if (started != driver::kSuccess)
    fail(ErrorKind::unsupported, "the NVIDIA driver does not start: cuInit: {}", driver->text_of(started));
  return driver;
}

int attribute(const Driver& driver, driver::DeviceId device, int which) {
  int value = 0;
  driver.call(driver.device_attribute, &value, which, device);
  return value;
}

DeviceProperties properties_of(const Driver& driver, driver::DeviceId device) {
  std::array<char, 256> name{};
  driver.call(driver.device_name, name.data(), static_cast<int>(name.size()) - 1, device);
  DeviceProperties properties{
      .name = name.data(),
      .compute_capability = attribute(driver, device, driver::kComputeCapabilityMajor) * 10 +
                            attribute(driver, device, driver::kComputeCapabilityMinor),
      .multiprocessors = attribute(driver, device, driver::kMultiprocessors),
      .shared_bytes = static_cast<size_t>(attribute(driver, device, driver::kSharedBytesOfBlock)),
      .multiprocessor_shared_bytes =
          static_cast<size_t>(attribute(driver, device, driver::kSharedBytesOfMultiprocessor))};
  driver.call(driver.device_bytes, &properties.total_bytes, device);
  return properties;
}

int device_count(const Driver& driver) {
  int count = 0;
  driver.call(driver.device_count, &count);
  return count;
}

driver::DeviceId device_by_ordinal(const Driver& driver, int ordinal) {
  driver::DeviceId device = 0;
  driver.call(driver.device, &device, ordinal);
  return device;
}

bool runs_kernels(const DeviceProperties& properties) {
  return properties.compute_capability >= kOldestComputeCapability;
}

std::string too_old(const DeviceProperties& properties) {
  return fmt::format("{} has compute capability {}.{}: {}.{} or newer is needed", properties.name,
                     properties.compute_capability / 10, properties.compute_capability % 10,
                     kOldestComputeCapability / 10, kOldestComputeCapability % 10);
}

/// A device's context, and a stream in it.
class DeviceStream {
 public:
  DeviceStream(const Driver& driver, driver::DeviceId device) : driver_(driver), device_(device) {
    driver_.call(driver_.retain_context, &context_, device_);
    try {
      const ContextScope scope(driver_, context_);
      driver_.call(driver_.create_stream, &stream_, driver::kNonBlockingStream);
    } catch (...) {
      driver_.try_call(driver_.release_context, device_);
      throw;
    }
  }
  ~DeviceStream() {
    {
      const ContextScope scope(driver_, context_);
      driver_.try_call(driver_.destroy_stream, stream_);
    }
    driver_.try_call(driver_.release_context, device_);
  }
  DeviceStream(const DeviceStream&) = delete;
  DeviceStream& operator=(const DeviceStream&) = delete;

  driver::Context context() const { return context_; }
  driver::Stream get() const { return stream_; }

 private:
  const Driver& driver_;
  driver::DeviceId device_;
  driver::Context context_ = nullptr;
  driver::Stream stream_ = nullptr;
};

/// A point in a stream whose time the device notes.
class TimedEvent {
 public:
  explicit TimedEvent(const Driver& driver) : driver_(driver) {
    driver_.call(driver_.create_event, &event_, driver::kEventWithTiming);
  }
  ~TimedEvent() { driver_.try_call(driver_.destroy_event, event_); }
  TimedEvent(const TimedEvent&) = delete;
  TimedEvent& operator=(const TimedEvent&) = delete;

  void record(driver::Stream stream) const { driver_.call(driver_.record_event, event_, stream); }
  /// Waits for this one.
  double seconds_since(const TimedEvent& other) const {
    driver_.call(driver_.synchronize_event, event_);
    float milliseconds = 0;
    driver_.call(driver_.elapsed_milliseconds, &milliseconds, other.event_, event_);
    return double{milliseconds} * 1e-3;
  }

 private:
  const Driver& driver_;
  driver::Event event_ = nullptr;
};

size_t free_for_driver(const Driver& driver) {
  size_t free = 0;
  size_t total = 0;
  driver.call(driver.memory_info, &free, &total);
  return free;
}

/// Some of the memory is left to the driver, which needs it for modules and graphs, and to the library of
/// products.
class DriverMemory final : public MemorySource {
 public:
  DriverMemory(const Driver& driver, size_t total_bytes)
      : driver_(driver), reserved_bytes_(std::min(kMostReserved, total_bytes / 64)) {}
  void* allocate(size_t bytes) override {
    return free_for_driver(driver_) < bytes + reserved_bytes_ ? nullptr : allocate_reserved(bytes);
  }
  /// Of what is left as well.
  void* allocate_reserved(size_t bytes) {
    Address address = 0;
    const driver::Result result = driver_.allocate.function(&address, bytes);
    if (result == driver::kOutOfMemory) return nullptr;
    driver_.check(driver_.allocate.symbol, result);
    return reinterpret_cast<void*>(address);
  }
  void release(void* memory) noexcept override { driver_.try_call(driver_.release, address_of(memory)); }
  size_t reserved_bytes() const { return reserved_bytes_; }

 private:
  static constexpr size_t kMostReserved = size_t{256} << 20;
  const Driver& driver_;
  size_t reserved_bytes_;
};

/// What a device consists of; all of it is made and destroyed with the context current.
struct DeviceParts {
  DeviceParts(const Driver& driver, size_t total_bytes, driver::Stream stream, const CudaLibraries& libraries)
      : memory(driver, total_bytes),
        pool(memory),
        staging(driver, stream),
        kernels(driver, libraries.kernels),
        products(libraries.products) {}
  ~DeviceParts() {
    if (workspace != nullptr) memory.release(workspace);
  }
  DeviceParts(const DeviceParts&) = delete;
  DeviceParts& operator=(const DeviceParts&) = delete;

  DriverMemory memory;
  MemoryPool pool;
  Staging staging;
  KernelLibrary kernels;
  HalfProducts products;
  void* workspace = nullptr;  // of products
};

class DriverDevice final : public Device {
 public:
  DriverDevice(std::unique_ptr<Driver> driver, int ordinal, const CudaLibraries& libraries)
      : driver_(std::move(driver)),
        properties_(properties_of(*driver_, device_by_ordinal(*driver_, ordinal))),
        stream_(*driver_, device_by_ordinal(*driver_, ordinal)),
        parts_(std::make_unique<DeviceParts>(*driver_, properties_.total_bytes, stream_.get(), libraries)) {}

  ~DriverDevice() override {
    const ContextScope scope = enter();
    driver_->try_call(driver_->synchronize_stream, stream_.get());
    parts_.reset();
  }

  const DeviceProperties& properties() const override { return properties_; }

  size_t free_bytes() override {
    const ContextScope scope = enter();
    const size_t all = free_for_driver(*driver_) + parts_->pool.kept_bytes();
    return all - std::min(all, parts_->memory.reserved_bytes());
  }

  void* allocate(size_t bytes) override {
    const ContextScope scope = enter();
    if (void* memory = parts_->pool.allocate(bytes)) return memory;
    const auto mebibytes = [](size_t count) { return static_cast<double>(count) / (1 << 20); };
    fail(ErrorKind::out_of_memory, "{}: no room for {:.1f} MiB: {:.1f} of {:.1f} MiB are free",
         properties_.name, mebibytes(bytes), mebibytes(free_for_driver(*driver_)),
         mebibytes(properties_.total_bytes));
  }
  /// Memory stays with the pool: the driver is not asked, and the context does not matter.
  void release(void* memory) noexcept override { parts_->pool.release(memory); }

  void copy_in(void* to, const void* from, size_t bytes) override {
    if (bytes == 0) return;
    const ContextScope scope = enter();
    parts_->staging.copy_in(address_of(to), static_cast<const std::byte*>(from), bytes);
  }
  void copy_out(void* to, const void* from, size_t bytes) override {
    const ContextScope scope = enter();
    parts_->staging.copy_out(static_cast<std::byte*>(to), address_of(from), bytes);
  }
  void copy(void* to, const void* from, size_t bytes) override {
    if (bytes == 0) return;
    const ContextScope scope = enter();
    driver_->call(driver_->copy, address_of(to), address_of(from), bytes, stream_.get());
  }
  void fill_zero(void* to, size_t bytes) override {
    if (bytes == 0) return;
    const ContextScope scope = enter();
    driver_->call(driver_->fill, address_of(to), static_cast<unsigned char>(0), bytes, stream_.get());
  }

  void launch(const Launch& launch) override {
    const ContextScope scope = enter();
    with_room([&] {
      void* argument = nullptr;
      const driver::KernelNode node = parts_->kernels.node(launch, argument);
      for_kernel(launch, [&] {
        driver_->call(driver_->launch, node.function, node.grid_x, node.grid_y, node.grid_z, node.block_x, 1u,
                      1u, node.shared_bytes, stream_.get(), node.arguments, node.extra);
      });
    });
  }
  void synchronize() override {
    const ContextScope scope = enter();
    driver_->call(driver_->synchronize_stream, stream_.get());
  }

  double seconds_of(const std::function<void()>& work) override {
    const ContextScope scope = enter();
    const TimedEvent begin(*driver_);
    const TimedEvent end(*driver_);
    begin.record(stream_.get());
    work();
    end.record(stream_.get());
    return end.seconds_since(begin);
  }

  bool multiplies() const override {
    const ContextScope scope = enter();
    return with_room([&] { return parts_->products.available(); });
  }
  void multiply(const HalfProduct& product) override {
    if (product.rows == 0 || product.out == 0) return;
    const ContextScope scope = enter();
    with_room([&] { parts_->products.multiply(product, workspace(), stream_.get()); });
  }

  std::unique_ptr<LaunchGraph> capture(std::span<const Launch> launches) override {
    const ContextScope scope = enter();
    return with_room([&] {
      return std::make_unique<DriverGraph>(*driver_, stream_.context(), parts_->kernels, launches);
    });
  }
  void run(LaunchGraph& graph, std::span<const Launch> launches) override {
    const ContextScope scope = enter();
    with_room([&] { dynamic_cast<DriverGraph&>(graph).run(launches, stream_.get()); });
  }

 private:
  ContextScope enter() const { return {*driver_, stream_.context()}; }
  /// Does what the driver or the library may need memory for, a second time where that was kept in the pool.
  /// Neither has queued anything when it fails for want of memory.
  template <typename Body>
  auto with_room(const Body& body) const -> decltype(body()) {
    try {
      return body();
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::out_of_memory || parts_->pool.give_back() == 0) throw;
    }
    return body();
  }
  void* workspace() const {
    void*& memory = parts_->workspace;
    if (memory == nullptr) memory = parts_->memory.allocate_reserved(HalfProducts::kWorkspaceBytes);
    if (memory == nullptr)
      fail(ErrorKind::out_of_memory, "{}: no room for the library of products", properties_.name);
    return memory;
  }

  std::unique_ptr<Driver> driver_;
  DeviceProperties properties_;
  DeviceStream stream_;
  std::unique_ptr<DeviceParts> parts_;
};

}  // namespace

CudaStatus query_cuda(const CudaLibraries& libraries) {
  CudaStatus status;
  try {
    const auto driver = load_driver(libraries);
    for (int ordinal = 0; ordinal < device_count(*driver); ++ordinal)
      status.devices.push_back(properties_of(*driver, device_by_ordinal(*driver, ordinal)));
    if (status.devices.empty()) {
      status.why_not = "the NVIDIA driver sees no device";
    } else if (std::ranges::none_of(status.devices, runs_kernels)) {
      status.why_not = too_old(status.devices.front());
    }
  } catch (const Error& error) {
    status.why_not = error.what();
  }
  return status;
}

std::unique_ptr<Device> open_cuda_device(int ordinal, const CudaLibraries& libraries) {
  auto driver = load_driver(libraries);
  const int count = device_count(*driver);
  if (count == 0) fail(ErrorKind::unsupported, "the NVIDIA driver sees no device");
  if (ordinal < 0 || ordinal >= count)
    fail(ErrorKind::invalid_argument, "there is no CUDA device {}, they are numbered 0 to {}", ordinal,
         count - 1);
  const DeviceProperties properties = properties_of(*driver, device_by_ordinal(*driver, ordinal));
  if (!runs_kernels(properties)) fail(ErrorKind::unsupported, "{}", too_old(properties));
  return std::make_unique<DriverDevice>(std::move(driver), ordinal, libraries);
}

}  // namespace salient::cuda
