#include "tools/formats/zip_file.h"

#include <fmt/format.h>
#include <minizip/unzip.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <numeric>

#include "format/limits.h"
#include "tools/formats/contents.h"

namespace stepstone::tool {
namespace {

// Names in archives have a folder and an extension besides what becomes a leaf's name.
constexpr std::size_t kEntryNameSizeBytesMax = limits::kNameSizeBytesMax + 256;
// A file of a few bytes may say that it unpacks to a few more.
constexpr std::uint64_t kEntryExpansionSlackBytes = std::uint64_t{64} << 10;
// Without the names and fields that follow it.
constexpr std::uint64_t kDirectoryEntrySizeBytes = 46;

std::string entry_name(std::string_view name) { return "entry '" + shown(name) + "'"; }

tl::unexpected<Error> corrupt_zip(std::string_view what) {
  return fail(ErrorCode::kCorrupt, "not a sound ZIP archive: " + std::string(what));
}

// minizip's own functions on a FILE, which is one on the file that is open already.
zlib_filefunc64_def functions_for(const InputFile& file) {
  zlib_filefunc64_def functions = {};
  fill_fopen64_filefunc(&functions);
  functions.opaque = const_cast<InputFile*>(&file);  // Only to be given back to the next line.
  functions.zopen64_file = [](voidpf opaque, const void* /*name*/, int /*mode*/) -> voidpf {
    const auto* const input = static_cast<const InputFile*>(opaque);
    // A description of its own, because a duplicate would share the position in the file.
    return std::fopen(fmt::format("/proc/self/fd/{}", input->descriptor()).c_str(), "rbe");
  };
  return functions;
}

}  // namespace

Result<std::unique_ptr<ZipFile>> ZipFile::open(std::shared_ptr<const InputFile> file) {
  std::unique_ptr<ZipFile> zip(new ZipFile());  // NOLINT: private constructor.
  zip->file_ = std::move(file);
  STEPSTONE_TRY(zip->load());
  return zip;
}

ZipFile::~ZipFile() {
  if (archive_ != nullptr) unzClose(archive_);
}

Result<void> ZipFile::load() {
  zlib_filefunc64_def functions = functions_for(*file_);
  archive_ = unzOpen2_64(file_->name().c_str(), &functions);
  if (archive_ == nullptr) return corrupt_zip("it has no directory");
  unz_global_info64 global = {};
  if (unzGetGlobalInfo64(archive_, &global) != UNZ_OK) return corrupt_zip("it has no directory");
  if (global.number_entry > kEntriesMax) {
    return fail(ErrorCode::kLimit, fmt::format("an archive of {} entries, over the limit of {}",
                                               global.number_entry, kEntriesMax));
  }
  for (std::uint64_t i = 0; i < global.number_entry; ++i) {
    const int moved = i == 0 ? unzGoToFirstFile(archive_) : unzGoToNextFile(archive_);
    if (moved != UNZ_OK) return corrupt_zip(fmt::format("entry {} of its directory is none", i));
    entries_.push_back(STEPSTONE_TRY(read_entry()));
  }
  STEPSTONE_TRY(check_directory_end());
  by_name_.resize(entries_.size());
  std::iota(by_name_.begin(), by_name_.end(), std::size_t{0});
  std::sort(by_name_.begin(), by_name_.end(),
            [&](std::size_t a, std::size_t b) { return entries_[a].name < entries_[b].name; });
  return check_layout();
}

// minizip compares all of the local header but its name, which readers that begin at the front of a
// file go by.
Result<void> ZipFile::check_local_name(const ZipEntry& entry, std::uint64_t extra_size) const {
  std::string name(entry.name.size(), '\0');
  const std::uint64_t size = extra_size + name.size();
  if (size > entry.data_position)
    return corrupt_zip(entry_name(entry.name) + " has no local header");
  STEPSTONE_TRY(file_->read(entry.data_position - size, std::as_writable_bytes(std::span(name))));
  if (name != entry.name) {
    return corrupt_zip(entry_name(entry.name) + " is called '" + shown(name) + "' where it stands");
  }
  return {};
}

// Of the current entry.
Result<ZipEntry> ZipFile::read_entry() {
  std::vector<char> name(kEntryNameSizeBytesMax + 1);
  unz_file_info64 info = {};
  if (unzGetCurrentFileInfo64(archive_, &info, name.data(), kEntryNameSizeBytesMax, nullptr, 0,
                              nullptr, 0) != UNZ_OK) {
    return corrupt_zip("its directory cannot be read");
  }
  if (info.size_filename > kEntryNameSizeBytesMax) {
    return fail(ErrorCode::kLimit,
                fmt::format("an entry's name of {} bytes is over the limit of {}",
                            info.size_filename, kEntryNameSizeBytesMax));
  }
  ZipEntry entry{.name = std::string(name.data(), info.size_filename),
                 .size_bytes = info.uncompressed_size,
                 .packed_size_bytes = info.compressed_size};
  directory_entry_size_bytes_ =
      kDirectoryEntrySizeBytes + info.size_filename + info.size_file_extra + info.size_file_comment;
  if (entry.name.find('\0') != std::string::npos) {
    return corrupt_zip(entry_name(entry.name) + " has a name with a NUL");
  }
  if ((info.flag & 1) != 0) {
    return fail(ErrorCode::kUnsupported, entry_name(entry.name) + " is encrypted");
  }
  if (info.compression_method != 0 && info.compression_method != Z_DEFLATED) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("{} is packed by method {}; stored and deflated ones can be read",
                            entry_name(entry.name), info.compression_method));
  }
  entry.is_deflated = info.compression_method != 0;
  if (!entry.is_deflated && entry.size_bytes != entry.packed_size_bytes) {
    return corrupt_zip(entry_name(entry.name) +
                       " is stored in another number of bytes than it has");
  }
  unz64_file_pos position = {};
  if (unzGetFilePos64(archive_, &position) != UNZ_OK)
    return corrupt_zip("its directory is damaged");
  entry.directory_position = position.pos_in_zip_directory;
  entry.number = position.num_of_file;
  // Compares the local header with the directory.
  if (unzOpenCurrentFile2(archive_, nullptr, nullptr, 1) != UNZ_OK) {
    return corrupt_zip(entry_name(entry.name) + " is not as the directory says");
  }
  entry.data_position = unzGetCurrentFileZStreamPos64(archive_);
  const int local_extra_size = unzGetLocalExtrafield(archive_, nullptr, 0);
  unzCloseCurrentFile(archive_);
  if (local_extra_size < 0) return corrupt_zip(entry_name(entry.name) + " has no local header");
  STEPSTONE_TRY(check_local_name(entry, static_cast<std::uint64_t>(local_extra_size)));
  if (entry.data_position > file_->size_bytes() ||
      entry.packed_size_bytes > file_->size_bytes() - entry.data_position) {
    return corrupt_zip(entry_name(entry.name) + " goes beyond the end of the file");
  }
  return entry;
}

