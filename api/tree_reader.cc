// Restoring takes three passes: the tree is built from the structure and the leaf records with
// every array allocated but empty; then the bytes of all leaves are read at once, in parallel; then
// what a target asks for is cast into place.
#include "api/tree_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <optional>

#include "api/cast.h"
#include "api/leaf_bytes.h"
#include "engine/huge_memory.h"

namespace stepstone {
namespace {

double seconds_since(std::chrono::steady_clock::time_point begun) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
}

// Reads the leaves of an item into a tree.
class TreeReader {
 public:
  TreeReader(const StepReader& reader, std::string_view item) : reader_(reader), item_(item) {}

  Result<Tree> read() {
    const ItemRecord item = STEPSTONE_TRY(reader_.read_item(item_));
    leaves_ = STEPSTONE_TRY(reader_.read_leaves(item_));
    buffers_.resize(leaves_.size());
    Tree tree = STEPSTONE_TRY(build(item.structure));
    if (order_.size() != leaves_.size()) {
      return fail(
          ErrorCode::kCorrupt,
          fmt::format("step {} item '{}': {} leaves are stored, its tree has {}",
                      reader_.record().save.step, printable(item_), leaves_.size(), order_.size()));
    }
    STEPSTONE_TRY(read_bytes());
    STEPSTONE_TRY(fill(tree));
    return tree;
  }

  std::uint64_t leaf_count() const { return leaves_.size(); }
  std::uint64_t size_bytes() const {
    std::uint64_t size = 0;
    for (const StoredLeaf& leaf : leaves_) size += leaf.record.size_bytes;
    return size;
  }

 private:
  std::string name_of(std::size_t index) const {
    return fmt::format("step {} item '{}' leaf '{}'", reader_.record().save.step, printable(item_),
                       to_text(leaves_[index].encoded_path));
  }

  Result<std::size_t> find(const std::string& encoded_path) const {
    const auto found = std::lower_bound(
        leaves_.begin(), leaves_.end(), encoded_path,
        [](const StoredLeaf& leaf, const std::string& path) { return leaf.encoded_path < path; });
    if (found == leaves_.end() || found->encoded_path != encoded_path) {
      return fail(ErrorCode::kCorrupt,
                  fmt::format("step {} item '{}' leaf '{}': its record is gone",
                              reader_.record().save.step, printable(item_), to_text(encoded_path)));
    }
    return static_cast<std::size_t>(found - leaves_.begin());
  }

  // The containers, with a None for every leaf; order_ says which leaf comes where.
  Result<Tree> build(const TreeStructure& structure) {
    Tree root;
    std::vector<Tree*> open;
    std::vector<std::vector<Tree::Child>> children(1);
    std::vector<std::pair<NodeKind, std::string>> kinds;
    std::vector<PathComponent> labels;
    const auto enter = [&](NodeKind kind, const PathComponent* label, std::string_view type_name,
                           std::uint32_t /*child_count*/) -> Result<void> {
      labels.push_back(label == nullptr ? PathComponent() : *label);
      if (kind == NodeKind::kLeaf) return {};
      kinds.emplace_back(kind, type_name);
      children.emplace_back();
      return {};
    };
    const auto leaf = [&](const std::string& path) -> Result<void> {
      order_.push_back(STEPSTONE_TRY(find(path)));
      children.back().push_back({std::move(labels.back()), Tree()});
      labels.pop_back();
      return {};
    };
    const auto leave = [&](NodeKind kind) -> Result<void> {
      Tree tree = Tree::container(kind, std::move(kinds.back().second), std::move(children.back()));
      kinds.pop_back();
      children.pop_back();
      children.back().push_back({std::move(labels.back()), std::move(tree)});
      labels.pop_back();
      return {};
    };
    STEPSTONE_TRY(visit(structure, {.enter = enter, .leaf = leaf, .leave = leave}));
    return std::move(children.front().front().tree);
  }

  Result<void> read_bytes() {
    std::vector<ReadRequest> requests;
    for (std::size_t i = 0; i < leaves_.size(); ++i) {
      const auto size = static_cast<std::size_t>(leaves_[i].record.size_bytes);
      buffers_[i] = allocate_huge(size);
      requests.push_back({item_, &leaves_[i], {buffers_[i].get(), size}});
    }
    return reader_.read_all(requests);
  }

  Result<void> fill(Tree& tree) {
    if (tree.is_leaf()) {
      const std::size_t index = order_[next_leaf_++];
      tree = Tree(STEPSTONE_TRY_CONTEXT(decode(index), name_of(index)));
      return {};
    }
    for (Tree::Child& child : tree.children()) STEPSTONE_TRY(fill(child.tree));
    return {};
  }

