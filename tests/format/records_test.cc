#include "format/records.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "format/leaf_path.h"
#include "format/limits.h"
#include "support.h"

namespace stepstone {
namespace {

using test::Random;

Hash128 random_hash(Random& random) { return {random.bits(), random.bits()}; }

// Any width is as likely as any other.
std::uint64_t random_number(Random& random) { return random.bits() >> random.below(64); }

std::string random_json(Random& random) {
  return random.one_in(2) ? std::string()
                          : "{\"loss\": " + std::to_string(random.below(1000)) + "}";
}

StoreRecord random_store(Random& random) {
  return {.store_id = random_hash(random),
          .created_unix_ns = static_cast<std::int64_t>(random.bits()),
          .sequence = random_number(random),
          .step_count = random_number(random),
          .steps_digest = random_hash(random),
          .newest_step = random_number(random) & limits::kStepMax,
          .newest_step_hash = random_hash(random),
          .next_generation = static_cast<std::uint32_t>(random_number(random)),
          .custom_metadata = random_json(random),
          .preservation_policy = random_json(random)};
}

StepRecord random_step(Random& random) {
  StepRecord record;
  record.save = {random_number(random) & limits::kStepMax,
                 static_cast<std::uint32_t>(random_number(random))};
  record.sequence = random_number(random);
  record.previous_hash = random.one_in(4) ? Hash128{} : random_hash(random);
  record.started_unix_ns = static_cast<std::int64_t>(random.bits());
  record.committed_unix_ns = static_cast<std::int64_t>(random.bits());
  record.size_bytes = random_number(random);
  record.placement = random.one_in(3) ? Placement::kSmall : Placement::kSegments;
  if (record.placement == Placement::kSegments) {
    for (std::uint64_t count = random.below(5); count > 0; --count) {
      const std::uint64_t size = random_number(random);
      record.segments.push_back({size, size - random.below(size / 2 + 1), random_hash(random)});
    }
  }
  for (std::uint64_t count = 1 + random.below(4); count > 0; --count) {
    record.items.push_back(
        {random.name(), random.name(), random_number(random), random_number(random)});
  }
  const auto by_name = [](const ItemSummary& a, const ItemSummary& b) { return a.name < b.name; };
  const auto same_name = [](const ItemSummary& a, const ItemSummary& b) {
    return a.name == b.name;
  };
  std::sort(record.items.begin(), record.items.end(), by_name);
  record.items.erase(std::unique(record.items.begin(), record.items.end(), same_name),
                     record.items.end());
  record.metrics = random_json(random);
  record.custom_metadata = random_json(random);
  record.store_metadata = random_json(random);
  std::set<SaveId> origins;
  for (std::uint64_t count = random.below(4); count > 0; --count) {
    origins.insert({random_number(random) & limits::kStepMax,
                    static_cast<std::uint32_t>(random_number(random))});
  }
  origins.erase(record.save);
  record.origin_saves.assign(origins.begin(), origins.end());
  return record;
}

ItemRecord random_item(Random& random) {
  ItemRecord record;
  record.handler = random.name();
  record.size_bytes = random_number(random);
  record.custom_metadata = random_json(random);
  if (random.one_in(5)) {
    record.structure = leaf_structure();
    record.leaf_count = 1;
    return record;
  }
  // A dict or a custom node of leaves and of empty tuples.
  TreeStructure& structure = record.structure;
  const bool is_custom = random.one_in(2);
  structure.kinds.push_back(is_custom ? NodeKind::kCustom : NodeKind::kDict);
  if (is_custom) {
    structure.type_names.push_back(random.name());
    structure.type_indices.push_back(0);
  }
  std::vector<std::string> names;
  for (std::uint64_t count = random.below(20); count > 0; --count) names.push_back(random.name());
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  structure.child_counts.push_back(static_cast<std::uint32_t>(names.size()));
  for (const std::string& name : names) {
    append_component(structure.labels, PathComponent::key(name));
    const bool is_leaf = !random.one_in(4);
    structure.kinds.push_back(is_leaf ? NodeKind::kLeaf : NodeKind::kTuple);
    if (is_leaf) {
      ++record.leaf_count;
    } else {
      structure.child_counts.push_back(0);
    }
  }
  return record;
}

LeafRecord random_leaf(Random& random) {
  LeafRecord record;
  record.kind = static_cast<LeafKind>(random.one_in(2) ? 1 : 1 + random.below(9));
  switch (record.kind) {
    case LeafKind::kArray:
      record.dtype = dtype_from_number(static_cast<std::uint8_t>(1 + random.below(28)));
      do {
        record.shape.resize(random.below(6));
        for (std::uint64_t& extent : record.shape) extent = random.below(1 << random.below(8));
      } while (!array_size_bytes(*record.dtype, record.shape));
      record.size_bytes = *array_size_bytes(*record.dtype, record.shape);
      break;
    case LeafKind::kNone:
      break;
    case LeafKind::kBool:
      record.size_bytes = 1;
      break;
    case LeafKind::kInt64:
    case LeafKind::kFloat64:
      record.size_bytes = 8;
      break;
    case LeafKind::kComplex128:
      record.size_bytes = 16;
      break;
    default:
      record.size_bytes = random.bits() >> (44 + random.below(20));
      break;
  }
  record.chunk_size_bytes = limits::kChunkSizeBytesMin << random.below(13);
  while (record.size_bytes / record.chunk_size_bytes > 200 &&
         record.chunk_size_bytes < limits::kChunkSizeBytesMax) {
    record.chunk_size_bytes *= 2;
  }
  const std::uint64_t chunk_count =
      (record.size_bytes + record.chunk_size_bytes - 1) / record.chunk_size_bytes;
  for (std::uint64_t i = 0; i < chunk_count; ++i) record.hashes.push_back(random_hash(random));
  if (chunk_count <= 1 && record.size_bytes <= limits::kInlineSizeBytesMax && random.one_in(2)) {
    const std::string bytes = random.bytes(record.size_bytes);
    const auto view = test::as_bytes(bytes);
    record.inline_bytes.emplace(view.begin(), view.end());
    return record;
  }
  if (random.one_in(2)) {
    for (std::size_t i = 0; i < chunk_count; ++i) {
      record.codecs.push_back(static_cast<Codec>(random.below(4)));
    }
  }
  for (std::uint64_t count = random.below(3); count > 0; --count) {
    record.sources.push_back(
        {random.bytes(random.below(9)),
         encode_path({PathComponent::key(random.bytes(random.below(9)))}).value()});
  }
  for (std::uint64_t chunk = random.below(3); chunk < chunk_count; chunk += random.below(3)) {
    const std::uint64_t count = 1 + random.below(chunk_count - chunk);
    record.origins.push_back(
        {static_cast<std::uint32_t>(chunk),
         static_cast<std::uint32_t>(count),
         {random_number(random) & limits::kStepMax, static_cast<std::uint32_t>(random.bits())},
         static_cast<std::uint32_t>(random.below(record.sources.size() + 1))});
    chunk += count;
  }
  if (random.one_in(2)) {
    for (std::uint32_t chunk = 0; chunk < chunk_count; ++chunk) {
      record.stored_sizes.push_back(static_cast<std::uint32_t>(record.chunk_size_at(chunk)));
    }
  }
  for (std::uint32_t chunk = 0; chunk < chunk_count; ++chunk) {
    if (record.codec_at(chunk) != Codec::kDelta) continue;
    record.bases.push_back(
        {.chunk = chunk,
         .save = {random_number(random) & limits::kStepMax,
                  static_cast<std::uint32_t>(random.bits())},
         .source = static_cast<std::uint32_t>(random.below(record.sources.size() + 1)),
         .codec = static_cast<Codec>(random.below(3)),
         .stored_size = static_cast<std::uint32_t>(record.chunk_size_at(chunk)),
         .hash = random_hash(random)});
  }
  for (std::uint64_t chunk = random.below(3); chunk < chunk_count; chunk += 1 + random.below(9)) {
    record.extents.push_back({static_cast<std::uint32_t>(chunk),
                              static_cast<std::uint32_t>(random.below(limits::kSegmentsPerStepMax)),
                              random.bits()});
  }
  if (chunk_count > 0 && random.one_in(2)) {
    record.alignment_bytes = std::uint32_t{1} << random.below(13);
  }
  return record;
}

// The four kinds of record behind one face. Each knows how one kind is made, keyed and read.
struct StoreCodec {
  using Record = StoreRecord;
  static Record random(Random& random) { return random_store(random); }
  static std::string key(const Record&) { return store_record_key(); }
  static Result<Record> decode(std::string_view bytes, std::string_view key) {
    return decode_store_record(bytes, key);
  }
};
struct StepCodec {
  using Record = StepRecord;
  static Record random(Random& random) { return random_step(random); }
  static std::string key(const Record& record) {
    return record.sequence % 2 == 0 ? step_record_key(record.save.step)
                                    : step_copy_key(record.save);
  }
  static Result<Record> decode(std::string_view bytes, std::string_view key) {
    return decode_step_record(bytes, key);
  }
};
struct ItemCodec {
  using Record = ItemRecord;
  static Record random(Random& random) { return random_item(random); }
  static std::string key(const Record& record) { return item_key({7, 1}, record.handler); }
  static Result<Record> decode(std::string_view bytes, std::string_view key) {
    return decode_item_record(bytes, key);
  }
};
struct LeafCodec {
  using Record = LeafRecord;
  static Record random(Random& random) { return random_leaf(random); }
  static std::string key(const Record&) {
    return leaf_key({7, 1}, "state", encode_path({PathComponent::key("w")}).value());
  }
  static Result<Record> decode(std::string_view bytes, std::string_view key) {
    return decode_leaf_record(bytes, key);
  }
};

template <typename RecordCodec>
class Records : public testing::Test {};
using Codecs = testing::Types<StoreCodec, StepCodec, ItemCodec, LeafCodec>;
TYPED_TEST_SUITE(Records, Codecs);

// A record that encodes to few bytes, so that everything can be tried on it.
template <typename RecordCodec>
std::pair<std::string, std::string> small_record_and_key() {
  for (std::uint64_t seed = 1;; ++seed) {
    Random random(seed);
    const auto record = RecordCodec::random(random);
    const std::string key = RecordCodec::key(record);
    std::string bytes = encode(record, key).value();
    if (bytes.size() > 150 && bytes.size() < 500) return {std::move(bytes), key};
  }
}

TYPED_TEST(Records, ComeBackAsTheyWere) {
  for (const std::uint64_t seed : test::seeds(300)) {
    SCOPED_TRACE(test::trace(seed));
    Random random(seed);
    const auto record = TypeParam::random(random);
    const std::string key = TypeParam::key(record);
    const auto bytes = encode(record, key);
    ASSERT_TRUE(bytes.has_value()) << bytes.error().message;
    const auto decoded = TypeParam::decode(*bytes, key);
    ASSERT_TRUE(decoded.has_value()) << decoded.error().message;
    EXPECT_EQ(*decoded, record);
    EXPECT_EQ(encode(*decoded, key), *bytes);
    EXPECT_EQ(record_hash(*bytes),
              hash128(test::as_bytes(*bytes).first(bytes->size() - sizeof(Hash128))));
  }
}

TYPED_TEST(Records, CanBeReadAtAnyAddress) {
  const auto [bytes, key] = small_record_and_key<TypeParam>();
  const auto expected = TypeParam::decode(bytes, key);
  ASSERT_TRUE(expected.has_value());
  for (std::size_t shift = 1; shift < 16; ++shift) {
    const std::string shifted = std::string(shift, 'x') + bytes;
    EXPECT_EQ(TypeParam::decode(std::string_view(shifted).substr(shift), key), *expected) << shift;
  }
}

TYPED_TEST(Records, EveryFlippedBitIsRefused) {
  const auto [bytes, key] = small_record_and_key<TypeParam>();
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    const auto decoded = TypeParam::decode(flipped, key);
    ASSERT_FALSE(decoded.has_value()) << "bit " << bit;
    ASSERT_EQ(decoded.error().code, ErrorCode::kCorrupt) << "bit " << bit;
  }
}

TYPED_TEST(Records, CutOffOrLengthenedAreRefused) {
  const auto [bytes, key] = small_record_and_key<TypeParam>();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const auto decoded = TypeParam::decode(bytes.substr(0, size), key);
    ASSERT_FALSE(decoded.has_value()) << size;
    ASSERT_EQ(decoded.error().code, ErrorCode::kCorrupt) << size;
    ASSERT_FALSE(TypeParam::decode(bytes.substr(bytes.size() - size), key).has_value()) << size;
  }
  EXPECT_FALSE(TypeParam::decode(bytes + '\0', key).has_value());
  EXPECT_FALSE(TypeParam::decode('\0' + bytes, key).has_value());
}

