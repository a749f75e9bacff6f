#pragma once
// The file HEAD on disk.

#include <rocksdb/file_system.h>

#include <memory>
#include <string>

#include "format/error.h"
#include "format/head.h"

namespace stepstone {

// Not thread-safe; commits take turns.
class HeadFile {
 public:
  // kNotFound: no such file. kCorrupt, kUnsupported: see decode_head. kIo.
  static Result<Head> read(rocksdb::FileSystem& file_system, const std::string& path);

  // Creates the file durably (under a temporary name, then renamed) with `head` in its slot,
  // replacing any that is there.
  static Result<HeadFile> create(rocksdb::FileSystem& file_system, const std::string& directory,
                                 const std::string& path, const Head& head);
  static Result<HeadFile> open(rocksdb::FileSystem& file_system, const std::string& path);

  // Overwrites the older slot and syncs it.
  Result<void> write(const Head& head);

 private:
  explicit HeadFile(std::unique_ptr<rocksdb::FSRandomRWFile> file) : file_(std::move(file)) {}

  std::unique_ptr<rocksdb::FSRandomRWFile> file_;
};

}  // namespace stepstone
