#include "api/tree_match.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <regex>
#include <set>
#include <string_view>
#include <unordered_map>

namespace stepstone {

void Differences::add(const std::string& leaf, std::string_view what) {
  differences_.push_back(fmt::format("leaf '{}': {}", leaf, what));
}

Result<void> Differences::check(std::string_view where) const {
  if (differences_.empty()) return {};
  constexpr std::size_t kShown = 5;
  std::string text;
  for (std::size_t i = 0; i < std::min(kShown, differences_.size()); ++i) {
    text += (i == 0 ? "" : "; ") + differences_[i];
  }
  if (differences_.size() > kShown)
    text += fmt::format("; and {} more", differences_.size() - kShown);
  return fail(ErrorCode::kMismatch, fmt::format("{} does not fit the target: {}", where, text));
}

LeafPath NodePlaces::path(std::size_t place) const {
  LeafPath path;
  for (; place != kRoot; place = places_[place].container) path.push_back(*places_[place].label);
  std::reverse(path.begin(), path.end());
  return path;
}

namespace {

std::size_t number_of(const Tree& leaf) {
  return static_cast<std::size_t>(*leaf.get_if<std::int64_t>());
}

// Whether a target's leaf is a value that can be kept.
bool has_value(const Leaf& leaf) {
  return !std::holds_alternative<AbstractArray>(leaf) && !std::holds_alternative<Placeholder>(leaf);
}

// A transform, ready to be matched.
struct Rule {
  const Transform* transform;
  std::size_t number;  // Among all transforms: the first that matches decides.
  std::regex pattern;
};

// A transform that matches a leaf's path.
struct RuleMatch {
  const Transform* transform = nullptr;
  std::size_t number = 0;
  std::smatch groups;     // Of a pattern.
  std::string_view rest;  // Of a path: what stands below it.

  std::string source(const std::string& path) const {
    return transform->is_path ? path + std::string(rest) : groups.format(path);
  }
};

class Matcher {
 public:
  Matcher(StoredItem& item, const args::PyTreeRestore& args) : item_(item), args_(args) {}

  Result<TreeMatch> match() {
    Tree& root = item_.skeleton;
    match_.places.reserve(item_.leaves.size());
    match_.leaves.reserve(item_.leaves.size());
    match_.sources.reserve(item_.leaves.size());
    if (!args_.transforms.empty()) {
      STEPSTONE_TRY(compile());
      match_.result = *args_.target();
      STEPSTONE_TRY(transform_node(root, *args_.target()));
    } else if (args_.target() != nullptr) {
      match_.result = match_node(root, *args_.target());
    } else {
      take_all(root);
      match_.result = std::move(root);  // The labels stay where they are. Nothing is dropped.
      return std::move(match_);
    }
    STEPSTONE_TRY(differences_.check(item_.where));
    if (args_.report != nullptr) list_dropped(root);
    return std::move(match_);
  }

 private:
  void differ(std::string_view what) { differences_.add(to_text(path()), what); }
  void differ_below(const PathComponent& label, std::string_view what) {
    LeafPath path = this->path();
    path.push_back(label);
    differences_.add(to_text(path), what);
  }

  // To the node that is looked at and back; the label must last.
  void enter(const PathComponent& label) { place_ = match_.places.add(place_, label); }
  void leave() { place_ = match_.places.container_of(place_); }
  LeafPath path() const { return match_.places.path(place_); }

  LeafMatch& add_leaf(const Leaf* target) {
    match_.leaves.push_back(
        {.place = place_, .first_source = match_.sources.size(), .target = target});
    return match_.leaves.back();
  }
  // To the leaf that was added last.
  void add_source(std::size_t source) {
    match_.sources.push_back(source);
    ++match_.leaves.back().source_count;
  }

  void take_all(const Tree& stored) {
    if (stored.is_leaf()) {
      add_leaf(nullptr);
      add_source(number_of(stored));
    }
    for (const Tree::Child& child : stored.children()) {
      enter(child.label);
      take_all(child.tree);
      leave();
    }
  }

  // Whether the kinds of two containers need not be the same.
  bool is_any_container(const Tree& stored, const Tree& target) const {
    return args_.any_container && !stored.is_leaf() && !target.is_leaf();
  }

  // The stored children of a container that the target has not asked for yet.
  class StoredChildren {
   public:
    explicit StoredChildren(const Tree& stored) : children_(stored.children()) {}

    const std::map<PathComponent, const Tree*>& rest() {
      index();
      return by_label_;
    }

    const Tree* take(const PathComponent& label) {
      // As a rule the target has the order of what was saved.
      if (!is_indexed_ && next_ < children_.size() && children_[next_].label == label) {
        return &children_[next_++].tree;
      }
      index();
      const auto found = by_label_.extract(label);
      return found.empty() ? nullptr : found.mapped();
    }

