// Goal: what C++ saved with any handler of the library is listed and exported by the C interface,
// and the leaves of trees are restored by it. Method: save in C++, act in C, compare in C++.

#include <gmock/gmock.h>

#include "api/c/stepstone.h"
#include "api/checkpoint_manager.h"
#include "api/checkpointer.h"
#include "api/stateful.h"
#include "support.h"
#include "tests/support/temporary_directory.h"

namespace stepstone::testing {
namespace {

class Position final : public StatefulCheckpointable {
 public:
  Result<Tree> save_state() const override { return Tree::dict({{"position", 12}}); }
  Result<void> load_state(const Tree&) override { return {}; }
};

args::Composite every_handler(const StatefulCheckpointable& position) {
  const Tree tree = Tree::dict({{"w", array_of<float>({1, 2, 3})},
                                {"pair", Tree::tuple({1, "one"})},
                                {"z", std::complex<double>(1, -2)},
                                {"big", BigInteger{"123456789012345678901234567890"}}});
  return args::Composite({{"array", args::ArraySave(array_of<std::int32_t>({4, 5}))},
                          {"json", args::JsonSave(Tree::dict({{"lr", 0.1}}))},
                          {"key", args::RandomKeySave({"threefry2x32", Tree(7)})},
                          {"position", args::StatefulSave(position)},
                          {"proto", args::ProtoSave({"package.Message", "bytes"})},
                          {"pytree", args::PyTreeSave(tree)},
                          {"standard", args::StandardSave(tree, {}, Tree::dict({{"by", "me"}}))}});
}

class CExport : public ::testing::Test {
 protected:
  void SetUp() override {
    const Position position;
    const auto manager = CheckpointManager::open(path("run"));
    ASSERT_TRUE(is_ok(manager));
    ASSERT_TRUE(is_ok((*manager)->save(3, every_handler(position))));
    ASSERT_TRUE(is_ok((*manager)->close()));
    ASSERT_EQ(stepstone_open(path("run").c_str(), nullptr, &store_), STEPSTONE_OK)
        << stepstone_error_text();
  }
  void TearDown() override { stepstone_store_free(store_); }

  std::filesystem::path path(const char* name) const { return directory_.path() / name; }

  TemporaryDirectory directory_;
  stepstone_store* store_ = nullptr;
};

TEST_F(CExport, KeepsEveryItemAndItsHandler) {
  ASSERT_EQ(stepstone_export(store_, 3, path("exported").c_str(), 0), STEPSTONE_OK)
      << stepstone_error_text();
  const Checkpointer checkpointer;
  const auto before = checkpointer.metadata(path("run") / "3");
  const auto after = checkpointer.metadata(path("exported"));
  ASSERT_TRUE(is_ok(before));
  ASSERT_TRUE(is_ok(after));
  ASSERT_EQ(after->items.size(), 7U);
  for (const auto& [name, item] : before->items) {
    SCOPED_TRACE(name);
    ASSERT_NE(after->find(name), nullptr);
    EXPECT_EQ(after->find(name)->handler, item.handler);
    EXPECT_EQ(after->find(name)->tree, item.tree);
    EXPECT_EQ(after->find(name)->custom_metadata, item.custom_metadata);
  }
  const auto old_items = checkpointer.restore<args::Composite>(path("run") / "3");
  const auto new_items = checkpointer.restore<args::Composite>(path("exported"));
  ASSERT_TRUE(is_ok(old_items));
  ASSERT_TRUE(is_ok(new_items));
  for (const char* tree : {"json", "position", "pytree", "standard"}) {
    EXPECT_EQ(*new_items->get<Tree>(tree), *old_items->get<Tree>(tree)) << tree;
  }
  EXPECT_EQ(*new_items->get<Array>("array"), *old_items->get<Array>("array"));
  EXPECT_EQ(*new_items->get<ProtoMessage>("proto"), *old_items->get<ProtoMessage>("proto"));
  EXPECT_EQ(*new_items->get<RandomKey>("key"), *old_items->get<RandomKey>("key"));
}

TEST_F(CExport, OneObjectStaysOneObject) {
  const Tree state = Tree::dict({{"w", array_of<float>({1, 2})}});
  {
    const auto manager = CheckpointManager::open(path("single"));
    ASSERT_TRUE(is_ok(manager));
    ASSERT_TRUE(is_ok((*manager)->save(1, args::StandardSave(state))));
    ASSERT_TRUE(is_ok((*manager)->wait_until_finished()));
  }
  stepstone_store* single = nullptr;
  ASSERT_EQ(stepstone_open(path("single").c_str(), nullptr, &single), STEPSTONE_OK);
  EXPECT_EQ(stepstone_export(single, 1, path("one").c_str(), 0), STEPSTONE_OK)
      << stepstone_error_text();
  stepstone_store_free(single);
  const Result<Tree> exported = Checkpointer().restore(path("one"));
  ASSERT_TRUE(is_ok(exported));
  EXPECT_EQ(*exported, state);
}

TEST_F(CExport, LeavesOfTreesAreRestoredAndOtherItemsAreAMismatch) {
  stepstone_step* step = nullptr;
  ASSERT_EQ(stepstone_step_open(store_, 3, &step), STEPSTONE_OK);
  std::vector<std::int32_t> array(2);
  EXPECT_EQ(stepstone_restore_leaf(step, "array", "", array.data(), 8), STEPSTONE_OK)
      << stepstone_error_text();
  EXPECT_THAT(array, ::testing::ElementsAre(4, 5));
  for (const char* item : {"standard", "pytree"}) {
    std::complex<double> z;
    std::string big(30, ' ');
    std::string one(3, ' ');
    const std::vector<stepstone_destination> some = {{item, "z", &z, sizeof(z), nullptr, 0},
                                                     {item, "big", big.data(), 30, nullptr, 0},
                                                     {item, "pair[1]", one.data(), 3, nullptr, 0}};
    EXPECT_EQ(stepstone_restore(step, some.data(), some.size()), STEPSTONE_OK)
        << stepstone_error_text();
    EXPECT_EQ(z, std::complex<double>(1, -2));
    EXPECT_EQ(big, "123456789012345678901234567890");
    EXPECT_EQ(one, "one");
  }
  stepstone_leaf_info json = {};
  json.struct_size_bytes = sizeof(json);
  ASSERT_EQ(stepstone_step_find(step, "json", "", &json), STEPSTONE_OK) << stepstone_error_text();
  std::string text(json.size_bytes, ' ');
  EXPECT_EQ(stepstone_restore_leaf(step, "json", "", text.data(), text.size()), STEPSTONE_MISMATCH);
  EXPECT_THAT(stepstone_error_text(), ::testing::HasSubstr("json"));
  stepstone_step_free(step);
}

}  // namespace
}  // namespace stepstone::testing
