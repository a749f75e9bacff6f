// A .npy file is an item that is one array; a .npz file is a flat dict of arrays, an archive of
// .npy files.
#include <fmt/format.h>

#include "tools/formats/atomic_file.h"
#include "tools/formats/formats.h"
#include "tools/formats/npy_file.h"
#include "tools/formats/zip_file.h"
#include "tools/formats/zip_writer.h"
#include "tools/npy.h"

namespace stepstone::tool {
namespace {

constexpr std::string_view kExtension = ".npy";

// Without the extension that numpy.savez gives each name.
std::string array_name(const ZipEntry& entry) {
  std::string name = entry.name;
  if (name.ends_with(kExtension)) name.resize(name.size() - kExtension.size());
  return name;
}

Result<Contents> read_arrays(ZipFile& zip) {
  Contents contents;
  std::vector<std::string> names;
  for (const ZipEntry& entry : zip.entries()) {
    const std::string name = array_name(entry);
    const auto bytes = STEPSTONE_TRY(zip.open_entry(entry));
    NpyArray array = STEPSTONE_TRY_CONTEXT(open_npy(bytes, entry.size_bytes),
                                           "entry '" + shown(entry.name) + "'");
    contents.leaves.push_back(STEPSTONE_TRY(
        flat_leaf(name, array.dtype, std::move(array.shape), std::move(array.source))));
    names.push_back(name);
  }
  contents.structure = flat_dict(names);
  // Entries `a` and `a.npy` would both be the leaf 'a'.
  STEPSTONE_TRY(visit(contents.structure, {}));
  return contents;
}

Result<std::vector<std::string>> headers_of(const Contents& contents) {
  std::vector<std::string> headers;
  for (const ContentLeaf& leaf : contents.leaves) {
    const std::string place = "leaf '" + to_text(leaf.encoded_path) + "'";
    if (!leaf.info.dtype) {
      return fail(ErrorCode::kUnsupported,
                  fmt::format("{} is of kind {}; a .npy file holds an array", place,
                              to_string(leaf.info.kind)));
    }
    headers.push_back(STEPSTONE_TRY_CONTEXT(npy_header(*leaf.info.dtype, leaf.info.shape), place));
  }
  return headers;
}

}  // namespace

Result<Contents> read_npy(const std::filesystem::path& path) {
  const auto file = STEPSTONE_TRY(InputFile::open(path));
  NpyArray array = STEPSTONE_TRY_CONTEXT(
      open_npy(std::make_shared<FileSource>(file, 0), file->size_bytes()), file->name());
  Contents contents;
  contents.structure = leaf_structure();
  ContentLeaf leaf =
      STEPSTONE_TRY(flat_leaf({}, array.dtype, std::move(array.shape), std::move(array.source)));
  leaf.encoded_path = STEPSTONE_TRY(encode_path({}));
  contents.leaves.push_back(std::move(leaf));
  return contents;
}

Result<Contents> read_npz(const std::filesystem::path& path) {
  const auto file = STEPSTONE_TRY(InputFile::open(path));
  const auto zip = STEPSTONE_TRY_CONTEXT(ZipFile::open(file), file->name());
  return STEPSTONE_TRY_CONTEXT(read_arrays(*zip), file->name());
}

Result<Written> write_npy(const Contents& contents, const Destination& destination) {
  if (contents.leaves.size() != 1) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("a .npy file holds one array, and there are {} leaves; choose one with "
                            "--leaves, or write a .npz file",
                            contents.leaves.size()));
  }
  const std::vector<std::string> headers = STEPSTONE_TRY(headers_of(contents));
  const auto file = STEPSTONE_TRY(AtomicFile::create(destination.path, destination.replace));
  STEPSTONE_TRY(file->write(headers.front()));
  STEPSTONE_TRY(
      stream(contents.leaves.front(), [&](std::span<const std::byte> piece) -> Result<void> {
        STEPSTONE_TRY(destination.on_bytes(piece.size()));
        return file->write(piece);
      }));
  STEPSTONE_TRY(destination.on_bytes(0));
  STEPSTONE_TRY(file->publish());
  return Written{.path = destination.path, .size_bytes = file->size_bytes()};
}

Result<Written> write_npz(const Contents& contents, const Destination& destination) {
  const std::vector<std::string> names = STEPSTONE_TRY(flat_names(contents, ".npz"));
  const std::vector<std::string> headers = STEPSTONE_TRY(headers_of(contents));
  const auto file = STEPSTONE_TRY(AtomicFile::create(destination.path, destination.replace));
  const auto zip = STEPSTONE_TRY(ZipWriter::create(*file, {.deflate = destination.deflate}));
  for (std::size_t i = 0; i < names.size(); ++i) {
    const ContentLeaf& leaf = contents.leaves[i];
    const std::uint64_t size_bytes = headers[i].size() + leaf.info.size_bytes;
    STEPSTONE_TRY(zip->add(names[i] + std::string(kExtension), size_bytes, [&]() -> Result<void> {
      STEPSTONE_TRY(zip->write(headers[i]));
      return stream(leaf, [&](std::span<const std::byte> piece) -> Result<void> {
        STEPSTONE_TRY(destination.on_bytes(piece.size()));
        return zip->write(piece);
      });
    }));
  }
  STEPSTONE_TRY(destination.on_bytes(0));
  STEPSTONE_TRY(zip->finish());
  STEPSTONE_TRY(file->publish());
  return Written{.path = destination.path, .size_bytes = file->size_bytes()};
}

}  // namespace stepstone::tool
