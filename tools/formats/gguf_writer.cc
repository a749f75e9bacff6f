// GGUF, version 3: a header, a description of each tensor, then their bytes, each aligned. Plain
// tensors alone; what a model runner wants to know besides (architecture, tokens) is not in a
// store.
#include <fmt/format.h>

#include <optional>

#include "tools/formats/atomic_file.h"
#include "tools/formats/formats.h"
#include "tools/formats/gguf.h"

namespace stepstone::tool {
namespace {

constexpr std::size_t kGgufNameSizeBytesMax = 63;  // ggml's.

// ggml's number of a dtype; nullopt: it lacks it.
std::optional<std::uint32_t> gguf_type(DType dtype) {
  for (const auto& [number, its_dtype] : gguf::kTypes) {
    if (its_dtype == dtype) return number;
  }
  return std::nullopt;
}

void append(std::string& bytes, std::uint64_t number, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) bytes += static_cast<char>(number >> (8 * i));
}

void append_string(std::string& bytes, std::string_view text) {
  append(bytes, text.size(), 8);
  bytes += text;
}

std::uint64_t aligned(std::uint64_t size_bytes) {
  return gguf::aligned(size_bytes, gguf::kAlignmentBytes);
}

Result<void> append_tensor(std::string& header, const std::string& name, const LeafInfo& info,
                           std::uint64_t offset) {
  const std::optional<std::uint32_t> type = gguf_type(*info.dtype);
  if (!type) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("GGUF has no dtype {}", to_string(*info.dtype)));
  }
  if (info.shape.size() > gguf::kRankMax || name.size() > kGgufNameSizeBytesMax) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("a tensor in a GGUF file has at most {} dimensions and a name of at "
                            "most {} bytes",
                            gguf::kRankMax, kGgufNameSizeBytesMax));
  }
  append_string(header, name);
  append(header, info.shape.size(), 4);
  // The fastest axis first.
  for (std::size_t i = info.shape.size(); i-- > 0;) append(header, info.shape[i], 8);
  append(header, *type, 4);
  append(header, offset, 8);
  return {};
}

Result<std::string> encode_header(const Contents& contents) {
  const std::vector<std::string> names = STEPSTONE_TRY(flat_names(contents, "GGUF"));
  std::string header(gguf::kMagic);
  append(header, gguf::kVersion, 4);
  append(header, names.size(), 8);
  append(header, 1, 8);  // One pair of a key and a value, which every file must have.
  append_string(header, "general.architecture");
  append(header, 8, 4);  // A string.
  append_string(header, "stepstone");
  std::uint64_t offset = 0;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const ContentLeaf& leaf = contents.leaves[i];
    STEPSTONE_TRY_CONTEXT(append_tensor(header, names[i], leaf.info, offset),
                          "leaf '" + to_text(leaf.encoded_path) + "'");
    offset += aligned(leaf.info.size_bytes);
  }
  header.resize(static_cast<std::size_t>(aligned(header.size())), '\0');
  return header;
}

}  // namespace

Result<Written> write_gguf(const Contents& contents, const Destination& destination) {
  const std::string header = STEPSTONE_TRY(encode_header(contents));
  const auto file = STEPSTONE_TRY(AtomicFile::create(destination.path, destination.replace));
  STEPSTONE_TRY(file->write(header));
  for (const ContentLeaf& leaf : contents.leaves) {
    STEPSTONE_TRY(stream(leaf, [&](std::span<const std::byte> piece) -> Result<void> {
      STEPSTONE_TRY(destination.on_bytes(piece.size()));
      return file->write(piece);
    }));
    const std::uint64_t size_bytes = leaf.info.size_bytes;
    STEPSTONE_TRY(
        file->write(std::string(static_cast<std::size_t>(aligned(size_bytes) - size_bytes), '\0')));
  }
  STEPSTONE_TRY(destination.on_bytes(0));
  STEPSTONE_TRY(file->publish());
  return Written{.path = destination.path, .size_bytes = file->size_bytes()};
}

}  // namespace stepstone::tool
