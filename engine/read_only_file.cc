#include "engine/read_only_file.h"

#include <fcntl.h>
#include <rocksdb/file_system.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "engine/rocksdb_support.h"

namespace stepstone {
namespace {

tl::unexpected<Error> system_error(int number) {
  const ErrorCode code = number == ENOENT                      ? ErrorCode::kNotFound
                         : number == EACCES || number == EPERM ? ErrorCode::kPermissionDenied
                         : number == ENOMEM                    ? ErrorCode::kLimit
                                                               : ErrorCode::kIo;
  return fail(code, std::generic_category().message(number));
}

tl::unexpected<Error> too_short() {
  return fail(ErrorCode::kCorrupt, "the file has become shorter since it was opened");
}

class MachineFile final : public ReadOnlyFile {
 public:
  MachineFile(std::filesystem::path path, int descriptor, const struct stat& status)
      : path_(std::move(path)), descriptor_(descriptor), status_(status) {}
  ~MachineFile() override { close(descriptor_); }

  std::uint64_t size_bytes() const override { return static_cast<std::uint64_t>(status_.st_size); }

  Result<void> read(std::uint64_t offset, std::span<std::byte> destination) const override {
    while (!destination.empty()) {
      const ssize_t size =
          pread(descriptor_, destination.data(), destination.size(), static_cast<off_t>(offset));
      if (size == 0) return too_short();
      if (size < 0 && errno == EINTR) continue;
      if (size < 0) return system_error(errno);
      offset += static_cast<std::uint64_t>(size);
      destination = destination.subspan(static_cast<std::size_t>(size));
    }
    return {};
  }

  bool is_current() const override {
    struct stat now {};
    return stat(path_.c_str(), &now) == 0 && now.st_dev == status_.st_dev &&
           now.st_ino == status_.st_ino && now.st_size == status_.st_size &&
           now.st_mtim.tv_sec == status_.st_mtim.tv_sec &&
           now.st_mtim.tv_nsec == status_.st_mtim.tv_nsec;
  }

  Result<std::shared_ptr<const Mapping>> map() const override {
    struct stat now {};
    if (fstat(descriptor_, &now) != 0) return system_error(errno);
    if (now.st_size < status_.st_size) return too_short();
    const auto size = static_cast<std::size_t>(status_.st_size);
    void* const begin = mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor_, 0);
    if (begin == MAP_FAILED) return system_error(errno);
    return std::make_shared<const Mapping>(std::span(static_cast<const std::byte*>(begin), size));
  }

 private:
  const std::filesystem::path path_;
  const int descriptor_;
  const struct stat status_;
};

class FileSystemFile final : public ReadOnlyFile {
 public:
  FileSystemFile(std::string path, std::shared_ptr<rocksdb::FileSystem> file_system,
                 std::unique_ptr<rocksdb::FSRandomAccessFile> file, std::uint64_t size_bytes)
      : path_(std::move(path)),
        file_system_(std::move(file_system)),
        file_(std::move(file)),
        size_bytes_(size_bytes) {}

  std::uint64_t size_bytes() const override { return size_bytes_; }

  Result<void> read(std::uint64_t offset, std::span<std::byte> destination) const override {
    while (!destination.empty()) {
      auto* const scratch = reinterpret_cast<char*>(destination.data());
      rocksdb::Slice piece;
      STEPSTONE_TRY(to_result(
          file_->Read(offset, destination.size(), rocksdb::IOOptions(), &piece, scratch, nullptr),
          "reading"));
      if (piece.empty()) return too_short();
      if (piece.data() != scratch) std::copy_n(piece.data(), piece.size(), scratch);
      offset += piece.size();
      destination = destination.subspan(piece.size());
    }
    return {};
  }

  bool is_current() const override {
    std::uint64_t size_bytes = 0;
    return file_system_->GetFileSize(path_, rocksdb::IOOptions(), &size_bytes, nullptr).ok() &&
           size_bytes == size_bytes_;
  }

  Result<std::shared_ptr<const Mapping>> map() const override {
    return fail(ErrorCode::kUnsupported, "a file on this file system cannot be mapped");
  }

 private:
  const std::string path_;
  const std::shared_ptr<rocksdb::FileSystem> file_system_;
  const std::unique_ptr<rocksdb::FSRandomAccessFile> file_;
  const std::uint64_t size_bytes_;
};

}  // namespace

ReadOnlyFile::Mapping::~Mapping() { munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size()); }

Result<void> ReadOnlyFile::Mapping::populate(std::span<const std::byte> bytes) const {
  if (bytes.empty()) return {};
#ifdef MADV_POPULATE_READ
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const auto begin = static_cast<std::size_t>(bytes.data() - bytes_.data()) / page * page;
  const auto end = static_cast<std::size_t>(bytes.data() - bytes_.data()) + bytes.size();
  void* const address = const_cast<std::byte*>(bytes_.data() + begin);
  if (madvise(address, end - begin, MADV_POPULATE_READ) != 0 &&
      (errno == EFAULT || errno == EHWPOISON || errno == ENOMEM)) {
    return fail(ErrorCode::kCorrupt,
                "the mapped file cannot be read there: " + std::generic_category().message(errno));
  }
#endif
  // An older kernel does not know it.
  return {};
}

Result<std::unique_ptr<ReadOnlyFile>> ReadOnlyFile::open(
    const std::filesystem::path& path, std::shared_ptr<rocksdb::FileSystem> file_system) {
  if (file_system != nullptr) {
    std::uint64_t size_bytes = 0;
    std::unique_ptr<rocksdb::FSRandomAccessFile> file;
    STEPSTONE_TRY(to_result(
        file_system->GetFileSize(path.string(), rocksdb::IOOptions(), &size_bytes, nullptr),
        "opening"));
    STEPSTONE_TRY(to_result(
        file_system->NewRandomAccessFile(path.string(), rocksdb::FileOptions(), &file, nullptr),
        "opening"));
    return std::make_unique<FileSystemFile>(path.string(), std::move(file_system), std::move(file),
                                            size_bytes);
  }
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return system_error(errno);
  struct stat status {};
  if (fstat(descriptor, &status) != 0) {
    const int number = errno;
    close(descriptor);
    return system_error(number);
  }
  return std::make_unique<MachineFile>(path, descriptor, status);
}

}  // namespace stepstone
