// Copies of steps, into portable files and between stores.
#include "engine/transfer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "tests/support/engine_steps.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using stepstone::testing::content;
using stepstone::testing::flat_structure;
using stepstone::testing::holds_arrays;
using stepstone::testing::leaf_path;
using stepstone::testing::OwnedSource;
using stepstone::testing::put_arrays;
using stepstone::testing::save_arrays;

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::vector<std::size_t> kTransferSizes = {100, 1 << 20,  (256 << 10) + 1,
                                                 0,   32 << 10, 3 << 20};

class TransferTest : public ::testing::Test {
 protected:
  std::unique_ptr<Store> open(const std::string& name) {
    auto store = Store::open(path(name), {.create_if_missing = !name.ends_with(".stone")});
    EXPECT_TRUE(store) << store.error().message;
    return store ? *std::move(store) : nullptr;
  }
  std::filesystem::path path(const std::string& name) const { return directory_.path() / name; }
  // Names that an export left.
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory_.path())) {
      if (!entry.is_directory()) names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  TemporaryDirectory directory_;
};

TEST_F(TransferTest, StepsGoIntoAFileAndBackWithAllThatBelongsToThem) {
  const auto store = open("run");
  for (std::uint64_t step = 1; step <= 4; ++step) {
    ASSERT_TRUE(save_arrays(*store, step, 1, kTransferSizes,
                            {.metrics = R"({"loss":0.5})", .custom_metadata = R"({"x":1})"}));
  }
  const auto exported = store->export_steps(path("a.stone"), {.steps = {{4, 2, 3}}});
  ASSERT_TRUE(exported) << exported.error().message;
  EXPECT_EQ(exported->step_count, 3U);
  EXPECT_EQ(exported->leaf_count, 3 * kTransferSizes.size());
  EXPECT_EQ(exported->file_size_bytes, std::filesystem::file_size(path("a.stone")));
  EXPECT_THAT(files(), ElementsAre("a.stone"));
  const auto other = open("other");
  const auto imported = other->import_steps(*open("a.stone"), {});
  ASSERT_TRUE(imported) << imported.error().message;
  EXPECT_EQ(imported->step_count, 3U);
  EXPECT_THAT(other->steps(), ElementsAre(2, 3, 4));
  for (const std::uint64_t step : other->steps()) {
    EXPECT_TRUE(*holds_arrays(*other, step, 1, kTransferSizes));
    const StepRecord original = *store->step_record(step);
    const StepRecord copy = *other->step_record(step);
    EXPECT_EQ(copy.metrics, original.metrics);
    EXPECT_EQ(copy.custom_metadata, original.custom_metadata);
    EXPECT_EQ(copy.started_unix_ns, original.started_unix_ns);
    EXPECT_EQ(copy.committed_unix_ns, original.committed_unix_ns);
    EXPECT_EQ(copy.items, original.items);
  }
}

TEST_F(TransferTest, MetadataOfTheStoreGoAlong) {
  const auto store = open("run");
  for (std::uint64_t step = 1; step <= 3; ++step) {
    ASSERT_TRUE(save_arrays(*store, step, 1, kTransferSizes));
  }
  ASSERT_TRUE(store->set_custom_metadata(R"({"run":7})"));
  ASSERT_TRUE(store->export_steps(path("a.stone"), {.steps = {{1, 2}}}));
  const auto file = open("a.stone");
  EXPECT_EQ(*file->custom_metadata(), R"({"run":7})");
  EXPECT_EQ(file->step_record(1)->store_metadata, "");
  ASSERT_TRUE(file->export_steps(path("b.stone"), {.steps = {{1}}}));
  EXPECT_EQ(*open("b.stone")->custom_metadata(), R"({"run":7})");

  const auto other = open("other");
  ASSERT_TRUE(other->import_steps(*file, {.steps = {{1}}}));
  EXPECT_EQ(*other->custom_metadata(), R"({"run":7})");
  EXPECT_EQ(other->step_record(1)->store_metadata, "") << "it is the store that has them";
  // What a store says of itself stays.
  const auto third = open("third");
  ASSERT_TRUE(third->set_custom_metadata("{}"));
  ASSERT_TRUE(third->import_steps(*store, {}));
  EXPECT_EQ(*third->custom_metadata(), "{}");
}

