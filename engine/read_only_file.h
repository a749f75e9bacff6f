#pragma once
// A file that is read, and perhaps mapped.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "format/error.h"

namespace rocksdb {
class FileSystem;
}

namespace stepstone {

// Safe from several threads.
class ReadOnlyFile {
 public:
  // `file_system` may be null: the machine's own. Errors as the operating system gives them.
  static Result<std::unique_ptr<ReadOnlyFile>> open(
      const std::filesystem::path& path, std::shared_ptr<rocksdb::FileSystem> file_system);

  ReadOnlyFile() = default;
  ReadOnlyFile(const ReadOnlyFile&) = delete;
  ReadOnlyFile& operator=(const ReadOnlyFile&) = delete;
  virtual ~ReadOnlyFile() = default;

  // When it was opened.
  virtual std::uint64_t size_bytes() const = 0;
  // kCorrupt: the file ends earlier. kIo.
  virtual Result<void> read(std::uint64_t offset, std::span<std::byte> destination) const = 0;
  // Whether the path still leads to this file, unchanged as far as its size and time tell.
  virtual bool is_current() const = 0;

  // The whole file, for as long as it is held.
  class Mapping {
   public:
    explicit Mapping(std::span<const std::byte> bytes) : bytes_(bytes) {}
    ~Mapping();
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;

    std::span<const std::byte> bytes() const { return bytes_; }
    // Reads these bytes, which are inside, into memory, where a bare look at a page that the file
    // does not have any more, or that the disk cannot read, would stop the process. kCorrupt: so it
    // would.
    Result<void> populate(std::span<const std::byte> bytes) const;

   private:
    std::span<const std::byte> bytes_;
  };
  // kUnsupported: not on this file system. kCorrupt: the file has become shorter. kIo, kLimit.
  virtual Result<std::shared_ptr<const Mapping>> map() const = 0;
};

}  // namespace stepstone
