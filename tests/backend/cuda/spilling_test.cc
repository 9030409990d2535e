// A device with little memory: copies of tensors make room for one another.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <thread>

#include "backend/cuda/forwarding_device.h"
#include "backend/cuda/page_tables.h"
#include "backend/cuda/simulator.h"
#include "backend/cuda/tensor_access.h"
#include "base/error.h"
#include "support/error_matcher.h"

namespace salient::test {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr int64_t kCount = 4096;
constexpr size_t kBytes = kCount * sizeof(float);

/// Counts what goes to and fro.
class CountedDevice final : public cuda::ForwardingDevice {
 public:
  CountedDevice() : ForwardingDevice(simulated) {}
  void copy_in(void* to, const void* from, size_t bytes) override {
    ++uploads;
    device_.copy_in(to, from, bytes);
  }
  void copy_out(void* to, const void* from, size_t bytes) override {
    if (fails) fail(ErrorKind::internal, "a copy that fails");
    ++downloads;
    device_.copy_out(to, from, bytes);
  }

  SimulatedDevice simulated;
  int uploads = 0;
  int downloads = 0;
  bool fails = false;
};

class SpillingTest : public ::testing::Test {
 protected:
  SpillingTest() {
    auto owned = std::make_unique<CountedDevice>();
    device = owned.get();
    give_room(3);
    access.emplace(std::move(owned));
  }
  /// For so many tensors.
  void give_room(size_t tensors) { device->simulated.set_total_bytes(tensors * kBytes); }

  static Tensor filled(float value) {
    Tensor result = Tensor::empty(DType::f32, {kCount});
    std::ranges::fill(result.mutable_values<float>(), value);
    return result;
  }
  /// y += x.
  void add(const Tensor& x, Tensor& y) const {
    const float* from = access->read(x);
    float* to = access->update(y);
    access->run([&](cuda::Device& on) { cuda::add(on, from, to, kCount); });
  }
  /// Brings it there.
  void touch(const Tensor& x) const {
    access->read(x);
    access->run([](cuda::Device&) {});
  }
  size_t used() const { return device->simulated.used_bytes() / kBytes; }

