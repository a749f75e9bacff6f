#include <fmt/format.h>

#include <cstring>
#include <span>

#include "api/c/call.h"
#include "api/c/handles.h"
#include "api/leaf_bytes.h"

namespace stepstone::c {
namespace {

Result<void> describe(const StepLeaves::Leaf& leaf, stepstone_leaf_info* info) {
  if (info->struct_size_bytes != sizeof(stepstone_leaf_info)) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("info.struct_size_bytes is {}: set it to sizeof(stepstone_leaf_info), "
                            "which is {}",
                            info->struct_size_bytes, sizeof(stepstone_leaf_info)));
  }
  const LeafMetadata& metadata = leaf.metadata;
  info->item = leaf.item.c_str();
  info->path = metadata.path.c_str();
  info->kind = static_cast<stepstone_kind>(metadata.kind);
  info->dtype = metadata.dtype ? static_cast<stepstone_dtype>(*metadata.dtype) : 0;
  info->rank = metadata.shape.size();
  info->shape = metadata.shape.data();
  info->size_bytes = metadata.size_bytes;
  info->stored_bytes = metadata.stored_bytes;
  return {};
}

// Of what `to` asks of the leaf. kInvalidArgument: the leaf has no such slice.
Result<std::uint64_t> size_wanted(const LeafMetadata& leaf, const stepstone_destination& to) {
  if (to.slice_count == 0) return leaf.size_bytes;
  STEPSTONE_TRY(check_memory("slices", to.slices, to.slice_count));
  if (!leaf.dtype || to.slice_count > leaf.shape.size()) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("{} slices are more than its {} axes",
                                                         to.slice_count, leaf.shape.size()));
  }
  std::vector<std::uint64_t> shape = leaf.shape;
  for (std::size_t axis = 0; axis < to.slice_count; ++axis) {
    const stepstone_slice& slice = to.slices[axis];
    if (slice.begin > slice.end || slice.end > shape[axis]) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("the slice [{}, {}) is not in axis {} of {} elements", slice.begin,
                              slice.end, axis, shape[axis]));
    }
    shape[axis] = slice.end - slice.begin;
  }
  return array_size_bytes(*leaf.dtype, shape);
}

// The bytes of a leaf that is no array, as stepstone_kind says.
std::string value_bytes(const Leaf& leaf) {
  if (const auto* value = std::get_if<bool>(&leaf)) return std::string(1, *value ? '\1' : '\0');
  if (const auto* value = std::get_if<std::int64_t>(&leaf)) return bytes_of(*value);
  if (const auto* value = std::get_if<double>(&leaf)) return bytes_of(*value);
  if (const auto* value = std::get_if<std::complex<double>>(&leaf)) return bytes_of(*value);
  if (const auto* value = std::get_if<BigInteger>(&leaf)) return value->decimal;
  if (const auto* value = std::get_if<std::string>(&leaf)) return *value;
  if (const auto* value = std::get_if<Bytes>(&leaf)) return value->bytes;
  return {};
}

// Smaller arrays are read into memory of the library and copied: options of its own for each leaf
// cost more than that where there are thousands.
constexpr std::uint64_t kInPlaceSizeBytesMin = 65536;

// Where fewer leaves than one in so many are asked for, each is restored by itself: that costs some
// look-ups for each, and the other way the records of all.
constexpr std::uint64_t kLeavesPerLookUp = 16;

class Restore {
 public:
  explicit Restore(const StepLeaves& leaves) : leaves_(leaves) {}

