// Goal: the reader accepts what the format allows and nothing else, whatever bytes it is given; the
// writer writes what the safetensors library writes. Method: named attacks on the header and on the
// file; headers that the library (version 0.8.0) wrote, kept here as text.
#include "tools/formats/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <ostream>
#include <random>

#include "format/limits.h"
#include "tests/tools/support.h"

namespace stepstone::tool {
namespace {

// One tensor as a header writes it.
std::string entry(std::string_view name, std::string_view dtype, std::string_view shape,
                  std::string_view offsets) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, dtype, shape,
                     offsets);
}

// Two tensors that exactly fill 16 bytes, from which attacks deviate.
const std::string kGoodA = entry("a", "F32", "[2]", "[0,8]");
const std::string kGoodB = entry("b", "F32", "[2]", "[8,16]");
constexpr std::uint64_t kGoodSizeBytes = 16;

std::string object(std::initializer_list<std::string> entries) {
  return fmt::format("{{{}}}", fmt::join(entries, ","));
}

struct Attack {
  std::string name;
  std::string header;
  std::uint64_t data_size_bytes;
  ErrorCode code;
  std::string words;  // The message must have them: mostly the tensor's name.
};
// The name is GoogleTest's. NOLINTNEXTLINE(readability-identifier-naming)
void PrintTo(const Attack& attack, std::ostream* stream) { *stream << attack.name; }

class SafetensorsAttack : public testing::TestWithParam<Attack> {};

TEST_P(SafetensorsAttack, IsRefusedWithAnErrorThatNamesTheFault) {
  const Attack& attack = GetParam();
  const Result<SafetensorsHeader> header =
      parse_safetensors_header(attack.header, attack.data_size_bytes);
  ASSERT_FALSE(header.has_value());
  EXPECT_EQ(to_string(header.error().code), to_string(attack.code));
  EXPECT_NE(header.error().message.find(attack.words), std::string::npos) << header.error().message;
}

