#include "tools/formats/contents.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <tuple>

#include "format/limits.h"

namespace stepstone::tool {

std::uint64_t Contents::size_bytes() const {
  std::uint64_t total = 0;
  for (const ContentLeaf& leaf : leaves) total += leaf.info.size_bytes;
  return total;
}

std::string shown(std::string_view name) {
  constexpr std::size_t kSizeMax = 120;
  return printable(name.substr(0, kSizeMax)) + (name.size() > kSizeMax ? "…" : "");
}

Result<std::string> flat_name(const std::string& encoded_path) {
  const LeafPath path = STEPSTONE_TRY(decode_path(encoded_path));
  if (path.empty()) {
    return fail(ErrorCode::kUnsupported,
                "the item is one leaf without a name, and this format wants one");
  }
  std::string name;
  for (std::size_t i = 0; i < path.size(); ++i) {
    if (i != 0) name += '.';
    const bool is_named = path[i].kind == PathComponent::Kind::kStringKey ||
                          path[i].kind == PathComponent::Kind::kAttribute;
    name += is_named ? path[i].name : std::to_string(path[i].number);
  }
  return name;
}

Result<std::vector<std::string>> flat_names(const Contents& contents,
                                            std::string_view format_name) {
  std::vector<std::string> names;
  names.reserve(contents.leaves.size());
  for (const ContentLeaf& leaf : contents.leaves) {
    if (!leaf.info.dtype) {
      return fail(ErrorCode::kUnsupported,
                  fmt::format("leaf '{}' is of kind {}; a {} file holds arrays only",
                              to_text(leaf.encoded_path), to_string(leaf.info.kind), format_name));
    }
    names.push_back(STEPSTONE_TRY(flat_name(leaf.encoded_path)));
  }
  std::vector<std::size_t> order(names.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::tie(names[a], contents.leaves[a].encoded_path) <
           std::tie(names[b], contents.leaves[b].encoded_path);
  });
  const auto twice =
      std::adjacent_find(order.begin(), order.end(),
                         [&](std::size_t a, std::size_t b) { return names[a] == names[b]; });
  if (twice != order.end()) {
    return fail(
        ErrorCode::kInvalidArgument,
        fmt::format("the leaves '{}' and '{}' would both be the tensor '{}'",
                    to_text(contents.leaves[twice[0]].encoded_path),
                    to_text(contents.leaves[twice[1]].encoded_path), printable(names[*twice])));
  }
  return names;
}

TreeStructure flat_dict(const std::vector<std::string>& keys) {
  TreeStructure structure;
  structure.kinds.assign(1 + keys.size(), NodeKind::kLeaf);
  structure.kinds.front() = NodeKind::kDict;
  structure.child_counts.push_back(static_cast<std::uint32_t>(keys.size()));
  for (const std::string& key : keys) {
    append_component(structure.labels, PathComponent::key(key));
  }
  return structure;
}

Result<ContentLeaf> flat_leaf(std::string name, DType dtype, std::vector<std::uint64_t> shape,
                              std::shared_ptr<const LeafSource> source) {
  ContentLeaf leaf;
  leaf.info = {
      .kind = LeafKind::kArray, .dtype = dtype, .shape = std::move(shape), .size_bytes = 0};
  leaf.info.size_bytes = STEPSTONE_TRY_CONTEXT(array_size_bytes(dtype, leaf.info.shape),
                                               "tensor '" + shown(name) + "'");
  leaf.encoded_path =
      STEPSTONE_TRY_CONTEXT(encode_path({PathComponent::key(std::move(name))}), "a tensor's name");
  leaf.source = std::move(source);
  return leaf;
}

Result<void> stream(const ContentLeaf& leaf,
                    const std::function<Result<void>(std::span<const std::byte> piece)>& consume) {
  const std::uint64_t size_bytes = leaf.info.size_bytes;
  std::vector<std::byte> scratch(
      static_cast<std::size_t>(std::min(leaf.piece_size_bytes, size_bytes)));
  for (std::uint64_t offset = 0; offset < size_bytes;) {
    const auto size =
        static_cast<std::size_t>(std::min<std::uint64_t>(scratch.size(), size_bytes - offset));
    STEPSTONE_TRY(consume(STEPSTONE_TRY(leaf.source->read(offset, size, scratch))));
    offset += size;
  }
  return {};
}

}  // namespace stepstone::tool
