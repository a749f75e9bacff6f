// Bad input over the whole public API: each error has the right code, names the thing and the way
// out, and leaves the store as it was.
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <functional>

#include "api/checkpoint_manager.h"
#include "api/checkpointer.h"
#include "tests/api/support.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using testing::array_of;
using testing::fails;
using testing::is_ok;
using testing::kMiB;

class ErrorTest : public ::testing::Test {
 protected:
  std::filesystem::path at(const char* name) const { return directory_.path() / name; }

  TemporaryDirectory directory_;
  Checkpointer checkpointer_;
};

Tree sample() { return Tree::dict({{"w", array_of<float>({1, 2, 3})}}); }

// Every call that takes a path, given one that cannot be right.
TEST_F(ErrorTest, NamesThePathThatIsWrong) {
  std::ofstream(at("file")) << "text";
  std::filesystem::create_directory(at("empty"));
  std::filesystem::create_directory(at("folder"));
  std::ofstream(at("folder") / "notes.txt") << "text";
  std::filesystem::create_directory(at("database"));
  std::ofstream(at("database") / "CURRENT") << "MANIFEST-000001";
  const auto open = [](const std::filesystem::path& path) {
    return CheckpointManager::open(path).map([](const auto& /*manager*/) {});
  };
  const auto open_existing = [](const std::filesystem::path& path) {
    return CheckpointManager::open(path, {.create = false}).map([](const auto& /*manager*/) {});
  };
  const auto open_read_only = [](const std::filesystem::path& path) {
    return CheckpointManager::open(path, {.read_only = true}).map([](const auto& /*manager*/) {});
  };
  const auto save = [&](const std::filesystem::path& path) {
    return checkpointer_.save(path, args::StandardSave(sample()));
  };
  const auto restore = [&](const std::filesystem::path& path) {
    return checkpointer_.restore(path).map([](const Tree& /*tree*/) {});
  };
  struct Case {
    const char* name;
    std::function<Result<void>(const std::filesystem::path& path)> call;
    std::filesystem::path path;
    ErrorCode code;
    std::string_view part;
  };
  const ErrorCode invalid = ErrorCode::kInvalidArgument;
  const ErrorCode not_found = ErrorCode::kNotFound;
  const std::vector<Case> cases = {
      {"open", open, "", invalid, "path is empty"},
      {"open", open, at("file"), invalid, "it is a file"},
      {"open", open, at("database"), invalid, "without HEAD"},
      {"open existing", open_existing, "", invalid, "path is empty"},
      {"open existing", open_existing, at("missing"), not_found, "no such directory"},
      {"open existing", open_existing, at("empty"), not_found, "empty"},
      {"open existing", open_existing, at("file"), invalid, "it is a file"},
      {"open existing", open_existing, at("folder"), not_found, "notes.txt"},
      {"open read-only", open_read_only, at("missing"), not_found, "no such directory"},
      {"open read-only", open_read_only, at("empty"), not_found, "empty"},
      {"open read-only", open_read_only, at("file"), invalid, "it is a file"},
      {"save", save, "", invalid, "path is empty"},
      {"save", save, at("file"), invalid, "it is a file"},
      {"save", save, at("folder"), invalid, "choose"},
      {"restore", restore, "", invalid, "path is empty"},
      {"restore", restore, at("missing"), not_found, "no such directory"},
      {"restore", restore, at("empty"), not_found, "empty"},
      {"restore", restore, at("file"), invalid, "it is a file"},
      {"restore", restore, at("folder"), not_found, "notes.txt"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(std::string(c.name) + " " + c.path.string());
    EXPECT_TRUE(fails(c.call(c.path), c.code, {c.path.string(), c.part}));
  }
  EXPECT_FALSE(std::filesystem::exists(at("missing")));
  EXPECT_TRUE(std::filesystem::is_empty(at("empty")));
}

TEST_F(ErrorTest, AFileOnTheWayIsAnError) {
  std::ofstream(at("file")) << "text";
  const auto path = at("file") / "run";
  const auto opened = CheckpointManager::open(path);
  ASSERT_FALSE(opened.has_value());
  EXPECT_NE(opened.error().message.find(path.string()), std::string::npos);
  EXPECT_FALSE(checkpointer_.restore(path).has_value());
  EXPECT_EQ(std::filesystem::file_size(at("file")), 4U);
}

// While it lives, the process is a user without rights, where it was root.
class Unprivileged {
 public:
  Unprivileged() : previous_(geteuid()) {
    constexpr uid_t kNobody = 65534;
    is_so_ = previous_ != 0 || seteuid(kNobody) == 0;
  }
  ~Unprivileged() {
    if (geteuid() != previous_ && seteuid(previous_) != 0) std::abort();
  }
  Unprivileged(const Unprivileged&) = delete;
  Unprivileged& operator=(const Unprivileged&) = delete;

  bool is_so() const { return is_so_; }

 private:
  uid_t previous_;
  bool is_so_ = false;
};

TEST_F(ErrorTest, NoPermissionIsSaidSo) {
  std::filesystem::permissions(directory_.path(), std::filesystem::perms{0755});
  ASSERT_TRUE(is_ok(checkpointer_.save(at("c"), args::StandardSave(sample()))));
  std::filesystem::create_directory(at("locked"));
  std::filesystem::permissions(at("c"), std::filesystem::perms{0555});
  std::filesystem::permissions(at("locked"), std::filesystem::perms{0555});
  {
    const Unprivileged unprivileged;
    if (!unprivileged.is_so()) GTEST_SKIP() << "root may write everywhere, and cannot be left";
    const args::StandardSave save(sample());
    for (const auto& path : {at("locked"), at("locked") / "c"}) {
      EXPECT_TRUE(
          fails(checkpointer_.save(path, save), ErrorCode::kPermissionDenied, {path.string()}));
    }
    EXPECT_TRUE(fails(checkpointer_.save(at("c"), save, {.force = true}),
                      ErrorCode::kPermissionDenied, {at("c").string()}));
  }
  std::filesystem::permissions(at("c"), std::filesystem::perms{0755});
  EXPECT_EQ(*checkpointer_.restore(at("c")), sample());
}

TEST_F(ErrorTest, AFullDiskIsSaidSoAndLeavesRoomForAnotherTry) {
  const auto manager = CheckpointManager::open(at("run"), {.enable_async_checkpointing = false});
  ASSERT_TRUE(is_ok(manager));
  const args::StandardSave large(Tree::dict({{"big", testing::new_bytes(4 * kMiB)}}));
  {
    const testing::FileSizeLimit limit(kMiB);
    EXPECT_TRUE(fails((*manager)->save(1, large), ErrorCode::kNoSpace, {"step 1"}));
  }
  EXPECT_TRUE((*manager)->all_steps().empty());
  EXPECT_TRUE(std::filesystem::is_empty(at("run") / "staging")) << "nothing is left behind";
  EXPECT_TRUE(is_ok((*manager)->save(1, large)));
}

// Flips one byte in the middle of the largest file of a store.
void damage_largest_file(const std::filesystem::path& directory) {
  std::filesystem::path largest;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (!entry.is_regular_file() || entry.path().extension() != ".sst") continue;
    if (largest.empty() || entry.file_size() > std::filesystem::file_size(largest)) {
      largest = entry.path();
    }
  }
  std::fstream file(largest, std::ios::in | std::ios::out | std::ios::binary);
  const auto middle = static_cast<std::streamoff>(std::filesystem::file_size(largest) / 2);
  file.seekg(middle);
  const auto byte = static_cast<char>(file.get() ^ 0x10);
  file.seekp(middle);
  file.put(byte);
  ASSERT_TRUE(file.good());
}

