// A .pt file as torch.save would write it, of protocol 2 and without a memo: what torch.load reads
// with weights_only=True. PyTorch has no place for the types of named tuples and custom nodes: they
// become dicts of their fields.
#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <map>
#include <optional>

#include "tools/formats/atomic_file.h"
#include "tools/formats/formats.h"
#include "tools/formats/pickle.h"
#include "tools/formats/strided_source.h"
#include "tools/formats/zip_writer.h"

namespace stepstone::tool {
namespace {

// The folder in the archive, and the alignment that PyTorch gives storages, so that it can map
// them.
constexpr std::string_view kFolder = "archive/";
constexpr std::uint32_t kAlignmentBytes = 64;
// Of a value in the pickle.
constexpr std::uint64_t kValueSizeBytesMax = std::uint64_t{16} << 20;

// The pickle's instructions, one behind the other.
class PickleWriter {
 public:
  PickleWriter() { bytes_ = "\x80\x02"; }

  void code(std::string_view code) { bytes_ += code; }
  void global(std::string_view module, std::string_view name) {
    bytes_ += fmt::format("c{}\n{}\n", module, name);
  }
  void string(std::string_view text) {
    bytes_ += 'X';
    append(text.size(), 4);
    bytes_ += text;
  }
  void integer(std::int64_t number) {
    if (number >= INT32_MIN && number <= INT32_MAX) {
      bytes_ += 'J';
      append(static_cast<std::uint64_t>(number), 4);
      return;
    }
    bytes_ += "\x8A\x08";
    append(static_cast<std::uint64_t>(number), 8);
  }
  // At most 255 bytes.
  void long_integer(std::string_view little_endian) {
    bytes_ += '\x8A';
    append(little_endian.size(), 1);
    bytes_ += little_endian;
  }
  void real(std::string_view little_endian) {
    bytes_ += 'G';
    bytes_.append(little_endian.rbegin(), little_endian.rend());
  }
  // Bytes, as protocol 2 has them: text of U+0000 to U+00FF that is to be encoded.
  void raw(std::string_view bytes) {
    global("_codecs", "encode");
    std::string text;
    for (const char byte : bytes) {
      const auto value = static_cast<unsigned char>(byte);
      if (value < 0x80) {
        text += byte;
      } else {
        text += static_cast<char>(0xC0 | value >> 6);
        text += static_cast<char>(0x80 | (value & 0x3F));
      }
    }
    string(text);
    string("latin1");
    bytes_ += "\x86R";
  }
  void extents(std::span<const std::uint64_t> numbers) {
    bytes_ += '(';
    for (const std::uint64_t number : numbers) integer(static_cast<std::int64_t>(number));
    bytes_ += 't';
  }

  std::string take() { return std::move(bytes_); }

 private:
  void append(std::uint64_t number, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) bytes_ += static_cast<char>(number >> (8 * i));
  }

  std::string bytes_;
};

// Little-endian, of a whole number in decimal; nullopt: longer than 255 bytes.
std::optional<std::string> two_s_complement(std::string_view decimal) {
  const bool is_negative = decimal.starts_with('-');
  std::string bytes;
  for (const char digit : decimal.substr(is_negative ? 1 : 0)) {
    unsigned carry = static_cast<unsigned>(digit - '0');
    for (char& byte : bytes) {
      carry += static_cast<unsigned char>(byte) * 10U;
      byte = static_cast<char>(carry);
      carry >>= 8;
    }
    if (carry != 0) bytes += static_cast<char>(carry);
    if (bytes.size() > 254) return std::nullopt;
  }
  bytes += '\0';  // The sign.
  if (!is_negative) return bytes;
  unsigned carry = 1;
  for (char& byte : bytes) {
    carry += static_cast<unsigned char>(~byte);
    byte = static_cast<char>(carry);
    carry >>= 8;
  }
  return bytes;
}

Result<std::string> value_of(const ContentLeaf& leaf) {
  if (leaf.info.size_bytes > kValueSizeBytesMax) {
    return fail(ErrorCode::kLimit,
                fmt::format("a {} of {} bytes is over the limit of {}", to_string(leaf.info.kind),
                            leaf.info.size_bytes, kValueSizeBytesMax));
  }
  std::string value;
  STEPSTONE_TRY(stream(leaf, [&](std::span<const std::byte> piece) -> Result<void> {
    value.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    return {};
  }));
  return value;
}

// Turns a tree into a pickle, and says which leaf is which storage.
class TorchPickler {
 public:
  explicit TorchPickler(const Contents& contents) : contents_(contents) {
    for (const ContentLeaf& leaf : contents.leaves) leaves_.emplace(leaf.encoded_path, &leaf);
  }

  Result<std::string> run() {
    TreeVisitor visitor;
    visitor.enter = [&](NodeKind kind, const PathComponent* label, std::string_view /*type_name*/,
                        std::uint32_t /*child_count*/) -> Result<void> {
      return enter(kind, label);
    };
    visitor.leaf = [&](const std::string& path) -> Result<void> {
      const auto found = leaves_.find(path);
      const std::string place = "leaf '" + to_text(path) + "'";
      if (found == leaves_.end()) return fail(ErrorCode::kCorrupt, place + " is missing");
      STEPSTONE_TRY_CONTEXT(add_leaf(*found->second), place);
      return {};
    };
    visitor.leave = [&](NodeKind kind) -> Result<void> {
      pickle_.code(kind == NodeKind::kList ? "e" : kind == NodeKind::kTuple ? "t" : "u");
      containers_.pop_back();
      return {};
    };
    STEPSTONE_TRY(visit(contents_.structure, visitor));
    pickle_.code(".");
    return pickle_.take();
  }

  const std::vector<const ContentLeaf*>& storages() const { return storages_; }

