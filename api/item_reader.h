#pragma once
// What a handler sees of the item that it restores.

#include <cstdint>
#include <string>

#include "args.h"
#include "item_metadata.h"
#include "statistics.h"

namespace stepstone {

class StepReader;

// One item of a step. Valid only during the call that it is handed to; safe from several threads,
// but for statistics.
class ItemReader {
 public:
  // For callers inside the library; `reader` and `statistics` (or null) must outlive this.
  ItemReader(const StepReader& reader, std::string name, RestoreStatistics* statistics)
      : reader_(reader), name_(std::move(name)), statistics_(statistics) {}

  std::uint64_t step() const;
  const std::string& name() const { return name_; }
  // "step 40 item 'state'", for messages.
  std::string where() const;

  // The tree that was written, or what `args` make of it. kNotFound, kMismatch, kInvalidArgument,
  // kCorrupt, kIo; the message names step, item and leaf.
  Result<Tree> read(const args::PyTreeRestore& args = {}) const;
  // Reads no arrays.
  Result<ItemMetadata> metadata() const;

 private:
  const StepReader& reader_;
  std::string name_;
  RestoreStatistics* statistics_;
};

}  // namespace stepstone
