#include "engine/new_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <system_error>

#include "engine/huge_memory.h"
#include "engine/rocksdb_support.h"
#include "engine/staging_pool.h"

namespace stepstone {
namespace {

constexpr std::size_t kBlockSizeBytes = std::size_t{8} << 20;
constexpr std::size_t kBlockAlignment = 4096;  // What direct I/O asks for.
constexpr std::size_t kBlocksMax = 4;
// Smaller files are written sooner than the disk answers once.
constexpr std::uint64_t kDirectSizeBytesMin = std::uint64_t{8} << 20;

// Tells files apart that one process writes at once.
std::uint64_t next_number() {
  static std::atomic<std::uint64_t> number = 0;
  return number++;
}

}  // namespace

Result<std::unique_ptr<NewFile>> NewFile::create(rocksdb::FileSystem& file_system,
                                                 const std::filesystem::path& path, bool overwrite,
                                                 std::uint64_t expected_size_bytes) {
  if (!path.has_filename()) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("'{}' is not the name of a file", path.string()));
  }
  const rocksdb::IOOptions io;
  const std::filesystem::path directory = path.parent_path();
  if (!directory.empty() && !file_system.FileExists(directory.string(), io, nullptr).ok()) {
    return fail(ErrorCode::kNotFound,
                fmt::format("{}: there is no directory {}", path.string(), directory.string()));
  }
  if (file_system.FileExists(path.string(), io, nullptr).ok()) {
    bool is_directory = false;
    if (file_system.IsDirectory(path.string(), io, &is_directory, nullptr).ok() && is_directory) {
      return fail(ErrorCode::kInvalidArgument, path.string() + " is a directory, not a file");
    }
    if (!overwrite) {
      return fail(ErrorCode::kAlreadyExists,
                  path.string() + " exists already: choose another name, or overwrite it");
    }
  }
  std::unique_ptr<NewFile> file(new NewFile(file_system, path, overwrite));
  STEPSTONE_TRY_CONTEXT(file->open(expected_size_bytes), path.string());
  return file;
}

Result<void> NewFile::open(std::uint64_t expected_size_bytes) {
  const std::string path = fmt::format("{}.partial-{}-{}", path_.string(), getpid(), next_number());
  rocksdb::FileOptions options;
  options.use_mmap_writes = false;
  options.use_direct_writes = expected_size_bytes >= kDirectSizeBytesMin;
  rocksdb::IOStatus status = file_system_.NewWritableFile(path, options, &file_, nullptr);
  is_direct_ = options.use_direct_writes && status.ok();
  if (options.use_direct_writes && !status.ok()) {
    // Not every file system writes past the page cache.
    options.use_direct_writes = false;
    status = file_system_.NewWritableFile(path, options, &file_, nullptr);
  }
  STEPSTONE_TRY(to_result(status, "creating it"));
  partial_path_ = path;
  try {
    thread_ = std::jthread([this] { work(); });
  } catch (const std::system_error&) {
    return fail(ErrorCode::kLimit, "no thread can be had to write it");
  }
  return {};
}

