#pragma once
// The safetensors file format: eight bytes of header length, a header of JSON, the tensors' bytes.
//
// Files come from strangers: the reader accepts exactly what the format allows, says which tensor
// is at fault otherwise, and never maps the file, so that one cut short while it is read is an
// error and not a signal. The writer's headers equal those of the safetensors library byte for
// byte.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "format/dtype.h"
#include "format/error.h"
#include "tools/formats/input_file.h"

namespace stepstone::tool {

// What a file begins with: the length of its header, little-endian.
inline constexpr std::size_t kSafetensorsLengthSizeBytes = 8;
// The library's own limit.
inline constexpr std::uint64_t kSafetensorsHeaderSizeBytesMax = 100'000'000;

// The file's `__metadata__`, in its order.
using SafetensorsMetadata = std::vector<std::pair<std::string, std::string>>;

struct SafetensorsTensor {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<std::uint64_t> shape;
  std::uint64_t offset = 0;  // From the first byte of data.
  std::uint64_t size_bytes = 0;

  bool operator==(const SafetensorsTensor&) const = default;
};

struct SafetensorsHeader {
  std::optional<SafetensorsMetadata> metadata;
  std::vector<SafetensorsTensor> tensors;  // In the order of their bytes.

  bool operator==(const SafetensorsHeader&) const = default;
};

// nullopt: a dtype that the other side lacks.
std::optional<DType> dtype_from_safetensors(std::string_view name);
std::optional<std::string_view> safetensors_name(DType dtype);

// `json` is the header without its length, `data_size_bytes` what the file holds behind it.
// kCorrupt: not a header, or one that does not describe that data. kUnsupported: a dtype that
// Stepstone lacks. kLimit: a name, shape or size over format/limits.h.
Result<SafetensorsHeader> parse_safetensors_header(std::string_view json,
                                                   std::uint64_t data_size_bytes);

// The order in which the library writes tensors: the widest dtypes first, so that each stays
// aligned, then by name. All dtypes must have a safetensors_name().
std::vector<std::size_t> canonical_order(std::span<const SafetensorsTensor> tensors);

// The file's bytes before the data, length included, padded to a multiple of 8. Takes the tensors
// in the order given, one behind the other; their offsets are ignored. kUnsupported: a dtype
// without safetensors_name(), or elements of 4 bits that do not fill whole bytes. kInvalidArgument:
// a name that is not UTF-8, is `__metadata__` or is there twice. kLimit: longer than the library
// reads.
Result<std::string> encode_safetensors_header(const std::optional<SafetensorsMetadata>& metadata,
                                              std::span<const SafetensorsTensor> tensors);

// How an item's custom metadata (JSON text) keeps a file's: {"safetensors": {...}}, or nothing.
// kLimit: over limits::kMetadataSizeBytesMax.
Result<std::string> to_custom_metadata(const std::optional<SafetensorsMetadata>& metadata);
// The inverse; whatever else the JSON holds is passed over. kMismatch: "safetensors" is there, but
// is not an object of strings. kCorrupt: not JSON.
Result<std::optional<SafetensorsMetadata>> from_custom_metadata(std::string_view json);

// A file open for reading; safe from several threads.
class SafetensorsFile {
 public:
  // kInvalidArgument: not a regular file. kNotFound, kPermissionDenied, kIo; and as
  // parse_safetensors_header. Every message begins with the path.
  static Result<std::shared_ptr<const SafetensorsFile>> open(const std::filesystem::path& path);

  const SafetensorsHeader& header() const { return header_; }
  std::uint64_t data_size_bytes() const { return data_size_bytes_; }

  // Fills `destination` from `offset` in the data. kIo: the file has been changed or cut short
  // since it was opened, or cannot be read.
  Result<void> read(std::uint64_t offset, std::span<std::byte> destination) const;

  // The bytes of one of the header's tensors. Keeps the file open.
  std::shared_ptr<const LeafSource> source(const SafetensorsTensor& tensor) const;

 private:
  SafetensorsFile() = default;

  Result<void> load();

  std::shared_ptr<const InputFile> file_;
  std::uint64_t data_position_ = 0;
  std::uint64_t data_size_bytes_ = 0;
  SafetensorsHeader header_;
};

}  // namespace stepstone::tool
