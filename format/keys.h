#pragma once
// The keys of the store's database: order-preserving bytes,
//
//   step (8, big-endian) | generation (4, big-endian) | region (1) | item | path | chunk (4,
//   big-endian)
//
// so that everything of one save is one contiguous range which no other save touches. The regions
// stand in the order in which they are read: the records first and packed together, the chunks
// behind them.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "error.h"

namespace stepstone {

// One save of one step. The generation is the store's count of saves, so that no two attempts,
// crashed ones included, ever write the same key.
struct SaveId {
  std::uint64_t step = 0;
  std::uint32_t generation = 0;

  auto operator<=>(const SaveId&) const = default;
};

enum class Region : std::uint8_t {
  kStep = 0,  // A copy of the StepRecord, for salvage. The key ends here.
  kItem = 1,  // ItemRecord. The key ends after the item.
  kLeaf = 2,  // LeafRecord. The key ends after the path.
  kChunk = 3,
};

// `encoded_path` is the closed form of encode_path.
std::string step_copy_key(SaveId save);
std::string item_key(SaveId save, std::string_view item);
std::string leaf_key(SaveId save, std::string_view item, std::string_view encoded_path);
std::string chunk_key(SaveId save, std::string_view item, std::string_view encoded_path,
                      std::uint32_t chunk);

// Every key of `item` in `region` (kLeaf or kChunk) begins with this, and no other key does.
std::string region_prefix(SaveId save, Region region, std::string_view item);

// Keys k of a save are exactly those with begin <= k < end.
struct KeyRange {
  std::string begin;
  std::string end;
};
KeyRange save_range(SaveId save);
KeyRange region_range(SaveId save, Region region);

struct DecodedKey {
  SaveId save;
  Region region = Region::kStep;
  std::string item;
  std::string encoded_path;
  std::uint32_t chunk = 0;
};

// kCorrupt: not a key that the functions above write.
Result<DecodedKey> decode_key(std::string_view key);

// The save that a key belongs to, read from its first twelve bytes; nullopt if it is shorter.
std::optional<SaveId> save_of_key(std::string_view key);

// In the column family of steps: where the StoreRecord stands, and a step's current record.
std::string store_record_key();
std::string step_record_key(std::uint64_t step);
// The other way; nullopt: it is no key of a step's record.
std::optional<std::uint64_t> step_of_record_key(std::string_view key);

}  // namespace stepstone
