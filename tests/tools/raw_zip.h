#pragma once
// ZIP archives put together field by field, so that any of them can lie.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace stepstone::tool {

// An entry and what its two headers say of it. What is not set is true.
struct RawEntry {
  std::string name;
  std::string packed;  // The bytes that stand in the file.
  std::uint16_t method = 0;
  std::uint16_t flags = 0;
  std::optional<std::uint32_t> crc;
  std::optional<std::uint64_t> size_bytes;         // Unpacked; from 2^32 - 1 on in ZIP64's field.
  std::optional<std::uint64_t> packed_size_bytes;  // Likewise.
  std::optional<std::uint64_t> position;           // Of the local header.
  std::optional<std::string> local_name;
  std::optional<std::uint32_t> local_crc;
  std::optional<std::uint32_t> local_size_bytes;
  std::optional<std::uint16_t> local_method;
  bool has_local = true;  // false: there is an entry in the directory alone.
};

// What the directory's end says; what is not set is true.
struct RawEnd {
  std::optional<std::uint16_t> entry_count;
  std::optional<std::uint32_t> directory_size_bytes;
  std::optional<std::uint32_t> directory_position;
  std::optional<std::uint64_t> zip64_entry_count;  // Adds the records of ZIP64.
  std::optional<std::uint64_t> zip64_position;     // Of its end record, as its locator says.
  std::string before;                              // Bytes in front of the archive.
};

std::string raw_zip(const std::vector<RawEntry>& entries, const RawEnd& end = {});

std::uint32_t crc32_of(std::string_view bytes);

// As deflate packs them.
std::string deflated(std::string_view bytes);

// An entry of these bytes, deflated.
RawEntry deflated_entry(std::string name, std::string_view bytes);

}  // namespace stepstone::tool