std::vector<Attack> attacks() {
  constexpr ErrorCode kCorrupt = ErrorCode::kCorrupt;
  constexpr ErrorCode kLimit = ErrorCode::kLimit;
  const auto alone = [](std::string_view dtype, std::string_view shape, std::string_view offsets) {
    return object({entry("a", dtype, shape, offsets)});
  };
  const auto metadata = [](std::string_view value) {
    return object({fmt::format(R"("__metadata__":{})", value), kGoodA, kGoodB});
  };
  const std::string long_name(limits::kNameSizeBytesMax + 1, 'n');
  return {
      {"EmptyHeader", "", 0, kCorrupt, "begin"},
      {"HeaderIsAnArray", "[]", 0, kCorrupt, "begin"},
      {"HeaderIsANumber", "7", 0, kCorrupt, "begin"},
      {"SpaceBeforeTheObject", " " + object({kGoodA, kGoodB}), kGoodSizeBytes, kCorrupt, "begin"},
      {"ByteOrderMark", "\xEF\xBB\xBF" + object({kGoodA, kGoodB}), kGoodSizeBytes, kCorrupt,
       "begin"},
      {"UnclosedObject", "{" + kGoodA, 8, kCorrupt, "JSON"},
      {"CutInAString", R"({"a)", 0, kCorrupt, "JSON"},
      {"TrailingComma", "{" + kGoodA + ",}", 8, kCorrupt, "JSON"},
      {"SecondObjectBehindTheFirst", object({kGoodA}) + "{}", 8, kCorrupt, "JSON"},
      {"NulBehindTheObject", object({kGoodA}) + std::string(1, '\0'), 8, kCorrupt, "JSON"},
      {"Comment", "{/* a */" + kGoodA + "}", 8, kCorrupt, "JSON"},
      {"InvalidUtf8InAName", object({entry("a\xFF", "F32", "[2]", "[0,8]")}), 8, kCorrupt, "JSON"},
      {"LoneSurrogateInAName", object({entry("\\ud800", "F32", "[2]", "[0,8]")}), 8, kCorrupt,
       "JSON"},
      {"DeepNestingOfArrays", R"({"a":)" + repeated("[", 1'000'000), 0, kCorrupt, "'a'"},
      {"DeepNestingOfObjects", repeated(R"({"a":)", 200'000), 0, kCorrupt, "'a'"},
      {"DeepNestingInTheShape", R"({"a":{"dtype":"U8","shape":)" + repeated("[", 100'000), 0,
       kCorrupt, "'a'"},
      {"TensorIsAnArray", R"({"a":[]})", 0, kCorrupt, "'a'"},
      {"TensorIsNull", R"({"a":null})", 0, kCorrupt, "'a'"},
      {"TensorIsAString", R"({"a":"F32"})", 0, kCorrupt, "'a'"},
      {"SameTensorTwice", object({kGoodA, kGoodA}), 8, kCorrupt, "'a' is there twice"},
      {"SameTensorTwiceOnceEscaped", object({kGoodA, entry("\\u0061", "F32", "[2]", "[8,16]")}),
       kGoodSizeBytes, kCorrupt, "'a' is there twice"},
      {"SameFieldTwice", R"({"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
       8, kCorrupt, "'a' has the field 'dtype' twice"},
      {"MissingDtype", R"({"a":{"shape":[2],"data_offsets":[0,8]}})", 8, kCorrupt, "'a'"},
      {"MissingShape", R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", 8, kCorrupt, "'a'"},
      {"MissingOffsets", R"({"a":{"dtype":"F32","shape":[2]}})", 8, kCorrupt, "'a'"},
      {"UnknownField", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"stride":[4]}})", 8,
       kCorrupt, "'stride'"},
      {"UnknownDtype", alone("F31", "[2]", "[0,8]"), 8, ErrorCode::kUnsupported, "'F31'"},
      {"DtypeInLowerCase", alone("f32", "[2]", "[0,8]"), 8, ErrorCode::kUnsupported, "'f32'"},
      {"DtypeOfSixBits", alone("F6_E2M3", "[4]", "[0,3]"), 3, ErrorCode::kUnsupported, "'F6_E2M3'"},
      {"DtypeIsANumber", R"({"a":{"dtype":7,"shape":[2],"data_offsets":[0,8]}})", 8, kCorrupt,
       "dtype of tensor 'a'"},
      {"ShapeIsANumber", alone("F32", "2", "[0,8]"), 8, kCorrupt, "shape of tensor 'a'"},
      {"ShapeWithAString", alone("F32", R"(["2"])", "[0,8]"), 8, kCorrupt, "shape of tensor 'a'"},
      {"NegativeExtent", alone("F32", "[-2]", "[0,8]"), 8, kCorrupt, "negative"},
      {"TwoNegativeExtents", alone("F32", "[-2,-1]", "[0,8]"), 8, kCorrupt, "negative"},
      {"FractionalExtent", alone("F32", "[2.0]", "[0,8]"), 8, kCorrupt, "not an integer"},
      {"ExponentialExtent", alone("F32", "[2e0]", "[0,8]"), 8, kCorrupt, "not an integer"},
      {"ExtentBeyond64Bits", alone("F32", "[18446744073709551616]", "[0,8]"), 8, kCorrupt,
       "not an integer"},
      {"ExtentOfMinusZero", alone("F32", "[-0]", "[0,0]"), 0, kCorrupt, "negative"},
      {"ShapeProductWrapsToTheSize", alone("U8", "[4294967296,4294967296,8]", "[0,8]"), 8, kLimit,
       "'a'"},
      {"ShapeProductOverflowsBesideAZero",
       alone("U8", "[9223372036854775807,9223372036854775807,0]", "[0,0]"), 0, kLimit, "'a'"},
      {"SizeWrapsToZero", alone("U64", "[2305843009213693952]", "[0,0]"), 0, kLimit, "'a'"},
      {"RankOverTheLimit", alone("U8", "[" + repeated("1,", limits::kRankMax) + "1]", "[0,1]"), 1,
       kLimit, "'a'"},
      {"AMillionDimensions", alone("U8", "[" + repeated("1,", 1'000'000) + "1]", "[0,1]"), 1,
       kLimit, "'a'"},
      {"DataSmallerThanTheShape", alone("F32", "[3]", "[0,8]"), 8, kCorrupt, "'a'"},
      {"DataLargerThanTheShape", alone("F32", "[1]", "[0,8]"), 8, kCorrupt, "'a'"},
      {"RankZeroWithoutData", alone("F32", "[]", "[0,0]"), 0, kCorrupt, "'a'"},
      {"EmptyTensorWithData", alone("F32", "[0]", "[0,8]"), 8, kCorrupt, "'a'"},
      {"HalfAByteOver", alone("F4", "[3]", "[0,2]"), 2, ErrorCode::kUnsupported, "'a'"},
      {"OneOffset", alone("F32", "[2]", "[8]"), 8, kCorrupt, "'a'"},
      {"ThreeOffsets", alone("F32", "[2]", "[0,8,8]"), 8, kCorrupt, "'a'"},
      {"NoOffsets", alone("F32", "[2]", "[]"), 8, kCorrupt, "'a'"},
      {"OffsetsAreAnObject", alone("F32", "[2]", "{}"), 8, kCorrupt, "'a'"},
      {"NegativeOffset", alone("F32", "[2]", "[-8,0]"), 8, kCorrupt, "negative"},
      {"FractionalOffset", alone("F32", "[2]", "[0,8.0]"), 8, kCorrupt, "not an integer"},
      {"EndBeforeBegin", alone("F32", "[2]", "[8,0]"), 8, kCorrupt, "'a'"},
      {"EndBeyondTheData", object({kGoodA, entry("b", "F32", "[2]", "[8,16]")}), 15, kCorrupt,
       "'b'"},
      {"OffsetsBeyondTheData", alone("F32", "[2]", "[18446744073709551607,18446744073709551615]"),
       8, kCorrupt, "'a'"},
      {"Overlap", object({kGoodA, entry("b", "F32", "[2]", "[4,12]")}), 12, kCorrupt,
       "'b' overlaps tensor 'a'"},
      {"SameBytesTwice", object({kGoodA, entry("b", "F32", "[2]", "[0,8]")}), 8, kCorrupt,
       "overlaps"},
      {"EmptyTensorInsideAnother", object({kGoodA, entry("b", "F32", "[0]", "[4,4]")}), 8, kCorrupt,
       "'b' overlaps tensor 'a'"},
      {"HoleBetween", object({kGoodA, entry("b", "F32", "[2]", "[12,20]")}), 20, kCorrupt,
       "a hole of 4 bytes before tensor 'b'"},
      {"HoleAtTheFront", alone("F32", "[2]", "[4,12]"), 12, kCorrupt, "'a'"},
      {"TrailingData", object({kGoodA, kGoodB}), kGoodSizeBytes + 1, kCorrupt, "1 bytes behind"},
      {"DataWithoutTensors", "{}", 1, kCorrupt, "1 bytes behind"},
      {"NameOverTheLimit", object({entry(long_name, "F32", "[2]", "[0,8]")}), 8, kLimit, "4097"},
      {"MetadataIsNull", metadata("null"), kGoodSizeBytes, kCorrupt, "__metadata__"},
      {"MetadataIsAnArray", metadata("[]"), kGoodSizeBytes, kCorrupt, "__metadata__"},
      {"MetadataWithANumber", metadata(R"({"k":1})"), kGoodSizeBytes, kCorrupt, "__metadata__"},
      {"MetadataWithAnObject", metadata(R"({"k":{}})"), kGoodSizeBytes, kCorrupt, "__metadata__"},
      {"MetadataWithNull", metadata(R"({"k":null})"), kGoodSizeBytes, kCorrupt, "__metadata__"},
      {"MetadataKeyTwice", metadata(R"({"k":"1","k":"2"})"), kGoodSizeBytes, kCorrupt, "'k' twice"},
      {"MetadataTwice", object({R"("__metadata__":{})", R"("__metadata__":{})"}), 0, kCorrupt,
       "__metadata__ is there twice"},
  };
}

INSTANTIATE_TEST_SUITE_P(Header, SafetensorsAttack, testing::ValuesIn(attacks()),
                         [](const testing::TestParamInfo<Attack>& attack) {
                           return attack.param.name;
                         });

TEST(SafetensorsReader, AcceptsTheHeaderThatTheAttacksDeviateFrom) {
  const auto header = parse_safetensors_header(object({kGoodA, kGoodB}), kGoodSizeBytes);
  ASSERT_TRUE(header.has_value()) << header.error().message;
  EXPECT_FALSE(header->metadata.has_value());
  ASSERT_EQ(header->tensors.size(), 2U);
  EXPECT_EQ(header->tensors[1].name, "b");
  EXPECT_EQ(header->tensors[1].dtype, DType::kFloat32);
  EXPECT_EQ(header->tensors[1].shape, std::vector<std::uint64_t>{2});
  EXPECT_EQ(header->tensors[1].offset, 8U);
  EXPECT_EQ(header->tensors[1].size_bytes, 8U);
}

TEST(SafetensorsReader, OrdersTensorsByTheirBytesAndNotByTheHeader) {
  const auto header = parse_safetensors_header(
      object({kGoodB, entry("empty", "F32", "[0,3]", "[8,8]"), kGoodA}), kGoodSizeBytes);
  ASSERT_TRUE(header.has_value()) << header.error().message;
  std::vector<std::string> names;
  for (const SafetensorsTensor& tensor : header->tensors) names.push_back(tensor.name);
  EXPECT_EQ(names, (std::vector<std::string>{"a", "empty", "b"}));
}

TEST(SafetensorsReader, AcceptsRankZeroEmptyTensorsAndAnyName) {
  const auto header = parse_safetensors_header(
      object({entry("", "F64", "[]", "[0,8]"), entry("\\u0000/..\\n\\\"", "U8", "[7,0]", "[8,8]"),
              entry("\xC3\xA9", "BOOL", "[0]", "[8,8]")}) +
          "   ",
      8);
  ASSERT_TRUE(header.has_value()) << header.error().message;
  ASSERT_EQ(header->tensors.size(), 3U);
  EXPECT_EQ(header->tensors[0].name, "");
  EXPECT_TRUE(header->tensors[0].shape.empty());
  EXPECT_EQ(header->tensors[1].name, std::string("\0/..\n\"", 6));
  EXPECT_EQ(header->tensors[2].name, "\xC3\xA9");
}

TEST(SafetensorsReader, KeepsTheOrderOfMetadata) {
  const auto header =
      parse_safetensors_header(R"({"__metadata__":{"z":"1","a":"","\u00e9":"\n"}})", 0);
  ASSERT_TRUE(header.has_value()) << header.error().message;
  EXPECT_EQ(header->metadata, (SafetensorsMetadata{{"z", "1"}, {"a", ""}, {"\xC3\xA9", "\n"}}));
}

// Goal: no damage to a header crashes the reader or makes it give tensors outside the data. Method:
// flip, delete and insert random bytes in a good header many times.
TEST(SafetensorsReader, SurvivesRandomDamage) {
  constexpr std::uint64_t kSeed = 20251123;
  SCOPED_TRACE(fmt::format("seed {}", kSeed));
  std::mt19937_64 generator(kSeed);
  const std::string good = object(
      {R"("__metadata__":{"format":"pt"})", kGoodA, kGoodB, entry("c", "F4", "[4]", "[16,18]")});
  constexpr std::uint64_t kDataSizeBytes = 18;
  ASSERT_TRUE(parse_safetensors_header(good, kDataSizeBytes).has_value());
  std::size_t refused_count = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string header = good;
    for (std::uint64_t edits = generator() % 3 + 1; edits != 0; --edits) {
      const std::size_t at = generator() % header.size();
      switch (generator() % 3) {
        case 0:
          header[at] = static_cast<char>(header[at] ^ (1 << generator() % 8));
          break;
        case 1:
          header.erase(at, 1);
          break;
        default:
          header.insert(at, 1, "0123456789-.{}[],:\""[generator() % 19]);
          break;
      }
    }
    const auto result = parse_safetensors_header(header, kDataSizeBytes);
    if (!result) {
      ++refused_count;
      ASSERT_FALSE(result.error().message.empty());
      continue;
    }
    std::uint64_t end = 0;
    for (const SafetensorsTensor& tensor : result->tensors) {
      ASSERT_EQ(tensor.offset, end) << header;
      ASSERT_EQ(array_size_bytes(tensor.dtype, tensor.shape), tensor.size_bytes) << header;
      end += tensor.size_bytes;
    }
    ASSERT_EQ(end, kDataSizeBytes) << header;
  }
  EXPECT_GT(refused_count, 0U);
}

