// Goal: whatever is said to be a safetensors file or an index of several, reading it is an error or
// a dict of tensors, within bounds. Method: files and indexes that lie (what headers can say is in
// safetensors_test.cc); files cut and changed.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/tools/hostile.h"

namespace stepstone::tool {
namespace {

using HostileSafetensorsTest = HostileFileTest;

std::string length(std::uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(value >> (8 * i));
  return bytes;
}

std::string file_of(std::string_view header, std::size_t data_size = 16) {
  return length(header.size()) + std::string(header) + std::string(data_size, '\0');
}

std::string one(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return fmt::format(R"({{"a":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape,
                     offsets);
}

std::vector<HostileFile> files() {
  const std::string two =
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":)";
  return {
      {"Empty", "", "shorter"},
      {"SevenBytes", "1234567", "shorter"},
      {"LengthAlone", length(0), "begin"},
      {"LengthOfAll", length(UINT64_MAX), "limit"},
      {"LengthOf2To63", length(std::uint64_t{1} << 63) + "{}", "limit"},
      {"LengthOfAGibibyte", length(1 << 30) + "{}", "limit"},
      {"LengthOneTooMany", length(3) + "{}", "cut short"},
      {"LengthOfAllowedMost", length(100'000'000) + "{}", "cut short"},
      {"NoJson", file_of("hello"), "begin"},
      {"Nul", file_of(std::string("{\0}", 3)), "JSON"},
      {"ObjectDoesNotEnd", file_of("{"), "JSON"},
      {"Utf16", file_of(std::string("{\0\"\0", 4)), "JSON"},
      {"NotUtf8", file_of("{\"\xFF\":1}"), "JSON"},
      {"NestedArrays", file_of("{\"a\":" + repeated("[", 1'000'000)), "array"},
      {"NestedObjects", file_of(repeated("{\"a\":", 500'000)), ""},
      {"NestedInAShape", file_of(one(R"("F32")", "[[4]]", "[0,16]")), "array"},
      {"TwoObjects", file_of("{}{}"), "JSON"},
      {"Comment", file_of("{/* */}"), "JSON"},
      {"TrailingComma", file_of(R"({"a":{"dtype":"F32",}})"), "JSON"},
      {"HugeNumber", file_of(one(R"("F32")", "[1e400]", "[0,16]")), ""},
      {"NumberOf65Bits", file_of(one(R"("F32")", "[36893488147419103232]", "[0,16]")), ""},
      {"NegativeExtent", file_of(one(R"("F32")", "[-4]", "[0,16]")), "negative"},
      {"FloatExtent", file_of(one(R"("F32")", "[4.0]", "[0,16]")), ""},
      {"ProductOverflows", file_of(one(R"("F32")", "[4294967296,4294967296,4]", "[0,16]")), ""},
      {"ManyDimensions", file_of(one(R"("F32")", "[" + repeated("1,", 100) + "4]", "[0,16]")),
       "dimensions"},
      {"UnknownDType", file_of(one(R"("F128")", "[1]", "[0,16]")), "F128"},
      {"DTypeIsANumber", file_of(one("7", "[4]", "[0,16]")), "number"},
      {"DTypeIsNull", file_of(one("null", "[4]", "[0,16]")), "null"},
      {"OffsetsBackwards", file_of(one(R"("F32")", "[4]", "[16,0]")), "before"},
      {"OffsetsBeyond", file_of(one(R"("F32")", "[8]", "[0,32]")), "only 16"},
      {"OffsetsNearTheEndOfNumbers",
       file_of(one(R"("U8")", "[15]", "[18446744073709551600,18446744073709551615]")), ""},
      {"OneOffset", file_of(one(R"("F32")", "[4]", "[0]")), "two"},
      {"ThreeOffsets", file_of(one(R"("F32")", "[4]", "[0,16,16]")), "two"},
      {"Overlap", file_of(two + "[4,12]}}"), "overlaps"},
      {"SamePlace", file_of(two + "[0,8]}}"), "overlaps"},
      {"Hole", file_of(two + "[9,17]}}", 17), "hole"},
      {"BytesOfNoTensor", file_of(one(R"("F32")", "[2]", "[0,8]")), "belong to none"},
      {"NameTwice",
       file_of(two + R"([8,16]},"a":{"dtype":"F32","shape":[0],"data_offsets":[16,16]}})"),
       "twice"},
      {"LongName", file_of("{\"" + std::string(100'000, 'n') + "\":{}}"), "limit"},
      {"MetadataNested", file_of(R"({"__metadata__":{"a":{}}})", 0), "metadata"},
      {"MetadataTwice", file_of(R"({"__metadata__":{},"__metadata__":{}})", 0), "twice"},
      {"MetadataIsAList", file_of(R"({"__metadata__":[]})", 0), "metadata"},
      {"ManyEmptyTensors",
       file_of("{" + repeated(R"("a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)", 100'000) +
                   R"("b":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
               0),
       "twice"},
  };
}

std::string index_of(std::string_view map) { return fmt::format(R"({{"weight_map":{}}})", map); }
std::string in_file(std::string_view file) { return index_of(fmt::format(R"({{"a":{}}})", file)); }

std::vector<HostileFile> indexes() {
  std::string many = "{";
  for (int i = 0; i < 600; ++i) many += fmt::format(R"("{}":"{}",)", i, i);
  many.back() = '}';
  return {
      {"Empty", "", "JSON"},
      {"NotJson", "weights", "JSON"},
      {"Number", "7", "number"},
      {"Array", "[]", "array"},
      {"Text", R"("weight_map")", "string"},
      {"Null", "null", "null"},
      {"NoMap", "{}", "weight_map"},
      {"OtherMap", R"({"weights":{}})", "weight_map"},
      {"MapIsNull", index_of("null"), "null"},
      {"MapIsANumber", index_of("1"), "number"},
      {"MapIsText", index_of(R"("x")"), ""},
      {"MapIsAList", index_of(R"(["x"])"), "array"},
      {"MapTwice", R"({"weight_map":{},"weight_map":{}})", "twice"},
      {"MapDoesNotEnd", R"({"weight_map":{"a":"b")", "JSON"},
      {"FileIsANumber", in_file("1"), "number"},
      {"FileIsNull", in_file("null"), "null"},
      {"FileIsTrue", in_file("true"), "boolean"},
      {"FileIsAList", in_file(R"(["x"])"), "array"},
      {"FileIsAnObject", in_file("{}"), "object"},
      {"FileIsAFloat", in_file("1.5"), "number"},
      {"FileAbove", in_file(R"("../model.safetensors")"), "directory"},
      {"FileAtTheRoot", in_file(R"("/etc/passwd")"), "directory"},
      {"FileBelow", in_file(R"("below/model.safetensors")"), "directory"},
      {"FileIsTheDirectory", in_file(R"(".")"), "directory"},
      {"FileIsTheParent", in_file(R"("..")"), "directory"},
      {"FileWithoutName", in_file(R"("")"), "directory"},
      {"FileWithNul", in_file(R"("a\u0000b")"), "directory"},
      {"FileWithLongName", in_file("\"" + std::string(5000, 'f') + "\""), "directory"},
      {"FileEscaped", in_file(R"("..\u002fx")"), "directory"},
      {"FileMissing", in_file(R"("missing")"), "missing"},
      {"FileIsItself", in_file(R"("hostile")"), "hostile"},
      {"FileForTheTerminal", in_file(R"("\u001b[2J")"), "\\x1b"},
      {"SixHundredFiles", index_of(many), "limit"},
      {"TensorTwice", index_of(R"({"a":"x","a":"x"})"), "twice"},
      {"LongTensorName", index_of(fmt::format(R"({{"{}":"x"}})", std::string(5000, 'n'))), "limit"},
      {"NestedMetadata", R"({"metadata":)" + repeated("[", 100'000), "deeper"},
      {"NestedObjects", repeated(R"({"a":)", 100'000), "deeper"},
      {"TwoObjects", in_file(R"("x")") + "{}", "JSON"},
      {"Nul", std::string("{\0}", 3), "JSON"},
      {"NotUtf8", in_file("\"\xFF\""), "JSON"},
      {"ByteOrderMark", "\xEF\xBB\xBF[]", ""},
      {"Comment", "{/* */}", "JSON"},
      {"HugeNumber", R"({"metadata":{"total_size":1e999999}})", "JSON"},
  };
}

TEST_F(HostileSafetensorsTest, FilesThatLieAreRefused) { expect_refused("safetensors", files()); }

TEST_F(HostileSafetensorsTest, IndexesThatLieAreRefused) {
  expect_refused("safetensors-index", indexes());
}

TEST_F(HostileSafetensorsTest, ShardsThatAreNotWhatTheIndexSaysAreRefused) {
  for (const std::string_view shard :
       {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}) {
    write_file(path(shard), golden(shard));
  }
  const std::string index = golden("model.safetensors.index.json");
  write_file(path("sound"), index);
  const Format& format = *find_format("safetensors-index");
  ASSERT_TRUE(format.read(path("sound")).has_value());

  const auto refused_with = [&](std::string_view from, std::string_view to) -> std::string {
    std::string changed = index;
    changed.replace(changed.find(from), from.size(), to);
    write_file(path("changed"), changed);
    const auto read = format.read(path("changed"));
    return read ? "taken" : read.error().message;
  };
  EXPECT_NE(refused_with("layer3.w", "layer4.w").find("elsewhere"), std::string::npos);
  EXPECT_NE(
      refused_with("layer0.w\": \"model-00001", "layer0.w\": \"model-00002").find("elsewhere"),
      std::string::npos);
  EXPECT_NE(
      refused_with("\"layer0.w\"", "\"more\": \"model-00001-of-00002.safetensors\", \"layer0.w\"")
          .find("holds 3"),
      std::string::npos);
  EXPECT_NE(refused_with("model-00002-of", "model-00003-of").find("model-00003"),
            std::string::npos);

  write_file(path("model-00002-of-00002.safetensors"),
             safetensors_bytes({random_tensor("layer3.w", DType::kFloat32, {6, 2}, 1)},
                               SafetensorsMetadata{{"format", "flax"}}));
  const auto other = format.read(path("sound"));
  ASSERT_FALSE(other.has_value());
  EXPECT_NE(other.error().message.find("__metadata__"), std::string::npos);
}

TEST_F(HostileSafetensorsTest, FilesCutShortAreRefused) {
  expect_cut_files_are_refused("safetensors", golden("stored.npz.expected.safetensors"), 40);
  expect_cut_files_are_refused("safetensors-index", golden("model.safetensors.index.json"), 40);
}

TEST_F(HostileSafetensorsTest, FilesWithChangedBytesDoNoHarm) {
  expect_changed_files_do_no_harm("safetensors", golden("state.pt.expected.safetensors"), 100);
  expect_changed_files_do_no_harm("safetensors-index", golden("model.safetensors.index.json"), 100);
}

}  // namespace
}  // namespace stepstone::tool
