#pragma once
// ZIP archives, written through minizip into an AtomicFile.

#include <cstdint>
#include <memory>
#include <string>

#include "format/error.h"
#include "tools/formats/atomic_file.h"
#include "tools/formats/contents.h"

namespace stepstone::tool {

struct ZipOptions {
  bool deflate = false;
  std::uint32_t alignment_bytes = 1;  // Of the stored entries' first bytes; a power of two.
};

// Entries appear in the order in which they were added. Files of 4 GiB and more, and archives of
// any size, are written as ZIP64.
class ZipWriter {
 public:
  // `file` must outlive the writer.
  static Result<std::unique_ptr<ZipWriter>> create(AtomicFile& file, const ZipOptions& options);
  ~ZipWriter();
  ZipWriter(const ZipWriter&) = delete;
  ZipWriter& operator=(const ZipWriter&) = delete;

  // An entry of `size_bytes`, which `fill` then gives to write(). kInvalidArgument: a name of no
  // bytes, with a NUL, or longer than an archive can have. Errors of the file.
  Result<void> add(const std::string& name, std::uint64_t size_bytes,
                   const std::function<Result<void>()>& fill);
  Result<void> write(std::span<const std::byte> bytes);
  Result<void> write(std::string_view text) { return write(std::as_bytes(std::span(text))); }

  // The directory; nothing can be added any more.
  Result<void> finish();

 private:
  struct Stream;
  ZipWriter();

  // What the file said, or else that minizip failed.
  tl::unexpected<Error> failure() const;

  ZipOptions options_;
  std::unique_ptr<Stream> stream_;
  void* archive_ = nullptr;  // minizip's.
};

}  // namespace stepstone::tool
