#include <fmt/format.h>

#include <cstring>
#include <span>

#include "api/c/call.h"
#include "api/c/handles.h"
#include "api/leaf_bytes.h"

namespace stepstone::c {
namespace {

std::string name_of(const stepstone_step& step, const std::string& item, std::string_view path) {
  return fmt::format("step {} item '{}' leaf '{}'", step.held.step(), printable(item), path);
}

Result<std::unique_ptr<stepstone_step>> list_leaves(HeldStep held) {
  auto step = std::make_unique<stepstone_step>(stepstone_step{std::move(held), {}, {}, {}});
  for (const std::string& item : step->held.item_names()) {
    ItemMetadata metadata = STEPSTONE_TRY(step->held.item_metadata(item));
    const std::size_t first_leaf = step->leaves.size();
    std::size_t position = 0;
    metadata.tree.for_each_leaf([&](const LeafPath& path, const Leaf&) {
      step->by_path.emplace(std::pair(item, path), step->leaves.size());
      step->leaves.push_back({item, path, std::move(metadata.leaves[position++])});
    });
    step->items.emplace(item, stepstone_step::Item{std::move(metadata.tree), first_leaf});
  }
  return step;
}

Result<const stepstone_step::Leaf*> find_leaf(const stepstone_step& step, const std::string& item,
                                              const char* path) {
  const std::string where = name_of(step, item, printable(path));
  LeafPath parsed = STEPSTONE_TRY_CONTEXT(parse_path(path), where);
  const auto found = step.by_path.find(std::pair(item, std::move(parsed)));
  if (found == step.by_path.end()) return fail(ErrorCode::kNotFound, where + ": there is none");
  return &step.leaves[found->second];
}

Result<void> describe(const stepstone_step::Leaf& leaf, stepstone_leaf_info* info) {
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

class Restore {
 public:
  explicit Restore(const stepstone_step& step) : step_(step) {}

  Result<void> add(const stepstone_destination& to) {
    STEPSTONE_TRY(check_given({{"item", to.item}, {"path", to.path}}));
    const stepstone_step::Leaf& leaf = *STEPSTONE_TRY(find_leaf(step_, to.item, to.path));
    const std::string where = name_of(step_, leaf.item, leaf.metadata.path);
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
    args::PyTreeRestore& how = by_item_[leaf.item];
    if (is_read_in_place(leaf, to)) {
      RestoreArgs options;
      options.destination = {static_cast<std::byte*>(to.data), to.size_bytes};
      for (std::size_t axis = 0; axis < to.slice_count; ++axis) {
        options.slice.push_back({to.slices[axis].begin, to.slices[axis].end});
      }
      how.restore_args.add(leaf.path, std::move(options));
    }
    return {};
  }

  Result<void> run() {
    args::Composite items;
    for (auto& [name, how] : by_item_) {
      const stepstone_step::Item& item = step_.items.at(name);
      how.item = item.tree;
      const stepstone_step::Leaf* leaf = &step_.leaves[item.first_leaf];
      mark(*how.item, leaf);
      items.set(name, std::move(how));
    }
    if (items.empty()) return {};
    const AnyValue restored = STEPSTONE_TRY(step_.held.restore_any(items));
    const auto all = STEPSTONE_TRY(restored.get<args::Composite>());
    for (const auto& [name, how] : by_item_) {
      const Tree tree = STEPSTONE_TRY(all.get<Tree>(name));
      const stepstone_step::Leaf* leaf = &step_.leaves[step_.items.at(name).first_leaf];
      Result<void> copied;
      tree.for_each_leaf([&](const LeafPath&, const Leaf& value) {
        const auto found = wanted_.find(leaf++);
        if (found != wanted_.end() && copied) copied = copy(*found->first, value, *found->second);
      });
      STEPSTONE_TRY(std::move(copied));
    }
    return {};
  }

 private:
  static bool is_read_in_place(const stepstone_step::Leaf& leaf, const stepstone_destination& to) {
    return leaf.metadata.kind == LeafKind::kArray &&
           (to.slice_count > 0 || to.size_bytes >= kInPlaceSizeBytesMin);
  }

  // Makes a target of an item's tree: what nobody asked for is not read. `leaf` goes along.
  // NOLINTNEXTLINE(misc-no-recursion)
  void mark(Tree& tree, const stepstone_step::Leaf*& leaf) const {
    for (Tree::Child& child : tree.children()) mark(child.tree, leaf);
    if (!tree.is_leaf()) return;
    const auto found = wanted_.find(leaf++);
    if (found == wanted_.end()) {
      tree = Placeholder{};
    } else if (auto* const array = tree.get_if<AbstractArray>()) {
      const stepstone_destination& to = *found->second;
      for (std::size_t axis = 0; axis < to.slice_count; ++axis) {
        array->shape[axis] = to.slices[axis].end - to.slices[axis].begin;
      }
    }
  }

  Result<void> copy(const stepstone_step::Leaf& leaf, const Leaf& value,
                    const stepstone_destination& to) const {
    if (is_read_in_place(leaf, to) || to.size_bytes == 0) return {};
    const std::span<std::byte> data(static_cast<std::byte*>(to.data), to.size_bytes);
    if (const auto* const array = std::get_if<Array>(&value)) {
      array->gather(0, data);
      return {};
    }
    const std::string bytes = value_bytes(value);
    if (bytes.size() != data.size()) {
      return fail(ErrorCode::kCorrupt, name_of(step_, leaf.item, leaf.metadata.path) +
                                           ": its value is not of the size in its record");
    }
    std::memcpy(data.data(), bytes.data(), bytes.size());
    return {};
  }

  const stepstone_step& step_;
  std::map<std::string, args::PyTreeRestore> by_item_;
  std::map<const stepstone_step::Leaf*, const stepstone_destination*> wanted_;
};

}  // namespace
}  // namespace stepstone::c

using namespace stepstone;  // NOLINT(google-build-using-namespace)

stepstone_code stepstone_step_open(stepstone_store* store, uint64_t number, stepstone_step** step) {
  return c::guarded([&]() -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"store", store}, {"step", step}}));
    HeldStep held = STEPSTONE_TRY(store->manager->hold(c::step_or_latest(number)));
    *step = STEPSTONE_TRY(c::list_leaves(std::move(held))).release();
    return {};
  });
}

