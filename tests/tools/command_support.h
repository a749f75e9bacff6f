#pragma once
// What the tests of the verbs that read and write steps share.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tests/tools/support.h"

namespace stepstone::tool {

// Tensors of every dtype of safetensors, with names and shapes that are hard on a tool.
std::vector<NamedTensor> every_kind_of_tensor(std::uint64_t seed);

// How a key of a dict is shown as a path.
std::string text_path(const std::string& name);

class CommandTest : public TemporaryDirectoryTest {
 protected:
  static constexpr std::uint64_t kSeed = 42;

  std::string store() const { return path("run").string(); }

  // Imports `tensors_` as step 7.
  void import_samples() const;

  // As step 3, with the metrics {"loss": 1}: the items
  // "model": {"layers": [w, w], "bias": b}; "collision": {"a.b": x, "a": {"b": y}}; "scalars": a
  // custom node with a string, a big integer, bytes and None; "alone": one leaf.
  void save_nested_items() const;

  // What `arguments` print with success, as JSON.
  nlohmann::json answer_of(const std::vector<std::string>& arguments) const;

  // Ends with the code, prints nothing, and says one line that has the words.
  void expect_failure(const std::vector<std::string>& arguments, int exit_code,
                      std::string_view words) const;

  const std::vector<NamedTensor> tensors_ = every_kind_of_tensor(kSeed);
  const SafetensorsMetadata metadata_ = {{"format", "pt"}, {"b", "\"\\\n"}, {"a", "\xC3\xA9"}};
};

}  // namespace stepstone::tool
