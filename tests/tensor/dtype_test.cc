#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace salient {
namespace {

TEST(Half, EveryValueSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const Half half{static_cast<uint16_t>(bits)};
    const float value = to_float(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(to_float(to_half(value))));
    } else {
      EXPECT_EQ(to_half(value).bits, bits);
    }
  }
}

/// Rounding by definition: of the two neighbouring halves the nearer, on a tie the one with an even last bit.
TEST(Half, RoundsToNearestTiesToEven) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const float low = to_float(Half{static_cast<uint16_t>(bits)});
    const float high = to_float(Half{static_cast<uint16_t>(bits + 1)});
    const float middle = (low + high) / 2;  // exact in f32
    EXPECT_EQ(to_half(middle).bits, bits + (bits & 1u));
    EXPECT_EQ(to_half(std::nextafterf(middle, 0.0f)).bits, bits);
    EXPECT_EQ(to_half(std::nextafterf(middle, INFINITY)).bits, bits + 1);
  }
}

TEST(Half, Limits) {
  EXPECT_EQ(to_float(to_half(65519.0f)), 65504.0f);
  EXPECT_TRUE(std::isinf(to_float(to_half(65520.0f))));
  EXPECT_TRUE(std::isinf(to_float(to_half(INFINITY))));
  EXPECT_EQ(to_float(to_half(-1e-9f)), 0.0f);
  EXPECT_TRUE(std::signbit(to_float(to_half(-1e-9f))));
}

TEST(BFloat16, RoundsToNearestTiesToEven) {
  EXPECT_EQ(round_to(DType::bf16, 1.0f), 1.0f);
  EXPECT_EQ(to_bfloat16(1.0f + 0x1p-8f).bits, 0x3f80);  // a tie, down to even
  EXPECT_EQ(to_bfloat16(1.0f + 0x3p-8f).bits, 0x3f82);  // a tie, up to even
  EXPECT_EQ(to_bfloat16(1.0f + 0x1p-8f + 0x1p-20f).bits, 0x3f81);
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_TRUE(std::isinf(to_float(to_bfloat16(std::numeric_limits<float>::max()))));
}

TEST(DType, NamesAreInverses) {
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32,
                            DType::i16, DType::i8, DType::u8, DType::boolean}) {
    EXPECT_EQ(dtype_from_safetensors(to_string(dtype)), dtype);
    EXPECT_EQ(dtype_from_torch(torch_name(dtype)), dtype);
  }
  EXPECT_EQ(dtype_from_torch("torch.bfloat16"), DType::bf16);
  EXPECT_FALSE(dtype_from_safetensors("F4"));
}

}  // namespace
}  // namespace salient
