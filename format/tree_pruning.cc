#include <algorithm>
#include <unordered_map>

#include "format/tree_structure.h"

namespace stepstone {
namespace {

bool is_sequence(NodeKind kind) { return kind == NodeKind::kList || kind == NodeKind::kTuple; }

// Copies nodes while the structure is walked, and takes a container back when it turns out to have
// lost all its leaves.
class Pruning {
 public:
  using Keep = std::function<Result<bool>(const std::string& encoded_path)>;

  explicit Pruning(const Keep& keep) : keep_(keep) {}

  Result<std::optional<TreeStructure>> run(const TreeStructure& structure) {
    const auto enter = [&](NodeKind kind, const PathComponent* label, std::string_view type_name,
                           std::uint32_t /*child_count*/) -> Result<void> {
      open_.push_back({.kind = kind, .begin = sizes()});
      if (label != nullptr && !is_sequence(open_[open_.size() - 2].kind)) {
        append_component(result_.labels, *label);
      }
      result_.kinds.push_back(kind);
      if (kind == NodeKind::kLeaf) return {};
      result_.child_counts.push_back(0);
      if (kind == NodeKind::kNamedTuple || kind == NodeKind::kCustom) add_type(type_name);
      return {};
    };
    const auto leaf = [&](const std::string& encoded_path) -> Result<void> {
      (STEPSTONE_TRY(keep_(encoded_path)) ? open_.back().has_kept : open_.back().has_lost) = true;
      return close(encoded_path);
    };
    const auto leave = [&](NodeKind /*kind*/) -> Result<void> { return close({}); };
    STEPSTONE_TRY(visit(structure, {.enter = enter, .leaf = leaf, .leave = leave}));
    if (result_.kinds.empty()) return std::nullopt;
    drop_unused_types();
    return std::move(result_);
  }

 private:
  struct Sizes {
    std::size_t kinds;
    std::size_t child_counts;
    std::size_t type_indices;
    std::size_t labels;
  };
  struct OpenNode {
    NodeKind kind;
    Sizes begin;
    bool has_kept = false;  // A leaf, here or below.
    bool has_lost = false;  // The same.
    bool has_gap = false;   // A child was left out.
  };

  Sizes sizes() const {
    return {result_.kinds.size(), result_.child_counts.size(), result_.type_indices.size(),
            result_.labels.size()};
  }

  // The innermost node is complete: it stays or goes.
  Result<void> close(std::string_view encoded_path) {
    const OpenNode node = open_.back();
    open_.pop_back();
    OpenNode* const parent = open_.empty() ? nullptr : &open_.back();
    const bool would_move = parent != nullptr && parent->has_gap && is_sequence(parent->kind);
    // One that never had a leaf stays with its parent, where it can.
    const bool is_left_out = !node.has_kept && (node.has_lost || would_move);
    if (!is_left_out && would_move) {
      return fail(ErrorCode::kInvalidArgument,
                  "the children of a list or tuple can only be left out from its end on" +
                      (encoded_path.empty() ? std::string()
                                            : ", and '" + to_text(encoded_path) + "' stays"));
    }
    if (is_left_out) {
      result_.kinds.resize(node.begin.kinds);
      result_.child_counts.resize(node.begin.child_counts);
      result_.type_indices.resize(node.begin.type_indices);
      result_.labels.resize(node.begin.labels);
    }
    if (parent == nullptr) return {};
    parent->has_kept = parent->has_kept || node.has_kept;
    parent->has_lost = parent->has_lost || node.has_lost;
    parent->has_gap = parent->has_gap || is_left_out;
    if (!is_left_out) ++result_.child_counts[parent->begin.child_counts];
    return {};
  }

  void add_type(std::string_view name) {
    const auto [entry, is_new] =
        types_.emplace(std::string(name), static_cast<std::uint32_t>(result_.type_names.size()));
    if (is_new) result_.type_names.emplace_back(name);
    result_.type_indices.push_back(entry->second);
  }

  void drop_unused_types() {
    std::vector<std::string> names;
    std::unordered_map<std::uint32_t, std::uint32_t> numbers;
    for (std::uint32_t& type : result_.type_indices) {
      const auto [entry, is_new] = numbers.emplace(type, static_cast<std::uint32_t>(names.size()));
      if (is_new) names.push_back(result_.type_names[type]);
      type = entry->second;
    }
    result_.type_names = std::move(names);
  }

  const Keep& keep_;
  TreeStructure result_;
  std::vector<OpenNode> open_;
  std::unordered_map<std::string, std::uint32_t> types_;
};

}  // namespace

Result<std::optional<TreeStructure>> prune(
    const TreeStructure& structure,
    const std::function<Result<bool>(const std::string& encoded_path)>& keep) {
  return Pruning(keep).run(structure);
}

}  // namespace stepstone
