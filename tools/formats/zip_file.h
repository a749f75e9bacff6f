#pragma once
// ZIP archives from strangers, read through minizip, which walks the directory instead of loading
// it.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/leaf_source.h"
#include "format/error.h"
#include "tools/formats/input_file.h"

namespace stepstone::tool {

struct ZipEntry {
  std::string name;
  std::uint64_t size_bytes = 0;  // Unpacked.
  std::uint64_t packed_size_bytes = 0;
  std::uint64_t data_position = 0;
  std::uint64_t directory_position = 0;  // Of its entry, and its place there: minizip's own words.
  std::uint64_t number = 0;
  bool is_deflated = false;
};

// Not thread-safe; the sources it gives are, and do not need it.
class ZipFile {
 public:
  // Checks the whole directory, and each entry against its local header. kCorrupt: they do not
  // agree, entries overlap, a name is there twice, or they would unpack to more than kExpansionMax
  // times the file's size. kUnsupported: encrypted entries, and methods other than stored and
  // deflated. kLimit: more than kEntriesMax entries, or a name longer than any leaf's. Messages do
  // not begin with the path.
  static Result<std::unique_ptr<ZipFile>> open(std::shared_ptr<const InputFile> file);
  ~ZipFile();
  ZipFile(const ZipFile&) = delete;
  ZipFile& operator=(const ZipFile&) = delete;

  static constexpr std::size_t kEntriesMax = std::size_t{1} << 20;

  const std::vector<ZipEntry>& entries() const { return entries_; }  // In the directory's order.
  // Null: none of that name.
  const ZipEntry* find(std::string_view name) const;

  // The bytes of an entry, after all of them were read once and held against their checksum. One
  // that is deflated is unpacked into a temporary file then. kCorrupt: they are other ones.
  // kNoSpace.
  Result<std::shared_ptr<const LeafSource>> open_entry(const ZipEntry& entry);

 private:
  ZipFile() = default;

  Result<void> load();
  Result<ZipEntry> read_entry();
  Result<void> check_local_name(const ZipEntry& entry, std::uint64_t extra_size) const;
  Result<void> check_directory_end() const;
  Result<void> check_layout() const;

  std::shared_ptr<const InputFile> file_;
  std::shared_ptr<InputFile> unpacked_;  // Null until it is needed.
  void* archive_ = nullptr;              // minizip's.
  std::vector<ZipEntry> entries_;
  std::uint64_t directory_entry_size_bytes_ = 0;  // Of the last one that was read.
  std::vector<std::size_t> by_name_;
};

}  // namespace stepstone::tool
