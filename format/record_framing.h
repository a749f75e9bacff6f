#pragma once
// What all records have in common: a flatbuffer that is built, closed with its hash, and verified
// in one order before a field of it is believed. For the sources of format/ alone.

#include <flatbuffers/flatbuffers.h>

#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "format/error.h"
#include "format/hash.h"
#include "format/limits.h"
#include "format/records.h"
#include "format/schema/common_generated.h"

namespace stepstone::internal {

// Hashes and numbers are copied into the flatbuffers as they stand in memory.
static_assert(std::endian::native == std::endian::little);
static_assert(sizeof(schema::Hash) == sizeof(Hash128));
inline constexpr std::size_t kTrailerSizeBytes = sizeof(Hash128);

inline tl::unexpected<Error> corrupt(std::string_view what) {
  return fail(ErrorCode::kCorrupt, std::string(what));
}

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

inline schema::Hash to_schema(Hash128 hash) { return {hash.low, hash.high}; }
inline Hash128 from_schema(const schema::Hash* hash) {
  return hash == nullptr ? Hash128{} : Hash128{hash->low(), hash->high()};
}

inline std::string_view view(const flatbuffers::Vector<std::uint8_t>* bytes) {
  if (bytes == nullptr) return {};
  return {reinterpret_cast<const char*>(bytes->data()), bytes->size()};
}
inline std::string_view view(const flatbuffers::String* text) {
  return text == nullptr ? std::string_view{} : std::string_view{text->c_str(), text->size()};
}

// The verifier proves that a vector lies inside the buffer, not that its elements are aligned;
// reading a 64-bit number from another address is undefined.
template <typename Element>
bool is_misaligned(const flatbuffers::Vector<Element>* elements) {
  if (elements == nullptr || elements->size() == 0) return false;
  return reinterpret_cast<std::uintptr_t>(elements->Data()) % sizeof(std::uint64_t) != 0;
}

inline auto create_bytes(flatbuffers::FlatBufferBuilder& builder, std::string_view bytes) {
  return builder.CreateVector(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
}
// Absent when empty.
inline flatbuffers::Offset<flatbuffers::String> create_text(flatbuffers::FlatBufferBuilder& builder,
                                                            std::string_view text) {
  return text.empty() ? flatbuffers::Offset<flatbuffers::String>()
                      : builder.CreateString(text.data(), text.size());
}

// Only what a record makes use of is required of its reader.
inline auto create_header(flatbuffers::FlatBufferBuilder& builder, std::string_view key,
                          std::uint64_t required_features = 0) {
  const auto key_bytes = create_bytes(builder, key);
  return schema::CreateHeader(builder, kFormatVersion, required_features, key_bytes);
}

// Closes a finished flatbuffer with its hash.
inline std::string sealed(const flatbuffers::FlatBufferBuilder& builder) {
  const std::string_view buffer(reinterpret_cast<const char*>(builder.GetBufferPointer()),
                                builder.GetSize());
  const Hash128 hash = hash128(as_bytes(buffer));
  std::string bytes;
  bytes.reserve(buffer.size() + kTrailerSizeBytes);
  bytes.append(buffer);
  for (const std::uint64_t half : {hash.low, hash.high}) {
    for (int shift = 0; shift < 64; shift += 8) bytes += static_cast<char>(half >> shift);
  }
  return bytes;
}

inline std::uint64_t read_little_endian(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 8; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

// A record's flatbuffer, verified, in memory that is aligned as flatbuffers want it.
template <typename Table>
class VerifiedRecord {
 public:
  VerifiedRecord() = default;
  VerifiedRecord(const VerifiedRecord&) = delete;
  VerifiedRecord& operator=(const VerifiedRecord&) = delete;
  ~VerifiedRecord() = default;

  // Once; what is read of the record is valid as long as this is.
  Result<void> open(std::string_view bytes, std::string_view key, const char* identifier,
                    std::uint64_t known_features = 0) {
    if (bytes.size() > limits::kRecordSizeBytesMax + kTrailerSizeBytes) {
      return corrupt("record of " + std::to_string(bytes.size()) + " bytes is over the limit");
    }
    // The smallest flatbuffer: root offset and file identifier.
    if (bytes.size() < kTrailerSizeBytes + 8) return corrupt("record is cut off");
    const std::string_view buffer = bytes.substr(0, bytes.size() - kTrailerSizeBytes);
    if (hash128(as_bytes(buffer)) != record_hash(bytes)) {
      return corrupt("record does not match its hash");
    }
    const std::uint8_t* const data = aligned(buffer);
    if (!flatbuffers::BufferHasIdentifier(data, identifier)) {
      return corrupt("record is of another kind");
    }
    constexpr flatbuffers::uoffset_t kDepthMax = 8;
    const auto tables_max = static_cast<flatbuffers::uoffset_t>(limits::kItemsPerStepMax + 16);
    flatbuffers::Verifier verifier(data, buffer.size(), kDepthMax, tables_max);
    if (!verifier.VerifyBuffer<Table>(identifier)) return corrupt("record is no valid flatbuffer");
    table_ = flatbuffers::GetRoot<Table>(data);
    const schema::Header* const header = table_->header();
    if (header->format_version() != kFormatVersion) {
      return fail(ErrorCode::kUnsupported,
                  "record in format version " + std::to_string(header->format_version()) +
                      "; this build reads version " + std::to_string(kFormatVersion));
    }
    if ((header->required_features() & ~known_features) != 0) {
      return fail(ErrorCode::kUnsupported, "record needs a feature that this build does not have");
    }
    if (view(header->key()) != key) return corrupt("record belongs to another key");
    return {};
  }

  const Table* operator->() const { return table_; }

 private:
  // Records come out of RocksDB's blocks at any address; flatbuffers read aligned.
  const std::uint8_t* aligned(std::string_view buffer) {
    std::uint64_t* memory = near_.data();
    if (buffer.size() > sizeof(near_)) {
      far_ = std::make_unique_for_overwrite<std::uint64_t[]>(buffer.size() / 8 + 1);
      memory = far_.get();
    }
    std::memcpy(memory, buffer.data(), buffer.size());
    return reinterpret_cast<const std::uint8_t*>(memory);
  }

  // There may be ten thousands of records of small leaves, and little else to do for each.
  std::array<std::uint64_t, 256> near_;
  std::unique_ptr<std::uint64_t[]> far_;
  const Table* table_ = nullptr;
};

inline Result<std::string> checked_size(std::string bytes) {
  if (bytes.size() <= limits::kRecordSizeBytesMax) return bytes;
  return fail(ErrorCode::kLimit,
              "record of " + std::to_string(bytes.size()) + " bytes is over the limit of 1 GiB");
}

}  // namespace stepstone::internal
