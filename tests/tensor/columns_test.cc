#include "tensor/columns.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "support/random.h"

namespace salient {
namespace {

using ::testing::ElementsAre;

TEST(Columns, AreTakenAndPutBack) {
  const Tensor matrix =
      Tensor::of<uint8_t>({3, 4}, std::vector<uint8_t>{0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23});
  const Tensor part = take_columns(matrix, {1, 3});
  EXPECT_THAT(part.values<uint8_t>(), ElementsAre(1, 2, 11, 12, 21, 22));
  EXPECT_THAT(take_columns(matrix, {2, 4}, 2).values<uint8_t>(), ElementsAre(2, 3, 22, 23));
  Tensor copy = take_columns(matrix, {0, 4});
  put_columns(part, 2, copy);
  EXPECT_THAT(copy.values<uint8_t>(), ElementsAre(0, 1, 1, 2, 10, 11, 11, 12, 20, 21, 21, 22));
}

TEST(Columns, OfManyRowsOfOtherTypes) {
  const Tensor matrix = random_tensor({300, 7}, 1).to(DType::bf16);
  const Tensor part = take_columns(matrix, {3, 7}).to(DType::f32);
  const Tensor whole = matrix.to(DType::f32);
  for (size_t row = 0; row < 300; ++row) {
    for (size_t c = 0; c < 4; ++c)
      ASSERT_EQ(part.values<float>()[row * 4 + c], whole.values<float>()[row * 7 + 3 + c]);
  }
}

TEST(Columns, OutsideOfTheMatrixAreRefused) {
  Tensor matrix = random_tensor({2, 4}, 1);
  EXPECT_THROW(take_columns(matrix, {2, 5}), Error);
  EXPECT_THROW(take_columns(matrix, {3, 2}), Error);
  EXPECT_THROW(put_columns(random_tensor({2, 2}, 1), 3, matrix), Error);
  EXPECT_THROW(put_columns(random_tensor({1, 2}, 1), 0, matrix), Error);
  EXPECT_THROW(put_columns(random_tensor({2, 2}, 1).to(DType::bf16), 0, matrix), Error);
}

}  // namespace
}  // namespace salient