// Written by safetensors 0.8.0 from tensors of every dtype that it has and Stepstone too.
constexpr std::string_view kLibraryHeader =
    R"({"uint64":{"dtype":"U64","shape":[2],"data_offsets":[0,16]},)"
    R"("int64":{"dtype":"I64","shape":[2],"data_offsets":[16,32]},)"
    R"("float64":{"dtype":"F64","shape":[2],"data_offsets":[32,48]},)"
    R"("complex64":{"dtype":"C64","shape":[2],"data_offsets":[48,64]},)"
    R"("Z":{"dtype":"F32","shape":[1],"data_offsets":[64,68]},)"
    R"("float32":{"dtype":"F32","shape":[2],"data_offsets":[68,76]},)"
    R"("uint32":{"dtype":"U32","shape":[2],"data_offsets":[76,84]},)"
    R"("int32":{"dtype":"I32","shape":[2],"data_offsets":[84,92]},)"
    R"("bfloat16":{"dtype":"BF16","shape":[2],"data_offsets":[92,96]},)"
    R"("float16":{"dtype":"F16","shape":[2],"data_offsets":[96,100]},)"
    R"("uint16":{"dtype":"U16","shape":[2],"data_offsets":[100,104]},)"
    R"("int16":{"dtype":"I16","shape":[2],"data_offsets":[104,108]},)"
    R"("float8_e5m2fnuz":{"dtype":"F8_E5M2FNUZ","shape":[2],"data_offsets":[108,110]},)"
    R"("float8_e4m3fnuz":{"dtype":"F8_E4M3FNUZ","shape":[2],"data_offsets":[110,112]},)"
    R"("float8_e8m0fnu":{"dtype":"F8_E8M0","shape":[2],"data_offsets":[112,114]},)"
    R"("float8_e4m3fn":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[114,116]},)"
    R"("float8_e5m2":{"dtype":"F8_E5M2","shape":[2],"data_offsets":[116,118]},)"
    R"("int8":{"dtype":"I8","shape":[2],"data_offsets":[118,120]},)"
    R"("uint8":{"dtype":"U8","shape":[2],"data_offsets":[120,122]},)"
    R"("f4":{"dtype":"F4","shape":[2,2],"data_offsets":[122,124]},)"
    R"("bool":{"dtype":"BOOL","shape":[2],"data_offsets":[124,126]}}   )";

