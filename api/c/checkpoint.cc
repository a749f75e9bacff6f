// A checkpoint is collected leaf by leaf; its tree is made when it is saved. Which container a node
// is follows from the label of its first child, and the save checks that the others agree.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "api/c/call.h"
#include "api/c/handles.h"
#include "api/checkpoint_plan.h"
#include "format/limits.h"

namespace stepstone::c {
namespace {

using Leaves = std::map<LeafPath, Leaf>;

NodeKind kind_of_parent(const PathComponent& label) {
  if (label.kind == PathComponent::Kind::kIndex) return NodeKind::kList;
  return label.kind == PathComponent::Kind::kAttribute ? NodeKind::kCustom : NodeKind::kDict;
}

// Of the leaves [begin, end), which agree in the first `depth` components of their paths.
// Recursion ends with the path, of which encode_path() has checked the depth.
// NOLINTNEXTLINE(misc-no-recursion)
Tree tree_of(Leaves::const_iterator begin, Leaves::const_iterator end, std::size_t depth) {
  if (begin->first.size() == depth) return begin->second;
  std::vector<Tree::Child> children;
  for (auto child = begin; child != end;) {
    const PathComponent& label = child->first[depth];
    const auto next = std::find_if(
        child, end, [&](const Leaves::value_type& leaf) { return leaf.first[depth] != label; });
    children.push_back({label, tree_of(child, next, depth + 1)});
    child = next;
  }
  const NodeKind kind = kind_of_parent(children.front().label);
  return Tree::container(kind, {}, std::move(children));
}

Result<void> check_free(const Leaves& leaves, const LeafPath& path) {
  const auto next = leaves.lower_bound(path);
  if (next != leaves.end() && next->first == path) {
    return fail(ErrorCode::kAlreadyExists, "there is a leaf of this path already");
  }
  if (next != leaves.end() && path.size() < next->first.size() &&
      std::equal(path.begin(), path.end(), next->first.begin())) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("it is a container, with the leaf '{}'", to_text(next->first)));
  }
  for (LeafPath above = path; !above.empty();) {
    above.pop_back();
    if (leaves.contains(above)) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("the path leads through the leaf '{}'", to_text(above)));
    }
  }
  return {};
}

// `make` gives the leaf; nothing is changed unless it succeeds.
template <typename Make>
stepstone_code add(stepstone_checkpoint* checkpoint, const char* item, const char* path,
                   const Make& make) {
  return guarded([&]() -> Result<void> {
    STEPSTONE_TRY(check_given({{"checkpoint", checkpoint}, {"item", item}, {"path", path}}));
    const std::string where = fmt::format("item '{}' leaf '{}'", printable(item), printable(path));
    LeafPath parsed = STEPSTONE_TRY_CONTEXT(parse_path(path), where);
    STEPSTONE_TRY_CONTEXT(encode_path(parsed), where);
    const auto found = checkpoint->items.find(item);
    if (found != checkpoint->items.end()) {
      STEPSTONE_TRY_CONTEXT(check_free(found->second, parsed), where);
    }
    Result<Leaf> leaf = make();
    if (!leaf) return fail(leaf.error().code, where + ": " + leaf.error().message);
    Leaves with_leaf;
    with_leaf.emplace(std::move(parsed), *std::move(leaf));
    checkpoint->items[item].merge(with_leaf);
    return {};
  });
}

Result<Leaf> borrowed_array(stepstone_dtype dtype, std::size_t rank, const std::uint64_t* shape,
                            const void* data, std::size_t size_bytes) {
  STEPSTONE_TRY(check_memory("shape", shape, rank));
  STEPSTONE_TRY(check_memory("data", data, size_bytes));
  const bool is_number = dtype >= 0 && dtype <= std::numeric_limits<std::uint8_t>::max();
  const std::optional<DType> known =
      is_number ? dtype_from_number(static_cast<std::uint8_t>(dtype)) : std::nullopt;
  if (!known) return fail(ErrorCode::kInvalidArgument, fmt::format("no dtype is {}", dtype));
  // A rank over the limit is refused here, before so much is read from `shape`.
  std::vector<std::uint64_t> extents;
  if (rank > limits::kRankMax) {
    return fail(ErrorCode::kLimit, fmt::format("rank {} is over {}", rank, limits::kRankMax));
  }
  if (rank > 0) extents.assign(shape, shape + rank);
  return Leaf(STEPSTONE_TRY(Array::borrow(*known, std::move(extents),
                                          {static_cast<const std::byte*>(data), size_bytes})));
}

stepstone_code set_json(stepstone_checkpoint* checkpoint, std::string stepstone_checkpoint::*field,
                        const char* json) {
  return guarded([&]() -> Result<void> {
    STEPSTONE_TRY(check_given({{"checkpoint", checkpoint}, {"json", json}}));
    checkpoint->*field = json;
    return {};
  });
}

}  // namespace

args::CheckpointArgs save_args(const stepstone_checkpoint& checkpoint) {
  args::Composite items;
  for (const auto& [name, leaves] : checkpoint.items) {
    args::StandardSave item(tree_of(leaves.begin(), leaves.end(), 0));
    if (checkpoint.items.size() == 1 && name == kDefaultItem) return item;
    items.set(name, std::move(item));
  }
  return items;
}

}  // namespace stepstone::c

using namespace stepstone;  // NOLINT(google-build-using-namespace)

stepstone_code stepstone_checkpoint_create(stepstone_checkpoint** checkpoint) {
  return c::guarded([&]() -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"checkpoint", checkpoint}}));
    *checkpoint = std::make_unique<stepstone_checkpoint>().release();
    return {};
  });
}