  Result<void> add(const stepstone_destination& to) {
    STEPSTONE_TRY(check_given({{"item", to.item}, {"path", to.path}}));
    const StepLeaves::Leaf& leaf = *STEPSTONE_TRY(leaves_.find(to.item, to.path));
    const std::string where = leaves_.name_of(leaf.item, leaf.metadata.path);
    if (wanted_.contains(&leaf)) {
      return fail(ErrorCode::kInvalidArgument, where + ": it is asked for twice in one restore");
    }
    const std::uint64_t size = STEPSTONE_TRY_CONTEXT(size_wanted(leaf.metadata, to), where);
    if (size != to.size_bytes) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("{}: its destination must have {} bytes, not {}", where, size,
                              to.size_bytes));
    }
    STEPSTONE_TRY_CONTEXT(check_memory("data", to.data, size), where);
    wanted_.emplace(&leaf, &to);
    by_item_[leaf.item].push_back(&leaf);
    return {};
  }

  Result<void> run() {
    for (const auto& [item, leaves] : by_item_) {
      const std::uint64_t leaf_count = leaves_.held().leaf_count(item);
      if (leaves.size() >= leaf_count / kLeavesPerLookUp + 1) {
        STEPSTONE_TRY(restore_together(item, leaves));
        continue;
      }
      for (const StepLeaves::Leaf* const leaf : leaves) STEPSTONE_TRY(restore_alone(*leaf));
    }
    return {};
  }

 private:
  Result<void> restore_alone(const StepLeaves::Leaf& leaf) const {
    const stepstone_destination& to = *wanted_.at(&leaf);
    args::PyTreeRestore how;
    how.subtree = leaf.metadata.path;
    if (leaf.metadata.kind == LeafKind::kArray) how.restore_args = options_of(to);
    const Tree tree = STEPSTONE_TRY(restore(leaf.item, std::move(how)));
    return leaf.metadata.kind == LeafKind::kArray ? Result<void>() : copy(leaf, tree.leaf(), to);
  }

  Result<void> restore_together(const std::string& item,
                                const std::vector<const StepLeaves::Leaf*>& wanted) const {
    const StepLeaves::Item& all = STEPSTONE_TRY(leaves_.list())->items.at(item);
    args::PyTreeRestore how;
    for (const StepLeaves::Leaf* const leaf : wanted) {
      const stepstone_destination& to = *wanted_.at(leaf);
      if (is_read_in_place(*leaf, to)) how.restore_args.add(leaf->path, options_of(to));
    }
    how.item = all.tree;
    auto leaf = all.leaves.begin();
    mark(*how.item, leaf);
    const Tree tree = STEPSTONE_TRY(restore(item, std::move(how)));
    leaf = all.leaves.begin();
    Result<void> copied;
    tree.for_each_leaf([&](const LeafPath&, const Leaf& value) {
      const auto found = wanted_.find(*leaf++);
      if (found == wanted_.end() || !copied || is_read_in_place(*found->first, *found->second)) {
        return;
      }
      copied = copy(*found->first, value, *found->second);
    });
    return copied;
  }

  Result<Tree> restore(const std::string& item, args::PyTreeRestore how) const {
    const AnyValue restored =
        STEPSTONE_TRY(leaves_.held().restore_any(args::Composite({{item, std::move(how)}})));
    return STEPSTONE_TRY(restored.get<args::Composite>()).get<Tree>(item);
  }

  static RestoreArgs options_of(const stepstone_destination& to) {
    RestoreArgs options;
    options.destination = {static_cast<std::byte*>(to.data), to.size_bytes};
    for (std::size_t axis = 0; axis < to.slice_count; ++axis) {
      options.slice.push_back({to.slices[axis].begin, to.slices[axis].end});
    }
    return options;
  }

  static bool is_read_in_place(const StepLeaves::Leaf& leaf, const stepstone_destination& to) {
    return leaf.metadata.kind == LeafKind::kArray &&
           (to.slice_count > 0 || to.size_bytes >= kInPlaceSizeBytesMin);
  }

  // Makes a target of an item's tree: what nobody asked for is not read. `leaf` goes along.
  // NOLINTNEXTLINE(misc-no-recursion)
  void mark(Tree& tree, std::vector<const StepLeaves::Leaf*>::const_iterator& leaf) const {
    for (Tree::Child& child : tree.children()) mark(child.tree, leaf);
    if (!tree.is_leaf()) return;
    const auto found = wanted_.find(*leaf++);
    if (found == wanted_.end()) {
      tree = Placeholder{};
    } else if (auto* const array = tree.get_if<AbstractArray>()) {
      const stepstone_destination& to = *found->second;
      for (std::size_t axis = 0; axis < to.slice_count; ++axis) {
        array->shape[axis] = to.slices[axis].end - to.slices[axis].begin;
      }
    }
  }

  Result<void> copy(const StepLeaves::Leaf& leaf, const Leaf& value,
                    const stepstone_destination& to) const {
    if (to.size_bytes == 0) return {};
    const std::span<std::byte> data(static_cast<std::byte*>(to.data), to.size_bytes);
    if (const auto* const array = std::get_if<Array>(&value)) {
      array->gather(0, data);
      return {};
    }
    const std::string bytes = value_bytes(value);
    if (bytes.size() != data.size()) {
      return fail(ErrorCode::kCorrupt, leaves_.name_of(leaf.item, leaf.metadata.path) +
                                           ": its value is not of the size in its record");
    }
    std::memcpy(data.data(), bytes.data(), bytes.size());
    return {};
  }

  const StepLeaves& leaves_;
  std::map<std::string, std::vector<const StepLeaves::Leaf*>> by_item_;
  std::map<const StepLeaves::Leaf*, const stepstone_destination*> wanted_;
};

}  // namespace
}  // namespace stepstone::c

