#include "tools/bench/counting_file_system.h"

#include <utility>

namespace stepstone::bench {
namespace {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;
using Counts = CountingFileSystem::Counts;

class CountingWritableFile : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  CountingWritableFile(std::unique_ptr<rocksdb::FSWritableFile>&& file,
                       std::shared_ptr<Counts> counts)
      : FSWritableFileOwnerWrapper(std::move(file)), counts_(std::move(counts)) {}

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* context) override {
    counts_->written_bytes += data.size();
    return FSWritableFileOwnerWrapper::Append(data, options, context);
  }
  IOStatus Append(const Slice& data, const IOOptions& options,
                  const rocksdb::DataVerificationInfo& verification,
                  IODebugContext* context) override {
    counts_->written_bytes += data.size();
    return FSWritableFileOwnerWrapper::Append(data, options, verification, context);
  }
  IOStatus PositionedAppend(const Slice& data, std::uint64_t offset, const IOOptions& options,
                            IODebugContext* context) override {
    counts_->written_bytes += data.size();
    return FSWritableFileOwnerWrapper::PositionedAppend(data, offset, options, context);
  }
  IOStatus PositionedAppend(const Slice& data, std::uint64_t offset, const IOOptions& options,
                            const rocksdb::DataVerificationInfo& verification,
                            IODebugContext* context) override {
    counts_->written_bytes += data.size();
    return FSWritableFileOwnerWrapper::PositionedAppend(data, offset, options, verification,
                                                        context);
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* context) override {
    ++counts_->fsyncs;
    return FSWritableFileOwnerWrapper::Sync(options, context);
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* context) override {
    ++counts_->fsyncs;
    return FSWritableFileOwnerWrapper::Fsync(options, context);
  }

 private:
  const std::shared_ptr<Counts> counts_;
};

class CountingRandomRWFile : public rocksdb::FSRandomRWFileOwnerWrapper {
 public:
  CountingRandomRWFile(std::unique_ptr<rocksdb::FSRandomRWFile>&& file,
                       std::shared_ptr<Counts> counts)
      : FSRandomRWFileOwnerWrapper(std::move(file)), counts_(std::move(counts)) {}

  IOStatus Write(std::uint64_t offset, const Slice& data, const IOOptions& options,
                 IODebugContext* context) override {
    counts_->written_bytes += data.size();
    return FSRandomRWFileOwnerWrapper::Write(offset, data, options, context);
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* context) override {
    ++counts_->fsyncs;
    return FSRandomRWFileOwnerWrapper::Sync(options, context);
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* context) override {
    ++counts_->fsyncs;
    return FSRandomRWFileOwnerWrapper::Fsync(options, context);
  }

 private:
  const std::shared_ptr<Counts> counts_;
};

class CountingDirectory : public rocksdb::FSDirectoryWrapper {
 public:
  CountingDirectory(std::unique_ptr<rocksdb::FSDirectory>&& directory,
                    std::shared_ptr<Counts> counts)
      : FSDirectoryWrapper(std::move(directory)), counts_(std::move(counts)) {}

  IOStatus Fsync(const IOOptions& options, IODebugContext* context) override {
    ++counts_->fsyncs;
    return FSDirectoryWrapper::Fsync(options, context);
  }
  IOStatus FsyncWithDirOptions(const IOOptions& options, IODebugContext* context,
                               const rocksdb::DirFsyncOptions& directory_options) override {
    ++counts_->fsyncs;
    return FSDirectoryWrapper::FsyncWithDirOptions(options, context, directory_options);
  }

 private:
  const std::shared_ptr<Counts> counts_;
};

}  // namespace

void CountingFileSystem::reset() {
  counts_->fsyncs = 0;
  counts_->written_bytes = 0;
}

IOStatus CountingFileSystem::NewWritableFile(const std::string& path, const FileOptions& options,
                                             std::unique_ptr<rocksdb::FSWritableFile>* file,
                                             IODebugContext* context) {
  IOStatus status = FileSystemWrapper::NewWritableFile(path, options, file, context);
  if (status.ok()) *file = std::make_unique<CountingWritableFile>(std::move(*file), counts_);
  return status;
}

IOStatus CountingFileSystem::ReopenWritableFile(const std::string& path, const FileOptions& options,
                                                std::unique_ptr<rocksdb::FSWritableFile>* file,
                                                IODebugContext* context) {
  IOStatus status = FileSystemWrapper::ReopenWritableFile(path, options, file, context);
  if (status.ok()) *file = std::make_unique<CountingWritableFile>(std::move(*file), counts_);
  return status;
}

IOStatus CountingFileSystem::NewRandomRWFile(const std::string& path, const FileOptions& options,
                                             std::unique_ptr<rocksdb::FSRandomRWFile>* file,
                                             IODebugContext* context) {
  IOStatus status = FileSystemWrapper::NewRandomRWFile(path, options, file, context);
  if (status.ok()) *file = std::make_unique<CountingRandomRWFile>(std::move(*file), counts_);
  return status;
}

IOStatus CountingFileSystem::NewDirectory(const std::string& path, const IOOptions& options,
                                          std::unique_ptr<rocksdb::FSDirectory>* directory,
                                          IODebugContext* context) {
  IOStatus status = FileSystemWrapper::NewDirectory(path, options, directory, context);
  if (status.ok()) *directory = std::make_unique<CountingDirectory>(std::move(*directory), counts_);
  return status;
}

}  // namespace stepstone::bench