// The hash fits in all of these: what is refused is the flatbuffer.
TYPED_TEST(Records, CutOffAndSealedAgainAreRefused) {
  const auto [bytes, key] = small_record_and_key<TypeParam>();
  const std::string buffer = bytes.substr(0, bytes.size() - sizeof(Hash128));
  for (std::size_t size = 0; size < buffer.size(); ++size) {
    const auto decoded = TypeParam::decode(test::seal(buffer.substr(0, size)), key);
    if (decoded) {
      // Nothing but padding can have been missing.
      ASSERT_EQ(*decoded, *TypeParam::decode(bytes, key)) << size;
      ASSERT_GT(size + 8, buffer.size());
    }
  }
}

TYPED_TEST(Records, UnderAnotherKeyAreRefused) {
  const auto [bytes, key] = small_record_and_key<TypeParam>();
  ASSERT_TRUE(TypeParam::decode(bytes, key).has_value());
  std::vector<std::string> others = {"", key + '\0', key.substr(0, key.size() - 1), "x" + key};
  for (std::size_t i = 0; i < key.size(); ++i) {
    others.push_back(key);
    others.back()[i] = static_cast<char>(others.back()[i] ^ 1);
  }
  for (const std::string& other : others) {
    const auto decoded = TypeParam::decode(bytes, other);
    ASSERT_FALSE(decoded.has_value()) << test::to_hex(other);
    EXPECT_EQ(decoded.error().code, ErrorCode::kCorrupt);
  }
}