using namespace stepstone;  // NOLINT(google-build-using-namespace)

stepstone_code stepstone_step_open(stepstone_store* store, uint64_t number, stepstone_step** step) {
  return c::guarded([&]() -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"store", store}, {"step", step}}));
    HeldStep held = STEPSTONE_TRY(store->manager->hold(c::step_or_latest(number)));
    *step = std::make_unique<stepstone_step>(std::move(held)).release();
    return {};
  });
}

void stepstone_step_free(stepstone_step* step) { std::unique_ptr<stepstone_step>(step).reset(); }

stepstone_code stepstone_step_number(const stepstone_step* step, uint64_t* number) {
  return c::guarded([&]() -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"step", step}, {"number", number}}));
    *number = step->leaves.held().step();
    return {};
  });
}

stepstone_code stepstone_step_leaf_count(const stepstone_step* step, size_t* count) {
  return c::guarded([&]() -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"step", step}, {"count", count}}));
    *count = static_cast<std::size_t>(step->leaves.count());
    return {};
  });
}

stepstone_code stepstone_step_leaf(const stepstone_step* step, size_t index,
                                   stepstone_leaf_info* info) {
  return c::guarded([&]() -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"step", step}, {"info", info}}));
    const auto& leaves = STEPSTONE_TRY(step->leaves.list())->leaves;
    if (index >= leaves.size()) {
      return fail(ErrorCode::kNotFound,
                  fmt::format("step {}: it has {} leaves, and none at the position {}",
                              step->leaves.held().step(), leaves.size(), index));
    }
    return c::describe(*leaves[index], info);
  });
}

stepstone_code stepstone_step_find(const stepstone_step* step, const char* item, const char* path,
                                   stepstone_leaf_info* info) {
  return c::guarded([&]() -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"step", step}, {"item", item}, {"path", path}, {"info", info}}));
    return c::describe(*STEPSTONE_TRY(step->leaves.find(item, path)), info);
  });
}

stepstone_code stepstone_restore(const stepstone_step* step,
                                 const stepstone_destination* destinations, size_t count) {
  return c::guarded([&]() -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"step", step}}));
    STEPSTONE_TRY(c::check_memory("destinations", destinations, count));
    // Records are read faster one after the other than each by itself.
    if (count >= step->leaves.count() / c::kLeavesPerLookUp + 1) STEPSTONE_TRY(step->leaves.list());
    c::Restore restore(step->leaves);
    // Each stays where it is until run() is done.
    for (std::size_t i = 0; i < count; ++i) STEPSTONE_TRY(restore.add(destinations[i]));
    return restore.run();
  });
}

stepstone_code stepstone_restore_leaf(const stepstone_step* step, const char* item,
                                      const char* path, void* data, size_t size_bytes) {
  const stepstone_destination whole = {item, path, data, size_bytes, nullptr, 0};
  return stepstone_restore(step, &whole, 1);
}
