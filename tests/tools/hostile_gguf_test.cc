// Goal: whatever is said to be a GGUF file, reading it is an error or a tree of arrays, within
// bounds. Method: headers that lie, one field at a time; files cut and changed.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>
#include <optional>

#include "tests/tools/hostile.h"

namespace stepstone::tool {
namespace {

using HostileGgufTest = HostileFileTest;

constexpr std::uint64_t kHuge = std::uint64_t{1} << 62;

std::string gguf_text(std::string_view text) {
  return little_endian(text.size(), 8) + std::string(text);
}

struct RawTensor {
  std::string name = gguf_text("w");
  std::uint64_t rank = 1;
  std::vector<std::uint64_t> extents = {8};
  std::uint64_t type = 0;
  std::uint64_t offset = 0;

  std::string bytes() const {
    std::string bytes = name + little_endian(rank, 4);
    for (const std::uint64_t extent : extents) bytes += little_endian(extent, 8);
    return bytes + little_endian(type, 4) + little_endian(offset, 8);
  }
};

// A sound file of one key and two tensors of 32 bytes, of which something is then spoilt.
struct RawGguf {
  std::string magic = "GGUF";
  std::uint64_t version = 3;
  std::optional<std::uint64_t> tensor_count;
  std::optional<std::uint64_t> pair_count;
  std::vector<std::string> pairs = {gguf_text("general.architecture") + little_endian(8, 4) +
                                    gguf_text("x")};
  std::vector<RawTensor> tensors = {{}, {.name = gguf_text("v"), .offset = 32}};
  std::size_t alignment = 32;
  std::optional<std::string> padding;  // Behind the header.
  std::string data = std::string(64, '1');

