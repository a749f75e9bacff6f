// Portable files that no writer of ours makes, through the doors that a user opens: Store::open,
// verify and import. Each attack of tests/format/portable_attacks.cc is a whole file but for one
// thing, under hashes that fit. Each is refused with an error that says what is wrong, in memory
// that the file's size bounds, and the store that it was to be imported into is afterwards, file by
// file, what it was. An import reads leaves, and does not see what no leaf shows: then the copy has
// what their hashes say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <string_view>

#include "engine/store.h"
#include "engine/transfer.h"
#include "tests/format/portable_attacks.h"
#include "tests/support/engine_steps.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using stepstone::testing::holds_arrays;
using stepstone::testing::save_arrays;
using test::allocated_bytes;
using test::Attack;
using test::PortableParts;

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

// A few chunks of the largest size, and what a store takes for a save. Every number of an attack is
// far beyond it.
constexpr std::uint64_t kMemoryBytes = std::uint64_t{256} << 20;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEPSTONE_HAS_SHADOW_MEMORY 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define STEPSTONE_HAS_SHADOW_MEMORY 1
#endif
#endif

// Lets the process have so many more bytes of addresses: what is mapped is seen here, too, and not
// only what operator new gives. Without effect under a sanitizer, which maps terabytes for itself.
class AddressLimit {
 public:
  explicit AddressLimit(std::uint64_t more_bytes) {
    getrlimit(RLIMIT_AS, &previous_);
#ifndef STEPSTONE_HAS_SHADOW_MEMORY
    std::uint64_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    rlimit limit = previous_;
    limit.rlim_cur = pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)) + more_bytes;
    EXPECT_EQ(setrlimit(RLIMIT_AS, &limit), 0);
#else
    (void)more_bytes;
#endif
  }
  ~AddressLimit() { setrlimit(RLIMIT_AS, &previous_); }
  AddressLimit(const AddressLimit&) = delete;
  AddressLimit& operator=(const AddressLimit&) = delete;

 private:
  rlimit previous_{};
};

// Of the step that the store has.
const std::vector<std::size_t> kHostileSizes = {100, 1 << 20};

class HostilePortableStore : public ::testing::Test {
 protected:
  void SetUp() override {
    auto store = Store::open(directory_.path() / "run", {.create_if_missing = true});
    ASSERT_TRUE(store) << store.error().message;
    store_ = *std::move(store);
    ASSERT_TRUE(save_arrays(*store_, 3, 1, kHostileSizes));
    store_->wait_for_collector();
    files_ = files();
  }
  // All of the store, file by file, but for what RocksDB says in its log.
  std::map<std::string, std::string> files() const {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(directory_.path())) {
      if (!entry.is_regular_file() || entry.path() == file()) continue;
      const std::string name = entry.path().filename();
      if (name.starts_with("LOG")) continue;
      std::ifstream stream(entry.path(), std::ios::binary);
      files[entry.path()] = {std::istreambuf_iterator<char>(stream), {}};
    }
    return files;
  }
  std::filesystem::path file() const { return directory_.path() / "hostile.stone"; }
  void put_file(const std::string& bytes) const {
    std::ofstream(file(), std::ios::binary | std::ios::trunc) << bytes;
  }
  // What opening, verification or an import says; the error of the first that refuses it.
  Result<void> open_and_verify() const {
    const auto from = STEPSTONE_TRY(Store::open(file(), {}));
    const VerifyReport report = STEPSTONE_TRY(from->verify());
    if (report.damages.empty()) return {};
    return fail(ErrorCode::kCorrupt, report.damages[0].message);
  }
  Result<void> import() {
    const auto from = STEPSTONE_TRY(Store::open(file(), {}));
    STEPSTONE_TRY(store_->import_steps(*from, {.compression = Compression::kAlways}));
    return {};
  }
  void expect_untouched() {
    EXPECT_THAT(store_->steps(), ElementsAre(3));
    EXPECT_TRUE(files() == files_);
    EXPECT_TRUE(*holds_arrays(*store_, 3, 1, kHostileSizes));
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Store> store_;
  std::map<std::string, std::string> files_;
};

TEST_F(HostilePortableStore, TheFileThatTheAttacksStartFromIsTaken) {
  put_file(PortableParts().build());
  const auto verified = open_and_verify();
  EXPECT_TRUE(verified) << verified.error().message;
  const auto imported = import();
  EXPECT_TRUE(imported) << imported.error().message;
  EXPECT_THAT(store_->steps(), ElementsAre(3, 5));
}

