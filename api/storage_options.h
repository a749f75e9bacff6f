#pragma once
// How saves store their leaves.

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "../engine/compression.h"

namespace stepstone {

// Of the leaves whose path, as it is shown ("params/dense/w"), matches `pattern`: `*` stands for
// any characters, `/` included, `?` for one, `[ab]` for one of these (fnmatch(3)).
struct CompressionRule {
  std::string pattern;
  Compression compression = Compression::kAuto;
};

struct StorageOptions {
  Compression compression = Compression::kAuto;
  std::vector<CompressionRule> compression_rules;  // Exceptions; the first that matches decides.
  // Refer to what the step before has, and to equal leaves, instead of storing it again. Damage to
  // bytes that several steps share is damage to all of them.
  bool share = true;
  // Compress, in the background, what the steps but the newest so many hold uncompressed. nullopt:
  // they stay as they were saved. Of a CheckpointManager alone.
  std::optional<std::size_t> recompress_older_than;
};

}  // namespace stepstone