template <typename Made, typename Read>
void expect_refused_as() {
  const auto [bytes, key] = small_record_and_key<Made>();
  const auto decoded = Read::decode(bytes, key);
  EXPECT_EQ(decoded.has_value(), (std::is_same_v<Made, Read>));
  EXPECT_TRUE(decoded.has_value() || decoded.error().code == ErrorCode::kCorrupt);
}

TYPED_TEST(Records, OfAnotherKindAreRefused) {
  expect_refused_as<TypeParam, StoreCodec>();
  expect_refused_as<TypeParam, StepCodec>();
  expect_refused_as<TypeParam, ItemCodec>();
  expect_refused_as<TypeParam, LeafCodec>();
}

// Bytes that nobody wrote under a hash that fits: the verifier and the checks of meaning are alone.
TYPED_TEST(Records, MutatedAndSealedAgainNeverCrash) {
  int accepted = 0;
  int refused = 0;
  for (const std::uint64_t seed : test::seeds(3000)) {
    SCOPED_TRACE(test::trace(seed));
    Random random(seed);
    const auto record = TypeParam::random(random);
    const std::string key = TypeParam::key(record);
    std::string buffer = encode(record, key).value();
    if (buffer.size() > 20000) continue;
    buffer.resize(buffer.size() - sizeof(Hash128));
    const auto decoded = TypeParam::decode(test::seal(random.mutated(buffer)), key);
    ++(decoded ? accepted : refused);
    if (!decoded) {
      ASSERT_TRUE(decoded.error().code == ErrorCode::kCorrupt ||
                  decoded.error().code == ErrorCode::kUnsupported)
          << decoded.error().message;
      continue;
    }
    // What was accepted is a value that can be written.
    const auto encoded_again = encode(*decoded, key);
    ASSERT_TRUE(encoded_again.has_value()) << encoded_again.error().message;
    ASSERT_EQ(TypeParam::decode(*encoded_again, key), *decoded);
  }
  if (test::tries_one_seed()) return;
  EXPECT_GT(accepted, 10);
  EXPECT_GT(refused, 100);
}

