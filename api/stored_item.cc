#include "api/stored_item.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "api/leaf_bytes.h"

namespace stepstone {
namespace {

// Builds the skeleton while the structure is walked.
class SkeletonBuilder {
 public:
  // `prefix` is what the encoded paths of all leaves begin with.
  SkeletonBuilder(const StoredItem& item, std::string prefix)
      : item_(item), prefix_(std::move(prefix)) {}

  Result<Tree> build() {
    const auto enter = [&](NodeKind kind, const PathComponent* label, std::string_view type_name,
                           std::uint32_t child_count) -> Result<void> {
      labels_.push_back(label == nullptr ? PathComponent() : *label);
      if (kind == NodeKind::kLeaf) return {};
      type_names_.emplace_back(type_name);
      // The structure was checked: it has as many.
      children_.emplace_back().reserve(child_count);
      return {};
    };
    const auto leaf = [&](const std::string& path) -> Result<void> {
      ++leaf_count_;
      add(Tree(STEPSTONE_TRY(prefix_.empty() ? find(path) : find(prefix_ + path))));
      return {};
    };
    const auto leave = [&](NodeKind kind) -> Result<void> {
      Tree tree = Tree::container(kind, std::move(type_names_.back()), std::move(children_.back()));
      type_names_.pop_back();
      children_.pop_back();
      add(std::move(tree));
      return {};
    };
    STEPSTONE_TRY(visit(item_.record.structure,
                        {.enter = enter, .leaf = leaf, .leave = leave, .is_checked = true}));
    if (leaf_count_ != item_.leaves.size()) {
      return fail(ErrorCode::kCorrupt, fmt::format("{} leaves are stored, its tree has {}",
                                                   item_.leaves.size(), leaf_count_));
    }
    return std::move(children_.front().front().tree);
  }

 private:
  void add(Tree tree) {
    children_.back().push_back({std::move(labels_.back()), std::move(tree)});
    labels_.pop_back();
  }

  Result<std::int64_t> find(const std::string& encoded_path) {
    // As a rule the tree's order is that of the records.
    if (next_ < item_.leaves.size() && item_.leaves[next_].encoded_path == encoded_path) {
      return static_cast<std::int64_t>(next_++);
    }
    const auto found = std::lower_bound(
        item_.leaves.begin(), item_.leaves.end(), encoded_path,
        [](const StoredLeaf& leaf, const std::string& path) { return leaf.encoded_path < path; });
    if (found == item_.leaves.end() || found->encoded_path != encoded_path) {
      return fail(ErrorCode::kCorrupt,
                  fmt::format("leaf '{}': its record is gone", to_text(encoded_path)));
    }
    next_ = static_cast<std::size_t>(found - item_.leaves.begin());
    return static_cast<std::int64_t>(next_++);
  }

  const StoredItem& item_;
  const std::string prefix_;
  std::size_t next_ = 0;  // The record behind the one found last.
  std::size_t leaf_count_ = 0;
  std::vector<std::vector<Tree::Child>> children_{1};
  std::vector<std::string> type_names_;
  std::vector<PathComponent> labels_;
};

template <typename T>
T number_at(std::span<const std::byte> bytes, std::size_t offset) {
  T value{};
  std::memcpy(&value, bytes.data() + offset, sizeof(value));
  return value;
}

}  // namespace

Result<StoredItem> StoredItem::read(const StepReader& reader, std::string_view name,
                                    const std::string& subtree) {
  StoredItem item;
  item.where = fmt::format("step {} item '{}'", reader.record().save.step, printable(name));
  item.name = name;
  const LeafPath below = STEPSTONE_TRY_CONTEXT(parse_path(subtree), item.where);
  // Only a path that could be stored can be one of a leaf, which is found by its own record.
  const Result<std::string> encoded = encode_path(below);
  if (!below.empty() && encoded) {
    Result<StoredLeaf> leaf = reader.read_leaf(name, *encoded);
    if (leaf) {
      item.record.structure = leaf_structure();
      item.leaves.push_back(*std::move(leaf));
      item.skeleton = Tree(std::int64_t{0});
      return item;
    }
    if (leaf.error().code != ErrorCode::kNotFound) return tl::unexpected<Error>(leaf.error());
  }
  item.record = STEPSTONE_TRY(reader.read_item(name, below));
  item.leaves = STEPSTONE_TRY(reader.read_leaves(name, below, &item.record.structure));
  std::string prefix;
  for (const PathComponent& component : below) append_component(prefix, component);
  item.skeleton =
      STEPSTONE_TRY_CONTEXT(SkeletonBuilder(item, std::move(prefix)).build(), item.where);
  return item;
}

const LeafRecord& StoredItem::record_of(const Tree& leaf) const {
  return leaves[static_cast<std::size_t>(*leaf.get_if<std::int64_t>())].record;
}

Leaf abstract_leaf(const LeafRecord& record) {
  switch (record.kind) {
    case LeafKind::kArray:
      return AbstractArray{*record.dtype, record.shape};
    case LeafKind::kNone:
      return None{};
    case LeafKind::kBool:
      return false;
    case LeafKind::kInt64:
      return std::int64_t{0};
    case LeafKind::kBigInteger:
      return BigInteger{"0"};
    case LeafKind::kFloat64:
      return 0.0;
    case LeafKind::kComplex128:
      return std::complex<double>();
    case LeafKind::kString:
      return std::string();
    case LeafKind::kBytes:
      return Bytes{};
  }
  return Placeholder{};
}

Result<Leaf> decode_value(const LeafRecord& record, std::span<const std::byte> bytes) {
  const auto text = [&] {
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  switch (record.kind) {
    case LeafKind::kArray:
      break;
    case LeafKind::kNone:
      return Leaf(None{});
    case LeafKind::kBool:
      if (bytes[0] > std::byte{1}) return fail(ErrorCode::kCorrupt, "a bool is 0 or 1");
      return Leaf(bytes[0] == std::byte{1});
    case LeafKind::kInt64:
      return Leaf(number_at<std::int64_t>(bytes, 0));
    case LeafKind::kBigInteger: {
      std::string decimal = text();
      if (!is_decimal(decimal)) return fail(ErrorCode::kCorrupt, "a big integer is digits");
      return Leaf(BigInteger{std::move(decimal)});
    }
    case LeafKind::kFloat64:
      return Leaf(number_at<double>(bytes, 0));
    case LeafKind::kComplex128:
      return Leaf(std::complex<double>(number_at<double>(bytes, 0), number_at<double>(bytes, 8)));
    case LeafKind::kString: {
      std::string value = text();
      if (!is_utf8(value)) return fail(ErrorCode::kCorrupt, "a string is UTF-8");
      return Leaf(std::move(value));
    }
    case LeafKind::kBytes:
      return Leaf(Bytes{text()});
  }
  return fail(ErrorCode::kUnsupported, "unknown kind of leaf");
}

}  // namespace stepstone