// The metadata stand in the record of the highest step, which other steps can do without.
TEST_F(TransferTest, GoodStepsOfADamagedFileAreCopiedByName) {
  const auto store = open("run");
  for (std::uint64_t step = 1; step <= 2; ++step) {
    ASSERT_TRUE(save_arrays(*store, step, 1, kTransferSizes));
  }
  const std::string metadata = R"({"run":"of the whole store"})";
  ASSERT_TRUE(store->set_custom_metadata(metadata));
  ASSERT_TRUE(store->export_steps(path("a.stone"), {}));
  std::ifstream read(path("a.stone"), std::ios::binary);
  std::string bytes(std::istreambuf_iterator<char>(read), {});
  const std::size_t place = bytes.find(metadata);
  ASSERT_NE(place, std::string::npos);
  bytes[place] ^= 1;
  std::ofstream(path("a.stone"), std::ios::binary | std::ios::trunc) << bytes;

  const auto file = open("a.stone");
  EXPECT_EQ(file->custom_metadata().error().code, ErrorCode::kCorrupt);
  const auto exported = file->export_steps(path("b.stone"), {.steps = {{1}}});
  ASSERT_TRUE(exported) << exported.error().message;
  EXPECT_TRUE(*holds_arrays(*open("b.stone"), 1, 1, kTransferSizes));
  const auto other = open("other");
  const auto imported = other->import_steps(*file, {.steps = {{1}}});
  ASSERT_TRUE(imported) << imported.error().message;
  EXPECT_TRUE(*holds_arrays(*other, 1, 1, kTransferSizes));
  EXPECT_EQ(file->export_steps(path("c.stone"), {}).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(open("third")->import_steps(*file, {}).error().code, ErrorCode::kCorrupt);
}

TEST_F(TransferTest, AFileIsTheSameWhicheverStoreOrFileItIsExportedFrom) {
  const auto store = open("run");
  ASSERT_TRUE(save_arrays(*store, 5, 1, kTransferSizes));
  ASSERT_TRUE(store->export_steps(path("a.stone"), {}));
  const auto first = open("a.stone");
  ASSERT_TRUE(first->export_steps(path("b.stone"), {}));
  const auto read = [](const std::filesystem::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(stream), {});
  };
  EXPECT_EQ(read(path("a.stone")), read(path("b.stone")));
  // Onto itself.
  ASSERT_TRUE(first->export_steps(path("a.stone"), {.overwrite = true}));
  EXPECT_EQ(read(path("a.stone")), read(path("b.stone")));
}

// So large that blocks are filled again after they were written, and of an odd size at the end.
TEST_F(TransferTest, ALargeFileHoldsWhatWasSaved) {
  const std::vector<std::size_t> sizes(45, (1 << 20) + 13);
  const auto store = open("run");
  ASSERT_TRUE(save_arrays(*store, 1, 1, sizes));
  const auto exported = store->export_steps(path("a.stone"), {});
  ASSERT_TRUE(exported) << exported.error().message;
  EXPECT_EQ(exported->file_size_bytes, std::filesystem::file_size(path("a.stone")));
  EXPECT_TRUE(*holds_arrays(*open("a.stone"), 1, 1, sizes));
}

TEST_F(TransferTest, StepsThatShareChunksAreStoredOnceUnlessAskedOtherwise) {
  const auto store = open("run");
  testing::Leaves leaves;
  for (std::size_t leaf = 0; leaf < 6; ++leaf) leaves.push_back(content(1, 1, leaf, 1 << 20));
  for (std::uint64_t step = 1; step <= 3; ++step) {
    leaves[step] = content(step, 2, step, 1 << 20);
    const auto writer = *store->begin_save(step);
    ASSERT_TRUE(testing::put_leaves(*writer, leaves));
    ASSERT_TRUE(writer->commit());
  }
  const auto shared = store->export_steps(path("shared.stone"), {});
  const auto whole = store->export_steps(path("whole.stone"), {.share = false});
  ASSERT_TRUE(shared && whole);
  EXPECT_LT(shared->file_size_bytes, 9U << 20);
  EXPECT_GT(whole->file_size_bytes, 18U << 20);
  for (const char* const name : {"shared.stone", "whole.stone"}) {
    const auto portable = open(name);
    for (std::uint64_t step = 1; step <= 3; ++step) {
      EXPECT_EQ(*testing::read_leaves(*portable, step), *testing::read_leaves(*store, step));
      // Whole leaves are shared, so that each of them can be viewed.
      const auto reader = *portable->read_step(step);
      for (std::size_t leaf = 0; leaf < leaves.size(); ++leaf) {
        EXPECT_TRUE(reader->view("state", *reader->read_leaf("state", leaf_path(leaf))));
      }
    }
    EXPECT_THAT(portable->verify()->damages, IsEmpty());
  }
}

