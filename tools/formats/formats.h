#pragma once
// The formats there are: one reader and one writer each, and which of them a file is for.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "format/error.h"
#include "tools/formats/contents.h"

namespace stepstone::tool {

// Where a writer writes to, and how.
struct Destination {
  std::filesystem::path path;
  bool replace = false;  // Files that are there already.
  // Of the sharded safetensors format alone: how many bytes of tensors a file holds at most, unless
  // one tensor is larger; 0: all in one file.
  std::uint64_t shard_size_bytes = 0;
  bool deflate = false;  // Of the .npz format alone.
  // Called with the number of bytes that were read since the last call; its error ends the work.
  std::function<Result<void>(std::uint64_t size_bytes)> on_bytes;
};

struct Written {
  std::filesystem::path path;  // Of the file that names the others, if there are several.
  std::uint64_t file_count = 1;
  std::uint64_t size_bytes = 0;  // Of the files.
};

struct Format {
  std::string_view name;       // As --format takes it.
  std::string_view extension;  // With its dot.
  // Checks the file whole, as far as that goes without looking at what its elements are, before it
  // returns; the sources keep it open. Errors: kCorrupt for what is no such file; kUnsupported,
  // kLimit for what a store, or this reader, has no place for; kNotFound, kPermissionDenied, kIo.
  // Each message begins with the path. Null: the format is written only.
  Result<Contents> (*read)(const std::filesystem::path& path) = nullptr;
  // Everything that can be wrong with `contents` is found before a file is begun; files become
  // visible when they are whole and on the disk. Errors: kUnsupported, kInvalidArgument for what
  // the format cannot hold (naming the leaf); those of the sources; kAlreadyExists, kNoSpace,
  // kPermissionDenied, kIo.
  Result<Written> (*write)(const Contents& contents, const Destination& destination) = nullptr;
};

// In the order in which they are listed to people.
std::span<const Format> formats();

// By its name; null: there is none.
const Format* find_format(std::string_view name);

// By the file's first bytes, and by the extension where they do not tell. kUnsupported: neither
// does (the message lists the formats); or only writing is possible. kNotFound, kPermissionDenied,
// kIo, kInvalidArgument: as InputFile::open().
Result<const Format*> detect_format(const std::filesystem::path& path);

// By the extension alone; null: it is none that a writer has.
const Format* format_of_extension(const std::filesystem::path& path);

// "npy, npz, ...": those that can be read (or written).
std::string readable_format_names();
std::string writable_format_names();

Result<Contents> read_safetensors(const std::filesystem::path& path);
Result<Contents> read_safetensors_index(const std::filesystem::path& path);
Result<Contents> read_npy(const std::filesystem::path& path);
Result<Contents> read_npz(const std::filesystem::path& path);
Result<Contents> read_torch(const std::filesystem::path& path);
Result<Contents> read_gguf(const std::filesystem::path& path);

Result<Written> write_safetensors(const Contents& contents, const Destination& destination);
Result<Written> write_npy(const Contents& contents, const Destination& destination);
Result<Written> write_npz(const Contents& contents, const Destination& destination);
Result<Written> write_torch(const Contents& contents, const Destination& destination);
Result<Written> write_gguf(const Contents& contents, const Destination& destination);

}  // namespace stepstone::tool