TYPED_TEST(Records, RandomBytesAreRefused) {
  for (const std::uint64_t seed : test::seeds(300)) {
    SCOPED_TRACE(test::trace(seed));
    Random random(seed);
    const std::string bytes = random.bytes(random.below(200));
    ASSERT_FALSE(TypeParam::decode(bytes, "key").has_value());
    ASSERT_FALSE(TypeParam::decode(test::seal(bytes), "key").has_value());
  }
}

TEST(Encoding, ASmallLeafHasFewBytes) {
  // Ten thousand leaves of a few bytes are a common tree; their records must not dwarf them.
  LeafRecord record;
  record.kind = LeafKind::kInt64;
  record.size_bytes = 8;
  record.chunk_size_bytes = std::uint32_t{256} << 10;
  record.hashes = {Hash128{1, 2}};
  record.inline_bytes.emplace(8);
  EXPECT_LT(encode(record, LeafCodec::key(record))->size(), 250U);
}

TEST(Encoding, AValueThatCouldNotBeReadIsNotWritten) {
  const auto code = [](const auto& result) {
    return result ? std::nullopt : std::optional(result.error().code);
  };
  LeafRecord leaf;
  leaf.dtype = DType::kFloat32;
  leaf.shape = {3};
  leaf.size_bytes = 12;
  leaf.chunk_size_bytes = 4096;
  leaf.hashes.resize(1);
  ASSERT_EQ(code(encode(leaf, "k")), std::nullopt);
  LeafRecord wrong = leaf;
  wrong.size_bytes = 11;
  EXPECT_EQ(code(encode(wrong, "k")), ErrorCode::kInvalidArgument);
  wrong = leaf;
  wrong.dtype.reset();
  EXPECT_EQ(code(encode(wrong, "k")), ErrorCode::kInvalidArgument);
  wrong = leaf;
  wrong.hashes.clear();
  EXPECT_EQ(code(encode(wrong, "k")), ErrorCode::kInvalidArgument);
  wrong = leaf;
  wrong.chunk_size_bytes = limits::kChunkSizeBytesMin - 1;
  EXPECT_EQ(code(encode(wrong, "k")), ErrorCode::kLimit);
  wrong = leaf;
  wrong.shape.assign(33, 1);
  EXPECT_EQ(code(encode(wrong, "k")), ErrorCode::kLimit);

  StepRecord step;
  step.save = {1000, 7};
  step.items = {{"state", "standard", 1, 12}};
  const std::string key = step_record_key(1000);
  ASSERT_EQ(code(encode(step, key)), std::nullopt);
  EXPECT_EQ(code(encode(step, step_record_key(1001))), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(encode(step, step_copy_key({1000, 8}))), ErrorCode::kInvalidArgument);
  StepRecord no_items = step;
  no_items.items.clear();
  EXPECT_EQ(code(encode(no_items, key)), ErrorCode::kLimit);
  StepRecord twice = step;
  twice.items.push_back(twice.items.front());
  EXPECT_EQ(code(encode(twice, key)), ErrorCode::kInvalidArgument);
  StepRecord long_name = step;
  long_name.items[0].name.assign(limits::kNameSizeBytesMax + 1, 'a');
  EXPECT_EQ(code(encode(long_name, key)), ErrorCode::kLimit);
  StepRecord metadata = step;
  metadata.metrics.assign(limits::kMetadataSizeBytesMax + 1, ' ');
  EXPECT_EQ(code(encode(metadata, key)), ErrorCode::kLimit);

  ItemRecord item;
  item.structure = leaf_structure();
  item.leaf_count = 1;
  ASSERT_EQ(code(encode(item, "k")), std::nullopt);
  item.leaf_count = 2;
  EXPECT_EQ(code(encode(item, "k")), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(encode(StoreRecord{.newest_step = limits::kStepMax + 1}, "k")),
            ErrorCode::kInvalidArgument);
}

