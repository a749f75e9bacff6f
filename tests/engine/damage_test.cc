// What the engine says about bytes that changed behind its back.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/db.h>

#include <algorithm>
#include <fstream>

#include "engine/store.h"
#include "format/keys.h"
#include "tests/support/engine_steps.h"
#include "tests/support/null_logger.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using stepstone::testing::content;
using stepstone::testing::leaf_path;
using stepstone::testing::read_array;
using stepstone::testing::save_arrays;

using ::testing::IsEmpty;

void flip_byte(const std::filesystem::path& path, std::uint64_t offset) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<std::streamoff>(offset));
  const auto byte = static_cast<char>(file.get() ^ 0x10);
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(byte);
  ASSERT_TRUE(file.good());
}

std::vector<std::filesystem::path> tables(const std::filesystem::path& store) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(store)) {
    if (entry.path().extension() == ".sst") paths.push_back(entry.path());
  }
  return paths;
}

// Goal: no byte of a segment can change unnoticed, and what is damaged is named. Method: flip bytes
// of every segment, all of the last 400 (index, properties, footer) and a seeded stride elsewhere,
// open the store anew each time, and read everything.
TEST(Damage, AFlippedByteAnywhereInASegmentIsNamedAndTheOtherLeavesAreRead) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "run";
  const std::vector<std::size_t> sizes = {100, 300000, 2000, 600000, 0, 70000};
  {
    auto store = *Store::open(path, {.create_if_missing = true});
    ASSERT_TRUE(save_arrays(*store, 7, 1, sizes));
    ASSERT_TRUE(save_arrays(*store, 8, 1, sizes));
  }
  for (const std::filesystem::path& table : tables(path)) {
    const std::uint64_t size = std::filesystem::file_size(table);
    for (std::uint64_t offset = 0; offset < size; offset += offset + 400 < size ? 9973 : 7) {
      SCOPED_TRACE(table.filename().string() + " byte " + std::to_string(offset));
      flip_byte(table, offset);
      {
        auto opened = Store::open(path, {});
        ASSERT_TRUE(opened) << opened.error().message;
        const Store& store = **opened;
        const Result<VerifyReport> report = store.verify();
        ASSERT_TRUE(report) << report.error().message;
        ASSERT_FALSE(report->damages.empty());
        const std::uint64_t step = report->damages.front().step;
        bool names_a_leaf = false;
        for (const Damage& damage : report->damages) {
          EXPECT_EQ(damage.step, step);
          EXPECT_FALSE(damage.message.empty());
          names_a_leaf = names_a_leaf || damage.leaf.has_value() ||
                         damage.message.find("leaf") != std::string::npos ||
                         damage.message.find("the copy of its record") != std::string::npos;
        }
        EXPECT_TRUE(names_a_leaf);
        // Right bytes or an error, never wrong bytes; and the other step is untouched.
        for (const std::uint64_t read_step : std::vector<std::uint64_t>{7, 8}) {
          const auto reader = *store.read_step(read_step);
          for (std::size_t leaf = 0; leaf < sizes.size(); ++leaf) {
            const auto bytes = read_array(*reader, "state", leaf);
            if (bytes) {
              EXPECT_EQ(*bytes, content(read_step, 1, leaf, sizes[leaf]));
            } else {
              EXPECT_EQ(read_step, step);
              EXPECT_EQ(bytes.error().code, ErrorCode::kCorrupt) << bytes.error().message;
            }
          }
        }
      }
      flip_byte(table, offset);
    }
  }
  auto store = *Store::open(path, {});
  EXPECT_THAT(store->verify()->damages, IsEmpty());
}

TEST(Damage, AFlippedByteInAChunkHurtsOnlyItsLeaf) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "run";
  const std::vector<std::size_t> sizes = {300000, 300000, 300000};
  { ASSERT_TRUE(save_arrays(**Store::open(path, {.create_if_missing = true}), 7, 1, sizes)); }
  // The one large file holds the chunks; its middle is leaf 1.
  std::filesystem::path largest;
  for (const auto& table : tables(path)) {
    if (largest.empty() ||
        std::filesystem::file_size(table) > std::filesystem::file_size(largest)) {
      largest = table;
    }
  }
  flip_byte(largest, std::filesystem::file_size(largest) / 2);
  auto store = *Store::open(path, {});
  const Result<VerifyReport> report = store->verify();
  ASSERT_EQ(report->damages.size(), 1U);
  EXPECT_EQ(report->damages[0].step, 7U);
  EXPECT_EQ(report->damages[0].item, "state");
  EXPECT_EQ(report->damages[0].leaf, "1");
  const auto reader = *store->read_step(7);
  EXPECT_TRUE(read_array(*reader, "state", 0));
  EXPECT_EQ(read_array(*reader, "state", 1).error().code, ErrorCode::kCorrupt);
  EXPECT_TRUE(read_array(*reader, "state", 2));
}

