#include "api/portable.h"

#include <algorithm>
#include <memory>
#include <new>

#include "api/cast.h"
#include "api/cast_source.h"
#include "api/checkpoint_path.h"
#include "engine/store.h"
#include "engine/transfer.h"

namespace stepstone {
namespace {

bool is_at_or_below(const LeafPath& path, const LeafPath& above) {
  return path.size() >= above.size() && std::equal(above.begin(), above.end(), path.begin());
}

// The leaf of this path, which the engine has encoded.
Result<bool> is_selected(const PortableSelection& selection, std::string_view item,
                         std::string_view encoded_path) {
  const LeafPath path = STEPSTONE_TRY(decode_path(encoded_path));
  return is_at_or_below(path, selection.subtree) && (!selection.leaf || selection.leaf(item, path));
}

Result<bool> select_item(const PortableSelection& selection, std::string_view name,
                         TransferItem& item) {
  if (selection.items) {
    const auto& items = *selection.items;
    if (std::find(items.begin(), items.end(), name) == items.end()) return false;
  }
  if (selection.subtree.empty() && !selection.leaf) return true;
  std::optional<TreeStructure> pruned =
      STEPSTONE_TRY(prune(item.structure, [&](const std::string& encoded_path) {
        return is_selected(selection, name, encoded_path);
      }));
  if (!pruned) return false;
  item.structure = *std::move(pruned);
  return true;
}

Result<void> cast_leaf(DType to, TransferLeaf& leaf) {
  LeafInfo& info = leaf.info;
  if (info.kind != LeafKind::kArray || *info.dtype == to ||
      stepstone::info(*info.dtype).kind != DTypeKind::kFloat) {
    return {};
  }
  if (const std::string_view why = refusal(*info.dtype, to); !why.empty()) {
    return cannot_cast(*info.dtype, to, why);
  }
  leaf.source = std::make_shared<const CastSource>(std::move(leaf.source), *info.dtype, to,
                                                   STEPSTONE_TRY(element_count(info.shape)),
                                                   /*allow_lossy=*/false);
  info.dtype = to;
  info.size_bytes = STEPSTONE_TRY(array_size_bytes(to, info.shape));
  return {};
}

// Every item that was asked for by name is there.
Result<void> check_names(const StepRecord& step, const PortableSelection& selection) {
  if (!selection.items) return {};
  for (const std::string& name : *selection.items) {
    const bool is_there = std::any_of(step.items.begin(), step.items.end(),
                                      [&](const ItemSummary& item) { return item.name == name; });
    if (!is_there) {
      return fail(ErrorCode::kNotFound, "step " + std::to_string(step.save.step) +
                                            " has no item '" + printable(name) + "'");
    }
  }
  return {};
}

Result<PortableCounters> export_open(const Store& store, std::optional<std::uint64_t> step,
                                     const std::filesystem::path& file,
                                     const PortableOptions& options) {
  ExportOptions how;
  how.steps = options.steps;
  how.overwrite = options.force;
  how.compress = options.compress;
  how.share = options.share;
  how.hooks = transfer_hooks(options.selection);
  how.progress = options.progress;
  if (step) how.steps = {*step};
  for (const std::uint64_t number : how.steps.value_or(store.steps())) {
    STEPSTONE_TRY(check_names(STEPSTONE_TRY(store.step_record(number)), options.selection));
  }
  const ExportCounters counters = STEPSTONE_TRY(store.export_steps(file, how));
  return PortableCounters{.step_count = counters.step_count,
                          .leaf_count = counters.leaf_count,
                          .size_bytes = counters.size_bytes,
                          .file_size_bytes = counters.file_size_bytes};
}

}  // namespace

TransferHooks transfer_hooks(PortableSelection selection) {
  const auto shared = std::make_shared<const PortableSelection>(std::move(selection));
  TransferHooks hooks;
  if (shared->items || !shared->subtree.empty() || shared->leaf) {
    hooks.item = [shared](const StepReader& /*step*/, std::string_view name, TransferItem& item) {
      return select_item(*shared, name, item);
    };
  }
  if (shared->cast_floats) {
    hooks.leaf = [shared](const StepReader& /*step*/, std::string_view /*item*/,
                          TransferLeaf& leaf) { return cast_leaf(*shared->cast_floats, leaf); };
  }
  return hooks;
}

Result<PortableCounters> export_checkpoint(const std::filesystem::path& path,
                                           const std::filesystem::path& file,
                                           const PortableOptions& options) {
  try {
    const CheckpointPath from = resolve_checkpoint_path(path);
    SharedStore store = STEPSTONE_TRY(SharedStore::open(from.store, {.read_only = true}));
    PortableOptions how = options;
    if (from.item) how.selection.items = {*from.item};
    const auto counters =
        STEPSTONE_TRY_CONTEXT(export_open(*store, from.step, file, how), path.string());
    STEPSTONE_TRY(store.close());
    return counters;
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kLimit, path.string() + ": out of memory");
  }
}

}  // namespace stepstone
