// Holds format/README.md, the specification, to what the code does: its tables, its field lists,
// and the bytes of its examples.
#include <flatbuffers/flatbuffers.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "format/chunk_codec.h"
#include "format/limits.h"
#include "portable_support.h"
#include "samples.h"

namespace stepstone {
namespace {

std::string readme() { return test::read_file(STEPSTONE_FORMAT_DIR "/README.md"); }

// The text of the fenced block that follows `marker`.
std::string block_after(const std::string& text, const std::string& marker) {
  const std::size_t at = text.find(marker);
  if (at == std::string::npos) return "(no " + marker + ")";
  const std::size_t begin = text.find('\n', text.find("```", at)) + 1;
  return text.substr(begin, text.find("```", begin) - begin);
}

// The bytes of a hex_dump().
std::string bytes_of_dump(const std::string& dump) {
  if (!dump.starts_with("0000  ")) return {};
  std::string hex;
  std::istringstream lines(dump);
  for (std::string line; std::getline(lines, line);) hex += line.substr(6, 3 * 16);
  return test::from_hex(hex);
}

TEST(Specification, ItsLeafRecordIsWhatIsWritten) {
  if (FLATBUFFERS_VERSION_MAJOR != 2) GTEST_SKIP() << test::kOtherFlatbuffers;
  const std::string bytes =
      encode(test::sample_inline_leaf_record(), test::sample_leaf_key()).value();
  EXPECT_EQ(block_after(readme(), "<!-- dump: leaf record -->"), test::hex_dump(bytes))
      << "the block should read:\n"
      << test::hex_dump(bytes);
}

TEST(Specification, ItsLeafRecordReadsAsItSays) {
  const std::string bytes = bytes_of_dump(block_after(readme(), "<!-- dump: leaf record -->"));
  EXPECT_EQ(decode_leaf_record(bytes, test::sample_leaf_key()), test::sample_inline_leaf_record());
}

TEST(Specification, ItsHeadSlotIsWhatIsWritten) {
  const std::string bytes = test::as_string(encode_head_slot(test::sample_head()));
  EXPECT_EQ(block_after(readme(), "<!-- dump: head slot -->"), test::hex_dump(bytes))
      << "the block should read:\n"
      << test::hex_dump(bytes);
}

TEST(Specification, ItsPortableFileIsWhatIsWritten) {
  if (FLATBUFFERS_VERSION_MAJOR != 2) GTEST_SKIP() << test::kOtherFlatbuffers;
  const std::string bytes =
      test::written(test::sample_portable_steps(), {}, test::Hashes::kUnknown);
  EXPECT_EQ(block_after(readme(), "<!-- dump: portable file -->"), test::hex_dump(bytes))
      << "the block should read:\n"
      << test::hex_dump(bytes);
}

TEST(Specification, ItsPortableFileReadsAsItSays) {
  const std::string bytes = bytes_of_dump(block_after(readme(), "<!-- dump: portable file -->"));
  const auto file = test::open_file(bytes, true);
  ASSERT_TRUE(file.has_value()) << file.error().message;
  const auto verified = file->verify();
  EXPECT_TRUE(verified.has_value()) << verified.error().message;
  const auto w = file->leaf(1000, "state", encode_path({PathComponent::key("w")}).value());
  ASSERT_TRUE(w.has_value()) << w.error().message;
  EXPECT_EQ(w->record().shape, std::vector<std::uint64_t>{3});
}

TEST(Specification, ItsKeysAreWhatIsWritten) {
  const std::string path =
      encode_path({PathComponent::key("layers"), PathComponent::index(3), PathComponent::key("w")})
          .value();
  const SaveId save = test::kSampleSave;
  std::string expected;
  const auto add = [&](const char* what, const std::string& key) {
    expected += std::string(what) + test::to_hex(key) + "\n";
  };
  add("store record  ", store_record_key());
  add("step record   ", step_record_key(save.step));
  add("step copy     ", step_copy_key(save));
  add("item          ", item_key(save, "state"));
  add("leaf          ", leaf_key(save, "state", path));
  add("chunk 2       ", chunk_key(save, "state", path, 2));
  EXPECT_EQ(block_after(readme(), "<!-- dump: keys -->"), expected);
}

TEST(Specification, ListsEveryDType) {
  const std::string text = readme();
  int rows = 0;
  for (int number = 0; number < 256; ++number) {
    const auto dtype = dtype_from_number(static_cast<std::uint8_t>(number));
    if (!dtype) continue;
    const std::string row = "| " + std::to_string(number) + " | `" +
                            std::string(to_string(*dtype)) + "` | " +
                            std::to_string(info(*dtype).bits) + " |";
    EXPECT_NE(text.find(row), std::string::npos) << row;
    ++rows;
  }
  EXPECT_EQ(rows, 28);
}

TEST(Specification, ListsEveryLeafKind) {
  const std::string text = readme();
  for (std::uint8_t number = 1; leaf_kind_from_number(number); ++number) {
    const std::string row = "| " + std::to_string(number) + " | " +
                            std::string(to_string(*leaf_kind_from_number(number))) + " |";
    EXPECT_NE(text.find(row), std::string::npos) << row;
  }
}

TEST(Specification, ListsEveryCodec) {
  const std::string text = readme();
  const char* const rows[] = {"| 0 | raw |", "| 1 | constant |", "| 2 | planes |", "| 3 | delta |"};
  ASSERT_EQ(std::size(rows), static_cast<std::size_t>(kCodecLast) + 1);
  for (const char* const row : rows) EXPECT_NE(text.find(row), std::string::npos) << row;
}

TEST(Specification, ItsPlanesDecodeAsItSays) {
  const std::string stored = test::from_hex(block_after(readme(), "<!-- dump: planes -->"));
  std::string chunk(7, '\0');
  const auto result = ChunkDecoder().decode(Codec::kPlanes, test::as_bytes(stored),
                                            std::as_writable_bytes(std::span(chunk)));
  ASSERT_TRUE(result.has_value()) << result.error().message;
  EXPECT_EQ(test::to_hex(chunk), "803f80bf803fee");
}

TEST(Specification, ItsDeltaDecodesAsItSays) {
  const std::string stored = test::from_hex(block_after(readme(), "<!-- dump: delta -->"));
  const std::string base = test::from_hex("803f803f");
  std::string chunk(4, '\0');
  const auto result = ChunkDecoder().decode_delta(test::as_bytes(stored), test::as_bytes(base),
                                                  std::as_writable_bytes(std::span(chunk)));
  ASSERT_TRUE(result.has_value()) << result.error().message;
  EXPECT_EQ(test::to_hex(chunk), "813f803f");
}

TEST(Specification, ListsEveryLimitWithItsValue) {
  const std::string text = readme();
  const auto number = [](auto value) { return std::to_string(value); };
  const std::pair<const char*, std::string> rows[] = {
      {"kStepMax", number(limits::kStepMax)},
      {"kNameSizeBytesMax", number(limits::kNameSizeBytesMax)},
      {"kEncodedPathSizeBytesMax", number(limits::kEncodedPathSizeBytesMax)},
      {"kDepthMax", number(limits::kDepthMax)},
      {"kItemsPerStepMax", number(limits::kItemsPerStepMax)},
      {"kNodesPerItemMax", number(limits::kNodesPerItemMax)},
      {"kRankMax", number(limits::kRankMax)},
      {"kChunkSizeBytesMin", number(limits::kChunkSizeBytesMin)},
      {"kChunkSizeBytesMax", number(limits::kChunkSizeBytesMax)},
      {"kChunksPerLeafMax", number(limits::kChunksPerLeafMax)},
      {"kChunkAlignmentBytesMax", number(limits::kChunkAlignmentBytesMax)},
      {"kLeafSizeBytesMax", number(limits::kLeafSizeBytesMax)},
      {"kRecordSizeBytesMax", number(limits::kRecordSizeBytesMax)},
      {"kInlineSizeBytesMax", number(limits::kInlineSizeBytesMax)},
      {"kMetadataSizeBytesMax", number(limits::kMetadataSizeBytesMax)},
      {"kStoreMetadataSizeBytesMax", number(limits::kStoreMetadataSizeBytesMax)},
      {"kSegmentsPerStepMax", number(limits::kSegmentsPerStepMax)},
      {"kSourcesPerLeafMax", number(limits::kSourcesPerLeafMax)},
      {"kOriginSavesPerStepMax", number(limits::kOriginSavesPerStepMax)},
      {"kIndexPageEntriesMax", number(limits::kIndexPageEntriesMax)},
      {"kIndexLevelMax", number(limits::kIndexLevelMax)},
  };
  for (const auto& [name, value] : rows) {
    const std::string row = std::string("| `") + name + "` | " + value + " |";
    EXPECT_NE(text.find(row), std::string::npos) << row;
  }
  // None is missing from the rows above.
  const std::string header = test::read_file(STEPSTONE_FORMAT_DIR "/limits.h");
  std::size_t constants = 0;
  for (std::size_t at = header.find("inline constexpr"); at != std::string::npos;
       at = header.find("inline constexpr", at + 1)) {
    ++constants;
  }
  EXPECT_EQ(constants, std::size(rows));
}

// The tables and structs of a schema with their fields, one line each, in the order of the file.
std::vector<std::pair<std::string, std::string>> tables_of(const std::string& schema) {
  std::vector<std::pair<std::string, std::string>> tables;
  bool is_inside = false;
  std::istringstream lines(schema);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string first;
    std::string second;
    words >> first >> second;
    if (first == "table" || first == "struct") {
      tables.emplace_back(second, "");
      is_inside = true;
    } else if (first == "}") {
      is_inside = false;
    } else if (is_inside && first.ends_with(':')) {
      tables.back().second += first.substr(0, first.size() - 1) + "\n";
    }
  }
  return tables;
}

// The names in the rows `| 0 | `name` | ...` that follow `at`, up to the first line that is no row.
std::string fields_in_rows(const std::string& text, std::size_t at) {
  std::string fields;
  int number = 0;
  std::istringstream rows(text.substr(text.find('|', at)));
  for (std::string row; std::getline(rows, row) && row.starts_with('|');) {
    const std::string begin = "| " + std::to_string(number) + " | `";
    if (!row.starts_with(begin)) continue;
    ++number;
    fields += row.substr(begin.size(), row.find('`', begin.size()) - begin.size()) + "\n";
  }
  return fields;
}

// Every field of a schema is in the specification, under its table's marker, and no other is.
TEST(Specification, ListsTheFieldsOfEveryTableInTheirOrder) {
  const std::string text = readme();
  std::size_t tables = 0;
  for (const char* const name : {"common", "store", "step", "item", "leaf", "portable"}) {
    const std::string path = std::string(STEPSTONE_FORMAT_DIR "/schema/") + name + ".fbs";
    for (const auto& [table, fields] : tables_of(test::read_file(path))) {
      const std::size_t at = text.find("<!-- fields: " + table + " -->");
      ASSERT_NE(at, std::string::npos) << table;
      EXPECT_FALSE(fields.empty()) << table;
      EXPECT_EQ(fields_in_rows(text, at), fields) << table;
      ++tables;
    }
  }
  EXPECT_EQ(tables, 16U);
}

}  // namespace
}  // namespace stepstone
