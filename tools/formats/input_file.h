#pragma once
// A file of another format, open for reading.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "engine/leaf_source.h"
#include "format/error.h"
#include "tools/system.h"

namespace stepstone::tool {

// Never mapped: a mapping would turn a file that is cut short while it is read into a signal. Safe
// from several threads.
class InputFile {
 public:
  // kInvalidArgument: not a regular file. kNotFound, kPermissionDenied, kIo. Every message begins
  // with the path.
  static Result<std::shared_ptr<const InputFile>> open(const std::filesystem::path& path);
  // A file without a name in $TMPDIR, or else /var/tmp, for what has to be unpacked before it can
  // be read at any place; gone with the object. `for_name` stands in messages.
  static Result<std::shared_ptr<InputFile>> create_temporary(std::string for_name);

  const std::string& name() const { return name_; }  // The path as messages show it.
  std::uint64_t size_bytes() const { return size_bytes_; }
  int descriptor() const { return descriptor_.get(); }

  // Fills `destination` from `position`. kIo: the file has been changed or cut short since it was
  // opened, or cannot be read. kCorrupt: it ends before. Messages do not begin with the path.
  Result<void> read(std::uint64_t position, std::span<std::byte> destination) const;

  // Of a temporary file alone: adds to its end. kIo, kNoSpace.
  Result<void> append(std::span<const std::byte> bytes);

 private:
  InputFile() = default;

  Result<void> examine();
  Result<void> check_unchanged() const;

  std::string name_;
  FileDescriptor descriptor_;
  std::uint64_t size_bytes_ = 0;
  bool is_temporary_ = false;
  std::int64_t modified_seconds_ = 0;
  std::int64_t modified_nanoseconds_ = 0;
};

// A part of a file as the bytes of a leaf; [position, position + size) has been checked to be in
// it.
class FileSource final : public LeafSource {
 public:
  FileSource(std::shared_ptr<const InputFile> file, std::uint64_t position)
      : file_(std::move(file)), position_(position) {}

  Result<std::span<const std::byte>> read(std::uint64_t offset, std::size_t size,
                                          std::span<std::byte> scratch) const override;

 private:
  const std::shared_ptr<const InputFile> file_;
  const std::uint64_t position_;
};

}  // namespace stepstone::tool
