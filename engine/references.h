#pragma once
// Which chunks of other saves a step refers to, as its leaf records say.

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "format/error.h"
#include "format/keys.h"

namespace stepstone {

class StoreImpl;

// Some chunks of one save. Ordered like their keys.
class ChunkSet {
 public:
  // `key` is chunk_key()'s; `size_bytes` what the entry takes in a segment, not 0.
  void add(std::string_view key, std::uint32_t size_bytes);

  bool contains(std::string_view key) const;
  // What the chunks whose keys are in [first, last] take.
  std::uint64_t size_bytes_between(std::string_view first, std::string_view last) const;
  std::uint64_t size_bytes() const;
  // The least key of the set that is not less than `key`.
  std::optional<std::string> next(std::string_view key) const;
  // Calls with every key.
  void for_each(const std::function<void(const std::string& key)>& call) const;

 private:
  // By the key without the chunk's number: what each chunk takes, 0 if it is not in the set.
  std::map<std::string, std::vector<std::uint32_t>, std::less<>> leaves_;
};

// Calls with every chunk that the save `referrer`, which must be held, has in another save.
// kCorrupt, kIo: not all of its leaf records could be read.
Result<void> visit_references(StoreImpl& store, SaveId referrer,
                              const std::function<void(SaveId origin, const std::string& chunk_key,
                                                       std::uint32_t size_bytes)>& visit);

}  // namespace stepstone
