#include "tools/transfer_choice.h"

#include <algorithm>

#include "api/cast_source.h"
#include "tools/formats/kept_leaves.h"

namespace stepstone::tool {
namespace {

// The structure with the selected leaves alone; nullopt: there are none.
Result<std::optional<TreeStructure>> select(const LeafSelection& selection,
                                            const TreeStructure& structure) {
  Contents contents;
  contents.structure = structure;
  std::vector<bool> is_kept;
  TreeVisitor visitor;
  visitor.leaf = [&](const std::string& encoded_path) -> Result<void> {
    const LeafPath path = STEPSTONE_TRY(decode_path(encoded_path));
    is_kept.push_back(selection.selects(path, to_text(path)));
    contents.leaves.push_back({.encoded_path = encoded_path, .info = {}, .source = nullptr});
    return {};
  };
  STEPSTONE_TRY(visit(structure, visitor));
  std::vector<std::string> paths;
  for (std::size_t i = 0; i < is_kept.size(); ++i) {
    if (is_kept[i]) paths.push_back(contents.leaves[i].encoded_path);
  }
  if (paths.empty()) return std::nullopt;
  Contents kept = STEPSTONE_TRY(keep_leaves(std::move(contents), is_kept));
  for (std::size_t i = 0; i < paths.size(); ++i) {
    if (kept.leaves[i].encoded_path == paths[i]) continue;
    return fail(ErrorCode::kUnsupported,
                "leaf '" + to_text(paths[i]) +
                    "' is in a list that would lose other elements; choose the list as a whole");
  }
  return std::move(kept.structure);
}

bool is_chosen(const std::vector<std::string>& items, std::string_view name) {
  return items.empty() || std::any_of(items.begin(), items.end(), [&](const std::string& item) {
           return item == name || item == printable(name);
         });
}

}  // namespace

Result<void> check_choice(const Store& from, const std::vector<std::uint64_t>& steps,
                          const TransferChoice& choice) {
  const TransferHooks hooks = STEPSTONE_TRY(hooks_for(choice));
  for (const std::uint64_t number : steps.empty() ? from.steps() : steps) {
    const Result<std::shared_ptr<const StepReader>> reader = from.read_step(number);
    // One that was retired a moment ago was not asked for by name.
    if (steps.empty() && !reader && reader.error().code == ErrorCode::kNotFound) continue;
    const auto step = STEPSTONE_TRY(reader);
    bool has_some = false;
    for (const ItemSummary& summary : step->record().items) {
      if (!is_chosen(choice.items, summary.name)) continue;
      if (choice.patterns.include.empty() && choice.patterns.exclude.empty()) {
        has_some = true;
        continue;
      }
      ItemRecord record = STEPSTONE_TRY(step->read_item(summary.name));
      TransferItem item{.handler = std::move(record.handler),
                        .structure = std::move(record.structure),
                        .custom_metadata = {},
                        .below = {}};
      has_some = STEPSTONE_TRY_CONTEXT(hooks.item(*step, summary.name, item),
                                       "step " + std::to_string(number) + " item '" +
                                           printable(summary.name) + "'") ||
                 has_some;
    }
    if (!has_some) {
      return fail(ErrorCode::kNotFound,
                  "step " + std::to_string(number) + " has no leaf that is selected");
    }
  }
  return {};
}

Result<void> cast_floats(DType to, LeafInfo& info, std::shared_ptr<const LeafSource>& source) {
  const std::optional<DType> from = info.dtype;
  if (from != DType::kFloat32 && from != DType::kFloat64) return {};
  const std::uint64_t count = STEPSTONE_TRY(element_count(info.shape));
  source = std::make_shared<CastSource>(std::move(source), *from, to, count, false);
  info.dtype = to;
  info.size_bytes = STEPSTONE_TRY(array_size_bytes(to, info.shape));
  return {};
}

Result<TransferHooks> hooks_for(const TransferChoice& choice) {
  const LeafSelection selection = STEPSTONE_TRY(LeafSelection::compile(choice.patterns));
  TransferHooks hooks;
  hooks.item = [selection, items = choice.items](const StepReader& /*step*/, std::string_view name,
                                                 TransferItem& item) -> Result<bool> {
    if (!is_chosen(items, name)) return false;
    if (selection.selects_all()) return true;
    std::optional<TreeStructure> kept = STEPSTONE_TRY(select(selection, item.structure));
    if (!kept) return false;
    item.structure = *std::move(kept);
    return true;
  };
  if (choice.cast_to) {
    hooks.leaf = [to = *choice.cast_to](const StepReader& /*step*/, std::string_view /*item*/,
                                        TransferLeaf& leaf) {
      return cast_floats(to, leaf.info, leaf.source);
    };
  }
  return hooks;
}

}  // namespace stepstone::tool
