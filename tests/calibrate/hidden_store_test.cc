#include "calibrate/hidden_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/counting_device.h"
#include "support/error_matcher.h"
#include "support/random.h"
#include "support/temporary_directory.h"

namespace salient {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

bool same(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::ranges::equal(a.values<float>(), b.values<float>());
}

class HiddenStoreTest : public ::testing::TestWithParam<HiddenStates> {
 protected:
  /// As the store gives them back.
  static Tensor kept(const Tensor& rows) {
    return GetParam() == HiddenStates::f32 ? rows : rows.to(DType::bf16).to(DType::f32);
  }

  TemporaryDirectory scratch_;
  HiddenStore store_{{.storage = GetParam(), .directories = {scratch_.path().string()}}, 20, 48};
};

TEST_P(HiddenStoreTest, KeepsRows) {
  const Tensor all = random_tensor({20, 48}, 1);
  for (const int64_t begin : {12, 0, 5}) {
    const int64_t end = begin == 12 ? 20 : begin == 0 ? 5 : 12;
    store_.write(begin, all.slice(begin, end));
  }
  EXPECT_EQ(store_.rows(), 20);
  EXPECT_TRUE(same(store_.read(0, 20), kept(all)));
  EXPECT_TRUE(same(store_.read(7, 8), kept(all.slice(7, 8))));
}

TEST_P(HiddenStoreTest, BorrowedRowsAreWrittenBack) {
  const Tensor all = random_tensor({20, 48}, 1);
  store_.write(0, all);
  const Tensor before = store_.read(4, 9);
  Tensor rows = store_.borrow(4, 9);
  for (float& value : rows.mutable_values<float>()) value = 2 * value + 1;
  const Tensor changed = rows.to(DType::f32);
  store_.write(4, rows);
  EXPECT_TRUE(same(store_.read(4, 9), kept(changed)));
  EXPECT_FALSE(same(before, store_.read(4, 9)));
  EXPECT_TRUE(same(store_.read(9, 20), kept(all.slice(9, 20))));
}

TEST_P(HiddenStoreTest, RowsThatADeviceChangedAreWrittenBack) {
  const auto device = std::make_shared<CountingDevice>();
  const Tensor all = random_tensor({20, 48}, 1);
  store_.write(0, all);
  Tensor rows = store_.borrow(4, 9);
  std::fill_n(static_cast<float*>(rows.device_write(device)), rows.element_count(), 0.5f);
  device->counts();
  store_.write(4, rows);
  const bool in_place = GetParam() == HiddenStates::f32;
  EXPECT_EQ(device->counts(), (CountingDevice::Counts{.downloads = in_place ? 0 : 1}));
  EXPECT_THAT(store_.read(4, 9).values<float>(), Each(0.5f));
  EXPECT_TRUE(same(store_.read(9, 20), kept(all.slice(9, 20))));
}

TEST_P(HiddenStoreTest, GathersAnyRows) {
  const Tensor all = random_tensor({20, 48}, 1);
  store_.write(0, all);
  const std::vector<int32_t> chosen{3, 4, 5, 9, 2, 2, 19};
  const Tensor found = store_.gather(chosen);
  ASSERT_EQ(found.dim(0), 7);
  for (size_t i = 0; i < chosen.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    EXPECT_TRUE(same(found.slice(row, row + 1), kept(all.slice(chosen[i], chosen[i] + 1)))) << i;
  }
  EXPECT_EQ(store_.gather({}).dim(0), 0);
}

TEST_P(HiddenStoreTest, ChunksAreOneStore) {
  const HiddenPlace place{.storage = GetParam(), .directories = {scratch_.path().string()}};
  HiddenStore store(place, {6, 7, 15, 20}, 48);
  const Tensor all = random_tensor({20, 48}, 1);
  store.write(0, all.slice(0, 10));
  store.write(10, all.slice(10, 20));
  EXPECT_EQ(store.rows(), 20);
  EXPECT_TRUE(same(store.read(0, 20), kept(all)));
  for (const auto& [begin, end] : {std::pair{0, 6}, {6, 7}, {5, 8}, {7, 15}, {14, 20}, {3, 3}}) {
    Tensor rows = store.borrow(begin, end);
    EXPECT_TRUE(same(rows, kept(all.slice(begin, end)))) << begin;
    store.write(begin, rows);
    EXPECT_TRUE(same(store.read(0, 20), kept(all))) << begin;
  }
  Tensor across = store.borrow(5, 8);
  for (float& value : across.mutable_values<float>()) value = 0.5f;
  store.write(5, across);
  EXPECT_THAT(store.read(5, 8).values<float>(), Each(0.5f));
  EXPECT_TRUE(same(store.read(8, 20), kept(all.slice(8, 20))));
  EXPECT_THAT(store.gather(std::vector<int32_t>{5, 6, 7}).values<float>(), Each(0.5f));
}

TEST_P(HiddenStoreTest, ADeviceGetsTheChunkThatItAsksFor) {
  const auto device = std::make_shared<CountingDevice>();
  HiddenStore store({.storage = GetParam(), .directories = {scratch_.path().string()}}, {10, 20}, 48);
  store.write(0, random_tensor({20, 48}, 1));
  for (const int64_t begin : {0, 10}) {
    Tensor rows = store.borrow(begin, begin + 10);
    std::fill_n(static_cast<float*>(rows.device_write(device)), rows.element_count(), 0.5f);
    EXPECT_EQ(device->counts().uploads, 0) << "all of the chunk was to be overwritten";
    store.write(begin, rows);
  }
  EXPECT_THAT(store.read(0, 20).values<float>(), Each(0.5f));
}

TEST_P(HiddenStoreTest, RowsBeyondTheLastAreRefused) {
  EXPECT_THAT(
      [&] {
        store_.write(18, random_tensor({3, 48}, 1));
      },
      throws_error(ErrorKind::internal, HasSubstr("rows [18, 21) of 20")));
}

INSTANTIATE_TEST_SUITE_P(Storages, HiddenStoreTest,
                         ::testing::Values(HiddenStates::f32, HiddenStates::bf16, HiddenStates::spilled));

}  // namespace
}  // namespace salient
