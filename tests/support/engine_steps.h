#pragma once
// Steps for tests of the engine: what is in them follows from a few numbers, so that any reader can
// tell whether a byte is the right one.

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "engine/store.h"
#include "format/leaf_path.h"

namespace stepstone::testing {

// Bytes that depend on all of (step, attempt, leaf, position).
inline std::vector<std::byte> content(std::uint64_t step, std::uint64_t attempt, std::uint64_t leaf,
                                      std::size_t size) {
  std::vector<std::byte> bytes(size);
  std::uint64_t state = step * 0x9E3779B97F4A7C15 + attempt * 0xBF58476D1CE4E5B9 + leaf + 1;
  for (std::size_t i = 0; i < size; i += 8) {
    // splitmix64 (Steele, Lea and Flood, 2014).
    state += 0x9E3779B97F4A7C15;
    std::uint64_t value = state;
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB;
    value ^= value >> 31;
    std::memcpy(bytes.data() + i, &value, std::min<std::size_t>(8, size - i));
  }
  return bytes;
}

// Owns what it reads from.
class OwnedSource final : public LeafSource {
 public:
  explicit OwnedSource(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}

  Result<std::span<const std::byte>> read(std::uint64_t offset, std::size_t size,
                                          std::span<std::byte> /*scratch*/) const override {
    return std::span(bytes_).subspan(static_cast<std::size_t>(offset), size);
  }

 private:
  std::vector<std::byte> bytes_;
};

// The paths and structure of a flat dict with the keys "0", "1", …
inline std::string leaf_path(std::size_t leaf) {
  return *encode_path({PathComponent::key(std::to_string(leaf))});
}
inline TreeStructure flat_structure(std::size_t leaf_count) {
  TreeStructure structure;
  structure.kinds = {NodeKind::kDict};
  structure.child_counts = {static_cast<std::uint32_t>(leaf_count)};
  for (std::size_t leaf = 0; leaf < leaf_count; ++leaf) {
    structure.kinds.push_back(NodeKind::kLeaf);
    append_component(structure.labels, PathComponent::key(std::to_string(leaf)));
  }
  return structure;
}

using Leaves = std::vector<std::vector<std::byte>>;

// Adds the item "state" with these bytes as arrays of one axis.
inline Result<void> put_leaves(StepWriter& writer, const Leaves& leaves,
                               DType dtype = DType::kUint8) {
  STEPSTONE_TRY(writer.put_item("state", "standard", flat_structure(leaves.size())));
  for (std::size_t leaf = 0; leaf < leaves.size(); ++leaf) {
    const std::size_t size = leaves[leaf].size();
    STEPSTONE_TRY(
        writer.put_leaf("state", leaf_path(leaf),
                        {.kind = LeafKind::kArray,
                         .dtype = dtype,
                         .shape = {size * 8 / static_cast<std::uint64_t>(info(dtype).bits)},
                         .size_bytes = size},
                        std::make_shared<OwnedSource>(leaves[leaf])));
  }
  return {};
}

// All leaves of the item "state", which must have fewer than ten, read at once.
inline Result<Leaves> read_leaves(const Store& store, std::uint64_t step) {
  const auto reader = STEPSTONE_TRY(store.read_step(step));
  const std::vector<StoredLeaf> stored = STEPSTONE_TRY(reader->read_leaves("state"));
  Leaves leaves;
  std::vector<ReadRequest> requests;
  for (const StoredLeaf& leaf : stored) {
    leaves.emplace_back(static_cast<std::size_t>(leaf.record.size_bytes));
  }
  for (std::size_t i = 0; i < stored.size(); ++i) {
    requests.push_back({"state", &stored[i], leaves[i]});
  }
  STEPSTONE_TRY(reader->read_all(requests));
  return leaves;
}

// Adds `item` with one uint8 array per size.
inline Result<void> put_arrays(StepWriter& writer, const std::string& item, std::uint64_t step,
                               std::uint64_t attempt, const std::vector<std::size_t>& sizes) {
  STEPSTONE_TRY(writer.put_item(item, "standard", flat_structure(sizes.size())));
  for (std::size_t leaf = 0; leaf < sizes.size(); ++leaf) {
    STEPSTONE_TRY(
        writer.put_leaf(item, leaf_path(leaf),
                        {.kind = LeafKind::kArray,
                         .dtype = DType::kUint8,
                         .shape = {sizes[leaf]},
                         .size_bytes = sizes[leaf]},
                        std::make_shared<OwnedSource>(content(step, attempt, leaf, sizes[leaf]))));
  }
  return {};
}

// Saves one step with the item "state".
inline Result<StepRecord> save_arrays(Store& store, std::uint64_t step, std::uint64_t attempt,
                                      const std::vector<std::size_t>& sizes,
                                      const SaveOptions& options = {},
                                      const std::vector<std::uint64_t>& retire = {}) {
  const auto writer = STEPSTONE_TRY(store.begin_save(step, options));
  STEPSTONE_TRY(put_arrays(*writer, "state", step, attempt, sizes));
  return writer->commit(retire);
}

inline Result<std::vector<std::byte>> read_array(const StepReader& reader, const std::string& item,
                                                 std::size_t leaf) {
  const StoredLeaf stored = STEPSTONE_TRY(reader.read_leaf(item, leaf_path(leaf)));
  std::vector<std::byte> bytes(static_cast<std::size_t>(stored.record.size_bytes));
  STEPSTONE_TRY(reader.read_bytes(item, stored, 0, bytes));
  return bytes;
}

// Whether every leaf of the step is there with exactly its bytes.
inline Result<bool> holds_arrays(const Store& store, std::uint64_t step, std::uint64_t attempt,
                                 const std::vector<std::size_t>& sizes) {
  const auto reader = STEPSTONE_TRY(store.read_step(step));
  if (STEPSTONE_TRY(reader->read_leaves("state")).size() != sizes.size()) return false;
  for (std::size_t leaf = 0; leaf < sizes.size(); ++leaf) {
    const auto bytes = STEPSTONE_TRY(read_array(*reader, "state", leaf));
    if (bytes != content(step, attempt, leaf, sizes[leaf])) return false;
  }
  return true;
}

}  // namespace stepstone::testing