    // The first whose label reads the same.
    const Tree* take_reading(const PathComponent& wanted) {
      if (by_reading_.empty()) {
        index();
        for (const auto& [label, tree] : by_label_) by_reading_[reading_of(label)].push_back(label);
      }
      const auto same = by_reading_.find(reading_of(wanted));
      if (same == by_reading_.end()) return nullptr;
      for (const PathComponent& label : same->second) {
        if (const Tree* const found = take(label)) return found;
      }
      return nullptr;
    }

   private:
    void index() {
      is_indexed_ = true;
      for (; next_ < children_.size(); ++next_) {
        by_label_.emplace(children_[next_].label, &children_[next_].tree);
      }
    }

    const std::vector<Tree::Child>& children_;
    std::size_t next_ = 0;  // Those before it are taken, or in by_label_.
    bool is_indexed_ = false;
    std::map<PathComponent, const Tree*> by_label_;
    std::unordered_map<std::string, std::vector<PathComponent>> by_reading_;
  };

  // The stored child for a label of the target: that of the label itself, or, where containers need
  // not be of one kind, the first whose label reads the same.
  const Tree* take_child(StoredChildren& children, const PathComponent& wanted) const {
    const Tree* const found = children.take(wanted);
    return found != nullptr || !args_.any_container ? found : children.take_reading(wanted);
  }

  static std::string reading_of(const PathComponent& label) {
    const bool is_number =
        label.kind == PathComponent::Kind::kIndex || label.kind == PathComponent::Kind::kIntegerKey;
    return is_number ? std::to_string(label.number) : label.name;
  }

  // Whether both are integers, of which one is beyond int64.
  bool is_any_integer(const Tree& stored, const Tree& target) const {
    if (!args_.any_container) return false;
    const LeafKind kind = item_.leaves[number_of(stored)].record.kind;
    return (kind == LeafKind::kBigInteger && target.get_if<std::int64_t>() != nullptr) ||
           (kind == LeafKind::kInt64 && target.get_if<BigInteger>() != nullptr);
  }

  Tree match_node(const Tree& stored, const Tree& target) {
    if (!stored.is_leaf() && target.get_if<Placeholder>() != nullptr) {
      add_leaf(&target.leaf());  // Without sources: nothing below is read.
      return target;
    }
    if (stored.kind() != target.kind() && !is_any_container(stored, target)) {
      differ(fmt::format("the checkpoint has a {}, the target a {}", to_string(stored.kind()),
                         to_string(target.kind())));
      return {};
    }
    if (target.is_leaf()) {
      const Leaf* const wanted = is_any_integer(stored, target) ? nullptr : &target.leaf();
      add_leaf(wanted);
      add_source(number_of(stored));
      return {};  // It will be filled in.
    }
    if (stored.type_name() != target.type_name() && !args_.any_container) {
      differ(fmt::format("the checkpoint has a '{}', the target a '{}'",
                         printable(stored.type_name()), printable(target.type_name())));
      return {};
    }
    return match_children(stored, target);
  }

  Tree match_children(const Tree& stored, const Tree& target) {
    StoredChildren stored_children(stored);
    std::vector<Tree::Child> children;
    children.reserve(target.children().size());
    for (const Tree::Child& wanted : target.children()) {
      enter(wanted.label);
      if (const Tree* const found = take_child(stored_children, wanted.label)) {
        children.push_back({wanted.label, match_node(*found, wanted.tree)});
      } else if (args_.keep_missing) {
        children.push_back(wanted);
        keep(wanted.tree);
      } else {
        differ("it is in the target, but not in the checkpoint");
      }
      leave();
    }
    if (!args_.partial_restore) {
      for (const auto& entry : stored_children.rest()) {
        differ_below(entry.first, "it is in the checkpoint, but not in the target");
      }
    }
    return Tree::container(target.kind(), target.type_name(), std::move(children));
  }

  // The target's own values.
  void keep(const Tree& target) {
    if (target.is_leaf()) {
      if (!has_value(target.leaf())) {
        differ("it is not in the checkpoint, and the target has no value that could be kept");
      }
      match_.report.kept.push_back(match_.text_of(add_leaf(&target.leaf())));
    }
    for (const Tree::Child& child : target.children()) {
      enter(child.label);
      keep(child.tree);
      leave();
    }
  }

  Result<void> compile() {
    if (args_.target() == nullptr) {
      return fail(ErrorCode::kInvalidArgument, item_.where + ": transforms need a target");
    }
    for (std::size_t number = 0; number < args_.transforms.size(); ++number) {
      const Transform& transform = args_.transforms[number];
      const auto bad = [&](std::string_view why) {
        return fail(ErrorCode::kInvalidArgument, fmt::format("{}: transform '{}': {}", item_.where,
                                                             printable(transform.pattern), why));
      };
      const int source_count = (transform.original_path ? 1 : 0) +
                               (transform.use_fallback ? 1 : 0) + (transform.compute ? 1 : 0);
      if (source_count > 1) {
        return bad("only one of original_path, use_fallback and compute can be set");
      }
      if (transform.value_fn && (transform.use_fallback || transform.compute)) {
        return bad("value_fn has no stored value to work on");
      }
      if (!transform.inputs.empty() && !transform.compute) return bad("inputs without compute");
      if (transform.is_path) {
        path_rules_.emplace(transform.pattern, number);
        continue;
      }
      try {
        rules_.push_back({&transform, number, std::regex(transform.pattern)});
      } catch (const std::regex_error& error) {
        return bad(error.what());
      }
    }
    return {};
  }

