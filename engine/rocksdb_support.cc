#include "engine/rocksdb_support.h"

#include <rocksdb/cache.h>
#include <rocksdb/flush_block_policy.h>
#include <rocksdb/rate_limiter.h>
#include <rocksdb/table.h>
#include <sys/resource.h>

#include <string>
#include <utility>

namespace stepstone {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

// RocksDB has no codes for these; its text ends in strerror's.
bool mentions(const std::string& text, std::string_view what) {
  return text.find(what) != std::string::npos;
}

ErrorCode code_of(const rocksdb::Status& status, const std::string& text) {
  if (status.IsNoSpace() || mentions(text, "No space left") || mentions(text, "quota exceeded") ||
      mentions(text, "File too large")) {
    return ErrorCode::kNoSpace;
  }
  if (mentions(text, "Permission denied")) return ErrorCode::kPermissionDenied;
  if (mentions(text, "Read-only file system")) return ErrorCode::kReadOnly;
  if (status.IsCorruption()) return ErrorCode::kCorrupt;
  if (status.IsNotFound()) return ErrorCode::kNotFound;
  if (status.IsInvalidArgument()) return ErrorCode::kInvalidArgument;
  if (status.IsNotSupported()) return ErrorCode::kUnsupported;
  return ErrorCode::kIo;
}

rocksdb::BlockBasedTableOptions table_options(std::shared_ptr<rocksdb::Cache> block_cache) {
  rocksdb::BlockBasedTableOptions table;
  table.format_version = 5;
  // Debian builds RocksDB without hardware CRC32C; XXH3 is twice as fast there.
  table.checksum = rocksdb::kXXH3;
  table.block_size = 8 << 10;
  table.filter_policy = nullptr;  // Every key that is asked for exists.
  table.block_cache = std::move(block_cache);
  return table;
}

rocksdb::ColumnFamilyOptions common_options() {
  rocksdb::ColumnFamilyOptions options;
  options.compression = rocksdb::kNoCompression;
  options.compaction_style = rocksdb::kCompactionStyleLevel;
  // Left to themselves these rewrite every file after 30 days.
  options.ttl = 0;
  options.periodic_compaction_seconds = 0;
  return options;
}

// Ends the data block before every entry but the first.
class OneEntryPerBlock : public rocksdb::FlushBlockPolicy {
 public:
  bool Update(const rocksdb::Slice& /*key*/, const rocksdb::Slice& /*value*/) override {
    return std::exchange(has_entry_, true);
  }

 private:
  bool has_entry_ = false;
};

class OneEntryPerBlockFactory : public rocksdb::FlushBlockPolicyFactory {
 public:
  const char* Name() const override { return "StepstoneOneEntryPerBlock"; }

  rocksdb::FlushBlockPolicy* NewFlushBlockPolicy(
      const rocksdb::BlockBasedTableOptions& /*options*/,
      const rocksdb::BlockBuilder& /*builder*/) const override {
    return new OneEntryPerBlock;
  }
};

class SilentLogger : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char* /*format*/, va_list /*arguments*/) override {}
  std::size_t GetLogFileSize() const override { return 0; }
};

// How many table files RocksDB may hold open: half of what the process may, since the trainer opens
// files too.
int open_files_max() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return 4096;
  const rlim_t half = limit.rlim_cur / 2;
  return half > 1 << 20 ? 1 << 20 : static_cast<int>(half);
}

}  // namespace

Error to_error(const rocksdb::Status& status, std::string_view what) {
  const std::string text = status.ToString();
  return Error{code_of(status, text), std::string(what) + ": " + text};
}

Result<void> to_result(const rocksdb::Status& status, std::string_view what) {
  if (status.ok()) return {};
  return tl::unexpected<Error>(to_error(status, what));
}

std::shared_ptr<rocksdb::Logger> silent_logger() { return std::make_shared<SilentLogger>(); }

