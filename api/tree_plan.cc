// Saving flattens the tree into its structure and one source of bytes per leaf; for a save in the
// background, the sources of borrowed arrays are then moved to copies.
#include "api/tree_plan.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <optional>

#include "api/cast_source.h"
#include "api/leaf_bytes.h"
#include "format/limits.h"

namespace stepstone {

// An array's bytes: as the caller has them, or from the time of stage() a copy.
class ArraySource final : public LeafSource {
 public:
  explicit ArraySource(Array array) : array_(std::move(array)) {}

  Result<std::span<const std::byte>> read(std::uint64_t offset, std::size_t size,
                                          std::span<std::byte> scratch) const override {
    if (copy_ != nullptr) return copy_->view(copy_offset_ + offset, size, scratch);
    if (array_.is_contiguous()) {
      return array_.bytes().subspan(static_cast<std::size_t>(offset), size);
    }
    array_.gather(offset, scratch.first(size));
    return scratch.first(size);
  }

  const Array& array() const { return array_; }

  // The array's bytes are in `copy` from `offset`; whatever the caller lent is let go.
  void stage(std::shared_ptr<const StagingBuffer> copy, std::uint64_t offset) {
    copy_ = std::move(copy);
    copy_offset_ = offset;
    array_ = Array();
  }

 private:
  Array array_;
  std::shared_ptr<const StagingBuffer> copy_;
  std::uint64_t copy_offset_ = 0;
};

namespace {

class StringSource final : public LeafSource {
 public:
  explicit StringSource(std::string bytes) : bytes_(std::move(bytes)) {}

  Result<std::span<const std::byte>> read(std::uint64_t offset, std::size_t size,
                                          std::span<std::byte> /*scratch*/) const override {
    return std::as_bytes(std::span(bytes_)).subspan(static_cast<std::size_t>(offset), size);
  }

 private:
  std::string bytes_;
};

struct LeafDescription {
  LeafInfo info;
  std::shared_ptr<const LeafSource> source;
  std::shared_ptr<ArraySource> borrowed;  // The source, where the caller may change its bytes.
};

LeafDescription describe_bytes(LeafKind kind, std::string bytes) {
  LeafInfo info{.kind = kind, .dtype = {}, .shape = {}, .size_bytes = bytes.size()};
  return {std::move(info), std::make_shared<StringSource>(std::move(bytes)), nullptr};
}

struct LeafDescriber {
  const SaveArgs& save_args;

  Result<LeafDescription> operator()(const None& /*none*/) const {
    return describe_bytes(LeafKind::kNone, {});
  }
  Result<LeafDescription> operator()(const Array& array) const {
    LeafInfo info{.kind = LeafKind::kArray,
                  .dtype = array.dtype(),
                  .shape = array.shape(),
                  .size_bytes = array.size_bytes()};
    auto source = std::make_shared<ArraySource>(array);
    auto borrowed = array.is_borrowed() ? source : nullptr;
    const DType to = save_args.dtype.value_or(array.dtype());
    if (to == array.dtype()) return LeafDescription{std::move(info), source, std::move(borrowed)};
    STEPSTONE_TRY(check_cast(array, to, save_args.allow_lossy_cast));
    info.dtype = to;
    info.size_bytes = STEPSTONE_TRY(array_size_bytes(to, array.shape()));
    return LeafDescription{
        std::move(info),
        std::make_shared<CastSource>(source, array.dtype(), to, array.element_count(),
                                     save_args.allow_lossy_cast),
        std::move(borrowed)};
  }
  Result<LeafDescription> operator()(const AbstractArray& /*array*/) const {
    return fail(ErrorCode::kInvalidArgument,
                "an abstract array has no bytes to save; it is for restore targets");
  }
  Result<LeafDescription> operator()(const Placeholder& /*placeholder*/) const {
    return fail(ErrorCode::kInvalidArgument,
                "a placeholder has no value to save; it is for restore targets");
  }
  Result<LeafDescription> operator()(bool value) const {
    return describe_bytes(LeafKind::kBool, std::string(1, value ? '\1' : '\0'));
  }
  Result<LeafDescription> operator()(std::int64_t value) const {
    return describe_bytes(LeafKind::kInt64, bytes_of(value));
  }
  Result<LeafDescription> operator()(const BigInteger& value) const {
    if (!is_decimal(value.decimal)) {
      return fail(ErrorCode::kInvalidArgument,
                  "a big integer must be decimal digits without leading zeros");
    }
    return describe_bytes(LeafKind::kBigInteger, value.decimal);
  }
  Result<LeafDescription> operator()(double value) const {
    return describe_bytes(LeafKind::kFloat64, bytes_of(value));
  }
  Result<LeafDescription> operator()(const std::complex<double>& value) const {
    return describe_bytes(LeafKind::kComplex128, bytes_of(value.real()) + bytes_of(value.imag()));
  }
  Result<LeafDescription> operator()(const std::string& value) const {
    if (!is_utf8(value)) {
      return fail(ErrorCode::kInvalidArgument, "the string is not UTF-8; save it as Bytes");
    }
    return describe_bytes(LeafKind::kString, value);
  }
  Result<LeafDescription> operator()(const Bytes& value) const {
    return describe_bytes(LeafKind::kBytes, value.bytes);
  }
};

// Takes a tree apart.
class Flattener {
 public:
  struct FlatLeaf {
    std::string encoded_path;
    const Leaf* leaf;
  };

