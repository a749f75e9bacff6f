#pragma once
// The engine's view of the file system: whatever file system it is given, plus what RocksDB 7.8
// leaves out.

#include <rocksdb/file_system.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace stepstone {

// A wrapper that
// - holds deletions back until release_deletions(): RocksDB deletes, while it opens, every file
// that its
//   MANIFEST does not name, and a flipped bit in the MANIFEST can make it forget a committed
//   segment;
// - remembers whether it was the lock that could not be had, which RocksDB reports as any I/O
// error;
// - remembers a failed sync, after which nothing more may be trusted to reach the disk: the kernel
//   marks the pages clean, so that a second try would succeed without having written them. A failed
//   write to the MANIFEST counts too. From then on nothing is deleted: RocksDB takes the edit that
//   failed for one that was never made, and deletes its files, but the disk may hold it;
// - syncs neither OPTIONS files nor their names: RocksDB writes one for people at each opening, and
//   reads none;
// - refuses to reopen a finished file for writing. RocksDB 7.8 reopens each ingested file only to
// sync
//   it again, and takes NotSupported for an answer; SstFileWriter::Finish has synced it already.
// Safe from several threads.
class StoreFileSystem : public rocksdb::FileSystemWrapper {
 public:
  explicit StoreFileSystem(const std::shared_ptr<rocksdb::FileSystem>& base);

  const char* Name() const override { return "StepstoneFileSystem"; }

  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus LockFile(const std::string& path, const rocksdb::IOOptions& options,
                             rocksdb::FileLock** lock, rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus NewRandomRWFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSRandomRWFile>* file,
                                    rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus NewDirectory(const std::string& path, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* directory,
                                 rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus ReopenWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                       std::unique_ptr<rocksdb::FSWritableFile>* file,
                                       rocksdb::IODebugContext* context) override;

  // Carries out the deletions held so far and lets later ones through. To be called once the store
  // has been found whole.
  void release_deletions();
  // Whether tables (*.sst) are among the deletions held.
  bool holds_tables();

  bool lock_was_refused() const { return lock_was_refused_; }
  bool write_has_failed() const { return write_has_failed_; }

 private:
  std::mutex mutex_;
  bool holds_deletions_ = true;
  std::vector<std::string> held_;
  std::atomic<bool> lock_was_refused_ = false;
  std::atomic<bool> write_has_failed_ = false;
};

}  // namespace stepstone
