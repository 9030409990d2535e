#include "quant/scheme.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/error_matcher.h"

namespace salient {
namespace {

using ::testing::HasSubstr;

TEST(Scheme, PresetsHaveTheirKnownMeaning) {
  EXPECT_EQ(scheme_by_name("W4A16"),
            (QuantizationScheme{.num_bits = 4, .symmetric = true, .group_size = 128}));
  EXPECT_EQ(scheme_by_name("w4a16_asym"),
            (QuantizationScheme{.num_bits = 4, .symmetric = false, .group_size = 128}));
}

TEST(Scheme, IsDescribedInWords) {
  EXPECT_EQ(describe({.symmetric = true, .group_size = 32}), "int4 symmetric, group 32");
  EXPECT_EQ(describe({.symmetric = false, .group_size = -1}), "int4 asymmetric, one group per row");
}

TEST(Scheme, ForeignPresetsAreUnsupportedAndOthersUnknown) {
  EXPECT_THAT([] { scheme_by_name("FP8_DYNAMIC"); },
              throws_error(ErrorKind::unsupported, HasSubstr("FP8_DYNAMIC")));
  EXPECT_THAT([] { scheme_by_name("W8A16"); }, throws_error(ErrorKind::unsupported, HasSubstr("W4A16_ASYM")));
  EXPECT_THAT([] { scheme_by_name("int4"); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("W4A16_ASYM")));
}

TEST(Scheme, CountsGroups) {
  EXPECT_EQ(group_count({.group_size = 128}, 576), 5);
  EXPECT_EQ(group_count({.group_size = 64}, 576), 9);
  EXPECT_EQ(group_count({.group_size = -1}, 576), 1);
  EXPECT_EQ(group_width({.group_size = -1}, 576), 576);
  EXPECT_EQ(group_width({.group_size = 32}, 576), 32);
}

TEST(Scheme, ValidatesBitsAndGroupSize) {
  for (const int64_t group : {32, 64, 128, 256, -1}) EXPECT_NO_THROW(validate({.group_size = group}));
  EXPECT_THAT([] { validate({.group_size = 48}); }, throws_error(ErrorKind::unsupported, HasSubstr("48")));
  EXPECT_THAT([] { validate({.group_size = 0}); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("is 0")));
  EXPECT_THAT([] { validate({.num_bits = 8}); }, throws_error(ErrorKind::unsupported, HasSubstr("is 8")));
  EXPECT_THAT([] { validate({.num_bits = -4}); }, throws_error(ErrorKind::invalid_argument, HasSubstr("-4")));
}

TEST(Scheme, FormatsByName) {
  EXPECT_EQ(format_by_name("compressed-tensors"), Format::pack_quantized);
  EXPECT_EQ(format_by_name(to_string(Format::pack_quantized)), Format::pack_quantized);
  EXPECT_EQ(format_by_name(to_string(Format::autoawq_gemm)), Format::autoawq_gemm);
  EXPECT_THAT([] { format_by_name("gguf"); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("autoawq-gemm")));
}

}  // namespace
}  // namespace salient
