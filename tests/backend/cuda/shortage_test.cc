// What happens where the driver, a table or a measurement finds little memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <random>

#include "backend/backend_fixture.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/forwarding_device.h"
#include "backend/cuda/linear_products.h"
#include "backend/cuda/simulator.h"
#include "backend/cuda/tensor_access.h"
#include "base/error.h"
#include "quant/group_quantize.h"
#include "support/error_matcher.h"

namespace salient::test {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

constexpr int64_t kCount = 4096;
constexpr size_t kBytes = kCount * sizeof(float);

Tensor filled(float value, int64_t count = kCount) {
  Tensor result = Tensor::empty(DType::f32, {count});
  std::ranges::fill(result.mutable_values<float>(), value);
  return result;
}

/// A device whose driver needs some memory to be free for all that it does beside copies.
class NeedyDevice final : public cuda::ForwardingDevice {
 public:
  NeedyDevice() : ForwardingDevice(simulated) {}
  void launch(const cuda::Launch& launch) override {
    require();
    device_.launch(launch);
  }
  bool multiplies() const override {
    require();
    return device_.multiplies();
  }
  void multiply(const cuda::HalfProduct& product) override {
    require();
    device_.multiply(product);
  }
  std::unique_ptr<cuda::LaunchGraph> capture(std::span<const cuda::Launch> launches) override {
    require();
    return device_.capture(launches);
  }
  void run(cuda::LaunchGraph& graph, std::span<const cuda::Launch> launches) override {
    require();
    device_.run(graph, launches);
  }
  SimulatedDevice simulated;
  size_t needs = 0;

 private:
  void require() const {
    if (device_.free_bytes() < needs) fail(ErrorKind::out_of_memory, "no room for the driver");
  }
};

class Shortage : public ::testing::Test {
 protected:
  Shortage() {
    auto owned = std::make_unique<NeedyDevice>();
    device = owned.get();
    access.emplace(std::move(owned));
  }
  /// y += x.
  void add(const Tensor& x, Tensor& y) const {
    const float* from = access->read(x);
    float* to = access->update(y);
    access->run([&](cuda::Device& on) { cuda::add(on, from, to, kCount); });
  }
  /// The same with addresses that are found by one mark, as those of blocks of a cache are.
  void add_found(const Tensor& x, Tensor& y) const {
    const float* from = nullptr;
    float* to = nullptr;
    access->memory()->hold_marked([&](uint64_t use) {
      from = static_cast<const float*>(x.device_find(access->memory(), false, use));
      to = static_cast<float*>(y.device_find(access->memory(), true, use));
    });
    ASSERT_TRUE(from != nullptr && to != nullptr);
    access->run([&](cuda::Device& on) { cuda::add(on, from, to, kCount); });
  }
  void touch(const Tensor& x) const {
    access->read(x);
    access->run([](cuda::Device&) {});
  }
  /// Nothing is free, and the driver needs `tensors`.
  void fill_device(size_t tensors) const {
    device->simulated.set_total_bytes(device->simulated.used_bytes());
    device->needs = tensors * kBytes;
  }
  size_t used() const { return device->simulated.used_bytes() / kBytes; }

