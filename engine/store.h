#pragma once
// A run's checkpoints in one RocksDB directory, or in one portable file, which can only be read.
// The engine's front door: open a Store, begin_save() to write a step, read_step() to read one;
// engine/transfer.h copies steps between stores and files. engine/README.md tells the life of a
// save and of a restore.
//
// One Store writes at a time, in one process; any number of processes may have it open read-only.
// All methods but close() may be called from any thread. Saves may be prepared side by side; their
// commits take turns.

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/compression.h"
#include "engine/leaf_source.h"
#include "format/error.h"
#include "format/records.h"

namespace rocksdb {
class FileSystem;
}

namespace stepstone {

class Recompression;
class Replacement;
class StepContent;
class StepReader;
class StepSaver;
class StepWriter;
class StoreContent;
class StoreImpl;
struct ExportCounters;
struct ExportOptions;
struct ImportCounters;
struct ImportOptions;

struct OpenOptions {
  bool create_if_missing = false;
  // Creates it beside other files, too, such as a run's logs, as long as none of them has a name
  // that a database's files have. They are never touched.
  bool beside_other_files = false;
  bool read_only = false;  // Takes no lock. Sees the steps committed before open(), and only those.
                           // A portable file is always read so.
  unsigned thread_count = 0;  // Of one save or verification; 0: one per processor.
  // Encodes, in the background, what the steps but the newest so many hold unencoded; once for each
  // step, but once for each open where it does not become smaller. nullopt: leaves them alone.
  std::optional<std::size_t> recompress_older_than;
  // Of the bytes that this reads; 0: as fast as it can. It runs at a low priority.
  std::uint64_t recompress_bytes_per_second = std::uint64_t{128} << 20;
  // Where the store's files live; null: the machine's own. Kept for as long as the Store is open.
  std::shared_ptr<rocksdb::FileSystem> file_system;
};

struct SaveOptions {
  bool overwrite = false;  // Replace an existing step, in the instant of the commit.
  std::uint32_t chunk_size_bytes = std::uint32_t{256} << 10;
  // Refer to chunks that the step before has, and to equal leaves, instead of storing them again.
  // Damage to what is shared is damage to all that share it.
  bool share = true;
  Compression compression = Compression::kAuto;
  std::string metrics;          // JSON text, or empty.
  std::string custom_metadata;  // JSON text, or empty.
  // JSON text: the rule by which whoever saves keeps steps, which the store holds for those who
  // look at it, from this commit on. nullopt: what it holds stays.
  std::optional<std::string> preservation_policy;
  std::optional<std::int64_t> started_unix_ns;    // To be recorded; nullopt: now.
  std::optional<std::int64_t> committed_unix_ns;  // The same; nullopt: when it is committed.
};

// Which steps a commit is to make invisible: asked just before it, while no other commit can come
// between, so that it may look at the steps there are. It must not wait for the store. An error is
// the commit's.
using ChooseRetired = std::function<Result<std::vector<std::uint64_t>>()>;

// What a save did.
struct SaveCounters {
  std::uint64_t size_bytes = 0;     // Of all leaves.
  std::uint64_t stored_bytes = 0;   // Of the files or entries that it wrote.
  std::uint64_t shared_bytes = 0;   // Of the leaves, found to be stored already.
  std::uint64_t encoded_bytes = 0;  // Of the leaves, stored in fewer bytes.
  unsigned thread_count = 0;
  std::chrono::nanoseconds write_time{};   // Hashing and writing, until all is on disk.
  std::chrono::nanoseconds commit_time{};  // Making it visible.
};

struct VerifyOptions {
  std::optional<std::uint64_t> step;  // nullopt: all.
  // Called now and then, from any thread but never twice at once.
  std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> progress;
};

// One thing found damaged. Item and leaf are empty where the damage is to the step or item as a
// whole.
struct Damage {
  std::uint64_t step = 0;
  std::string item;
  std::optional<std::string> leaf;  // As to_text() shows it.
  std::string message;
};

struct VerifyReport {
  std::uint64_t step_count = 0;
  std::uint64_t leaf_count = 0;
  std::uint64_t size_bytes = 0;
  std::vector<Damage> damages;  // Ordered by step, item, leaf.
};

// What encoding a step again did.
struct RecompressCounters {
  bool was_replaced = false;  // False: it would not have become smaller, and is as it was.
  // Of the chunks that stand elsewhere now than before: what they took, and take.
  std::uint64_t bytes_before = 0;
  std::uint64_t bytes_after = 0;
};

// How much room a step takes.
struct StepUsage {
  std::uint64_t step = 0;
  std::uint64_t size_bytes = 0;    // Of its leaves, as they were given.
  std::uint64_t stored_bytes = 0;  // Of the files that its save wrote; of a small step, roughly.
  std::uint64_t shared_bytes = 0;  // Of its chunks that stand in the files of other saves.
};

struct StoreUsage {
  std::vector<StepUsage> steps;         // Ascending.
  std::uint64_t stored_bytes = 0;       // Of all tables; the log comes on top, at most some MiB.
  std::uint64_t hidden_bytes = 0;       // Of the files of saves that are not visible any more.
  std::uint64_t reclaimable_bytes = 0;  // Of what no step refers to; files are only rewritten for
                                        // it when most of them is dead.
};

class Store {
 public:
  // Of a directory, or of a portable file: then every call that writes gives kReadOnly. kNotFound:
  // no store there, and not asked to create one. kInvalidArgument: `directory` is something else
  // (another file, or a directory of other things), or read_only and create_if_missing together, or
  // create_if_missing where a portable file is. kBusy: open for writing elsewhere. kCorrupt:
  // RocksDB shows less than HEAD witnessed; nothing was deleted; or the portable file is damaged.
  // kUnsupported: written by a newer version. kIo, kNoSpace, kPermissionDenied, kReadOnly: from the
  // operating system.
  static Result<std::unique_ptr<Store>> open(const std::filesystem::path& directory,
                                             const OpenOptions& options);
  // Closes. A StepReader or StepWriter that is still there keeps the database open until it goes.
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  // Waits for the collector and frees the lock. kBusy, and nothing done: a StepReader or StepWriter
  // of this store is still there. Idempotent; every other call on a closed store gives kClosed or
  // nothing.
  Result<void> close();

