#pragma once
// A disk in memory that remembers every change made to it, so that a test can ask what a power loss
// would have left behind, and that fails on demand.
//
// What a power loss may do, as the model has it:
// - a write is safe once its file has been synced after it. Until then the kernel may have written
//   each page of the file back at any time, or not at all: a page shows the file as it was at some
//   moment since the last sync, and its neighbours another. A page that was never written back is
//   zeros where the file has grown past it. Where old bytes are replaced, that holds for each
//   sector of a page. The file ends where the last page that was written back ended;
// - a name (created, linked, renamed, removed) is safe once its directory has been synced after it,
//   or, for a file that was created under it, once the file has been synced (ext4, xfs and btrfs
//   all promise this, and RocksDB relies on it for its MANIFEST);
// - a write whose sync failed is never safe, however often the sync is repeated: the kernel forgets
//   that the pages were dirty;
// - a rename happens wholly or not at all.
// RangeSync promises nothing, as sync_file_range does.
//
// Safe from several threads.

#include <rocksdb/file_system.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/random.h"

namespace stepstone {

class SimulatedDisk : public rocksdb::FileSystem {
 public:
  // What becomes of changes that were not safe.
  enum class Unsynced {
    kLost,       // All of them.
    kKept,       // None of them: what a killed process leaves behind.
    kOrdered,    // Names are kept up to some moment, and each file up to some byte written then.
    kArbitrary,  // Any names, and any moment for each page of each file.
  };

  // The operations that can fail, and that failures are counted over.
  enum class Operation : std::uint8_t {
    kCreate,
    kOpen,  // Of an existing file for writing, or of a directory.
    kWrite,
    kTruncate,
    kSync,
    kDirectorySync,
    kLink,
    kRename,
    kDelete,
    kMakeDirectory,
    kClose,
    kLock,
  };
  static std::string_view to_string(Operation operation);

  struct Fault {
    std::uint64_t at = 1;  // The first one that fails, counted from 1 when the fault is set...
    std::optional<Operation> only = std::nullopt;  // ...among these alone.
    bool lasts = false;                            // All later ones fail too.
    bool is_full = false;                          // ENOSPC, else EIO. Frees nothing on deletion.
  };

  SimulatedDisk();
  ~SimulatedDisk() override;

  const char* Name() const override { return "SimulatedDisk"; }

  // The disk as it is, all of it safe, with nothing remembered.
  std::shared_ptr<SimulatedDisk> copy() const;
  // The disk as it may look when the power fails after the first `operation_count` changes.
  std::shared_ptr<SimulatedDisk> after_power_loss(std::size_t operation_count, Unsynced unsynced,
                                                  std::uint64_t seed) const;
  // Changes made since this disk came to be.
  std::size_t operation_count() const;
  // The change with this number (from 0), for messages.
  std::string describe(std::size_t operation) const;

  void set_fault(std::optional<Fault> fault);
  bool fault_was_reached() const;
  // Operations since the fault was set that could have failed.
  std::uint64_t fault_points() const;
  // What failed first since the fault was set; empty: nothing.
  std::string first_failure() const;

  // All files, by path; contents change behind the back of whoever has them open, unremembered.
  std::vector<std::string> files() const;
  std::string read_file(const std::string& path) const;
  void write_file(const std::string& path, std::string content);

