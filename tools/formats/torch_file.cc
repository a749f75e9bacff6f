// A .pt file is a ZIP archive: data.pkl, which says what there is, and data/KEY for each storage,
// all in one folder. What PyTorch wrote before 1.6 is five pickles one behind the other (a magic
// number, a version, facts of the machine, what there is, the keys of the storages), and then the
// storages, each behind its number of elements. The item keeps the tree of dicts, lists and tuples.
//
// A pickle may refer to one value from many places. The tree has it in each of them; how large it
// may thereby become is bounded.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>

#include "format/limits.h"
#include "tools/formats/formats.h"
#include "tools/formats/input_file.h"
#include "tools/formats/pickle.h"
#include "tools/formats/strided_source.h"
#include "tools/formats/zip_file.h"

namespace stepstone::tool {
namespace {

using Kind = PickleValue::Kind;

constexpr std::size_t kNodesMax = std::size_t{1} << 20;
// Of all leaves' paths together, which keys that are long and deep could make many times the file.
constexpr std::uint64_t kPathsSizeBytesMax = std::uint64_t{256} << 20;
constexpr std::uint64_t kExpansionSlackBytes = std::uint64_t{1} << 20;
constexpr std::string_view kPickleName = "data.pkl";

class TextSource final : public LeafSource {
 public:
  explicit TextSource(std::shared_ptr<const std::string> text) : text_(std::move(text)) {}
  Result<std::span<const std::byte>> read(std::uint64_t offset, std::size_t size,
                                          std::span<std::byte> /*scratch*/) const override {
    return std::as_bytes(std::span(*text_)).subspan(static_cast<std::size_t>(offset), size);
  }

 private:
  const std::shared_ptr<const std::string> text_;
};

struct Storage {
  std::uint64_t size_bytes = 0;
  std::shared_ptr<const LeafSource> source;
};

class Storages {
 public:
  virtual ~Storages() = default;
  virtual Result<Storage> get(const std::string& key) = 0;

 protected:
  static tl::unexpected<Error> missing(const std::string& key) {
    return fail(ErrorCode::kCorrupt,
                "there is no storage '" + shown(key) + "', which a tensor is a view of");
  }
};

// Opens storages when they are first asked for.
class ArchivedStorages final : public Storages {
 public:
  ArchivedStorages(ZipFile& zip, std::string folder) : zip_(zip), folder_(std::move(folder)) {}

  Result<Storage> get(const std::string& key) override {
    const auto known = opened_.find(key);
    if (known != opened_.end()) return known->second;
    const ZipEntry* const entry = zip_.find(folder_ + "data/" + key);
    if (entry == nullptr) return missing(key);
    Storage storage{.size_bytes = entry->size_bytes,
                    .source = STEPSTONE_TRY(zip_.open_entry(*entry))};
    return opened_.emplace(key, std::move(storage)).first->second;
  }

 private:
  ZipFile& zip_;
  const std::string folder_;
  std::map<std::string, Storage, std::less<>> opened_;
};

class LegacyStorages final : public Storages {
 public:
  // Finds them in the file, from `position` to its end.
  Result<void> find(const std::shared_ptr<const InputFile>& file, std::uint64_t position,
                    const Pickle& contents, const Pickle& keys);

  Result<Storage> get(const std::string& key) override {
    const auto known = found_.find(key);
    if (known == found_.end()) return missing(key);
    return known->second;
  }