  std::filesystem::path directory() const;
  bool is_read_only() const;
  // Whether this shows all that has been committed: false when a store that was opened read-only
  // has been written to since, or its files may have been moved, or another portable file has taken
  // the place of this one. One small read.
  bool is_current() const;

  // Visible steps, ascending.
  std::vector<std::uint64_t> steps() const;
  std::optional<std::uint64_t> latest_step() const;
  // The saves of the visible steps, ascending: another save of a step has another generation.
  std::vector<SaveId> saves() const;
  // kNotFound: names the steps there are. kCorrupt, kIo: of a portable file.
  Result<StepRecord> step_record(std::uint64_t step) const;

  // Begins a save. Nothing is visible, and nothing is lost if the writer is dropped, before its
  // commit. kReadOnly, kClosed. kLimit: `step` over limits::kStepMax, or the chunk size out of
  // bounds. kAlreadyExists: the step is there and options.overwrite is not set.
  Result<std::unique_ptr<StepWriter>> begin_save(std::uint64_t step,
                                                 const SaveOptions& options = {});

  // A reader of one step, which keeps the step's bytes from being collected while it lives, even if
  // the step is retired or overwritten meanwhile. kNotFound. kCorrupt, kIo: of a portable file.
  Result<std::shared_ptr<const StepReader>> read_step(std::uint64_t step) const;

  // Makes the steps invisible, durably and all in one commit; their space is freed in the
  // background. kNotFound: one is not there; none was retired. kReadOnly, kClosed, kIo, kNoSpace.
  Result<void> retire(std::span<const std::uint64_t> steps);

  // Writes steps into a portable file, and copies steps of another store or portable file into this
  // one: engine/transfer.h, which has the options, tells of both.
  Result<ExportCounters> export_steps(const std::filesystem::path& file,
                                      const ExportOptions& options) const;
  Result<ImportCounters> import_steps(const Store& from, const ImportOptions& options);

  // JSON text about the store as a whole, empty until it is set. Copies take it along. kCorrupt,
  // kIo: of a portable file, whose newest step has it.
  Result<std::string> custom_metadata() const;
  // Sets it, durably. kLimit: over limits::kStoreMetadataSizeBytesMax. kReadOnly, kClosed, kIo,
  // kNoSpace.
  Result<void> set_custom_metadata(const std::string& json);
  // SaveOptions::preservation_policy as it was given last; empty: never, or in a portable file.
  std::string preservation_policy() const;

