#include "tests/tools/command_support.h"

#include <fmt/format.h>

#include "engine/store.h"

namespace stepstone::tool {
namespace {

void put_leaf(StepWriter& writer, std::string_view item, const LeafPath& leaf, LeafInfo info,
              std::string_view bytes) {
  info.size_bytes = bytes.size();
  const Result<std::string> encoded = encode_path(leaf);
  ASSERT_TRUE(encoded.has_value());
  const auto result = writer.put_leaf(
      item, *encoded, info, std::make_shared<MemorySource>(std::as_bytes(std::span(bytes))));
  ASSERT_TRUE(result.has_value()) << result.error().message;
}

}  // namespace

std::vector<NamedTensor> every_kind_of_tensor(std::uint64_t seed) {
  std::vector<NamedTensor> tensors;
  for (auto number = static_cast<unsigned>(kDTypeFirst);
       number <= static_cast<unsigned>(kDTypeLast); ++number) {
    const auto dtype = static_cast<DType>(number);
    if (!safetensors_name(dtype)) continue;
    tensors.push_back(
        random_tensor(fmt::format("dtype.{}", to_string(dtype)), dtype, {3, 4}, seed + number));
  }
  tensors.push_back(random_tensor("scalar", DType::kFloat32, {}, seed + 100));
  tensors.push_back(random_tensor("empty", DType::kInt64, {5, 0, 2}, seed + 101));
  tensors.push_back(random_tensor("", DType::kUint8, {7}, seed + 102));
  tensors.push_back(random_tensor("a/b[0]\\.{1}", DType::kUint8, {8}, seed + 103));
  tensors.push_back(random_tensor("red \x1b[31m\n", DType::kUint8, {9}, seed + 104));
  tensors.push_back(random_tensor("\xC3\xA9t\xC3\xA9", DType::kUint8, {10}, seed + 105));
  // Larger than a chunk, and not a multiple of one.
  tensors.push_back(random_tensor("large", DType::kFloat32, {1000, 333}, seed + 106));
  return tensors;
}

std::string text_path(const std::string& name) { return to_text({PathComponent::key(name)}); }

void CommandTest::import_samples() const {
  write_file(path("in.safetensors"), canonical_safetensors_bytes(tensors_, metadata_));
  const CommandResult result =
      run_stepstone({"import", path("in.safetensors"), store(), "--step", "7"});
  ASSERT_EQ(result.exit_code, 0) << result.error;
}

nlohmann::json CommandTest::answer_of(const std::vector<std::string>& arguments) const {
  const CommandResult result = run_stepstone(arguments);
  EXPECT_EQ(result.exit_code, 0) << result.error;
  EXPECT_EQ(result.error, "");
  return nlohmann::json::parse(result.output, nullptr, /*allow_exceptions=*/false);
}

void CommandTest::expect_failure(const std::vector<std::string>& arguments, int exit_code,
                                 std::string_view words) const {
  const CommandResult result = run_stepstone(arguments);
  EXPECT_EQ(result.exit_code, exit_code);
  EXPECT_EQ(result.error.substr(0, 11), "stepstone: ");
  EXPECT_NE(result.error.find(words), std::string::npos) << result.error;
  EXPECT_EQ(result.error.find('\n'), result.error.size() - 1) << result.error;
  EXPECT_EQ(result.output, "");
}

void CommandTest::save_nested_items() const {
  const auto opened = Store::open(store(), {.create_if_missing = true});
  ASSERT_TRUE(opened.has_value()) << opened.error().message;
  auto writer = (*opened)->begin_save(3, {.metrics = R"({"loss":1})"});
  ASSERT_TRUE(writer.has_value()) << writer.error().message;
  const LeafInfo four_bytes{.dtype = DType::kUint8, .shape = {4}};
  const auto put_item = [&](const std::string& name, TreeStructure structure) {
    const auto result = (*writer)->put_item(name, "standard", std::move(structure));
    ASSERT_TRUE(result.has_value()) << result.error().message;
  };
  const auto label = [](TreeStructure& structure, const PathComponent& component) {
    append_component(structure.labels, component);
  };

  TreeStructure model;
  model.kinds = {NodeKind::kDict, NodeKind::kList, NodeKind::kLeaf, NodeKind::kLeaf,
                 NodeKind::kLeaf};
  model.child_counts = {2, 2};
  label(model, PathComponent::key("layers"));
  label(model, PathComponent::key("bias"));
  put_item("model", model);
  put_leaf(**writer, "model", {PathComponent::key("layers"), PathComponent::index(0)}, four_bytes,
           "w0w0");
  put_leaf(**writer, "model", {PathComponent::key("layers"), PathComponent::index(1)}, four_bytes,
           "w1w1");
  put_leaf(**writer, "model", {PathComponent::key("bias")}, four_bytes, "bias");

  TreeStructure collision;
  collision.kinds = {NodeKind::kDict, NodeKind::kLeaf, NodeKind::kDict, NodeKind::kLeaf};
  collision.child_counts = {2, 1};
  label(collision, PathComponent::key("a.b"));
  label(collision, PathComponent::key("a"));
  label(collision, PathComponent::key("b"));
  put_item("collision", collision);
  put_leaf(**writer, "collision", {PathComponent::key("a.b")}, four_bytes, "aaaa");
  put_leaf(**writer, "collision", {PathComponent::key("a"), PathComponent::key("b")}, four_bytes,
           "bbbb");

  TreeStructure scalars;
  scalars.kinds = {NodeKind::kCustom, NodeKind::kLeaf, NodeKind::kLeaf,
                   NodeKind::kLeaf,   NodeKind::kLeaf, NodeKind::kLeaf};
  scalars.child_counts = {5};
  scalars.type_names = {"State"};
  scalars.type_indices = {0};
  for (const char* name : {"text", "big", "bytes", "none", "count"}) {
    label(scalars, PathComponent::attribute(name));
  }
  put_item("scalars", scalars);
  const auto put_scalar = [&](const char* name, LeafKind kind, std::string_view bytes) {
    put_leaf(**writer, "scalars", {PathComponent::attribute(name)}, {.kind = kind}, bytes);
  };
  put_scalar("text", LeafKind::kString, "h\xC3\xA9llo\n");
  put_scalar("big", LeafKind::kBigInteger, "123456789012345678901234567890");
  put_scalar("bytes", LeafKind::kBytes, "\x01\xFF");
  put_scalar("none", LeafKind::kNone, "");
  put_scalar("count", LeafKind::kInt64, std::string_view("\xFE\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 8));

  put_item("alone", leaf_structure());
  put_leaf(**writer, "alone", {}, four_bytes, "solo");

  const auto committed = (*writer)->commit();
  ASSERT_TRUE(committed.has_value()) << committed.error().message;
  writer->reset();
  ASSERT_TRUE((*opened)->close().has_value());
}

}  // namespace stepstone::tool
