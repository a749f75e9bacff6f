#include "tests/api/trees.h"

#include <algorithm>
#include <limits>
#include <set>

namespace stepstone::testing {
namespace {

using namespace std::string_literals;

double any_double(Random& random) {
  return random.one_of<double>(
      {0.0, -0.0, 1.5, -2.25e300, 5e-324, std::numeric_limits<double>::infinity(),
       std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::signaling_NaN()});
}

}  // namespace

std::string TreeMaker::name() {
  static const std::vector<std::string> kNames = {
      "a",    "b",        "a.b",   "params", "",   "/",   "a/b",          "..",         ".",
      "[0]",  "0",        "{7}",   ".mu",    "\\", "\\e", "\0"s,          "\0\xff"s,    "\0\x01"s,
      "\xff", "\xc3\xa9", "a\xc3", "\n",     " ",  "a b", "\xed\xa0\x80", "layer[3]/w", "}"};
  if (random_.one_in(40)) return std::string(4096, 'n');
  if (random_.one_in(8)) {
    const std::vector<std::byte> bytes = random_.bytes(random_.below(12));
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  return random_.one_of(kNames);
}

std::vector<std::uint64_t> TreeMaker::shape() {
  std::vector<std::uint64_t> shape;
  if (random_.one_in(25)) {
    shape.assign(32, 1);
    shape[random_.below(32)] = 3;
    shape[random_.below(32)] = 2;
    return shape;
  }
  for (std::size_t rank = random_.below(6); shape.size() < rank;) {
    shape.push_back(random_.one_in(12) ? 0 : 1 + random_.below(5));
  }
  return shape;
}

Array TreeMaker::array(DType dtype, std::vector<std::uint64_t> shape) {
  const auto size = static_cast<std::size_t>(*array_size_bytes(dtype, shape));
  const std::uint64_t how = random_.below(3);
  if (how == 0) return *Array::copy_bytes(dtype, std::move(shape), random_.bytes(size));
  if (how == 1 || info(dtype).bits < 8) {
    memory_.push_back(std::make_unique<std::vector<std::byte>>(random_.bytes(size)));
    return *Array::borrow(dtype, std::move(shape), *memory_.back());
  }
  // Transposed, with gaps between the elements.
  std::vector<std::int64_t> strides;
  std::int64_t stride = info(dtype).bits / 8 + 3;
  for (const std::uint64_t extent : shape) {
    strides.push_back(stride);
    stride *= static_cast<std::int64_t>(std::max<std::uint64_t>(1, extent));
  }
  memory_.push_back(
      std::make_unique<std::vector<std::byte>>(random_.bytes(static_cast<std::size_t>(stride))));
  return *Array::borrow_strided(dtype, std::move(shape), std::move(strides),
                                memory_.back()->data());
}

Array TreeMaker::array() {
  const DType dtype = random_.one_of(all_dtypes());
  // Several chunks, and segments of its own.
  if (random_.one_in(150)) return array(dtype, {3 + random_.below(5), 100000});
  return array(dtype, shape());
}

Leaf TreeMaker::leaf() {
  switch (random_.below(14)) {
    case 0:
      return None{};
    case 1:
      return random_.one_in(2);
    case 2:
      return random_.one_of<std::int64_t>({0, -1, 42, std::numeric_limits<std::int64_t>::max(),
                                           std::numeric_limits<std::int64_t>::min()});
    case 3:
      return random_.one_of<BigInteger>({{"9223372036854775808"},
                                         {"-9223372036854775809"},
                                         {"0"},
                                         {"1" + std::string(5000, '0')}});
    case 4:
      return any_double(random_);
    case 5:
      return std::complex<double>(any_double(random_), any_double(random_));
    case 6:
      return random_.one_of<std::string>(
          {"", "text", "a\0b"s, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x99\x82", std::string(40000, 'x')});
    case 7: {
      const std::vector<std::byte> bytes = random_.bytes(random_.below(64));
      return Bytes{{reinterpret_cast<const char*>(bytes.data()), bytes.size()}};
    }
    default:
      return array();
  }
}

Tree TreeMaker::container(std::size_t depth_max) {
  const auto kind =
      random_.one_of<NodeKind>({NodeKind::kDict, NodeKind::kDict, NodeKind::kList, NodeKind::kTuple,
                                NodeKind::kNamedTuple, NodeKind::kCustom});
  const std::uint64_t count = random_.one_in(8) ? 0 : 1 + random_.below(5);
  std::vector<Tree::Child> children;
  std::set<PathComponent> labels;
  for (std::uint32_t i = 0; i < count; ++i) {
    PathComponent label = PathComponent::index(i);
    const bool is_sequence = kind == NodeKind::kList || kind == NodeKind::kTuple;
    if (kind == NodeKind::kNamedTuple || (kind == NodeKind::kCustom && random_.one_in(2))) {
      label = PathComponent::attribute(name());
    } else if (!is_sequence && random_.one_in(3)) {
      label = PathComponent::key(
          random_.one_of<std::int64_t>({0, 1, -1, 7, std::numeric_limits<std::int64_t>::min()}));
    } else if (!is_sequence) {
      label = PathComponent::key(name());
    }
    if (!labels.insert(label).second) continue;  // Never of a sequence.
    children.push_back({std::move(label), tree(depth_max - 1)});
  }
  const bool has_type = kind == NodeKind::kNamedTuple || kind == NodeKind::kCustom;
  return Tree::container(kind, has_type ? "module." + name().substr(0, 100) : "",
                         std::move(children));
}

Tree TreeMaker::tree(std::size_t depth_max) {
  if (depth_max == 0 || random_.one_in(depth_max > 3 ? 12 : 2)) return {leaf()};
  return container(depth_max);
}

Tree with_leaves(const Tree& tree, const std::function<Leaf(const Leaf& leaf)>& change) {
  if (tree.is_leaf()) return {change(tree.leaf())};
  std::vector<Tree::Child> children;
  for (const Tree::Child& child : tree.children()) {
    children.push_back({child.label, with_leaves(child.tree, change)});
  }
  return Tree::container(tree.kind(), tree.type_name(), std::move(children));
}

Tree reordered(const Tree& tree, Random& random) {
  if (tree.is_leaf()) return tree;
  std::vector<Tree::Child> children;
  for (const Tree::Child& child : tree.children()) {
    children.push_back({child.label, reordered(child.tree, random)});
  }
  if (tree.kind() != NodeKind::kList && tree.kind() != NodeKind::kTuple) {
    for (std::size_t i = children.size(); i > 1; --i) {
      std::swap(children[i - 1], children[random.below(i)]);
    }
  }
  return Tree::container(tree.kind(), tree.type_name(), std::move(children));
}

}  // namespace stepstone::testing
