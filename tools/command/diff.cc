// Compares two items: their containers, then each leaf's description, then the numbers of those
// leaves whose hashes differ.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "tools/command/command.h"
#include "tools/command/step_reference.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"
#include "tools/leaf_difference.h"
#include "tools/leaf_selection.h"
#include "tools/leaf_value.h"

namespace stepstone::tool {
namespace {

// As of diff(1): 1 is for a difference.
constexpr int kExitDifferent = 1;
constexpr int kExitTrouble = 2;

struct DiffArguments {
  std::string a;
  std::string b;
  std::optional<std::string> item;  // Of both, unless they name one.
  LeafPatterns patterns;
};

struct Container {
  NodeKind kind = NodeKind::kDict;
  std::string type_name;

  bool operator==(const Container&) const = default;
};

// By path, as text.
using Containers = std::map<std::string, Container>;

struct Side {
  OpenedStep opened;
  std::vector<ItemLeaf> leaves;
  Containers containers;
  std::uint64_t size_bytes = 0;  // Of the leaves.
};

enum class Change { kOnlyA, kOnlyB, kType, kValues, kDamaged };

// A leaf that differs.
struct LeafChange {
  Change change = Change::kValues;
  const ItemLeaf* a = nullptr;
  const ItemLeaf* b = nullptr;
  std::optional<LeafDifference> difference;  // Of leaves that can be compared.
  std::string message;                       // Of damage.
  // JSON, of short values that are no arrays.
  std::string value_a;
  std::string value_b;

  const std::string& path() const { return a != nullptr ? a->text : b->text; }
};

struct ContainerChange {
  std::string path;
  std::optional<Container> a;
  std::optional<Container> b;
};

struct Comparison {
  Side a;
  Side b;
  std::vector<ContainerChange> containers;
  std::vector<LeafChange> leaves;
  std::size_t common_count = 0;
  std::uint64_t read_bytes = 0;