  CountedDevice* device = nullptr;
  std::optional<cuda::TensorAccess> access;
};

TEST_F(SpillingTest, WhatWasUsedLongestAgoMakesRoom) {
  const Tensor a = filled(1);
  const Tensor b = filled(2);
  const Tensor c = filled(3);
  const Tensor d = filled(4);
  for (const Tensor* x : {&a, &b, &c, &a, &d}) touch(*x);  // d in the place of b
  EXPECT_EQ(device->uploads, 4);
  EXPECT_EQ(used(), 3u);
  for (const Tensor* x : {&a, &c, &d}) touch(*x);
  EXPECT_EQ(device->uploads, 4) << "they are there still";
  touch(b);
  EXPECT_EQ(device->uploads, 5);
  EXPECT_EQ(device->downloads, 0) << "the host has them all";
  EXPECT_THAT(b.values<float>(), Each(2));
}

TEST_F(SpillingTest, WhatIsOnTheDeviceAloneIsNotLost) {
  std::vector<Tensor> sums;
  for (int i = 0; i < 8; ++i) sums.push_back(filled(static_cast<float>(i)));
  const Tensor one = filled(1);
  for (int round = 0; round < 3; ++round) {
    for (Tensor& sum : sums) add(one, sum);
  }
  EXPECT_EQ(used(), 3u);
  EXPECT_EQ(device->downloads, 8 * 3 - 2) << "the last two are where they were written";
  for (int i = 0; i < 8; ++i)
    EXPECT_THAT(sums[static_cast<size_t>(i)].values<float>(), Each(static_cast<float>(i + 3)));
}

TEST_F(SpillingTest, WhatNobodyHasWrittenIsNotCopied) {
  std::vector<Tensor> tensors;
  for (int i = 0; i < 8; ++i) touch(tensors.emplace_back(Tensor::empty(DType::f32, {kCount})));
  EXPECT_EQ(device->uploads + device->downloads, 0);
}

TEST_F(SpillingTest, CopiesMadeOnTheDeviceMakeRoomToo) {
  Tensor sum = filled(1);
  add(filled(1), sum);
  std::vector<Tensor> twins;
  for (int i = 0; i < 8; ++i) {
    twins.push_back(sum.duplicate());
    add(filled(1), sum);
  }
  for (int i = 0; i < 8; ++i)
    EXPECT_THAT(twins[static_cast<size_t>(i)].values<float>(), Each(static_cast<float>(i + 2)));
}

TEST_F(SpillingTest, WhatAnOperationHoldsStays) {
  give_room(2);
  std::vector<Tensor> tensors;
  for (int i = 0; i < 3; ++i) tensors.push_back(filled(static_cast<float>(i)));
  const float* first = access->read(tensors[0]);
  EXPECT_EQ(access->read(tensors[0]), first);
  access->read(tensors[1]);
  EXPECT_THAT([&] { access->read(tensors[2]); },
              throws_error(ErrorKind::out_of_memory,
                           AllOf(HasSubstr("no 16384 bytes left"), HasSubstr("worked on (0.0 MiB)"))));
  EXPECT_EQ(used(), 2u);
  touch(tensors[2]);  // what was held by the operation that failed is free
  for (int i = 0; i < 3; ++i)
    EXPECT_THAT(tensors[static_cast<size_t>(i)].values<float>(), Each(static_cast<float>(i)));
}

/// Blocks of caches are held by marks once they are there.
class SpillingBlocks : public SpillingTest {
 protected:
  SpillingBlocks() {
    for (float i = 0; i < 4; ++i) blocks.push_back(std::make_shared<Tensor>(filled(i)));
  }
  std::vector<std::byte*> take(size_t begin, size_t count) const {
    return cuda::addresses_of(std::span(blocks).subspan(begin, count), access->memory(), {});
  }
  void let_go() const {
    access->run([](cuda::Device&) {});
  }
  std::vector<KvBlock> blocks;
};

TEST_F(SpillingBlocks, StayWhileTheyAreHeld) {
  take(0, 3);
  let_go();
  const auto held = take(0, 3);
  EXPECT_EQ(access->run([](cuda::SpillingDevice& on) { return on.room_bytes(); }), 0u);
  EXPECT_EQ(take(0, 3), held);
  EXPECT_EQ(device->uploads, 3);
  EXPECT_THAT([&] { access->read(*blocks[3]); },
              throws_error(ErrorKind::out_of_memory, HasSubstr("worked on")));
  EXPECT_EQ(used(), 3u);
  access->read(*blocks[3]);
  EXPECT_EQ(used(), 3u);
}

TEST_F(SpillingBlocks, AreHeldForAThreadWhileOthersUseThem) {
  take(0, 3);
  let_go();
  take(0, 3);
  std::jthread([&] {
    take(0, 3);
    let_go();
  }).join();
  EXPECT_THAT([&] { access->read(*blocks[3]); },
              throws_error(ErrorKind::out_of_memory, HasSubstr("worked on")));
}

TEST_F(SpillingBlocks, ThatWereUsedLongestAgoMakeRoom) {
  take(0, 3);
  let_go();
  take(0, 1);
  let_go();
  take(3, 1);  // in the place of the second
  let_go();
  EXPECT_EQ(device->uploads, 4);
  take(0, 1);
  take(2, 2);
  EXPECT_EQ(device->uploads, 4) << "they are there still";
  let_go();
}

TEST_F(SpillingBlocks, AreNotHeldByThreadsThatEnded) {
  take(0, 3);
  let_go();
  std::jthread([&] {
    take(0, 3);
    access->read(*blocks[0]);
  }).join();
  EXPECT_EQ(access->run([](cuda::SpillingDevice& on) { return on.room_bytes(); }), 3 * kBytes);
  take(3, 1);
  EXPECT_EQ(used(), 3u);
  let_go();
}

TEST_F(SpillingTest, ATensorOfAnotherTypeEndsWhatIsHeld) {
  const Tensor first = filled(1);
  access->read(first);
  EXPECT_THAT([&] { access->read(Tensor::empty(DType::i32, {4})); },
              throws_error(ErrorKind::internal, HasSubstr("where F32 was expected")));
  std::jthread([&] {
    EXPECT_EQ(access->run([](cuda::SpillingDevice& on) { return on.room_bytes(); }), 3 * kBytes);
  }).join();
}

TEST_F(SpillingTest, WorkingMemoryTakesTheRoomOfTensorsThatAreNotHeld) {
  Tensor kept = filled(5);
  Tensor others = filled(1);
  add(filled(1), kept);
  add(filled(1), others);
  float* to = access->update(kept);
  access->run([&](cuda::Device& on) {
    const cuda::DeviceBuffer room(on, 2 * kBytes);
    cuda::scale(on, 2, to, kCount);
    EXPECT_THAT([&] { cuda::DeviceBuffer(on, kBytes); },
                throws_error(ErrorKind::out_of_memory, HasSubstr("")));
  });
  EXPECT_THAT(kept.values<float>(), Each(12));
  EXPECT_THAT(others.values<float>(), Each(2));
}

/// Working memory is made as large as there is room for.
TEST_F(SpillingTest, WhatCanBeTakenAwayCountsAsFree) {
  const std::vector<Tensor> tensors{filled(1), filled(2), filled(3)};
  const auto free = [](cuda::SpillingDevice& on) { return on.room_bytes(); };
  EXPECT_EQ(access->run(free), 3 * kBytes);
  for (const Tensor& tensor : tensors) touch(tensor);
  EXPECT_EQ(used(), 3u);
  EXPECT_EQ(access->run(free), 3 * kBytes);
  access->read(tensors[1]);
  EXPECT_EQ(access->run(free), 2 * kBytes) << "one is held";
  EXPECT_EQ(access->run(free), 3 * kBytes);
}

TEST_F(SpillingTest, ACopyThatCannotComeToTheHostStaysWhereItIs) {
  Tensor sum = filled(1);
  add(filled(1), sum);
  device->fails = true;
  give_room(1);
  EXPECT_THAT([&] { touch(filled(2)); }, throws_error(ErrorKind::internal, HasSubstr("a copy that fails")));
  device->fails = false;
  EXPECT_THAT(sum.values<float>(), Each(2));
}

TEST_F(SpillingTest, LaunchesThatAreHeldBackKeepTheirOperands) {
  const Tensor one = filled(1);
  std::vector<Tensor> sums;
  for (int i = 0; i < 5; ++i) sums.push_back(filled(0));
  for (int pass = 0; pass < 6; ++pass) {
    for (int i = 0; i < 10; ++i) add(one, sums[0]);  // a graph from the third pass on
    for (Tensor& sum : sums) add(one, sum);
  }
  EXPECT_GT(device->simulated.graph_runs(), 0);
  EXPECT_THAT(sums[0].values<float>(), Each(66));
  for (size_t i = 1; i < sums.size(); ++i) EXPECT_THAT(sums[i].values<float>(), Each(6));
}

TEST_F(SpillingTest, ThreadsTakeRoomFromEachOther) {
  give_room(6);  // each holds two at a time and makes one
  std::atomic<int> wrong = 0;
  const Tensor shared = filled(1);
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 2; ++t) {
      threads.emplace_back([&] {
        std::vector<Tensor> sums;
        for (int i = 0; i < 4; ++i) sums.push_back(filled(static_cast<float>(i)));
        for (int round = 0; round < 20; ++round) {
          for (Tensor& sum : sums) {
            add(shared, sum);
            if (round % 5 == 0) wrong += sum.values<float>()[7] != sum.values<float>()[kCount - 1];
          }
        }
        for (int i = 0; i < 4; ++i) {
          for (const float value : sums[static_cast<size_t>(i)].values<float>())
            wrong += value != static_cast<float>(i + 20);
        }
      });
    }
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(device->downloads, 8);
  EXPECT_TRUE(device->simulated.guards_held());
}

}  // namespace
}  // namespace salient::test
