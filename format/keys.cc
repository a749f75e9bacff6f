#include "format/keys.h"

#include "format/leaf_path.h"
#include "format/limits.h"

namespace stepstone {
namespace {

constexpr std::size_t kSaveIdSizeBytes = 12;
// First byte of a key in the column family of steps.
constexpr char kStoreTag = '\0';
constexpr char kStepTag = '\x01';

template <typename Integer>
void append_big_endian(std::string& key, Integer value) {
  for (int shift = 8 * (static_cast<int>(sizeof(value)) - 1); shift >= 0; shift -= 8) {
    key += static_cast<char>(value >> shift);
  }
}

template <typename Integer>
Integer read_big_endian(std::string_view bytes) {
  Integer value = 0;
  for (std::size_t i = 0; i < sizeof(Integer); ++i) {
    value = static_cast<Integer>(value << 8 | static_cast<unsigned char>(bytes[i]));
  }
  return value;
}

std::string save_prefix(SaveId save) {
  std::string key;
  append_big_endian(key, save.step);
  append_big_endian(key, save.generation);
  return key;
}

// Items are escaped as the names in a path are.
void append_item(std::string& key, std::string_view item) {
  append_component(key, PathComponent::key(std::string(item)));
}

}  // namespace

std::string step_copy_key(SaveId save) {
  std::string key = save_prefix(save);
  key += static_cast<char>(Region::kStep);
  return key;
}

std::string region_prefix(SaveId save, Region region, std::string_view item) {
  std::string key = save_prefix(save);
  key += static_cast<char>(region);
  append_item(key, item);
  return key;
}

std::string item_key(SaveId save, std::string_view item) {
  return region_prefix(save, Region::kItem, item);
}

std::string leaf_key(SaveId save, std::string_view item, std::string_view encoded_path) {
  return region_prefix(save, Region::kLeaf, item).append(encoded_path);
}

std::string chunk_key(SaveId save, std::string_view item, std::string_view encoded_path,
                      std::uint32_t chunk) {
  std::string key = region_prefix(save, Region::kChunk, item).append(encoded_path);
  append_big_endian(key, chunk);
  return key;
}

KeyRange save_range(SaveId save) {
  // Regions are far below 0xff, so this end is above every key of the save and below the next save.
  return {save_prefix(save), save_prefix(save) + '\xff'};
}

KeyRange region_range(SaveId save, Region region) {
  const char byte = static_cast<char>(region);
  return {save_prefix(save) + byte, save_prefix(save) + static_cast<char>(byte + 1)};
}

std::optional<SaveId> save_of_key(std::string_view key) {
  if (key.size() < kSaveIdSizeBytes) return std::nullopt;
  return SaveId{read_big_endian<std::uint64_t>(key), read_big_endian<std::uint32_t>(key.substr(8))};
}

Result<DecodedKey> decode_key(std::string_view key) {
  const std::optional<SaveId> save = save_of_key(key);
  if (!save || key.size() == kSaveIdSizeBytes)
    return fail(ErrorCode::kCorrupt, "a key is too short");
  DecodedKey decoded;
  decoded.save = *save;
  decoded.region = static_cast<Region>(key[kSaveIdSizeBytes]);
  if (decoded.region > Region::kChunk)
    return fail(ErrorCode::kCorrupt, "a key has an unknown region");
  std::string_view rest = key.substr(kSaveIdSizeBytes + 1);
  if (decoded.region != Region::kStep) {
    PathComponent item = STEPSTONE_TRY(take_component(&rest));
    if (item.kind != PathComponent::Kind::kStringKey) {
      return fail(ErrorCode::kCorrupt, "a key has no item");
    }
    decoded.item = std::move(item.name);
  }
  if (decoded.region == Region::kChunk) {
    if (rest.size() < 4) return fail(ErrorCode::kCorrupt, "a key has no chunk number");
    decoded.chunk = read_big_endian<std::uint32_t>(rest.substr(rest.size() - 4));
    rest.remove_suffix(4);
  }
  if (decoded.region == Region::kLeaf || decoded.region == Region::kChunk) {
    STEPSTONE_TRY(decode_path(rest));
    decoded.encoded_path = rest;
    rest = {};
  }
  if (!rest.empty()) return fail(ErrorCode::kCorrupt, "a key goes on behind its end");
  return decoded;
}

std::string store_record_key() { return std::string(1, kStoreTag); }

std::string step_record_key(std::uint64_t step) {
  std::string key(1, kStepTag);
  append_big_endian(key, step);
  return key;
}

std::optional<std::uint64_t> step_of_record_key(std::string_view key) {
  if (key.size() != 1 + sizeof(std::uint64_t) || key.front() != kStepTag) return std::nullopt;
  std::uint64_t step = 0;
  for (const char byte : key.substr(1)) step = step << 8 | static_cast<unsigned char>(byte);
  return step;
}

}  // namespace stepstone
