#include "api/shared_store.h"

#include <atomic>
#include <thread>

#include "api/checkpoint_plan.h"
#include "api/tree_plan.h"
#include "api/tree_reader.h"
#include "tests/api/support.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using testing::fails;
using testing::is_ok;
using Steps = std::vector<std::uint64_t>;

OpenOptions writing() {
  OpenOptions options;
  options.create_if_missing = true;
  return options;
}
OpenOptions reading() {
  OpenOptions options;
  options.read_only = true;
  return options;
}

class SharedStoreTest : public ::testing::Test {
 protected:
  SharedStore open(const OpenOptions& options) const {
    auto store = SharedStore::open(path(), options);
    EXPECT_TRUE(is_ok(store));
    return *std::move(store);
  }
  static void save(Store& store, std::uint64_t step) {
    const auto writer = store.begin_save(step);
    ASSERT_TRUE(is_ok(writer));
    ASSERT_TRUE(is_ok(put_tree(**writer, kDefaultItem, Tree(static_cast<std::int64_t>(step)))));
    ASSERT_TRUE(is_ok((*writer)->commit()));
  }
  static Tree tree_of(Store& store, std::uint64_t step) {
    return *read_tree(**store.read_step(step), kDefaultItem);
  }
  std::filesystem::path path() const { return directory_.path() / "run"; }

  TemporaryDirectory directory_;
};

TEST_F(SharedStoreTest, TwoWritersOfOneDirectoryShareItsStore) {
  SharedStore first = open(writing());
  const SharedStore second = open(writing());
  EXPECT_EQ(&*first, &*second);
  save(*first, 1);
  save(*second, 2);
  EXPECT_EQ(first->steps(), (Steps{1, 2}));
  EXPECT_TRUE(is_ok(first.close()));
  EXPECT_FALSE(first.is_open());
  EXPECT_EQ(tree_of(*second, 1), Tree(1));
}

TEST_F(SharedStoreTest, TheDirectoryIsKnownByItsIdentityNotItsName) {
  const SharedStore first = open(writing());
  std::filesystem::create_directory_symlink(path(), directory_.path() / "link");
  const auto linked = SharedStore::open(directory_.path() / "link", writing());
  ASSERT_TRUE(is_ok(linked));
  EXPECT_EQ(&*first, &**linked);
  const auto dotted = SharedStore::open(path() / ".." / "run", writing());
  ASSERT_TRUE(is_ok(dotted));
  EXPECT_EQ(&*first, &**dotted);

  // What takes the place of one that was moved away is never taken for it. RocksDB, which knows the
  // directories that it has locked by their names, does not allow it yet.
  std::filesystem::rename(path(), directory_.path() / "moved");
  EXPECT_TRUE(fails(SharedStore::open(path(), writing()), ErrorCode::kBusy));
  const auto moved = SharedStore::open(directory_.path() / "moved", writing());
  ASSERT_TRUE(is_ok(moved));
  EXPECT_EQ(&*first, &**moved);
}

TEST_F(SharedStoreTest, AReaderBesideTheWriterOfItsProcessSharesTheWritersStore) {
  SharedStore writer = open(writing());
  const SharedStore reader = open(reading());
  EXPECT_EQ(&*writer, &*reader);
  save(*writer, 1);
  EXPECT_EQ(tree_of(*reader, 1), Tree(1));
  // It stays open for the reader.
  EXPECT_TRUE(is_ok(writer.close()));
  EXPECT_EQ(tree_of(*reader, 1), Tree(1));
}

TEST_F(SharedStoreTest, AReaderThatWasFirstJoinsTheWriterAtItsReload) {
  {
    const SharedStore earlier = open(writing());
    save(*earlier, 1);
  }
  SharedStore reader = open(reading());
  const SharedStore other_reader = open(reading());
  EXPECT_EQ(&*reader, &*other_reader);
  EXPECT_TRUE(reader->is_read_only());
  const auto held = *reader->read_step(1);
  const SharedStore writer = open(writing());
  save(*writer, 2);
  EXPECT_EQ(reader->steps(), Steps{1});
  ASSERT_TRUE(is_ok(reader.reload()));
  EXPECT_EQ(&*reader, &*writer);
  EXPECT_EQ(reader->steps(), (Steps{1, 2}));
  EXPECT_EQ(other_reader->steps(), Steps{1}) << "nobody asked for more";
  EXPECT_EQ(*read_tree(*held, kDefaultItem), Tree(1)) << "a reader stays as it is";
}

// A Store that was not opened through the table stands for one of another process.
TEST_F(SharedStoreTest, ReloadShowsWhatAnotherProcessHasCommitted) {
  const auto writer = Store::open(path(), writing());
  ASSERT_TRUE(is_ok(writer));
  save(**writer, 1);
  EXPECT_TRUE(fails(SharedStore::open(path(), writing()), ErrorCode::kBusy, {path().string()}));
  SharedStore reader = open(reading());
  const Store* const before = &*reader;
  ASSERT_TRUE(is_ok(reader.reload()));
  EXPECT_EQ(&*reader, before) << "nothing to see";
  save(**writer, 2);
  EXPECT_FALSE(reader->is_current());
  const SharedStore later = open(reading());
  EXPECT_EQ(later->steps(), (Steps{1, 2})) << "whoever opens sees all there is";
  EXPECT_EQ(reader->steps(), Steps{1});
  ASSERT_TRUE(is_ok(reader.reload()));
  EXPECT_EQ(reader->steps(), (Steps{1, 2}));
  EXPECT_EQ(&*reader, &*later);
}

TEST_F(SharedStoreTest, TheLastShareClosesAndFreesTheLock) {
  SharedStore first = open(writing());
  save(*first, 1);
  SharedStore second = open(writing());
  auto held = *first->read_step(1);
  EXPECT_TRUE(is_ok(first.close())) << "the other one has it open";
  EXPECT_TRUE(fails(second.close(), ErrorCode::kBusy, {path().string()}));
  EXPECT_EQ(second->steps(), Steps{1}) << "still open";
  held.reset();
  EXPECT_TRUE(is_ok(second.close()));
  EXPECT_TRUE(is_ok(second.close())) << "again";
  EXPECT_TRUE(is_ok(Store::open(path(), writing())));
}

TEST_F(SharedStoreTest, AFailedOpenLeavesNothingBehind) {
  EXPECT_TRUE(fails(SharedStore::open(path(), reading()), ErrorCode::kNotFound, {path().string()}));
  EXPECT_FALSE(std::filesystem::exists(path()));
  open(writing());
  EXPECT_TRUE(is_ok(Store::open(path(), writing()))) << "the temporary share is gone";
}

TEST_F(SharedStoreTest, ManyThreadsOpenAndCloseAtOnce) {
  std::atomic<int> failure_count = 0;
  std::vector<std::thread> threads;
  for (std::uint64_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (std::uint64_t i = 0; i < 10; ++i) {
        auto store = SharedStore::open(path(), writing());
        const auto writer =
            store ? (*store)->begin_save(10 * thread + i)
                  : Result<std::unique_ptr<StepWriter>>(tl::unexpected<Error>(store.error()));
        const bool is_saved =
            writer && put_tree(**writer, kDefaultItem, Tree(1)) && (*writer)->commit();
        if (!is_saved) ++failure_count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failure_count, 0);
  EXPECT_EQ(open(reading())->steps().size(), 40U);
}

}  // namespace
}  // namespace stepstone
