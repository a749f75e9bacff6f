#include "tools/bench/state.h"

#include <algorithm>
#include <map>

#include "api/checkpoint_plan.h"

namespace stepstone::bench {

std::vector<StateLeaf> gpt2_leaves(std::uint64_t shrink) {
  constexpr std::uint64_t kWidth = 768;
  std::vector<StateLeaf> parameters;
  const auto add = [&](std::string name, std::vector<std::uint64_t> shape) {
    shape.front() = std::max<std::uint64_t>(1, shape.front() / shrink);
    parameters.push_back({"", std::move(name), std::move(shape)});
  };
  add("wte", {50257, kWidth});
  add("wpe", {1024, kWidth});
  for (int block = 0; block < 12; ++block) {
    const std::string prefix = "h." + std::to_string(block) + ".";
    add(prefix + "ln_1.weight", {kWidth});
    add(prefix + "ln_1.bias", {kWidth});
    add(prefix + "attn.c_attn.weight", {kWidth, 3 * kWidth});
    add(prefix + "attn.c_attn.bias", {3 * kWidth});
    add(prefix + "attn.c_proj.weight", {kWidth, kWidth});
    add(prefix + "attn.c_proj.bias", {kWidth});
    add(prefix + "ln_2.weight", {kWidth});
    add(prefix + "ln_2.bias", {kWidth});
    add(prefix + "mlp.c_fc.weight", {kWidth, 4 * kWidth});
    add(prefix + "mlp.c_fc.bias", {4 * kWidth});
    add(prefix + "mlp.c_proj.weight", {4 * kWidth, kWidth});
    add(prefix + "mlp.c_proj.bias", {kWidth});
  }
  add("ln_f.weight", {kWidth});
  add("ln_f.bias", {kWidth});
  std::vector<StateLeaf> leaves;
  for (const char* group : {"params", "mu", "nu"}) {
    for (const StateLeaf& leaf : parameters) leaves.push_back({group, leaf.name, leaf.shape});
  }
  return leaves;
}

std::vector<StateLeaf> equal_leaves(std::size_t count, std::uint64_t element_count) {
  std::vector<StateLeaf> leaves;
  leaves.reserve(count);
  for (std::size_t leaf = 0; leaf < count; ++leaf) {
    leaves.push_back({"", "leaf" + std::to_string(leaf), {element_count}});
  }
  return leaves;
}

Result<State> State::make(std::vector<StateLeaf> leaves, std::uint64_t seed, DType dtype) {
  State state;
  state.leaves_ = std::move(leaves);
  state.dtype_ = dtype;
  state.offsets_.push_back(0);
  for (const StateLeaf& leaf : state.leaves_) {
    const std::uint64_t size = STEPSTONE_TRY(array_size_bytes(dtype, leaf.shape));
    state.offsets_.push_back(state.offsets_.back() + static_cast<std::size_t>(size));
  }
  state.memory_ = STEPSTONE_TRY(Memory::allocate(state.offsets_.back()));
  if (dtype == DType::kFloat32) state.fill(seed);
  return state;
}

std::span<const std::byte> State::leaf_bytes(std::size_t leaf) const {
  return bytes().subspan(offsets_[leaf], offsets_[leaf + 1] - offsets_[leaf]);
}

void State::fill_leaf(std::size_t leaf, std::uint64_t seed) {
  fill_normal(bytes().subspan(offsets_[leaf], offsets_[leaf + 1] - offsets_[leaf]), seed);
}

Result<Tree> State::tree(bool is_owned) const {
  // In the order in which the groups first occur.
  std::vector<std::string> names;
  std::map<std::string, std::vector<std::pair<std::string, Tree>>> groups;
  for (std::size_t i = 0; i < leaves_.size(); ++i) {
    const StateLeaf& leaf = leaves_[i];
    Array array =
        STEPSTONE_TRY(is_owned ? Array::own(dtype_, leaf.shape, leaf_bytes(i), memory_.owner())
                               : Array::borrow(dtype_, leaf.shape, leaf_bytes(i)));
    if (!groups.contains(leaf.group)) names.push_back(leaf.group);
    groups[leaf.group].emplace_back(leaf.name, std::move(array));
  }
  std::vector<std::pair<std::string, Tree>> children = std::move(groups[""]);
  for (const std::string& name : names) {
    if (!name.empty()) children.emplace_back(name, Tree::dict(std::move(groups[name])));
  }
  return Tree::dict(std::move(children));
}

Result<void> State::check(const Tree& tree) const {
  // By visiting, since find() walks a dict from its beginning.
  std::map<LeafPath, const Array*> found;
  tree.for_each_leaf([&](const LeafPath& path, const Leaf& leaf) {
    found.emplace(path, std::get_if<Array>(&leaf));
  });
  for (std::size_t i = 0; i < leaves_.size(); ++i) {
    const StateLeaf& leaf = leaves_[i];
    LeafPath path;
    if (!leaf.group.empty()) path.push_back(PathComponent::key(leaf.group));
    path.push_back(PathComponent::key(leaf.name));
    const auto place = found.find(path);
    const Array* const array = place == found.end() ? nullptr : place->second;
    if (array == nullptr || array->shape() != leaf.shape || array->dtype() != dtype_ ||
        !std::ranges::equal(array->bytes(), leaf_bytes(i))) {
      return fail(ErrorCode::kMismatch, to_text(path) + ": not restored as it was saved");
    }
  }
  return {};
}

Result<void> read_into(const Store& store, std::uint64_t step, std::span<std::byte> destination) {
  const auto reader = STEPSTONE_TRY(store.read_step(step));
  const std::vector<StoredLeaf> leaves = STEPSTONE_TRY(reader->read_leaves(kDefaultItem));
  std::vector<ReadRequest> requests;
  requests.reserve(leaves.size());
  std::size_t offset = 0;
  for (const StoredLeaf& leaf : leaves) {
    const auto size = static_cast<std::size_t>(leaf.record.size_bytes);
    if (size > destination.size() - offset) break;
    requests.push_back({kDefaultItem, &leaf, destination.subspan(offset, size)});
    offset += size;
  }
  if (requests.size() != leaves.size() || offset != destination.size()) {
    return fail(ErrorCode::kMismatch, "the step is not as large as the state that was saved");
  }
  return reader->read_all(requests);
}

Result<void> check_read(const Store& store, std::uint64_t step, const State& state,
                        std::span<const std::byte> bytes) {
  std::map<std::string, std::size_t> places;
  for (std::size_t i = 0; i < state.leaves().size(); ++i) {
    LeafPath path;
    if (!state.leaves()[i].group.empty()) {
      path.push_back(PathComponent::key(state.leaves()[i].group));
    }
    path.push_back(PathComponent::key(state.leaves()[i].name));
    places[STEPSTONE_TRY(encode_path(path))] = i;
  }
  const auto reader = STEPSTONE_TRY(store.read_step(step));
  std::size_t offset = 0;
  for (const StoredLeaf& leaf : STEPSTONE_TRY(reader->read_leaves(kDefaultItem))) {
    const auto place = places.find(leaf.encoded_path);
    const auto read = bytes.subspan(offset, static_cast<std::size_t>(leaf.record.size_bytes));
    if (place == places.end() || !std::ranges::equal(read, state.leaf_bytes(place->second))) {
      return fail(ErrorCode::kMismatch,
                  stepstone::to_text(leaf.encoded_path) + ": not read as it was saved");
    }
    offset += read.size();
  }
  return {};
}

}  // namespace stepstone::bench
