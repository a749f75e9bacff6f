#include "tests/tools/hostile.h"

#include <cstdlib>
#include <random>

#include "tests/tools/fenced.h"

namespace stepstone::tool {
namespace {

std::uint64_t seed() {
  const char* const wanted = std::getenv("STEPSTONE_SEED");
  return wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : std::random_device()();
}

}  // namespace

void HostileFileTest::expect_refused(std::string_view format,
                                     const std::vector<HostileFile>& files) const {
  EXPECT_GE(files.size(), 40U);
  const std::filesystem::path file = path("hostile");
  for (const HostileFile& hostile : files) {
    SCOPED_TRACE(hostile.name);
    write_file(file, hostile.bytes);
    const FencedResult result = read_fenced(*find_format(format), file);
    EXPECT_TRUE(result.has_survived);
    EXPECT_TRUE(result.was_refused);
    EXPECT_NE(result.message.find(file.native()), std::string::npos) << result.message;
    EXPECT_NE(result.message.find(hostile.words), std::string::npos) << result.message;
  }
}

void HostileFileTest::expect_cut_files_are_refused(std::string_view format,
                                                   const std::string& bytes,
                                                   std::size_t count) const {
  const std::filesystem::path file = path("cut");
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t size = bytes.size() * i / count;
    SCOPED_TRACE(size);
    write_file(file, std::string_view(bytes).substr(0, size));
    const FencedResult result = read_fenced(*find_format(format), file);
    EXPECT_TRUE(result.was_refused) << result.message;
  }
}

void HostileFileTest::expect_changed_files_do_no_harm(std::string_view format,
                                                      const std::string& bytes,
                                                      std::size_t count) const {
  const std::uint64_t first_seed = seed();
  SCOPED_TRACE("STEPSTONE_SEED=" + std::to_string(first_seed));
  std::mt19937_64 random(first_seed);
  const std::filesystem::path file = path("changed");
  std::size_t refused_count = 0;
  for (std::size_t i = 0; i < count; ++i) {
    std::string changed = bytes;
    for (std::size_t change = 0; change <= random() % 4; ++change) {
      changed[random() % changed.size()] = static_cast<char>(random());
    }
    write_file(file, changed);
    const FencedResult result = read_fenced(*find_format(format), file);
    EXPECT_TRUE(result.has_survived) << "change " << i;
    refused_count += result.was_refused ? 1 : 0;
  }
  EXPECT_GT(refused_count, 0U);
}

std::string little_endian(std::uint64_t value, std::size_t size_bytes) {
  std::string bytes;
  for (std::size_t i = 0; i < size_bytes; ++i) bytes += static_cast<char>(value >> (8 * i));
  return bytes;
}

std::string golden(std::string_view name) {
  return read_file(std::filesystem::path(STEPSTONE_GOLDEN_DIRECTORY) / "interchange" / name);
}

}  // namespace stepstone::tool