NewFile::~NewFile() {
  {
    const std::scoped_lock lock(mutex_);
    is_ending_ = true;
    full_.clear();
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  if (file_ != nullptr) {
    file_->Close(rocksdb::IOOptions(), nullptr).PermitUncheckedError();
  }
  if (!partial_path_.empty()) {
    file_system_.DeleteFile(partial_path_, rocksdb::IOOptions(), nullptr).PermitUncheckedError();
  }
}

Result<void> NewFile::append(std::span<const std::byte> bytes) {
  size_bytes_ += bytes.size();
  while (!bytes.empty()) {
    if (block_.bytes == nullptr) {
      std::unique_lock lock(mutex_);
      if (empty_.empty() && block_count_ < kBlocksMax) {
        block_.bytes =
            is_direct_ ? allocate_direct_io(kBlockSizeBytes) : allocate_huge(kBlockSizeBytes);
        ++block_count_;
      } else {
        changed_.wait(lock, [&] { return !empty_.empty(); });
        block_ = std::move(empty_.front());
        empty_.pop_front();
      }
      if (error_) return tl::unexpected<Error>(*error_);
      block_.size_bytes = 0;
    }
    const std::size_t size = std::min(bytes.size(), kBlockSizeBytes - block_.size_bytes);
    copy_past_caches({block_.bytes.get() + block_.size_bytes, size}, bytes.data());
    block_.size_bytes += size;
    bytes = bytes.subspan(size);
    if (block_.size_bytes == kBlockSizeBytes) STEPSTONE_TRY(hand_over_block());
  }
  return {};
}

Result<void> NewFile::hand_over_block() {
  {
    const std::scoped_lock lock(mutex_);
    full_.push_back(std::move(block_));
    block_ = {};
    if (error_) return tl::unexpected<Error>(*error_);
  }
  changed_.notify_all();
  return {};
}

// Of the last block of a file that is written past the page cache, whole pages; the file is cut to
// its size afterwards.
Result<void> NewFile::write(const Block& block) {
  std::size_t size = block.size_bytes;
  if (is_direct_) {
    size = (size + kBlockAlignment - 1) / kBlockAlignment * kBlockAlignment;
    std::memset(block.bytes.get() + block.size_bytes, 0, size - block.size_bytes);
  }
  const rocksdb::Slice bytes(reinterpret_cast<const char*>(block.bytes.get()), size);
  return to_result(file_->Append(bytes, rocksdb::IOOptions(), nullptr), "writing it");
}

void NewFile::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return is_ending_ || !full_.empty(); });
    if (full_.empty()) return;
    Block block = std::move(full_.front());
    full_.pop_front();
    const bool has_failed = error_.has_value();
    lock.unlock();
    Result<void> result;
    if (!has_failed) result = write(block);
    lock.lock();
    if (!result) error_ = std::move(result).error();
    empty_.push_back(std::move(block));
    changed_.notify_all();
  }
}

Result<void> NewFile::finish_writing() {
  if (block_.size_bytes != 0) STEPSTONE_TRY(hand_over_block());
  {
    const std::scoped_lock lock(mutex_);
    is_ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
  if (error_) return tl::unexpected<Error>(*error_);
  const rocksdb::IOOptions io;
  if (is_direct_ && size_bytes_ % kBlockAlignment != 0) {
    STEPSTONE_TRY(to_result(file_->Truncate(size_bytes_, io, nullptr), "cutting it to its size"));
  }
  STEPSTONE_TRY(to_result(file_->Sync(io, nullptr), "making it durable"));
  return to_result(std::exchange(file_, nullptr)->Close(io, nullptr), "closing it");
}

Result<void> NewFile::give_name() {
  const rocksdb::IOOptions io;
  if (!overwrite_) {
    // A link is never made over a file that has come to be there meanwhile.
    if (file_system_.LinkFile(partial_path_, path_.string(), io, nullptr).ok()) {
      if (file_system_.DeleteFile(partial_path_, io, nullptr).ok()) partial_path_.clear();
      return {};
    }
    if (file_system_.FileExists(path_.string(), io, nullptr).ok()) {
      return fail(ErrorCode::kAlreadyExists, "another file has come to be there meanwhile");
    }
    // Not every file system has links.
  }
  STEPSTONE_TRY(to_result(file_system_.RenameFile(partial_path_, path_.string(), io, nullptr),
                          "giving it its name"));
  partial_path_.clear();
  return {};
}

Result<void> NewFile::commit() {
  const auto run = [&]() -> Result<void> {
    STEPSTONE_TRY(finish_writing());
    STEPSTONE_TRY(give_name());
    const std::filesystem::path directory = path_.parent_path();
    return sync_directory(file_system_, directory.empty() ? "." : directory.string());
  };
  STEPSTONE_TRY_CONTEXT(run(), path_.string());
  return {};
}

}  // namespace stepstone
