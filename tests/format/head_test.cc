#include "format/head.h"

#include <gtest/gtest.h>

#include "format/records.h"
#include "support.h"

namespace stepstone {
namespace {

Head random_head(test::Random& random, std::uint64_t sequence) {
  const auto hash = [&] { return Hash128{random.bits(), random.bits()}; };
  return {.store_id = hash(),
          .sequence = sequence,
          .step_count = random.bits(),
          .steps_digest = hash(),
          .newest_step = random.bits(),
          .newest_step_hash = hash()};
}

std::string slot_bytes(const Head& head) { return test::as_string(encode_head_slot(head)); }

// Writes the slot where its commit writes it.
void put(std::string& file, const Head& head) {
  file.replace(head_slot_offset(head.sequence), kHeadSlotSizeBytes, slot_bytes(head));
}

Result<Head> decode(const std::string& file) { return decode_head(test::as_bytes(file)); }

// A slot with another format version and a hash that fits.
std::string slot_of_version(const Head& head, char version) {
  std::string slot = slot_bytes(head);
  slot[8] = version;
  return test::seal(slot.substr(0, kHeadSlotSizeBytes - sizeof(Hash128)));
}

TEST(Head, ComesBackFromEitherSlot) {
  for (const std::uint64_t seed : test::seeds(20)) {
    SCOPED_TRACE(test::trace(seed));
    test::Random random(seed);
    const Head head = random_head(random, random.bits());
    std::string file(kHeadFileSizeBytes, '\0');
    put(file, head);
    const auto decoded = decode(file);
    ASSERT_TRUE(decoded.has_value()) << decoded.error().message;
    EXPECT_EQ(*decoded, head);
  }
}

TEST(Head, CommitsTakeTheSlotsInTurn) {
  EXPECT_EQ(head_slot_offset(0), 0U);
  EXPECT_EQ(head_slot_offset(1), kHeadSlotStride);
  EXPECT_EQ(head_slot_offset(2), 0U);
  EXPECT_EQ(head_slot_offset(~std::uint64_t{0}), kHeadSlotStride);
  test::Random random(1);
  std::string file(kHeadFileSizeBytes, '\0');
  for (std::uint64_t sequence = 0; sequence < 10; ++sequence) {
    const Head head = random_head(random, sequence);
    put(file, head);
    EXPECT_EQ(decode(file), head) << sequence;
  }
}

TEST(Head, AFileThatHasOnlyTheFirstSlotIsEnough) {
  test::Random random(1);
  const Head head = random_head(random, 4);
  EXPECT_EQ(decode(slot_bytes(head)), head);
}

TEST(Head, EveryFlippedBitOfASlotIsNoticed) {
  test::Random random(1);
  const Head older = random_head(random, 6);
  const Head newer = random_head(random, 7);
  std::string file(kHeadFileSizeBytes, '\0');
  put(file, older);
  put(file, newer);
  ASSERT_EQ(decode(file), newer);
  for (std::size_t bit = 0; bit < 8 * kHeadSlotSizeBytes; ++bit) {
    const auto flip = [&](std::size_t offset) {
      std::string flipped = file;
      char& byte = flipped[offset + bit / 8];
      byte = static_cast<char>(byte ^ (1 << (bit % 8)));
      return flipped;
    };
    EXPECT_EQ(decode(flip(head_slot_offset(newer.sequence))), older) << bit;
    EXPECT_EQ(decode(flip(head_slot_offset(older.sequence))), newer) << bit;
  }
}

TEST(Head, ATornSlotLeavesTheOneBefore) {
  test::Random random(1);
  const Head older = random_head(random, 6);
  const Head overwritten = random_head(random, 5);
  const Head newer = random_head(random, 7);
  std::string before(kHeadFileSizeBytes, '\0');
  put(before, older);
  put(before, overwritten);
  const std::string slot = slot_bytes(newer);
  // Any number of the first bytes, or of the last, reached the disk.
  for (std::size_t written = 1; written < kHeadSlotSizeBytes; ++written) {
    std::string front = before;
    front.replace(kHeadSlotStride, written, slot.substr(0, written));
    EXPECT_EQ(decode(front), older) << written;
    std::string back = before;
    back.replace(kHeadSlotStride + kHeadSlotSizeBytes - written, written,
                 slot.substr(kHeadSlotSizeBytes - written));
    // The slots begin alike, so a few bytes may be missing and the slot be whole.
    const bool is_whole = back.substr(kHeadSlotStride, kHeadSlotSizeBytes) == slot;
    ASSERT_EQ(is_whole, written >= kHeadSlotSizeBytes - 16) << written;
    EXPECT_EQ(decode(back), is_whole ? newer : older) << written;
  }
}

TEST(Head, AFileCutOffAnywhereGivesAWholeSlotOrAnError) {
  test::Random random(1);
  const Head older = random_head(random, 6);
  std::string file(kHeadFileSizeBytes, '\0');
  put(file, older);
  put(file, random_head(random, 7));
  for (std::size_t size = 0; size < kHeadFileSizeBytes; ++size) {
    const auto decoded = decode(file.substr(0, size));
    if (size >= kHeadSlotSizeBytes) {
      ASSERT_EQ(decoded, older) << size;
    } else {
      ASSERT_EQ(decoded.error().code, ErrorCode::kCorrupt) << size;
    }
  }
}

TEST(Head, BothSlotsDamagedIsCorrupt) {
  test::Random random(1);
  std::string file(kHeadFileSizeBytes, '\0');
  EXPECT_EQ(decode(file).error().code, ErrorCode::kCorrupt);
  put(file, random_head(random, 6));
  put(file, random_head(random, 7));
  file[20] = static_cast<char>(file[20] ^ 1);
  file[kHeadSlotStride + 100] = static_cast<char>(file[kHeadSlotStride + 100] ^ 1);
  EXPECT_EQ(decode(file).error().code, ErrorCode::kCorrupt);
}

TEST(Head, ASlotInTheWrongPlaceIsDamage) {
  test::Random random(1);
  const Head older = random_head(random, 6);
  std::string file(kHeadFileSizeBytes, '\0');
  put(file, older);
  // A copy of an even slot where odd ones belong.
  file.replace(kHeadSlotStride, kHeadSlotSizeBytes, slot_bytes(random_head(random, 8)));
  EXPECT_EQ(decode(file), older);
  file[0] = 'x';
  EXPECT_EQ(decode(file).error().code, ErrorCode::kCorrupt);
}

TEST(Head, ANewerVersionIsUnsupportedWhicheverSlotItIsIn) {
  test::Random random(1);
  for (const std::uint64_t sequence : {6U, 7U}) {
    const Head head = random_head(random, sequence);
    std::string file(kHeadFileSizeBytes, '\0');
    put(file, random_head(random, sequence + 1));
    file.replace(head_slot_offset(sequence), kHeadSlotSizeBytes, slot_of_version(head, 2));
    const auto decoded = decode(file);
    ASSERT_FALSE(decoded.has_value());
    EXPECT_EQ(decoded.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(decoded.error().message.find("version 2"), std::string::npos)
        << decoded.error().message;
    // The same bytes with this version are fine: it was the version that was refused.
    file.replace(head_slot_offset(sequence), kHeadSlotSizeBytes,
                 slot_of_version(head, static_cast<char>(kFormatVersion)));
    EXPECT_TRUE(decode(file).has_value());
  }
}

TEST(Head, RandomAndMutatedFilesNeverCrash) {
  int accepted = 0;
  for (const std::uint64_t seed : test::seeds(200)) {
    SCOPED_TRACE(test::trace(seed));
    test::Random random(seed);
    std::string file(kHeadFileSizeBytes, '\0');
    const Head older = random_head(random, 2 * random.below(5));
    const Head newer = random_head(random, older.sequence + 1);
    put(file, older);
    put(file, newer);
    const auto decoded = decode(random.mutated(file));
    if (decoded) {
      ++accepted;
      EXPECT_TRUE(*decoded == older || *decoded == newer);
    }
    EXPECT_FALSE(decode(random.bytes(random.below(2 * kHeadSlotStride))).has_value());
  }
  EXPECT_TRUE(accepted > 0 || test::tries_one_seed());
}

}  // namespace
}  // namespace stepstone