void stepstone_checkpoint_free(stepstone_checkpoint* checkpoint) {
  std::unique_ptr<stepstone_checkpoint>(checkpoint).reset();
}

stepstone_code stepstone_checkpoint_add_array(stepstone_checkpoint* checkpoint, const char* item,
                                              const char* path, stepstone_dtype dtype, size_t rank,
                                              const uint64_t* shape, const void* data,
                                              size_t size_bytes) {
  return c::add(checkpoint, item, path,
                [&] { return c::borrowed_array(dtype, rank, shape, data, size_bytes); });
}

stepstone_code stepstone_checkpoint_add_none(stepstone_checkpoint* checkpoint, const char* item,
                                             const char* path) {
  return c::add(checkpoint, item, path, [] { return Result<Leaf>(None{}); });
}

stepstone_code stepstone_checkpoint_add_bool(stepstone_checkpoint* checkpoint, const char* item,
                                             const char* path, int32_t value) {
  return c::add(checkpoint, item, path, [&] { return Result<Leaf>(Leaf(value != 0)); });
}

stepstone_code stepstone_checkpoint_add_int64(stepstone_checkpoint* checkpoint, const char* item,
                                              const char* path, int64_t value) {
  return c::add(checkpoint, item, path,
                [&] { return Result<Leaf>(Leaf(std::in_place_type<std::int64_t>, value)); });
}

stepstone_code stepstone_checkpoint_add_float64(stepstone_checkpoint* checkpoint, const char* item,
                                                const char* path, double value) {
  return c::add(checkpoint, item, path,
                [&] { return Result<Leaf>(Leaf(std::in_place_type<double>, value)); });
}

stepstone_code stepstone_checkpoint_add_complex128(stepstone_checkpoint* checkpoint,
                                                   const char* item, const char* path, double real,
                                                   double imaginary) {
  return c::add(checkpoint, item, path,
                [&] { return Result<Leaf>(Leaf(std::complex<double>(real, imaginary))); });
}

stepstone_code stepstone_checkpoint_add_big_integer(stepstone_checkpoint* checkpoint,
                                                    const char* item, const char* path,
                                                    const char* decimal) {
  return c::add(checkpoint, item, path, [&]() -> Result<Leaf> {
    STEPSTONE_TRY(c::check_given({{"decimal", decimal}}));
    return Leaf(BigInteger{decimal});
  });
}

stepstone_code stepstone_checkpoint_add_string(stepstone_checkpoint* checkpoint, const char* item,
                                               const char* path, const char* text) {
  return c::add(checkpoint, item, path, [&]() -> Result<Leaf> {
    STEPSTONE_TRY(c::check_given({{"text", text}}));
    return Leaf(std::string(text));
  });
}

stepstone_code stepstone_checkpoint_add_bytes(stepstone_checkpoint* checkpoint, const char* item,
                                              const char* path, const void* bytes,
                                              size_t size_bytes) {
  return c::add(checkpoint, item, path, [&]() -> Result<Leaf> {
    STEPSTONE_TRY(c::check_memory("bytes", bytes, size_bytes));
    Bytes copy;
    if (size_bytes > 0) copy.bytes.assign(static_cast<const char*>(bytes), size_bytes);
    return Leaf(std::move(copy));
  });
}

stepstone_code stepstone_checkpoint_set_metrics(stepstone_checkpoint* checkpoint,
                                                const char* json) {
  return c::set_json(checkpoint, &stepstone_checkpoint::metrics, json);
}

stepstone_code stepstone_checkpoint_set_custom_metadata(stepstone_checkpoint* checkpoint,
                                                        const char* json) {
  return c::set_json(checkpoint, &stepstone_checkpoint::custom_metadata, json);
}

stepstone_code stepstone_path_text(const stepstone_path_component* components, size_t count,
                                   char* text, size_t capacity_bytes, size_t* size_bytes) {
  return c::guarded([&]() -> Result<void> {
    STEPSTONE_TRY(c::check_given({{"size_bytes", size_bytes}}));
    STEPSTONE_TRY(c::check_memory("components", components, count));
    STEPSTONE_TRY(c::check_memory("text", text, capacity_bytes));
    LeafPath path;
    for (std::size_t i = 0; i < count; ++i) {
      const stepstone_path_component& given = components[i];
      STEPSTONE_TRY(c::check_memory("name", given.name, given.name_size_bytes));
      const std::string name =
          given.name_size_bytes == 0 ? "" : std::string(given.name, given.name_size_bytes);
      const bool is_position =
          given.number >= 0 && given.number <= std::numeric_limits<std::uint32_t>::max();
      if (given.kind == STEPSTONE_PATH_INDEX && is_position) {
        path.push_back(PathComponent::index(static_cast<std::uint32_t>(given.number)));
      } else if (given.kind == STEPSTONE_PATH_INTEGER_KEY) {
        path.push_back(PathComponent::key(given.number));
      } else if (given.kind == STEPSTONE_PATH_STRING_KEY) {
        path.push_back(PathComponent::key(name));
      } else if (given.kind == STEPSTONE_PATH_ATTRIBUTE) {
        path.push_back(PathComponent::attribute(name));
      } else {
        return fail(ErrorCode::kInvalidArgument,
                    fmt::format("component {} of the path: there is no kind {} with the number {}",
                                i, given.kind, given.number));
      }
    }
    STEPSTONE_TRY(encode_path(path));
    const std::string written = to_text(path);
    *size_bytes = written.size();
    if (capacity_bytes <= written.size()) {
      return fail(ErrorCode::kLimit, fmt::format("the text of the path needs {} bytes, not {}",
                                                 written.size() + 1, capacity_bytes));
    }
    std::memcpy(text, written.c_str(), written.size() + 1);
    return {};
  });
}
