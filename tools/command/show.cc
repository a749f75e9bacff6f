// Walks the item's structure in the order in which it was saved and looks each leaf up among the
// leaf records, which come sorted by path. Where the records cannot be read all together because
// one is damaged, each is read alone, so that one bad leaf hides no other.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"
#include "tools/leaf_selection.h"

namespace stepstone::tool {
namespace {

struct ShowArguments {
  std::filesystem::path store;
  std::uint64_t step = 0;
  std::optional<std::string> item;
  LeafPatterns patterns;
};

// A leaf record, or why there is none.
using LeafDescription = Result<LeafRecord>;

class LeafRecords {
 public:
  LeafRecords(const StepReader& step, const std::string& item) : step_(step), item_(item) {
    if (auto leaves = step.read_leaves(item)) leaves_ = *std::move(leaves);
  }

  LeafDescription find(const std::string& encoded_path) const {
    const auto found = std::lower_bound(
        leaves_.begin(), leaves_.end(), encoded_path,
        [](const StoredLeaf& leaf, const std::string& path) { return leaf.encoded_path < path; });
    if (found != leaves_.end() && found->encoded_path == encoded_path) return found->record;
    return STEPSTONE_TRY(step_.read_leaf(item_, encoded_path)).record;
  }

 private:
  const StepReader& step_;
  const std::string& item_;
  std::vector<StoredLeaf> leaves_;
};

// Receives the tree, node by node in preorder.
class Listing {
 public:
  virtual ~Listing() = default;
  virtual void add_container(const LeafPath& path, NodeKind kind, std::string_view type_name,
                             std::uint32_t child_count) = 0;
  virtual void add_leaf(const LeafPath& path, const LeafDescription& leaf) = 0;
};

class TextListing final : public Listing {
 public:
  void add_container(const LeafPath& path, NodeKind kind, std::string_view type_name,
                     std::uint32_t child_count) override {
    std::string type = fmt::format("{} of {}", to_string(kind), child_count);
    if (!type_name.empty()) type = fmt::format("{} {}", printable(type_name), type);
    table_.add_row({{path.empty() ? "(root)" : indented(path), Tone::kName},
                    {std::move(type), Tone::kDim},
                    "",
                    ""});
  }

  void add_leaf(const LeafPath& path, const LeafDescription& leaf) override {
    if (!leaf) {
      table_.add_row(
          {indented(path), {"DAMAGED", Tone::kBad}, printable(leaf.error().message), ""});
      return;
    }
    table_.add_row({indented(path), std::string(type_name(*leaf)),
                    leaf->dtype ? stepstone::to_string(leaf->shape) : "",
                    format_size(leaf->size_bytes)});
  }

  std::string to_text(bool color) const { return table_.to_string(color); }

 private:
  // As the shell takes it: an item that is one leaf has the empty path.
  static std::string indented(const LeafPath& path) {
    if (path.empty()) return "\"\"";
    return std::string(2 * (path.size() - 1), ' ') + stepstone::to_text(path);
  }

  Table table_{{{.heading = "PATH"},
                {.heading = "TYPE"},
                {.heading = "SHAPE"},
                {.heading = "SIZE", .align = Table::Align::kRight}}};
};

class JsonListing final : public Listing {
 public:
  void add_container(const LeafPath& path, NodeKind kind, std::string_view type_name,
                     std::uint32_t child_count) override {
    nlohmann::ordered_json node = {{"path", to_text(path)},
                                   {"kind", to_string(kind)},
                                   {"type_name", nullptr},
                                   {"child_count", child_count}};
    if (!type_name.empty()) node["type_name"] = printable(type_name);
    containers_.push_back(std::move(node));
  }

  void add_leaf(const LeafPath& path, const LeafDescription& leaf) override {
    if (!leaf) {
      leaves_.push_back({{"path", to_text(path)}, {"damage", printable(leaf.error().message)}});
      return;
    }
    nlohmann::ordered_json node = {{"path", to_text(path)},
                                   {"kind", stepstone::to_string(leaf->kind)},
                                   {"dtype", nullptr},
                                   {"shape", leaf->shape},
                                   {"size_bytes", leaf->size_bytes}};
    if (leaf->dtype) node["dtype"] = stepstone::to_string(*leaf->dtype);
    leaves_.push_back(std::move(node));
  }

  // Once, at the end.
  nlohmann::ordered_json take_containers() { return std::move(containers_); }
  nlohmann::ordered_json take_leaves() { return std::move(leaves_); }

