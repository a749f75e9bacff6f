#include "engine/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <set>

#include "format/limits.h"
#include "tests/support/engine_steps.h"
#include "tests/support/simulated_disk.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using stepstone::testing::content;
using stepstone::testing::flat_structure;
using stepstone::testing::holds_arrays;
using stepstone::testing::leaf_path;
using stepstone::testing::read_array;
using stepstone::testing::save_arrays;

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A step of segments: inline leaves, whole and broken chunks, an empty leaf.
const std::vector<std::size_t> kLarge = {100, 1 << 20, (256 << 10) + 1, 0, 32 << 10, 300000};
// One that travels in the commit batch; its second leaf is too large for its record.
const std::vector<std::size_t> kSmall = {10, 40 << 10, 0, 1};

class StoreTest : public ::testing::Test {
 protected:
  std::unique_ptr<Store> open(const OpenOptions& options = {.create_if_missing = true}) {
    auto store = Store::open(path(), options);
    EXPECT_TRUE(store) << store.error().message;
    return store ? *std::move(store) : nullptr;
  }
  Error open_error(const OpenOptions& options) {
    auto store = Store::open(path(), options);
    EXPECT_FALSE(store);
    return store ? Error{} : store.error();
  }
  std::filesystem::path path() const { return directory_.path() / "run"; }
  // Segments in the database's directory, the files of `steps` and `small` included.
  std::size_t table_count() const {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(path())) {
      if (entry.path().extension() == ".sst") ++count;
    }
    return count;
  }

  TemporaryDirectory directory_;
};

class StorePlacementTest : public StoreTest,
                           public ::testing::WithParamInterface<std::vector<std::size_t>> {};

TEST_P(StorePlacementTest, AStepComesBackAsItWasSavedAlsoAfterReopening) {
  auto store = open();
  const auto record = save_arrays(*store, 7, 1, GetParam(),
                                  {.metrics = R"({"loss":0.5})", .custom_metadata = "{}"});
  ASSERT_TRUE(record) << record.error().message;
  EXPECT_EQ(record->placement, GetParam() == kSmall ? Placement::kSmall : Placement::kSegments);
  EXPECT_TRUE(*holds_arrays(*store, 7, 1, GetParam()));
  ASSERT_TRUE(store->close());

  store = open({});
  EXPECT_THAT(store->steps(), ElementsAre(7));
  EXPECT_TRUE(*holds_arrays(*store, 7, 1, GetParam()));
  EXPECT_EQ(*store->step_record(7), *record);
  EXPECT_EQ(record->metrics, R"({"loss":0.5})");
  EXPECT_THAT(store->verify()->damages, IsEmpty());
}

TEST_P(StorePlacementTest, OverwritingReplacesTheStepAndKeepsAReaderOnTheOldOneWhole) {
  auto store = open();
  ASSERT_TRUE(save_arrays(*store, 7, 1, GetParam()));
  const Result<StepRecord> refused = save_arrays(*store, 7, 2, GetParam());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kAlreadyExists);
  EXPECT_THAT(refused.error().message, HasSubstr("step 7"));

  const auto old_reader = *store->read_step(7);
  ASSERT_TRUE(save_arrays(*store, 7, 2, GetParam(), {.overwrite = true}));
  EXPECT_TRUE(*holds_arrays(*store, 7, 2, GetParam()));
  EXPECT_EQ(*read_array(*old_reader, "state", 1), content(7, 1, 1, GetParam()[1]));
  EXPECT_THAT(store->steps(), ElementsAre(7));
}

TEST_P(StorePlacementTest, EverySliceOfALeafIsReadRight) {
  auto store = open();
  ASSERT_TRUE(save_arrays(*store, 0, 1, GetParam(), {.chunk_size_bytes = 4096}));
  const auto reader = *store->read_step(0);
  std::mt19937_64 random(20261123);
  for (std::size_t leaf = 0; leaf < GetParam().size(); ++leaf) {
    const StoredLeaf stored = *reader->read_leaf("state", leaf_path(leaf));
    const std::vector<std::byte> whole = content(0, 1, leaf, GetParam()[leaf]);
    for (int round = 0; round < 50; ++round) {
      const std::size_t begin = random() % (whole.size() + 1);
      const std::size_t size = random() % (whole.size() - begin + 1);
      std::vector<std::byte> part(size);
      ASSERT_TRUE(reader->read_bytes("state", stored, begin, part));
      ASSERT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + static_cast<long>(begin)));
    }
    std::vector<std::byte> too_much(whole.size() + 1);
    EXPECT_EQ(reader->read_bytes("state", stored, 0, too_much).error().code,
              ErrorCode::kInvalidArgument);
  }
}