  // rocksdb::FileSystem
  rocksdb::IOStatus NewSequentialFile(const std::string& path, const rocksdb::FileOptions& options,
                                      std::unique_ptr<rocksdb::FSSequentialFile>* result,
                                      rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus NewRandomAccessFile(const std::string& path,
                                        const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* result,
                                        rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* result,
                                    rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus ReopenWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                       std::unique_ptr<rocksdb::FSWritableFile>* result,
                                       rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus NewRandomRWFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSRandomRWFile>* result,
                                    rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus NewDirectory(const std::string& path, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* result,
                                 rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus FileExists(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus GetChildren(const std::string& path, const rocksdb::IOOptions& options,
                                std::vector<std::string>* result,
                                rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus CreateDir(const std::string& path, const rocksdb::IOOptions& options,
                              rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus CreateDirIfMissing(const std::string& path, const rocksdb::IOOptions& options,
                                       rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus DeleteDir(const std::string& path, const rocksdb::IOOptions& options,
                              rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus GetFileSize(const std::string& path, const rocksdb::IOOptions& options,
                                std::uint64_t* result, rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus GetFileModificationTime(const std::string& path,
                                            const rocksdb::IOOptions& options,
                                            std::uint64_t* result,
                                            rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to,
                               const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus LinkFile(const std::string& from, const std::string& to,
                             const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus LockFile(const std::string& path, const rocksdb::IOOptions& options,
                             rocksdb::FileLock** lock, rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus UnlockFile(rocksdb::FileLock* lock, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus GetTestDirectory(const rocksdb::IOOptions& options, std::string* path,
                                     rocksdb::IODebugContext* context) override;
  // RocksDB's own text log is left out: it would only add changes that nobody depends on.
  rocksdb::IOStatus NewLogger(const std::string& path, const rocksdb::IOOptions& options,
                              std::shared_ptr<rocksdb::Logger>* result,
                              rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus GetAbsolutePath(const std::string& path, const rocksdb::IOOptions& options,
                                    std::string* result, rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus IsDirectory(const std::string& path, const rocksdb::IOOptions& options,
                                bool* result, rocksdb::IODebugContext* context) override;

 private:
  class Sequential;
  class RandomAccess;
  class Writable;
  class RandomRW;
  class Directory;

  using NodeId = std::uint64_t;
  struct Node {
    bool is_directory = false;
    std::shared_ptr<std::string> content;  // Shared between copies of the disk until written to.
    std::map<std::string, NodeId> entries;
  };
  using Nodes = std::map<NodeId, Node>;

  struct Change {
    Operation operation = Operation::kWrite;
    NodeId node = 0;       // That is written, synced, created or named.
    NodeId directory = 0;  // That the name is in.
    std::string name;
    NodeId from_directory = 0;  // kRename: where it was.
    std::string from_name;
    std::uint64_t offset = 0;  // kWrite; kTruncate: the new size.
    std::shared_ptr<const std::string> data;
    bool is_lost = false;  // Its sync failed.
  };

  struct Place {
    NodeId directory;
    std::string name;
    std::optional<NodeId> node;
  };

  // All with mutex_ held.
  std::optional<Place> find(const std::string& path) const;
  std::optional<NodeId> find_node(const std::string& path) const;
  std::optional<rocksdb::IOStatus> failure(Operation operation, const std::string& what);
  rocksdb::IOStatus create(const Place& place, const std::string& path, bool is_directory,
                           NodeId* node);
  rocksdb::IOStatus write(NodeId node, std::uint64_t offset, const rocksdb::Slice& data,
                          const std::string& path);
  rocksdb::IOStatus truncate(NodeId node, std::uint64_t size, const std::string& path);
  rocksdb::IOStatus sync(NodeId node, Operation operation, const std::string& path);
  void record(Change change);
  static void apply(Nodes& nodes, const Change& change);
  static void apply_data(std::string& content, const Change& change, std::size_t kept);
  static std::string cut_short(std::string content, const std::vector<const Change*>& changes,
                               Random& random);
  static std::string written_back(const std::string& before,
                                  const std::vector<const Change*>& changes, Random& random);
  static std::string& content_of(Nodes& nodes, NodeId node);

  mutable std::mutex mutex_;
  Nodes base_;   // When this disk came to be.
  Nodes nodes_;  // Now.
  NodeId next_node_ = 2;
  std::vector<Change> changes_;
  std::set<NodeId> locked_;
  std::optional<Fault> fault_;
  std::uint64_t fault_points_ = 0;
  bool fault_was_reached_ = false;
  std::string first_failure_;
};

}  // namespace stepstone
