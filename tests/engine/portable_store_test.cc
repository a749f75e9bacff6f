// Reading a portable file through Store: the same calls, the same answers, whatever is in the file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "engine/store.h"
#include "engine/transfer.h"
#include "tests/support/engine_steps.h"
#include "tests/support/random.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using stepstone::testing::content;
using stepstone::testing::holds_arrays;
using stepstone::testing::leaf_path;
using stepstone::testing::save_arrays;

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Inline in the database, whole and broken chunks, an empty leaf, one of many chunks.
const std::vector<std::size_t> kSizes = {100, 1 << 20, (256 << 10) + 1, 0, 32 << 10, 3 << 20};

class PortableStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto store = Store::open(directory_.path() / "run", {.create_if_missing = true});
    ASSERT_TRUE(store) << store.error().message;
    store_ = *std::move(store);
    ASSERT_TRUE(save_arrays(*store_, 3, 1, kSizes, {.metrics = R"({"loss":1})"}));
    ASSERT_TRUE(save_arrays(*store_, 7, 2, {10, 20}, {.custom_metadata = R"({"a":2})"}));
    const auto exported = store_->export_steps(file(), {});
    ASSERT_TRUE(exported) << exported.error().message;
  }
  std::filesystem::path file() const { return directory_.path() / "run.stone"; }
  std::unique_ptr<Store> open(const OpenOptions& options = {}) const {
    auto store = Store::open(file(), options);
    EXPECT_TRUE(store) << store.error().message;
    return store ? *std::move(store) : nullptr;
  }
  std::string file_bytes() const {
    std::ifstream stream(file(), std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  void put_file(std::string_view bytes) const {
    std::ofstream(file(), std::ios::binary | std::ios::trunc) << bytes;
  }
  Error open_error(const OpenOptions& options = {}) const {
    const auto store = Store::open(file(), options);
    EXPECT_FALSE(store);
    return store ? Error{} : store.error();
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Store> store_;
};

TEST_F(PortableStoreTest, AnswersLikeTheStoreThatItWasExportedFrom) {
  const auto portable = open();
  EXPECT_TRUE(portable->is_read_only());
  EXPECT_TRUE(portable->is_current());
  EXPECT_EQ(portable->directory(), file());
  EXPECT_THAT(portable->steps(), ElementsAre(3, 7));
  EXPECT_EQ(portable->latest_step(), 7);
  EXPECT_THAT(portable->saves(), ElementsAre(SaveId{3, 0}, SaveId{7, 0}));
  EXPECT_EQ(portable->custom_metadata(), "");
  for (const std::uint64_t step : {3U, 7U}) {
    const StepRecord original = *store_->step_record(step);
    const auto copy = portable->step_record(step);
    ASSERT_TRUE(copy) << copy.error().message;
    EXPECT_EQ(copy->metrics, original.metrics);
    EXPECT_EQ(copy->custom_metadata, original.custom_metadata);
    EXPECT_EQ(copy->started_unix_ns, original.started_unix_ns);
    EXPECT_EQ(copy->committed_unix_ns, original.committed_unix_ns);
    EXPECT_EQ(copy->items, original.items);
    EXPECT_EQ(copy->size_bytes, original.size_bytes);
  }
  EXPECT_TRUE(*holds_arrays(*portable, 3, 1, kSizes));
  EXPECT_TRUE(*holds_arrays(*portable, 7, 2, {10, 20}));
  EXPECT_EQ(portable->step_record(4).error().code, ErrorCode::kNotFound);
  EXPECT_THAT(portable->read_step(4).error().message, HasSubstr("it has steps 3, 7"));
}

TEST_F(PortableStoreTest, ReadsItemsAndLeavesByOneByPartAndAllAtOnce) {
  const auto portable = open();
  const auto reader = *portable->read_step(3);
  EXPECT_TRUE(reader->hold_files());
  EXPECT_EQ(reader->read_item("state")->leaf_count, kSizes.size());
  EXPECT_EQ(reader->read_item("state", {PathComponent::key("1")})->structure.kinds.size(), 1U);
  EXPECT_EQ(reader->read_item("other").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(reader->read_item("state", {PathComponent::key("x")}).error().code,
            ErrorCode::kNotFound);
  EXPECT_EQ(reader->read_leaf("state", leaf_path(77)).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(reader->read_leaves("state", {PathComponent::key("1")})->size(), 1U);
  const auto all = testing::read_leaves(*portable, 3);
  ASSERT_TRUE(all) << all.error().message;
  for (std::size_t leaf = 0; leaf < kSizes.size(); ++leaf) {
    EXPECT_EQ((*all)[leaf], content(3, 1, leaf, kSizes[leaf])) << leaf;
  }
  const StoredLeaf large = *reader->read_leaf("state", leaf_path(5));
  std::vector<std::byte> part(300000);
  ASSERT_TRUE(reader->read_bytes("state", large, 200001, part));
  const auto whole = content(3, 1, 5, kSizes[5]);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 200001));
  EXPECT_EQ(reader->read_bytes("state", large, kSizes[5] - 1, part).error().code,
            ErrorCode::kInvalidArgument);
}

TEST_F(PortableStoreTest, AViewOutlivesItsStoreAndIsAligned) {
  std::vector<LeafView> views;
  {
    const auto portable = open();
    const auto reader = *portable->read_step(3);
    for (std::size_t leaf = 0; leaf < kSizes.size(); ++leaf) {
      const auto view = reader->view("state", *reader->read_leaf("state", leaf_path(leaf)));
      ASSERT_TRUE(view) << view.error().message;
      views.push_back(*view);
    }
  }
  for (std::size_t leaf = 0; leaf < kSizes.size(); ++leaf) {
    const auto expected = content(3, 1, leaf, kSizes[leaf]);
    EXPECT_TRUE(std::equal(views[leaf].bytes.begin(), views[leaf].bytes.end(), expected.begin(),
                           expected.end()));
    if (kSizes[leaf] == 0) continue;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(views[leaf].bytes.data()) %
                  (kSizes[leaf] >= (256 << 10) ? 4096 : 64),
              0U);
  }
}

TEST_F(PortableStoreTest, OnlyWhatLiesInOnePieceOfAFileCanBeViewed) {
  const auto of_database = *store_->read_step(3);
  const StoredLeaf leaf = *of_database->read_leaf("state", leaf_path(1));
  EXPECT_EQ(of_database->view("state", leaf).error().code, ErrorCode::kUnsupported);
  ASSERT_TRUE(save_arrays(*store_, 9, 1, {1 << 20}));
  std::vector<std::byte> zeros(1 << 20);
  const auto writer = *store_->begin_save(10);
  ASSERT_TRUE(testing::put_leaves(*writer, {zeros}));
  ASSERT_TRUE(writer->commit());
  ASSERT_TRUE(store_->export_steps(file(), {.steps = {{10}}, .overwrite = true, .compress = true}));
  const auto portable = open();
  const auto reader = *portable->read_step(10);
  EXPECT_EQ(reader->view("state", *reader->read_leaf("state", leaf_path(0))).error().code,
            ErrorCode::kUnsupported);
  EXPECT_EQ(*testing::read_leaves(*portable, 10), testing::Leaves{zeros});
}

TEST_F(PortableStoreTest, EveryCallThatWritesSaysThatItIsReadOnly) {
  const auto portable = open();
  EXPECT_EQ(portable->begin_save(8).error().code, ErrorCode::kReadOnly);
  EXPECT_EQ(portable->retire(std::vector<std::uint64_t>{3}).error().code, ErrorCode::kReadOnly);
  EXPECT_EQ(portable->set_custom_metadata("{}").error().code, ErrorCode::kReadOnly);
  EXPECT_EQ(portable->recompress(3).error().code, ErrorCode::kReadOnly);
  EXPECT_EQ(portable->import_steps(*store_, {}).error().code, ErrorCode::kReadOnly);
  portable->wait_for_collector();
  EXPECT_EQ(open_error({.create_if_missing = true}).code, ErrorCode::kInvalidArgument);
}

TEST_F(PortableStoreTest, ClosesUnlessItIsBeingRead) {
  const auto portable = open();
  auto reader = *portable->read_step(3);
  EXPECT_EQ(portable->close().error().code, ErrorCode::kBusy);
  reader.reset();
  EXPECT_TRUE(portable->close());
  EXPECT_EQ(portable->read_step(3).error().code, ErrorCode::kClosed);
  EXPECT_EQ(portable->verify().error().code, ErrorCode::kClosed);
}

TEST_F(PortableStoreTest, TellsWhetherAnotherFileHasTakenItsPlace) {
  const auto portable = open({.read_only = true});
  ASSERT_TRUE(store_->export_steps(file(), {.steps = {{7}}, .overwrite = true}));
  EXPECT_FALSE(portable->is_current());
  EXPECT_TRUE(*holds_arrays(*portable, 3, 1, kSizes));
  EXPECT_THAT(open()->steps(), ElementsAre(7));
}

TEST_F(PortableStoreTest, OtherFilesAreToldApartFromDamagedOnes) {
  const std::string good = file_bytes();
  put_file("just a text");
  EXPECT_EQ(open_error().code, ErrorCode::kInvalidArgument);
  put_file("");
  EXPECT_EQ(open_error().code, ErrorCode::kInvalidArgument);
  put_file(good.substr(0, good.size() - 1));
  EXPECT_EQ(open_error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(open_error().message, HasSubstr(file().string()));
}

TEST_F(PortableStoreTest, AFileThatWasCutShortUnderAReaderGivesErrorsAndEndsNoProcess) {
  const auto portable = open();
  const auto reader = *portable->read_step(3);
  const StoredLeaf leaf = *reader->read_leaf("state", leaf_path(5));
  std::filesystem::resize_file(file(), 4096);
  std::vector<std::byte> bytes(kSizes[5]);
  EXPECT_EQ(reader->read_bytes("state", leaf, 0, bytes).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(reader->view("state", leaf).error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(portable->verify()->damages, ::testing::Not(IsEmpty()));
  EXPECT_FALSE(portable->is_current());
}

TEST_F(PortableStoreTest, VerifyReadsAllAndNamesTheLeafThatIsDamaged) {
  std::uint64_t last_done = 0;
  std::uint64_t last_total = 0;
  const auto good = open()->verify({.progress = [&](std::uint64_t done, std::uint64_t total) {
    last_done = done;
    last_total = total;
  }});
  ASSERT_TRUE(good) << good.error().message;
  EXPECT_THAT(good->damages, IsEmpty());
  EXPECT_EQ(good->step_count, 2U);
  EXPECT_EQ(good->leaf_count, kSizes.size() + 2);
  EXPECT_EQ(good->size_bytes, last_total);
  EXPECT_EQ(last_done, last_total);
  std::string bytes = file_bytes();
  const auto wanted = content(3, 1, 5, kSizes[5]);
  const std::size_t at = bytes.find(std::string(reinterpret_cast<const char*>(wanted.data()), 64));
  ASSERT_NE(at, std::string::npos);
  bytes[at + 700000] = static_cast<char>(bytes[at + 700000] ^ 1);
  put_file(bytes);
  const auto portable = open();
  const auto report = portable->verify();
  ASSERT_EQ(report->damages.size(), 1U);
  EXPECT_EQ(report->damages[0].step, 3U);
  EXPECT_EQ(report->damages[0].item, "state");
  EXPECT_EQ(report->damages[0].leaf, "5");
  EXPECT_THAT(portable->verify({.step = 7})->damages, IsEmpty());
  EXPECT_EQ(portable->verify({.step = 8}).error().code, ErrorCode::kNotFound);
  const auto reader = *portable->read_step(3);
  const StoredLeaf leaf = *reader->read_leaf("state", leaf_path(5));
  EXPECT_EQ(reader->view("state", leaf).error().code, ErrorCode::kCorrupt);
  EXPECT_TRUE(reader->view("state", leaf, ViewCheck::kNothing));
}

TEST_F(PortableStoreTest, VerifySeesWhatBelongsToNoLeaf) {
  std::string bytes = file_bytes();
  // The zeros that align the first leaf of a megabyte.
  bytes[4095] = 1;
  put_file(bytes);
  EXPECT_EQ(open()->verify()->damages.size(), 1U);
}

TEST_F(PortableStoreTest, UsageCountsSharedChunksOnce) {
  ASSERT_TRUE(save_arrays(*store_, 8, 1, kSizes));
  // The same bytes as step 8.
  const auto writer = *store_->begin_save(9);
  testing::Leaves leaves;
  for (std::size_t leaf = 0; leaf < kSizes.size(); ++leaf) {
    leaves.push_back(content(8, 1, leaf, kSizes[leaf]));
  }
  ASSERT_TRUE(testing::put_leaves(*writer, leaves));
  ASSERT_TRUE(writer->commit());
  ASSERT_TRUE(store_->export_steps(file(), {.steps = {{8, 9}}, .overwrite = true}));
  const auto usage = open()->usage();
  ASSERT_TRUE(usage) << usage.error().message;
  ASSERT_EQ(usage->steps.size(), 2U);
  EXPECT_EQ(usage->stored_bytes, std::filesystem::file_size(file()));
  EXPECT_EQ(usage->steps[0].stored_bytes, usage->steps[0].size_bytes);
  EXPECT_EQ(usage->steps[1].shared_bytes, usage->steps[1].size_bytes);
  EXPECT_EQ(usage->steps[1].stored_bytes, 0U);
}

// Whatever is done to a file, it is refused, or what is read from it is what was saved.
TEST_F(PortableStoreTest, NoChangedOrShortenedFileIsReadAsSomethingElse) {
  ASSERT_TRUE(store_->export_steps(file(), {.steps = {{7}}, .overwrite = true}));
  const std::string good = file_bytes();
  const char* const given = std::getenv("STEPSTONE_TEST_SEED");
  const std::uint64_t seed = given == nullptr ? 20 : std::strtoull(given, nullptr, 10);
  SCOPED_TRACE(seed);
  Random random(seed);
  const auto use = [&](const std::string& bytes) {
    put_file(bytes);
    const auto portable = Store::open(file(), {});
    if (!portable) return;
    const auto report = (*portable)->verify();
    const auto holds = holds_arrays(**portable, 7, 2, {10, 20});
    if (holds.has_value()) {
      EXPECT_TRUE(*holds);
    }
    EXPECT_TRUE(!report || !report->damages.empty() || bytes == good);
  };
  for (std::size_t size = 0; size < good.size(); size += 1 + random.below(7)) {
    use(good.substr(0, size));
  }
  for (std::size_t i = 0; i < std::size_t{1500}; ++i) {
    std::string bytes = good;
    const std::size_t at = random.below(bytes.size());
    bytes[at] = static_cast<char>(bytes[at] ^ static_cast<char>(1 + random.below(255)));
    use(bytes);
  }
}

}  // namespace
}  // namespace stepstone