TEST_F(TransferTest, ManyTinyLeavesAndLeavesOfOddChunkSizesComeAlong) {
  const auto store = open("run");
  const auto writer = *store->begin_save(1, {.chunk_size_bytes = 5000});
  const std::vector<std::size_t> sizes(3000, 16);
  ASSERT_TRUE(put_arrays(*writer, "tiny", 1, 1, sizes));
  ASSERT_TRUE(put_arrays(*writer, "odd", 1, 2, {70000, 600001}));
  ASSERT_TRUE(writer->commit());
  ASSERT_TRUE(store->export_steps(path("a.stone"), {}));
  const auto other = open("other");
  ASSERT_TRUE(other->import_steps(*open("a.stone"), {}));
  const auto portable = open("a.stone");
  for (const Store* const copy : {portable.get(), other.get()}) {
    const auto reader = *copy->read_step(1);
    for (const std::size_t leaf : {0U, 1U, 1500U, 2999U}) {
      EXPECT_EQ(*testing::read_array(*reader, "tiny", leaf), content(1, 1, leaf, 16));
    }
    EXPECT_EQ(*testing::read_array(*reader, "odd", 1), content(1, 2, 1, 600001));
  }
}

TEST_F(TransferTest, HooksChooseItemsAndBranchesAndReplaceLeaves) {
  const auto store = open("run");
  const auto writer = *store->begin_save(1);
  ASSERT_TRUE(put_arrays(*writer, "state", 1, 1, kTransferSizes));
  ASSERT_TRUE(put_arrays(*writer, "optimizer", 1, 2, {1 << 20}));
  ASSERT_TRUE(writer->commit());
  const TransferHooks hooks{
      .item = [](const StepReader&, std::string_view name, TransferItem& item) -> Result<bool> {
        if (name != "state") return false;
        item.structure = flat_structure(2);
        item.handler = "other";
        return true;
      },
      .leaf = [](const StepReader&, std::string_view, TransferLeaf& leaf) -> Result<void> {
        if (leaf.encoded_path != leaf_path(1)) return {};
        leaf.info.shape = {300000};
        leaf.info.size_bytes = 300000;
        leaf.source = std::make_shared<OwnedSource>(content(9, 9, 9, 300000));
        return {};
      }};
  ASSERT_TRUE(store->export_steps(path("a.stone"), {.hooks = hooks}));
  const auto other = open("other");
  ASSERT_TRUE(other->import_steps(*store, {.hooks = hooks}));
  const auto portable = open("a.stone");
  for (const Store* const copy : {portable.get(), other.get()}) {
    const auto reader = *copy->read_step(1);
    ASSERT_EQ(reader->record().items.size(), 1U);
    EXPECT_EQ(reader->read_item("state")->handler, "other");
    EXPECT_EQ(reader->read_leaves("state")->size(), 2U);
    EXPECT_EQ(*testing::read_array(*reader, "state", 0), content(1, 1, 0, kTransferSizes[0]));
    EXPECT_EQ(*testing::read_array(*reader, "state", 1), content(9, 9, 9, 300000));
  }
}

TEST_F(TransferTest, ABranchCanBecomeTheWholeItem) {
  const auto store = open("run");
  ASSERT_TRUE(save_arrays(*store, 1, 1, kTransferSizes));
  const TransferHooks hooks{
      .item = [](const StepReader&, std::string_view, TransferItem& item) -> Result<bool> {
        item.below = {PathComponent::key("5")};
        item.structure = STEPSTONE_TRY(substructure(item.structure, item.below));
        return true;
      },
      .leaf = {}};
  ASSERT_TRUE(store->export_steps(path("a.stone"), {.hooks = hooks}));
  const auto reader = *open("a.stone")->read_step(1);
  const StoredLeaf leaf = *reader->read_leaf("state", *encode_path({}));
  std::vector<std::byte> bytes(kTransferSizes[5]);
  ASSERT_TRUE(reader->read_bytes("state", leaf, 0, bytes));
  EXPECT_EQ(bytes, content(1, 1, 5, kTransferSizes[5]));
}

