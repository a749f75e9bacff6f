#pragma once
// HEAD, the witness of the store's last commit that stands outside RocksDB. RocksDB takes a flipped
// bit in its log for the end of the log, and forgets what follows without an error; HEAD remembers.
//
// The file holds two slots, at kHeadSlotStride from each other, written in turn: a torn write can
// only hurt the slot of the commit that was not acknowledged yet.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "format/error.h"
#include "format/hash.h"

namespace stepstone {

struct Head {
  Hash128 store_id;
  std::uint64_t sequence = 0;  // The commit that it witnesses.
  std::uint64_t step_count = 0;
  Hash128 steps_digest;
  std::uint64_t newest_step = 0;
  Hash128 newest_step_hash;

  bool operator==(const Head&) const = default;
};

inline constexpr std::size_t kHeadSlotSizeBytes = 104;
inline constexpr std::size_t kHeadSlotStride = 4096;  // Slots share no sector and no page.
inline constexpr std::size_t kHeadFileSizeBytes = kHeadSlotStride + kHeadSlotSizeBytes;

std::array<std::byte, kHeadSlotSizeBytes> encode_head_slot(const Head& head);
inline std::size_t head_slot_offset(std::uint64_t sequence) {
  return (sequence % 2) * kHeadSlotStride;
}

// The newer of the valid slots; `file` is the whole file. kCorrupt: no valid slot. kUnsupported: a
// newer version wrote it.
Result<Head> decode_head(std::span<const std::byte> file);

}  // namespace stepstone