Result<void> sync_directory(rocksdb::FileSystem& file_system, const std::string& path) {
  std::unique_ptr<rocksdb::FSDirectory> directory;
  const rocksdb::IOOptions options;
  const std::string what = "directory " + path;
  STEPSTONE_TRY(to_result(file_system.NewDirectory(path, options, &directory, nullptr), what));
  return to_result(directory->Fsync(options, nullptr), what);
}

rocksdb::DBOptions database_options(rocksdb::Env* env, bool create) {
  rocksdb::DBOptions options;
  options.env = env;
  options.create_if_missing = create;
  options.create_missing_column_families = create;
  // One damaged segment must not keep the whole store shut: what is wrong with it is found by our
  // own hashes when it is read, and what is missing by the comparison with HEAD.
  options.paranoid_checks = false;
  options.skip_checking_sst_file_sizes_on_db_open = true;
  options.skip_stats_update_on_db_open = true;
  options.max_open_files = open_files_max();
  options.max_background_jobs = 2;
  // RocksDB starts so many (by default 16) for each column family, whether it has files or not.
  options.max_file_opening_threads = 4;
  // What flushes and compactions may write; segments do not count.
  options.rate_limiter.reset(rocksdb::NewGenericRateLimiter(128 * kMiB));
  // What the log holds is read at every open.
  options.max_total_wal_size = 8 * kMiB;
  options.info_log_level = rocksdb::WARN_LEVEL;
  options.keep_log_file_num = 2;
  options.max_log_file_size = kMiB;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  return options;
}

rocksdb::ColumnFamilyOptions steps_options() {
  rocksdb::ColumnFamilyOptions options = common_options();
  options.write_buffer_size = kMiB;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table_options(nullptr)));
  return options;
}

rocksdb::ColumnFamilyOptions small_options(
    std::shared_ptr<rocksdb::CompactionFilterFactory> dead_save_filter) {
  rocksdb::ColumnFamilyOptions options = common_options();
  // A flush leaves out what has died, so that small buffers cost little.
  options.write_buffer_size = 4 * kMiB;
  options.max_write_buffer_number = 4;
  options.compaction_filter_factory = std::move(dead_save_filter);
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table_options(nullptr)));
  return options;
}

rocksdb::ColumnFamilyOptions leaves_options(std::shared_ptr<rocksdb::Cache> block_cache) {
  rocksdb::ColumnFamilyOptions options = common_options();
  // Filled by ingestion alone: a segment is written once, and goes when its step does.
  options.disable_auto_compactions = true;
  options.table_factory.reset(
      rocksdb::NewBlockBasedTableFactory(table_options(std::move(block_cache))));
  return options;
}

rocksdb::Options segment_options(rocksdb::Env* env, const rocksdb::ColumnFamilyOptions& leaves) {
  rocksdb::DBOptions database;
  database.env = env;
  return rocksdb::Options(database, leaves);
}

rocksdb::Options chunk_segment_options(rocksdb::Env* env) {
  rocksdb::BlockBasedTableOptions table = table_options(nullptr);
  table.flush_block_policy_factory = std::make_shared<OneEntryPerBlockFactory>();
  rocksdb::ColumnFamilyOptions options = common_options();
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return segment_options(env, options);
}

rocksdb::EnvOptions segment_env_options() {
  rocksdb::EnvOptions options;
  // A chunk is larger than this buffer, so that it goes to the file without a copy.
  options.writable_file_max_buffer_size = 64 << 10;
  // Start writing back early: Linux would keep gigabytes dirty until the final sync.
  options.bytes_per_sync = 8 * kMiB;
  return options;
}

rocksdb::IngestExternalFileOptions ingest_options() {
  rocksdb::IngestExternalFileOptions options;
  options.move_files = true;
  // Keys are unique and no snapshot ever needs to be kept from seeing them, so the files need no
  // sequence number; writing one would modify the finished file.
  options.write_global_seqno = false;
  options.snapshot_consistency = false;
  options.allow_blocking_flush = false;
  // Ranges of two saves never overlap; a file in level 0 would escape DeleteFilesInRanges.
  options.fail_if_not_bottommost_level = true;
  return options;
}

}  // namespace stepstone