  // Encodes what the step holds unencoded, and refers to what the step before has: a new save of
  // the same step takes its place in one commit, if that is smaller. What is read from the step,
  // its times and metadata included, stays the same; what it shares with earlier steps is their
  // matter. Steps that share chunks are therefore best recompressed from the oldest to the newest,
  // and a later step that is left out keeps the unencoded chunks that it shares. kNotFound. kBusy:
  // the step was overwritten or retired meanwhile, and nothing was done. kCorrupt, kIo: it cannot
  // be read. kReadOnly, kClosed, kNoSpace.
  Result<RecompressCounters> recompress(std::uint64_t step);

  // Waits until everything retired so far, and not held by a reader or shared with a step that is
  // there, has been deleted, but for what is not worth rewriting a file; and until what is to be
  // recompressed in the background has been.
  void wait_for_collector();

  // Reads every byte of every step and checks it. Damage is reported, not returned as an error.
  // kNotFound: options.step is not there.
  Result<VerifyReport> verify(const VerifyOptions& options = {}) const;

  // Reads all leaf records to tell. kCorrupt, kIo: one of them cannot be read.
  Result<StoreUsage> usage() const;

 private:
  explicit Store(std::shared_ptr<StoreContent> content);
  Result<std::shared_ptr<StoreImpl>> writable() const;
  Result<std::vector<std::shared_ptr<const StepReader>>> hold_steps(
      const std::optional<std::vector<std::uint64_t>>& steps) const;
  // For a copy of all steps, or of those that were named: these can do without.
  Result<std::string> metadata_to_copy(bool are_steps_named) const;

  std::shared_ptr<StoreContent> content_;  // Null: it was closed.
};

// What a leaf is, apart from its bytes.
struct LeafInfo {
  LeafKind kind = LeafKind::kArray;
  std::optional<DType> dtype;  // Set exactly for kArray.
  std::vector<std::uint64_t> shape;
  std::uint64_t size_bytes = 0;
  // Other than the save's.
  std::optional<Compression> compression;
  std::optional<std::uint32_t> chunk_size_bytes;
  bool share = true;  // false: not this leaf, whatever the save does.
};

// A step being written. Collects items and leaves; commit() checks and writes them. Not
// thread-safe, but for give_up().
class StepWriter {
 public:
  // A save of one step into a portable file of its own, which is at `file` from the commit on, and
  // nothing before; engine/transfer.h tells how, and lists the errors. Of `options`, the
  // compressions kAlways and kDelta compress all leaves, and the others none, so that they can be
  // viewed; there is nothing to share with. `file_system`: as in OpenOptions.
  static Result<std::unique_ptr<StepWriter>> into_file(
      const std::filesystem::path& file, std::uint64_t step, const SaveOptions& options = {},
      std::shared_ptr<rocksdb::FileSystem> file_system = nullptr);

  // Dropped without a commit: the step never existed.
  ~StepWriter();
  StepWriter(const StepWriter&) = delete;
  StepWriter& operator=(const StepWriter&) = delete;

  // Adds an item whose leaves are to be exactly those that `structure` has. `handler` names what
  // can restore it, `custom_metadata` is JSON text or empty. kAlreadyExists: the item was added
  // before.
  Result<void> put_item(std::string name, std::string handler, TreeStructure structure,
                        std::string custom_metadata = {});

  // Adds a leaf of an item that was added before. `encoded_path` is encode_path()'s; `source` is
  // read during commit() and must live until then. kNotFound: no such item. kInvalidArgument,
  // kLimit: the description does not hold together, or the chunk size is out of bounds.
  Result<void> put_leaf(std::string_view item, std::string encoded_path, LeafInfo info,
                        std::shared_ptr<const LeafSource> source);

  // Called during commit() with the bytes written so far, from any thread but never twice at once.
  void on_progress(
      std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> callback);

  // Writes everything, makes it durable and visible, and in the same instant makes `retire`
  // invisible (steps that are not there are ignored). When it returns OK, the step survives power
  // loss. On an error the store is as it was before, but for two cases that it cannot know: after
  // kIo or kNoSpace from the commit itself the store refuses further writes (kClosed) until it is
  // opened again, and then shows the step or not, whole. To be called once. kMismatch: an item's
  // leaves are not those of its structure. kAlreadyExists: someone else saved the step meanwhile.
  Result<StepRecord> commit(std::span<const std::uint64_t> retire = {});
  // The same, with the steps to make invisible chosen at the last moment.
  Result<StepRecord> commit_choosing(const ChooseRetired& choose);

