#include "tools/formats/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "format/leaf_path.h"

namespace stepstone::tool {

Result<std::shared_ptr<const InputFile>> InputFile::open(const std::filesystem::path& path) {
  const std::shared_ptr<InputFile> file(new InputFile());  // NOLINT: private constructor.
  file->name_ = printable(path.native());
  // Without O_NONBLOCK, opening a named pipe would wait for somebody to write to it.
  file->descriptor_ = FileDescriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file->descriptor_.get() < 0) {
    return tl::unexpected<Error>(system_error(errno, file->name_));
  }
  STEPSTONE_TRY_CONTEXT(file->examine(), file->name_);
  return file;
}

Result<std::shared_ptr<InputFile>> InputFile::create_temporary(std::string for_name) {
  const std::shared_ptr<InputFile> file(new InputFile());  // NOLINT: private constructor.
  const char* const wanted = std::getenv("TMPDIR");
  const std::filesystem::path directory =
      wanted != nullptr && *wanted != '\0' ? wanted : "/var/tmp";
  file->name_ = std::move(for_name);
  file->is_temporary_ = true;
  std::string path = directory / "stepstone-unpacked-XXXXXX";
  file->descriptor_ = FileDescriptor(::mkostemp(path.data(), O_CLOEXEC));
  if (file->descriptor_.get() < 0) {
    return tl::unexpected<Error>(
        system_error(errno, file->name_ + " cannot be unpacked into " + printable(path)));
  }
  ::unlink(path.c_str());
  return file;
}

Result<void> InputFile::examine() {
  struct stat status = {};
  if (::fstat(descriptor_.get(), &status) != 0) {
    return tl::unexpected<Error>(system_error(errno, "cannot be examined"));
  }
  if (!S_ISREG(status.st_mode)) return fail(ErrorCode::kInvalidArgument, "not a regular file");
  size_bytes_ = static_cast<std::uint64_t>(status.st_size);
  modified_seconds_ = status.st_mtim.tv_sec;
  modified_nanoseconds_ = status.st_mtim.tv_nsec;
  return {};
}

Result<void> InputFile::read(std::uint64_t position, std::span<std::byte> destination) const {
  if (position > size_bytes_ || destination.size() > size_bytes_ - position) {
    return fail(ErrorCode::kCorrupt, "cut short");
  }
  while (!destination.empty()) {
    const ssize_t count = ::pread(descriptor_.get(), destination.data(), destination.size(),
                                  static_cast<off_t>(position));
    if (count < 0) {
      if (errno == EINTR) continue;
      return tl::unexpected<Error>(system_error(errno, "cannot be read"));
    }
    if (count == 0) return fail(ErrorCode::kIo, "cut short while it was read");
    position += static_cast<std::uint64_t>(count);
    destination = destination.subspan(static_cast<std::size_t>(count));
  }
  return check_unchanged();
}

// What was checked is the file as it was. Bytes of a later one must not be mixed with it.
Result<void> InputFile::check_unchanged() const {
  if (is_temporary_) return {};
  struct stat status = {};
  if (::fstat(descriptor_.get(), &status) != 0) {
    return tl::unexpected<Error>(system_error(errno, "cannot be examined"));
  }
  if (static_cast<std::uint64_t>(status.st_size) != size_bytes_ ||
      status.st_mtim.tv_sec != modified_seconds_ ||
      status.st_mtim.tv_nsec != modified_nanoseconds_) {
    return fail(ErrorCode::kIo, "changed while it was read");
  }
  return {};
}

Result<void> InputFile::append(std::span<const std::byte> bytes) {
  if (const int failure = write_fully(descriptor_.get(), bytes); failure != 0) {
    return tl::unexpected<Error>(system_error(failure, "cannot be unpacked into a temporary file"));
  }
  size_bytes_ += bytes.size();
  return {};
}

Result<std::span<const std::byte>> FileSource::read(std::uint64_t offset, std::size_t size,
                                                    std::span<std::byte> scratch) const {
  const std::span<std::byte> destination = scratch.first(size);
  STEPSTONE_TRY_CONTEXT(file_->read(position_ + offset, destination), file_->name());
  return destination;
}

}  // namespace stepstone::tool
