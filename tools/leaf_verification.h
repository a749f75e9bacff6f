#pragma once
// Verification of chosen leaves, slowly if need be, that can be interrupted and go on. It reads
// what the leaves hold, and not what Store::verify() checks besides: the indexes and footers of the
// files.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/store.h"
#include "format/error.h"
#include "tools/leaf_selection.h"

namespace stepstone::tool {

struct VerificationOptions {
  std::optional<std::uint64_t> step;  // nullopt: all.
  LeafSelection selection;
  std::uint64_t bytes_per_second = 0;  // 0: as fast as it can.
  unsigned thread_count = 0;           // 0: one for each processor.
  // Where to note how far it is, now and then and at the end of an interruption; gone when all is
  // verified. A file that is there already says where to begin. Empty: nowhere.
  std::filesystem::path state_file;
  std::function<bool()> should_stop;  // Asked for each piece, from any thread.
  std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> progress;
};

struct Verification {
  VerifyReport report;  // With what was found before an interruption.
  bool is_complete = false;
};

// Damage is reported, not returned as an error. A chunk that several steps share is read once; what
// an earlier call has read, again. kNotFound: no such step, or no leaf is selected.
// kInvalidArgument: the state file is none, or is of another verification (another store, step or
// selection). kIo: it cannot be read or written.
Result<Verification> verify_leaves(const Store& store, const LeafPatterns& patterns,
                                   const VerificationOptions& options);

}  // namespace stepstone::tool
