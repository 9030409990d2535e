#include "checkpoint/safetensors.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>

#include "support/error_matcher.h"
#include "support/safetensors_bytes.h"
#include "support/temporary_directory.h"

namespace salient {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

SafetensorsHeader parse(std::string_view bytes) {
  return parse_safetensors_header(std::as_bytes(std::span(bytes.data(), bytes.size())), "model.safetensors");
}

/// One way in which a header lies.
struct Lie {
  std::string name;
  std::string bytes;
  std::string message;
};

std::string with_length(uint64_t length, std::string_view rest) {
  std::string bytes;
  for (int shift = 0; shift < 64; shift += 8) bytes += static_cast<char>(length >> shift & 0xff);
  return bytes.append(rest);
}

std::vector<Lie> lies_about_the_header() {
  const auto file = [](std::string_view header, size_t data = 0) { return safetensors_bytes(header, data); };
  return {
      {"EmptyFile", "", "0 bytes are too few"},
      {"TruncatedLength", std::string(7, '\0'), "7 bytes are too few"},
      {"LongerThanFile", with_length(64, "{}"), "claims 64 bytes, the whole file has 10"},
      {"LongerThanLimit", with_length(100'000'001, "{}"), "claims 100000001 bytes; 100000000 is the limit"},
      {"LengthOverflow", with_length(UINT64_MAX, "{}"), "claims 18446744073709551615 bytes"},
      {"NoHeader", with_length(0, ""), "not a JSON object"},
      {"NotAnObject", file("[1, 2]"), "not a JSON object"},
      {"NotJson", file(R"({"a": )"), "not valid JSON at byte"},
      {"NumberBeyondAllRanges", file(R"({"a": 1e999})"), "beyond all ranges"},
      {"TextBehindTheObject", file(R"({} {})"), "not valid JSON at byte"},
      {"NameIsNotUtf8", file("{\"a\xff\": 1}"), "not valid JSON at byte"},
      {"DeepNesting", file("{\"a\":" + std::string(100'000, '[')), "nested too deeply"},
      {"NameTwice",
       file(R"({"w": {"dtype":"U8","shape":[2],"data_offsets":[0,2]},
                             "w": {"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
            2),
       R"(the key "w" twice)"},
      {"KeyTwice", file(R"({"w": {"dtype":"U8","dtype":"I8","shape":[2],"data_offsets":[0,2]}})", 2),
       R"(the key "dtype" twice)"},
      {"MetadataIsNoObject", file(R"({"__metadata__": "pt"})"),
       R"("__metadata__": expected an object, got "pt")"},
      {"MetadataIsNoString", file(R"({"__metadata__": {"format": 1}})"), "expected a string, got 1"},
  };
}

std::vector<Lie> lies_about_a_tensor() {
  const auto file = [](std::string_view entry, size_t data = 8) {
    return safetensors_bytes(std::string(R"({"w": )") + std::string(entry) + "}", data);
  };
  return {
      {"EntryIsNoObject", file("3"), "expected an object, got 3"},
      {"NoDtype", file(R"({"shape":[2],"data_offsets":[0,8]})"), R"("w": the key "dtype" is missing)"},
      {"DtypeIsNoString", file(R"({"dtype":4,"shape":[2],"data_offsets":[0,8]})"),
       "dtype: expected a string, got 4"},
      {"NoShape", file(R"({"dtype":"F32","data_offsets":[0,8]})"), R"(the key "shape" is missing)"},
      {"NegativeDimension", file(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"),
       "shape[0]: -2 is outside"},
      {"FractionalDimension", file(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"),
       "expected an integer"},
      {"HugeDimension", file(R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]})"),
       "is outside"},
      {"ShapeOverflow", file(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]})"),
       "shape [4294967296, 4294967296] overflows"},
      {"ShapeOverflowByElementSize",
       file(R"({"dtype":"F64","shape":[2305843009213693953],"data_offsets":[0,8]})"), "overflows"},
      {"ShapeOverflowBesideZero",
       file(R"({"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]})"), "overflows"},
      {"NoOffsets", file(R"({"dtype":"F32","shape":[2]})"), R"(the key "data_offsets" is missing)"},
      {"OneOffset", file(R"({"dtype":"F32","shape":[2],"data_offsets":[0]})"), "data_offsets has 1 numbers"},
      {"NegativeOffset", file(R"({"dtype":"F32","shape":[2],"data_offsets":[-8,0]})"),
       "data_offsets[0]: -8 is outside"},
      {"Backwards", file(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})"),
       "offsets [8, 0) run backwards"},
      {"OutOfTheFile", file(R"({"dtype":"F32","shape":[3],"data_offsets":[0,12]})"),
       "offsets [0, 12) leave the 8 bytes of data"},
      {"TooFewBytes", file(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"),
       "F32 [3] takes 12 bytes, the offsets [0, 8) hold 8"},
      {"TooManyBytes", file(R"({"dtype":"F16","shape":[],"data_offsets":[0,8]})"), "F16 [] takes 2 bytes"},
      {"UnknownTypeOutOfTheFile", file(R"({"dtype":"F8_E4M3","shape":[9],"data_offsets":[0,9]})"),
       "leave the 8 bytes"},
      {"TrailingBytes", file(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})"),
       "4 bytes follow the last tensor"},
      {"DataWithoutTensors", safetensors_bytes("{}", 5), "5 bytes follow the last tensor"},
      {"HoleAtTheStart", file(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})"),
       R"("w": offsets [4, 8) leave a hole)"},
      {"HoleInside",
       safetensors_bytes(R"({"a": {"dtype":"U8","shape":[2],"data_offsets":[0,2]},
                                           "b": {"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
                         8),
       R"("b": offsets [4, 8) leave a hole behind the tensor that ends at 2)"},
      {"Overlap",
       safetensors_bytes(R"({"a": {"dtype":"U8","shape":[5],"data_offsets":[0,5]},
                                        "b": {"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
                         8),
       R"("b": offsets [4, 8) overlap the tensor that ends at 5)"},
  };
}

class SafetensorsLie : public ::testing::TestWithParam<Lie> {};

TEST_P(SafetensorsLie, IsRefusedByName) {
  EXPECT_THAT([&] { parse(GetParam().bytes); },
              throws_error(ErrorKind::bad_format,
                           AllOf(HasSubstr("model.safetensors: "), HasSubstr(GetParam().message))));
}

const auto kNameOfLie = [](const auto& lie) { return lie.param.name; };
INSTANTIATE_TEST_SUITE_P(Header, SafetensorsLie, ::testing::ValuesIn(lies_about_the_header()), kNameOfLie);
INSTANTIATE_TEST_SUITE_P(Tensor, SafetensorsLie, ::testing::ValuesIn(lies_about_a_tensor()), kNameOfLie);

TEST(SafetensorsHeader, AcceptsPaddingAndForeignTypes) {
  const auto header = parse(safetensors_bytes(R"({"b": {"dtype":"U8","shape":[2],"data_offsets":[0,2]},
      "a": {"dtype":"F8_E4M3","shape":[2,3],"data_offsets":[2,8]}, "c": {"dtype":"F32","shape":[0],"data_offsets":[2,2]},
      "__metadata__": {"format": "pt"}}    )",
                                              8));
  EXPECT_THAT(header.names, ElementsAre("b", "c", "a"));
  EXPECT_EQ(header.entries.at("a").dtype, "F8_E4M3");
  EXPECT_EQ(header.metadata.at("format"), "pt");
}

TEST(SafetensorsHeader, ManyTensorsAreReadInReasonableTime) {
  std::string header = "{";
  for (int i = 0; i < 100'000; ++i) {
    header += fmt::format(R"({}"tensor.{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
                          i == 0 ? "" : ",", i);
  }
  EXPECT_EQ(parse(safetensors_bytes(header + "}", 0)).names.size(), 100'000u);
}

TEST(SafetensorsHeader, NamesInMessagesStayOnOneLine) {
  EXPECT_THAT([] { parse(safetensors_bytes(R"({"two\nlines": 1})", 0)); },
              throws_error(ErrorKind::bad_format, HasSubstr(R"("two\nlines")")));
}

/// The value at `index` that make_checkpoint_goldens.py stores in a floating tensor.
float golden_value(size_t index) { return static_cast<float>(static_cast<double>(index) * 0.37 - 2.5); }

TEST(SafetensorsFile, ReadsEveryTypeOfThePythonPackage) {
  const SafetensorsFile file(SALIENT_SOURCE_DIR "/tests/golden/checkpoint/types.safetensors");
  EXPECT_EQ(file.metadata().at("who"), "tëst");
  for (size_t i = 0; i < 15; ++i) {
    EXPECT_EQ(file.tensor("float32").values<float>()[i], golden_value(i));
    EXPECT_EQ(file.tensor("float16").values<Half>()[i].bits, to_half(golden_value(i)).bits);
    EXPECT_EQ(file.tensor("bfloat16").values<BFloat16>()[i].bits, to_bfloat16(golden_value(i)).bits);
    EXPECT_EQ(file.tensor("int32").values<int32_t>()[i], static_cast<int32_t>(i * 7 % 120));
    EXPECT_EQ(file.tensor("int64").values<int64_t>()[i], static_cast<int64_t>(i * 7 % 120));
    EXPECT_EQ(file.tensor("uint8").values<uint8_t>()[i], i * 7 % 120);
    EXPECT_EQ(file.tensor("bool").bytes()[i], static_cast<std::byte>(i % 3 == 0));
  }
  EXPECT_EQ(file.tensor("bool").dtype(), DType::boolean);
  EXPECT_EQ(file.tensor("int32").shape(), (Shape{3, 5}));
  EXPECT_EQ(file.tensor("scalar").shape(), Shape{});
  EXPECT_EQ(file.tensor("scalar").values<float>()[0], 1.5f);
  EXPECT_EQ(file.tensor("empty").shape(), (Shape{0, 4}));
  EXPECT_EQ(file.names().size(), 9u);
}

TEST(SafetensorsFile, TensorsOutliveTheFileAndTheirReleasedPages) {
  Tensor tensor;
  {
    const SafetensorsFile file(SALIENT_SOURCE_DIR "/tests/golden/checkpoint/types.safetensors");
    tensor = file.tensor("float32");
    file.release("float32");
  }
  EXPECT_EQ(tensor.values<float>()[14], golden_value(14));
}

TEST(SafetensorsFile, UnalignedDataIsCopiedToAnAlignedPlace) {
  const TemporaryDirectory scratch;
  const auto path = (scratch.path() / "odd.safetensors").string();
  for (size_t padding = 0; padding < 8; ++padding) {
    const std::string header =
        R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})";
    const std::string bytes = safetensors_bytes(header + std::string(padding, ' '), 9);
    write_bytes(path, bytes);
    const Tensor tensor = SafetensorsFile(path).tensor("w");
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.bytes()) % alignof(float), 0u);
    EXPECT_EQ(std::memcmp(tensor.values<float>().data(), bytes.data() + bytes.size() - 8, 8), 0);
  }
}

TEST(SafetensorsFile, MissingFilesTensorsAndTypesAreNamed) {
  const TemporaryDirectory scratch;
  const auto path = (scratch.path() / "w.safetensors").string();
  EXPECT_THAT([&] { SafetensorsFile file(path); },
              throws_error(ErrorKind::not_found, HasSubstr("w.safetensors")));
  EXPECT_THAT([&] { SafetensorsFile file(scratch.path().string()); },
              throws_error(ErrorKind::io, HasSubstr("regular")));
  write_bytes(path, safetensors_bytes(R"({"w": {"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}})", 4));
  const SafetensorsFile file(path);
  EXPECT_THAT([&] { file.tensor("w"); },
              throws_error(ErrorKind::unsupported, HasSubstr(R"("w" has type "F8_E4M3")")));
  EXPECT_THAT([&] { file.tensor("v"); }, throws_error(ErrorKind::not_found, HasSubstr(R"(no tensor "v")")));
  EXPECT_THAT([&] { file.release("v"); }, throws_error(ErrorKind::not_found, HasSubstr(R"(no tensor "v")")));
}

}  // namespace
}  // namespace salient
