// A slot, all integers little-endian: magic (8), format version (4), zero (4), store id (16),
// sequence (8), step count (8), digest of the steps (16), newest step (8), hash of its record (16),
// hash of the 88 bytes before (16).
#include "format/head.h"

#include <cstring>

#include "format/records.h"

namespace stepstone {
namespace {

constexpr std::array<char, 8> kMagic = {'S', 'T', 'E', 'P', 'H', 'E', 'A', 'D'};
constexpr std::size_t kHashedSizeBytes = kHeadSlotSizeBytes - sizeof(Hash128);

class SlotWriter {
 public:
  explicit SlotWriter(std::span<std::byte> slot) : slot_(slot) {}

  void put(std::uint64_t value, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) slot_[at_++] = static_cast<std::byte>(value >> (8 * i));
  }
  void put(Hash128 hash) {
    put(hash.low, 8);
    put(hash.high, 8);
  }

 private:
  std::span<std::byte> slot_;
  std::size_t at_ = 0;
};

class SlotReader {
 public:
  explicit SlotReader(std::span<const std::byte> slot) : slot_(slot) {}

  std::uint64_t take(std::size_t size) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < size; ++i) {
      value |= static_cast<std::uint64_t>(slot_[at_++]) << (8 * i);
    }
    return value;
  }
  Hash128 take_hash() {
    const std::uint64_t low = take(8);
    return {low, take(8)};
  }

 private:
  std::span<const std::byte> slot_;
  std::size_t at_ = 0;
};

std::uint64_t magic_number() {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < kMagic.size(); ++i) {
    value |= static_cast<std::uint64_t>(static_cast<unsigned char>(kMagic[i])) << (8 * i);
  }
  return value;
}

Result<Head> decode_slot(std::span<const std::byte> slot) {
  SlotReader reader(slot);
  SlotReader hash_reader(slot.subspan(kHashedSizeBytes));
  if (reader.take(8) != magic_number() ||
      hash_reader.take_hash() != hash128(slot.first(kHashedSizeBytes))) {
    return fail(ErrorCode::kCorrupt, "HEAD: damaged slot");
  }
  const std::uint64_t version = reader.take(4);
  reader.take(4);
  if (version != kFormatVersion) {
    return fail(ErrorCode::kUnsupported,
                "HEAD: written in format version " + std::to_string(version) +
                    ", this build reads version " + std::to_string(kFormatVersion));
  }
  Head head;
  head.store_id = reader.take_hash();
  head.sequence = reader.take(8);
  head.step_count = reader.take(8);
  head.steps_digest = reader.take_hash();
  head.newest_step = reader.take(8);
  head.newest_step_hash = reader.take_hash();
  return head;
}

}  // namespace

std::array<std::byte, kHeadSlotSizeBytes> encode_head_slot(const Head& head) {
  std::array<std::byte, kHeadSlotSizeBytes> slot{};
  SlotWriter writer(slot);
  writer.put(magic_number(), 8);
  writer.put(kFormatVersion, 4);
  writer.put(0, 4);
  writer.put(head.store_id);
  writer.put(head.sequence, 8);
  writer.put(head.step_count, 8);
  writer.put(head.steps_digest);
  writer.put(head.newest_step, 8);
  writer.put(head.newest_step_hash);
  writer.put(hash128(std::span<const std::byte>(slot).first(kHashedSizeBytes)));
  return slot;
}

Result<Head> decode_head(std::span<const std::byte> file) {
  Result<Head> newest = fail(ErrorCode::kCorrupt, "HEAD: both slots are damaged");
  for (const std::size_t offset : {std::size_t{0}, kHeadSlotStride}) {
    if (file.size() < offset + kHeadSlotSizeBytes) continue;
    Result<Head> slot = decode_slot(file.subspan(offset, kHeadSlotSizeBytes));
    // A slot that stands where its commit would not have written it was misplaced.
    if (slot && head_slot_offset(slot->sequence) != offset) continue;
    if (!slot && slot.error().code == ErrorCode::kUnsupported) return slot;
    if (slot && (!newest || slot->sequence > newest->sequence)) newest = std::move(slot);
  }
  return newest;
}

}  // namespace stepstone