 private:
  nlohmann::ordered_json containers_ = nlohmann::ordered_json::array();
  nlohmann::ordered_json leaves_ = nlohmann::ordered_json::array();
};

struct Container {
  LeafPath path;
  NodeKind kind = NodeKind::kDict;
  std::string type_name;
  std::uint32_t child_count = 0;
};

struct Walked {
  std::size_t damaged_count = 0;  // Leaves that could not be described.
  // Of the selected leaves.
  std::uint64_t leaf_count = 0;
  std::uint64_t size_bytes = 0;
};

Result<Walked> walk(const TreeStructure& structure, const LeafRecords& records,
                    const LeafSelection& selection, Listing& listing) {
  LeafPath path;
  Walked walked;
  // Containers that are only shown if a leaf below them is.
  std::vector<Container> pending;
  const auto show_pending = [&] {
    for (const Container& container : pending) {
      listing.add_container(container.path, container.kind, container.type_name,
                            container.child_count);
    }
    pending.clear();
  };
  const auto enter = [&](NodeKind kind, const PathComponent* label, std::string_view type_name,
                         std::uint32_t child_count) -> Result<void> {
    if (label != nullptr) path.push_back(*label);
    if (kind != NodeKind::kLeaf)
      pending.push_back({path, kind, std::string(type_name), child_count});
    if (selection.selects_all()) show_pending();
    return {};
  };
  const auto leaf = [&](const std::string& encoded_path) -> Result<void> {
    if (selection.selects(path, to_text(path))) {
      const LeafDescription description = records.find(encoded_path);
      // A leaf that the structure has and the records lack is damage too; failing to read is not.
      if (!description && description.error().code != ErrorCode::kCorrupt &&
          description.error().code != ErrorCode::kNotFound) {
        return tl::unexpected<Error>(description.error());
      }
      if (!description) ++walked.damaged_count;
      ++walked.leaf_count;
      if (description) walked.size_bytes += description->size_bytes;
      show_pending();
      listing.add_leaf(path, description);
    }
    if (!path.empty()) path.pop_back();
    return {};
  };
  const auto leave = [&](NodeKind) -> Result<void> {
    if (!pending.empty() && pending.back().path == path) pending.pop_back();
    if (!path.empty()) path.pop_back();
    return {};
  };
  STEPSTONE_TRY(visit(structure, {.enter = enter, .leaf = leaf, .leave = leave}));
  return walked;
}

Result<int> run_show(const ShowArguments& arguments, Console& console) {
  const LeafSelection selection = STEPSTONE_TRY(LeafSelection::compile(arguments.patterns));
  const auto store = STEPSTONE_TRY(open_for_reading(arguments.store));
  const auto step = STEPSTONE_TRY(store->read_step(arguments.step));
  const std::string item = STEPSTONE_TRY(choose_item(step->record(), arguments.item));
  const ItemRecord record = STEPSTONE_TRY(step->read_item(item));
  const LeafRecords leaves(*step, item);
  const auto check_found = [&](const Walked& walked) -> Result<void> {
    if (walked.leaf_count != 0 || selection.selects_all()) return {};
    return fail(ErrorCode::kNotFound, fmt::format("step {} item '{}' has no leaf that is selected",
                                                  arguments.step, printable(item)));
  };

  if (console.json) {
    JsonListing listing;
    const Walked walked = STEPSTONE_TRY(walk(record.structure, leaves, selection, listing));
    STEPSTONE_TRY(check_found(walked));
    const nlohmann::ordered_json answer = {
        {"store", printable(arguments.store.native())},
        {"step", arguments.step},
        {"committed_unix_ns", step->record().committed_unix_ns},
        {"metrics", text_or_null(step->record().metrics)},
        {"custom_metadata", text_or_null(step->record().custom_metadata)},
        {"item", printable(item)},
        {"handler", printable(record.handler)},
        {"item_metadata", text_or_null(record.custom_metadata)},
        {"leaf_count", walked.leaf_count},
        {"size_bytes", walked.size_bytes},
        {"damaged_count", walked.damaged_count},
        {"containers", listing.take_containers()},
        {"leaves", listing.take_leaves()}};
    STEPSTONE_TRY(console.output.write(answer.dump() + "\n"));
    return walked.damaged_count == 0 ? kExitOk : kExitFailed;
  }

  TextListing listing;
  const Walked walked = STEPSTONE_TRY(walk(record.structure, leaves, selection, listing));
  STEPSTONE_TRY(check_found(walked));
  std::string text =
      fmt::format("step {}, item '{}' ({}), committed {} UTC\n", arguments.step, printable(item),
                  printable(record.handler), format_time(step->record().committed_unix_ns));
  text += listing.to_text(console.color);
  text += fmt::format("{}, {}", format_count(walked.leaf_count, "leaf", "leaves"),
                      format_size(walked.size_bytes));
  text += walked.damaged_count == 0 ? "\n" : fmt::format("; {} damaged\n", walked.damaged_count);
  STEPSTONE_TRY(console.output.write(text));
  return walked.damaged_count == 0 ? kExitOk : kExitFailed;
}

}  // namespace

void add_show(CommandLine& line) {
  Verb verb(line, "show", "Show the tree of an item: path, type, shape and size of each leaf",
            "A path as shown is what `stepstone cat` takes: names joined by '/', layers[3] for a "
            "place in\n"
            "a list, {7} for a number as a key, .mu for an attribute; a backslash makes a special\n"
            "character plain and \\xHH stands for a byte that is not printable.\n\n"
            "Examples:\n"
            "  stepstone show run 100\n"
            "  stepstone show run 100 --item state\n"
            "  stepstone show run 100 --leaves 'params/*/kernel'");
  const auto arguments = std::make_shared<ShowArguments>();
  verb.add_store(arguments->store);
  verb.add_step(arguments->step);
  verb.add_item(arguments->item);
  verb.add_leaves(arguments->patterns);
  verb.add_json();
  verb.on_run([arguments](Console& console) { return run_show(*arguments, console); });
}

}  // namespace stepstone::tool
