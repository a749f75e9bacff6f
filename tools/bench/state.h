#pragma once
// The states that are saved: their leaves, their bytes, the trees and requests made of them.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "api/tree.h"
#include "engine/store.h"
#include "tools/bench/memory.h"

namespace stepstone::bench {

struct StateLeaf {
  std::string group;  // "params": the dict the leaf stands in; empty: at the top.
  std::string name;
  std::vector<std::uint64_t> shape;
};

// The 148 parameter tensors of GPT-2 small and Adam's two moments of each: 444 leaves, 1.49 GB as
// float32. `shrink` divides the first extent of each.
std::vector<StateLeaf> gpt2_leaves(std::uint64_t shrink);
// `count` leaves of `element_count` elements each.
std::vector<StateLeaf> equal_leaves(std::size_t count, std::uint64_t element_count);

// Leaves and their bytes, one after the other in one Memory.
class State {
 public:
  // Filled with normally distributed numbers if dtype is float32, else with zeros. kLimit.
  static Result<State> make(std::vector<StateLeaf> leaves, std::uint64_t seed,
                            DType dtype = DType::kFloat32);

  std::uint64_t size_bytes() const { return memory_.size_bytes(); }
  const std::vector<StateLeaf>& leaves() const { return leaves_; }
  std::span<std::byte> bytes() { return memory_.bytes(); }
  std::span<const std::byte> bytes() const { return memory_.bytes(); }
  std::span<const std::byte> leaf_bytes(std::size_t leaf) const;

  // New numbers in all leaves, or in one: what a training step does to them.
  void fill(std::uint64_t seed) { fill_normal(bytes(), seed); }
  void fill_leaf(std::size_t leaf, std::uint64_t seed);

  // The tree of a save. Borrowed arrays may be changed by the trainer, so that an asynchronous save
  // copies them; owned ones it only refers to.
  Result<Tree> borrowed_tree() const { return tree(false); }
  Result<Tree> owned_tree() const { return tree(true); }
  // kMismatch: the tree is not this state.
  Result<void> check(const Tree& tree) const;

 private:
  Result<Tree> tree(bool is_owned) const;

  std::vector<StateLeaf> leaves_;
  std::vector<std::size_t> offsets_;  // One more than there are leaves.
  DType dtype_ = DType::kFloat32;
  Memory memory_;
};

// Reads all leaves of a step's item into `destination`, in the order in which they are stored.
// kMismatch: it has another size.
Result<void> read_into(const Store& store, std::uint64_t step, std::span<std::byte> destination);

// Compares what read_into() has read with the state. kMismatch.
Result<void> check_read(const Store& store, std::uint64_t step, const State& state,
                        std::span<const std::byte> bytes);

}  // namespace stepstone::bench
