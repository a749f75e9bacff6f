// What a step has in common with the one before it, or two leaves with each other, is stored once.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "engine/step_reader.h"
#include "engine/store_impl.h"
#include "tests/support/engine_steps.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using stepstone::testing::content;
using stepstone::testing::flat_structure;
using stepstone::testing::leaf_path;
using stepstone::testing::Leaves;
using stepstone::testing::OwnedSource;
using stepstone::testing::put_leaves;
using stepstone::testing::read_leaves;

constexpr std::uint32_t kSharedChunk =
    4096;  // Small, so that leaves of many chunks are quickly written.

class SharingTest : public ::testing::Test {
 protected:
  void SetUp() override { open(); }

  void open() {
    store_.reset();
    auto store = Store::open(directory_.path() / "run", {.create_if_missing = true});
    ASSERT_TRUE(store) << store.error().message;
    store_ = *std::move(store);
  }

  // Fails the test, and returns nothing of use, when the save does.
  SaveCounters save(std::uint64_t step, const Leaves& leaves, SaveOptions options = {},
                    const std::vector<std::uint64_t>& retire = {}) {
    options.chunk_size_bytes = kSharedChunk;
    const auto writer = *store_->begin_save(step, options);
    EXPECT_TRUE(put_leaves(*writer, leaves));
    const auto record = writer->commit(retire);
    EXPECT_TRUE(record) << record.error().message;
    return writer->counters();
  }

