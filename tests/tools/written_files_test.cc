// Goal: what the tool writes is on the disk before it has its name, and the name before the tool
// says so. Method: the calls by which it does that are met on their way to the kernel.
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <mutex>
#include <string>
#include <vector>

#include "tests/tools/support.h"
#include "tools/formats/formats.h"

namespace stepstone::tool {
namespace {

// What was done, while it is wanted: "sync PATH", "name PATH".
std::mutex events_mutex;
std::vector<std::string>* wanted_events = nullptr;

void note_event(const char* what, const std::filesystem::path& path) {
  const std::scoped_lock lock(events_mutex);
  if (wanted_events != nullptr) {
    wanted_events->push_back(std::string(what) + " " + path.filename().string());
  }
}

}  // namespace
}  // namespace stepstone::tool

// In the place of the C library's, for the whole program.
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name)
extern "C" int fsync(int descriptor) {
  std::error_code ignored;
  stepstone::tool::note_event("sync", std::filesystem::read_symlink(
                                          "/proc/self/fd/" + std::to_string(descriptor), ignored));
  return static_cast<int>(::syscall(SYS_fsync, descriptor));
}

extern "C" int rename(const char* from, const char* to) noexcept {
  stepstone::tool::note_event("name", to);
  return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

extern "C" int renameat2(int from_directory, const char* from, int to_directory, const char* to,
                         unsigned flags) noexcept {
  stepstone::tool::note_event("name", to);
  return static_cast<int>(::syscall(SYS_renameat2, from_directory, from, to_directory, to, flags));
}
// NOLINTEND(readability-inconsistent-declaration-parameter-name)

namespace stepstone::tool {
namespace {

class WrittenFilesTest : public TemporaryDirectoryTest {
 protected:
  // Three tensors of 400 bytes.
  std::vector<std::string> events_of_writing(const char* format, const char* name, bool replace,
                                             std::uint64_t shard_size_bytes = 0) const {
    write_file(path("in.safetensors"),
               safetensors_bytes({random_tensor("a", DType::kFloat32, {100}, 1),
                                  random_tensor("b", DType::kFloat32, {100}, 2),
                                  random_tensor("c", DType::kFloat32, {100}, 3)}));
    const Contents contents = find_format("safetensors")->read(path("in.safetensors")).value();
    std::vector<std::string> events;
    {
      const std::scoped_lock lock(events_mutex);
      wanted_events = &events;
    }
    const auto written = find_format(format)->write(
        contents, {.path = path(name),
                   .replace = replace,
                   .shard_size_bytes = shard_size_bytes,
                   .on_bytes = [](std::uint64_t) -> Result<void> { return {}; }});
    EXPECT_TRUE(written) << written.error().message;
    const std::scoped_lock lock(events_mutex);
    wanted_events = nullptr;
    return events;
  }

  std::string partial(const std::string& name) const {
    return "sync " + name + ".partial-" + std::to_string(::getpid());
  }
  std::string directory() const { return "sync " + path("x").parent_path().filename().string(); }
};

TEST_F(WrittenFilesTest, AreOnTheDiskBeforeTheyHaveTheirNameAndTheNameIsToo) {
  for (const char* const format : {"safetensors", "npz", "pt", "gguf"}) {
    const std::string name = std::string("out.") + format;
    for (const bool replace : {false, true}) {
      EXPECT_EQ(events_of_writing(format, name.c_str(), replace),
                (std::vector<std::string>{partial(name), "name " + name, directory()}))
          << format;
    }
  }
}

// Shards of two models under one index would be read as a model that never was.
TEST_F(WrittenFilesTest, ShardsAreAllOnTheDiskBeforeTheFirstHasItsName) {
  const std::string one = "m-00001-of-00003.safetensors";
  const std::string two = "m-00002-of-00003.safetensors";
  const std::string three = "m-00003-of-00003.safetensors";
  const std::string index = "m.safetensors.index.json";
  for (const bool replace : {false, true}) {
    EXPECT_EQ(
        events_of_writing("safetensors", "m.safetensors", replace, 400),
        (std::vector<std::string>{partial(one), partial(two), partial(three), "name " + one,
                                  directory(), "name " + two, directory(), "name " + three,
                                  directory(), partial(index), "name " + index, directory()}));
  }
}

}  // namespace
}  // namespace stepstone::tool
