#include "quant/scheme.h"

#include <fmt/format.h>
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
  for (int bits = 2; bits <= 8; ++bits) {
    EXPECT_EQ(scheme_by_name(fmt::format("W{}A16", bits)),
              (QuantizationScheme{.num_bits = bits, .symmetric = true, .group_size = 128}));
  }
}

TEST(Scheme, IsDescribedInWords) {
  EXPECT_EQ(describe({.symmetric = true, .group_size = 32}), "int4 symmetric, group 32");
  EXPECT_EQ(describe({.symmetric = false, .group_size = -1}), "int4 asymmetric, one group per row");
  EXPECT_EQ(describe({.num_bits = 8, .group_size = 0}), "int8 asymmetric, one group per matrix");
}

TEST(Scheme, ForeignPresetsAreUnsupportedAndOthersUnknown) {
  EXPECT_THAT([] { scheme_by_name("FP8_DYNAMIC"); },
              throws_error(ErrorKind::unsupported, HasSubstr("FP8_DYNAMIC")));
  EXPECT_THAT([] { scheme_by_name("W8A8"); },
              throws_error(ErrorKind::unsupported, HasSubstr("W2A16 to W8A16 and W4A16_ASYM")));
  EXPECT_THAT([] { scheme_by_name("int4"); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("W2A16 to W8A16 and W4A16_ASYM")));
}

TEST(Scheme, CountsGroups) {
  EXPECT_EQ(group_count({.group_size = 128}, 576), 5);
  EXPECT_EQ(group_count({.group_size = 64}, 576), 9);
  EXPECT_EQ(group_count({.group_size = -1}, 576), 1);
  EXPECT_EQ(group_width({.group_size = -1}, 576), 576);
  EXPECT_EQ(group_width({.group_size = 32}, 576), 32);
}

TEST(Scheme, AWholeMatrixIsOneGroupOfEachRow) {
  constexpr QuantizationScheme kMatrix{.group_size = QuantizationScheme::kWholeMatrix};
  EXPECT_EQ(group_count(kMatrix, 576), 1);
  EXPECT_EQ(group_width(kMatrix, 576), 576);
  EXPECT_TRUE(has_one_group_per_row(kMatrix));
  EXPECT_TRUE(has_one_group_per_row({.group_size = QuantizationScheme::kWholeRow}));
  EXPECT_FALSE(has_one_group_per_row({.group_size = 16}));
}

TEST(Scheme, CodesAndZerosOfEveryWidth) {
  EXPECT_EQ(max_code({.num_bits = 2}), 3);
  EXPECT_EQ(symmetric_zero({.num_bits = 2}), 2);
  EXPECT_EQ(max_code({.num_bits = 3}), 7);
  EXPECT_EQ(symmetric_zero({.num_bits = 3}), 4);
  EXPECT_EQ(max_code({.num_bits = 4}), 15);
  EXPECT_EQ(symmetric_zero({.num_bits = 4}), 8);
  EXPECT_EQ(max_code({.num_bits = 8}), 255);
  EXPECT_EQ(symmetric_zero({.num_bits = 8}), 128);
}

TEST(Scheme, ValidatesBitsAndGroupSize) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (const int64_t group : {16, 32, 64, 128, 256, -1, 0}) {
      EXPECT_NO_THROW(validate({.num_bits = bits, .group_size = group}));
    }
  }
  for (const int64_t group : group_sizes()) EXPECT_NO_THROW(validate({.group_size = group}));
  EXPECT_THAT([] { validate({.group_size = 48}); },
              throws_error(ErrorKind::invalid_argument,
                           HasSubstr("is 48; it must be 16, 32, 64, 128, 256 or -1 (the whole row)")));
  EXPECT_THAT([] { validate({.group_size = -2}); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("is -2")));
  for (const int bits : {1, 9, 16}) {
    EXPECT_THAT([&] { validate({.num_bits = bits}); },
                throws_error(ErrorKind::invalid_argument,
                             HasSubstr(fmt::format("is {}; Salient quantizes to 2 to 8 bits", bits))));
  }
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
