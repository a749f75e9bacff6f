#include <fmt/format.h>

#include <array>

#include "tools/formats/safetensors.h"

namespace stepstone::tool {

Result<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::open(
    const std::filesystem::path& path) {
  const std::shared_ptr<SafetensorsFile> opened(
      new SafetensorsFile());  // NOLINT: private constructor.
  opened->file_ = STEPSTONE_TRY(InputFile::open(path));
  STEPSTONE_TRY_CONTEXT(opened->load(), opened->file_->name());
  return opened;
}

Result<void> SafetensorsFile::load() {
  const std::uint64_t size_bytes = file_->size_bytes();
  if (size_bytes < kSafetensorsLengthSizeBytes) {
    return fail(ErrorCode::kCorrupt, "not a safetensors file: shorter than eight bytes");
  }
  std::array<std::byte, kSafetensorsLengthSizeBytes> length = {};
  STEPSTONE_TRY(file_->read(0, length));
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
  if (header_size > size_bytes - kSafetensorsLengthSizeBytes) {
    return fail(ErrorCode::kCorrupt,
                fmt::format("cut short: its header of {} bytes does not fit in the file's {}",
                            header_size, size_bytes));
  }
  std::string json(static_cast<std::size_t>(header_size), '\0');
  STEPSTONE_TRY(file_->read(kSafetensorsLengthSizeBytes, std::as_writable_bytes(std::span(json))));
  data_position_ = kSafetensorsLengthSizeBytes + header_size;
  data_size_bytes_ = size_bytes - data_position_;
  header_ = STEPSTONE_TRY(parse_safetensors_header(json, data_size_bytes_));
  return {};
}

Result<void> SafetensorsFile::read(std::uint64_t offset, std::span<std::byte> destination) const {
  if (offset > data_size_bytes_ || destination.size() > data_size_bytes_ - offset) {
    return fail(ErrorCode::kInvalidArgument, file_->name() + ": a read beyond the end of the data");
  }
  STEPSTONE_TRY_CONTEXT(file_->read(data_position_ + offset, destination), file_->name());
  return {};
}

std::shared_ptr<const LeafSource> SafetensorsFile::source(const SafetensorsTensor& tensor) const {
  return std::make_shared<FileSource>(file_, data_position_ + tensor.offset);
}

}  // namespace stepstone::tool
