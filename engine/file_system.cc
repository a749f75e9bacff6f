#include "engine/file_system.h"

#include <algorithm>
#include <utility>

namespace stepstone {
namespace {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;

IOStatus noted(IOStatus status, std::atomic<bool>& has_failed) {
  if (!status.ok()) has_failed = true;
  return status;
}

bool is_manifest(const std::string& path) {
  return path.find("MANIFEST-", path.find_last_of('/') + 1) != std::string::npos;
}

bool is_options(const std::string& path) {
  return path.compare(path.find_last_of('/') + 1, 8, "OPTIONS-") == 0;
}

// A file that may be gone, or be anything, after a power failure.
class UnsyncedWritableFile : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  using FSWritableFileOwnerWrapper::FSWritableFileOwnerWrapper;

  IOStatus Sync(const IOOptions& /*options*/, IODebugContext* /*context*/) override {
    return IOStatus::OK();
  }
  IOStatus Fsync(const IOOptions& /*options*/, IODebugContext* /*context*/) override {
    return IOStatus::OK();
  }
  IOStatus RangeSync(std::uint64_t /*offset*/, std::uint64_t /*size*/, const IOOptions& /*options*/,
                     IODebugContext* /*context*/) override {
    return IOStatus::OK();
  }
};

class WatchedWritableFile : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  WatchedWritableFile(std::unique_ptr<rocksdb::FSWritableFile>&& file, bool is_manifest,
                      std::atomic<bool>& has_failed)
      : FSWritableFileOwnerWrapper(std::move(file)),
        is_manifest_(is_manifest),
        has_failed_(has_failed) {}

  using FSWritableFileOwnerWrapper::Append;
  IOStatus Append(const rocksdb::Slice& data, const IOOptions& options,
                  IODebugContext* context) override {
    IOStatus status = FSWritableFileOwnerWrapper::Append(data, options, context);
    return is_manifest_ ? noted(std::move(status), has_failed_) : status;
  }
  IOStatus Append(const rocksdb::Slice& data, const IOOptions& options,
                  const rocksdb::DataVerificationInfo& verification,
                  IODebugContext* context) override {
    IOStatus status = FSWritableFileOwnerWrapper::Append(data, options, verification, context);
    return is_manifest_ ? noted(std::move(status), has_failed_) : status;
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* context) override {
    return noted_sync(FSWritableFileOwnerWrapper::Sync(options, context));
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* context) override {
    return noted_sync(FSWritableFileOwnerWrapper::Fsync(options, context));
  }
  IOStatus RangeSync(std::uint64_t offset, std::uint64_t size, const IOOptions& options,
                     IODebugContext* context) override {
    return noted_sync(FSWritableFileOwnerWrapper::RangeSync(offset, size, options, context));
  }
  // What a compaction writes has this priority, and nothing else.
  void SetIOPriority(rocksdb::Env::IOPriority priority) override {
    is_compacted_ = priority == rocksdb::Env::IO_LOW;
    FSWritableFileOwnerWrapper::SetIOPriority(priority);
  }

 private:
  // The output of a compaction that cannot be synced is thrown away, and its inputs stay.
  IOStatus noted_sync(IOStatus status) {
    return is_compacted_ ? std::move(status) : noted(std::move(status), has_failed_);
  }

  bool is_compacted_ = false;
  const bool is_manifest_;
  std::atomic<bool>& has_failed_;
};

class WatchedRandomRWFile : public rocksdb::FSRandomRWFileOwnerWrapper {
 public:
  WatchedRandomRWFile(std::unique_ptr<rocksdb::FSRandomRWFile>&& file,
                      std::atomic<bool>& has_failed)
      : FSRandomRWFileOwnerWrapper(std::move(file)), has_failed_(has_failed) {}

  IOStatus Sync(const IOOptions& options, IODebugContext* context) override {
    return noted(FSRandomRWFileOwnerWrapper::Sync(options, context), has_failed_);
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* context) override {
    return noted(FSRandomRWFileOwnerWrapper::Fsync(options, context), has_failed_);
  }

 private:
  std::atomic<bool>& has_failed_;
};

class WatchedDirectory : public rocksdb::FSDirectoryWrapper {
 public:
  WatchedDirectory(std::unique_ptr<rocksdb::FSDirectory>&& directory, std::atomic<bool>& has_failed)
      : FSDirectoryWrapper(std::move(directory)), has_failed_(has_failed) {}

