#pragma once
// What the tests of hostile files share.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tests/tools/support.h"
#include "tools/formats/formats.h"

namespace stepstone::tool {

// A file that must be refused, and words that the message must have.
struct HostileFile {
  std::string name;
  std::string bytes;
  std::string words;
};

class HostileFileTest : public TemporaryDirectoryTest {
 protected:
  // Each is refused, inside a fence, with a message that names the file and has its words.
  void expect_refused(std::string_view format, const std::vector<HostileFile>& files) const;

  // The file cut off at `count` places, all of which must be refused.
  void expect_cut_files_are_refused(std::string_view format, const std::string& bytes,
                                    std::size_t count) const;

  // The file with a few random bytes each time: whether it is taken or not, nothing leaves the
  // fence. The seed is printed; STEPSTONE_SEED replays it.
  void expect_changed_files_do_no_harm(std::string_view format, const std::string& bytes,
                                       std::size_t count) const;
};

// The lowest `size_bytes` bytes of the value, the lowest first.
std::string little_endian(std::uint64_t value, std::size_t size_bytes);

// A file of tests/golden/interchange.
std::string golden(std::string_view name);

}  // namespace stepstone::tool