// Entries that the directory has, but does not count, would be there for others and not for us.
Result<void> ZipFile::check_directory_end() const {
  if (entries_.empty()) return {};
  std::array<std::byte, 4> signature = {};
  const std::uint64_t end = entries_.back().directory_position + directory_entry_size_bytes_;
  STEPSTONE_TRY(file_->read(end, signature));
  const std::string_view text(reinterpret_cast<const char*>(signature.data()), signature.size());
  if (text == "PK\x05\x06" || text == "PK\x06\x06") return {};
  return corrupt_zip("its directory does not end where its entries do");
}

Result<void> ZipFile::check_layout() const {
  for (std::size_t i = 1; i < by_name_.size(); ++i) {
    const std::string& name = entries_[by_name_[i]].name;
    if (name == entries_[by_name_[i - 1]].name)
      return corrupt_zip(entry_name(name) + " is there twice");
  }
  std::vector<const ZipEntry*> by_position;
  std::uint64_t size_bytes = 0;
  const std::uint64_t size_bytes_max =
      file_->size_bytes() * kExpansionMax + kEntryExpansionSlackBytes;
  for (const ZipEntry& entry : entries_) {
    by_position.push_back(&entry);
    if (entry.size_bytes > size_bytes_max - size_bytes) {
      return corrupt_zip(
          fmt::format("its entries claim to unpack to more than {} times its size", kExpansionMax));
    }
    size_bytes += entry.size_bytes;
  }
  std::sort(by_position.begin(), by_position.end(), [](const ZipEntry* a, const ZipEntry* b) {
    return std::pair(a->data_position, a->packed_size_bytes) <
           std::pair(b->data_position, b->packed_size_bytes);
  });
  if (!by_position.empty()) {
    const ZipEntry& last = *by_position.back();
    if (last.data_position + last.packed_size_bytes > entries_.front().directory_position) {
      return corrupt_zip(entry_name(last.name) + " overlaps the directory");
    }
  }
  for (std::size_t i = 1; i < by_position.size(); ++i) {
    const ZipEntry& before = *by_position[i - 1];
    if (before.data_position + before.packed_size_bytes > by_position[i]->data_position) {
      return corrupt_zip(entry_name(by_position[i]->name) + " overlaps " + entry_name(before.name));
    }
  }
  return {};
}

const ZipEntry* ZipFile::find(std::string_view name) const {
  const auto found = std::lower_bound(
      by_name_.begin(), by_name_.end(), name,
      [&](std::size_t entry, std::string_view wanted) { return entries_[entry].name < wanted; });
  if (found == by_name_.end() || entries_[*found].name != name) return nullptr;
  return &entries_[*found];
}

Result<std::shared_ptr<const LeafSource>> ZipFile::open_entry(const ZipEntry& entry) {
  const unz64_file_pos position = {.pos_in_zip_directory = entry.directory_position,
                                   .num_of_file = entry.number};
  if (unzGoToFilePos64(archive_, &position) != UNZ_OK || unzOpenCurrentFile(archive_) != UNZ_OK) {
    return corrupt_zip(entry_name(entry.name) + " cannot be opened");
  }
  if (entry.is_deflated && unpacked_ == nullptr) {
    unpacked_ = STEPSTONE_TRY(InputFile::create_temporary(file_->name()));
  }
  const std::uint64_t unpacked_position = entry.is_deflated ? unpacked_->size_bytes() : 0;
  std::vector<std::byte> piece(std::size_t{1} << 18);
  std::uint64_t size_bytes = 0;
  while (true) {
    const int count =
        unzReadCurrentFile(archive_, piece.data(), static_cast<unsigned>(piece.size()));
    if (count < 0) return corrupt_zip(entry_name(entry.name) + " cannot be unpacked");
    if (count == 0) break;
    if (entry.is_deflated) {
      STEPSTONE_TRY(unpacked_->append(std::span(piece).first(static_cast<std::size_t>(count))));
    }
    size_bytes += static_cast<std::uint64_t>(count);
  }
  // Compares the checksum.
  const int closed = unzCloseCurrentFile(archive_);
  if (closed != UNZ_OK || size_bytes != entry.size_bytes) {
    return corrupt_zip(entry_name(entry.name) + " does not have the bytes that it was given");
  }
  std::shared_ptr<const InputFile> file = entry.is_deflated ? unpacked_ : file_;
  return std::make_shared<FileSource>(std::move(file),
                                      entry.is_deflated ? unpacked_position : entry.data_position);
}

}  // namespace stepstone::tool
