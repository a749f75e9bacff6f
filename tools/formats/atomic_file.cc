#include "tools/formats/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "format/leaf_path.h"

namespace stepstone::tool {

Result<std::unique_ptr<AtomicFile>> AtomicFile::create(const std::filesystem::path& path,
                                                       bool replace) {
  std::error_code ignored;
  const bool is_link = std::filesystem::is_symlink(path, ignored);
  std::unique_ptr<AtomicFile> file(new AtomicFile());  // NOLINT: private constructor.
  file->path_ = is_link ? std::filesystem::weakly_canonical(path, ignored) : path;
  file->replace_ = replace;
  STEPSTONE_TRY(file->check_destination());
  file->temporary_path_ = file->path_;
  file->temporary_path_ += fmt::format(".partial-{}", ::getpid());
  file->descriptor_ = FileDescriptor(
      ::open(file->temporary_path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (file->descriptor_.get() < 0) return file->system_failure();
  file->exists_ = true;
  return file;
}

AtomicFile::~AtomicFile() {
  if (exists_) ::unlink(temporary_path_.c_str());
}

Result<void> AtomicFile::write(std::span<const std::byte> bytes) {
  errno = write_fully(descriptor_.get(), bytes);
  if (errno != 0) return system_failure();
  size_bytes_ += bytes.size();
  return {};
}

Result<void> AtomicFile::rewrite(std::uint64_t position, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written =
        ::pwrite(descriptor_.get(), bytes.data(), bytes.size(), static_cast<off_t>(position));
    if (written < 0) {
      if (errno == EINTR) continue;
      return system_failure();
    }
    position += static_cast<std::uint64_t>(written);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return {};
}

Result<void> AtomicFile::finish() {
  if (::fsync(descriptor_.get()) != 0) return system_failure();
  errno = descriptor_.close();
  if (errno != 0) return system_failure();
  return {};
}

Result<void> AtomicFile::publish() {
  if (!is_finished()) STEPSTONE_TRY(finish());
  STEPSTONE_TRY(rename());
  exists_ = false;
  const std::filesystem::path parent = path_.has_parent_path() ? path_.parent_path() : ".";
  const FileDescriptor directory(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0 || ::fsync(directory.get()) != 0) return system_failure();
  return {};
}

tl::unexpected<Error> AtomicFile::system_failure() const {
  return tl::unexpected<Error>(system_error(errno, printable(path_.native())));
}

tl::unexpected<Error> AtomicFile::already_exists() const {
  return fail(ErrorCode::kAlreadyExists,
              printable(path_.native()) + " exists already; --force replaces it");
}

Result<void> AtomicFile::check_destination() const {
  struct stat status = {};
  if (::lstat(path_.c_str(), &status) != 0) {
    if (errno == ENOENT) return {};
    return system_failure();
  }
  if (!S_ISREG(status.st_mode)) {
    return fail(ErrorCode::kInvalidArgument,
                printable(path_.native()) + " is there and is not a regular file");
  }
  if (!replace_) return already_exists();
  return {};
}

Result<void> AtomicFile::rename() const {
  const char* const from = temporary_path_.c_str();
  const char* const to = path_.c_str();
  if (!replace_) {
    // Somebody may have created the file meanwhile, and was not to be replaced.
    if (::renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return {};
    if (errno == EEXIST) return already_exists();
    // Not every file system can do this; the check at the beginning then has to do.
    if (errno != EINVAL && errno != ENOSYS) return system_failure();
    STEPSTONE_TRY(check_destination());
  }
  if (::rename(from, to) != 0) return system_failure();
  return {};
}

}  // namespace stepstone::tool
