#include "engine/head_file.h"

#include <vector>

#include "engine/rocksdb_support.h"

namespace stepstone {
namespace {

constexpr const char* kWhat = "HEAD";

}  // namespace

Result<Head> HeadFile::read(rocksdb::FileSystem& file_system, const std::string& path) {
  const rocksdb::IOStatus exists = file_system.FileExists(path, rocksdb::IOOptions(), nullptr);
  if (exists.IsNotFound()) return fail(ErrorCode::kNotFound, "HEAD: no such file");
  std::unique_ptr<rocksdb::FSSequentialFile> file;
  STEPSTONE_TRY(to_result(
      file_system.NewSequentialFile(path, rocksdb::FileOptions(), &file, nullptr), kWhat));
  std::vector<std::byte> bytes(kHeadFileSizeBytes);
  std::size_t size = 0;
  while (size < bytes.size()) {
    rocksdb::Slice piece;
    auto* const scratch = reinterpret_cast<char*>(bytes.data() + size);
    STEPSTONE_TRY(to_result(
        file->Read(bytes.size() - size, rocksdb::IOOptions(), &piece, scratch, nullptr), kWhat));
    if (piece.empty()) break;
    if (piece.data() != scratch) std::copy_n(piece.data(), piece.size(), scratch);
    size += piece.size();
  }
  return decode_head(std::span(bytes).first(size));
}

Result<HeadFile> HeadFile::create(rocksdb::FileSystem& file_system, const std::string& directory,
                                  const std::string& path, const Head& head) {
  const std::string temporary = path + ".tmp";
  std::string bytes(kHeadFileSizeBytes, '\0');
  const auto slot = encode_head_slot(head);
  bytes.replace(head_slot_offset(head.sequence), slot.size(),
                reinterpret_cast<const char*>(slot.data()), slot.size());
  {
    std::unique_ptr<rocksdb::FSWritableFile> file;
    const rocksdb::IOOptions options;
    STEPSTONE_TRY(to_result(
        file_system.NewWritableFile(temporary, rocksdb::FileOptions(), &file, nullptr), kWhat));
    STEPSTONE_TRY(to_result(file->Append(bytes, options, nullptr), kWhat));
    STEPSTONE_TRY(to_result(file->Fsync(options, nullptr), kWhat));
    STEPSTONE_TRY(to_result(file->Close(options, nullptr), kWhat));
  }
  STEPSTONE_TRY(
      to_result(file_system.RenameFile(temporary, path, rocksdb::IOOptions(), nullptr), kWhat));
  STEPSTONE_TRY(sync_directory(file_system, directory));
  return open(file_system, path);
}

Result<HeadFile> HeadFile::open(rocksdb::FileSystem& file_system, const std::string& path) {
  std::unique_ptr<rocksdb::FSRandomRWFile> file;
  STEPSTONE_TRY(
      to_result(file_system.NewRandomRWFile(path, rocksdb::FileOptions(), &file, nullptr), kWhat));
  return HeadFile(std::move(file));
}

Result<void> HeadFile::write(const Head& head) {
  const auto slot = encode_head_slot(head);
  const rocksdb::Slice bytes(reinterpret_cast<const char*>(slot.data()), slot.size());
  STEPSTONE_TRY(to_result(
      file_->Write(head_slot_offset(head.sequence), bytes, rocksdb::IOOptions(), nullptr), kWhat));
  return to_result(file_->Sync(rocksdb::IOOptions(), nullptr), kWhat);
}

}  // namespace stepstone