TEST_F(TransferTest, WhatHooksLeaveEmptyOrGetWrongIsAnErrorAndLeavesNothing) {
  const auto store = open("run");
  ASSERT_TRUE(save_arrays(*store, 1, 1, kTransferSizes));
  const TransferHooks none{.item = [](const StepReader&, std::string_view,
                                      TransferItem&) -> Result<bool> { return false; },
                           .leaf = {}};
  const TransferHooks wrong{
      .item = {},
      .leaf = [](const StepReader&, std::string_view, TransferLeaf& leaf) -> Result<void> {
        leaf.info.size_bytes += 1;
        return {};
      }};
  const TransferHooks unknown{
      .item = [](const StepReader&, std::string_view, TransferItem& item) -> Result<bool> {
        item.structure = flat_structure(9);
        return true;
      },
      .leaf = {}};
  const auto other = open("other");
  const auto fails = [&](const TransferHooks& hooks, ErrorCode code) {
    EXPECT_EQ(store->export_steps(path("a.stone"), {.hooks = hooks}).error().code, code);
    EXPECT_EQ(other->import_steps(*store, {.hooks = hooks}).error().code, code);
  };
  fails(none, ErrorCode::kInvalidArgument);
  fails(wrong, ErrorCode::kInvalidArgument);
  fails(unknown, ErrorCode::kNotFound);
  EXPECT_THAT(files(), IsEmpty());
  EXPECT_THAT(other->steps(), IsEmpty());
}

