#include "tensor/tensor_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <cstring>
#include <numeric>
#include <optional>
#include <thread>

#include "support/counting_device.h"
#include "support/error_matcher.h"
#include "tensor/tensor_pool.h"

namespace salient::test {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Counts = CountingDevice::Counts;

constexpr Counts kNone{};
constexpr Counts kOneUpload{.uploads = 1};
constexpr Counts kOneDownload{.downloads = 1};
constexpr Counts kOneCopy{.copies = 1};

class TensorMemoryTest : public ::testing::Test {
 protected:
  /// What a kernel does: y = value.
  void fill(Tensor& y, float value) {
    std::fill_n(static_cast<float*>(y.device_write(device)), y.element_count(), value);
  }
  /// y += x.
  void add(const Tensor& x, Tensor& y) {
    const auto* from = static_cast<const float*>(x.device_read(device));
    auto* to = static_cast<float*>(y.device_update(device));
    for (int64_t i = 0; i < y.element_count(); ++i) to[i] += from[i];
  }
  Counts counts() const { return counting->counts(); }

  std::shared_ptr<CountingDevice> counting = std::make_shared<CountingDevice>();
  std::shared_ptr<DeviceMemory> device = counting;
};

Tensor numbers(Shape shape) {
  Tensor result = Tensor::empty(DType::f32, std::move(shape));
  std::iota(result.mutable_values<float>().begin(), result.mutable_values<float>().end(), 0.0f);
  return result;
}

TEST_F(TensorMemoryTest, WhatNobodyHasWrittenIsNotCopied) {
  Tensor x = Tensor::empty(DType::f32, {2, 3});
  EXPECT_NE(x.device_read(device), nullptr);
  EXPECT_NE(x.bytes(), nullptr);
  EXPECT_NE(x.slice(1, 2).device_read(device), nullptr);
  EXPECT_EQ(x.device_update(device), x.device_read(device));
  EXPECT_EQ(counts(), kNone);
  Tensor y = Tensor::empty(DType::f32, {2, 3});
  Tensor row = y.slice(1, 2);
  EXPECT_EQ(static_cast<std::byte*>(row.device_write(device)),
            static_cast<const std::byte*>(y.device_read(device)) + 12);
  y = Tensor::empty(DType::f32, {2, 3});
  EXPECT_NE(y.device_read(device), nullptr);
  EXPECT_NE(y.mutable_bytes(), nullptr);
  EXPECT_EQ(counts(), kNone);
}

TEST_F(TensorMemoryTest, TheHostReadsOnceWhatTheDeviceWrote) {
  Tensor x = numbers({2, 3});
  const Tensor other = x.reshape({6});
  fill(x, 7);
  fill(x, 8);
  EXPECT_EQ(counts(), kNone) << "all of it was to be overwritten";
  EXPECT_THAT(x.values<float>(), Each(8));
  EXPECT_THAT(other.values<float>(), Each(8));
  EXPECT_NE(x.slice(0, 1).bytes(), nullptr);
  EXPECT_EQ(counts(), kOneDownload);
  EXPECT_NE(x.device_read(device), nullptr);
  EXPECT_EQ(counts(), kNone) << "both are current";
}

TEST_F(TensorMemoryTest, TheDeviceReadsOnceWhatTheHostWrote) {
  const Tensor x = numbers({4});
  Tensor sum = Tensor::empty(DType::f32, {4});
  fill(sum, 1);
  add(x, sum);
  add(x, sum);
  add(x.reshape({4}).slice(0, 4), sum);
  EXPECT_EQ(counts(), kOneUpload);
  sum.mutable_values<float>()[0] = 100;
  EXPECT_EQ(counts(), kOneDownload) << "the host changes what it has";
  sum.mutable_values<float>()[1] = 200;
  EXPECT_EQ(counts(), kNone);
  add(x, sum);
  EXPECT_EQ(counts(), kOneUpload) << "written on the host again";
  EXPECT_THAT(sum.values<float>(), ElementsAre(100, 201, 9, 13));
}

TEST_F(TensorMemoryTest, SlicesLeaveWhatStandsAroundThem) {
  Tensor x = numbers({3, 2});
  Tensor middle = x.slice(1, 2);
  fill(middle, 9);
  EXPECT_EQ(counts(), kOneUpload);
  fill(middle, 10);
  EXPECT_EQ(counts(), kNone);
  EXPECT_THAT(x.values<float>(), ElementsAre(0, 1, 10, 10, 4, 5));
  EXPECT_EQ(counts(), kOneDownload);
  Tensor last = x.slice(2, 3);
  last.mutable_values<float>()[0] = -1;
  fill(middle, 11);
  EXPECT_THAT(x.values<float>(), ElementsAre(0, 1, 11, 11, -1, 5));
  EXPECT_EQ(counts(), (Counts{.uploads = 1, .downloads = 1}));
}

TEST_F(TensorMemoryTest, ViewsAreReadOnTheDeviceOnly) {
  const auto owner = std::make_shared<std::vector<float>>(std::vector{1.0f, 2.0f, 3.0f});
  std::optional<Tensor> view = Tensor::view(DType::f32, {3}, owner->data(), owner);
  Tensor sum = Tensor::zeros(DType::f32, {3});
  add(*view, sum);
  const Tensor copy = *view;
  add(copy.slice(0, 3), sum);
  EXPECT_THAT(sum.values<float>(), ElementsAre(2, 4, 6));
  EXPECT_EQ(counts(), (Counts{.uploads = 2, .downloads = 1}));
  EXPECT_THAT([&] { view->device_write(device); },
              throws_error(ErrorKind::internal, HasSubstr("read-only tensor [3]")));
  EXPECT_THAT([&] { view->device_update(device); },
              throws_error(ErrorKind::internal, HasSubstr("read-only tensor [3]")));
  view.reset();
  EXPECT_EQ(counting->allocations(), 2u) << "a tensor still has the memory";
}

TEST_F(TensorMemoryTest, TheCopyGoesWithItsLastTensor) {
  {
    Tensor x = numbers({5});
    const Tensor part = x.slice(1, 2);
    fill(x, 1);
    x = Tensor();
    EXPECT_EQ(counting->allocations(), 1u);
    EXPECT_THAT(part.values<float>(), ElementsAre(1));
  }
  EXPECT_EQ(counting->allocations(), 0u);
  EXPECT_EQ(counting.use_count(), 2) << "nothing holds the device";
}

TEST_F(TensorMemoryTest, MemoryOfAPoolGoesBackToIt) {
  TensorPool pool;
  const std::byte* first = nullptr;
  {
    Tensor x = pool.empty(DType::f32, {100, 1000});
    fill(x, 2);
    first = x.bytes();
    EXPECT_EQ(x.values<float>()[99999], 2);
    EXPECT_EQ(counts(), kOneDownload);
  }
  EXPECT_EQ(counting->allocations(), 0u);
  Tensor again = pool.empty(DType::f32, {99, 1000});
  EXPECT_NE(again.device_read(device), nullptr);
  EXPECT_EQ(counts(), kNone) << "what another tensor left is nobody's";
  EXPECT_EQ(again.bytes(), first);
}

TEST_F(TensorMemoryTest, CopiesOfWhatIsOnTheDeviceAreMadeThere) {
  Tensor x = numbers({2, 2});
  fill(x, 3);
  Tensor twin = x.duplicate();
  Tensor row = x.slice(1, 2).to(DType::f32);
  EXPECT_EQ(counts(), (Counts{.copies = 2}));
  fill(x, 4);
  EXPECT_THAT(twin.values<float>(), Each(3));
  EXPECT_THAT(row.values<float>(), ElementsAre(3, 3));
  EXPECT_EQ(counts(), (Counts{.downloads = 2}));
  EXPECT_THAT(twin.duplicate().values<float>(), Each(3));
  EXPECT_EQ(counts(), kNone) << "the host has it as well";
  EXPECT_EQ(Tensor::empty(DType::f32, {2}).duplicate().shape(), Shape{2});
  const Tensor half = x.to(DType::f16);
  EXPECT_EQ(counts(), kOneDownload);
  EXPECT_THAT(half.to(DType::f32).values<float>(), Each(4));
}

TEST_F(TensorMemoryTest, RowsAreCopiedWhereTheyAre) {
  Tensor all = Tensor::empty(DType::f32, {3, 2});
  Tensor row = numbers({1, 2});
  copy_rows(row, all, 0);
  EXPECT_EQ(counting->allocations(), 0u) << "both are on the host";
  fill(row, 5);
  copy_rows(row, all, 1);
  EXPECT_EQ(counts(), (Counts{.uploads = 1, .copies = 1}));
  copy_rows(row, all, 1);
  EXPECT_EQ(counts(), kOneCopy);
  copy_rows(numbers({1, 2}), all, 2);
  EXPECT_EQ(counts(), kOneUpload) << "of the row alone";
  copy_rows(all.slice(2, 3), all, 0);
  EXPECT_EQ(counts(), kOneCopy);
  EXPECT_THAT(all.values<float>(), ElementsAre(0, 1, 5, 5, 0, 1));
}

TEST_F(TensorMemoryTest, AnotherDeviceTakesOver) {
  Tensor x = numbers({3});
  Tensor sum = numbers({3});
  fill(sum, 1);
  add(x, sum);
  const auto first = std::exchange(counting, std::make_shared<CountingDevice>());
  device = counting;
  EXPECT_EQ(first->counts(), kOneUpload);
  add(x, sum);
  EXPECT_EQ(first->counts(), kOneDownload);
  EXPECT_EQ(first->allocations(), 0u);
  EXPECT_EQ(counts(), (Counts{.uploads = 2}));
  EXPECT_THAT(sum.values<float>(), ElementsAre(1, 3, 5));
}

/// The device takes copies away as it would for want of room.
class TakenAway : public TensorMemoryTest {
 protected:
  void take(void* address) {
    EXPECT_TRUE(memory.give_up([&](std::byte* to, const void* from, size_t bytes) {
      EXPECT_EQ(from, address);
      device->download(to, from, bytes);
    }));
    device->release(address);
  }
  TensorMemory::State state() const { return memory.state(); }

