#pragma once
// The machine's file system with a count of what RocksDB asks of it.

#include <rocksdb/file_system.h>

#include <atomic>
#include <cstdint>
#include <memory>

namespace stepstone::bench {

// Safe from several threads. Only for counting: nothing is timed through it.
class CountingFileSystem : public rocksdb::FileSystemWrapper {
 public:
  struct Counts {
    std::atomic<std::uint64_t> fsyncs = 0;  // fsync or fdatasync, of files and directories.
    std::atomic<std::uint64_t> written_bytes = 0;
  };

  CountingFileSystem() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}

  const char* Name() const override { return "CountingFileSystem"; }
  const Counts& counts() const { return *counts_; }
  void reset();

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus ReopenWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                       std::unique_ptr<rocksdb::FSWritableFile>* file,
                                       rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus NewRandomRWFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSRandomRWFile>* file,
                                    rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus NewDirectory(const std::string& path, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* directory,
                                 rocksdb::IODebugContext* context) override;

 private:
  // Shared with the files, which may outlive this object.
  std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();
};

}  // namespace stepstone::bench