TEST(Encoding, TheMostItemsAndSegmentsFit) {
  StepRecord record;
  record.save = {5, 1};
  for (std::size_t i = 0; i < limits::kItemsPerStepMax; ++i) {
    record.items.push_back({std::to_string(10000 + i), "standard", 1, 1});
  }
  record.segments.resize(limits::kSegmentsPerStepMax);
  const std::string key = step_record_key(5);
  const auto bytes = encode(record, key);
  ASSERT_TRUE(bytes.has_value()) << bytes.error().message;
  EXPECT_EQ(decode_step_record(*bytes, key), record);
  record.items.push_back({"z", "standard", 1, 1});
  EXPECT_EQ(encode(record, key).error().code, ErrorCode::kLimit);
  record.items.pop_back();
  record.segments.emplace_back();
  EXPECT_FALSE(encode(record, key).has_value());
}

TEST(Encoding, ChunksHaveTheirSizeButForTheLast) {
  LeafRecord record;
  record.kind = LeafKind::kBytes;
  record.size_bytes = 2 * 4096 + 5;
  record.chunk_size_bytes = 4096;
  record.hashes.resize(3);
  EXPECT_EQ(record.chunk_count(), 3U);
  EXPECT_EQ(record.chunk_size_at(0), 4096U);
  EXPECT_EQ(record.chunk_size_at(1), 4096U);
  EXPECT_EQ(record.chunk_size_at(2), 5U);
  record.size_bytes = 2 * 4096;
  record.hashes.resize(2);
  EXPECT_EQ(record.chunk_size_at(1), 4096U);
}

}  // namespace
}  // namespace stepstone