  Result<void> flatten(const Tree& tree) {
    STEPSTONE_TRY(add(tree));
    // Labels, depth, counts: one place knows the rules.
    return visit(structure_, {}).map_error([](Error error) {
      if (error.code == ErrorCode::kCorrupt) error.code = ErrorCode::kInvalidArgument;
      return error;
    });
  }

  TreeStructure& structure() { return structure_; }
  std::vector<FlatLeaf>& leaves() { return leaves_; }

 private:
  Result<void> add(const Tree& tree) {
    structure_.kinds.push_back(tree.kind());
    const bool has_type_name =
        tree.kind() == NodeKind::kNamedTuple || tree.kind() == NodeKind::kCustom;
    // Neither would come back.
    if (tree.is_leaf() && !tree.children().empty()) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("'{}': a leaf has children", to_text(path_)));
    }
    if (!has_type_name && !tree.type_name().empty()) {
      return fail(
          ErrorCode::kInvalidArgument,
          fmt::format("'{}': only named tuples and custom nodes have a type name, here '{}'",
                      to_text(path_), printable(tree.type_name())));
    }
    if (tree.is_leaf()) {
      leaves_.push_back({STEPSTONE_TRY(encode_path(path_)), &tree.leaf()});
      return {};
    }
    if (path_.size() == limits::kDepthMax) {
      return fail(ErrorCode::kLimit, fmt::format("'{}': the tree is nested deeper than {}",
                                                 to_text(path_), limits::kDepthMax));
    }
    const bool is_sequence = tree.kind() == NodeKind::kList || tree.kind() == NodeKind::kTuple;
    structure_.child_counts.push_back(static_cast<std::uint32_t>(tree.children().size()));
    if (has_type_name) {
      structure_.type_indices.push_back(type_index(tree.type_name()));
    }
    std::uint32_t position = 0;
    for (const Tree::Child& child : tree.children()) {
      STEPSTONE_TRY(check_component(child.label));
      if (is_sequence && child.label != PathComponent::index(position)) {
        return fail(ErrorCode::kInvalidArgument,
                    fmt::format("'{}': child {} of a sequence has another label", to_text(path_),
                                position));
      }
      if (!is_sequence) append_component(structure_.labels, child.label);
      path_.push_back(child.label);
      STEPSTONE_TRY(add(child.tree));
      path_.pop_back();
      ++position;
    }
    return {};
  }

  std::uint32_t type_index(const std::string& name) {
    const auto [entry, is_new] =
        type_indices_.try_emplace(name, static_cast<std::uint32_t>(structure_.type_names.size()));
    if (is_new) structure_.type_names.push_back(name);
    return entry->second;
  }

  TreeStructure structure_;
  std::vector<FlatLeaf> leaves_;
  LeafPath path_;
  std::map<std::string, std::uint32_t> type_indices_;
};

// Copies a range of an array that the trainer will not read again soon.
void copy_range(const Array& array, std::uint64_t offset, std::span<std::byte> destination) {
  if (array.is_contiguous()) {
    copy_past_caches(destination, array.data() + offset);
  } else {
    array.gather(offset, destination);
  }
}

// Those of one leaf; the defaults where there are none.
Result<SaveArgs> args_of(const std::string& encoded_path, const PerLeaf<SaveArgs>& save_args) {
  if (save_args.empty()) return SaveArgs();
  const LeafPath path = STEPSTONE_TRY(decode_path(encoded_path));
  const SaveArgs* const found = save_args.find(path, to_text(path));
  return found == nullptr ? SaveArgs() : *found;
}

// Whoever names a node that is not there has mistyped it.
Result<void> check_paths(const PerLeaf<SaveArgs>& save_args, const Tree& tree) {
  const LeafPath* const missing = save_args.missing_from(tree);
  if (missing == nullptr) return {};
  return fail(ErrorCode::kInvalidArgument,
              fmt::format("there is no '{}' in the tree", to_text(*missing)));
}

}  // namespace

