#pragma once
// The inside of a Store that is a database, shared with its readers and writers. See
// engine/README.md.

#include <rocksdb/db.h>
#include <rocksdb/env.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "engine/collector.h"
#include "engine/compression_policy.h"
#include "engine/file_system.h"
#include "engine/head_file.h"
#include "engine/live_chunk_filter.h"
#include "engine/recompressor.h"
#include "engine/save_registry.h"
#include "engine/store.h"
#include "engine/store_content.h"

namespace stepstone {

class StoreImpl final : public StoreContent, public std::enable_shared_from_this<StoreImpl> {
 public:
  StoreImpl(std::filesystem::path directory, const OpenOptions& options);
  ~StoreImpl() override;

  // Opens the database, compares it with HEAD, drops what crashes left behind, starts the
  // collector.
  Result<void> open();
  // Stops the background threads and closes the database.
  void shut_down() override;

  // Until the background threads have nothing left to do.
  void wait_for_background() override;

  const std::filesystem::path& directory() const override { return directory_; }
  bool is_read_only() const override { return options_.read_only; }
  bool is_current() const override { return !was_changed_by_writer(); }
  unsigned thread_count() const override { return thread_count_; }
  std::vector<SaveId> saves() const override { return registry_->visible_saves(); }
  Result<std::optional<StepRecord>> find_step(std::uint64_t step) override;
  Result<std::unique_ptr<StepContent>> open_step(std::uint64_t step) override;
  Result<VerifyReport> verify(const VerifyOptions& options) override;
  Result<void> check_whole() override { return {}; }
  Result<StoreUsage> usage() override;
  Result<std::shared_ptr<StoreImpl>> writable() override;

  const OpenOptions& options() const { return options_; }
  SaveRegistry& registry() { return *registry_; }
  CompressionPolicy& compression_policy() { return compression_policy_; }
  rocksdb::DB& database() { return *database_; }
  rocksdb::Env& env() { return *env_; }
  StoreFileSystem& file_system() const { return *file_system_; }
  rocksdb::ColumnFamilyHandle* small() const { return small_; }
  rocksdb::ColumnFamilyHandle* leaves() const { return leaves_; }
  const rocksdb::ColumnFamilyOptions& leaves_column_options() const { return leaves_options_; }
  // A new name for a file that is written beside the database before it is ingested.
  std::string new_staging_path();

  // kClosed after a failure that leaves the disk's state unknown; kReadOnly.
  Result<void> check_writable() const;

  // What a save puts into the commit besides its record.
  struct Addition {
    StepRecord record;  // Without sequence and previous_hash; it is committed now unless it says
                        // when.
    std::vector<std::string> segment_paths;  // To be ingested.
    std::vector<std::pair<std::string, std::string>> small_entries;
    bool overwrite = false;
    // The save whose content this is. kBusy: the step is not that save any more.
    std::optional<SaveId> replaced;
    std::optional<std::string> preservation_policy;  // SaveOptions has it.
  };
  // The one place where steps appear and disappear: ingests, then one synced batch, then HEAD.
  // `retire` are steps to hide; those that are not there are ignored. Returns the record as it was
  // committed (that of the addition; without one, an empty record). Ends the save's life in the
  // registry only on success.
  Result<StepRecord> commit(Addition* addition, std::span<const std::uint64_t> retire);
  // The same; `choose` is asked under the lock.
  Result<StepRecord> commit(Addition* addition, const ChooseRetired& choose);

  Result<std::string> custom_metadata() override;
  std::string preservation_policy() override;
  Result<void> set_custom_metadata(const std::string& json);

  // Whether a process that writes to this store, which is open read-only here, has committed or
  // collected anything since it was opened: if files of a step are gone then, the step was retired
  // or shares chunks that were moved, and is not damaged.
  bool was_changed_by_writer() const;

  // All of them.
  std::vector<rocksdb::LiveFileMetaData> table_files() const;
  // The files that hold segments of the saves, in key order.
  std::vector<rocksdb::LiveFileMetaData> segment_files(const std::set<SaveId>& saves) const;

 private:
  Result<void> open_database(bool is_new, std::uint64_t head_sequence);
  Result<void> open_once();
  // The sequence that HEAD has now; nullopt: it cannot be read.
  std::optional<std::uint64_t> witnessed_sequence() const;
  Result<void> load_records();
  Result<void> compare_with_head(const Result<Head>& head);
  Result<void> check_segments();
  Result<void> check_small_steps();
  Result<void> check_hollow_saves();
  Result<void> initialize();
  Result<void> sweep();
  void close_database();
  // Differs when the database's files may be others.
  std::string manifest_mark() const;
  Result<StepRecord> commit_locked(Addition* addition, std::span<const std::uint64_t> retire);

  const std::filesystem::path directory_;
  const OpenOptions options_;
  const unsigned thread_count_;
  std::shared_ptr<StoreFileSystem> file_system_;
  std::unique_ptr<rocksdb::Env> env_;
  std::shared_ptr<SaveRegistry> registry_;
  std::shared_ptr<LiveChunkFilterFactory> live_chunk_filter_;
  rocksdb::ColumnFamilyOptions leaves_options_;
  std::unique_ptr<rocksdb::DB> database_;
  std::vector<rocksdb::ColumnFamilyHandle*> handles_;
  std::string opened_manifest_;  // Before the database was opened; of a read-only store.
  rocksdb::ColumnFamilyHandle* steps_ = nullptr;
  rocksdb::ColumnFamilyHandle* small_ = nullptr;
  rocksdb::ColumnFamilyHandle* leaves_ = nullptr;

  std::mutex commit_mutex_;  // Guards what follows: commits take turns.
  StoreRecord store_record_;
  std::optional<HeadFile> head_;

  CompressionPolicy compression_policy_;

  std::atomic<bool> has_failed_ = false;
  // In the names of staged files, which must be new: a file that an earlier run left and this one
  // could not remove may be one with an ingested segment, and writing to it would destroy that.
  std::uint64_t run_id_ = 0;
  std::atomic<std::uint64_t> next_staging_number_ = 0;
  std::unique_ptr<Collector> collector_;
  std::unique_ptr<Recompressor> recompressor_;  // Null: not wanted.
};

std::int64_t unix_time_ns();

}  // namespace stepstone
