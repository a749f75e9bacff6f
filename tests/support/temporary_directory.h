#pragma once
// A directory that goes when the test does.

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <system_error>

namespace stepstone {

class TemporaryDirectory {
 public:
  // In memory where the machine has /dev/shm, because most tests ask what the program does, not the
  // disk.
  TemporaryDirectory()
      : TemporaryDirectory(std::getenv("STEPSTONE_TEST_DIRECTORY") != nullptr
                               ? std::filesystem::path(std::getenv("STEPSTONE_TEST_DIRECTORY"))
                           : access("/dev/shm", W_OK) == 0
                               ? std::filesystem::path("/dev/shm")
                               : std::filesystem::temp_directory_path()) {}
  explicit TemporaryDirectory(const std::filesystem::path& parent) {
    std::string pattern = (parent / "stepstone-test-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) {
      throw std::runtime_error("no temporary directory in " + parent.string());
    }
    path_ = pattern;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace stepstone