Result<TreePlan> TreePlan::make(const Tree& tree, const PerLeaf<SaveArgs>& save_args) {
  STEPSTONE_TRY_CONTEXT(check_paths(save_args, tree), "save_args");
  Flattener flat;
  STEPSTONE_TRY(flat.flatten(tree));
  TreePlan plan;
  plan.leaves_.reserve(flat.leaves().size());
  for (Flattener::FlatLeaf& leaf : flat.leaves()) {
    const SaveArgs how = STEPSTONE_TRY(args_of(leaf.encoded_path, save_args));
    LeafDescription described = STEPSTONE_TRY_CONTEXT(
        std::visit(LeafDescriber{how}, *leaf.leaf),
        fmt::format("leaf '{}'", to_text(std::string_view(leaf.encoded_path))));
    described.info.compression = how.compression;
    described.info.chunk_size_bytes = how.chunk_size_bytes;
    described.info.share = how.share.value_or(true);
    plan.size_bytes_ += described.info.size_bytes;
    if (described.borrowed != nullptr) plan.borrowed_.push_back(std::move(described.borrowed));
    plan.leaves_.push_back(
        {std::move(leaf.encoded_path), std::move(described.info), std::move(described.source)});
  }
  plan.leaf_count_ = plan.leaves_.size();
  plan.structure_ = std::move(flat.structure());
  return plan;
}

namespace {

// What the first rule says that matches; nullopt: none does.
std::optional<Compression> rule_for(const std::string& encoded_path,
                                    const std::vector<CompressionRule>& rules) {
  const std::string path = to_text(std::string_view(encoded_path));
  for (const CompressionRule& rule : rules) {
    if (fnmatch(rule.pattern.c_str(), path.c_str(), 0) == 0) return rule.compression;
  }
  return std::nullopt;
}

}  // namespace

Result<void> TreePlan::put(StepWriter& writer, std::string_view item, std::string_view handler,
                           const std::vector<CompressionRule>& rules, std::string custom_metadata) {
  STEPSTONE_TRY(writer.put_item(std::string(item), std::string(handler), std::move(structure_),
                                std::move(custom_metadata)));
  for (PlannedLeaf& leaf : leaves_) {
    if (!rules.empty() && !leaf.info.compression) {
      leaf.info.compression = rule_for(leaf.encoded_path, rules);
    }
    STEPSTONE_TRY(writer.put_leaf(item, std::move(leaf.encoded_path), std::move(leaf.info),
                                  std::move(leaf.source)));
  }
  leaves_ = {};
  return {};
}

Result<std::uint64_t> TreePlan::stage(std::span<TreePlan* const> plans, StagingPool& pool) {
  std::vector<std::shared_ptr<ArraySource>> borrowed;
  for (const TreePlan* const plan : plans) {
    borrowed.insert(borrowed.end(), plan->borrowed_.begin(), plan->borrowed_.end());
  }
  std::vector<std::uint64_t> offsets;
  offsets.reserve(borrowed.size());
  std::uint64_t end = 0;
  std::uint64_t copied_bytes = 0;
  for (const auto& source : borrowed) {
    constexpr std::uint64_t kAlignment = StagingPool::kAlignmentBytes;
    const std::uint64_t size = source->array().size_bytes();
    // An array that repeats its elements can have any size.
    if (size > std::numeric_limits<std::uint64_t>::max() - end - kAlignment) {
      return fail(ErrorCode::kLimit, "the arrays to be copied have more than 2^64 bytes");
    }
    offsets.push_back(end);
    end += (size + kAlignment - 1) / kAlignment * kAlignment;
    copied_bytes += size;
  }
  if (end == 0) return copied_bytes;
  const std::shared_ptr<StagingBuffer> copy = STEPSTONE_TRY(pool.allocate(end));
  // A piece holds part of a large array or many small ones: threads share the bytes evenly.
  STEPSTONE_TRY(copy->fill([&](std::uint64_t begin, std::span<std::byte> piece) -> Result<void> {
    const std::uint64_t stop = begin + piece.size();
    auto index = static_cast<std::size_t>(std::upper_bound(offsets.begin(), offsets.end(), begin) -
                                          offsets.begin() - 1);
    for (; index < offsets.size() && offsets[index] < stop; ++index) {
      const Array& array = borrowed[index]->array();
      const std::uint64_t from = std::max(begin, offsets[index]);
      const std::uint64_t to = std::min(stop, offsets[index] + array.size_bytes());
      if (from >= to) continue;
      copy_range(array, from - offsets[index],
                 piece.subspan(static_cast<std::size_t>(from - begin),
                               static_cast<std::size_t>(to - from)));
    }
    return {};
  }));
  for (std::size_t i = 0; i < borrowed.size(); ++i) borrowed[i]->stage(copy, offsets[i]);
  for (TreePlan* const plan : plans) plan->borrowed_.clear();
  return copied_bytes;
}

Result<void> put_tree(StepWriter& writer, std::string_view item, const Tree& tree,
                      const std::vector<CompressionRule>& rules) {
  TreePlan plan =
      STEPSTONE_TRY_CONTEXT(TreePlan::make(tree), fmt::format("item '{}'", printable(item)));
  return plan.put(writer, item, "standard", rules);
}

}  // namespace stepstone