  Result<void> transform_node(const Tree& root, const Tree& target) {
    if (target.is_leaf()) return transform_leaf(root, target.leaf());
    for (const Tree::Child& child : target.children()) {
      enter(child.label);
      STEPSTONE_TRY(transform_node(root, child.tree));
      leave();
    }
    return {};
  }

  Result<void> transform_leaf(const Tree& root, const Leaf& target) {
    LeafMatch& leaf = add_leaf(&target);
    const LeafPath path = match_.path_of(leaf);
    const std::string text = to_text(path);
    // The matcher of the standard library recurses with every character.
    constexpr std::size_t kPathSizeMax = 4096;
    if (text.size() > kPathSizeMax) {
      return fail(ErrorCode::kLimit,
                  fmt::format("{}: transforms do not work on paths of more than {} bytes",
                              item_.where, kPathSizeMax));
    }
    const RuleMatch rule = rule_for(path, text);
    if (rule.transform == nullptr) {
      return args_.transforms_default_to_original ? take(root, text, leaf) : fall_back(leaf);
    }
    const Transform& transform = *rule.transform;
    if (transform.use_fallback) return fall_back(leaf);
    leaf.transform = &transform;
    if (transform.compute) {
      for (const std::string& input : transform.inputs) {
        STEPSTONE_TRY(take(root, rule.source(input), leaf));
      }
      return {};
    }
    return take(root, transform.original_path ? rule.source(*transform.original_path) : text, leaf);
  }

  // `text` is the path as it is shown, and must outlive the result.
  RuleMatch rule_for(const LeafPath& path, const std::string& text) const {
    RuleMatch match;
    const std::size_t shallowest = path.empty() ? 0 : 1;
    for (std::size_t depth = shallowest; depth <= path.size() && !path_rules_.empty(); ++depth) {
      const std::string node =
          to_text(LeafPath(path.begin(), path.begin() + std::ptrdiff_t(depth)));
      const auto found = path_rules_.find(node);
      if (found == path_rules_.end()) continue;
      if (match.transform != nullptr && match.number < found->second) continue;
      match.transform = &args_.transforms[found->second];
      match.number = found->second;
      match.rest = std::string_view(text).substr(node.size());
    }
    for (const Rule& rule : rules_) {
      if (match.transform != nullptr && match.number < rule.number) break;
      if (!std::regex_match(text, match.groups, rule.pattern)) continue;
      match.transform = rule.transform;
      match.number = rule.number;
      break;
    }
    return match;
  }

  Result<void> fall_back(LeafMatch& leaf) {
    leaf.transform = nullptr;
    if (!has_value(*leaf.target)) differ("the target has no value that could be kept");
    match_.report.kept.push_back(match_.text_of(leaf));
    return {};
  }

  Result<void> take(const Tree& root, const std::string& path, LeafMatch& leaf) {
    if (by_text_.empty()) {
      root.for_each_leaf([&](const LeafPath& stored, const Leaf& number) {
        by_text_.emplace(to_text(stored), static_cast<std::size_t>(std::get<std::int64_t>(number)));
      });
    }
    // The same path can be written in more than one way.
    const LeafPath parsed = STEPSTONE_TRY_CONTEXT(parse_path(path), item_.where);
    if (const auto found = by_text_.find(to_text(parsed)); found != by_text_.end()) {
      add_source(found->second);
    } else if (args_.keep_missing) {
      match_.sources.resize(leaf.first_source);
      leaf.source_count = 0;
      return fall_back(leaf);
    } else {
      differ(fmt::format("the checkpoint has no leaf '{}'", path));
    }
    return {};
  }

  void list_dropped(const Tree& root) {
    const std::set<std::size_t> used(match_.sources.begin(), match_.sources.end());
    root.for_each_leaf([&](const LeafPath& path, const Leaf& leaf) {
      if (!used.contains(static_cast<std::size_t>(std::get<std::int64_t>(leaf)))) {
        match_.report.dropped.push_back(to_text(path));
      }
    });
  }

  StoredItem& item_;
  const args::PyTreeRestore& args_;
  std::vector<Rule> rules_;
  std::unordered_map<std::string, std::size_t> path_rules_;  // The first of each path.
  std::unordered_map<std::string, std::size_t> by_text_;  // Stored leaves, once one is looked for.
  std::size_t place_ = NodePlaces::kRoot;                 // Of the node that is looked at.
  TreeMatch match_;
  Differences differences_;
};

}  // namespace

Result<TreeMatch> match_tree(StoredItem& item, const args::PyTreeRestore& args) {
  return Matcher(item, args).match();
}

}  // namespace stepstone
