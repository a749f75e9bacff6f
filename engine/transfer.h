#pragma once
// Copies of steps: from a store or a portable file into a portable file (Store::export_steps) or
// into another store (Store::import_steps). Both stream: memory does not grow with the size of a
// leaf, whatever its record says of it.
//
//   STEPSTONE_TRY(store.export_steps("weights.stone", {.steps = {{1000}}}));
//   STEPSTONE_TRY(other.import_steps(*STEPSTONE_TRY(Store::open("weights.stone", {}))));

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/compression.h"
#include "engine/leaf_source.h"
#include "engine/store.h"
#include "format/leaf_path.h"

namespace stepstone {

// An item as it is to be in the copy.
struct TransferItem {
  std::string handler;
  TreeStructure
      structure;  // The copy has the leaves of this, which must be leaves of the original.
  std::string custom_metadata;
  // Where in the original `structure` stands, when it is to be the whole of the copy's item.
  LeafPath below;
};

// A leaf as it is to be in the copy.
struct TransferLeaf {
  std::string encoded_path;  // In the copy.
  LeafInfo info;
  std::shared_ptr<const LeafSource> source;  // At first the original's bytes, checked.
};

// What may be changed on the way. Called by one thread, in the order of the copy; an error ends
// the copying.
struct TransferHooks {
  // False: the item is left out. `item` is at first that of the original.
  std::function<Result<bool>(const StepReader& step, std::string_view name, TransferItem& item)>
      item;
  // May replace info and source together, such as by a cast of what `leaf.source` gives. The source
  // is read from several threads.
  std::function<Result<void>(const StepReader& step, std::string_view item, TransferLeaf& leaf)>
      leaf;
};

using TransferProgress = std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)>;

struct ExportOptions {
  std::optional<std::vector<std::uint64_t>> steps;  // nullopt: all that are there at the begin.
  bool overwrite = false;  // Replace a file of that name, in one instant, when the new is durable.
  bool compress = false;   // What is compressed cannot be viewed in place.
  // Chunks that an earlier step of the file holds are stored once. A leaf that has only some of
  // its chunks in common with one before stands in pieces then, and cannot be viewed.
  bool share = true;
  TransferHooks hooks;
  TransferProgress progress;          // Of the original's bytes.
  std::function<bool()> should_stop;  // Asked for each chunk, from any thread; true: kClosed.
  // Where the file is to be; null: the machine's own.
  std::shared_ptr<rocksdb::FileSystem> file_system;
};

struct ExportCounters {
  std::uint64_t step_count = 0;
  std::uint64_t leaf_count = 0;
  std::uint64_t size_bytes = 0;  // Of the leaves, as they are in the copy.
  std::uint64_t file_size_bytes = 0;
};

// Store::export_steps: while others save to the store, if need be; the steps are held until they
// are written. The file is written beside its name as FILE.partial-PID-N, and gets the name when it
// is durable: until then, and after any error, the name leads to what it led to before.
//
// kNotFound: a step is not there, or there is none at all, or no directory for the file.
// kAlreadyExists: the file is there, and options.overwrite is not set. kInvalidArgument: the hooks
// leave nothing of a step, or give what does not hold together. kCorrupt, kIo: a step cannot be
// read. kNoSpace, kIo, kPermissionDenied, kReadOnly: the file cannot be written. kClosed.

struct ImportOptions {
  // What becomes of a step that the store has already.
  enum class Existing : std::uint8_t { kRefuse, kOverwrite, kSkip };

  std::optional<std::vector<std::uint64_t>> steps;  // nullopt: all that are there at the begin.
  std::optional<std::uint64_t> as_step;  // What the only step that is copied is to be called.
  Existing existing = Existing::kRefuse;
  bool share = true;
  Compression compression = Compression::kAuto;
  TransferHooks hooks;
  TransferProgress progress;  // Of the original's bytes.
  std::function<bool()> should_stop;
};

struct ImportCounters {
  std::uint64_t step_count = 0;     // That were copied...
  std::uint64_t skipped_count = 0;  // ...and that were there.
  std::uint64_t leaf_count = 0;
  std::uint64_t size_bytes = 0;    // Of the leaves, as they are in the copy.
  std::uint64_t stored_bytes = 0;  // Of the files or entries that were written for them.
};

// Store::import_steps: each step is committed by itself, in ascending order, with the metrics,
// metadata and times of the original; a store that has no custom metadata gets those of the
// original at the end. Without a list of steps, a portable file has to be whole,
// down to bytes that belong to nothing; its chunks are checked as they are copied. After an error
// the steps before it are there, and nothing of the one that it names; with Existing::kSkip the
// same call goes on from there. `from` may be this store, with as_step.
//
// kNotFound: a step is not in `from`. kAlreadyExists: a step is in this store, with
// Existing::kRefuse; nothing was copied. kInvalidArgument: as_step with several steps, or what the
// hooks give does not hold together. kCorrupt, kIo: a step cannot be read. kReadOnly, kClosed, and
// the errors of StepWriter::commit.

}  // namespace stepstone
