// The bytes of format version 1, as they were when it was fixed. What is read must be read for
// ever; what is written today must still be this.
//
// A new version gets a folder of its own: when the format has changed, run this once with
// STEPSTONE_WRITE_GOLDEN=tests/golden/vN. It writes only files that are not there yet.
#include <flatbuffers/flatbuffers.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "format/chunk_codec.h"
#include "portable_support.h"
#include "samples.h"

namespace stepstone {
namespace {

struct Golden {
  const char* file;
  std::string bytes;  // As encoded today.
};

// Thirty-two bytes a line.
std::string hex_lines(std::string_view bytes) {
  std::string text;
  for (std::size_t at = 0; at < bytes.size(); at += 32) {
    text += test::to_hex(bytes.substr(at, 32)) + "\n";
  }
  return text;
}

std::string golden_bytes(const char* file) {
  return test::from_hex(test::read_file(std::string(STEPSTONE_GOLDEN_DIR "/") + file));
}

std::vector<Golden> records() {
  const StepRecord step = test::sample_step_record();
  return {
      {"store_record.hex", encode(test::sample_store_record(), store_record_key()).value()},
      {"step_record.hex", encode(step, step_record_key(step.save.step)).value()},
      {"item_record.hex",
       encode(test::sample_item_record(), item_key(test::kSampleSave, "state")).value()},
      {"leaf_record_inline.hex",
       encode(test::sample_inline_leaf_record(), test::sample_leaf_key()).value()},
      {"leaf_record_chunked.hex",
       encode(test::sample_chunked_leaf_record(), test::sample_leaf_key()).value()},
      {"leaf_record_shared.hex",
       encode(test::sample_shared_leaf_record(), test::sample_leaf_key()).value()},
      {"leaf_record_delta.hex",
       encode(test::sample_delta_leaf_record(), test::sample_leaf_key()).value()},
      {"leaf_record_aligned.hex",
       encode(test::sample_aligned_leaf_record(), test::sample_leaf_key()).value()},
      {"step_record_shared.hex",
       encode(test::sample_shared_step_record(), step_record_key(step.save.step)).value()},
  };
}

// Every kind of component and of key, with the bytes that need escapes.
std::vector<Golden> keys_and_head() {
  const SaveId save = test::kSampleSave;
  const std::string item("a\0b\x01\xff", 5);
  const std::string path =
      encode_path({PathComponent::key(""), PathComponent::key(std::int64_t{-1}),
                   PathComponent::index(258), PathComponent::attribute(std::string("\0\0/", 3))})
          .value();
  return {
      {"key_store_record.hex", store_record_key()},
      {"key_step_record.hex", step_record_key(save.step)},
      {"key_step_copy.hex", step_copy_key(save)},
      {"key_item.hex", item_key(save, item)},
      {"key_leaf.hex", leaf_key(save, item, path)},
      {"key_chunk.hex", chunk_key(save, item, path, 0x01020304)},
      {"head_slot.hex", test::as_string(encode_head_slot(test::sample_head()))},
  };
}

// Encoded by whichever zstd is there: releases of it compress differently, and read one another.
std::vector<Golden> chunks() {
  ChunkEncoder encoder;
  const auto encode_float32 = [&](const std::string& chunk) {
    return test::as_string(
        encoder.encode(test::as_bytes(chunk), element_layout(DType::kFloat32)).bytes);
  };
  return {{"chunk_constant.hex", encode_float32(test::sample_constant_chunk())},
          {"chunk_planes.hex", encode_float32(test::sample_float_chunk())},
          {"chunk_delta.hex",
           test::as_string(encoder
                               .encode_delta(test::as_bytes(test::sample_moved_chunk()),
                                             test::as_bytes(test::sample_float_chunk()),
                                             element_layout(DType::kFloat32))
                               .bytes)}};
}

// Not compressed, because releases of zstd compress differently.
std::vector<Golden> portable_files() {
  return {{"portable_one_step.hex",
           test::written(test::sample_portable_steps(), {}, test::Hashes::kUnknown)},
          {"portable_two_steps.hex",
           test::written(test::sample_shared_steps(), {}, test::Hashes::kKnown)}};
}

TEST(Golden, PortableFilesAreWrittenAsTheyWere) {
  if (FLATBUFFERS_VERSION_MAJOR != 2) GTEST_SKIP() << test::kOtherFlatbuffers;
  for (const Golden& golden : portable_files()) {
    EXPECT_EQ(hex_lines(golden.bytes), hex_lines(golden_bytes(golden.file))) << golden.file;
  }
}

TEST(Golden, PortableFilesAreReadAsTheyWere) {
  const std::pair<const char*, std::vector<test::SampleStep>> files[] = {
      {"portable_one_step.hex", test::sample_portable_steps()},
      {"portable_two_steps.hex", test::sample_shared_steps()}};
  for (const auto& [name, steps] : files) {
    const std::string bytes = golden_bytes(name);
    const auto file = test::open_file(bytes, true);
    ASSERT_TRUE(file.has_value()) << name << ": " << file.error().message;
    const auto verified = file->verify();
    EXPECT_TRUE(verified.has_value()) << name << ": " << verified.error().message;
    ASSERT_EQ(file->step_count(), steps.size());
    for (const test::SampleStep& step : steps) {
      for (const test::SampleItem& item : step.items) {
        for (const test::SampleLeaf& sample : item.leaves) {
          const auto leaf = file->leaf(step.info.step, item.info.name, sample.info.encoded_path);
          ASSERT_TRUE(leaf.has_value()) << name << ": " << leaf.error().message;
          std::string content(sample.bytes.size(), '\0');
          ChunkDecoder decoder;
          ASSERT_TRUE(file->read(*leaf, 0, std::as_writable_bytes(std::span(content)), decoder)
                          .has_value());
          EXPECT_TRUE(content == sample.bytes) << name;
        }
      }
    }
  }
}

TEST(Golden, DeltasAreReadAsTheyWere) {
  std::string decoded(test::sample_float_chunk().size(), '\0');
  const auto result = ChunkDecoder().decode_delta(test::as_bytes(golden_bytes("chunk_delta.hex")),
                                                  test::as_bytes(test::sample_float_chunk()),
                                                  std::as_writable_bytes(std::span(decoded)));
  ASSERT_TRUE(result.has_value()) << result.error().message;
  EXPECT_TRUE(decoded == test::sample_moved_chunk());
}

TEST(Golden, ChunksAreReadAsTheyWere) {
  struct Sample {
    const char* file;
    Codec codec;
    std::string chunk;
  };
  const Sample samples[] = {{"chunk_constant.hex", Codec::kConstant, test::sample_constant_chunk()},
                            {"chunk_planes.hex", Codec::kPlanes, test::sample_float_chunk()}};
  ChunkDecoder decoder;
  for (const Sample& sample : samples) {
    std::string decoded(sample.chunk.size(), '\0');
    const auto result = decoder.decode(sample.codec, test::as_bytes(golden_bytes(sample.file)),
                                       std::as_writable_bytes(std::span(decoded)));
    ASSERT_TRUE(result.has_value()) << sample.file << ": " << result.error().message;
    EXPECT_TRUE(decoded == sample.chunk) << sample.file;
  }
}

TEST(Golden, KeysAndHeadAreWrittenAsTheyWere) {
  for (const Golden& golden : keys_and_head()) {
    EXPECT_EQ(hex_lines(golden.bytes), hex_lines(golden_bytes(golden.file))) << golden.file;
  }
}

TEST(Golden, RecordsAreWrittenAsTheyWere) {
  if (FLATBUFFERS_VERSION_MAJOR != 2) GTEST_SKIP() << test::kOtherFlatbuffers;
  for (const Golden& golden : records()) {
    EXPECT_EQ(hex_lines(golden.bytes), hex_lines(golden_bytes(golden.file))) << golden.file;
  }
}

TEST(Golden, RecordsAreReadAsTheyWere) {
  EXPECT_EQ(decode_store_record(golden_bytes("store_record.hex"), store_record_key()),
            test::sample_store_record());
  EXPECT_EQ(decode_step_record(golden_bytes("step_record.hex"), step_record_key(1000)),
            test::sample_step_record());
  EXPECT_EQ(
      decode_item_record(golden_bytes("item_record.hex"), item_key(test::kSampleSave, "state")),
      test::sample_item_record());
  EXPECT_EQ(decode_leaf_record(golden_bytes("leaf_record_inline.hex"), test::sample_leaf_key()),
            test::sample_inline_leaf_record());
  EXPECT_EQ(decode_leaf_record(golden_bytes("leaf_record_chunked.hex"), test::sample_leaf_key()),
            test::sample_chunked_leaf_record());
  EXPECT_EQ(decode_leaf_record(golden_bytes("leaf_record_shared.hex"), test::sample_leaf_key()),
            test::sample_shared_leaf_record());
  EXPECT_EQ(decode_leaf_record(golden_bytes("leaf_record_delta.hex"), test::sample_leaf_key()),
            test::sample_delta_leaf_record());
  EXPECT_EQ(decode_leaf_record(golden_bytes("leaf_record_aligned.hex"), test::sample_leaf_key()),
            test::sample_aligned_leaf_record());
  EXPECT_EQ(decode_step_record(golden_bytes("step_record_shared.hex"), step_record_key(1000)),
            test::sample_shared_step_record());
}

TEST(Golden, KeysAndHeadAreReadAsTheyWere) {
  const auto chunk = decode_key(golden_bytes("key_chunk.hex"));
  ASSERT_TRUE(chunk.has_value()) << chunk.error().message;
  EXPECT_EQ(chunk->save, test::kSampleSave);
  EXPECT_EQ(chunk->region, Region::kChunk);
  EXPECT_EQ(chunk->item, std::string("a\0b\x01\xff", 5));
  EXPECT_EQ(to_text(std::string_view(chunk->encoded_path)), "\\e/{-1}[258]/.\\x00\\x00\\/");
  EXPECT_EQ(chunk->chunk, 0x01020304U);
  EXPECT_EQ(decode_head(test::as_bytes(golden_bytes("head_slot.hex"))), test::sample_head());
}

// False, and nothing more written, as soon as a file is there already.
bool write_golden(const std::filesystem::path& folder) {
  for (const std::vector<Golden>& goldens :
       {records(), keys_and_head(), chunks(), portable_files()}) {
    for (const Golden& golden : goldens) {
      const std::filesystem::path path = folder / golden.file;
      if (std::filesystem::exists(path)) return false;
      std::ofstream file(path, std::ios::binary);
      file << hex_lines(golden.bytes);
      if (!file.flush().good()) return false;
    }
  }
  return true;
}

TEST(Golden, FilesAreWrittenOnceAndNeverAgain) {
  EXPECT_FALSE(write_golden(STEPSTONE_GOLDEN_DIR));
  if (const char* const folder = std::getenv("STEPSTONE_WRITE_GOLDEN")) {
    std::filesystem::create_directories(folder);
    EXPECT_TRUE(write_golden(folder)) << folder;
  }
}

}  // namespace
}  // namespace stepstone