  Result<Leaf> decode(std::size_t index) {
    const LeafRecord& record = leaves_[index].record;
    const std::span<const std::byte> bytes(buffers_[index].get(),
                                           static_cast<std::size_t>(record.size_bytes));
    const auto text = [&] {
      return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    };
    const auto number_at = [&]<typename T>(std::size_t offset, T value) {
      std::memcpy(&value, bytes.data() + offset, sizeof(value));
      return value;
    };
    switch (record.kind) {
      case LeafKind::kArray:
        return Leaf(
            STEPSTONE_TRY(Array::adopt(*record.dtype, record.shape, std::move(buffers_[index]))));
      case LeafKind::kNone:
        return Leaf(None{});
      case LeafKind::kBool:
        if (bytes[0] > std::byte{1}) return fail(ErrorCode::kCorrupt, "a bool is 0 or 1");
        return Leaf(bytes[0] == std::byte{1});
      case LeafKind::kInt64:
        return Leaf(number_at(0, std::int64_t{}));
      case LeafKind::kBigInteger: {
        std::string decimal = text();
        if (!is_decimal(decimal)) return fail(ErrorCode::kCorrupt, "a big integer is digits");
        return Leaf(BigInteger{std::move(decimal)});
      }
      case LeafKind::kFloat64:
        return Leaf(number_at(0, double{}));
      case LeafKind::kComplex128:
        return Leaf(std::complex<double>(number_at(0, double{}), number_at(8, double{})));
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

  const StepReader& reader_;
  std::string item_;
  std::vector<StoredLeaf> leaves_;  // Sorted by path.
  std::vector<std::shared_ptr<std::byte[]>> buffers_;
  std::vector<std::size_t> order_;  // Index into leaves_ of each leaf in the tree's order.
  std::size_t next_leaf_ = 0;
};

// A scalar or array leaf as an array; nullopt for anything else.
std::optional<Array> as_array(const Leaf& leaf) {
  const auto scalar = [](DType dtype, const std::string& bytes) {
    // A scalar of 16 bytes at most is always within the limits.
    return *Array::copy_bytes(dtype, {}, std::as_bytes(std::span(bytes)));
  };
  if (const auto* array = std::get_if<Array>(&leaf)) return *array;
  if (const auto* value = std::get_if<bool>(&leaf)) return scalar(DType::kBool, bytes_of(*value));
  if (const auto* value = std::get_if<std::int64_t>(&leaf)) {
    return scalar(DType::kInt64, bytes_of(*value));
  }
  if (const auto* value = std::get_if<double>(&leaf)) {
    return scalar(DType::kFloat64, bytes_of(*value));
  }
  if (const auto* value = std::get_if<std::complex<double>>(&leaf)) {
    return scalar(DType::kComplex128, bytes_of(*value));
  }
  return std::nullopt;
}

std::string describe(const Leaf& leaf) {
  struct Describer {
    std::string operator()(const Array& array) const {
      return fmt::format("an array {} {}", to_string(array.dtype()), to_string(array.shape()));
    }
    std::string operator()(const AbstractArray& array) const {
      return fmt::format("an array {} {}", to_string(array.dtype), to_string(array.shape));
    }
    std::string operator()(const None& /*none*/) const { return "None"; }
    std::string operator()(const Placeholder& /*leaf*/) const { return "a placeholder"; }
    std::string operator()(bool /*value*/) const { return "a bool"; }
    std::string operator()(std::int64_t /*value*/) const { return "an int"; }
    std::string operator()(const BigInteger& /*value*/) const { return "a big int"; }
    std::string operator()(double /*value*/) const { return "a float"; }
    std::string operator()(const std::complex<double>& /*value*/) const { return "a complex"; }
    std::string operator()(const std::string& /*value*/) const { return "a string"; }
    std::string operator()(const Bytes& /*value*/) const { return "bytes"; }
  };
  return std::visit(Describer{}, leaf);
}

// Puts the stored leaf into the form of the target leaf.
Result<Leaf> fit_leaf(const Leaf& stored, const Leaf& target) {
  const auto mismatch = [&] {
    return fail(ErrorCode::kMismatch, fmt::format("the checkpoint has {}, the target asks for {}",
                                                  describe(stored), describe(target)));
  };
  const auto* const concrete = std::get_if<Array>(&target);
  const auto* const abstract = std::get_if<AbstractArray>(&target);
  const bool wants_array = concrete != nullptr || abstract != nullptr;
  const std::optional<Array> wanted_scalar = wants_array ? std::nullopt : as_array(target);
  if (!wants_array && !wanted_scalar) {
    if (stored.index() != target.index()) return mismatch();
    return stored;
  }
  const std::optional<Array> source = as_array(stored);
  if (!source) return mismatch();
  const std::vector<std::uint64_t> no_axes;
  const std::vector<std::uint64_t>& shape = concrete != nullptr   ? concrete->shape()
                                            : abstract != nullptr ? abstract->shape
                                                                  : no_axes;
  if (source->shape() != shape) return mismatch();
  const DType dtype = concrete != nullptr   ? concrete->dtype()
                      : abstract != nullptr ? abstract->dtype
                                            : wanted_scalar->dtype();
  Array array = STEPSTONE_TRY(cast(*source, dtype));
  if (wants_array) return Leaf(std::move(array));
  const std::byte* const data = array.data();
  double parts[2] = {};
  std::int64_t integer = 0;
  switch (dtype) {
    case DType::kBool:
      return Leaf(data[0] != std::byte{0});
    case DType::kInt64:
      std::memcpy(&integer, data, sizeof(integer));
      return Leaf(integer);
    case DType::kFloat64:
      std::memcpy(parts, data, sizeof(double));
      return Leaf(parts[0]);
    default:
      std::memcpy(parts, data, sizeof(parts));
      return Leaf(std::complex<double>(parts[0], parts[1]));
  }
}

// Lays a stored tree into a target: walks both, and collects every difference instead of stopping
// at the first, because whoever renamed a layer wants to see all of it.
class Fitter {
 public:
  Result<Tree> fit(Tree stored, const Tree& target, std::string_view where) {
    Tree result = fit_node(std::move(stored), target);
    if (failure_) return tl::unexpected<Error>(with_context(*std::move(failure_), where));
    if (differences_.empty()) return result;
    constexpr std::size_t kShown = 5;
    std::string text;
    for (std::size_t i = 0; i < std::min(kShown, differences_.size()); ++i) {
      text += (i == 0 ? "" : "; ") + differences_[i];
    }
    if (differences_.size() > kShown) {
      text += fmt::format("; and {} more", differences_.size() - kShown);
    }
    return fail(ErrorCode::kMismatch, fmt::format("{} does not fit the target: {}", where, text));
  }

 private:
  void differ(std::string what) {
    differences_.push_back(fmt::format("leaf '{}': {}", to_text(path_), what));
  }

  Tree fit_node(Tree stored, const Tree& target) {
    if (stored.kind() != target.kind()) {
      differ(fmt::format("the checkpoint has a {}, the target a {}", to_string(stored.kind()),
                         to_string(target.kind())));
      return {};
    }
    if (target.is_leaf()) {
      Result<Leaf> leaf = fit_leaf(stored.leaf(), target.leaf());
      if (!leaf) {
        if (leaf.error().code == ErrorCode::kMismatch) {
          differ(leaf.error().message);
        } else if (!failure_) {
          failure_ =
              with_context(std::move(leaf).error(), fmt::format("leaf '{}'", to_text(path_)));
        }
        return {};
      }
      return Tree(*std::move(leaf));
    }
    if (stored.type_name() != target.type_name()) {
      differ(fmt::format("the checkpoint has a '{}', the target a '{}'",
                         printable(stored.type_name()), printable(target.type_name())));
      return {};
    }
    return fit_children(std::move(stored), target);
  }

  Tree fit_children(Tree stored, const Tree& target) {
    std::map<PathComponent, Tree> by_label;
    for (Tree::Child& child : stored.children()) {
      by_label.emplace(std::move(child.label), std::move(child.tree));
    }
    std::vector<Tree::Child> children;
    for (const Tree::Child& wanted : target.children()) {
      path_.push_back(wanted.label);
      auto found = by_label.extract(wanted.label);
      if (found.empty()) {
        differ("it is in the target, but not in the checkpoint");
      } else {
        children.push_back({wanted.label, fit_node(std::move(found.mapped()), wanted.tree)});
      }
      path_.pop_back();
    }
    for (const auto& [label, tree] : by_label) {
      path_.push_back(label);
      differ("it is in the checkpoint, but not in the target");
      path_.pop_back();
    }
    return Tree::container(target.kind(), target.type_name(), std::move(children));
  }

  LeafPath path_;
  std::vector<std::string> differences_;
  std::optional<Error> failure_;  // The first that is not about the target: no memory for a cast.
};

}  // namespace

Result<Tree> read_tree(const StepReader& reader, std::string_view item,
                       const args::PyTreeRestore& args, RestoreStatistics* statistics) {
  const Tree* const target = args.item ? &*args.item : nullptr;
  const auto begun = std::chrono::steady_clock::now();
  TreeReader tree_reader(reader, item);
  Tree stored = STEPSTONE_TRY(tree_reader.read());
  if (statistics != nullptr) {
    statistics->size_bytes += tree_reader.size_bytes();
    statistics->leaf_count += tree_reader.leaf_count();
    statistics->read_s += seconds_since(begun);
  }
  if (target == nullptr) return stored;
  const auto read = std::chrono::steady_clock::now();
  Result<Tree> fitted =
      Fitter().fit(std::move(stored), *target,
                   fmt::format("step {} item '{}'", reader.record().save.step, printable(item)));
  if (statistics != nullptr) statistics->cast_s += seconds_since(read);
  return fitted;
}

Result<ItemMetadata> read_metadata(const StepReader& reader, std::string_view item) {
  const ItemRecord record = STEPSTONE_TRY(reader.read_item(item));
  return ItemMetadata{.handler = record.handler};
}

}  // namespace stepstone