  NeedyDevice* device = nullptr;
  std::optional<cuda::TensorAccess> access;
};

TEST_F(Shortage, CopiesMakeRoomForALaunch) {
  const Tensor one = filled(1);
  Tensor idle = filled(2);
  Tensor sum = filled(3);
  add(one, idle);
  add(one, sum);
  fill_device(1);
  add(one, sum);
  EXPECT_EQ(used(), 2u) << "what the launch works on";
  EXPECT_THAT(idle.values<float>(), Each(3));
  EXPECT_THAT(sum.values<float>(), Each(5));
}

TEST_F(Shortage, ALaunchThatFindsNoRoomIsAnError) {
  const Tensor one = filled(1);
  Tensor sum = filled(3);
  add(one, sum);
  fill_device(1);
  EXPECT_THAT([&] { add(one, sum); },
              throws_error(ErrorKind::out_of_memory, HasSubstr("no room for the driver")));
  EXPECT_EQ(used(), 2u);
}

TEST_F(Shortage, CopiesMakeRoomForProducts) {
  const auto of_products = [&](const auto& body) {
    device->needs = 0;
    device->simulated.set_total_bytes(size_t{1} << 20);
    Tensor idle = filled(2);
    add(filled(1), idle);
    device->simulated.set_total_bytes(device->simulated.used_bytes() + 4096);
    device->needs = kBytes;
    access->run(body);
    EXPECT_THAT(idle.values<float>(), Each(3));
  };
  of_products([](cuda::Device& on) { EXPECT_TRUE(on.multiplies()); });
  of_products([](cuda::Device& on) {
    const cuda::DeviceBuffer memory(on, 256);
    on.fill_zero(memory.address(), 256);
    auto* halves = memory.as<float>();
    on.multiply({halves, halves, halves + 32, 1, 8, 4, cuda::HalfType::f16});
  });
}

/// Copies that launches use which are held back must stay, though no thread holds them.
TEST_F(Shortage, WhatLaunchesUseThatAreHeldBackStays) {
  const Tensor one = filled(1);
  Tensor idle = filled(2);
  Tensor sum = filled(0);
  add(one, idle);
  const auto pass = [&] {
    for (int i = 0; i < 10; ++i) add(one, sum);
  };
  const auto wait = [&] { access->run([](cuda::Device& on) { on.synchronize(); }); };
  for (int i = 0; i < 2; ++i) {
    pass();
    wait();
  }
  pass();
  fill_device(1);
  wait();
  EXPECT_EQ(device->simulated.graph_runs(), 1);
  EXPECT_EQ(used(), 2u) << "idle has gone";
  EXPECT_THAT(sum.values<float>(), Each(30));
  EXPECT_THAT(idle.values<float>(), Each(3));
}

TEST_F(Shortage, WhatWasFoundByAMarkStaysToo) {
  const Tensor one = filled(1);
  Tensor idle = filled(2);
  Tensor sum = filled(0);
  add(one, idle);
  add(one, sum);
  const auto wait = [&] { access->run([](cuda::Device& on) { on.synchronize(); }); };
  for (int pass = 0; pass < 3; ++pass) {
    wait();
    for (int i = 0; i < 10; ++i) add_found(one, sum);
  }
  fill_device(1);
  wait();
  EXPECT_EQ(device->simulated.graph_runs(), 1);
  EXPECT_EQ(used(), 2u) << "idle has gone";
  EXPECT_THAT(sum.values<float>(), Each(31));
  EXPECT_THAT(idle.values<float>(), Each(3));
}

/// A download sends what was held back, which looks for room on its way.
TEST_F(Shortage, RoomIsMadeWhileRoomIsMade) {
  std::vector<Tensor> idle;
  const Tensor one = filled(1);
  for (int i = 0; i < 4; ++i) add(one, idle.emplace_back(filled(static_cast<float>(i))));
  Tensor sum = filled(0);
  for (int pass = 0; pass < 3; ++pass) {
    if (pass > 0) access->run([](cuda::Device& on) { on.synchronize(); });
    for (int i = 0; i < 10; ++i) add(one, sum);
  }
  fill_device(1);
  touch(filled(7));  // makes idle[0] go, for which the graph runs, which needs room
  EXPECT_EQ(device->simulated.graph_runs(), 1);
  EXPECT_THAT(sum.values<float>(), Each(30));
  for (int i = 0; i < 4; ++i)
    EXPECT_THAT(idle[static_cast<size_t>(i)].values<float>(), Each(static_cast<float>(i + 1)));
  EXPECT_TRUE(device->simulated.guards_held());
}

TEST_F(Shortage, LaunchesThatAreLostAreAnErrorOfTheirOwn) {
  const Tensor one = filled(1);
  Tensor sum = filled(0);
  for (int pass = 0; pass < 3; ++pass) {
    if (pass > 0) access->run([](cuda::Device& on) { on.synchronize(); });
    for (int i = 0; i < 10; ++i) add(one, sum);
  }
  fill_device(1);
  const auto is_done = [&] {
    access->run([](cuda::Device& on) { on.synchronize(); });
    return true;
  };
  EXPECT_THAT(
      [&] { cuda::done_where_there_is_room(is_done); },
      throws_error(ErrorKind::internal, HasSubstr("10 launches that were held back, from add_values")));
}

TEST_F(Shortage, WhatWouldNotFitAnywayTakesNothingAway) {
  const Tensor one = filled(1);
  touch(one);
  device->simulated.set_total_bytes(2 * kBytes);
  EXPECT_THAT([&] { touch(filled(1, 3 * kCount)); },
              throws_error(ErrorKind::out_of_memory, HasSubstr("take fewer tokens at a time")));
  EXPECT_EQ(used(), 1u);
  touch(filled(1, 2 * kCount));
  EXPECT_EQ(access->memory()->taken_bytes(), kBytes);
}

TEST_F(Shortage, MeasuringTakesNothingAway) {
  std::mt19937 generator(3);
  const QuantizedWeight weight = quantize_to_nearest(random_tensor(generator, {32, 1024}), {},
                                                     {.symmetric = false, .group_size = 128}, DType::f16);
  cuda::ProductTable table("", "a");
  cuda::Products products(access->memory()->device());
  products.measure(&table, 0);
  std::vector<Tensor> idle;
  for (int i = 0; i < 15; ++i) touch(idle.emplace_back(filled(1, 64 * kCount)));
  device->simulated.set_total_bytes(16 * 64 * kBytes);
  const Tensor x = random_tensor(generator, {2, 1024});
  Tensor y = Tensor::empty(DType::f32, {2, 32});
  const float* from = access->read(x);
  float* to = access->write(y);
  access->run([&](cuda::Device& on) {
    const cuda::ProductWeight prepared(on, cuda::pack_codes(weight), cuda::HalfType::f16);
    products.set_input(from, 2, 1024);
    products.multiply(prepared, to);
  });
  EXPECT_EQ(access->memory()->taken_bytes(), 0u);
}

/// Up to so many bytes go by launches; odd addresses do not.
TEST_F(Shortage, FewBytesAreSentByLaunches) {
  const std::vector<std::byte> bytes(8000, std::byte{5});
  access->run([&](cuda::Device& on) {
    const cuda::DeviceBuffer memory(on, bytes.size());
    const auto launches = [&](size_t count, size_t offset) {
      const auto& all = device->simulated.launches();
      const auto now = [&] { return all.contains("write_arguments") ? all.at("write_arguments") : 0; };
      const int before = now();
      on.fill_zero(memory.address(), bytes.size());
      cuda::send_bytes(on, std::span(bytes).first(count), memory.as<std::byte>() + offset);
      std::vector<std::byte> found(count);
      on.copy_out(found.data(), memory.as<std::byte>() + offset, count);
      EXPECT_THAT(found, Each(std::byte{5}));
      return now() - before;
    };
    EXPECT_EQ(launches(5, 0), 1);
    EXPECT_EQ(launches(2 * cuda::kWriteBytes, 4), 2);
    EXPECT_EQ(launches(2 * cuda::kWriteBytes + 4, 0), 0);
    EXPECT_EQ(launches(8, 2), 0);
  });
}

class ShortageOfTables : public ::testing::Test {
 protected:
  ShortageOfTables() {
    auto owned = std::make_unique<SimulatedDevice>();
    device = owned.get();
    backend = cuda::make_cuda_backend(std::move(owned), {});
    table = random_tensor(generator, {512, 64});
  }
  void embed() {
    const std::vector<int32_t> tokens{3, 500, 7};
    Tensor y = Tensor::empty(DType::f32, {3, 64});
    backend->embed(table, tokens, y);
    for (size_t i = 0; i < tokens.size(); ++i) {
      for (size_t k = 0; k < 64; ++k) {
        EXPECT_EQ(y.values<float>()[i * 64 + k],
                  table.values<float>()[static_cast<size_t>(tokens[i]) * 64 + k]);
      }
    }
  }
  int embedded_there() const {
    const auto found = device->launches().find("take_rows");
    return found == device->launches().end() ? 0 : found->second;
  }