  std::string bytes() const {
    std::string bytes = magic + little_endian(version, 4) +
                        little_endian(tensor_count.value_or(tensors.size()), 8) +
                        little_endian(pair_count.value_or(pairs.size()), 8);
    for (const std::string& pair : pairs) bytes += pair;
    for (const RawTensor& tensor : tensors) bytes += tensor.bytes();
    const std::size_t missing = (alignment - bytes.size() % alignment) % alignment;
    return bytes + padding.value_or(std::string(missing, '\0')) + data;
  }
};

std::string spoilt(const std::function<void(RawGguf&)>& spoil) {
  RawGguf file;
  spoil(file);
  return file.bytes();
}

// With one more pair of a key and a value.
std::string with_value(std::uint64_t type, const std::string& value,
                       std::string_view key = "more") {
  return spoilt([&](RawGguf& file) {
    file.pairs.push_back(gguf_text(key) + little_endian(type, 4) + value);
  });
}

// With another second tensor.
std::string with_tensor(const RawTensor& tensor, std::size_t data_size_bytes = 64) {
  return spoilt([&](RawGguf& file) {
    file.tensors[1] = tensor;
    file.data = std::string(data_size_bytes, '1');
  });
}

std::vector<HostileFile> lying_headers() {
  return {
      {"Empty", "", "ends"},
      {"MagicAlone", "GGUF", "ends"},
      {"OtherMagic", spoilt([](RawGguf& file) { file.magic = "GGML"; }), "begin"},
      {"VersionZero", spoilt([](RawGguf& file) { file.version = 0; }), "version 0"},
      {"VersionOne", spoilt([](RawGguf& file) { file.version = 1; }), "version 1"},
      {"VersionFour", spoilt([](RawGguf& file) { file.version = 4; }), "version 4"},
      {"BigEndian", spoilt([](RawGguf& file) { file.version = 3U << 24; }), "big-endian"},
      {"NoCounts", std::string("GGUF\x03\0\0\0\x01\0\0", 11), "ends"},
      {"TensorsOf2To62", spoilt([](RawGguf& file) { file.tensor_count = kHuge; }), "limit"},
      {"KeysOf2To62", spoilt([](RawGguf& file) { file.pair_count = kHuge; }), "limit"},
      {"OneTensorMoreClaimed", spoilt([](RawGguf& file) { file.tensor_count = 3; }), ""},
      {"OneTensorHidden", spoilt([](RawGguf& file) { file.tensor_count = 1; }), ""},
      {"OneKeyMoreClaimed", spoilt([](RawGguf& file) { file.pair_count = 2; }), ""},
      {"OneKeyHidden", spoilt([](RawGguf& file) { file.pair_count = 0; }), ""},
      {"KeyBeyondTheEnd", spoilt([](RawGguf& file) { file.pairs = {little_endian(100'000, 8)}; }),
       "ends"},
      {"KeyOf2To64",
       spoilt([](RawGguf& file) { file.pairs = {little_endian(~std::uint64_t{0}, 8)}; }), "ends"},
      {"KeyOfSeventyKiB", spoilt([](RawGguf& file) {
         file.pairs = {gguf_text(std::string(70'000, 'k')) + little_endian(4, 4) +
                       little_endian(1, 4)};
       }),
       "limit"},
      {"EmptyKey", with_value(4, little_endian(1, 4), ""), "empty"},
      {"KeyTwice", with_value(8, gguf_text("y"), "general.architecture"), "twice"},
      {"UnknownTypeOfValue", with_value(13, ""), "13"},
      {"BoolOfTwo", with_value(7, little_endian(2, 1)), "bool"},
      {"StringBeyondTheEnd", with_value(8, little_endian(kHuge, 8)), "ends"},
      {"StringOf2To64", with_value(8, little_endian(~std::uint64_t{0}, 8)), "ends"},
      {"ArrayOfArrays", with_value(9, little_endian(9, 4) + little_endian(1, 8)), "arrays"},
      {"ArrayOfAnUnknownType", with_value(9, little_endian(77, 4) + little_endian(1, 8)), "77"},
      {"ArrayBeyondTheEnd", with_value(9, little_endian(10, 4) + little_endian(1'000'000, 8)),
       "ends"},
      {"ArrayWhoseSizeOverflows", with_value(9, little_endian(10, 4) + little_endian(kHuge, 8)),
       ""},
      {"ArrayOf2To64Bytes",
       with_value(9, little_endian(0, 4) + little_endian(~std::uint64_t{0}, 8)), "ends"},
      {"StringsOf2To62", with_value(9, little_endian(8, 4) + little_endian(kHuge, 8)), ""},
      {"StringsBeyondTheEnd", with_value(9, little_endian(8, 4) + little_endian(100, 8)), "ends"},
      {"AlignmentOfZero", with_value(4, little_endian(0, 4), "general.alignment"), "power"},
      {"AlignmentOfThree", with_value(4, little_endian(3, 4), "general.alignment"), "power"},
      {"AlignmentOf2To31", with_value(4, little_endian(1U << 31, 4), "general.alignment"), "limit"},
      {"AlignmentIsAString", with_value(8, gguf_text("32"), "general.alignment"), "uint32"},
      {"AlignmentOfAnother", with_value(4, little_endian(64, 4), "general.alignment"), ""},
  };
}

std::vector<HostileFile> lying_tensors() {
  std::vector<HostileFile> files = {
      {"NameBeyondTheEnd", with_tensor({.name = little_endian(100'000, 8), .offset = 32}), "ends"},
      {"NameOfFiveKiB", with_tensor({.name = gguf_text(std::string(5000, 'n')), .offset = 32}),
       "limit"},
      {"NameTwice", with_tensor({.offset = 32}), "twice"},
      {"NameForATerminal", with_tensor({.name = gguf_text("\x1b[2J"), .type = 12, .offset = 32}),
       "\\x1b"},
      {"FiveDimensions",
       with_tensor({.name = gguf_text("v"), .rank = 5, .extents = {1, 1, 1, 1, 8}, .offset = 32}),
       "dimensions"},
      {"DimensionsOf2To32", with_tensor({.name = gguf_text("v"), .rank = 0xFFFFFFFF, .offset = 32}),
       "dimensions"},
      {"ProductOverflows",
       with_tensor(
           {.name = gguf_text("v"), .rank = 2, .extents = {1ULL << 32, 1ULL << 32}, .offset = 32}),
       ""},
      {"BytesOverflow",
       with_tensor({.name = gguf_text("v"), .extents = {1ULL << 62}, .offset = 32}), ""},
      {"NegativeExtent",
       with_tensor({.name = gguf_text("v"), .extents = {~std::uint64_t{0}}, .offset = 32}), ""},
      {"TebibyteOfData",
       with_tensor({.name = gguf_text("v"), .extents = {1ULL << 38}, .offset = 32}), "ends before"},
      {"FewerBytes", with_tensor({.name = gguf_text("v"), .offset = 32}, 63), "ends before"},
      {"MoreBytes", with_tensor({.name = gguf_text("v"), .offset = 32}, 65), "end at"},
      {"BytesBehind", with_tensor({.name = gguf_text("v"), .offset = 32}, 4096), "end"},
      {"Overlap", with_tensor({.name = gguf_text("v"), .offset = 0}, 32), "leads to 32"},
      {"Hole", with_tensor({.name = gguf_text("v"), .offset = 64}, 96), "leads to 32"},
      {"NotAligned", with_tensor({.name = gguf_text("v"), .offset = 33}, 65), "leads to 32"},
      {"OffsetOf2To64", with_tensor({.name = gguf_text("v"), .offset = ~std::uint64_t{0}}),
       "leads to"},
      {"OffsetIntoTheHeader",
       with_tensor({.name = gguf_text("v"), .offset = std::uint64_t{0} - 32}), "leads to"},
      {"WordsInThePadding", with_tensor({.name = gguf_text("v"), .extents = {7}, .offset = 32}),
       "zeros"},
      {"WordsBehindTheHeader", spoilt([](RawGguf& file) {
         file.padding =
             std::string((32 - RawGguf{.padding = "", .data = ""}.bytes().size() % 32) % 32, '#');
       }),
       "zeros"},
      {"UnknownType", with_tensor({.name = gguf_text("v"), .type = 1000, .offset = 32}),
       "type 1000"},
      {"TypeThatWasGivenUp", with_tensor({.name = gguf_text("v"), .type = 4, .offset = 32}),
       "type 4"},
  };
  // Every quantised type is refused by its name.
  const std::vector<std::pair<std::uint64_t, std::string>> quantised = {
      {2, "Q4_0"},   {3, "Q4_1"},    {6, "Q5_0"},     {7, "Q5_1"},    {8, "Q8_0"},
      {9, "Q8_1"},   {10, "Q2_K"},   {11, "Q3_K"},    {12, "Q4_K"},   {13, "Q5_K"},
      {14, "Q6_K"},  {15, "Q8_K"},   {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"},
      {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"},   {22, "IQ2_S"},  {23, "IQ4_XS"},
      {29, "IQ1_M"}, {34, "TQ1_0"},  {35, "TQ2_0"},   {39, "MXFP4"},
  };
  for (const auto& [type, name] : quantised) {
    files.push_back({"Quantised" + name,
                     with_tensor({.name = gguf_text("v"), .type = type, .offset = 32}), name});
  }
  return files;
}

TEST_F(HostileGgufTest, FilesThatLieAreRefused) {
  std::vector<HostileFile> files = lying_headers();
  for (const HostileFile& file : lying_tensors()) files.push_back(file);
  expect_refused("gguf", files);
}

// What is allowed is taken: the tests above refuse for the reasons they give.
TEST_F(HostileGgufTest, SoundFilesAreTaken) {
  constexpr std::size_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1};
  std::vector<std::string> pairs;
  for (std::uint64_t type = 0; type < 8; ++type) {
    pairs.push_back(gguf_text(fmt::format("k{}", type)) + little_endian(type, 4) +
                    little_endian(1, kSizes[type]));
  }
  for (std::uint64_t type = 10; type < 13; ++type) {
    pairs.push_back(gguf_text(fmt::format("k{}", type)) + little_endian(type, 4) +
                    little_endian(1, 8));
  }
  pairs.push_back(gguf_text("strings") + little_endian(9, 4) + little_endian(8, 4) +
                  little_endian(2, 8) + gguf_text("a") + gguf_text(""));
  pairs.push_back(gguf_text("shorts") + little_endian(9, 4) + little_endian(3, 4) +
                  little_endian(3, 8) + "aabbcc");
  pairs.push_back(gguf_text("general.alignment") + little_endian(4, 4) + little_endian(8, 4));
  RawGguf file;
  file.version = 2;
  file.pairs = pairs;
  file.alignment = 8;
  // 5 bytes, zeros up to 8, and none behind the last.
  file.tensors = {{.name = gguf_text("a"), .extents = {5}, .type = 24},
                  {.name = gguf_text("b"), .rank = 2, .extents = {3, 1}, .type = 24, .offset = 8}};
  file.data = std::string("12345\0\0\0abc", 11);
  write_file(path("sound.gguf"), file.bytes());
  const Result<Contents> contents = read_gguf(path("sound.gguf"));
  ASSERT_TRUE(contents.has_value()) << contents.error().message;
  ASSERT_EQ(contents->leaves.size(), 2U);
  EXPECT_EQ(contents->leaves[1].info.shape, (std::vector<std::uint64_t>{1, 3}));
  std::vector<std::byte> scratch(3);
  const auto bytes = contents->leaves[1].source->read(0, 3, scratch);
  ASSERT_TRUE(bytes.has_value()) << bytes.error().message;
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes->data()), 3), "abc");
}

TEST_F(HostileGgufTest, FilesCutShortAreRefused) {
  expect_cut_files_are_refused("gguf", RawGguf{}.bytes(), 60);
}

TEST_F(HostileGgufTest, FilesWithChangedBytesDoNoHarm) {
  expect_changed_files_do_no_harm("gguf", RawGguf{}.bytes(), 200);
}

}  // namespace
}  // namespace stepstone::tool