 private:
  std::map<std::string, Storage, std::less<>> found_;
};

Result<void> LegacyStorages::find(const std::shared_ptr<const InputFile>& file,
                                  std::uint64_t position, const Pickle& contents,
                                  const Pickle& keys) {
  // An element's size stands in the pickle alone.
  std::map<std::string_view, const PickledStorage*> pickled;
  for (const PickledStorage& storage : contents.storages) {
    pickled.emplace(*contents.texts[storage.key], &storage);
  }
  const PickleValue& list = keys.values[keys.root];
  if (list.kind != Kind::kList) return fail(ErrorCode::kCorrupt, "its storages have no keys");
  for (const std::uint32_t place : list.children) {
    const PickleValue& value = keys.values[place];
    if (value.kind != Kind::kString) {
      return fail(ErrorCode::kCorrupt, "a storage's key is no string");
    }
    const std::string& key = *keys.texts[value.text];
    const auto storage = pickled.find(key);
    if (storage == pickled.end()) {
      return fail(ErrorCode::kCorrupt, "no tensor is a view of its storage '" + shown(key) + "'");
    }
    std::array<std::byte, 8> bytes{};
    if (file->size_bytes() - position < bytes.size()) {
      return fail(ErrorCode::kCorrupt, "it ends before its storage '" + shown(key) + "'");
    }
    STEPSTONE_TRY(file->read(position, bytes));
    position += bytes.size();
    std::uint64_t count = 0;
    for (std::size_t i = bytes.size(); i-- > 0;) {
      count = count << 8 | std::to_integer<std::uint64_t>(bytes[i]);
    }
    const std::uint32_t width = storage->second->element_size_bytes;
    if (count > (file->size_bytes() - position) / width) {
      return fail(
          ErrorCode::kCorrupt,
          fmt::format("its storage '{}' of {} elements reaches beyond its end", shown(key), count));
    }
    if (!found_
             .emplace(key, Storage{.size_bytes = count * width,
                                   .source = std::make_shared<FileSource>(file, position)})
             .second) {
      return fail(ErrorCode::kCorrupt, "it has two storages '" + shown(key) + "'");
    }
    position += count * width;
  }
  if (position != file->size_bytes()) {
    return fail(ErrorCode::kCorrupt, "something follows its last storage");
  }
  return {};
}

// The number of elements, from the first, that the view reaches over. kCorrupt: more than 2^64.
Result<std::uint64_t> reach_of(const PickledTensor& tensor) {
  std::uint64_t reach = 1;
  for (std::size_t axis = 0; axis < tensor.shape.size(); ++axis) {
    if (tensor.shape[axis] == 0) return 0;
    std::uint64_t span = 0;
    if (__builtin_mul_overflow(tensor.shape[axis] - 1, tensor.strides[axis], &span) ||
        __builtin_add_overflow(reach, span, &reach)) {
      return fail(ErrorCode::kCorrupt, "a view that reaches beyond any storage");
    }
  }
  return reach;
}

class TreeBuilder {
 public:
  TreeBuilder(const Pickle& pickle, Storages& storages, std::uint64_t size_bytes_max)
      : pickle_(pickle), storages_(storages), size_bytes_max_(size_bytes_max) {}

  Result<Contents> build() {
    STEPSTONE_TRY(add(pickle_.root));
    // Siblings that are the same are found here.
    STEPSTONE_TRY(visit(contents_.structure, {}));
    return std::move(contents_);
  }

 private:
  // "at 'a/b'".
  std::string place() const { return "'" + shown(to_text(path_)) + "'"; }

  // Recurses to the depth that a tree may have.
  Result<void> add(std::uint32_t number) {
    if (path_.size() > limits::kDepthMax) {
      return fail(ErrorCode::kLimit, fmt::format("nested deeper than {}", limits::kDepthMax));
    }
    if (contents_.structure.kinds.size() == kNodesMax) {
      return fail(ErrorCode::kLimit, fmt::format("a tree of more than {} nodes", kNodesMax));
    }
    const PickleValue& value = pickle_.values[number];
    switch (value.kind) {
      case Kind::kDict:
        return add_dict(value);
      case Kind::kList:
      case Kind::kTuple:
        return add_sequence(value);
      default:
        return add_leaf(value);
    }
  }

  Result<void> add_sequence(const PickleValue& value) {
    contents_.structure.kinds.push_back(value.kind == Kind::kList ? NodeKind::kList
                                                                  : NodeKind::kTuple);
    contents_.structure.child_counts.push_back(static_cast<std::uint32_t>(value.children.size()));
    for (std::uint32_t i = 0; i < value.children.size(); ++i) {
      path_.push_back(PathComponent::index(i));
      STEPSTONE_TRY(add(value.children[i]));
      path_.pop_back();
    }
    return {};
  }