  TensorMemory memory{4};
};

TEST_F(TakenAway, TheHostsBytesAreCurrentBehindIt) {
  using State = TensorMemory::State;
  take(const_cast<void*>(memory.read_on(device)));
  EXPECT_EQ(state(), State::fresh);
  EXPECT_EQ(counts(), kNone);
  void* address = memory.overwrite_on(device);
  std::memset(address, 7, 4);
  take(address);
  EXPECT_EQ(state(), State::host);
  EXPECT_EQ(counts(), kOneDownload);
  EXPECT_EQ(memory.host()[3], std::byte{7});
  take(const_cast<void*>(memory.read_on(device)));
  EXPECT_EQ(counts(), kOneUpload) << "the host had them still";
  address = memory.update_on(device);
  EXPECT_EQ(static_cast<std::byte*>(address)[3], std::byte{7});
  memory.write_on_host();
  take(address);
  EXPECT_EQ(counts(), (Counts{.uploads = 1, .downloads = 1}));
  EXPECT_EQ(state(), State::host);
  EXPECT_EQ(counting->allocations(), 0u);
}

TEST_F(TakenAway, WhereTheBytesCannotComeToTheHostTheyStay) {
  std::memset(memory.overwrite_on(device), 7, 4);
  EXPECT_THROW(memory.give_up([](std::byte*, const void*, size_t) { throw 1; }), int);
  EXPECT_EQ(state(), TensorMemory::State::device);
  memory.read_on_host();
  EXPECT_EQ(memory.host()[0], std::byte{7});
}

TEST_F(TakenAway, NotWhileAnotherThreadIsAtWorkOnIt) {
  std::memset(memory.overwrite_on(device), 7, 4);
  EXPECT_TRUE(memory.give_up([&](std::byte*, const void* from, size_t) {
    std::jthread([&] { EXPECT_FALSE(memory.give_up([](std::byte*, const void*, size_t) { FAIL(); })); });
    device->release(const_cast<void*>(from));
  }));
}

TEST_F(TensorMemoryTest, NothingNeedsNoMemory) {
  Tensor none = Tensor::zeros(DType::f32, {0, 4});
  EXPECT_EQ(none.device_read(device), nullptr);
  EXPECT_EQ(none.device_write(device), nullptr);
  EXPECT_EQ(none.device_update(device), nullptr);
  EXPECT_TRUE(none.values<float>().empty());
  Tensor rows = numbers({2, 2});
  EXPECT_EQ(rows.slice(2, 2).device_read(device), nullptr);
  copy_rows(none.reshape({0, 2}), rows, 1);
  EXPECT_EQ(counting->allocations(), 0u);
  EXPECT_EQ(Tensor().bytes(), nullptr);
  EXPECT_THAT([&] { Tensor().device_update(device); }, throws_error(ErrorKind::internal, HasSubstr("write")));
}

TEST_F(TensorMemoryTest, ThreadsThatReadAtOnceCopyOnce) {
  constexpr int kThreads = 8;
  for (int round = 0; round < 50; ++round) {
    Tensor written = Tensor::empty(DType::f32, {64, 16});
    fill(written, 6);
    const Tensor read = numbers({64, 16});
    std::atomic<int> wrong = 0;
    std::barrier start(kThreads);
    std::vector<std::jthread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        start.arrive_and_wait();
        for (const float value : written.slice(8 * i, 8 * i + 8).values<float>()) wrong += value != 6;
        const auto* numbers = static_cast<const float*>(read.device_read(device));
        for (int n = 0; n < 64 * 16; ++n) wrong += numbers[n] != static_cast<float>(n);
      });
    }
    threads.clear();
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(counts(), (Counts{.uploads = 1, .downloads = 1}));
  }
}

}  // namespace
}  // namespace salient::test
