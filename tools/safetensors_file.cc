// Reads with pread only: a mapping would turn a file that is cut short meanwhile into a SIGBUS.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "format/leaf_path.h"
#include "tools/safetensors.h"

namespace stepstone::tool {

Result<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::open(
    const std::filesystem::path& path) {
  const std::shared_ptr<SafetensorsFile> file(
      new SafetensorsFile());  // NOLINT: private constructor.
  file->name_ = printable(path.native());
  // Without O_NONBLOCK, opening a named pipe would wait for somebody to write to it.
  file->descriptor_ = FileDescriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file->descriptor_.get() < 0) {
    return tl::unexpected<Error>(system_error(errno, file->name_));
  }
  STEPSTONE_TRY_CONTEXT(file->load(), file->name_);
  return file;
}

Result<void> SafetensorsFile::load() {
  struct stat status = {};
  if (::fstat(descriptor_.get(), &status) != 0) {
    return tl::unexpected<Error>(system_error(errno, "cannot be examined"));
  }
  if (!S_ISREG(status.st_mode)) return fail(ErrorCode::kInvalidArgument, "not a regular file");
  size_bytes_ = static_cast<std::uint64_t>(status.st_size);
  modified_seconds_ = status.st_mtim.tv_sec;
  modified_nanoseconds_ = status.st_mtim.tv_nsec;

  if (size_bytes_ < kSafetensorsLengthSizeBytes) {
    return fail(ErrorCode::kCorrupt, "not a safetensors file: shorter than eight bytes");
  }
  std::array<std::byte, kSafetensorsLengthSizeBytes> length = {};
  STEPSTONE_TRY(read_at(0, length));
  std::uint64_t header_size = 0;
  for (std::size_t i = 0; i < kSafetensorsLengthSizeBytes; ++i) {
    header_size |= std::to_integer<std::uint64_t>(length[i]) << (8 * i);
  }
  if (header_size > kSafetensorsHeaderSizeBytesMax) {
    return fail(ErrorCode::kCorrupt,
                fmt::format("not a safetensors file: its header would be {} bytes long, over the "
                            "limit of {}",
                            header_size, kSafetensorsHeaderSizeBytesMax));
  }
  if (header_size > size_bytes_ - kSafetensorsLengthSizeBytes) {
    return fail(ErrorCode::kCorrupt,
                fmt::format("cut short: its header of {} bytes does not fit in the file's {}",
                            header_size, size_bytes_));
  }
  std::string json(static_cast<std::size_t>(header_size), '\0');
  STEPSTONE_TRY(read_at(kSafetensorsLengthSizeBytes, std::as_writable_bytes(std::span(json))));
  data_position_ = kSafetensorsLengthSizeBytes + header_size;
  data_size_bytes_ = size_bytes_ - data_position_;
  header_ = STEPSTONE_TRY(parse_safetensors_header(json, data_size_bytes_));
  return {};
}

Result<void> SafetensorsFile::read(std::uint64_t offset, std::span<std::byte> destination) const {
  if (offset > data_size_bytes_ || destination.size() > data_size_bytes_ - offset) {
    return fail(ErrorCode::kInvalidArgument, name_ + ": a read beyond the end of the data");
  }
  STEPSTONE_TRY_CONTEXT(read_at(data_position_ + offset, destination), name_);
  STEPSTONE_TRY_CONTEXT(check_unchanged(), name_);
  return {};
}

Result<void> SafetensorsFile::read_at(std::uint64_t position,
                                      std::span<std::byte> destination) const {
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
  return {};
}

// The header was checked against the file as it was. Bytes of a later one must not be mixed with
// it.
Result<void> SafetensorsFile::check_unchanged() const {
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

}  // namespace stepstone::tool
