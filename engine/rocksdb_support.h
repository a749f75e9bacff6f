#pragma once
// How the engine uses RocksDB: options for 7.8 with the reasons, and its errors as ours.

#include <rocksdb/compaction_filter.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <rocksdb/options.h>
#include <rocksdb/sst_file_writer.h>

#include <memory>
#include <string>
#include <string_view>

#include "format/error.h"

namespace stepstone {

// Column families. "default" exists because RocksDB insists on it, and is empty.
inline constexpr const char* kStepsColumnFamily = "steps";
inline constexpr const char* kSmallColumnFamily = "small";
inline constexpr const char* kLeavesColumnFamily = "leaves";

// `what` says what was being done; the message is "what: RocksDB's text".
Error to_error(const rocksdb::Status& status, std::string_view what);
Result<void> to_result(const rocksdb::Status& status, std::string_view what);

// Writes nothing.
std::shared_ptr<rocksdb::Logger> silent_logger();
// Makes the names in a directory durable.
Result<void> sync_directory(rocksdb::FileSystem& file_system, const std::string& path);

rocksdb::DBOptions database_options(rocksdb::Env* env, bool create);
rocksdb::ColumnFamilyOptions steps_options();
rocksdb::ColumnFamilyOptions small_options(
    std::shared_ptr<rocksdb::CompactionFilterFactory> dead_save_filter);
// `block_cache` holds records; chunks never enter it.
rocksdb::ColumnFamilyOptions leaves_options(std::shared_ptr<rocksdb::Cache> block_cache);

// Options of the SstFileWriter that writes segments for `leaves`.
rocksdb::Options segment_options(rocksdb::Env* env, const rocksdb::ColumnFamilyOptions& leaves);
// The same for a segment of chunks: each gets a data block of its own, so that it can be found in
// the file without the index.
rocksdb::Options chunk_segment_options(rocksdb::Env* env);
rocksdb::EnvOptions segment_env_options();
rocksdb::IngestExternalFileOptions ingest_options();

}  // namespace stepstone