void stepstone_step_free(stepstone_step* step) { std::unique_ptr<stepstone_step>(step).reset(); }

stepstone_code stepstone_step_number(const stepstone_step* step, uint64_t* number) {
  return c::guarded([&]() -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"step", step}, {"number", number}}));
    *number = step->held.step();
    return {};
  });
}

stepstone_code stepstone_step_leaf_count(const stepstone_step* step, size_t* count) {
  return c::guarded([&]() -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"step", step}, {"count", count}}));
    *count = step->leaves.size();
    return {};
  });
}

stepstone_code stepstone_step_leaf(const stepstone_step* step, size_t index,
                                   stepstone_leaf_info* info) {
  return c::guarded([&]() -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"step", step}, {"info", info}}));
    if (index >= step->leaves.size()) {
      return fail(ErrorCode::kNotFound,
                  fmt::format("step {}: it has {} leaves, and none at the position {}",
                              step->held.step(), step->leaves.size(), index));
    }
    return c::describe(step->leaves[index], info);
  });
}

stepstone_code stepstone_step_find(const stepstone_step* step, const char* item, const char* path,
                                   stepstone_leaf_info* info) {
  return c::guarded([&]() -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"step", step}, {"item", item}, {"path", path}, {"info", info}}));
    return c::describe(*STEPSTONE_TRY(c::find_leaf(*step, item, path)), info);
  });
}

stepstone_code stepstone_restore(const stepstone_step* step,
                                 const stepstone_destination* destinations, size_t count) {
  return c::guarded([&]() -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"step", step}}));
    STEPSTONE_TRY(c::check_memory("destinations", destinations, count));
    c::Restore restore(*step);
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
