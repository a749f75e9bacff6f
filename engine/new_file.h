#pragma once
// A file that appears whole under its name, or not at all.

#include <rocksdb/file_system.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>

#include "format/portable_writer.h"

namespace stepstone {

// Written beside its name, front to back; the blocks go to the disk on a thread of their own, past
// the page cache where the file system can do that and the file is large. Belongs to one thread.
// Errors of every call: kIo, kNoSpace, kPermissionDenied, kReadOnly; after one, the file is to be
// dropped.
class NewFile final : public PortableSink {
 public:
  // `file_system` must outlive this. kNotFound: there is no such directory. kAlreadyExists: the
  // file exists, and `overwrite` is not set. kInvalidArgument: it is a directory.
  static Result<std::unique_ptr<NewFile>> create(rocksdb::FileSystem& file_system,
                                                 const std::filesystem::path& path, bool overwrite,
                                                 std::uint64_t expected_size_bytes);
  // Without a commit nothing is left.
  ~NewFile() override;
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  Result<void> append(std::span<const std::byte> bytes) override;
  // Makes the bytes durable, then the name. If that last sync fails, the name leads to the new
  // file, which may not survive power loss. kAlreadyExists: another file has come to be there, and
  // `overwrite` is not set.
  Result<void> commit();

 private:
  struct Block {
    std::shared_ptr<std::byte[]> bytes;
    std::size_t size_bytes = 0;
  };

  NewFile(rocksdb::FileSystem& file_system, std::filesystem::path path, bool overwrite)
      : file_system_(file_system), path_(std::move(path)), overwrite_(overwrite) {}
  Result<void> open(std::uint64_t expected_size_bytes);
  Result<void> hand_over_block();
  Result<void> write(const Block& block);
  Result<void> finish_writing();
  Result<void> give_name();
  void work();

  rocksdb::FileSystem& file_system_;
  const std::filesystem::path path_;
  const bool overwrite_;
  std::string partial_path_;  // Empty: there is none (any more).
  std::unique_ptr<rocksdb::FSWritableFile> file_;
  bool is_direct_ = false;
  Block block_;  // Being filled.
  std::uint64_t size_bytes_ = 0;

  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  std::deque<Block> full_;
  std::deque<Block> empty_;
  std::size_t block_count_ = 0;
  bool is_ending_ = false;
  std::optional<Error> error_;

  std::jthread thread_;
};

}  // namespace stepstone
