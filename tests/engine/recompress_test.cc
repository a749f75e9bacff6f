// Steps that are encoded after they were saved.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/file_system.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <random>

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

using ::testing::IsEmpty;

constexpr std::size_t kRecompressLeafSize = std::size_t{1} << 20;

// Bytes of which each has one of eight values: a Huffman code needs less than half of the room.
std::vector<std::byte> compressible(std::uint64_t seed, std::size_t size = kRecompressLeafSize) {
  std::vector<std::byte> bytes = content(seed, 0, 0, size);
  for (std::byte& byte : bytes) byte &= std::byte{7};
  return bytes;
}
std::vector<std::byte> noise(std::uint64_t seed) {
  return content(seed, 1, 1, kRecompressLeafSize);
}

// Calls back when a segment is begun, and may pretend that the disk is full.
class WatchedFileSystem : public rocksdb::FileSystemWrapper {
 public:
  WatchedFileSystem() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}

  const char* Name() const override { return "WatchedFileSystem"; }

  rocksdb::IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* result,
                                    rocksdb::IODebugContext* context) override {
    if (name.find("/staging/") != std::string::npos && on_segment) {
      std::exchange(on_segment, nullptr)();
    }
    return FileSystemWrapper::NewWritableFile(name, options, result, context);
  }

  rocksdb::IOStatus GetFreeSpace(const std::string& path, const rocksdb::IOOptions& options,
                                 std::uint64_t* free_bytes,
                                 rocksdb::IODebugContext* context) override {
    const rocksdb::IOStatus status =
        FileSystemWrapper::GetFreeSpace(path, options, free_bytes, context);
    if (is_full) *free_bytes = kRecompressLeafSize;
    return status;
  }

  std::function<void()> on_segment;  // Once.
  std::atomic<bool> is_full = false;
};

class RecompressTest : public ::testing::Test {
 protected:
  void SetUp() override { open(); }

  void open(OpenOptions options = {}) {
    store_.reset();
    options.create_if_missing = true;
    auto store = Store::open(directory_.path() / "run", options);
    ASSERT_TRUE(store) << store.error().message;
    store_ = *std::move(store);
  }

