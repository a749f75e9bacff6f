#include "engine/references.h"

#include <rocksdb/db.h>

#include <algorithm>
#include <limits>
#include <memory>

#include "engine/chunk_places.h"
#include "engine/rocksdb_support.h"
#include "engine/store_impl.h"
#include "format/assert.h"

namespace stepstone {
namespace {

constexpr std::size_t kNumberSizeBytes = 4;

std::uint32_t number_of(std::string_view key) {
  std::uint32_t number = 0;
  for (const char byte : key.substr(key.size() - kNumberSizeBytes)) {
    number = number << 8 | static_cast<unsigned char>(byte);
  }
  return number;
}

void set_number(std::string& key, std::uint32_t number) {
  for (std::size_t i = 1; i <= kNumberSizeBytes; ++i, number >>= 8) {
    key[key.size() - i] = static_cast<char>(number & 0xff);
  }
}

std::string with_number(const std::string& prefix, std::size_t number) {
  std::string key = prefix + std::string(kNumberSizeBytes, '\0');
  set_number(key, static_cast<std::uint32_t>(number));
  return key;
}

}  // namespace

void ChunkSet::add(std::string_view key, std::uint32_t size_bytes) {
  STEPSTONE_ASSERT(key.size() > kNumberSizeBytes && size_bytes != 0);
  const std::string_view prefix = key.substr(0, key.size() - kNumberSizeBytes);
  auto leaf = leaves_.find(prefix);
  if (leaf == leaves_.end()) leaf = leaves_.emplace(prefix, std::vector<std::uint32_t>()).first;
  const std::uint32_t number = number_of(key);
  if (leaf->second.size() <= number) leaf->second.resize(std::size_t{number} + 1);
  leaf->second[number] = size_bytes;
}

bool ChunkSet::contains(std::string_view key) const {
  STEPSTONE_ASSERT(key.size() > kNumberSizeBytes);
  const auto leaf = leaves_.find(key.substr(0, key.size() - kNumberSizeBytes));
  if (leaf == leaves_.end()) return false;
  const std::uint32_t number = number_of(key);
  return number < leaf->second.size() && leaf->second[number] != 0;
}

std::uint64_t ChunkSet::size_bytes_between(std::string_view first, std::string_view last) const {
  std::uint64_t sum = 0;
  for (const auto& [prefix, sizes] : leaves_) {
    for (std::size_t number = 0; number < sizes.size(); ++number) {
      if (sizes[number] == 0) continue;
      const std::string key = with_number(prefix, number);
      if (first <= key && key <= last) sum += sizes[number];
    }
  }
  return sum;
}

std::uint64_t ChunkSet::size_bytes() const {
  std::uint64_t sum = 0;
  for (const auto& entry : leaves_) {
    for (const std::uint32_t size : entry.second) sum += size;
  }
  return sum;
}

std::optional<std::string> ChunkSet::next(std::string_view key) const {
  auto leaf = leaves_.upper_bound(key);
  if (leaf != leaves_.begin()) {
    const auto& [prefix, sizes] = *std::prev(leaf);
    if (key.size() == prefix.size() + kNumberSizeBytes && key.starts_with(prefix)) {
      for (std::size_t number = number_of(key); number < sizes.size(); ++number) {
        if (sizes[number] != 0) return with_number(prefix, number);
      }
    }
  }
  if (leaf == leaves_.end()) return std::nullopt;
  const auto first = std::find_if(leaf->second.begin(), leaf->second.end(),
                                  [](std::uint32_t size) { return size != 0; });
  return with_number(leaf->first, static_cast<std::size_t>(first - leaf->second.begin()));
}

void ChunkSet::for_each(const std::function<void(const std::string& key)>& call) const {
  for (const auto& [prefix, sizes] : leaves_) {
    for (std::size_t number = 0; number < sizes.size(); ++number) {
      if (sizes[number] != 0) call(with_number(prefix, number));
    }
  }
}

Result<void> visit_references(StoreImpl& store, SaveId referrer,
                              const std::function<void(SaveId origin, const std::string& chunk_key,
                                                       std::uint32_t size_bytes)>& visit) {
  const KeyRange records = region_range(referrer, Region::kLeaf);
  const rocksdb::Slice end(records.end);
  rocksdb::ReadOptions options;
  options.iterate_upper_bound = &end;
  options.fill_cache = false;
  const std::string what = step_name(referrer.step);
  const std::unique_ptr<rocksdb::Iterator> entries(
      store.database().NewIterator(options, store.leaves()));
  for (entries->Seek(records.begin); entries->Valid(); entries->Next()) {
    const std::string_view key = entries->key().ToStringView();
    const LeafRecord record =
        STEPSTONE_TRY_CONTEXT(decode_leaf_record(entries->value().ToStringView(), key), what);
    if (record.origins.empty() && record.bases.empty()) continue;
    const DecodedKey leaf = STEPSTONE_TRY_CONTEXT(decode_key(key), what);
    const auto key_of_chunk_0 = [&](SaveId save, std::uint32_t source) {
      return source == 0 ? chunk_key(save, leaf.item, leaf.encoded_path, 0)
                         : chunk_key(save, record.sources[source - 1].item,
                                     record.sources[source - 1].encoded_path, 0);
    };
    for (const ChunkBase& base : record.bases) {
      if (base.save == referrer) continue;
      std::string chunk = key_of_chunk_0(base.save, base.source);
      set_number(chunk, base.chunk);
      const std::uint64_t size_bytes = chunk_block_size_bytes(chunk.size(), base.stored_size);
      visit(base.save, chunk, static_cast<std::uint32_t>(size_bytes));
    }
    for (const ChunkOrigin& origin : record.origins) {
      if (origin.save == referrer) continue;
      std::string chunk = key_of_chunk_0(origin.save, origin.source);
      for (std::uint32_t number = origin.first_chunk;
           number - origin.first_chunk < origin.chunk_count; ++number) {
        set_number(chunk, number);
        const std::uint64_t size_bytes =
            chunk_block_size_bytes(chunk.size(), record.stored_size_at(number));
        visit(origin.save, chunk, static_cast<std::uint32_t>(size_bytes));
      }
    }
  }
  return to_result(entries->status(), what);
}

}  // namespace stepstone