  Leaves read(std::uint64_t step) const {
    const Result<Leaves> leaves = read_leaves(*store_, step);
    EXPECT_TRUE(leaves) << leaves.error().message;
    return leaves.value_or(Leaves());
  }
  LeafRecord record_of(std::uint64_t step, std::size_t leaf) const {
    return (*store_->read_step(step))->read_leaf("state", leaf_path(leaf))->record;
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Store> store_;
};

// Three leaves, 2.5 MB, none like another.
Leaves three_leaves() {
  return {content(1, 0, 0, 1 << 20), content(1, 0, 1, (1 << 20) + 77), content(1, 0, 2, 500'000)};
}

std::uint64_t total_size(const Leaves& leaves) {
  return std::accumulate(leaves.begin(), leaves.end(), std::uint64_t{0},
                         [](std::uint64_t sum, const auto& leaf) { return sum + leaf.size(); });
}

TEST_F(SharingTest, AStepThatRepeatsTheLastOneStoresOnlyRecords) {
  const Leaves leaves = three_leaves();
  const SaveCounters first = save(1, leaves);
  EXPECT_EQ(first.shared_bytes, 0U);
  EXPECT_GE(first.stored_bytes, total_size(leaves));
  const SaveCounters second = save(2, leaves);
  EXPECT_EQ(second.size_bytes, total_size(leaves));
  EXPECT_EQ(second.shared_bytes, total_size(leaves));
  EXPECT_LT(second.stored_bytes, total_size(leaves) / 50);
  EXPECT_EQ(store_->step_record(2)->segments.size(), 1U);
  EXPECT_EQ(store_->step_record(2)->origin_saves,
            std::vector<SaveId>{store_->step_record(1)->save});
  EXPECT_TRUE(read(2) == leaves);
  open();
  EXPECT_TRUE(read(1) == leaves);
  EXPECT_TRUE(read(2) == leaves);
  EXPECT_TRUE(store_->verify()->damages.empty());
}

TEST_F(SharingTest, OnlyChangedChunksAreStored) {
  std::map<std::uint64_t, Leaves> steps;
  Leaves leaves = three_leaves();
  for (std::uint64_t step = 1; step <= 5; ++step) {
    // Another place of another leaf each time; the last chunk of a leaf is a short one.
    std::vector<std::byte>& leaf = leaves[step % leaves.size()];
    leaf[(step * 300'007) % leaf.size()] ^= std::byte{1};
    leaves[1].back() ^= std::byte{2};
    const SaveCounters counters = save(step, leaves);
    if (step > 1) {
      EXPECT_GE(counters.shared_bytes, total_size(leaves) - std::uint64_t{3} * kSharedChunk);
      EXPECT_LT(counters.shared_bytes, total_size(leaves));
    }
    steps[step] = leaves;
  }
  open();
  for (const auto& [step, expected] : steps) EXPECT_TRUE(read(step) == expected) << step;
  // Origins lead to where the bytes are, not to the step before.
  EXPECT_EQ(record_of(5, 0).origins.front().save.step, 1U);
  EXPECT_EQ(store_->step_record(5)->origin_saves.size(), 4U);
}

// Of at least 8 MiB each, however many threads there are.
TEST_F(SharingTest, ALargeStateOfWhichLittleChangesIsWrittenInManyRuns) {
  Leaves leaves;
  for (std::uint64_t leaf = 0; leaf < 5; ++leaf) {
    leaves.push_back(content(1, 0, leaf, (std::size_t{8} << 20) + 5));
  }
  save(1, leaves);
  std::map<std::uint64_t, Leaves> steps;
  for (std::uint64_t step = 2; step <= 4; ++step) {
    leaves[0].front() ^= std::byte{1};
    leaves[step].back() ^= std::byte{1};
    const SaveCounters counters = save(step, leaves);
    EXPECT_EQ(counters.shared_bytes, total_size(leaves) - kSharedChunk - 5) << step;
    steps[step] = leaves;
  }
  EXPECT_EQ(store_->step_record(4)->segments.size(), 3U);  // Records, first leaf, last leaf.
  EXPECT_EQ(record_of(4, 4).extents.size(), 2U);
  for (std::uint64_t leaf = 0; leaf < 5; ++leaf) leaves[leaf] = content(5, 0, leaf, 8 << 20);
  save(5, leaves);
  EXPECT_EQ(store_->step_record(5)->segments.size(), 6U);
  steps[5] = leaves;
  open();
  for (const auto& [step, expected] : steps) EXPECT_TRUE(read(step) == expected) << step;
  EXPECT_TRUE(store_->verify()->damages.empty());
}

// Whose chunk at `offset_bytes` cannot be read.
class BrokenSource final : public LeafSource {
 public:
  BrokenSource(std::vector<std::byte> bytes, std::uint64_t offset_bytes)
      : whole_(std::move(bytes)), offset_bytes_(offset_bytes) {}

  Result<std::span<const std::byte>> read(std::uint64_t offset, std::size_t size,
                                          std::span<std::byte> scratch) const override {
    if (offset == offset_bytes_) return fail(ErrorCode::kIo, "the source broke");
    return whole_.read(offset, size, scratch);
  }

 private:
  OwnedSource whole_;
  std::uint64_t offset_bytes_;
};

TEST_F(SharingTest, ALeafThatCannotBeReadFailsASaveOfManyRuns) {
  Leaves leaves;
  for (std::uint64_t leaf = 0; leaf < 5; ++leaf) leaves.push_back(content(1, 0, leaf, 8 << 20));
  leaves.push_back(leaves[2]);  // Found by hashing beforehand.
  save(1, leaves);
  save(2, leaves);
  for (std::size_t broken = 0; broken < leaves.size(); ++broken) {
    const auto writer = *store_->begin_save(3, {.chunk_size_bytes = kSharedChunk});
    ASSERT_TRUE(writer->put_item("state", "standard", flat_structure(leaves.size())));
    for (std::size_t leaf = 0; leaf < leaves.size(); ++leaf) {
      // Leaves of one size are compared by their first, middle and last bytes, the others are not.
      const std::uint64_t offset_bytes = leaf != broken ? ~std::uint64_t{0} : 5 * kSharedChunk;
      ASSERT_TRUE(writer->put_leaf("state", leaf_path(leaf),
                                   {.kind = LeafKind::kArray,
                                    .dtype = DType::kUint8,
                                    .shape = {leaves[leaf].size()},
                                    .size_bytes = leaves[leaf].size()},
                                   std::make_shared<BrokenSource>(leaves[leaf], offset_bytes)));
    }
    const Result<StepRecord> result = writer->commit();
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().message,
              fmt::format("step 3 item 'state' leaf '{}': the source broke", broken));
  }
  save(3, leaves);
  EXPECT_TRUE(read(3) == leaves);
}

TEST_F(SharingTest, CanBeTurnedOff) {
  const Leaves leaves = three_leaves();
  save(1, leaves);
  const SaveCounters second = save(2, leaves, {.share = false});
  EXPECT_EQ(second.shared_bytes, 0U);
  EXPECT_GE(second.stored_bytes, total_size(leaves));
  EXPECT_TRUE(store_->step_record(2)->origin_saves.empty());
}

TEST_F(SharingTest, LeavesThatGrowShrinkComeAndGoShareWhatTheyCan) {
  Leaves leaves = three_leaves();
  save(1, leaves);
  leaves[0].resize(leaves[0].size() + 10 * kSharedChunk, std::byte{7});
  leaves[1].resize(100 * kSharedChunk + 5);  // Its last chunk is now cut short.
  leaves[2].resize(kSharedChunk);            // Now stands in its record.
  leaves.push_back(content(2, 0, 3, 1 << 19));
  save(2, leaves);
  EXPECT_TRUE(read(2) == leaves);
  leaves.pop_back();
  leaves[2] = content(3, 0, 2, 700'000);
  save(3, leaves);
  open();
  EXPECT_TRUE(read(3) == leaves);
}

TEST_F(SharingTest, EqualLeavesOfAStepAreStoredOnce) {
  const std::vector<std::byte> tied = content(9, 0, 0, 800'000);
  std::vector<std::byte> other = tied;
  other[400'100] ^= std::byte{1};  // Equal in every place that is sampled.
  const Leaves leaves = {tied, content(9, 0, 1, 800'000), tied, other, tied};
  const SaveCounters counters = save(1, leaves);
  EXPECT_EQ(counters.shared_bytes, 2 * tied.size());
  EXPECT_LT(counters.stored_bytes, 3 * tied.size() + 100'000);
  EXPECT_TRUE(read(1) == leaves);
  ASSERT_EQ(record_of(1, 4).sources.size(), 1U);
  EXPECT_EQ(record_of(1, 4).sources[0].encoded_path, leaf_path(0));
  EXPECT_TRUE(store_->step_record(1)->origin_saves.empty());
}

// Weights that were tied part, and what they still have in common is found where it was stored.
TEST_F(SharingTest, TiedLeavesMayPart) {
  const std::vector<std::byte> tied = content(9, 0, 0, 800'000);
  Leaves leaves = {tied, tied};
  save(1, leaves);
  leaves[1][0] ^= std::byte{1};
  const SaveCounters second = save(2, leaves);
  EXPECT_EQ(second.shared_bytes, 2 * tied.size() - kSharedChunk);
  EXPECT_TRUE(read(2) == leaves);
  leaves[0] = content(10, 0, 0, 800'000);
  save(3, leaves);
  leaves[1] = leaves[0];
  const SaveCounters fourth = save(4, leaves);
  EXPECT_EQ(fourth.shared_bytes, 2 * tied.size());
  open();
  EXPECT_TRUE(read(4) == leaves);
  EXPECT_TRUE(store_->verify()->damages.empty());
}

// A leaf that drops a source of its base numbers the others anew; its equal must not mix them up.
TEST_F(SharingTest, AnEqualOfALeafWithSeveralSourcesComesBack) {
  const std::vector<std::byte> tied = content(9, 0, 0, 800'000);
  Leaves leaves = {tied, tied, content(9, 0, 2, 800'000), content(9, 0, 3, 800'000)};
  save(1, leaves);
  leaves[1][0] ^= std::byte{1};
  leaves[2] = leaves[1];
  save(2, leaves);
  EXPECT_EQ(record_of(2, 2).sources.size(), 2U);
  leaves[2][0] ^= std::byte{2};
  leaves[3] = leaves[2];
  save(3, leaves);
  EXPECT_EQ(record_of(3, 2).sources.size(), 1U);
  EXPECT_TRUE(read(3) == leaves);
  // Extents lead to the bytes whatever the sources are; this asks for them by their keys.
  EXPECT_TRUE(store_->verify()->damages.empty());
}

TEST_F(SharingTest, AnOverwrittenStepMayShareWithWhatItReplaces) {
  Leaves leaves = three_leaves();
  save(1, leaves);
  leaves[2][0] ^= std::byte{1};
  const SaveCounters second = save(1, leaves, {.overwrite = true});
  EXPECT_EQ(second.shared_bytes, total_size(leaves) - kSharedChunk);
  EXPECT_TRUE(read(1) == leaves);
}

// Every chunk is where its record says, so that a large read needs no look-ups.
TEST_F(SharingTest, ExtentsLeadToEveryChunk) {
  Leaves leaves = three_leaves();
  leaves.push_back(leaves[0]);
  save(1, leaves);
  leaves[1][5000] ^= std::byte{1};
  save(2, leaves);
  store_.reset();
  const auto store = std::make_shared<StoreImpl>(directory_.path() / "run", OpenOptions());
  ASSERT_TRUE(store->open());
  for (const std::uint64_t step : {1U, 2U}) {
    const StepReaderImpl reader(store, *store->registry().lease(step));
    const std::vector<StoredLeaf> stored = *reader.read_leaves("state");
    for (const StoredLeaf& leaf : stored) {
      const auto places = places_of(leaf.record, reader.record().save, "state", leaf.encoded_path,
                                    0, leaf.record.chunk_count());
      for (std::uint32_t chunk = 0; chunk < leaf.record.chunk_count(); ++chunk) {
        std::vector<std::byte> bytes(leaf.record.chunk_size_at(chunk));
        EXPECT_TRUE(reader.read_chunk_at("state", leaf, chunk, places[chunk], bytes)) << chunk;
        // Each alone as well.
        const auto place =
            places_of(leaf.record, reader.record().save, "state", leaf.encoded_path, chunk, 1);
        EXPECT_EQ(place[0].offset_bytes, places[chunk].offset_bytes);
        EXPECT_EQ(value_offset_bytes(leaf.record, "state", leaf.encoded_path, chunk, place[0]) %
                      kChunkAlignmentBytes,
                  0);
      }
    }
  }
}

// A raw leaf of `count` chunks of 4 KiB, the last one a byte short.
LeafRecord raw_record(std::uint32_t count) {
  LeafRecord record;
  record.kind = LeafKind::kBytes;
  record.size_bytes = count * std::uint64_t{kSharedChunk} - 1;
  record.chunk_size_bytes = kSharedChunk;
  record.hashes.resize(count);
  return record;
}

// One behind the other in one segment, as a writer lays them.
std::vector<ChunkPlace> laid_places(const LeafRecord& record, SaveId save,
                                    std::uint64_t offset_bytes, std::uint32_t alignment_bytes) {
  std::vector<ChunkPlace> places;
  for (std::uint32_t chunk = 0; chunk < record.chunk_count(); ++chunk) {
    places.push_back({save, 0, 0, offset_bytes, alignment_bytes});
    const std::size_t key_size = chunk_key(save, "state", "w", chunk).size();
    const std::size_t chunk_size = record.chunk_size_at(chunk);
    offset_bytes += chunk_block_size_bytes(
        key_size,
        padding_size_bytes(offset_bytes, key_size, chunk_size, alignment_bytes) + chunk_size);
  }
  return places;
}

TEST(ChunkPlaces, OneExtentSaysWhereARunIs) {
  const SaveId save = {.step = 3, .generation = 1};
  for (const std::uint32_t alignment_bytes : {0U, 1U, 64U, 4096U}) {
    SCOPED_TRACE(alignment_bytes);
    LeafRecord record = raw_record(9);
    const auto laid = laid_places(record, save, 1000, alignment_bytes);
    set_places(record, save, "state", "w", laid);
    EXPECT_EQ(record.alignment_bytes, alignment_bytes);
    ASSERT_EQ(record.extents.size(), 1);
    const auto places = places_of(record, save, "state", "w", 0, 9);
    for (std::uint32_t chunk = 0; chunk < 9; ++chunk) {
      EXPECT_EQ(places[chunk].offset_bytes, laid[chunk].offset_bytes) << chunk;
      const std::uint64_t begin = value_offset_bytes(record, "state", "w", chunk, places[chunk]);
      if (alignment_bytes != 0) {
        EXPECT_EQ(begin % alignment_bytes, 0) << chunk;
      }
    }
  }
}

// A step may share chunks with one that was saved before there were alignments. Then the keys lead
// to them, and a reader knows that there may be padding.
TEST(ChunkPlaces, OfDifferentAlignmentsAreNoExtents) {
  const SaveId old_save = {.step = 2, .generation = 1};
  const SaveId save = {.step = 3, .generation = 2};
  LeafRecord record = raw_record(4);
  auto places = laid_places(record, save, 1000, 64);
  places[1] = {old_save, 0, 0, 77, 0};
  set_places(record, save, "state", "w", places);
  EXPECT_EQ(record.alignment_bytes, 64);
  EXPECT_TRUE(record.extents.empty());
  const auto found = places_of(record, save, "state", "w", 0, 4);
  EXPECT_EQ(found[1].save, old_save);
  EXPECT_EQ(found[2].save, save);
  for (const ChunkPlace& place : found) EXPECT_EQ(place.alignment_bytes, 64);
}

// An extent is a hint: a wrong one costs time, not data.
TEST_F(SharingTest, AWrongExtentIsNotFollowed) {
  save(1, three_leaves());
  store_.reset();
  const auto store = std::make_shared<StoreImpl>(directory_.path() / "run", OpenOptions());
  ASSERT_TRUE(store->open());
  const StepReaderImpl reader(store, *store->registry().lease(1));
  const StoredLeaf leaf = *reader.read_leaf("state", leaf_path(0));
  std::vector<std::byte> bytes(kSharedChunk);
  ChunkPlace place =
      places_of(leaf.record, reader.record().save, "state", leaf.encoded_path, 3, 1)[0];
  place.offset_bytes += kChunkAlignmentBytes;
  EXPECT_FALSE(reader.read_chunk_at("state", leaf, 3, place, bytes));
  place.offset_bytes = ~std::uint64_t{0} - 100;
  EXPECT_FALSE(reader.read_chunk_at("state", leaf, 3, place, bytes));
  place.segment = 4000;
  EXPECT_FALSE(reader.read_chunk_at("state", leaf, 3, place, bytes));
  EXPECT_TRUE(reader.read_chunk("state", leaf, 3, 0, bytes));
  const std::vector<std::byte> saved = three_leaves()[0];
  EXPECT_EQ(bytes, std::vector<std::byte>(saved.begin() + 3 * kSharedChunk,
                                          saved.begin() + 4 * kSharedChunk));
}

// As a leaf is read whose chunks have moved: by their keys, without what stands in front of them.
TEST_F(SharingTest, PaddingIsNotReadAsPartOfAChunk) {
  const std::vector<std::byte> saved = three_leaves()[0];
  save(1, three_leaves());
  const auto reader = *store_->read_step(1);
  StoredLeaf leaf = *reader->read_leaf("state", leaf_path(0));
  ASSERT_EQ(leaf.record.alignment_bytes, kChunkAlignmentBytes);
  leaf.record.extents.clear();
  std::vector<std::byte> bytes(saved.size());
  const auto read = reader->read_bytes("state", leaf, 0, bytes);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_TRUE(bytes == saved);
  // More in front of a chunk than its record allows is damage.
  leaf.record.alignment_bytes = 0;
  const auto refused = reader->read_bytes("state", leaf, 0, bytes);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(refused.error().message.find("instead of 4096"), std::string::npos)
      << refused.error().message;
}

}  // namespace
}  // namespace stepstone
