#pragma once
// How a save would go if its chunks were encoded, found out on a few of them.

#include <span>

#include "engine/compression_policy.h"
#include "engine/save_plan.h"

namespace stepstone {

// Encodes a few chunks from all over `leaves`, each of which has chunks to be written. Errors:
// those of the leaves' sources, naming `step` and the leaf.
Result<EncodingSample> sample_encoding(std::uint64_t step, std::span<PlannedLeaf* const> leaves);

}  // namespace stepstone
