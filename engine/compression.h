#pragma once
// Whether leaves are compressed.

namespace stepstone {

// Compression is lossless and by the chunk; a chunk that does not become smaller is stored as it
// is.
enum class Compression {
  kNone,
  kAuto,    // Where a sample of the state and the earlier saves say that it makes the save shorter.
  kAlways,  // Wherever it makes a chunk smaller.
};

}  // namespace stepstone
