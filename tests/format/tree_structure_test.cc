#include "format/tree_structure.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <set>

#include "format/limits.h"
#include "support.h"

namespace stepstone {
namespace {

using test::Random;

// A tree built the plain way, to be compared with the walk over its structure.
struct Child;
struct Node {
  NodeKind kind = NodeKind::kLeaf;
  std::string type_name;
  std::vector<Child> children;
};
struct Child {
  PathComponent label;
  Node node;
};

bool has_labels(NodeKind kind) {
  return kind == NodeKind::kDict || kind == NodeKind::kNamedTuple || kind == NodeKind::kCustom;
}

Node random_tree(Random& random, int depth) {
  Node node;
  node.kind = depth == 0 ? NodeKind::kLeaf : static_cast<NodeKind>(1 + random.below(6));
  if (node.kind == NodeKind::kLeaf) return node;
  if (node.kind == NodeKind::kNamedTuple || node.kind == NodeKind::kCustom) {
    node.type_name = random.one_of(std::vector<std::string>{"", "Point", "ScaleByAdamState"});
  }
  std::set<PathComponent> labels;
  for (std::uint32_t i = 0, count = static_cast<std::uint32_t>(random.below(5)); i < count; ++i) {
    PathComponent label = PathComponent::index(i);
    if (node.kind == NodeKind::kDict) {
      label = random.one_in(3) ? PathComponent::key(static_cast<std::int64_t>(random.bits()))
                               : PathComponent::key(random.name());
    } else if (node.kind == NodeKind::kNamedTuple) {
      label = PathComponent::attribute(random.name());
    } else if (node.kind == NodeKind::kCustom) {
      label = random.component();
    }
    // Long names would only reach the limit of the path.
    if (label.name.size() > 100 || !labels.insert(label).second) {
      if (has_labels(node.kind)) continue;
    }
    node.children.push_back({std::move(label), random_tree(random, depth - 1)});
  }
  return node;
}

void add_to(TreeStructure& structure, const Node& node) {
  structure.kinds.push_back(node.kind);
  if (node.kind == NodeKind::kLeaf) return;
  structure.child_counts.push_back(static_cast<std::uint32_t>(node.children.size()));
  if (node.kind == NodeKind::kNamedTuple || node.kind == NodeKind::kCustom) {
    auto& names = structure.type_names;
    auto at = std::find(names.begin(), names.end(), node.type_name);
    if (at == names.end()) at = names.insert(names.end(), node.type_name);
    structure.type_indices.push_back(static_cast<std::uint32_t>(at - names.begin()));
  }
  for (const auto& [label, child] : node.children) {
    if (has_labels(node.kind)) append_component(structure.labels, label);
    add_to(structure, child);
  }
}

TreeStructure structure_of(const Node& node) {
  TreeStructure structure;
  add_to(structure, node);
  return structure;
}

// What a walk is to report, one line an event.
void add_events(std::string& events, const Node& node, const PathComponent* label, LeafPath& path) {
  events += "enter " + std::to_string(static_cast<int>(node.kind)) + " " +
            (label == nullptr ? "root" : to_text({*label})) + " '" + node.type_name + "' " +
            std::to_string(node.children.size()) + "\n";
  if (node.kind == NodeKind::kLeaf) {
    events += "leaf " + test::to_hex(encode_path(path).value()) + "\n";
    return;
  }
  for (const auto& [child_label, child] : node.children) {
    path.push_back(child_label);
    add_events(events, child, &child_label, path);
    path.pop_back();
  }
  events += "leave " + std::to_string(static_cast<int>(node.kind)) + "\n";
}

Result<std::string> walked_events(const TreeStructure& structure) {
  std::string events;
  STEPSTONE_TRY(
      visit(structure,
            {.enter = [&](NodeKind kind, const PathComponent* label, std::string_view type_name,
                          std::uint32_t child_count) -> Result<void> {
               events += "enter " + std::to_string(static_cast<int>(kind)) + " " +
                         (label == nullptr ? "root" : to_text({*label})) + " '" +
                         std::string(type_name) + "' " + std::to_string(child_count) + "\n";
               return {};
             },
             .leaf = [&](const std::string& encoded_path) -> Result<void> {
               events += "leaf " + test::to_hex(encoded_path) + "\n";
               return {};
             },
             .leave = [&](NodeKind kind) -> Result<void> {
               events += "leave " + std::to_string(static_cast<int>(kind)) + "\n";
               return {};
             }}));
  return events;
}

ErrorCode refusal(const TreeStructure& structure) {
  const auto result = visit(structure, {});
  EXPECT_FALSE(result.has_value());
  if (result) return ErrorCode::kBusy;
  EXPECT_FALSE(result.error().message.empty());
  return result.error().code;
}

// The example of the specification: {'w': leaf, 7: [leaf, ()], 'p': Point(x=leaf)}.
TreeStructure example() {
  Node point{NodeKind::kNamedTuple, "Point", {{PathComponent::attribute("x"), {}}}};
  Node list{NodeKind::kList,
            "",
            {{PathComponent::index(0), {}}, {PathComponent::index(1), {NodeKind::kTuple, "", {}}}}};
  return structure_of({NodeKind::kDict,
                       "",
                       {{PathComponent::key("w"), {}},
                        {PathComponent::key(std::int64_t{7}), list},
                        {PathComponent::key("p"), point}}});
}

TEST(TreeStructure, TheExampleOfTheSpecificationIsStoredAsItSays) {
  const TreeStructure structure = example();
  std::string kinds;
  for (const NodeKind kind : structure.kinds) kinds += static_cast<char>(kind);
  EXPECT_EQ(test::to_hex(kinds), "02010301040501");
  EXPECT_EQ(structure.child_counts, (std::vector<std::uint32_t>{3, 2, 0, 1}));
  EXPECT_EQ(structure.type_names, std::vector<std::string>{"Point"});
  EXPECT_EQ(structure.type_indices, std::vector<std::uint32_t>{0});
  EXPECT_EQ(test::to_hex(structure.labels),
            "03770001"
            "028000000000000007"
            "03700001"
            "04780001");
  std::vector<std::string> leaves;
  ASSERT_TRUE(visit(structure, {.enter = {},
                                .leaf = [&](const std::string& path) -> Result<void> {
                                  leaves.push_back(to_text(std::string_view(path)));
                                  return {};
                                },
                                .leave = {}}));
  EXPECT_EQ(leaves, (std::vector<std::string>{"w", "{7}[0]", "p/.x"}));
}

TEST(TreeStructure, AWalkReportsTheTreeThatWasStored) {
  for (const std::uint64_t seed : test::seeds(300)) {
    SCOPED_TRACE(test::trace(seed));
    Random random(seed);
    const Node tree = random_tree(random, 4);
    std::string expected;
    LeafPath path;
    add_events(expected, tree, nullptr, path);
    const auto events = walked_events(structure_of(tree));
    ASSERT_TRUE(events.has_value()) << events.error().message;
    EXPECT_EQ(*events, expected);
  }
}

TEST(TreeStructure, ATreeCanBeOneLeaf) {
  const auto events = walked_events(leaf_structure());
  EXPECT_EQ(events, "enter 1 root '' 0\nleaf 00\n");
}

TEST(TreeStructure, WhatIsMissingOrLeftOverIsRefused) {
  EXPECT_EQ(refusal({}), ErrorCode::kCorrupt);
  const std::pair<const char*, std::function<void(TreeStructure&)>> attacks[] = {
      {"a node too few", [](TreeStructure& s) { s.kinds.pop_back(); }},
      {"a node too many", [](TreeStructure& s) { s.kinds.push_back(NodeKind::kLeaf); }},
      {"a count too few", [](TreeStructure& s) { s.child_counts.pop_back(); }},
      {"a count too many", [](TreeStructure& s) { s.child_counts.push_back(0); }},
      {"a smaller count", [](TreeStructure& s) { s.child_counts[0] = 2; }},
      {"a larger count", [](TreeStructure& s) { s.child_counts[0] = 4; }},
      {"the largest count", [](TreeStructure& s) { s.child_counts[3] = 0xFFFFFFFF; }},
      {"a list of the largest count", [](TreeStructure& s) { s.child_counts[1] = 0xFFFFFFFF; }},
      {"a type index too few", [](TreeStructure& s) { s.type_indices.pop_back(); }},
      {"a type index too many", [](TreeStructure& s) { s.type_indices.push_back(0); }},
      {"a type index beyond the names", [](TreeStructure& s) { s.type_indices[0] = 1; }},
      {"no type name", [](TreeStructure& s) { s.type_names.clear(); }},
      {"a type name too many", [](TreeStructure& s) { s.type_names.emplace_back("Other"); }},
      {"no labels", [](TreeStructure& s) { s.labels.clear(); }},
      {"labels cut off", [](TreeStructure& s) { s.labels.pop_back(); }},
      {"a label too many",
       [](TreeStructure& s) { append_component(s.labels, PathComponent::key("z")); }},
      {"kind 0", [](TreeStructure& s) { s.kinds[1] = static_cast<NodeKind>(0); }},
      {"kind 7", [](TreeStructure& s) { s.kinds[1] = static_cast<NodeKind>(7); }},
      {"kind 255", [](TreeStructure& s) { s.kinds[1] = static_cast<NodeKind>(255); }},
  };
  for (const auto& [what, attack] : attacks) {
    SCOPED_TRACE(what);
    TreeStructure structure = example();
    ASSERT_TRUE(visit(structure, {}).has_value());
    attack(structure);
    EXPECT_EQ(refusal(structure), ErrorCode::kCorrupt);
  }
}

TEST(TreeStructure, SiblingsMustDiffer) {
  Node tree{NodeKind::kDict, "", {{PathComponent::key("a"), {}}, {PathComponent::key("b"), {}}}};
  EXPECT_TRUE(visit(structure_of(tree), {}).has_value());
  tree.children[1].label = PathComponent::key("a");
  EXPECT_EQ(refusal(structure_of(tree)), ErrorCode::kCorrupt);
  // The same name one level below is another place.
  tree.children[1] = {PathComponent::key("b"),
                      {NodeKind::kDict, "", {{PathComponent::key("a"), {}}}}};
  EXPECT_TRUE(visit(structure_of(tree), {}).has_value());
  // So is the same name as another kind of label.
  const Node custom{
      NodeKind::kCustom, "T", {{PathComponent::key("a"), {}}, {PathComponent::attribute("a"), {}}}};
  EXPECT_TRUE(visit(structure_of(custom), {}).has_value());
}

TEST(TreeStructure, LabelsMustFitTheirContainer) {
  const PathComponent labels[] = {PathComponent::index(0), PathComponent::key(std::int64_t{0}),
                                  PathComponent::key("a"), PathComponent::attribute("a")};
  for (const PathComponent& label : labels) {
    SCOPED_TRACE(to_text({label}));
    const auto accepts = [&](NodeKind kind) {
      return visit(structure_of({kind, "", {{label, {}}}}), {}).has_value();
    };
    using Kind = PathComponent::Kind;
    EXPECT_EQ(accepts(NodeKind::kDict),
              label.kind == Kind::kIntegerKey || label.kind == Kind::kStringKey);
    EXPECT_EQ(accepts(NodeKind::kNamedTuple), label.kind == Kind::kAttribute);
    EXPECT_TRUE(accepts(NodeKind::kCustom));
  }
}

TEST(TreeStructure, LimitsAreKept) {
  const auto nested = [](std::size_t depth) {
    TreeStructure structure;
    structure.kinds.assign(depth, NodeKind::kList);
    structure.kinds.push_back(NodeKind::kLeaf);
    structure.child_counts.assign(depth, 1);
    return structure;
  };
  EXPECT_TRUE(visit(nested(limits::kDepthMax), {}).has_value());
  EXPECT_EQ(refusal(nested(limits::kDepthMax + 1)), ErrorCode::kLimit);
  EXPECT_EQ(refusal(nested(1000000)), ErrorCode::kLimit);

  TreeStructure structure;
  structure.kinds.assign(std::size_t{limits::kNodesPerItemMax} + 1, NodeKind::kLeaf);
  EXPECT_EQ(refusal(structure), ErrorCode::kLimit);

  const std::string longest(limits::kNameSizeBytesMax, 'a');
  EXPECT_TRUE(visit(structure_of({NodeKind::kCustom, longest, {}}), {}).has_value());
  EXPECT_EQ(refusal(structure_of({NodeKind::kCustom, longest + 'a', {}})), ErrorCode::kLimit);
  EXPECT_EQ(refusal(structure_of({NodeKind::kDict, "", {{PathComponent::key(longest + 'a'), {}}}})),
            ErrorCode::kCorrupt);

  // Each name is within its limit and the path to the leaf is not.
  Node node;
  for (int i = 0; i < 8; ++i) {
    Node parent{NodeKind::kDict, "", {}};
    parent.children.push_back({PathComponent::key(longest), std::move(node)});
    node = std::move(parent);
  }
  EXPECT_EQ(refusal(structure_of(node)), ErrorCode::kLimit);
}

TEST(TreeStructure, AHugeCountClaimsNoMemory) {
  const std::uint64_t before = test::allocated_bytes();
  for (const NodeKind kind :
       {NodeKind::kDict, NodeKind::kList, NodeKind::kTuple, NodeKind::kCustom}) {
    TreeStructure structure;
    structure.kinds = {kind, NodeKind::kLeaf};
    structure.child_counts = {0xFFFFFFFF};
    structure.type_names = {"T"};
    structure.type_indices = {0};
    append_component(structure.labels, PathComponent::key("a"));
    EXPECT_EQ(refusal(structure), ErrorCode::kCorrupt);
  }
  EXPECT_LT(test::allocated_bytes() - before, 64U << 10);
}

TEST(TreeStructure, TheVisitorsOwnErrorEndsTheWalk) {
  int calls = 0;
  const auto refuse = [&]() -> Result<void> {
    ++calls;
    return fail(ErrorCode::kBusy, "enough");
  };
  const TreeVisitor visitors[] = {
      {.enter = [&](NodeKind, const PathComponent*, std::string_view,
                    std::uint32_t) { return refuse(); },
       .leaf = {},
       .leave = {}},
      {.enter = {}, .leaf = [&](const std::string&) { return refuse(); }, .leave = {}},
      {.enter = {}, .leaf = {}, .leave = [&](NodeKind) { return refuse(); }},
  };
  for (const TreeVisitor& visitor : visitors) {
    calls = 0;
    EXPECT_EQ(visit(example(), visitor).error(), (Error{ErrorCode::kBusy, "enough"}));
    EXPECT_EQ(calls, 1);
  }
}

// Every node of a tree, with its path.
void list_nodes(const Node& node, LeafPath& path,
                std::vector<std::pair<LeafPath, const Node*>>& all) {
  all.emplace_back(path, &node);
  for (std::uint32_t i = 0; i < node.children.size(); ++i) {
    path.push_back(has_labels(node.kind) ? node.children[i].label : PathComponent::index(i));
    list_nodes(node.children[i].node, path, all);
    path.pop_back();
  }
}

TEST(TreeStructure, ThePartAtEveryNodeIsTheStructureOfWhatStandsThere) {
  for (const std::uint64_t seed : test::seeds(200)) {
    SCOPED_TRACE(test::trace(seed));
    Random random(seed);
    const Node tree = random_tree(random, 4);
    const TreeStructure structure = structure_of(tree);
    LeafPath path;
    std::vector<std::pair<LeafPath, const Node*>> nodes;
    list_nodes(tree, path, nodes);
    for (const auto& [at, node] : nodes) {
      const auto part = substructure(structure, at);
      ASSERT_TRUE(part) << to_text(at) << ": " << part.error().message;
      EXPECT_EQ(*part, structure_of(*node)) << to_text(at);
      // A name that no other node has.
      LeafPath beyond = at;
      beyond.push_back(PathComponent::key(std::string(200, 'x')));
      EXPECT_EQ(substructure(structure, beyond).error().code, ErrorCode::kNotFound);
    }
  }
}

// Of the leaves at and below a node, how many are wanted and how many are not.
struct LeafCounts {
  int wanted = 0;
  int unwanted = 0;
};
using Wanted = std::function<bool(const LeafPath& path)>;
LeafCounts count_leaves(const Node& node, LeafPath path, const Wanted& is_wanted) {
  if (node.kind == NodeKind::kLeaf) {
    return is_wanted(path) ? LeafCounts{1, 0} : LeafCounts{0, 1};
  }
  std::vector<std::pair<LeafPath, const Node*>> nodes;
  list_nodes(node, path, nodes);
  LeafCounts counts;
  for (const auto& [at, below] : nodes) {
    if (below->kind != NodeKind::kLeaf) continue;
    (is_wanted(at) ? counts.wanted : counts.unwanted) += 1;
  }
  return counts;
}

// Whether a child of a list or tuple is wanted that stands behind one that goes.
bool would_move_a_child(const Node& node, const LeafPath& at, const Wanted& is_wanted) {
  if (node.kind != NodeKind::kList && node.kind != NodeKind::kTuple) return false;
  bool has_gap = false;
  for (std::uint32_t i = 0; i < node.children.size(); ++i) {
    LeafPath path = at;
    path.push_back(PathComponent::index(i));
    const LeafCounts counts = count_leaves(node.children[i].node, path, is_wanted);
    if (has_gap && counts.wanted != 0) return true;
    has_gap = has_gap || (counts.wanted == 0 && counts.unwanted != 0);
  }
  return false;
}

TEST(TreeStructure, APrunedTreeHasTheWantedLeavesWhereTheyWereAndNoEmptiedContainer) {
  int refused_count = 0;
  int pruned_count = 0;
  for (const std::uint64_t seed : test::seeds(400)) {
    SCOPED_TRACE(test::trace(seed));
    Random random(seed);
    const Node tree = random_tree(random, 4);
    const TreeStructure structure = structure_of(tree);
    LeafPath root;
    std::vector<std::pair<LeafPath, const Node*>> nodes;
    list_nodes(tree, root, nodes);
    std::set<LeafPath> wanted_paths;
    std::vector<std::string> expected;
    for (const auto& [at, node] : nodes) {
      if (node->kind != NodeKind::kLeaf || random.one_in(3)) continue;
      wanted_paths.insert(at);
      expected.push_back(encode_path(at).value());
    }
    const Wanted is_wanted = [&](const LeafPath& path) { return wanted_paths.contains(path); };
    const auto pruned = prune(structure, [&](const std::string& path) -> Result<bool> {
      return is_wanted(decode_path(path).value());
    });
    const bool is_refused = std::ranges::any_of(nodes, [&](const auto& node) {
      return would_move_a_child(*node.second, node.first, is_wanted);
    });
    ASSERT_EQ(pruned.has_value(), !is_refused);
    if (is_refused) {
      ++refused_count;
      EXPECT_EQ(pruned.error().code, ErrorCode::kInvalidArgument);
      continue;
    }
    const LeafCounts counts = count_leaves(tree, {}, is_wanted);
    ASSERT_EQ(pruned->has_value(), counts.wanted != 0 || counts.unwanted == 0);
    if (!pruned->has_value()) continue;
    ++pruned_count;
    std::vector<std::string> found;
    ASSERT_TRUE(visit(**pruned, {.enter = {},
                                 .leaf = [&](const std::string& path) -> Result<void> {
                                   found.push_back(path);
                                   return {};
                                 },
                                 .leave = {}}));
    EXPECT_EQ(found, expected);
    for (const auto& [at, node] : nodes) {
      const LeafCounts below = count_leaves(*node, at, is_wanted);
      const bool is_there = substructure(**pruned, at).has_value();
      if (below.wanted == 0 && below.unwanted == 0) continue;
      EXPECT_EQ(is_there, below.wanted != 0) << to_text(at);
    }
    const auto again = prune(**pruned, [](const std::string&) { return Result<bool>(true); });
    EXPECT_EQ(**again, **pruned) << "and no type name that nothing has";
  }
  EXPECT_GT(refused_count, 10);
  EXPECT_GT(pruned_count, 100);
}

TEST(TreeStructure, PruningNamesTheLeafThatWouldMoveAndPassesErrorsOn) {
  const Node list{
      NodeKind::kList, "", {{PathComponent::index(0), {}}, {PathComponent::index(1), {}}}};
  const TreeStructure structure =
      structure_of({NodeKind::kDict, "", {{PathComponent::key("layers"), list}}});
  const auto keep_second = [](const std::string& path) -> Result<bool> {
    return decode_path(path).value().back() == PathComponent::index(1);
  };
  const auto moved = prune(structure, keep_second);
  ASSERT_FALSE(moved);
  EXPECT_EQ(moved.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(moved.error().message.find("'layers[1]'"), std::string::npos) << moved.error().message;
  const auto own = prune(structure, [](const std::string&) -> Result<bool> {
    return fail(ErrorCode::kBusy, "enough");
  });
  EXPECT_EQ(own.error(), (Error{ErrorCode::kBusy, "enough"}));
}

TEST(TreeStructure, MutatedStructuresNeverCrash) {
  int accepted = 0;
  int refused = 0;
  for (const std::uint64_t seed : test::seeds(1000)) {
    SCOPED_TRACE(test::trace(seed));
    Random random(seed);
    const Node tree = random_tree(random, 4);
    TreeStructure structure = structure_of(tree);
    for (std::uint64_t count = 1 + random.below(2); count > 0; --count) {
      const auto change = [&](auto& numbers) {
        if (numbers.empty()) return;
        auto& number = numbers[random.below(numbers.size())];
        using Number = std::remove_reference_t<decltype(number)>;
        number = static_cast<Number>(random.one_in(4) ? random.bits() : random.below(8));
      };
      switch (random.below(4)) {
        case 0:
          change(structure.kinds);
          break;
        case 1:
          change(structure.child_counts);
          break;
        case 2:
          change(structure.type_indices);
          break;
        default:
          structure.labels = random.mutated(structure.labels);
          break;
      }
    }
    const bool is_accepted = visit(structure, {}).has_value();
    ++(is_accepted ? accepted : refused);
    LeafPath path;
    std::vector<std::pair<LeafPath, const Node*>> nodes;
    list_nodes(tree, path, nodes);
    for (const auto& [at, node] : nodes) {
      const auto part = substructure(structure, at);
      if (is_accepted && part) {
        EXPECT_TRUE(visit(*part, {}).has_value()) << to_text(at);
      }
    }
  }
  if (test::tries_one_seed()) return;
  EXPECT_GT(accepted, 10);
  EXPECT_GT(refused, 100);
}

TEST(TreeStructure, TwoChildrenOfOneNameAreFoundInAnyOrder) {
  const auto with = [](const std::vector<std::string>& names) {
    TreeStructure structure;
    structure.kinds.assign(1 + names.size(), NodeKind::kLeaf);
    structure.kinds.front() = NodeKind::kDict;
    structure.child_counts = {static_cast<std::uint32_t>(names.size())};
    for (const std::string& name : names) {
      append_component(structure.labels, PathComponent::key(name));
    }
    return structure;
  };
  const std::vector<std::vector<std::string>> distinct = {
      {"a", "b", "c"}, {"c", "b", "a"}, {"a", "c", "b"}, {"a", "b", "aa", "d", "c"}};
  for (const auto& names : distinct) EXPECT_TRUE(visit(with(names), {})) << names[1];
  const std::vector<std::vector<std::string>> same = {
      {"a", "a"}, {"a", "b", "b"}, {"a", "b", "c", "a"}, {"b", "a", "c", "c"}, {"b", "a", "a"}};
  for (const auto& names : same) {
    const Result<void> visited = visit(with(names), {});
    ASSERT_FALSE(visited) << names[1];
    EXPECT_EQ(visited.error().code, ErrorCode::kCorrupt);
    EXPECT_NE(visited.error().message.find("two children"), std::string::npos);
  }
}

}  // namespace
}  // namespace stepstone
