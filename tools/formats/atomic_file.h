#pragma once
// A file that becomes visible under its name when it is whole.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

#include "format/error.h"
#include "tools/system.h"

namespace stepstone::tool {

// Written beside its destination as PATH.partial-PID, which is removed with the object.
class AtomicFile {
 public:
  // Behind a symbolic link, the file that it names is replaced, not the link. kAlreadyExists:
  // something is at `path` and `replace` is not set. kInvalidArgument: what is there is not a
  // regular file. kNotFound, kPermissionDenied, kReadOnly, kIo, kNoSpace: so of every call.
  static Result<std::unique_ptr<AtomicFile>> create(const std::filesystem::path& path,
                                                    bool replace);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Adds to the end.
  Result<void> write(std::span<const std::byte> bytes);
  Result<void> write(std::string_view text) { return write(std::as_bytes(std::span(text))); }
  // Replaces bytes that were written before.
  Result<void> rewrite(std::uint64_t position, std::span<const std::byte> bytes);

  std::uint64_t size_bytes() const { return size_bytes_; }

  // Its bytes are on the disk and its descriptor is free; nothing can be written any more. To be
  // called once, or left to publish().
  Result<void> finish();
  // Durable under its name when it returns. To be called once.
  Result<void> publish();

 private:
  AtomicFile() = default;

  bool is_finished() const { return descriptor_.get() < 0; }
  tl::unexpected<Error> system_failure() const;
  tl::unexpected<Error> already_exists() const;
  Result<void> check_destination() const;
  Result<void> rename() const;

  std::filesystem::path path_;
  std::filesystem::path temporary_path_;
  FileDescriptor descriptor_;
  std::uint64_t size_bytes_ = 0;
  bool replace_ = false;
  bool exists_ = false;
};

}  // namespace stepstone::tool
