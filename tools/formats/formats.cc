#include "tools/formats/formats.h"

#include <algorithm>
#include <array>

#include "tools/formats/input_file.h"

namespace stepstone::tool {
namespace {

constexpr std::array<Format, 6> kFormats = {{
    {"safetensors", ".safetensors", read_safetensors, write_safetensors},
    {"safetensors-index", ".safetensors.index.json", read_safetensors_index, nullptr},
    {"npy", ".npy", read_npy, write_npy},
    {"npz", ".npz", read_npz, write_npz},
    {"pt", ".pt", read_torch, write_torch},
    {"gguf", ".gguf", read_gguf, write_gguf},
}};

// Other names under which files of a format go about.
constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kOtherExtensions = {{
    {".pth", "pt"},
    {".bin", "pt"},
    {".ckpt", "pt"},
}};

const Format* by_extension(const std::filesystem::path& path) {
  const std::string name = path.filename().native();
  for (const Format& format : kFormats) {
    if (name.ends_with(format.extension)) return &format;
  }
  for (const auto& [extension, format] : kOtherExtensions) {
    if (name.ends_with(extension)) return find_format(format);
  }
  return nullptr;
}

std::string names(bool of_readers) {
  std::string list;
  for (const Format& format : kFormats) {
    if (of_readers ? format.read == nullptr : format.write == nullptr) continue;
    list += (list.empty() ? "" : ", ") + std::string(format.name);
  }
  return list;
}

}  // namespace

std::span<const Format> formats() { return kFormats; }

const Format* find_format(std::string_view name) {
  const auto* const found = std::find_if(kFormats.begin(), kFormats.end(),
                                         [&](const Format& format) { return format.name == name; });
  return found == kFormats.end() ? nullptr : found;
}

Result<const Format*> detect_format(const std::filesystem::path& path) {
  const auto file = STEPSTONE_TRY(InputFile::open(path));
  std::array<std::byte, 9> head = {};
  const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(9, file->size_bytes()));
  STEPSTONE_TRY_CONTEXT(file->read(0, std::span(head).first(size)), file->name());
  const std::string_view text(reinterpret_cast<const char*>(head.data()), size);

  const Format* format = nullptr;
  if (text.starts_with("\x93NUMPY")) {
    format = find_format("npy");
  } else if (text.starts_with("PK\x03\x04") || text.starts_with("PK\x05\x06")) {
    // Archives, which their names tell apart; it may also be the length of a huge header.
    const Format* const called = by_extension(path);
    const bool is_told =
        called != nullptr && (called->name == "npz" || called->name == "safetensors");
    format = is_told ? called : find_format("pt");
  } else if (text.starts_with("GGUF")) {
    format = find_format("gguf");
  } else {
    format = by_extension(path);
    // Eight bytes of length, then JSON.
    if (format == nullptr && text.size() == 9 && text[8] == '{') {
      format = find_format("safetensors");
    }
  }
  if (format == nullptr) {
    return fail(ErrorCode::kUnsupported, file->name() +
                                             ": neither its first bytes nor its name tell its "
                                             "format; name it with --format: " +
                                             readable_format_names());
  }
  if (format->read == nullptr) {
    return fail(ErrorCode::kUnsupported, file->name() + ": files of the format " +
                                             std::string(format->name) +
                                             " can be written, but not read");
  }
  return format;
}

const Format* format_of_extension(const std::filesystem::path& path) {
  const Format* const format = by_extension(path);
  return format == nullptr || format->write == nullptr ? nullptr : format;
}

std::string readable_format_names() { return names(true); }
std::string writable_format_names() { return names(false); }

}  // namespace stepstone::tool