// Likewise, with metadata whose order the library drew, and strings that need escapes.
constexpr std::string_view kLibraryHeaderWithMetadata =
    "{\"__metadata__\":{\"z\":\"1\",\"a\":\"2\",\"\xc3\xa9\\u0001\x7f\\\"\\\\/\\n\":"
    "\"x\xe2\x80\xa8\"},\"a\":{\"dtype\":\"F64\",\"shape\":[2,0],\"data_offsets\":[0,0]},"
    "\"b\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]}} ";

std::string with_length(std::string_view header_text) {
  std::string bytes;
  for (std::size_t i = 0; i < 8; ++i) bytes += static_cast<char>(header_text.size() >> (8 * i));
  return bytes.append(header_text);
}

// Reads `header_text`, shuffles what it says, and writes it again.
void expect_rewritten_the_same(std::string_view header_text, std::uint64_t data_size_bytes) {
  auto header = parse_safetensors_header(header_text, data_size_bytes);
  ASSERT_TRUE(header.has_value()) << header.error().message;
  constexpr std::uint64_t kSeed = 7;
  SCOPED_TRACE(fmt::format("seed {}", kSeed));
  std::mt19937_64 generator(kSeed);
  std::shuffle(header->tensors.begin(), header->tensors.end(), generator);
  std::vector<SafetensorsTensor> ordered;
  for (const std::size_t i : canonical_order(header->tensors))
    ordered.push_back(header->tensors[i]);
  const auto encoded = encode_safetensors_header(header->metadata, ordered);
  ASSERT_TRUE(encoded.has_value()) << encoded.error().message;
  EXPECT_EQ(*encoded, with_length(header_text));
  EXPECT_EQ(encoded->size() % 8, 0U);
}

