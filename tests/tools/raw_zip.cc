#include "tests/tools/raw_zip.h"

#include <zlib.h>

#include <algorithm>

namespace stepstone::tool {
namespace {

void append(std::string& bytes, std::uint64_t number, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) {
    bytes += i < sizeof(number) ? static_cast<char>(number >> (8 * i)) : '\0';
  }
}

std::uint64_t narrow(std::uint64_t number) { return std::min<std::uint64_t>(number, 0xFFFFFFFF); }

std::string local_header(const RawEntry& entry, std::uint32_t crc, std::uint64_t size_bytes) {
  const std::string& name = entry.local_name.value_or(entry.name);
  std::string bytes = "PK\x03\x04";
  append(bytes, 20, 2);
  append(bytes, entry.flags, 2);
  append(bytes, entry.local_method.value_or(entry.method), 2);
  append(bytes, 0x00210000, 4);
  append(bytes, entry.local_crc.value_or(crc), 4);
  append(bytes, narrow(entry.packed_size_bytes.value_or(entry.packed.size())), 4);
  append(bytes, entry.local_size_bytes.value_or(narrow(size_bytes)), 4);
  append(bytes, name.size(), 2);
  append(bytes, 0, 2);
  return bytes + name;
}

std::string directory_entry(const RawEntry& entry, std::uint32_t crc, std::uint64_t size_bytes,
                            std::uint64_t position) {
  const std::uint64_t packed_size = entry.packed_size_bytes.value_or(entry.packed.size());
  std::string extra;
  if (size_bytes >= 0xFFFFFFFF) append(extra, size_bytes, 8);
  if (packed_size >= 0xFFFFFFFF) append(extra, packed_size, 8);
  if (position >= 0xFFFFFFFF) append(extra, position, 8);
  if (!extra.empty()) {
    std::string head;
    append(head, 1, 2);
    append(head, extra.size(), 2);
    extra = head + extra;
  }
  std::string bytes = "PK\x01\x02";
  append(bytes, 45, 2);
  append(bytes, 20, 2);
  append(bytes, entry.flags, 2);
  append(bytes, entry.method, 2);
  append(bytes, 0x00210000, 4);
  append(bytes, crc, 4);
  append(bytes, narrow(packed_size), 4);
  append(bytes, narrow(size_bytes), 4);
  append(bytes, entry.name.size(), 2);
  append(bytes, extra.size(), 2);
  append(bytes, 0, 10);
  append(bytes, narrow(position), 4);
  return bytes + entry.name + extra;
}

}  // namespace

std::string raw_zip(const std::vector<RawEntry>& entries, const RawEnd& end) {
  std::string file = end.before;
  std::string directory;
  for (const RawEntry& entry : entries) {
    const std::uint32_t crc = entry.crc.value_or(crc32_of(entry.packed));
    const std::uint64_t size_bytes = entry.size_bytes.value_or(entry.packed.size());
    const std::uint64_t position = entry.position.value_or(file.size() - end.before.size());
    directory += directory_entry(entry, crc, size_bytes, position);
    if (entry.has_local) file += local_header(entry, crc, size_bytes) + entry.packed;
  }
  const std::uint64_t directory_position =
      end.directory_position.value_or(file.size() - end.before.size());
  const std::uint64_t directory_size = end.directory_size_bytes.value_or(directory.size());
  file += directory;
  if (end.zip64_entry_count) {
    const std::uint64_t position = end.zip64_position.value_or(file.size());
    file += "PK\x06\x06";
    append(file, 44, 8);
    append(file, 45, 2);
    append(file, 45, 2);
    append(file, 0, 8);
    append(file, *end.zip64_entry_count, 8);
    append(file, *end.zip64_entry_count, 8);
    append(file, directory_size, 8);
    append(file, directory_position, 8);
    file += "PK\x06\x07";
    append(file, 0, 4);
    append(file, position, 8);
    append(file, 1, 4);
  }
  const std::uint64_t count =
      end.entry_count.value_or(end.zip64_entry_count ? 0xFFFF : entries.size());
  file += "PK\x05\x06";
  append(file, 0, 4);
  append(file, count, 2);
  append(file, count, 2);
  append(file, end.zip64_entry_count ? 0xFFFFFFFF : directory_size, 4);
  append(file, end.zip64_entry_count ? 0xFFFFFFFF : directory_position, 4);
  append(file, 0, 2);
  return file;
}

std::uint32_t crc32_of(std::string_view bytes) {
  return static_cast<std::uint32_t>(
      crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size())));
}

std::string deflated(std::string_view bytes) {
  z_stream stream = {};
  deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string packed(deflateBound(&stream, bytes.size()), '\0');
  std::string input(bytes);
  stream.next_in = reinterpret_cast<Bytef*>(input.data());
  stream.avail_in = static_cast<uInt>(input.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

RawEntry deflated_entry(std::string name, std::string_view bytes) {
  return {.name = std::move(name),
          .packed = deflated(bytes),
          .method = 8,
          .crc = crc32_of(bytes),
          .size_bytes = bytes.size()};
}

}  // namespace stepstone::tool