  // The save is not to become visible any more: a commit() that is under way, or comes later, stops
  // before it writes more than what it has in hand, and gives kClosed. False: it came too late, and
  // the commit succeeds or fails by itself. From any thread.
  bool give_up();

  // Of a commit() that has returned.
  const SaveCounters& counters() const;

 private:
  friend class Recompression;
  friend class Store;
  explicit StepWriter(std::unique_ptr<StepSaver> impl);
  // A save of what `replacement`, which must outlive it, replaces. If that is not worth it, its
  // commit() does nothing and returns the record of the step as it is.
  static Result<std::unique_ptr<StepWriter>> replace(std::shared_ptr<StoreImpl> store,
                                                     const SaveOptions& options,
                                                     Replacement& replacement);

  std::unique_ptr<StepSaver> impl_;
};

// A leaf as it is stored: description, hashes, where its chunks are.
struct StoredLeaf {
  std::string encoded_path;
  LeafRecord record;
};

// The bytes of a leaf where they are, for as long as `owner` lives, whatever becomes of the Store.
struct LeafView {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
};

enum class ViewCheck : std::uint8_t {
  kHashes,   // Every chunk is compared with its hash, and so read.
  kNothing,  // Only what is looked at is read, and damage is not noticed.
};

// A whole leaf and where its bytes go; the destination has exactly the leaf's size. It may be the
// leaf's own inline bytes, which are then only compared with their hash.
struct ReadRequest {
  std::string_view item;
  const StoredLeaf* leaf = nullptr;
  std::span<std::byte> destination;
};

// One step, open for reading; safe from several threads. Errors of every read: kNotFound for an
// item or leaf that is not there, kCorrupt (naming step, item and leaf) when the bytes are not
// those that were saved, kIo.
class StepReader {
 public:
  ~StepReader();
  StepReader(const StepReader&) = delete;
  StepReader& operator=(const StepReader&) = delete;

  const StepRecord& record() const;

  // Opens all files that hold the step, so that they stay readable for as long as the Store is
  // there, even when another process, which writes to the store, retires the step and deletes them.
  // A Store that is open for writing needs it not. kNotFound: some are gone already, and the step
  // with them. kCorrupt: they are gone, and the step is not. kIo. Other damage is left to whoever
  // reads what is damaged.
  Result<void> hold_files() const;

  // With the structure of the whole item, or of the node at `below` alone; kNotFound: it has none.
  Result<ItemRecord> read_item(std::string_view item, const LeafPath& below = {}) const;

  // The records of all leaves of an item, or of those below one of its containers, in path order,
  // without reading the chunks, or any other record. Whether those below a container are complete
  // is for its structure to say. `structure`: what read_item() gave of the same, so that it need
  // not be read once more.
  Result<std::vector<StoredLeaf>> read_leaves(std::string_view item, const LeafPath& below = {},
                                              const TreeStructure* structure = nullptr) const;

  // One look-up. `encoded_path` is encode_path()'s.
  Result<StoredLeaf> read_leaf(std::string_view item, std::string encoded_path) const;

  // The bytes [offset, offset + destination.size()) of a leaf, each chunk they touch checked
  // against its hash. kInvalidArgument: the range is not inside the leaf.
  Result<void> read_bytes(std::string_view item, const StoredLeaf& leaf, std::uint64_t offset,
                          std::span<std::byte> destination) const;

  // Many leaves at once, their chunks shared out over the store's threads. kInvalidArgument: a
  // destination of another size than its leaf; nothing was read.
  Result<void> read_all(std::span<const ReadRequest> requests) const;

  // A leaf of a portable file, mapped and not copied; aligned to 64 bytes, and to 4096 from 256 KiB
  // on. Whoever shortens the file while it is mapped, rather than replacing it, stops the process
  // that looks there (SIGBUS). kUnsupported: the leaf is in a database, or compressed, or in
  // pieces; read it.
  Result<LeafView> view(std::string_view item, const StoredLeaf& leaf,
                        ViewCheck check = ViewCheck::kHashes) const;

 private:
  friend class Store;
  explicit StepReader(std::unique_ptr<StepContent> content);

  std::unique_ptr<StepContent> content_;
};

}  // namespace stepstone