// The first block of a file is what holding it reads: damage there is the leaf's, not the step's.
TEST(Damage, AFlippedByteInAFilesFirstBlockHurtsOnlyItsLeafWhenFilesAreHeld) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "run";
  const std::vector<std::size_t> sizes = {300000, 300000};
  { ASSERT_TRUE(save_arrays(**Store::open(path, {.create_if_missing = true}), 7, 1, sizes)); }
  std::filesystem::path largest;
  for (const auto& table : tables(path)) {
    if (largest.empty() ||
        std::filesystem::file_size(table) > std::filesystem::file_size(largest)) {
      largest = table;
    }
  }
  flip_byte(largest, 1000);
  const auto store = *Store::open(path, {.read_only = true});
  const auto reader = *store->read_step(7);
  const Result<void> held = reader->hold_files();
  EXPECT_TRUE(held) << held.error().message;
  const auto damaged = read_array(*reader, "state", 0);
  ASSERT_FALSE(damaged);
  EXPECT_EQ(damaged.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(damaged.error().message.find("leaf '0'"), std::string::npos) << damaged.error().message;
  EXPECT_TRUE(read_array(*reader, "state", 1));
}

// A column family of a store, opened behind the engine's back.
class SmallEntries {
 public:
  explicit SmallEntries(const std::filesystem::path& store) {
    rocksdb::DBOptions options;
    options.info_log = std::make_shared<NullLogger>();
    std::vector<std::string> names;
    EXPECT_TRUE(rocksdb::DB::ListColumnFamilies(options, store.string(), &names).ok());
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    for (const std::string& name : names) {
      families.emplace_back(name, rocksdb::ColumnFamilyOptions());
    }
    rocksdb::DB* opened = nullptr;
    EXPECT_TRUE(rocksdb::DB::Open(options, store.string(), families, &families_, &opened).ok());
    database_.reset(opened);
  }
  ~SmallEntries() {
    for (rocksdb::ColumnFamilyHandle* family : families_) {
      database_->DestroyColumnFamilyHandle(family).PermitUncheckedError();
    }
  }
  SmallEntries(const SmallEntries&) = delete;
  SmallEntries& operator=(const SmallEntries&) = delete;

  // The value that it had.
  std::string remove(const std::string& key) {
    std::string value;
    EXPECT_TRUE(database_->Get({}, family(), key, &value).ok());
    EXPECT_TRUE(database_->Delete({}, family(), key).ok());
    return value;
  }
  void put(const std::string& key, const std::string& value) {
    EXPECT_TRUE(database_->Put({}, family(), key, value).ok());
  }

 private:
  rocksdb::ColumnFamilyHandle* family() const {
    return *std::ranges::find_if(families_,
                                 [](const auto* family) { return family->GetName() == "small"; });
  }

  std::unique_ptr<rocksdb::DB> database_;
  std::vector<rocksdb::ColumnFamilyHandle*> families_;
};

// So many that they are looked for in several batches.
TEST(Damage, ASmallStepThatLostItsEntriesIsRefusedByNameWhereverItStands) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "run";
  std::vector<SaveId> saves;
  {
    auto store = *Store::open(path, {.create_if_missing = true});
    for (std::uint64_t step = 0; step < 520; ++step) {
      ASSERT_TRUE(save_arrays(*store, step, 1, {10}));
      saves.push_back(store->step_record(step)->save);
    }
  }
  for (const std::uint64_t step : {0U, 255U, 256U, 300U, 519U}) {
    const std::string key = step_copy_key(saves[step]);
    const std::string value = SmallEntries(path).remove(key);
    for (const bool read_only : {false, true}) {
      const auto opened = Store::open(path, {.read_only = read_only});
      ASSERT_FALSE(opened);
      EXPECT_EQ(opened.error().code, ErrorCode::kCorrupt);
      EXPECT_NE(opened.error().message.find(fmt::format("step {}: its entries", step)),
                std::string::npos)
          << opened.error().message;
    }
    SmallEntries(path).put(key, value);
    ASSERT_TRUE(Store::open(path, {}));
  }
}

TEST(Damage, ASegmentThatIsGoneIsNamedAndTheOtherStepsAreRead) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "run";
  auto store = *Store::open(path, {.create_if_missing = true});
  ASSERT_TRUE(save_arrays(*store, 7, 1, {300000}));
  const auto of_step_7 = tables(path);
  ASSERT_TRUE(save_arrays(*store, 8, 1, {300000}));
  ASSERT_TRUE(store->close());
  for (const auto& table : of_step_7) std::filesystem::remove(table);
  auto opened = Store::open(path, {});
  ASSERT_TRUE(opened) << opened.error().message;
  const Result<VerifyReport> report = (*opened)->verify();
  ASSERT_FALSE(report->damages.empty());
  for (const Damage& damage : report->damages) EXPECT_EQ(damage.step, 7U);
  EXPECT_TRUE(*stepstone::testing::holds_arrays(**opened, 8, 1, {300000}));
  const auto reader = *(*opened)->read_step(7);
  EXPECT_EQ(read_array(*reader, "state", 0).error().code, ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace stepstone
