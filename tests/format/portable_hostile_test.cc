// Portable files that no writer of ours makes. Whatever a file holds, it is read or refused with an
// error, in memory that its size bounds; and no byte of a file can change without notice.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "format/keys.h"
#include "format/leaf_path.h"
#include "portable_attacks.h"
#include "portable_support.h"

namespace stepstone {
namespace {

using portable::Tree;
using test::Hashes;
using test::PortableParts;

// Decoding takes a small multiple of what is there, and a chunk or two.
constexpr std::uint64_t kMemoryPerByte = 64;
constexpr std::uint64_t kMemoryBytes = std::uint64_t{64} << 20;

// Opens, reads and verifies; the first error. Memory is measured over all of it.
Result<void> use(const std::string& bytes, bool is_mapped) {
  const PortableFile file = STEPSTONE_TRY(test::open_file(bytes, is_mapped));
  const Result<void> verified = file.verify();
  const Result<void> read = test::read_everything(file);
  // What verification lets pass can be read.
  if (verified && !read) ADD_FAILURE() << "not seen by verify: " << read.error().message;
  return verified;
}

Result<void> use_in_bounds(const std::string& bytes, bool is_mapped) {
  const std::uint64_t before = test::allocated_bytes();
  Result<void> result = use(bytes, is_mapped);
  EXPECT_LT(test::allocated_bytes() - before, kMemoryBytes + kMemoryPerByte * bytes.size());
  return result;
}

TEST(HostilePortableFile, TheFileThatTheAttacksStartFromIsWhole) {
  for (const bool is_mapped : {true, false}) {
    const auto result = use_in_bounds(PortableParts().build(), is_mapped);
    EXPECT_TRUE(result.has_value()) << result.error().message;
  }
}

TEST(HostilePortableFile, EachAttackIsRefused) {
  EXPECT_GE(test::attacks().size(), 100U);
  for (const test::Attack& attack : test::attacks()) {
    SCOPED_TRACE(attack.name);
    PortableParts parts;
    attack.change(&parts);
    const std::string bytes = parts.build();
    for (const bool is_mapped : {true, false}) {
      const auto result = use_in_bounds(bytes, is_mapped);
      ASSERT_FALSE(result.has_value());
      EXPECT_EQ(result.error().code, attack.expected) << result.error().message;
      EXPECT_THAT(result.error().message, ::testing::HasSubstr(attack.message));
    }
  }
}

TEST(HostilePortableFile, AHugeArrayOfZerosIsReadInLittleMemory) {
  // Truthful, and eight thousand times larger than its file: who reads it decides about memory.
  const std::string pattern(8, '\0');
  PortableParts parts;
  parts.data = std::string(128, 'd') + pattern;
  const std::size_t chunk_size = std::size_t{1} << 24;
  const std::string zeros(chunk_size, '\0');
  parts.b.shape = {std::uint64_t{1} << 22};
  parts.b.size_bytes = chunk_size;
  parts.b.chunk_size_bytes = static_cast<std::uint32_t>(chunk_size);
  parts.b.hashes = {hash128(test::as_bytes(zeros))};
  parts.b.codecs = {Codec::kConstant};
  parts.b.stored_sizes = {8};
  parts.b.extents = {{0, 0, 192}};
  const std::string bytes = parts.build();
  const std::uint64_t before = test::allocated_bytes();
  const auto file = test::open_file(bytes, true).value();
  const auto leaf = file.leaf(5, "state", encode_path({PathComponent::key("b")}).value()).value();
  EXPECT_EQ(leaf.record().size_bytes, chunk_size);
  EXPECT_LT(test::allocated_bytes() - before, std::uint64_t{1} << 20);
}

TEST(HostilePortableFile, NoBitOfAFileChangesWithoutNotice) {
  const std::string whole = test::written(test::sample_portable_steps(), {}, Hashes::kUnknown);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << (at * 5 % 8)));
    ASSERT_FALSE(use(bytes, at % 2 == 0).has_value()) << "byte " << at;
  }
}

TEST(HostilePortableFile, NoFileThatIsCutOffIsRead) {
  const std::string whole = test::written(test::sample_portable_steps(), {}, Hashes::kUnknown);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    ASSERT_FALSE(test::open_file(whole.substr(0, size), size % 2 == 0).has_value()) << size;
  }
}

TEST(HostilePortableFile, RandomChangesAreNoticed) {
  const std::string files[] = {
      test::written(test::sample_shared_steps(), {}, Hashes::kKnown),
      test::written(test::sample_shared_steps(), {.compress = true}, Hashes::kUnknown)};
  for (const std::uint64_t seed : test::seeds(600)) {
    SCOPED_TRACE(test::trace(seed));
    test::Random random(seed);
    const std::string& whole = files[seed % 2];
    const std::string bytes = random.mutated(whole);
    if (bytes == whole) continue;
    EXPECT_FALSE(use_in_bounds(bytes, random.one_in(2)).has_value());
    if (HasFailure()) return;
  }
}

// The hashes are no obstacle to a stranger: behind them everything is checked as well.
TEST(HostilePortableFile, RandomRecordsUnderHashesThatFitDoNoHarm) {
  int refused = 0;
  for (const std::uint64_t seed : test::seeds(3000)) {
    SCOPED_TRACE(test::trace(seed));
    test::Random random(seed);
    PortableParts parts;
    const auto damage = [&](std::string* bytes) { *bytes = random.mutated(*bytes); };
    const auto which = static_cast<int>(random.below(7));
    parts.change_record = [&](int record, std::string* bytes) {
      if (record == which) test::reseal(bytes, damage);
    };
    parts.change_page_bytes = [&](Tree tree, std::string* bytes) {
      if (static_cast<int>(tree) + 4 == which) test::reseal(bytes, damage);
    };
    refused += use_in_bounds(parts.build(), random.one_in(2)).has_value() ? 0 : 1;
    if (HasFailure()) return;
  }
  // Some changes mean nothing, such as those of padding inside a flatbuffer.
  if (!test::tries_one_seed()) {
    EXPECT_GT(refused, 2000);
  }
}

}  // namespace
}  // namespace stepstone