TEST_P(StorePlacementTest, RetiringHidesAtOnceAndDurably) {
  auto store = open();
  for (const std::uint64_t step : std::vector<std::uint64_t>{1, 2, 3})
    ASSERT_TRUE(save_arrays(*store, step, 1, GetParam()));
  const std::vector<std::uint64_t> absent = {1, 9};
  EXPECT_EQ(store->retire(absent).error().code, ErrorCode::kNotFound);
  EXPECT_THAT(store->steps(), ElementsAre(1, 2, 3));
  ASSERT_TRUE(store->retire(std::vector<std::uint64_t>{1, 3}));
  EXPECT_THAT(store->steps(), ElementsAre(2));
  EXPECT_EQ(store->read_step(1).error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(store->close());
  store = open({});
  EXPECT_THAT(store->steps(), ElementsAre(2));
  EXPECT_TRUE(*holds_arrays(*store, 2, 1, GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Placements, StorePlacementTest, ::testing::Values(kLarge, kSmall),
                         [](const auto& parameter) {
                           return parameter.param == kSmall ? "Small" : "Segments";
                         });

TEST_F(StoreTest, TheCollectorDropsTheFilesOfRetiredStepsButNotThoseBeingRead) {
  auto store = open();
  for (std::uint64_t step = 1; step <= 3; ++step) {
    ASSERT_TRUE(save_arrays(*store, step, 1, kLarge, {},
                            step > 1 ? std::vector{step - 1} : std::vector<std::uint64_t>{}));
  }
  store->wait_for_collector();
  EXPECT_EQ(table_count(), store->step_record(3)->segments.size());

  auto reader = *store->read_step(3);
  ASSERT_TRUE(store->retire(std::vector<std::uint64_t>{3}));
  store->wait_for_collector();
  EXPECT_EQ(*read_array(*reader, "state", 1), content(3, 1, 1, kLarge[1]));
  EXPECT_GT(table_count(), 0U);
  reader.reset();
  store->wait_for_collector();
  EXPECT_EQ(table_count(), 0U);
}

TEST_F(StoreTest, ASaveThatIsDroppedLeavesNothing) {
  auto store = open();
  {
    const auto writer = *store->begin_save(1);
    ASSERT_TRUE(stepstone::testing::put_arrays(*writer, "state", 1, 1, kLarge));
  }
  EXPECT_THAT(store->steps(), IsEmpty());
  store->wait_for_collector();
  EXPECT_EQ(table_count(), 0U);
  EXPECT_TRUE(std::filesystem::is_empty(path() / "staging"));
  EXPECT_TRUE(save_arrays(*store, 1, 1, kLarge));
}

class FailingSource final : public LeafSource {
 public:
  Result<std::span<const std::byte>> read(std::uint64_t offset, std::size_t size,
                                          std::span<std::byte> scratch) const override {
    if (offset > 0) return fail(ErrorCode::kIo, "the source failed");
    return scratch.first(size);
  }
};

TEST_F(StoreTest, ASourceThatFailsFailsTheSaveByNameAndLeavesTheStoreUsable) {
  auto store = open();
  {
    const auto writer = *store->begin_save(1);
    ASSERT_TRUE(writer->put_item("state", "standard", flat_structure(1)));
    ASSERT_TRUE(writer->put_leaf("state", leaf_path(0),
                                 {.kind = LeafKind::kArray,
                                  .dtype = DType::kUint8,
                                  .shape = {20 << 20},
                                  .size_bytes = 20 << 20},
                                 std::make_shared<FailingSource>()));
    const Result<StepRecord> result = writer->commit();
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::kIo);
    EXPECT_THAT(result.error().message, HasSubstr("step 1 item 'state' leaf '0'"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(path() / "staging"));
  EXPECT_TRUE(save_arrays(*store, 1, 2, kLarge));
  EXPECT_TRUE(*holds_arrays(*store, 1, 2, kLarge));
}

// Gives the save up while it is being written, and counts what is read all the same.
class GivingUpSource final : public LeafSource {
 public:
  Result<std::span<const std::byte>> read(std::uint64_t /*offset*/, std::size_t size,
                                          std::span<std::byte> scratch) const override {
    ++read_count;
    EXPECT_TRUE(writer->give_up());
    return scratch.first(size);
  }

  StepWriter* writer = nullptr;
  mutable std::atomic<int> read_count = 0;
};

TEST_F(StoreTest, ASaveThatIsGivenUpStopsAndLeavesNothing) {
  const auto store = open({.create_if_missing = true, .thread_count = 1});
  ASSERT_TRUE(save_arrays(*store, 1, 1, kLarge));
  const std::size_t tables_before = table_count();
  {
    const auto writer = *store->begin_save(1, {.overwrite = true});
    const auto source = std::make_shared<GivingUpSource>();
    source->writer = writer.get();
    ASSERT_TRUE(writer->put_item("state", "standard", flat_structure(1)));
    ASSERT_TRUE(writer->put_leaf("state", leaf_path(0),
                                 {.kind = LeafKind::kArray,
                                  .dtype = DType::kUint8,
                                  .shape = {20 << 20},
                                  .size_bytes = 20 << 20,
                                  .compression = Compression::kNone,
                                  .share = false},
                                 source));
    const Result<StepRecord> result = writer->commit();
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::kClosed);
    EXPECT_THAT(result.error().message, HasSubstr("step 1"));
    EXPECT_EQ(source->read_count, 1) << "of 80 chunks";
    EXPECT_TRUE(writer->give_up()) << "it stays given up";
  }
  EXPECT_TRUE(std::filesystem::is_empty(path() / "staging"));
  EXPECT_EQ(table_count(), tables_before);
  EXPECT_TRUE(*holds_arrays(*store, 1, 1, kLarge));
}

TEST_P(StorePlacementTest, ASaveCanBeGivenUpUntilItsCommit) {
  const auto store = open();
  {
    const auto writer = *store->begin_save(1);
    ASSERT_TRUE(stepstone::testing::put_arrays(*writer, "state", 1, 1, GetParam()));
    EXPECT_TRUE(writer->give_up());
    EXPECT_EQ(writer->commit().error().code, ErrorCode::kClosed);
  }
  EXPECT_THAT(store->steps(), IsEmpty());
  const auto writer = *store->begin_save(1);
  ASSERT_TRUE(stepstone::testing::put_arrays(*writer, "state", 1, 1, GetParam()));
  const auto committed = writer->commit_choosing([&]() -> Result<std::vector<std::uint64_t>> {
    EXPECT_FALSE(writer->give_up()) << "the commit has begun";
    return std::vector<std::uint64_t>();
  });
  ASSERT_TRUE(committed) << committed.error().message;
  EXPECT_FALSE(writer->give_up());
  EXPECT_TRUE(*holds_arrays(*store, 1, 1, GetParam()));
}

TEST_F(StoreTest, LeavesMustBeThoseOfTheStructure) {
  auto store = open();
  const LeafInfo one_byte{
      .kind = LeafKind::kArray, .dtype = DType::kUint8, .shape = {1}, .size_bytes = 1};
  const auto source = std::make_shared<stepstone::testing::OwnedSource>(content(1, 1, 0, 1));
  struct Case {
    std::vector<std::size_t> leaves;
    std::string message;
  };
  for (const Case& given : {Case{{0}, "leaf '1' is in the tree"}, Case{{0, 1, 2}, "leaf '2'"},
                            Case{{0, 1, 1}, "leaf '1' was given"}, Case{{}, "leaf '0'"}}) {
    const auto writer = *store->begin_save(1);
    ASSERT_TRUE(writer->put_item("state", "standard", flat_structure(2)));
    for (const std::size_t leaf : given.leaves) {
      ASSERT_TRUE(writer->put_leaf("state", leaf_path(leaf), one_byte, source));
    }
    const Result<StepRecord> result = writer->commit();
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::kMismatch);
    EXPECT_THAT(result.error().message, HasSubstr(given.message));
  }
  const auto writer = *store->begin_save(1);
  EXPECT_EQ(writer->put_leaf("state", leaf_path(0), one_byte, source).error().code,
            ErrorCode::kNotFound);
  EXPECT_EQ(writer->commit().error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(writer->commit().error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(store->steps(), IsEmpty());
}

// Before any byte of a leaf is read, as a large state would be written in vain.
TEST_F(StoreTest, SiblingsMustDiffer) {
  class UntouchedSource final : public LeafSource {
   public:
    Result<std::span<const std::byte>> read(std::uint64_t /*offset*/, std::size_t size,
                                            std::span<std::byte> scratch) const override {
      ADD_FAILURE() << "read";
      return scratch.first(size);
    }
  };
  constexpr std::uint64_t kSizeBytes = 1 << 20;
  auto store = open();
  // The siblings are empty, so that no two leaves have one path.
  TreeStructure structure;
  structure.kinds = {NodeKind::kDict, NodeKind::kLeaf, NodeKind::kList, NodeKind::kList};
  structure.child_counts = {3, 0, 0};
  for (const char* const key : {"0", "b", "b"}) {
    append_component(structure.labels, PathComponent::key(key));
  }
  const auto writer = *store->begin_save(1);
  ASSERT_TRUE(writer->put_item("state", "standard", structure));
  ASSERT_TRUE(writer->put_leaf("state", leaf_path(0),
                               {.kind = LeafKind::kArray,
                                .dtype = DType::kUint8,
                                .shape = {kSizeBytes},
                                .size_bytes = kSizeBytes},
                               std::make_shared<UntouchedSource>()));
  const Result<StepRecord> result = writer->commit();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(result.error().message, HasSubstr("step 1 item 'state'"));
  EXPECT_THAT(result.error().message, HasSubstr("two children have the same label 'b'"));
  EXPECT_THAT(store->steps(), IsEmpty());
}

TEST_F(StoreTest, LimitsHoldBeforeAnythingIsWritten) {
  auto store = open();
  EXPECT_EQ(store->begin_save(limits::kStepMax + 1).error().code, ErrorCode::kLimit);
  EXPECT_EQ(store->begin_save(1, {.chunk_size_bytes = 1}).error().code, ErrorCode::kLimit);
  const auto writer = *store->begin_save(limits::kStepMax);
  EXPECT_EQ(writer->put_item(std::string(4097, 'x'), "standard", leaf_structure()).error().code,
            ErrorCode::kLimit);
  ASSERT_TRUE(writer->put_item("state", "standard", leaf_structure()));
  EXPECT_EQ(writer->put_item("state", "standard", leaf_structure()).error().code,
            ErrorCode::kAlreadyExists);
  const std::uint64_t too_large = limits::kLeafSizeBytesMax + 1;
  EXPECT_EQ(writer
                ->put_leaf("state", *encode_path({}),
                           {.kind = LeafKind::kArray,
                            .dtype = DType::kUint8,
                            .shape = {too_large},
                            .size_bytes = too_large},
                           nullptr)
                .error()
                .code,
            ErrorCode::kLimit);
}

TEST_F(StoreTest, OneProcessWritesAndOthersRead) {
  auto store = open();
  ASSERT_TRUE(save_arrays(*store, 1, 1, kLarge));
  EXPECT_EQ(open_error({}).code, ErrorCode::kBusy);
  auto reader = open({.read_only = true});
  ASSERT_TRUE(save_arrays(*store, 2, 1, kSmall));
  EXPECT_THAT(reader->steps(), ElementsAre(1));
  EXPECT_TRUE(*holds_arrays(*reader, 1, 1, kLarge));
  EXPECT_EQ(reader->begin_save(3).error().code, ErrorCode::kReadOnly);
  EXPECT_EQ(reader->retire(std::vector<std::uint64_t>{1}).error().code, ErrorCode::kReadOnly);
  reader = open({.read_only = true});
  EXPECT_THAT(reader->steps(), ElementsAre(1, 2));
  EXPECT_TRUE(*holds_arrays(*reader, 2, 1, kSmall));
  ASSERT_TRUE(store->close());
  EXPECT_NE(open({}), nullptr);
}

TEST_F(StoreTest, CloseWaitsForNobodyAndSaysSo) {
  auto store = open();
  ASSERT_TRUE(save_arrays(*store, 1, 1, kSmall));
  auto reader = *store->read_step(1);
  EXPECT_EQ(store->close().error().code, ErrorCode::kBusy);
  reader.reset();
  EXPECT_TRUE(store->close());
  EXPECT_TRUE(store->close());
  EXPECT_EQ(store->begin_save(2).error().code, ErrorCode::kClosed);
  EXPECT_EQ(store->read_step(1).error().code, ErrorCode::kClosed);
}

TEST_F(StoreTest, AReaderOutlivesItsStore) {
  auto store = open();
  ASSERT_TRUE(save_arrays(*store, 1, 1, kLarge));
  auto reader = *store->read_step(1);
  store.reset();
  EXPECT_EQ(*read_array(*reader, "state", 1), content(1, 1, 1, kLarge[1]));
}

TEST_F(StoreTest, WhatIsNoStoreIsRefusedAndLeftAlone) {
  Error error = open_error({});
  EXPECT_EQ(error.code, ErrorCode::kNotFound);
  EXPECT_THAT(error.message, HasSubstr(path().string()));
  EXPECT_FALSE(std::filesystem::exists(path()));

  std::ofstream(path()) << "a file";
  EXPECT_EQ(open_error({.create_if_missing = true}).code, ErrorCode::kInvalidArgument);
  std::filesystem::remove(path());

  std::filesystem::create_directory(path());
  EXPECT_EQ(open_error({}).code, ErrorCode::kNotFound);
  std::ofstream(path() / "thesis.tex") << "\\documentclass";
  error = open_error({.create_if_missing = true});
  EXPECT_EQ(error.code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(error.message, HasSubstr("thesis.tex"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path()), {}), 1);
  EXPECT_EQ(open_error({.create_if_missing = true, .read_only = true}).code,
            ErrorCode::kInvalidArgument);
}

TEST_F(StoreTest, MayStandBesideOtherFilesThatItNeverTouches) {
  const OpenOptions beside = {.create_if_missing = true, .beside_other_files = true};
  std::filesystem::create_directories(path() / "logs");
  std::ofstream(path() / "events.out.tfevents") << "a loss";
  for (const std::string name : {"000012.sst", "000003.log", "MANIFEST-000001", "staging"}) {
    std::ofstream(path() / name) << "of something else";
    const Error error = open_error(beside);
    EXPECT_EQ(error.code, ErrorCode::kInvalidArgument) << name;
    EXPECT_THAT(error.message, HasSubstr(name));
    std::filesystem::remove(path() / name);
  }
  EXPECT_EQ(open_error({}).code, ErrorCode::kNotFound);
  {
    auto store = *Store::open(path(), beside);
    ASSERT_TRUE(save_arrays(*store, 1, 1, kLarge));
    ASSERT_TRUE(store->retire(std::vector<std::uint64_t>{1}));
    store->wait_for_collector();
  }
  EXPECT_TRUE(Store::open(path(), {}));
  EXPECT_TRUE(std::filesystem::is_directory(path() / "logs"));
  std::ifstream events(path() / "events.out.tfevents");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(events), {}), "a loss");
}

TEST_F(StoreTest, ADatabaseWithoutHeadIsNotTakenForAStore) {
  open();
  std::filesystem::remove(path() / "HEAD");
  const Error error = open_error({.create_if_missing = true});
  EXPECT_EQ(error.code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(error.message, HasSubstr("HEAD"));
}

TEST_F(StoreTest, AHeadThatLeadsNowhereIsRefused) {
  std::filesystem::create_directory(path());
  std::filesystem::create_symlink("nowhere", path() / "HEAD");
  EXPECT_EQ(open_error({.create_if_missing = true}).code, ErrorCode::kInvalidArgument);
}

TEST_F(StoreTest, HeadWithoutItsDatabaseIsALoss) {
  ASSERT_TRUE(save_arrays(*open(), 1, 1, kLarge));
  std::filesystem::remove(path() / "CURRENT");
  EXPECT_EQ(open_error({.create_if_missing = true}).code, ErrorCode::kCorrupt);
  EXPECT_EQ(open_error({.read_only = true}).code, ErrorCode::kCorrupt);
}

TEST_F(StoreTest, ADirectoryThatMayNotBeWrittenIsRefused) {
  constexpr uid_t kNobody = 65534;
  // Root may write anywhere, so that the test has to be somebody else.
  const uid_t user = ::geteuid();
  ASSERT_EQ(::chmod(directory_.path().c_str(), 0555), 0);
  if (user == 0) {
    ASSERT_EQ(::seteuid(kNobody), 0);
  }
  const Error error = open_error({.create_if_missing = true});
  if (user == 0) {
    ASSERT_EQ(::seteuid(user), 0);
  }
  ASSERT_EQ(::chmod(directory_.path().c_str(), 0755), 0);
  EXPECT_EQ(error.code, ErrorCode::kPermissionDenied) << error.message;
  EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(StoreTest, StepsMayBeSavedInAnyOrder) {
  auto store = open();
  for (const std::uint64_t step : std::vector<std::uint64_t>{5, 3, 9, 0}) {
    ASSERT_TRUE(save_arrays(*store, step, 1, kSmall));
  }
  EXPECT_THAT(store->steps(), ElementsAre(0, 3, 5, 9));
  EXPECT_EQ(store->latest_step(), 9);
  const Error error = store->read_step(4).error();
  EXPECT_EQ(error.code, ErrorCode::kNotFound);
  EXPECT_THAT(error.message, HasSubstr("it has steps 0, 3, 5, 9"));
}

TEST_F(StoreTest, RecordsFormAChain) {
  auto store = open();
  std::vector<StepRecord> records;
  for (const std::uint64_t step : std::vector<std::uint64_t>{1, 2, 3}) {
    records.push_back(*save_arrays(*store, step, 1, kSmall));
  }
  EXPECT_EQ(records[0].previous_hash, Hash128{});
  EXPECT_NE(records[1].previous_hash, Hash128{});
  EXPECT_NE(records[2].previous_hash, records[1].previous_hash);
  EXPECT_EQ(records[2].sequence, 3U);
}

TEST_F(StoreTest, ManySmallStepsStayInFewFilesAndTheirSpaceComesBack) {
  auto store = open();
  // 1,000 steps of 40 KiB through a write buffer of 16 MiB: without the filter 40 MB would stay.
  for (std::uint64_t step = 1; step <= 1000; ++step) {
    ASSERT_TRUE(save_arrays(*store, step, 1, {40 << 10}, {},
                            step > 3 ? std::vector{step - 3} : std::vector<std::uint64_t>{}));
  }
  ASSERT_TRUE(store->close());
  store = open({});
  EXPECT_THAT(store->steps(), ElementsAre(998, 999, 1000));
  EXPECT_TRUE(*holds_arrays(*store, 999, 1, {40 << 10}));
  EXPECT_LT(table_count(), 20U);
}

// So many that they are read in parts, by several threads; their order in the tree is not that of
// their paths.
TEST_F(StoreTest, VeryManyLeavesAreAllReadInTheOrderOfTheirPaths) {
  const std::vector<std::size_t> sizes(9000, 200);
  for (const unsigned thread_count : {1U, 3U}) {
    SCOPED_TRACE(thread_count);
    auto store = open({.create_if_missing = true, .thread_count = thread_count});
    ASSERT_TRUE(save_arrays(*store, thread_count, 1, sizes));
    const auto reader = *store->read_step(thread_count);
    ASSERT_EQ(reader->record().placement, Placement::kSegments);
    const Result<std::vector<StoredLeaf>> leaves = reader->read_leaves("state");
    ASSERT_TRUE(leaves) << leaves.error().message;
    std::vector<std::string> expected;
    for (std::size_t leaf = 0; leaf < sizes.size(); ++leaf) expected.push_back(leaf_path(leaf));
    std::ranges::sort(expected);
    std::vector<std::string> paths;
    for (const StoredLeaf& leaf : *leaves) paths.push_back(leaf.encoded_path);
    EXPECT_EQ(paths, expected);
    EXPECT_EQ(*read_array(*reader, "state", 8999), content(thread_count, 1, 8999, 200));
  }
}

TEST_F(StoreTest, VeryManyLeavesBelowANodeAreReadWithoutThoseBesideIt) {
  constexpr std::size_t kCount = 4000;
  auto store = open({.create_if_missing = true, .thread_count = 3});
  auto writer = *store->begin_save(1);
  TreeStructure structure;
  structure.kinds = {NodeKind::kDict};
  structure.child_counts = {2, kCount, kCount};
  const std::vector<std::string> names = {"b", "a"};
  std::vector<LeafPath> paths;
  for (const std::string& name : names) {
    append_component(structure.labels, PathComponent::key(name));
    structure.kinds.push_back(NodeKind::kDict);
    for (std::size_t leaf = 0; leaf < kCount; ++leaf) {
      const PathComponent label = PathComponent::key(std::to_string(leaf));
      append_component(structure.labels, label);
      structure.kinds.push_back(NodeKind::kLeaf);
      paths.push_back({PathComponent::key(name), label});
    }
  }
  ASSERT_TRUE(writer->put_item("state", "standard", structure));
  for (const LeafPath& path : paths) {
    ASSERT_TRUE(writer->put_leaf(
        "state", *encode_path(path), {.dtype = DType::kUint8, .shape = {100}, .size_bytes = 100},
        std::make_shared<stepstone::testing::OwnedSource>(content(1, 1, 0, 100))));
  }
  ASSERT_TRUE(writer->commit());
  const auto reader = *store->read_step(1);
  ASSERT_EQ(reader->record().placement, Placement::kSegments);
  for (const std::string& name : names) {
    const auto leaves = reader->read_leaves("state", {PathComponent::key(name)});
    ASSERT_TRUE(leaves) << leaves.error().message;
    std::vector<std::string> expected;
    for (const LeafPath& path : paths) {
      if (path[0] == PathComponent::key(name)) expected.push_back(*encode_path(path));
    }
    std::ranges::sort(expected);
    std::vector<std::string> found;
    for (const StoredLeaf& leaf : *leaves) found.push_back(leaf.encoded_path);
    EXPECT_EQ(found, expected);
  }
}

TEST_F(StoreTest, ItemsAreApart) {
  auto store = open();
  {
    const auto writer = *store->begin_save(1);
    for (const std::string item : {"state", "state2", "", "a/b"}) {
      ASSERT_TRUE(stepstone::testing::put_arrays(*writer, item, 1, item.size(), kLarge));
    }
    ASSERT_TRUE(writer->commit());
  }
  const auto reader = *store->read_step(1);
  for (const std::string item : {"state", "state2", "", "a/b"}) {
    EXPECT_EQ(reader->read_leaves(item)->size(), kLarge.size());
    EXPECT_EQ(*read_array(*reader, item, 1), content(1, item.size(), 1, kLarge[1]));
  }
  const Error error = reader->read_item("dataset").error();
  EXPECT_EQ(error.code, ErrorCode::kNotFound);
  EXPECT_THAT(error.message, HasSubstr("'state', 'state2'"));
  EXPECT_EQ(reader->read_leaf("state", leaf_path(99)).error().code, ErrorCode::kNotFound);
}

TEST_F(StoreTest, WhatACommitRetiresMayBeChosenWithinIt) {
  const auto store = open();
  ASSERT_TRUE(save_arrays(*store, 1, 1, kSmall));
  const auto save = [&](std::uint64_t step, const ChooseRetired& choose) -> Result<StepRecord> {
    auto writer = STEPSTONE_TRY(store->begin_save(step, {.started_unix_ns = 77}));
    STEPSTONE_TRY(writer->put_item("state", "h", flat_structure(0)));
    return writer->commit_choosing(choose);
  };
  const auto record = save(2, [&]() -> Result<std::vector<std::uint64_t>> {
    EXPECT_THAT(store->steps(), ElementsAre(1));
    return std::vector<std::uint64_t>{1};
  });
  ASSERT_TRUE(record) << record.error().message;
  EXPECT_EQ(record->started_unix_ns, 77);
  EXPECT_THAT(store->steps(), ElementsAre(2));
  EXPECT_THAT(store->saves(), ElementsAre(record->save));
  const auto failed = save(3, []() -> Result<std::vector<std::uint64_t>> {
    return fail(ErrorCode::kInvalidArgument, "no choice");
  });
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "no choice");
  EXPECT_THAT(store->steps(), ElementsAre(2));
  ASSERT_TRUE(save_arrays(*store, 3, 1, kSmall)) << "the store still works";
}

TEST_F(StoreTest, TheStoreHasMetadataOfItsOwn) {
  auto store = open();
  EXPECT_EQ(*store->custom_metadata(), "");
  ASSERT_TRUE(store->set_custom_metadata(R"({"a":1})"));
  ASSERT_TRUE(save_arrays(*store, 1, 1, kSmall));
  const auto too_large =
      store->set_custom_metadata(std::string(limits::kStoreMetadataSizeBytesMax + 1, ' '));
  ASSERT_FALSE(too_large);
  EXPECT_EQ(too_large.error().code, ErrorCode::kLimit);
  EXPECT_EQ(*store->custom_metadata(), R"({"a":1})");
  ASSERT_TRUE(save_arrays(*store, 2, 1, kSmall)) << "the store still works";
  ASSERT_TRUE(store->close());
  store = open({.read_only = true});
  EXPECT_EQ(*store->custom_metadata(), R"({"a":1})");
  EXPECT_EQ(store->set_custom_metadata("{}").error().code, ErrorCode::kReadOnly);
}

TEST_F(StoreTest, TheStoreHoldsByWhichRuleItIsKept) {
  auto store = open();
  EXPECT_EQ(store->preservation_policy(), "");
  ASSERT_TRUE(save_arrays(*store, 1, 1, kSmall, {.preservation_policy = "[1]"}));
  EXPECT_EQ(store->preservation_policy(), "[1]");
  ASSERT_TRUE(save_arrays(*store, 2, 1, kSmall)) << "of somebody who says nothing of it";
  ASSERT_TRUE(store->set_custom_metadata("{}"));
  EXPECT_EQ(store->preservation_policy(), "[1]");
  const auto too_large = save_arrays(
      *store, 3, 1, kSmall,
      {.preservation_policy = std::string(limits::kStoreMetadataSizeBytesMax + 1, ' ')});
  ASSERT_FALSE(too_large);
  EXPECT_EQ(too_large.error().code, ErrorCode::kLimit);
  EXPECT_THAT(store->steps(), ElementsAre(1, 2));
  ASSERT_TRUE(save_arrays(*store, 3, 1, kLarge, {.preservation_policy = "[2]"}));
  ASSERT_TRUE(store->close());
  EXPECT_EQ(open({.read_only = true})->preservation_policy(), "[2]");
}

// Calls a function once, after the first look for a database.
class HookedFileSystem : public rocksdb::FileSystemWrapper {
 public:
  HookedFileSystem(const std::shared_ptr<rocksdb::FileSystem>& base, std::function<void()> hook)
      : FileSystemWrapper(base), hook_(std::move(hook)) {}

  const char* Name() const override { return "HookedFileSystem"; }
  rocksdb::IOStatus FileExists(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* context) override {
    const rocksdb::IOStatus status = FileSystemWrapper::FileExists(path, options, context);
    if (path.ends_with("/CURRENT") && hook_) std::exchange(hook_, nullptr)();
    return status;
  }

 private:
  std::function<void()> hook_;
};

TEST_F(StoreTest, AStoreThatAnotherProcessCreatesMeanwhileIsNoDamage) {
  const auto disk = std::make_shared<SimulatedDisk>();
  const auto hooked = std::make_shared<HookedFileSystem>(disk, [&] {
    const auto other = Store::open("/run", {.create_if_missing = true, .file_system = disk});
    ASSERT_TRUE(other) << other.error().message;
    ASSERT_TRUE(save_arrays(**other, 7, 1, kSmall));
  });
  const auto store = Store::open("/run", {.create_if_missing = true, .file_system = hooked});
  ASSERT_TRUE(store) << store.error().message;
  EXPECT_THAT((*store)->steps(), ElementsAre(7));
  ASSERT_TRUE(save_arrays(**store, 8, 1, kSmall));
}

// Each sync that is not needed is one that every opening waits for.
TEST_F(StoreTest, NoOptionsFileIsSynced) {
  const auto disk = std::make_shared<SimulatedDisk>();
  for (int i = 0; i < 2; ++i) {
    const auto store = Store::open("/run", {.create_if_missing = true, .file_system = disk});
    ASSERT_TRUE(store) << store.error().message;
    ASSERT_TRUE(save_arrays(**store, static_cast<std::uint64_t>(i), 1, kSmall));
  }
  std::set<std::string> options;  // Nodes of such files, as describe() ends with them.
  int sync_count = 0;
  for (std::size_t i = 0; i < disk->operation_count(); ++i) {
    const std::string change = disk->describe(i);
    const std::string node = change.substr(change.find(" (node "));
    if (change.starts_with("create OPTIONS-")) options.insert(node.substr(0, node.find(')')));
    if (change.starts_with("rename OPTIONS-")) {
      EXPECT_FALSE(disk->describe(i + 1).starts_with("directory sync")) << change;
    }
    if (!change.starts_with("sync")) continue;
    ++sync_count;
    EXPECT_FALSE(options.contains(node.substr(0, node.find(')')))) << change;
  }
  EXPECT_EQ(options.size(), 3U);
  EXPECT_GT(sync_count, 5);
}

// More steps than RocksDB opens files for by itself, and a writer that deletes them all.
TEST_F(StoreTest, AStepWhoseFilesAreHeldOutlivesThem) {
  const auto writer = open();
  for (std::uint64_t step = 0; step < 40; ++step) {
    ASSERT_TRUE(save_arrays(*writer, step, 1, kLarge));
  }
  const auto reader = open({.read_only = true});
  EXPECT_TRUE(reader->is_current());
  const auto held = *reader->read_step(7);
  ASSERT_TRUE(held->hold_files());
  const auto late = *reader->read_step(8);
  const std::vector<std::uint64_t> all = writer->steps();
  ASSERT_TRUE(writer->retire(all));
  writer->wait_for_collector();
  EXPECT_FALSE(reader->is_current());
  for (std::size_t leaf = 0; leaf < kLarge.size(); ++leaf) {
    EXPECT_TRUE(*read_array(*held, "state", leaf) == content(7, 1, leaf, kLarge[leaf])) << leaf;
  }
  const auto too_late = late->hold_files();
  ASSERT_FALSE(too_late) << "without it, the files are gone";
  EXPECT_EQ(too_late.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(too_late.error().message, HasSubstr("step 8"));
}

// Whichever of its files is missing.
TEST_F(StoreTest, AStepThatLacksAFileIsNotHeld) {
  const auto tables = [&] {
    std::set<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::directory_iterator(path())) {
      if (entry.path().extension() == ".sst") paths.insert(entry.path());
    }
    return paths;
  };
  std::set<std::filesystem::path> files;  // Of step 8.
  {
    const auto writer = open();
    for (std::uint64_t step = 0; step < 40; ++step) {
      const std::set<std::filesystem::path> before = tables();
      ASSERT_TRUE(save_arrays(*writer, step, 1, kLarge));
      if (step == 8)
        std::ranges::set_difference(tables(), before, std::inserter(files, files.end()));
    }
  }
  ASSERT_GT(files.size(), 1U);
  for (const std::filesystem::path& file : files) {
    const auto reader = open({.read_only = true});
    const auto step = *reader->read_step(8);
    const std::filesystem::path elsewhere = file.string() + ".away";
    std::filesystem::rename(file, elsewhere);
    const auto held = step->hold_files();
    std::filesystem::rename(elsewhere, file);
    ASSERT_FALSE(held) << file;
    EXPECT_EQ(held.error().code, ErrorCode::kCorrupt) << held.error().message;
    EXPECT_TRUE((*reader->read_step(8))->hold_files());
  }
}

}  // namespace
}  // namespace stepstone