  Result<void> add_dict(const PickleValue& value) {
    contents_.structure.kinds.push_back(NodeKind::kDict);
    contents_.structure.child_counts.push_back(
        static_cast<std::uint32_t>(value.children.size() / 2));
    // The structure has the labels in preorder, each just before its node.
    for (std::size_t i = 0; i < value.children.size(); i += 2) {
      path_.push_back(STEPSTONE_TRY(key_of(pickle_.values[value.children[i]])));
      append_component(contents_.structure.labels, path_.back());
      STEPSTONE_TRY(count_path_bytes(path_.back().name.size() + 2));
      STEPSTONE_TRY(add(value.children[i + 1]));
      path_.pop_back();
    }
    return {};
  }

  Result<PathComponent> key_of(const PickleValue& key) const {
    PathComponent component;
    if (key.kind == Kind::kString) {
      component = PathComponent::key(*pickle_.texts[key.text]);
    } else if (key.kind == Kind::kInteger) {
      component = PathComponent::key(key.number);
    } else {
      return fail(ErrorCode::kUnsupported,
                  "the dict at " + place() + " has a key that is neither a string nor an integer");
    }
    STEPSTONE_TRY(check_component(component));
    return component;
  }

  Result<void> count_path_bytes(std::uint64_t size) {
    paths_size_bytes_ += size;
    if (paths_size_bytes_ <= kPathsSizeBytesMax) return {};
    return fail(ErrorCode::kLimit,
                fmt::format("the paths of all leaves take more than {} bytes", kPathsSizeBytesMax));
  }

  Result<void> add_leaf(const PickleValue& value) {
    ContentLeaf leaf;
    leaf.encoded_path = STEPSTONE_TRY(encode_path(path_));
    STEPSTONE_TRY(count_path_bytes(leaf.encoded_path.size()));
    STEPSTONE_TRY(describe(value, leaf));
    if (leaf.info.size_bytes > size_bytes_max_ - size_bytes_) {
      return fail(ErrorCode::kCorrupt,
                  fmt::format("{}: with it, all leaves together take more than {} times the file",
                              place(), kExpansionMax));
    }
    size_bytes_ += leaf.info.size_bytes;
    contents_.structure.kinds.push_back(NodeKind::kLeaf);
    contents_.leaves.push_back(std::move(leaf));
    return {};
  }

  Result<void> describe(const PickleValue& value, ContentLeaf& leaf) const {
    const auto set_text = [&](LeafKind kind, std::shared_ptr<const std::string> text) {
      leaf.info.kind = kind;
      leaf.info.size_bytes = text->size();
      leaf.source = std::make_shared<TextSource>(std::move(text));
    };
    const auto set_number = [&](LeafKind kind, std::size_t size) {
      std::string bytes;
      for (std::size_t i = 0; i < size; ++i) {
        bytes += static_cast<char>(static_cast<std::uint64_t>(value.number) >> (8 * i));
      }
      set_text(kind, std::make_shared<const std::string>(std::move(bytes)));
    };
    switch (value.kind) {
      case Kind::kNone:
        set_number(LeafKind::kNone, 0);
        return {};
      case Kind::kBool:
        set_number(LeafKind::kBool, 1);
        return {};
      case Kind::kInteger:
        set_number(LeafKind::kInt64, 8);
        return {};
      case Kind::kFloat:
        set_number(LeafKind::kFloat64, 8);
        return {};
      case Kind::kBigInteger:
        set_text(LeafKind::kBigInteger, pickle_.texts[value.text]);
        return {};
      case Kind::kComplex:
        set_text(LeafKind::kComplex128, pickle_.texts[value.text]);
        return {};
      case Kind::kString:
        set_text(LeafKind::kString, pickle_.texts[value.text]);
        return {};
      case Kind::kBytes:
        set_text(LeafKind::kBytes, pickle_.texts[value.text]);
        return {};
      case Kind::kTensor: {
        const auto& tensor = pickle_.tensors[static_cast<std::size_t>(value.number)];
        STEPSTONE_TRY_CONTEXT(describe_tensor(tensor, leaf), place());
        return {};
      }
      default:
        return fail(ErrorCode::kUnsupported,
                    place() + " is a function or a storage of PyTorch, not a tensor or a value");
    }
  }