TEST(SafetensorsWriter, WritesEveryDtypeAsTheLibraryDoes) {
  expect_rewritten_the_same(kLibraryHeader, 126);
}

TEST(SafetensorsWriter, WritesMetadataAndEscapesAsTheLibraryDoes) {
  expect_rewritten_the_same(kLibraryHeaderWithMetadata, 8);
}

TEST(SafetensorsWriter, WritesAnEmptyFileAsTheLibraryDoes) {
  EXPECT_EQ(encode_safetensors_header(std::nullopt, {}), with_length("{}      "));
}

TEST(SafetensorsWriter, HasANameForEveryDtypeThatTheReaderKnows) {
  for (auto number = static_cast<unsigned>(kDTypeFirst);
       number <= static_cast<unsigned>(kDTypeLast); ++number) {
    const auto dtype = static_cast<DType>(number);
    const auto name = safetensors_name(dtype);
    if (name) {
      EXPECT_EQ(dtype_from_safetensors(*name), dtype);
    }
  }
  EXPECT_EQ(safetensors_name(DType::kInt4), std::nullopt);
  EXPECT_EQ(safetensors_name(DType::kComplex128), std::nullopt);
}

// The error of writing these tensors.
Error encode_error(std::vector<SafetensorsTensor> tensors,
                   const std::optional<SafetensorsMetadata>& metadata = std::nullopt) {
  for (SafetensorsTensor& tensor : tensors) {
    tensor.size_bytes = array_size_bytes(tensor.dtype, tensor.shape).value_or(0);
  }
  const auto header = encode_safetensors_header(metadata, tensors);
  EXPECT_FALSE(header.has_value());
  return header ? Error{ErrorCode::kClosed, ""} : header.error();
}