  std::mt19937 generator{7};
  SimulatedDevice* device = nullptr;
  std::unique_ptr<Backend> backend;
  Tensor table;
};

TEST_F(ShortageOfTables, OneThatIsLargerThanTheDeviceTakesNothingAway) {
  Tensor other = random_tensor(generator, {64, 64});
  backend->scale(2, other);
  device->set_total_bytes(table.byte_size());
  const size_t used = device->used_bytes();
  device->set_total_bytes(table.byte_size() - 1);
  for (int token = 0; token < 3; ++token) embed();
  EXPECT_EQ(device->used_bytes(), used);
  EXPECT_EQ(embedded_there(), 0);
}

/// It would come again at each token, in the place of what the token needs.
TEST_F(ShortageOfTables, OneThatPushesOthersOutComesOnce) {
  Tensor other = random_tensor(generator, {64, 64});
  backend->scale(2, other);
  device->set_total_bytes(table.byte_size() + 4096);
  for (int token = 0; token < 3; ++token) {
    embed();
    backend->scale(2, other);
  }
  EXPECT_EQ(embedded_there(), 1);
}

TEST_F(ShortageOfTables, OneThatHasRoomStays) {
  for (int token = 0; token < 3; ++token) embed();
  EXPECT_EQ(embedded_there(), 3);
}

}  // namespace
}  // namespace salient::test
