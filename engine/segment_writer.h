#pragma once
// Writes one segment: an SST file beside the database, to be ingested later.

#include <rocksdb/sst_file_writer.h>

#include <span>
#include <string>
#include <string_view>

#include "engine/store_impl.h"

namespace stepstone {

enum class SegmentContent { kRecords, kChunks };

// Not thread-safe.
class SegmentWriter {
 public:
  // A segment of chunks gives each entry a data block of its own.
  static Result<SegmentWriter> create(StoreImpl& store, SegmentContent content);

  // Keys must rise.
  Result<void> put(std::string_view key, std::string_view value);

  // A raw chunk, brought to a multiple of kChunkAlignmentBytes in the file.
  Result<void> put_aligned(std::string_view key, std::span<const std::byte> chunk);

  // Where the next entry of a segment of chunks will begin.
  std::uint64_t next_offset_bytes() const { return next_offset_bytes_; }

  // Whether each entry of a segment of chunks began where next_offset_bytes() said. Should RocksDB
  // lay out its blocks otherwise, only the keys lead to the chunks.
  bool has_expected_layout() const { return has_expected_layout_; }

  // Completes the file and syncs it; the file is not in the database yet.
  Result<SegmentInfo> finish();

  const std::string& path() const { return path_; }

 private:
  SegmentWriter(StoreImpl& store, std::string path, std::unique_ptr<rocksdb::SstFileWriter> writer)
      : store_(&store), path_(std::move(path)), writer_(std::move(writer)) {}

  StoreImpl* store_;
  std::string path_;
  std::unique_ptr<rocksdb::SstFileWriter> writer_;
  std::uint64_t next_offset_bytes_ = 0;
  bool has_expected_layout_ = true;
  std::string padded_;
};

// Reads [offset, offset + size) of a file into `bytes`. kCorrupt: the file is shorter.
Result<void> read_file_range(rocksdb::FileSystem& file_system, const std::string& path,
                             std::uint64_t offset, std::span<std::byte> bytes);

// The hash of a segment file from `data_size_bytes` to its end at `size_bytes`.
Result<Hash128> hash_of_tail(rocksdb::FileSystem& file_system, const std::string& path,
                             std::uint64_t data_size_bytes, std::uint64_t size_bytes);

}  // namespace stepstone