TEST_F(ErrorTest, ADamagedLeafIsNamed) {
  const Tree tree =
      Tree::dict({{"p", Tree::dict({{"w", testing::new_bytes(4 * kMiB)}})}, {"small", 1}});
  ASSERT_TRUE(is_ok(checkpointer_.save(at("c"), args::StandardSave(tree))));
  damage_largest_file(at("c"));
  EXPECT_TRUE(fails(checkpointer_.restore(at("c")), ErrorCode::kCorrupt,
                    {"step 0", "item 'default'", "leaf 'p/w'"}));
}

TEST_F(ErrorTest, AStoreThatMissesItsHalfIsNotReplaced) {
  for (const auto& [part, code] : {std::pair("HEAD", ErrorCode::kInvalidArgument),
                                   std::pair("CURRENT", ErrorCode::kCorrupt)}) {
    SCOPED_TRACE(part);
    ASSERT_TRUE(is_ok(checkpointer_.save(at(part), args::StandardSave(sample()))));
    std::filesystem::rename(at(part) / part, at("aside"));
    for (const bool force : {false, true}) {
      EXPECT_TRUE(
          fails(checkpointer_.save(at(part), args::StandardSave(sample()), {.force = force}), code,
                {at(part).string(), part}));
    }
    EXPECT_TRUE(fails(checkpointer_.restore(at(part)), code, {at(part).string(), part}));
    std::filesystem::rename(at("aside"), at(part) / part);
    EXPECT_TRUE(is_ok(checkpointer_.restore(at(part)))) << "put back, all is there";
  }
}

TEST_F(ErrorTest, AnUnknownStepNamesTheStepsThereAre) {
  const auto manager = CheckpointManager::open(at("run"));
  ASSERT_TRUE(is_ok(manager));
  EXPECT_TRUE(fails((*manager)->restore(5), ErrorCode::kNotFound, {"step 5", "no steps"}));
  for (std::uint64_t step = 0; step < 12; ++step) {
    ASSERT_TRUE(is_ok((*manager)->save(step, args::StandardSave(sample()))));
  }
  EXPECT_TRUE(fails((*manager)->restore(99), ErrorCode::kNotFound,
                    {"step 99", at("run").string(), "10, 11", "earlier"}));
  EXPECT_TRUE(fails((*manager)->delete_step(99), ErrorCode::kNotFound, {"step 99", "10, 11"}));
  EXPECT_EQ((*manager)->all_steps().size(), 12U);
}

}  // namespace
}  // namespace stepstone