TEST_F(TransferTest, AFileThatIsThereIsOnlyReplacedOnRequest) {
  const auto store = open("run");
  ASSERT_TRUE(save_arrays(*store, 1, 1, kTransferSizes));
  ASSERT_TRUE(store->export_steps(path("a.stone"), {}));
  ASSERT_TRUE(save_arrays(*store, 2, 1, kTransferSizes));
  EXPECT_EQ(store->export_steps(path("a.stone"), {}).error().code, ErrorCode::kAlreadyExists);
  EXPECT_THAT(open("a.stone")->steps(), ElementsAre(1));
  ASSERT_TRUE(store->export_steps(path("a.stone"), {.overwrite = true}));
  EXPECT_THAT(open("a.stone")->steps(), ElementsAre(1, 2));
  EXPECT_EQ(store->export_steps(path("run"), {.overwrite = true}).error().code,
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(store->export_steps(path("no") / "a.stone", {}).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(store->export_steps(path("b.stone"), {.steps = {{1, 9}}}).error().code,
            ErrorCode::kNotFound);
  EXPECT_EQ(open("empty")->export_steps(path("b.stone"), {}).error().code, ErrorCode::kNotFound);
  EXPECT_THAT(files(), ElementsAre("a.stone"));
}

TEST_F(TransferTest, AStoppedCopyLeavesNothing) {
  const auto store = open("run");
  ASSERT_TRUE(save_arrays(*store, 1, 1, kTransferSizes));
  const auto other = open("other");
  std::atomic<int> asked = 0;
  const auto stop = [&] { return ++asked > 3; };
  EXPECT_EQ(store->export_steps(path("a.stone"), {.should_stop = stop}).error().code,
            ErrorCode::kClosed);
  // A large file, of which blocks are on their way to the disk.
  const auto large = open("large");
  const std::vector<std::size_t> sizes(40, 1 << 20);
  ASSERT_TRUE(save_arrays(*large, 1, 1, sizes));
  asked = 0;
  const auto stop_later = [&] { return ++asked > 20; };
  EXPECT_EQ(large->export_steps(path("b.stone"), {.should_stop = stop_later}).error().code,
            ErrorCode::kClosed);
  asked = 0;
  EXPECT_EQ(other->import_steps(*store, {.should_stop = stop}).error().code, ErrorCode::kClosed);
  EXPECT_THAT(files(), IsEmpty());
  EXPECT_THAT(other->steps(), IsEmpty());
}

TEST_F(TransferTest, DamageInTheOriginalIsNamedAndNothingIsCopied) {
  const auto store = open("run");
  ASSERT_TRUE(save_arrays(*store, 1, 1, kTransferSizes));
  ASSERT_TRUE(store->export_steps(path("a.stone"), {}));
  {
    std::fstream file(path("a.stone"), std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(1 << 20);
    file.put('x');
  }
  const auto portable = open("a.stone");
  const auto exported = portable->export_steps(path("b.stone"), {});
  ASSERT_FALSE(exported);
  EXPECT_EQ(exported.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(exported.error().message, HasSubstr("leaf '"));
  const auto other = open("other");
  EXPECT_EQ(other->import_steps(*portable, {}).error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(files(), ElementsAre("a.stone"));
  EXPECT_THAT(other->steps(), IsEmpty());
}

TEST_F(TransferTest, ExportsWhileTheStoreIsSavedToAndItsStepsAreRetired) {
  const auto store = open("run");
  ASSERT_TRUE(save_arrays(*store, 1, 1, kTransferSizes));
  std::atomic<bool> is_done = false;
  std::atomic<std::uint64_t> saved = 1;
  std::jthread trainer([&] {
    for (std::uint64_t step = 2; !is_done; ++step) {
      ASSERT_TRUE(save_arrays(*store, step, 1, kTransferSizes, {}, {step - 1}));
      saved = step;
    }
  });
  for (int i = 0; i < 15; ++i) {
    const auto exported = store->export_steps(path("a.stone"), {.overwrite = true});
    ASSERT_TRUE(exported) << exported.error().message;
    const auto portable = open("a.stone");
    ASSERT_THAT(portable->steps(), ::testing::SizeIs(1));
    EXPECT_TRUE(*holds_arrays(*portable, *portable->latest_step(), 1, kTransferSizes));
    const std::uint64_t before = saved;
    while (saved == before) std::this_thread::yield();
  }
  is_done = true;
}

TEST_F(TransferTest, AStepCanBeCalledOtherwiseAlsoInTheSameStore) {
  const auto store = open("run");
  ASSERT_TRUE(save_arrays(*store, 1, 1, kTransferSizes));
  ASSERT_TRUE(save_arrays(*store, 2, 2, kTransferSizes));
  const auto copied = store->import_steps(*store, {.steps = {{1}}, .as_step = 5});
  ASSERT_TRUE(copied) << copied.error().message;
  EXPECT_THAT(store->steps(), ElementsAre(1, 2, 5));
  const auto reader = *store->read_step(5);
  EXPECT_EQ(*testing::read_array(*reader, "state", 5), content(1, 1, 5, kTransferSizes[5]));
  EXPECT_EQ(store->import_steps(*store, {.as_step = 6}).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(TransferTest, StepsThatAreThereAreRefusedSkippedOrReplaced) {
  using Existing = ImportOptions::Existing;
  const auto from = open("from");
  for (const std::uint64_t step : {1U, 2U, 3U})
    ASSERT_TRUE(save_arrays(*from, step, 1, kTransferSizes));
  const auto to = open("to");
  ASSERT_TRUE(save_arrays(*to, 2, 7, kTransferSizes));
  EXPECT_EQ(to->import_steps(*from, {}).error().code, ErrorCode::kAlreadyExists);
  EXPECT_THAT(to->steps(), ElementsAre(2));
  const auto skipped = to->import_steps(*from, {.existing = Existing::kSkip});
  ASSERT_TRUE(skipped) << skipped.error().message;
  EXPECT_EQ(skipped->step_count, 2U);
  EXPECT_EQ(skipped->skipped_count, 1U);
  EXPECT_TRUE(*holds_arrays(*to, 2, 7, kTransferSizes));
  const auto replaced = to->import_steps(*from, {.existing = Existing::kOverwrite});
  ASSERT_TRUE(replaced) << replaced.error().message;
  EXPECT_TRUE(*holds_arrays(*to, 2, 1, kTransferSizes));
}

TEST_F(TransferTest, ProgressGoesUpToAllBytes) {
  const auto store = open("run");
  for (const std::uint64_t step : {1U, 2U})
    ASSERT_TRUE(save_arrays(*store, step, 1, kTransferSizes));
  const auto check = [&](const std::function<bool(const TransferProgress&)>& copy) {
    std::uint64_t last = 0;
    std::uint64_t total = 0;
    ASSERT_TRUE(copy([&](std::uint64_t done_bytes, std::uint64_t total_bytes) {
      EXPECT_GE(done_bytes, last);
      last = done_bytes;
      total = total_bytes;
    }));
    EXPECT_EQ(total, 2 * store->step_record(1)->size_bytes);
    EXPECT_EQ(last, total);
  };
  check([&](const TransferProgress& progress) {
    return store->export_steps(path("a.stone"), {.progress = progress}).has_value();
  });
  const auto other = open("other");
  check([&](const TransferProgress& progress) {
    return other->import_steps(*store, {.progress = progress}).has_value();
  });
}

}  // namespace
}  // namespace stepstone