 private:
  Result<void> enter(NodeKind kind, const PathComponent* label) {
    const bool is_in_dict = !containers_.empty() && containers_.back() != NodeKind::kList &&
                            containers_.back() != NodeKind::kTuple;
    if (is_in_dict && label != nullptr) {
      const bool is_named = label->kind == PathComponent::Kind::kStringKey ||
                            label->kind == PathComponent::Kind::kAttribute;
      if (is_named) {
        pickle_.string(label->name);
      } else {
        pickle_.integer(label->number);
      }
    }
    if (kind == NodeKind::kLeaf) return {};
    containers_.push_back(kind);
    pickle_.code(kind == NodeKind::kList ? "](" : kind == NodeKind::kTuple ? "(" : "}(");
    return {};
  }

  Result<void> add_leaf(const ContentLeaf& leaf) {
    if (leaf.info.kind == LeafKind::kArray) return add_tensor(leaf);
    const std::string value = STEPSTONE_TRY(value_of(leaf));
    switch (leaf.info.kind) {
      case LeafKind::kNone:
        pickle_.code("N");
        return {};
      case LeafKind::kBool:
        pickle_.code(value == std::string(1, '\0') ? "\x89" : "\x88");
        return {};
      case LeafKind::kInt64: {
        std::int64_t number = 0;
        std::memcpy(&number, value.data(), sizeof number);
        pickle_.integer(number);
        return {};
      }
      case LeafKind::kFloat64:
        pickle_.real(value);
        return {};
      case LeafKind::kComplex128:
        pickle_.global("__builtin__", "complex");
        pickle_.real(std::string_view(value).substr(0, 8));
        pickle_.real(std::string_view(value).substr(8));
        pickle_.code("\x86R");
        return {};
      case LeafKind::kString:
        pickle_.string(value);
        return {};
      case LeafKind::kBytes:
        pickle_.raw(value);
        return {};
      default:
        return add_big_integer(value);
    }
  }

  Result<void> add_big_integer(std::string_view decimal) {
    const std::optional<std::string> bytes = two_s_complement(decimal);
    if (!bytes) {
      return fail(ErrorCode::kUnsupported,
                  "an integer of more than 255 bytes has no place in a .pt file");
    }
    pickle_.long_integer(*bytes);
    return {};
  }

  Result<void> add_tensor(const ContentLeaf& leaf) {
    const DType dtype = *leaf.info.dtype;
    const TorchNames names = torch_names(dtype);
    if (names.dtype.empty()) {
      return fail(ErrorCode::kUnsupported,
                  fmt::format("PyTorch has no dtype {}", to_string(dtype)));
    }
    const bool is_typed = !names.storage.empty();
    pickle_.global("torch._utils", is_typed ? "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
    pickle_.code("((");
    pickle_.string("storage");
    pickle_.global(is_typed ? "torch" : "torch.storage",
                   is_typed ? names.storage : "UntypedStorage");
    pickle_.string(std::to_string(storages_.size()));
    pickle_.string("cpu");
    const std::uint64_t width = is_typed ? info(dtype).bits / 8 : 1;
    pickle_.integer(static_cast<std::int64_t>(leaf.info.size_bytes / width));
    pickle_.code("tQ");
    pickle_.integer(0);
    pickle_.extents(leaf.info.shape);
    pickle_.extents(c_strides(leaf.info.shape));
    pickle_.code("\x89");
    pickle_.global("collections", "OrderedDict");
    pickle_.code(")R");
    if (!is_typed) pickle_.global("torch", names.dtype);
    pickle_.code("tR");
    storages_.push_back(&leaf);
    return {};
  }

  const Contents& contents_;
  std::map<std::string_view, const ContentLeaf*> leaves_;
  std::vector<NodeKind> containers_;  // Those that are open.
  std::vector<const ContentLeaf*> storages_;
  PickleWriter pickle_;
};

Result<void> add_text(ZipWriter& zip, std::string_view name, std::string_view text) {
  return zip.add(std::string(kFolder) + std::string(name), text.size(),
                 [&] { return zip.write(text); });
}

}  // namespace

Result<Written> write_torch(const Contents& contents, const Destination& destination) {
  TorchPickler pickler(contents);
  const std::string pickle = STEPSTONE_TRY(pickler.run());
  const auto file = STEPSTONE_TRY(AtomicFile::create(destination.path, destination.replace));
  const auto zip = STEPSTONE_TRY(ZipWriter::create(*file, {.alignment_bytes = kAlignmentBytes}));
  STEPSTONE_TRY(add_text(*zip, "data.pkl", pickle));
  STEPSTONE_TRY(add_text(*zip, ".format_version", "1"));
  STEPSTONE_TRY(add_text(*zip, ".storage_alignment", std::to_string(kAlignmentBytes)));
  STEPSTONE_TRY(add_text(*zip, "byteorder", "little"));
  for (std::size_t i = 0; i < pickler.storages().size(); ++i) {
    const ContentLeaf& leaf = *pickler.storages()[i];
    STEPSTONE_TRY(zip->add(fmt::format("{}data/{}", kFolder, i), leaf.info.size_bytes, [&] {
      return stream(leaf, [&](std::span<const std::byte> piece) -> Result<void> {
        STEPSTONE_TRY(destination.on_bytes(piece.size()));
        return zip->write(piece);
      });
    }));
  }
  STEPSTONE_TRY(add_text(*zip, "version", "3\n"));
  STEPSTONE_TRY(destination.on_bytes(0));
  STEPSTONE_TRY(zip->finish());
  STEPSTONE_TRY(file->publish());
  return Written{.path = destination.path, .size_bytes = file->size_bytes()};
}

}  // namespace stepstone::tool
