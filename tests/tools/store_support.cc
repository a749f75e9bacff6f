#include "tests/tools/store_support.h"

#include <gtest/gtest.h>

#include "api/tree_plan.h"

namespace stepstone::tool {

void save_step(const std::filesystem::path& store, std::uint64_t step,
               const std::vector<std::pair<std::string, Tree>>& items, const SaveOptions& options) {
  const auto opened = Store::open(store, {.create_if_missing = true});
  ASSERT_TRUE(opened.has_value()) << opened.error().message;
  const auto writer = (*opened)->begin_save(step, options);
  ASSERT_TRUE(writer.has_value()) << writer.error().message;
  for (const auto& [name, tree] : items) {
    const Result<void> put = put_tree(**writer, name, tree);
    ASSERT_TRUE(put.has_value()) << put.error().message;
  }
  const Result<StepRecord> record = (*writer)->commit();
  ASSERT_TRUE(record.has_value()) << record.error().message;
}

void save_tree(const std::filesystem::path& store, std::uint64_t step, const Tree& tree,
               const SaveOptions& options) {
  save_step(store, step, {{"default", tree}}, options);
}

Array floats(const std::vector<float>& values) {
  const Result<Array> array = Array::copy_of<float>(values, {values.size()});
  EXPECT_TRUE(array.has_value());
  return array.value_or(Array());
}

}  // namespace stepstone::tool