  Result<void> describe_tensor(const PickledTensor& tensor, ContentLeaf& leaf) const {
    const std::string& key = *pickle_.texts[tensor.storage_key];
    const Storage storage = STEPSTONE_TRY(storages_.get(key));
    if (storage.size_bytes != tensor.storage_size_bytes) {
      return fail(ErrorCode::kCorrupt,
                  fmt::format("its storage '{}' has {} bytes, where the pickle says {}", shown(key),
                              storage.size_bytes, tensor.storage_size_bytes));
    }
    leaf.info.kind = LeafKind::kArray;
    leaf.info.dtype = tensor.dtype;
    leaf.info.shape = tensor.shape;
    leaf.info.size_bytes = STEPSTONE_TRY(array_size_bytes(tensor.dtype, tensor.shape));
    const std::uint32_t width = info(tensor.dtype).bits / 8;
    const std::uint64_t reach = STEPSTONE_TRY(reach_of(tensor));
    const std::uint64_t element_count = storage.size_bytes / width;
    if (reach != 0 && (tensor.first > element_count || reach > element_count - tensor.first)) {
      return fail(ErrorCode::kCorrupt,
                  fmt::format("its view reaches beyond its storage '{}' of {} elements", shown(key),
                              element_count));
    }
    StridedLayout layout{.element_size_bytes = width,
                         .swapped_size_bytes = 1,
                         .first = tensor.first,
                         .shape = tensor.shape,
                         .strides = tensor.strides};
    leaf.source = std::make_shared<StridedSource>(storage.source, std::move(layout));
    return {};
  }