TEST_F(HostilePortableStore, EachAttackIsRefusedAndWritesNothing) {
  const AddressLimit limit(std::uint64_t{1} << 30);
  for (const Attack& attack : test::attacks()) {
    SCOPED_TRACE(attack.name);
    PortableParts parts;
    attack.change(&parts);
    put_file(parts.build());
    const std::uint64_t before = allocated_bytes();
    const auto verified = open_and_verify();
    ASSERT_FALSE(verified);
    // What does not even begin like a portable file is told apart from a damaged one.
    const bool is_another_file = verified.error().code == ErrorCode::kInvalidArgument;
    const char* const message =
        is_another_file ? "neither a store's directory nor a portable file" : attack.message;
    EXPECT_THAT(verified.error().message, HasSubstr(message));
    const auto imported = import();
    EXPECT_LT(allocated_bytes() - before, kMemoryBytes);
    ASSERT_FALSE(imported);
    // Of two things that are wrong it may meet the other one first.
    EXPECT_THAT(imported.error().message, HasSubstr(file().native()));
    EXPECT_EQ(imported.error().code, is_another_file ? verified.error().code : attack.expected);
    expect_untouched();
  }
}

// Names are bytes and never lead anywhere: they are taken as they are.
TEST_F(HostilePortableStore, NamesThatLookLikePathsAreNames) {
  const std::vector<std::string> names = {
      std::string(1, '\0'), "", "../../../escape", "..", "/tmp/x", "HEAD"};
  test::SampleStep step;
  step.info.step = 5;
  for (const char* const item_name : {"../../escape", "/escape"}) {
    test::SampleItem item;
    item.info = {.name = item_name, .handler = "../handler"};
    item.info.structure.kinds.assign(names.size() + 1, NodeKind::kLeaf);
    item.info.structure.kinds[0] = NodeKind::kDict;
    item.info.structure.child_counts = {static_cast<std::uint32_t>(names.size())};
    std::map<std::string, test::SampleLeaf> leaves;
    for (const std::string& name : names) {
      append_component(item.info.structure.labels, PathComponent::key(name));
      test::SampleLeaf leaf;
      leaf.info = {.encoded_path = *encode_path({PathComponent::key(name)}),
                   .kind = LeafKind::kBytes,
                   .size_bytes = name.size()};
      leaf.bytes = name;
      leaves[leaf.info.encoded_path] = leaf;
    }
    for (const auto& [path, leaf] : leaves) item.leaves.push_back(leaf);
    step.items.push_back(item);
  }
  put_file(test::written({step}, {}, test::Hashes::kUnknown));
  const auto imported = import();
  ASSERT_TRUE(imported) << imported.error().message;
  const auto reader = *store_->read_step(5);
  for (const test::SampleItem& item : step.items) {
    for (const std::string& name : names) {
      const auto leaf = reader->read_leaf(item.info.name, *encode_path({PathComponent::key(name)}));
      ASSERT_TRUE(leaf) << leaf.error().message;
      std::string bytes(name.size(), '?');
      ASSERT_TRUE(
          reader->read_bytes(item.info.name, *leaf, 0, std::as_writable_bytes(std::span(bytes))));
      EXPECT_EQ(bytes, name);
    }
  }
  std::vector<std::string> entries;
  for (const auto& entry : std::filesystem::directory_iterator(directory_.path())) {
    entries.push_back(entry.path().filename());
  }
  EXPECT_THAT(entries, UnorderedElementsAre("hostile.stone", "run"));
  EXPECT_FALSE(std::filesystem::exists(directory_.path().parent_path() / "escape"));
}

// Truthful: a file of a few kilobytes that holds more zeros than the process may have memory.
TEST_F(HostilePortableStore, HugeZerosAreVerifiedAndImportedInLittleMemory) {
  constexpr std::uint32_t kChunkCount = 128;
  constexpr std::uint32_t kChunkSizeBytes = std::uint32_t{1} << 24;
  PortableParts parts;
  parts.data = std::string(64, 'd') + std::string(8, '\0');
  parts.b.shape = {std::uint64_t{kChunkCount} * kChunkSizeBytes / 4};
  parts.b.size_bytes = std::uint64_t{kChunkCount} * kChunkSizeBytes;
  parts.b.chunk_size_bytes = kChunkSizeBytes;
  parts.b.hashes.assign(kChunkCount, hash128(std::vector<std::byte>(kChunkSizeBytes)));
  parts.b.codecs.assign(kChunkCount, Codec::kConstant);
  parts.b.stored_sizes.assign(kChunkCount, 8);
  parts.b.extents.clear();
  for (std::uint32_t chunk = 0; chunk < kChunkCount; ++chunk) {
    parts.b.extents.push_back({chunk, 0, 128});
  }
  parts.item.size_bytes = parts.step.size_bytes = parts.step.items[0].size_bytes =
      64 + parts.b.size_bytes;
  put_file(parts.build());
  ASSERT_LT(std::filesystem::file_size(file()), std::uint64_t{32} << 10);
  const AddressLimit limit(std::uint64_t{1} << 30);
  const auto verified = open_and_verify();
  EXPECT_TRUE(verified) << verified.error().message;
  const auto imported = import();
  ASSERT_TRUE(imported) << imported.error().message;
  EXPECT_LT(store_->usage()->stored_bytes, std::uint64_t{64} << 20);
  EXPECT_EQ(store_->read_step(5)
                ->get()
                ->read_leaf("state", *encode_path({PathComponent::key("b")}))
                ->record.size_bytes,
            parts.b.size_bytes);
}

}  // namespace
}  // namespace stepstone