TEST(SafetensorsWriter, RefusesWhatTheFormatCannotSay) {
  const Error dtype = encode_error({{.name = "x", .dtype = DType::kInt4, .shape = {2}}});
  EXPECT_EQ(dtype.code, ErrorCode::kUnsupported);
  EXPECT_NE(dtype.message.find("'x' has dtype int4"), std::string::npos) << dtype.message;
  EXPECT_EQ(encode_error({{.name = "x", .dtype = DType::kFloat4E2m1fn, .shape = {3}}}).code,
            ErrorCode::kUnsupported);
  EXPECT_EQ(encode_error({{.name = "__metadata__"}}).code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(encode_error({{.name = "\xFF"}}).code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(encode_error({{.name = "x"}, {.name = "y"}, {.name = "x"}}).code,
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(encode_error({}, SafetensorsMetadata{{"k", "\xC0\x80"}}).code,
            ErrorCode::kInvalidArgument);
}

TEST(SafetensorsWriter, RefusesAHeaderThatTheLibraryWouldNotRead) {
  const SafetensorsMetadata metadata = {
      {"k", std::string(static_cast<std::size_t>(kSafetensorsHeaderSizeBytesMax), 'v')}};
  EXPECT_EQ(encode_error({}, metadata).code, ErrorCode::kLimit);
}

// What the custom metadata keep, which must be readable.
std::optional<SafetensorsMetadata> kept_in(std::string_view header_text) {
  const auto metadata = from_custom_metadata(header_text);
  EXPECT_TRUE(metadata.has_value()) << header_text;
  return metadata ? *metadata : std::nullopt;
}

TEST(CustomMetadata, KeepsTheFilesMetadataInOrder) {
  const SafetensorsMetadata metadata = {{"z", "1\n"}, {"a", ""}, {"", "\xC3\xA9"}};
  const auto header_text = to_custom_metadata(metadata);
  ASSERT_TRUE(header_text.has_value()) << header_text.error().message;
  EXPECT_EQ(kept_in(*header_text), std::optional(metadata));
  EXPECT_EQ(to_custom_metadata(std::nullopt), std::string());
  EXPECT_EQ(to_custom_metadata(SafetensorsMetadata{}), std::string(R"({"safetensors":{}})"));
  EXPECT_EQ(kept_in(R"({"safetensors":{}})"), std::optional(SafetensorsMetadata{}));
}

TEST(CustomMetadata, PassesOverWhatIsNotTheFiles) {
  const std::optional<SafetensorsMetadata> none;
  EXPECT_EQ(kept_in(""), none);
  EXPECT_EQ(kept_in(R"({"other":[1,{"safetensors":{"k":"v"}},null,2.5,"x"]})"), none);
  EXPECT_EQ(kept_in(R"([{"safetensors":{"k":"v"}}])"), none);
  EXPECT_EQ(kept_in(R"({"a":{"b":[]},"safetensors":{"k":"v"},"c":-1})"),
            std::optional(SafetensorsMetadata{{"k", "v"}}));
}

TEST(CustomMetadata, RefusesOtherShapesUnderItsName) {
  for (const std::string_view header_text :
       {R"({"safetensors":1})", R"({"safetensors":-1})", R"({"safetensors":null})",
        R"({"safetensors":"x"})", R"({"safetensors":["x"]})", R"({"safetensors":{"k":1}})",
        R"({"safetensors":{"k":{}}})", R"({"safetensors":{"k":["v"]}})",
        R"({"safetensors":{"k":true}})"}) {
    const auto metadata = from_custom_metadata(header_text);
    ASSERT_FALSE(metadata.has_value()) << header_text;
    EXPECT_EQ(metadata.error().code, ErrorCode::kMismatch) << header_text;
  }
  const auto broken = from_custom_metadata("{");
  ASSERT_FALSE(broken.has_value());
  EXPECT_EQ(broken.error().code, ErrorCode::kCorrupt);
}

class SafetensorsFileTest : public TemporaryDirectoryTest {
 protected:
  // The error of opening a file with these bytes.
  Error open_error(std::string_view bytes) const {
    write_file(path("x.safetensors"), bytes);
    return open_error_of("x.safetensors");
  }

  Error open_error_of(std::string_view name) const {
    const auto file = SafetensorsFile::open(path(name));
    EXPECT_FALSE(file.has_value());
    if (file) return {ErrorCode::kClosed, ""};
    EXPECT_NE(file.error().message.find(path(name).native()), std::string::npos);
    return file.error();
  }

  const std::string good_ = safetensors_bytes(
      {random_tensor("a", DType::kFloat32, {1000}, 1), random_tensor("b", DType::kUint8, {5}, 2)});
};

TEST_F(SafetensorsFileTest, ReadsAnyRangeOfTheData) {
  write_file(path("x.safetensors"), good_);
  const auto file = SafetensorsFile::open(path("x.safetensors"));
  ASSERT_TRUE(file.has_value()) << file.error().message;
  EXPECT_EQ((*file)->header().tensors.size(), 2U);
  ASSERT_EQ((*file)->data_size_bytes(), 4005U);
  std::string bytes(100, '\0');
  ASSERT_TRUE((*file)->read(3905, std::as_writable_bytes(std::span(bytes))).has_value());
  EXPECT_EQ(bytes, good_.substr(good_.size() - 100));
  EXPECT_FALSE((*file)->read(3906, std::as_writable_bytes(std::span(bytes))).has_value());
}

TEST_F(SafetensorsFileTest, RefusesAFileShorterThanItsLength) {
  EXPECT_EQ(open_error("").code, ErrorCode::kCorrupt);
  EXPECT_EQ(open_error(good_.substr(0, 7)).code, ErrorCode::kCorrupt);
  EXPECT_EQ(open_error(good_.substr(0, 8)).code, ErrorCode::kCorrupt);
}

TEST_F(SafetensorsFileTest, RefusesEveryTruncation) {
  for (std::size_t size = 0; size < good_.size(); size += size < 250 ? 1 : 97) {
    SCOPED_TRACE(size);
    EXPECT_EQ(open_error(std::string_view(good_).substr(0, size)).code, ErrorCode::kCorrupt);
  }
}

TEST_F(SafetensorsFileTest, RefusesAHeaderLengthOfZero) {
  EXPECT_EQ(open_error(std::string(8, '\0')).code, ErrorCode::kCorrupt);
}

TEST_F(SafetensorsFileTest, RefusesAHeaderLongerThanTheFile) {
  std::string bytes = good_;
  bytes[2] = '\x7F';
  const Error error = open_error(bytes);
  EXPECT_EQ(error.code, ErrorCode::kCorrupt);
  EXPECT_NE(error.message.find("cut short"), std::string::npos) << error.message;
}

TEST_F(SafetensorsFileTest, RefusesAHeaderLengthThatWouldWrap) {
  EXPECT_EQ(open_error(std::string(8, '\xFF') + good_.substr(8)).code, ErrorCode::kCorrupt);
}

TEST_F(SafetensorsFileTest, RefusesAHeaderOverTheLimitWithoutReadingIt) {
  std::string length;
  for (std::size_t i = 0; i < 8; ++i) {
    length += static_cast<char>((kSafetensorsHeaderSizeBytesMax + 1) >> (8 * i));
  }
  write_file(path("x.safetensors"), length);
  // Sparse: the file is long enough, and takes no space.
  std::filesystem::resize_file(path("x.safetensors"), 2 * kSafetensorsHeaderSizeBytesMax);
  const Error error = open_error_of("x.safetensors");
  EXPECT_EQ(error.code, ErrorCode::kCorrupt);
  EXPECT_NE(error.message.find("limit"), std::string::npos) << error.message;
}

TEST_F(SafetensorsFileTest, RefusesWhatIsNotARegularFile) {
  EXPECT_EQ(open_error_of("nothing").code, ErrorCode::kNotFound);
  std::filesystem::create_directory(path("directory"));
  EXPECT_EQ(open_error_of("directory").code, ErrorCode::kInvalidArgument);
  // Must not wait for a writer.
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_EQ(open_error_of("pipe").code, ErrorCode::kInvalidArgument);
}

TEST_F(SafetensorsFileTest, FailsWhenTheFileIsCutShortUnderIt) {
  write_file(path("x.safetensors"), good_);
  const auto file = SafetensorsFile::open(path("x.safetensors"));
  ASSERT_TRUE(file.has_value()) << file.error().message;
  std::filesystem::resize_file(path("x.safetensors"), good_.size() - 1);
  std::string bytes(4005, '\0');
  const auto result = (*file)->read(0, std::as_writable_bytes(std::span(bytes)));
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::kIo);
}

TEST_F(SafetensorsFileTest, FailsWhenTheFileIsRewrittenUnderIt) {
  write_file(path("x.safetensors"), good_);
  const auto file = SafetensorsFile::open(path("x.safetensors"));
  ASSERT_TRUE(file.has_value()) << file.error().message;
  // The clock of file times may be too coarse to tell the two writes apart, so they are set.
  const struct timespec times[2] = {{.tv_sec = 1, .tv_nsec = 0}, {.tv_sec = 1, .tv_nsec = 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, path("x.safetensors").c_str(), times, 0), 0);
  std::string bytes(4005, '\0');
  const auto result = (*file)->read(0, std::as_writable_bytes(std::span(bytes)));
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::kIo);
}

}  // namespace
}  // namespace stepstone::tool