  const Pickle& pickle_;
  Storages& storages_;
  const std::uint64_t size_bytes_max_;
  std::uint64_t size_bytes_ = 0;
  std::uint64_t paths_size_bytes_ = 0;
  LeafPath path_;
  Contents contents_;
};

Result<std::string> read_whole(ZipFile& zip, const ZipEntry& entry, std::uint64_t size_bytes_max) {
  if (entry.size_bytes > size_bytes_max) {
    return fail(ErrorCode::kLimit,
                fmt::format("'{}' of {} bytes is over the limit of {}", shown(entry.name),
                            entry.size_bytes, size_bytes_max));
  }
  const auto source = STEPSTONE_TRY(zip.open_entry(entry));
  std::string text(static_cast<std::size_t>(entry.size_bytes), '\0');
  STEPSTONE_TRY(source->read(0, text.size(), std::as_writable_bytes(std::span(text))));
  return text;
}

// Of the one pickle in the archive: "model/" of "model/data.pkl".
Result<std::string> find_folder(const ZipFile& zip) {
  const ZipEntry* found = nullptr;
  for (const ZipEntry& entry : zip.entries()) {
    const std::size_t slash = entry.name.find('/');
    if (slash == std::string::npos || entry.name.substr(slash + 1) != kPickleName) continue;
    if (found != nullptr) return fail(ErrorCode::kCorrupt, "it has several files data.pkl");
    found = &entry;
  }
  if (found == nullptr) {
    return fail(ErrorCode::kCorrupt,
                "not a file that torch.save wrote in its ZIP form: it has no data.pkl");
  }
  return found->name.substr(0, found->name.size() - kPickleName.size());
}

Result<Contents> build_tree(const InputFile& file, const Pickle& pickle, Storages& storages) {
  return TreeBuilder(pickle, storages, file.size_bytes() * kExpansionMax + kExpansionSlackBytes)
      .build();
}

Result<Contents> read_archive(const std::shared_ptr<const InputFile>& file) {
  const auto zip = STEPSTONE_TRY(ZipFile::open(file));
  const std::string folder = STEPSTONE_TRY(find_folder(*zip));
  if (const ZipEntry* const order = zip->find(folder + "byteorder"); order != nullptr) {
    if (STEPSTONE_TRY(read_whole(*zip, *order, 64)) != "little") {
      return fail(ErrorCode::kUnsupported, "it was written on a big-endian machine");
    }
  }
  const std::string bytes = STEPSTONE_TRY(
      read_whole(*zip, *zip->find(folder + std::string(kPickleName)), kPickleSizeBytesMax));
  const Pickle pickle = STEPSTONE_TRY(parse_pickle(bytes));
  ArchivedStorages storages(*zip, folder);
  return build_tree(*file, pickle, storages);
}

// The third pickle: whether the numbers behind the pickles are little-endian.
Result<void> check_machine(const Pickle& pickle) {
  const PickleValue& facts = pickle.values[pickle.root];
  if (facts.kind == Kind::kDict) {
    for (std::size_t i = 0; i < facts.children.size(); i += 2) {
      const PickleValue& name = pickle.values[facts.children[i]];
      const PickleValue& value = pickle.values[facts.children[i + 1]];
      if (name.kind != Kind::kString || *pickle.texts[name.text] != "little_endian") continue;
      if (value.kind == Kind::kBool && value.number == 1) return {};
      return fail(ErrorCode::kUnsupported, "it was written on a big-endian machine");
    }
  }
  return fail(ErrorCode::kCorrupt, "it does not say which order its bytes have");
}

bool is_integer(const Pickle& pickle, std::string_view decimal) {
  const PickleValue& root = pickle.values[pickle.root];
  if (root.kind == Kind::kBigInteger) return *pickle.texts[root.text] == decimal;
  return root.kind == Kind::kInteger && std::to_string(root.number) == decimal;
}

Result<Contents> read_legacy(const std::shared_ptr<const InputFile>& file) {
  constexpr std::string_view kMagicNumber = "119547037146038801333356";
  constexpr std::string_view kVersion = "1001";
  std::string head(
      static_cast<std::size_t>(std::min<std::uint64_t>(file->size_bytes(), kPickleSizeBytesMax)),
      '\0');
  STEPSTONE_TRY(file->read(0, std::as_writable_bytes(std::span(head))));
  std::string_view rest = head;
  const bool is_cut = head.size() < file->size_bytes();
  const auto next = [&] { return parse_next_pickle(rest, is_cut); };
  if (!is_integer(STEPSTONE_TRY(next()), kMagicNumber)) {
    return fail(ErrorCode::kCorrupt, "a pickle, but not one that torch.save wrote");
  }
  if (!is_integer(STEPSTONE_TRY(next()), kVersion)) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("PyTorch's format before ZIP is read in version {} only", kVersion));
  }
  STEPSTONE_TRY(check_machine(STEPSTONE_TRY(next())));
  const Pickle contents = STEPSTONE_TRY(next());
  const Pickle keys = STEPSTONE_TRY(next());
  LegacyStorages storages;
  STEPSTONE_TRY(storages.find(file, head.size() - rest.size(), contents, keys));
  return build_tree(*file, contents, storages);
}

// A pickle of protocol 2 or newer begins with this byte, an archive with 'P'.
Result<bool> is_legacy(const InputFile& file) {
  constexpr std::byte kProtocol{0x80};
  std::array<std::byte, 1> first{};
  if (file.size_bytes() != 0) STEPSTONE_TRY(file.read(0, first));
  return first[0] == kProtocol;
}

}  // namespace

Result<Contents> read_torch(const std::filesystem::path& path) {
  const auto file = STEPSTONE_TRY(InputFile::open(path));
  const auto read = [&]() -> Result<Contents> {
    return STEPSTONE_TRY(is_legacy(*file)) ? read_legacy(file) : read_archive(file);
  };
  return STEPSTONE_TRY_CONTEXT(read(), file->name());
}

}  // namespace stepstone::tool
