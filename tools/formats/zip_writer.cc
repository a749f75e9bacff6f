#include "tools/formats/zip_writer.h"

#include <fmt/format.h>
#include <minizip/zip.h>

#include <optional>

namespace stepstone::tool {
namespace {

constexpr std::size_t kZipNameSizeBytesMax = 0xFFFF;
// From here on an entry needs ZIP64, with some room for what deflate adds to what it cannot pack.
constexpr std::uint64_t kLargeSizeBytes = 0xFF000000;
constexpr std::size_t kLocalHeaderSizeBytes = 30;
constexpr std::size_t kZip64ExtraSizeBytes = 20;
// The first of January 1980, the first day that an archive can tell: equal contents, equal bytes.
constexpr unsigned long kDosDate = (1UL << 21) | (1UL << 16);
// In the field for flags: the name is UTF-8.
constexpr unsigned long kNameIsUtf8 = 0x800;

}  // namespace

// What minizip sees as a file: it writes on at the end, and goes back to complete a header.
struct ZipWriter::Stream {
  AtomicFile* file = nullptr;
  std::uint64_t position = 0;
  std::optional<Error> error;

  static Stream* from(voidpf opaque) { return static_cast<Stream*>(opaque); }

  uLong write(std::span<const std::byte> bytes) {
    const std::uint64_t end = file->size_bytes();
    const auto behind = static_cast<std::size_t>(
        std::min<std::uint64_t>(end - std::min(position, end), bytes.size()));
    Result<void> written = file->rewrite(position, bytes.first(behind));
    if (written) written = file->write(bytes.subspan(behind));
    if (!written) {
      error = written.error();
      return 0;
    }
    position += bytes.size();
    return bytes.size();
  }
};

ZipWriter::ZipWriter() : stream_(std::make_unique<Stream>()) {}

Result<std::unique_ptr<ZipWriter>> ZipWriter::create(AtomicFile& file, const ZipOptions& options) {
  std::unique_ptr<ZipWriter> writer(new ZipWriter());  // NOLINT: private constructor.
  writer->options_ = options;
  writer->stream_->file = &file;
  zlib_filefunc64_def functions = {};
  functions.opaque = writer->stream_.get();
  functions.zopen64_file = [](voidpf opaque, const void*, int) { return opaque; };
  functions.zread_file = [](voidpf, voidpf, void*, uLong) -> uLong { return 0; };
  functions.zwrite_file = [](voidpf opaque, voidpf, const void* bytes, uLong size) {
    return Stream::from(opaque)->write({static_cast<const std::byte*>(bytes), size});
  };
  functions.ztell64_file = [](voidpf opaque, voidpf) -> ZPOS64_T {
    return Stream::from(opaque)->position;
  };
  functions.zseek64_file = [](voidpf opaque, voidpf, ZPOS64_T offset, int origin) -> long {
    Stream& stream = *Stream::from(opaque);
    const std::uint64_t base = origin == ZLIB_FILEFUNC_SEEK_SET   ? 0
                               : origin == ZLIB_FILEFUNC_SEEK_CUR ? stream.position
                                                                  : stream.file->size_bytes();
    stream.position = base + offset;
    return 0;
  };
  functions.zclose_file = [](voidpf, voidpf) { return 0; };
  functions.zerror_file = [](voidpf opaque, voidpf) { return Stream::from(opaque)->error ? 1 : 0; };
  writer->archive_ = zipOpen2_64("", APPEND_STATUS_CREATE, nullptr, &functions);
  if (writer->archive_ == nullptr) return writer->failure();
  return writer;
}

ZipWriter::~ZipWriter() {
  if (archive_ != nullptr) zipClose(archive_, nullptr);
}

tl::unexpected<Error> ZipWriter::failure() const {
  if (stream_->error) return tl::unexpected<Error>(*stream_->error);
  return fail(ErrorCode::kLimit, "not enough memory for the archive's directory");
}

Result<void> ZipWriter::add(const std::string& name, std::uint64_t size_bytes,
                            const std::function<Result<void>()>& fill) {
  if (name.empty() || name.size() > kZipNameSizeBytesMax || name.find('\0') != std::string::npos) {
    return fail(ErrorCode::kInvalidArgument,
                "'" + shown(name) + "' cannot be the name of an entry in a ZIP archive");
  }
  const bool is_large = size_bytes >= kLargeSizeBytes;
  // An extra field of zeros under a tag that readers pass over, "FB" as in PyTorch's own files.
  std::string padding;
  if (!options_.deflate && options_.alignment_bytes > 1) {
    const std::uint64_t unpadded = stream_->file->size_bytes() + kLocalHeaderSizeBytes +
                                   name.size() + 4 + (is_large ? kZip64ExtraSizeBytes : 0);
    const std::uint64_t alignment = options_.alignment_bytes;
    padding.assign(static_cast<std::size_t>(4 + (alignment - unpadded % alignment) % alignment),
                   '\0');
    padding[0] = 'F';
    padding[1] = 'B';
    padding[2] = static_cast<char>(padding.size() - 4);
  }
  zip_fileinfo info = {};
  info.dosDate = kDosDate;
  if (zipOpenNewFileInZip4_64(archive_, name.c_str(), &info, padding.data(),
                              static_cast<unsigned>(padding.size()), nullptr, 0, nullptr,
                              options_.deflate ? Z_DEFLATED : 0, Z_DEFAULT_COMPRESSION, 0,
                              -MAX_WBITS, DEF_MEM_LEVEL, Z_DEFAULT_STRATEGY, nullptr, 0, 0,
                              kNameIsUtf8, is_large ? 1 : 0) != ZIP_OK) {
    return failure();
  }
  STEPSTONE_TRY(fill());
  if (zipCloseFileInZip(archive_) != ZIP_OK) return failure();
  return {};
}

Result<void> ZipWriter::write(std::span<const std::byte> bytes) {
  // The length is an unsigned int.
  while (!bytes.empty()) {
    const auto size = static_cast<unsigned>(std::min<std::size_t>(bytes.size(), 1U << 30));
    if (zipWriteInFileInZip(archive_, bytes.data(), size) != ZIP_OK) return failure();
    bytes = bytes.subspan(size);
  }
  return {};
}

Result<void> ZipWriter::finish() {
  const int closed = zipClose(std::exchange(archive_, nullptr), nullptr);
  if (closed != ZIP_OK || stream_->error) return failure();
  return {};
}

}  // namespace stepstone::tool
