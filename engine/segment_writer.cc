#include "engine/segment_writer.h"

#include <rocksdb/sst_file_reader.h>
#include <rocksdb/table_properties.h>

#include "engine/chunk_places.h"
#include "engine/rocksdb_support.h"
#include "format/limits.h"

namespace stepstone {
namespace {

constexpr const char* kWhat = "writing a segment";

}  // namespace

Result<SegmentWriter> SegmentWriter::create(StoreImpl& store, SegmentContent content) {
  auto writer = std::make_unique<rocksdb::SstFileWriter>(
      segment_env_options(),
      content == SegmentContent::kChunks
          ? chunk_segment_options(&store.env())
          : segment_options(&store.env(), store.leaves_column_options()),
      /*column_family=*/nullptr, /*invalidate_page_cache=*/false);
  std::string path = store.new_staging_path();
  STEPSTONE_TRY(to_result(writer->Open(path), kWhat));
  return SegmentWriter(store, std::move(path), std::move(writer));
}

Result<void> SegmentWriter::put(std::string_view key, std::string_view value) {
  STEPSTONE_TRY(to_result(writer_->Put(key, value), kWhat));
  // The entry's own block is written with the next entry.
  if (writer_->FileSize() != next_offset_bytes_) has_expected_layout_ = false;
  next_offset_bytes_ += chunk_block_size_bytes(key.size(), value.size());
  return {};
}

Result<void> SegmentWriter::put_aligned(std::string_view key, std::span<const std::byte> chunk) {
  const std::string_view bytes(reinterpret_cast<const char*>(chunk.data()), chunk.size());
  const std::size_t padding_size =
      padding_size_bytes(next_offset_bytes_, key.size(), chunk.size(), kChunkAlignmentBytes);
  if (padding_size == 0) return put(key, bytes);
  padded_.assign(padding_size, '\0');
  padded_.append(bytes);
  return put(key, padded_);
}

Result<SegmentInfo> SegmentWriter::finish() {
  rocksdb::ExternalSstFileInfo file;
  STEPSTONE_TRY(to_result(writer_->Finish(&file), kWhat));
  writer_.reset();
  rocksdb::SstFileReader reader(segment_options(&store_->env(), store_->leaves_column_options()));
  STEPSTONE_TRY(to_result(reader.Open(path_), kWhat));
  SegmentInfo info;
  info.size_bytes = file.file_size;
  info.data_size_bytes = reader.GetTableProperties()->data_size;
  info.tail_hash = STEPSTONE_TRY(
      hash_of_tail(store_->file_system(), path_, info.data_size_bytes, info.size_bytes));
  return info;
}

Result<void> read_file_range(rocksdb::FileSystem& file_system, const std::string& path,
                             std::uint64_t offset, std::span<std::byte> bytes) {
  std::unique_ptr<rocksdb::FSRandomAccessFile> file;
  STEPSTONE_TRY(to_result(
      file_system.NewRandomAccessFile(path, rocksdb::FileOptions(), &file, nullptr), "segment"));
  std::size_t done = 0;
  while (done < bytes.size()) {
    rocksdb::Slice piece;
    auto* const scratch = reinterpret_cast<char*>(bytes.data() + done);
    STEPSTONE_TRY(to_result(file->Read(offset + done, bytes.size() - done, rocksdb::IOOptions(),
                                       &piece, scratch, nullptr),
                            "segment"));
    if (piece.empty()) return fail(ErrorCode::kCorrupt, "segment: the file ends too early");
    if (piece.data() != scratch) std::copy_n(piece.data(), piece.size(), scratch);
    done += piece.size();
  }
  return {};
}

Result<Hash128> hash_of_tail(rocksdb::FileSystem& file_system, const std::string& path,
                             std::uint64_t data_size_bytes, std::uint64_t size_bytes) {
  if (data_size_bytes > size_bytes || size_bytes - data_size_bytes > limits::kRecordSizeBytesMax) {
    return fail(ErrorCode::kCorrupt, "segment: impossible sizes");
  }
  std::vector<std::byte> tail(static_cast<std::size_t>(size_bytes - data_size_bytes));
  STEPSTONE_TRY(read_file_range(file_system, path, data_size_bytes, tail));
  return hash128(tail);
}

}  // namespace stepstone
