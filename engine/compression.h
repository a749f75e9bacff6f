#pragma once
// Whether leaves are compressed.

namespace stepstone {

// Compression is lossless and by the chunk; a chunk that does not become smaller is stored as it
// is.
enum class Compression {
  kNone,
  kAuto,    // Where a sample of the state and the earlier saves say that it makes the save shorter.
  kAlways,  // Wherever it makes a chunk smaller.
  // As kAlways, or as the difference from the chunk that the step before has at the same place, for
  // leaves of which a sample says that this is smaller: weights that hardly move from step to step.
  // Needs SaveOptions::share. Costs the reading of two chunks for one, here and when the step is
  // read; damage to a chunk is damage to all that differ from it.
  kDelta,
};

}  // namespace stepstone