  bool is_equal() const { return containers.empty() && leaves.empty(); }
  std::size_t count(Change change) const {
    return static_cast<std::size_t>(
        std::count_if(leaves.begin(), leaves.end(),
                      [&](const LeafChange& leaf) { return leaf.change == change; }));
  }
};

Result<Containers> containers_of(const TreeStructure& structure) {
  Containers containers;
  LeafPath path;
  const auto leave = [&]() {
    if (!path.empty()) path.pop_back();
  };
  const auto enter = [&](NodeKind kind, const PathComponent* label, std::string_view type_name,
                         std::uint32_t) -> Result<void> {
    if (label != nullptr) path.push_back(*label);
    if (kind != NodeKind::kLeaf) containers[to_text(path)] = {kind, std::string(type_name)};
    return {};
  };
  STEPSTONE_TRY(visit(structure, {.enter = enter,
                                  .leaf = [&](const std::string&) -> Result<void> {
                                    leave();
                                    return {};
                                  },
                                  .leave = [&](NodeKind) -> Result<void> {
                                    leave();
                                    return {};
                                  }}));
  return containers;
}

Result<Side> load(OpenedStep opened, const LeafSelection& selection) {
  Side side;
  side.leaves = STEPSTONE_TRY(list_leaves(*opened.step, opened.item, selection));
  // With some leaves left out, the containers are not asked for either.
  if (selection.selects_all()) {
    const ItemRecord record = STEPSTONE_TRY(opened.step->read_item(opened.item));
    side.containers = STEPSTONE_TRY(containers_of(record.structure));
  }
  for (const ItemLeaf& leaf : side.leaves) side.size_bytes += leaf.stored.record.size_bytes;
  side.opened = std::move(opened);
  return side;
}

std::string short_value(const Side& side, const ItemLeaf& leaf) {
  constexpr std::uint64_t kShort = 200;
  const LeafRecord& record = leaf.stored.record;
  if (record.dtype || record.size_bytes > kShort) return {};
  std::vector<std::byte> bytes(static_cast<std::size_t>(record.size_bytes));
  if (!side.opened.step->read_bytes(side.opened.item, leaf.stored, 0, bytes)) return {};
  return value_json(record, bytes).value_or(std::string());
}

bool have_same_type(const LeafRecord& a, const LeafRecord& b) {
  return a.kind == b.kind && a.dtype == b.dtype && a.shape == b.shape;
}

void compare_containers(Comparison& comparison) {
  const Containers& a = comparison.a.containers;
  const Containers& b = comparison.b.containers;
  for (const auto& [path, container] : a) {
    const auto found = b.find(path);
    if (found == b.end()) {
      comparison.containers.push_back({path, container, {}});
    } else if (container != found->second) {
      comparison.containers.push_back({path, container, found->second});
    }
  }
  for (const auto& [path, container] : b) {
    if (!a.contains(path)) comparison.containers.push_back({path, {}, container});
  }
}

void compare_leaf_values(Comparison& comparison, const std::vector<LeafPair>& pairs,
                         const std::vector<LeafChange>& changes) {
  Progress progress("diff");
  const LeafDifferences differences =
      compare_leaves({comparison.a.opened.step.get(), comparison.a.opened.item},
                     {comparison.b.opened.step.get(), comparison.b.opened.item}, pairs,
                     {.progress = [&](std::uint64_t done_bytes, std::uint64_t total_bytes) {
                       progress.update(done_bytes, total_bytes);
                     }});
  comparison.read_bytes = differences.read_bytes;
  std::size_t pair = 0;
  for (LeafChange change : changes) {
    const bool is_compared = change.a != nullptr && change.b != nullptr &&
                             are_comparable(change.a->stored.record, change.b->stored.record);
    if (is_compared) {
      const Result<LeafDifference>& difference = differences.of_pairs[pair++];
      if (!difference) {
        change.change = Change::kDamaged;
        change.message = difference.error().message;
      } else if (change.change == Change::kValues && difference->changed_count == 0) {
        continue;
      } else {
        change.difference = *difference;
      }
    }
    if (change.a != nullptr) change.value_a = short_value(comparison.a, *change.a);
    if (change.b != nullptr) change.value_b = short_value(comparison.b, *change.b);
    comparison.leaves.push_back(std::move(change));
  }
}

// In the order of the first tree, then what only the second has.
void compare_all_leaves(Comparison& comparison) {
  std::map<std::string_view, const ItemLeaf*> of_b;
  for (const ItemLeaf& leaf : comparison.b.leaves) of_b[leaf.stored.encoded_path] = &leaf;
  std::vector<LeafPair> pairs;
  std::vector<LeafChange> changes;
  for (const ItemLeaf& leaf : comparison.a.leaves) {
    const auto found = of_b.find(leaf.stored.encoded_path);
    if (found == of_b.end()) {
      changes.push_back({.change = Change::kOnlyA, .a = &leaf});
      continue;
    }
    const ItemLeaf& other = *found->second;
    of_b.erase(found);
    ++comparison.common_count;
    const bool is_same_type = have_same_type(leaf.stored.record, other.stored.record);
    if (are_comparable(leaf.stored.record, other.stored.record)) {
      pairs.push_back({&leaf.stored, &other.stored});
    }
    changes.push_back(
        {.change = is_same_type ? Change::kValues : Change::kType, .a = &leaf, .b = &other});
  }
  for (const ItemLeaf& leaf : comparison.b.leaves) {
    if (of_b.contains(leaf.stored.encoded_path)) {
      changes.push_back({.change = Change::kOnlyB, .b = &leaf});
    }
  }
  compare_leaf_values(comparison, pairs, changes);
}

std::string type_text(const LeafRecord& record) {
  std::string text(type_name(record));
  if (record.dtype) text += " " + to_string(record.shape);
  return text;
}

std::string container_text(const std::optional<Container>& container) {
  if (!container) return "not there";
  std::string text(to_string(container->kind));
  if (!container->type_name.empty()) text = printable(container->type_name) + " " + text;
  return text;
}

std::string change_text(const LeafChange& change) {
  switch (change.change) {
    case Change::kOnlyA:
      return "only in the first";
    case Change::kOnlyB:
      return "only in the second";
    case Change::kDamaged:
      return "DAMAGED: " + printable(change.message);
    case Change::kType:
      return type_text(change.a->stored.record) + " -> " + type_text(change.b->stored.record);
    case Change::kValues:
      break;
  }
  if (!change.value_a.empty()) return change.value_a + " -> " + change.value_b;
  std::string text(type_text(change.a->stored.record));
  if (change.difference && change.difference->incomparable_count != 0) {
    text += fmt::format("; {} nan or inf in one", change.difference->incomparable_count);
  }
  return text;
}

// Never "100%" or "0%" for what is not quite that.
std::string percent(std::uint64_t part, std::uint64_t whole) {
  if (whole == 0) return "0%";
  const double fraction = 100 * static_cast<double>(part) / static_cast<double>(whole);
  if (part != 0 && fraction < 0.1) return "<0.1%";
  if (part != whole && fraction > 99.9) return ">99.9%";
  return fmt::format("{:.{}f}%", fraction, part == 0 || part == whole ? 0 : 1);
}

std::string head_text(std::string_view mark, const Side& side) {
  const StepRecord& record = side.opened.step->record();
  return fmt::format("{} {} step {} item '{}', committed {} UTC\n", mark,
                     printable(side.opened.store->directory().native()), record.save.step,
                     printable(side.opened.item), format_time(record.committed_unix_ns));
}

std::string to_text(const Comparison& comparison, bool color) {
  std::string text = head_text("first: ", comparison.a) + head_text("second:", comparison.b);
  Table table({{.heading = "PATH"},
               {.heading = "DIFFERENCE"},
               {.heading = "CHANGED", .align = Table::Align::kRight},
               {.heading = "MAX", .align = Table::Align::kRight},
               {.heading = "MEAN", .align = Table::Align::kRight}});
  for (const ContainerChange& change : comparison.containers) {
    table.add_row({{change.path.empty() ? "(root)" : change.path, Tone::kName},
                   {container_text(change.a) + " -> " + container_text(change.b), Tone::kWarning},
                   "",
                   "",
                   ""});
  }
  for (const LeafChange& change : comparison.leaves) {
    const Tone tone = change.change == Change::kOnlyA || change.change == Change::kDamaged
                          ? Tone::kBad
                      : change.change == Change::kOnlyB ? Tone::kGood
                      : change.change == Change::kType  ? Tone::kWarning
                                                        : Tone::kPlain;
    std::vector<Table::Cell> row = {change.path().empty() ? "\"\"" : change.path(),
                                    {change_text(change), tone}};
    // Of text there is nothing to count.
    if (change.difference &&
        (change.a->stored.record.dtype || change.difference->max_difference != 0)) {
      const LeafDifference& difference = *change.difference;
      row.emplace_back(percent(difference.changed_count, difference.element_count));
      row.emplace_back(format_number(difference.max_difference));
      row.emplace_back(format_number(difference.mean_difference));
    } else {
      row.insert(row.end(), 3, "");
    }
    table.add_row(std::move(row));
  }
  if (!table.is_empty()) text += table.to_string(color);
  const std::size_t changed_count =
      comparison.count(Change::kValues) + comparison.count(Change::kType);
  const std::string common = format_count(comparison.common_count, "common leaf", "common leaves");
  text += comparison.is_equal() ? "equal: " + common
                                : fmt::format("{} of {} changed", changed_count, common);
  if (const std::size_t count = comparison.count(Change::kOnlyA)) {
    text += fmt::format(", {} only in the first", count);
  }
  if (const std::size_t count = comparison.count(Change::kOnlyB)) {
    text += fmt::format(", {} only in the second", count);
  }
  if (const std::size_t count = comparison.count(Change::kDamaged)) {
    text += fmt::format(", {} damaged", count);
  }
  return text + fmt::format("; {} of {} read\n", format_size(comparison.read_bytes),
                            format_size(comparison.a.size_bytes + comparison.b.size_bytes));
}

nlohmann::ordered_json side_json(const Side& side) {
  return {{"store", printable(side.opened.store->directory().native())},
          {"step", side.opened.step->record().save.step},
          {"item", printable(side.opened.item)},
          {"leaf_count", side.leaves.size()},
          {"size_bytes", side.size_bytes}};
}

nlohmann::ordered_json leaf_json(const ItemLeaf* leaf, const std::string& value) {
  if (leaf == nullptr) return nullptr;
  const LeafRecord& record = leaf->stored.record;
  nlohmann::ordered_json json = {{"kind", to_string(record.kind)},
                                 {"dtype", nullptr},
                                 {"shape", record.shape},
                                 {"size_bytes", record.size_bytes}};
  if (record.dtype) json["dtype"] = to_string(*record.dtype);
  if (!value.empty()) json["value"] = nlohmann::ordered_json::parse(value, nullptr, false);
  return json;
}

nlohmann::ordered_json container_json(const std::optional<Container>& container) {
  if (!container) return nullptr;
  nlohmann::ordered_json json = {{"kind", to_string(container->kind)}, {"type_name", nullptr}};
  if (!container->type_name.empty()) json["type_name"] = printable(container->type_name);
  return json;
}

std::string_view to_string(Change change) {
  switch (change) {
    case Change::kOnlyA:
      return "only_a";
    case Change::kOnlyB:
      return "only_b";
    case Change::kType:
      return "type";
    case Change::kValues:
      return "values";
    case Change::kDamaged:
      return "damaged";
  }
  return "";
}

nlohmann::ordered_json to_json(const Comparison& comparison) {
  nlohmann::ordered_json containers = nlohmann::ordered_json::array();
  for (const ContainerChange& change : comparison.containers) {
    containers.push_back(
        {{"path", change.path}, {"a", container_json(change.a)}, {"b", container_json(change.b)}});
  }
  nlohmann::ordered_json leaves = nlohmann::ordered_json::array();
  for (const LeafChange& change : comparison.leaves) {
    nlohmann::ordered_json leaf = {{"path", change.path()},
                                   {"change", to_string(change.change)},
                                   {"a", leaf_json(change.a, change.value_a)},
                                   {"b", leaf_json(change.b, change.value_b)}};
    if (change.difference) {
      leaf["element_count"] = change.difference->element_count;
      leaf["changed_count"] = change.difference->changed_count;
      leaf["incomparable_count"] = change.difference->incomparable_count;
      leaf["max_difference"] = change.difference->max_difference;
      leaf["mean_difference"] = change.difference->mean_difference;
    }
    if (change.change == Change::kDamaged) leaf["damage"] = printable(change.message);
    leaves.push_back(std::move(leaf));
  }
  return {{"a", side_json(comparison.a)},        {"b", side_json(comparison.b)},
          {"equal", comparison.is_equal()},      {"common_leaf_count", comparison.common_count},
          {"read_bytes", comparison.read_bytes}, {"containers", std::move(containers)},
          {"leaves", std::move(leaves)}};
}

Result<int> run_diff(const DiffArguments& arguments, Console& console) {
  const LeafSelection selection = STEPSTONE_TRY(LeafSelection::compile(arguments.patterns));
  StepReference first = STEPSTONE_TRY(parse_reference(arguments.a));
  StepReference second = STEPSTONE_TRY(parse_reference(arguments.b, first.store));
  if (!first.item) first.item = arguments.item;
  if (!second.item) second.item = arguments.item ? arguments.item : first.item;
  OpenedStep a = STEPSTONE_TRY(open_reference(first));
  OpenedStep b = STEPSTONE_TRY(open_reference(second, &a));
  Comparison comparison;
  comparison.a = STEPSTONE_TRY(load(std::move(a), selection));
  comparison.b = STEPSTONE_TRY(load(std::move(b), selection));
  if (comparison.a.leaves.empty() && comparison.b.leaves.empty() && !selection.selects_all()) {
    return fail(ErrorCode::kNotFound, "neither of the two has a leaf that is selected");
  }
  compare_containers(comparison);
  compare_all_leaves(comparison);
  STEPSTONE_TRY(console.output.write(console.json ? to_json(comparison).dump() + "\n"
                                                  : to_text(comparison, console.color)));
  if (comparison.count(Change::kDamaged) != 0) return kExitTrouble;
  return comparison.is_equal() ? kExitOk : kExitDifferent;
}

}  // namespace

void add_diff(CommandLine& line) {
  Verb verb(
      line, "diff", "Compare two steps, of one store or of two",
      "A and B are STORE:STEP, STORE:STEP:ITEM, or STORE for its newest step; B may also be "
      "the STEP\n"
      "alone, of the same store. Compared are containers, types and shapes, then the numbers: "
      "how many\n"
      "have changed, and the largest and mean difference. Chunks with equal hashes are not "
      "read.\n\n"
      "Exit codes, as of diff(1): 0 they are equal, 1 they differ, 2 it failed.\n\n"
      "Examples:\n"
      "  stepstone diff run:100 200\n"
      "  stepstone diff run:100 other/run:100:state --leaves 'params/*'\n"
      "  stepstone diff run weights.stone");
  const auto arguments = std::make_shared<DiffArguments>();
  verb.add_text({.names = "A", .description = "The one step", .is_required = true}, arguments->a);
  verb.add_text({.names = "B", .description = "The other step", .is_required = true}, arguments->b);
  verb.add_item(arguments->item);
  verb.add_leaves(arguments->patterns);
  verb.add_json();
  verb.on_run([arguments](Console& console) { return run_diff(*arguments, console); },
              kExitTrouble);
}

}  // namespace stepstone::tool