  IOStatus Fsync(const IOOptions& options, IODebugContext* context) override {
    return noted(FSDirectoryWrapper::Fsync(options, context), has_failed_);
  }
  IOStatus FsyncWithDirOptions(const IOOptions& options, IODebugContext* context,
                               const rocksdb::DirFsyncOptions& directory_options) override {
    if (directory_options.reason == rocksdb::DirFsyncOptions::kFileRenamed &&
        is_options(directory_options.renamed_new_name)) {
      return IOStatus::OK();
    }
    return noted(FSDirectoryWrapper::FsyncWithDirOptions(options, context, directory_options),
                 has_failed_);
  }

 private:
  std::atomic<bool>& has_failed_;
};

}  // namespace

StoreFileSystem::StoreFileSystem(const std::shared_ptr<rocksdb::FileSystem>& base)
    : FileSystemWrapper(base) {}

IOStatus StoreFileSystem::DeleteFile(const std::string& path, const IOOptions& options,
                                     IODebugContext* context) {
  {
    const std::scoped_lock lock(mutex_);
    if (holds_deletions_ || write_has_failed_) {
      held_.push_back(path);
      return IOStatus::OK();
    }
  }
  return FileSystemWrapper::DeleteFile(path, options, context);
}

IOStatus StoreFileSystem::LockFile(const std::string& path, const IOOptions& options,
                                   rocksdb::FileLock** lock, IODebugContext* context) {
  IOStatus status = FileSystemWrapper::LockFile(path, options, lock, context);
  // RocksDB has no code for it. A lock file that cannot be opened or created is another matter: one
  // of permission, or space, or a broken disk.
  const std::string text = status.ToString();
  if (text.find("lock hold by current process") != std::string::npos ||
      text.find("Resource temporarily unavailable") != std::string::npos) {
    lock_was_refused_ = true;
  }
  return status;
}

IOStatus StoreFileSystem::NewWritableFile(const std::string& path, const FileOptions& options,
                                          std::unique_ptr<rocksdb::FSWritableFile>* file,
                                          IODebugContext* context) {
  IOStatus status = FileSystemWrapper::NewWritableFile(path, options, file, context);
  if (status.ok() && is_options(path)) {
    *file = std::make_unique<UnsyncedWritableFile>(std::move(*file));
  } else if (status.ok()) {
    *file = std::make_unique<WatchedWritableFile>(std::move(*file), is_manifest(path),
                                                  write_has_failed_);
  }
  return status;
}

IOStatus StoreFileSystem::NewRandomRWFile(const std::string& path, const FileOptions& options,
                                          std::unique_ptr<rocksdb::FSRandomRWFile>* file,
                                          IODebugContext* context) {
  IOStatus status = FileSystemWrapper::NewRandomRWFile(path, options, file, context);
  if (status.ok()) {
    *file = std::make_unique<WatchedRandomRWFile>(std::move(*file), write_has_failed_);
  }
  return status;
}

IOStatus StoreFileSystem::NewDirectory(const std::string& path, const IOOptions& options,
                                       std::unique_ptr<rocksdb::FSDirectory>* directory,
                                       IODebugContext* context) {
  IOStatus status = FileSystemWrapper::NewDirectory(path, options, directory, context);
  if (status.ok()) {
    *directory = std::make_unique<WatchedDirectory>(std::move(*directory), write_has_failed_);
  }
  return status;
}

IOStatus StoreFileSystem::ReopenWritableFile(const std::string& /*path*/,
                                             const FileOptions& /*options*/,
                                             std::unique_ptr<rocksdb::FSWritableFile>* /*file*/,
                                             IODebugContext* /*context*/) {
  return IOStatus::NotSupported("finished files are synced and never written again");
}

bool StoreFileSystem::holds_tables() {
  const std::scoped_lock lock(mutex_);
  return std::any_of(held_.begin(), held_.end(),
                     [](const std::string& path) { return path.ends_with(".sst"); });
}

void StoreFileSystem::release_deletions() {
  std::vector<std::string> held;
  {
    const std::scoped_lock lock(mutex_);
    if (write_has_failed_) return;
    holds_deletions_ = false;
    held.swap(held_);
  }
  // A file that cannot be deleted now is found again by the next open.
  for (const std::string& path : held) {
    FileSystemWrapper::DeleteFile(path, IOOptions(), nullptr).PermitUncheckedError();
  }
}

}  // namespace stepstone
