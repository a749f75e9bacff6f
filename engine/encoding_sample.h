#pragma once
// How a save would go if its chunks were encoded, one way or another, found out on a few of them.

#include <span>

#include "engine/compression_policy.h"
#include "engine/save_plan.h"
#include "engine/sharing.h"

namespace stepstone {

// Encodes a few chunks from all over `leaves`, each of which has chunks to be written. Errors:
// those of the leaves' sources, naming `step` and the leaf.
Result<EncodingSample> sample_encoding(std::uint64_t step, std::span<PlannedLeaf* const> leaves);

// Whether the chunks of a leaf that has a base become smaller as differences from that, by a few of
// them. Errors: those of the leaf's source, naming `step` and the leaf.
Result<bool> is_smaller_as_delta(std::uint64_t step, const PlannedLeaf& leaf,
                                 const SharingBase& base);

}  // namespace stepstone
