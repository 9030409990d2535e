#include "backend/cuda/page_tables.h"

#include <cstring>
#include <stdexcept>

#include "backend/cuda/device_arrays.h"
#include "backend/cuda/forwarding_device.h"

namespace salient::test {
namespace {

using Addresses = std::vector<std::byte*>;

/// Addresses `step` apart, which nobody reads.
Addresses addresses(size_t count, size_t first, size_t step = 4096) {
  Addresses result;
  for (size_t i = 0; i < count; ++i) result.push_back(reinterpret_cast<std::byte*>(first + i * step));
  return result;
}

std::vector<cuda::BatchRow> rows_at(int position, size_t count, std::byte* const* blocks) {
  std::vector<cuda::BatchRow> rows;
  for (size_t i = 0; i < count; ++i)
    rows.push_back({blocks, position + static_cast<int>(i), static_cast<int>(i)});
  return rows;
}

/// The host's, counting.
class CountingMemory final : public DeviceMemory {
 public:
  void* allocate(size_t bytes) override { return ::operator new(bytes); }
  void release(void* address) noexcept override { ::operator delete(address); }
  void upload(void* to, const std::byte* from, size_t bytes) override {
    ++uploads;
    std::memcpy(to, from, bytes);
  }
  void download(std::byte* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void copy(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void hold(void*, TensorMemory&) override { ++holds; }
  void hold_marked(const std::function<void(uint64_t use)>& visit) override { visit(++visits); }

  int uploads = 0;
  int holds = 0;
  uint64_t visits = 0;
};

TEST(AddressesOf, WhatIsThereAlreadyCostsOneVisit) {
  const auto memory = std::make_shared<CountingMemory>();
  std::vector<KvBlock> blocks;
  for (float i = 0; i < 5; ++i) {
    blocks.push_back(std::make_shared<Tensor>(Tensor::empty(DType::f32, {8})));
    std::ranges::fill(blocks.back()->mutable_values<float>(), i);
  }
  const auto first = cuda::addresses_of(blocks, memory, {});
  EXPECT_EQ(memory->holds, 5);
  EXPECT_EQ(cuda::addresses_of(blocks, memory, {}), first);
  EXPECT_EQ(memory->holds, 5);
  EXPECT_EQ(memory->visits, 2u);

  blocks[2]->mutable_values<float>()[0] = 7;
  EXPECT_EQ(cuda::addresses_of(blocks, memory, {}), first);
  EXPECT_EQ(memory->holds, 6) << "the host has written one";
  EXPECT_EQ(memory->uploads, 6);
  EXPECT_EQ(*reinterpret_cast<const float*>(first[2]), 7);

  const cuda::WrittenPositions last{4 * kPageRows + 1, 4 * kPageRows + 2};
  EXPECT_EQ(cuda::addresses_of(blocks, memory, last), first);
  EXPECT_EQ(cuda::addresses_of(blocks, memory, last), first);
  EXPECT_EQ(memory->holds, 7) << "the host's bytes become stale once";
  *reinterpret_cast<float*>(first[4]) = 9;
  EXPECT_EQ(blocks[4]->values<float>()[0], 9);
  EXPECT_EQ(cuda::addresses_of(blocks, memory, last), first);
  EXPECT_EQ(memory->holds, 8) << "and stale again";
  *reinterpret_cast<float*>(first[4]) = 11;
  EXPECT_EQ(blocks[4]->values<float>()[0], 11);
}

class PageTablesTest : public DeviceArrays {
 protected:
  void TearDown() override {
    tables_.reset();
    DeviceArrays::TearDown();
  }
  Addresses read(std::byte* const* table, size_t count) { return get(table, count); }
  void expect_rows(const cuda::BatchRow* from, const std::vector<cuda::BatchRow>& expected) {
    const auto found = get(from, expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(found[i].blocks, expected[i].blocks) << i;
      EXPECT_EQ(found[i].position, expected[i].position) << i;
      EXPECT_EQ(found[i].row, expected[i].row) << i;
    }
  }
  int launches() const {
    const auto found = device.launches().find(cuda::kWriteWords.name);
    return found == device.launches().end() ? 0 : found->second;
  }

  std::unique_ptr<cuda::PageTables> tables_ = std::make_unique<cuda::PageTables>();
};

TEST_F(PageTablesTest, OneLaunchForAllThatChanges) {
  const Addresses first = addresses(3, 1 << 20);
  const Addresses second = addresses(70, 1 << 24);
  std::byte* const* tables[2];
  std::vector<cuda::BatchRow> rows;
  for (int step = 0; step < 4; ++step) {
    const int before = launches();
    tables_->begin();
    tables[0] = tables_->table(device, first);
    tables[1] = tables_->table(device, second);
    rows = {{tables[0], 300 + step, 0}, {tables[1], 8900 + step, 1}};
    const cuda::BatchRow* batch = tables_->batch(device, rows);
    tables_->send(device);
    EXPECT_EQ(launches(), before + 1);
    EXPECT_EQ(read(tables[0], 3), first);
    EXPECT_EQ(read(tables[1], 70), second);
    expect_rows(batch, rows);
    // What comes again is there.
    tables_->begin();
    EXPECT_EQ(tables_->table(device, first), tables[0]);
    EXPECT_EQ(tables_->table(device, second), tables[1]);
    EXPECT_EQ(tables_->batch(device, rows), batch);
    tables_->send(device);
    EXPECT_EQ(launches(), before + 1);
  }
  EXPECT_EQ(tables_->table(device, {}), nullptr);
}

TEST_F(PageTablesTest, SequencesThatGrowAndFork) {
  Addresses own = addresses(60, 1 << 20);
  for (size_t page = 60; page < 70; ++page) {  // past the step by which they grow
    own.push_back(reinterpret_cast<std::byte*>((size_t{1} << 24) + page * 512));
    Addresses fork = own;
    fork.back() += 256;
    tables_->begin();
    auto* const table = tables_->table(device, own);
    auto* const other = tables_->table(device, fork);
    tables_->send(device);
    EXPECT_EQ(read(table, own.size()), own);
    EXPECT_EQ(read(other, fork.size()), fork);
  }
}

/// Which no cache has that is written, but nothing goes wrong.
TEST_F(PageTablesTest, SequencesWithTheSameLastBlock) {
  Addresses first = addresses(3, 1 << 20);
  Addresses second = first;
  second[0] += 64;
  for (int step = 0; step < 3; ++step) {
    tables_->begin();
    auto* const table = tables_->table(device, first);
    auto* const other = tables_->table(device, second);
    tables_->send(device);
    EXPECT_NE(table, other);
    EXPECT_EQ(read(table, 3), first);
    EXPECT_EQ(read(other, 3), second);
    std::swap(first, second);
  }
}

TEST_F(PageTablesTest, BatchesOfEverySize) {
  auto* const blocks = reinterpret_cast<std::byte* const*>(size_t{1} << 20);
  for (int step = 0; step < 3; ++step) {
    for (const size_t count : {1, 2, 100, 112, 225, 1000, 3, 4, 5, 6, 7}) {
      const auto rows = rows_at(step, count, blocks);
      tables_->begin();
      const cuda::BatchRow* batch = tables_->batch(device, rows);
      tables_->send(device);
      expect_rows(batch, rows);
    }
  }
}

class FailingDevice final : public cuda::ForwardingDevice {
 public:
  using ForwardingDevice::ForwardingDevice;
  void launch(const cuda::Launch& launch) override {
    if (std::exchange(fails, false)) throw std::runtime_error("no launch");
    device_.launch(launch);
  }
  bool fails = false;
};

TEST_F(PageTablesTest, WhatAnErrorKeptFromTheDeviceIsSentAgain) {
  FailingDevice failing(device);
  Addresses own = addresses(3, 1 << 20);
  const auto send = [&] {
    tables_->begin();
    auto* const table = tables_->table(failing, own);
    const cuda::BatchRow* batch = tables_->batch(failing, rows_at(7, 2, table));
    tables_->send(failing);
    return std::pair{table, batch};
  };
  send();
  own[0] += 64;
  failing.fails = true;
  EXPECT_THROW(send(), std::runtime_error);
  const auto [table, batch] = send();
  EXPECT_EQ(read(table, 3), own);
  expect_rows(batch, rows_at(7, 2, table));
  tables_.reset();  // which gives memory back to that device
}

TEST_F(PageTablesTest, OldOnesGo) {
  const auto use = [&](size_t sequence) {
    tables_->begin();
    tables_->table(device, addresses(1, (sequence + 1) << 20));
    tables_->send(device);
  };
  for (size_t sequence = 0; sequence < 300; ++sequence) use(sequence);
  const size_t many = device.used_bytes();
  for (int i = 0; i < 5000; ++i) use(0);
  EXPECT_EQ(device.used_bytes(), many / 300 * 256);
}

}  // namespace
}  // namespace salient::test