  // Unencoded, unless it is as deltas.
  void save(std::uint64_t step, const Leaves& leaves, SaveOptions options = {},
            const std::vector<std::uint64_t>& retire = {}) {
    if (options.compression != Compression::kDelta) options.compression = Compression::kNone;
    const auto writer = *store_->begin_save(step, options);
    ASSERT_TRUE(put_leaves(*writer, leaves));
    const auto record = writer->commit(retire);
    ASSERT_TRUE(record) << record.error().message;
  }
  RecompressCounters recompress(std::uint64_t step) {
    const Result<RecompressCounters> counters = store_->recompress(step);
    EXPECT_TRUE(counters) << counters.error().message;
    return counters.value_or(RecompressCounters());
  }
  void expect_steps(const std::map<std::uint64_t, Leaves>& steps) const {
    std::vector<std::uint64_t> numbers;
    for (const auto& [step, leaves] : steps) {
      numbers.push_back(step);
      const Result<Leaves> read = read_leaves(*store_, step);
      ASSERT_TRUE(read) << read.error().message;
      EXPECT_TRUE(*read == leaves) << "step " << step;
    }
    EXPECT_EQ(store_->steps(), numbers);
    const VerifyReport report = *store_->verify();
    EXPECT_THAT(report.damages, IsEmpty()) << report.damages.front().message;
  }
  // When everything is collected.
  StoreUsage usage() {
    store_->wait_for_collector();
    const Result<StoreUsage> usage = store_->usage();
    EXPECT_TRUE(usage) << usage.error().message;
    return usage.value_or(StoreUsage());
  }
  bool is_encoded(std::uint64_t step, std::size_t leaf) const {
    return !(*store_->read_step(step))->read_leaf("state", leaf_path(leaf))->record.codecs.empty();
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Store> store_;
};

TEST_F(RecompressTest, AStepBecomesSmallerAndStaysTheSame) {
  const Leaves leaves = {compressible(1), noise(2), compressible(3, kRecompressLeafSize + 77),
                         compressible(4, 100)};
  {
    const auto writer = *store_->begin_save(
        7,
        {.compression = Compression::kNone, .metrics = "{\"loss\":1}", .custom_metadata = "[7]"});
    ASSERT_TRUE(writer->put_item("state", "standard", flat_structure(leaves.size()), "{\"a\":2}"));
    for (std::size_t leaf = 0; leaf < leaves.size(); ++leaf) {
      ASSERT_TRUE(writer->put_leaf("state", leaf_path(leaf),
                                   {.kind = LeafKind::kArray,
                                    .dtype = DType::kInt8,
                                    .shape = {leaves[leaf].size()},
                                    .size_bytes = leaves[leaf].size(),
                                    .compression = {}},
                                   std::make_shared<OwnedSource>(leaves[leaf])));
    }
    ASSERT_TRUE(writer->commit());
  }
  const StepRecord before = *store_->step_record(7);
  const ItemRecord item_before = *(*store_->read_step(7))->read_item("state");
  const StoreUsage usage_before = usage();
  const RecompressCounters counters = recompress(7);
  EXPECT_TRUE(counters.was_replaced);
  EXPECT_LT(counters.bytes_after, counters.bytes_before * 2 / 3);
  EXPECT_LT(usage().stored_bytes, usage_before.stored_bytes * 2 / 3);
  EXPECT_EQ(usage().hidden_bytes, 0U);
  open();
  expect_steps({{7, leaves}});
  const StepRecord after = *store_->step_record(7);
  EXPECT_NE(after.save, before.save);
  EXPECT_EQ(after.started_unix_ns, before.started_unix_ns);
  EXPECT_EQ(after.committed_unix_ns, before.committed_unix_ns);
  EXPECT_EQ(after.metrics, before.metrics);
  EXPECT_EQ(after.custom_metadata, before.custom_metadata);
  EXPECT_EQ(after.items, before.items);
  EXPECT_EQ(after.size_bytes, before.size_bytes);
  EXPECT_EQ(*(*store_->read_step(7))->read_item("state"), item_before);
  EXPECT_EQ((*store_->read_step(7))->read_leaf("state", leaf_path(2))->record.dtype, DType::kInt8);
  EXPECT_FALSE(recompress(7).was_replaced);
  EXPECT_EQ(store_->step_record(7)->save, after.save);
}

TEST_F(RecompressTest, AStepThatDoesNotBecomeSmallerIsLeftAlone) {
  const Leaves leaves = {noise(1), noise(2)};
  save(1, leaves);
  const Leaves small = {compressible(1, 50'000)};
  save(2, small);
  const SaveId first = store_->step_record(1)->save;
  const SaveId second = store_->step_record(2)->save;
  EXPECT_FALSE(recompress(1).was_replaced);
  EXPECT_FALSE(recompress(2).was_replaced);
  EXPECT_EQ(store_->step_record(1)->save, first);
  EXPECT_EQ(store_->step_record(2)->save, second);
  expect_steps({{1, leaves}, {2, small}});
}

TEST_F(RecompressTest, MissingStepsAndReadOnlyStoresAreNamed) {
  save(1, {compressible(1)});
  const auto missing = store_->recompress(2);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_NE(missing.error().message.find("it has step 1"), std::string::npos);
  const auto reader = *Store::open(directory_.path() / "run", {.read_only = true});
  const auto refused = reader->recompress(1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kReadOnly);
}

// From the oldest to the newest, so that none keeps what it shares as it was.
TEST_F(RecompressTest, LaterStepsReferToWhatWasEncoded) {
  std::map<std::uint64_t, Leaves> steps;
  Leaves leaves = {compressible(1), compressible(2), noise(3)};
  for (std::uint64_t step = 1; step <= 4; ++step) {
    leaves[1] = compressible(10 + step);
    save(step, leaves);
    steps[step] = leaves;
  }
  const StoreUsage before = usage();
  for (std::uint64_t step = 1; step <= 4; ++step) EXPECT_TRUE(recompress(step).was_replaced);
  const StoreUsage after = usage();
  EXPECT_EQ(after.hidden_bytes, 0U);
  EXPECT_LT(after.stored_bytes, before.stored_bytes * 2 / 3);
  EXPECT_EQ(store_->step_record(4)->origin_saves,
            std::vector<SaveId>{store_->step_record(1)->save});
  expect_steps(steps);
  open();
  expect_steps(steps);
}

// The step that stored the chunks first is gone, and those that refer to it are encoded.
TEST_F(RecompressTest, WhatAHollowSaveHoldsIsEncodedToo) {
  std::map<std::uint64_t, Leaves> steps;
  Leaves leaves = {compressible(1), compressible(2), compressible(3)};
  save(1, leaves);
  leaves[2] = compressible(4);
  save(2, leaves);
  steps[2] = leaves;
  leaves[2] = compressible(5);
  save(3, leaves, {}, {1});
  steps[3] = leaves;
  EXPECT_GT(usage().hidden_bytes, 2 * kRecompressLeafSize);
  EXPECT_TRUE(recompress(2).was_replaced);
  EXPECT_TRUE(recompress(3).was_replaced);
  EXPECT_EQ(usage().hidden_bytes, 0U);
  EXPECT_LT(usage().stored_bytes, 3 * kRecompressLeafSize);
  expect_steps(steps);
}

TEST_F(RecompressTest, TiedLeavesStayStoredOnce) {
  Leaves leaves = {compressible(1), compressible(1), compressible(2), compressible(2)};
  save(1, leaves);
  std::map<std::uint64_t, Leaves> steps = {{1, leaves}};
  leaves[3][kRecompressLeafSize / 2] ^= std::byte{1};  // They part, but for three of four chunks.
  save(2, leaves);
  steps[2] = leaves;
  const StoreUsage before = usage();
  ASSERT_TRUE(recompress(1).was_replaced);
  recompress(2);
  EXPECT_LT(usage().stored_bytes, before.stored_bytes * 2 / 3);
  expect_steps(steps);
  const std::uint64_t first = 1;
  ASSERT_TRUE(store_->retire({&first, 1}));
  steps.erase(1);
  recompress(2);
  EXPECT_LT(usage().stored_bytes, before.stored_bytes);
  expect_steps(steps);
}

TEST_F(RecompressTest, AReaderGoesOnReadingTheOldSave) {
  const Leaves leaves = {compressible(1), compressible(2)};
  save(1, leaves);
  const auto reader = *store_->read_step(1);
  const std::vector<StoredLeaf> stored = *reader->read_leaves("state");
  ASSERT_TRUE(recompress(1).was_replaced);
  for (std::size_t leaf = 0; leaf < leaves.size(); ++leaf) {
    std::vector<std::byte> bytes(kRecompressLeafSize);
    ASSERT_TRUE(reader->read_bytes("state", stored[leaf], 0, bytes));
    EXPECT_TRUE(bytes == leaves[leaf]);
  }
}

// The trainer wins, whatever it does to the step meanwhile.
TEST_F(RecompressTest, AStepThatChangesMeanwhileStaysAsItIsThen) {
  const auto files = std::make_shared<WatchedFileSystem>();
  open({.file_system = files});
  const Leaves leaves = {compressible(1), compressible(2)};
  save(1, leaves);
  save(2, leaves, {.share = false});
  save(3, leaves, {.share = false});
  const Leaves other = {compressible(3), compressible(4)};
  files->on_segment = [&] { save(1, other, {.overwrite = true}); };
  const auto overwritten = store_->recompress(1);
  ASSERT_FALSE(overwritten);
  EXPECT_EQ(overwritten.error().code, ErrorCode::kBusy);
  EXPECT_NE(overwritten.error().message.find("step 1"), std::string::npos);
  files->on_segment = [&] {
    const std::uint64_t step = 2;
    ASSERT_TRUE(store_->retire({&step, 1}));
  };
  const auto retired = store_->recompress(2);
  ASSERT_FALSE(retired);
  EXPECT_EQ(retired.error().code, ErrorCode::kBusy);
  files->on_segment = nullptr;
  EXPECT_EQ(usage().hidden_bytes, 0U);
  expect_steps({{1, other}, {3, leaves}});
  open();
  expect_steps({{1, other}, {3, leaves}});
}

TEST_F(RecompressTest, ADamagedStepIsNotReplaced) {
  save(1, {compressible(1), compressible(2)});
  const SaveId before = store_->step_record(1)->save;
  store_.reset();
  for (const auto& entry : std::filesystem::directory_iterator(directory_.path() / "run")) {
    if (entry.path().extension() != ".sst" || entry.file_size() < kRecompressLeafSize) continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(entry.file_size() / 2));
    file.write("damaged", 7);
  }
  open();
  const auto result = store_->recompress(1);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(result.error().message.find("step 1 item 'state' leaf"), std::string::npos);
  EXPECT_EQ(store_->step_record(1)->save, before);
}

TEST_F(RecompressTest, InTheBackgroundAllButTheNewestStepsAreEncodedOnce) {
  open({.recompress_older_than = 2, .recompress_bytes_per_second = 0});
  std::map<std::uint64_t, Leaves> steps;
  for (std::uint64_t step = 1; step <= 5; ++step) {
    steps[step] = {compressible(step), step == 2 ? noise(100) : compressible(50 + step)};
    save(step, steps[step]);
  }
  steps[2] = {noise(7), noise(8)};
  save(2, steps[2], {.overwrite = true});
  store_->wait_for_collector();
  for (const std::uint64_t step : {1U, 3U}) EXPECT_TRUE(is_encoded(step, 0)) << step;
  for (const std::uint64_t step : {2U, 4U, 5U}) EXPECT_FALSE(is_encoded(step, 0)) << step;
  expect_steps(steps);
  const std::uint64_t sequence = store_->step_record(3)->sequence;
  open({.recompress_older_than = 2, .recompress_bytes_per_second = 0});
  store_->wait_for_collector();
  EXPECT_EQ(store_->step_record(3)->sequence, sequence);
  EXPECT_EQ(usage().hidden_bytes, 0U);
  expect_steps(steps);
}

// Weights that never change are referred to by the newest step, which is left alone.
TEST_F(RecompressTest, WhatTheNewestStepsNeedIsNotStoredTwice) {
  open({.recompress_older_than = 1, .recompress_bytes_per_second = 0});
  std::map<std::uint64_t, Leaves> steps;
  for (std::uint64_t step = 1; step <= 4; ++step) {
    steps[step] = {compressible(1000), compressible(1001), compressible(1002), compressible(step)};
    save(step, steps[step]);
    store_->wait_for_collector();
  }
  for (std::uint64_t step = 1; step <= 3; ++step) {
    EXPECT_TRUE(is_encoded(step, 3)) << step;
    EXPECT_FALSE(is_encoded(step, 0)) << step;
  }
  const StoreUsage after = usage();
  EXPECT_LT(after.stored_bytes - after.reclaimable_bytes,
            4 * kRecompressLeafSize + 3 * kRecompressLeafSize / 2);
  expect_steps(steps);
}

TEST_F(RecompressTest, InTheBackgroundRoomIsLeftForSaves) {
  const auto files = std::make_shared<WatchedFileSystem>();
  files->is_full = true;
  open({.recompress_older_than = 1, .recompress_bytes_per_second = 0, .file_system = files});
  for (std::uint64_t step = 1; step <= 2; ++step) save(step, {compressible(step)});
  store_->wait_for_collector();
  EXPECT_FALSE(is_encoded(1, 0));
  files->is_full = false;
  save(3, {compressible(3)});
  store_->wait_for_collector();
  EXPECT_TRUE(is_encoded(1, 0));
  EXPECT_TRUE(is_encoded(2, 0));
}

// At a byte per second it would take weeks.
TEST_F(RecompressTest, ClosingDoesNotWaitForIt) {
  save(1, {compressible(1)});
  save(2, {compressible(2)});
  open({.recompress_older_than = 0, .recompress_bytes_per_second = 1});
  ASSERT_TRUE(store_->close());
  open();
  EXPECT_FALSE(is_encoded(2, 0));
  expect_steps({{1, {compressible(1)}}, {2, {compressible(2)}}});
}

// Goal: no sequence of saves, recompressions, retirements and reopenings loses a byte. Method: at
// random, against what was saved.
TEST_F(RecompressTest, AnythingCanBeMixed) {
  for (unsigned seed = 1; seed <= 3; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto draw = [&](std::uint64_t below) { return random() % below; };
    std::map<std::uint64_t, Leaves> steps;
    Leaves leaves = {compressible(1), noise(2), compressible(1),
                     compressible(4, kRecompressLeafSize / 3)};
    for (const std::uint64_t step : store_->steps()) ASSERT_TRUE(store_->retire({&step, 1}));
    for (int i = 0; i < 40; ++i) {
      const auto any_step = [&] {
        return std::next(steps.begin(), static_cast<std::ptrdiff_t>(draw(steps.size())))->first;
      };
      switch (steps.empty() ? 0 : draw(6)) {
        case 0:
        case 1: {
          const std::size_t leaf = draw(leaves.size());
          if (draw(3) == 0) {
            leaves[leaf] = draw(2) == 0 ? leaves[draw(leaves.size())] : compressible(random());
          } else {
            for (std::uint64_t changes = 1 + draw(2000); changes > 0; --changes) {
              leaves[leaf][draw(leaves[leaf].size())] ^= std::byte{5};
            }
          }
          const bool overwrites = !steps.empty() && draw(4) == 0;
          const std::uint64_t step = overwrites      ? any_step()
                                     : steps.empty() ? 1
                                                     : steps.rbegin()->first + 1 + draw(3);
          save(step, leaves,
               {.overwrite = overwrites,
                .compression = draw(2) == 0 ? Compression::kNone : Compression::kDelta});
          steps[step] = leaves;
          break;
        }
        case 2:
        case 3: {
          const Result<RecompressCounters> counters = store_->recompress(any_step());
          // The background may have come first.
          ASSERT_TRUE(counters || counters.error().code == ErrorCode::kBusy)
              << counters.error().message;
          break;
        }
        case 4: {
          if (steps.size() < 3) break;
          const std::uint64_t step = any_step();
          ASSERT_TRUE(store_->retire({&step, 1}));
          steps.erase(step);
          break;
        }
        default:
          if (draw(2) == 0) {
            store_->wait_for_collector();
          } else {
            open({.recompress_older_than = draw(3), .recompress_bytes_per_second = 0});
          }
      }
    }
    store_->wait_for_collector();
    expect_steps(steps);
    open();
    expect_steps(steps);
  }
}

}  // namespace
}  // namespace stepstone
