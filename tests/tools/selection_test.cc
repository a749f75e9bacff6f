// Goal: where a verb takes --leaves, --exclude and --regex, it deals with those leaves alone, and
// what it makes of them is what they were. Method: the real binary on stores made here.
#include <fmt/format.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "tests/tools/store_support.h"
#include "tests/tools/support.h"

namespace stepstone::tool {
namespace {

using nlohmann::json;

class SelectionTest : public TemporaryDirectoryTest {
 protected:
  SelectionTest() : TemporaryDirectoryTest(Place::kMemory) {
    for (const std::uint64_t step : {1U, 2U}) {
      const auto number = static_cast<float>(step);
      const Tree layer = Tree::dict({{"w", floats({number, 2})}, {"bias", floats({3})}});
      save_step(path("run"), step,
                {{"model", Tree::dict({{"layers", Tree::list({layer, layer})},
                                       {"head", Tree::dict({{"w", floats({4, 5, 6})}})},
                                       {"name", "small"}})},
                 {"optimizer", Tree::dict({{"mu", floats({7})}, {"count", 8}})}},
                {.metrics = R"({"loss": 1})"});
    }
  }

  std::string store(std::string_view name = "run") const { return path(name).string(); }

  json answer_of(std::vector<std::string> arguments, int exit_code = 0) const {
    arguments.emplace_back("--json");
    const CommandResult result = run_stepstone(arguments);
    EXPECT_EQ(result.exit_code, exit_code) << result.error;
    return json::parse(result.output, nullptr, /*allow_exceptions=*/false);
  }

  // The paths of an item of step 1.
  std::vector<std::string> leaves_of(const std::string& store, const std::string& item) const {
    std::vector<std::string> paths;
    const json shown = answer_of({"show", store, "1", "--item", item});
    for (const json& leaf : shown["leaves"]) {
      paths.push_back(leaf["path"]);
    }
    return paths;
  }

  void expect_error(std::vector<std::string> arguments, const std::string& code,
                    std::string_view words, int exit_code = 1) const {
    const json error = answer_of(std::move(arguments), exit_code)["error"];
    EXPECT_EQ(error["code"], code) << error;
    EXPECT_NE(error["message"].get<std::string>().find(words), std::string::npos) << error;
  }
};

using Paths = std::vector<std::string>;

TEST_F(SelectionTest, CopyTakesTheLeavesAndAllThatIsKnownOfTheStep) {
  const json copied = answer_of({"copy", store(), store("copy"), "--leaves", "head", "-l", "*u"});
  EXPECT_EQ(copied["step_count"], 2);
  EXPECT_EQ(copied["leaf_count"], 4);
  EXPECT_EQ(leaves_of(store("copy"), "model"), Paths{"head/w"});
  EXPECT_EQ(leaves_of(store("copy"), "optimizer"), Paths{"mu"});
  EXPECT_EQ(answer_of({"show", store("copy"), "2", "--item", "model"})["metrics"],
            R"({"loss": 1})");
  // An item of which nothing is selected is left out; so is one that is not named.
  answer_of({"copy", store(), store("regex"), "--regex", "-l", "^layers.*(w|bias)$"});
  EXPECT_EQ(answer_of({"ls", store("regex")})["steps"][0]["items"].size(), 1U);
  EXPECT_EQ(leaves_of(store("regex"), "model"),
            (Paths{"layers[0]/w", "layers[0]/bias", "layers[1]/w", "layers[1]/bias"}));
  answer_of({"copy", store(), store("item"), "--item", "model", "--exclude", "name"});
  EXPECT_EQ(leaves_of(store("item"), "model").size(), 5U);
  // What was copied is what it was.
  EXPECT_EQ(
      answer_of({"diff", store() + ":2:model", store("copy") + ":2:model", "-l", "head"})["equal"],
      true);
}

TEST_F(SelectionTest, CopyOfWhatWouldBeLessThanAskedForMakesNothing) {
  expect_error({"copy", store(), store("copy"), "-l", "nothing"}, "not_found", "step 1");
  expect_error({"copy", store(), store("copy"), "-l", "mu", "--item", "model"}, "not_found",
               "step 1");
  // The places of the others would not stay.
  expect_error({"copy", store(), store("copy"), "-l", "layers[1]"}, "unsupported", "layers[1]");
  // In one of the steps there is nothing of it.
  save_tree(path("run"), 3, Tree::dict({{"other", 1}}));
  expect_error({"copy", store(), store("copy"), "-l", "head"}, "not_found", "step 3");
  EXPECT_FALSE(std::filesystem::exists(path("copy")));
  EXPECT_EQ(
      answer_of({"copy", store(), store("copy"), "-l", "head", "--steps", "1,2"})["step_count"], 2);
}

TEST_F(SelectionTest, ImportAndExportOfAPortableFileTakeTheLeaves) {
  const std::string file = store("run.stone");
  EXPECT_EQ(answer_of({"export", store(), "-o", file, "-x", "name"})["leaf_count"], 14);
  expect_error({"import", file, store("back"), "-l", "nothing"}, "not_found", "step 1");
  expect_error({"export", store(), "-o", store("x.stone"), "-l", "nothing"}, "not_found", "step 1");
  EXPECT_FALSE(std::filesystem::exists(path("back")));
  EXPECT_FALSE(std::filesystem::exists(path("x.stone")));
  const json imported =
      answer_of({"import", file, store("back"), "-l", "re:^(head|layers)", "-x", "*/bias"});
  EXPECT_EQ(imported["leaf_count"], 6);
  EXPECT_EQ(leaves_of(store("back"), "model"), (Paths{"layers[0]/w", "layers[1]/w", "head/w"}));
}

TEST_F(SelectionTest, ImportOfAnotherFormatTakesTheLeaves) {
  std::vector<NamedTensor> tensors;
  // Not in the order of their names.
  for (const char* const name : {"z.w", "a.w", "m.bias", "b.w"}) {
    tensors.push_back(random_tensor(name, DType::kFloat32, {5}, tensors.size()));
  }
  write_file(path("in.safetensors"), safetensors_bytes(tensors));
  const std::string file = store("in.safetensors");
  const json imported =
      answer_of({"import", file, store("back"), "--step", "1", "-l", "*.w", "-x", "re:^b"});
  EXPECT_EQ(imported["leaf_count"], 2);
  EXPECT_EQ(imported["size_bytes"], 40);
  EXPECT_EQ(leaves_of(store("back"), "default"), (Paths{"z.w", "a.w"}));
  EXPECT_EQ(run_stepstone({"cat", store("back"), "1", "a.w", "--raw"}).output, tensors[1].bytes);
  EXPECT_EQ(run_stepstone({"cat", store("back"), "1", "z.w", "--raw"}).output, tensors[0].bytes);
  expect_error({"import", file, store("new"), "--step", "1", "-l", "nothing"}, "not_found",
               "in.safetensors");
  expect_error({"import", file, store("new"), "--step", "1", "-l", "re:("}, "invalid_argument",
               "regular expression");
  EXPECT_FALSE(std::filesystem::exists(path("new")));
}

TEST_F(SelectionTest, CatWritesTheLeavesOneBehindTheOther) {
  const std::vector<std::string> cat = {"cat", store(), "1", "--item", "model"};
  const auto with = [&](std::initializer_list<const char*> more) {
    std::vector<std::string> words = cat;
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  const CommandResult lines = run_stepstone(with({"-l", "*/w", "--json"}));
  EXPECT_EQ(lines.exit_code, 0) << lines.error;
  Paths paths;
  std::istringstream stream(lines.output);
  for (std::string line; std::getline(stream, line);) paths.push_back(json::parse(line)["leaf"]);
  EXPECT_EQ(paths, (Paths{"layers[0]/w", "layers[1]/w", "head/w"}));

  std::string raw;
  for (const std::string& leaf : paths) {
    raw += run_stepstone({"cat", store(), "1", leaf, "--item", "model", "--raw"}).output;
  }
  EXPECT_EQ(raw.size(), 28U);
  EXPECT_EQ(run_stepstone(with({"-l", "*/w", "--raw"})).output, raw);
  const std::string npy = run_stepstone(with({"--regex", "-l", "bias$", "--npy"})).output;
  const std::size_t second = npy.find("\x93NUMPY", 1);
  ASSERT_NE(second, std::string::npos);
  EXPECT_EQ(npy.substr(second), npy.substr(0, second));

  // What is wrong with one of them is said before anything is written.
  const CommandResult text = run_stepstone(with({"-x", "layers", "--npy"}));
  EXPECT_EQ(text.exit_code, 1);
  EXPECT_EQ(text.output, "");
  EXPECT_NE(text.error.find("'name'"), std::string::npos) << text.error;
  expect_error(with({"-l", "nothing"}), "not_found", "selected");
  // One leaf, or a selection.
  expect_error(with({}), "invalid_argument", "LEAF", 2);
  expect_error(with({"name", "-l", "name"}), "invalid_argument", "LEAF", 2);
}

TEST_F(SelectionTest, DuTellsWhatTheLeavesTake) {
  const json all = answer_of({"du", store(), "-l", "*"})["steps"];
  const json whole = answer_of({"du", store()})["steps"];
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0]["leaf_count"], 8);
  EXPECT_EQ(all[0]["size_bytes"], whole[0]["size_bytes"]);
  const json some = answer_of({"du", store(), "-l", "*/w", "-x", "layers[0]"});
  EXPECT_FALSE(some.contains("stored_bytes"));
  EXPECT_EQ(some["steps"][1], json({{"step", 2},
                                    {"leaf_count", 2},
                                    {"size_bytes", 20},
                                    {"stored_bytes", 20},
                                    {"shared_bytes", 0}}));
  const CommandResult text = run_stepstone({"du", store(), "-l", "head"});
  EXPECT_NE(text.output.find("   1       1  12 B    12 B     0 B\n"), std::string::npos)
      << text.output;
  EXPECT_NE(text.output.find("24 B stored for the selected leaves\n"), std::string::npos)
      << text.output;
  // Steps that have none of them are not listed.
  save_tree(path("run"), 3, Tree::dict({{"other", 1}}));
  EXPECT_EQ(answer_of({"du", store(), "-l", "head"})["steps"].size(), 2U);
  EXPECT_EQ(answer_of({"du", store(), "-l", "other"})["steps"].size(), 1U);
}

// Bytes that an earlier step stored, and bytes that were stored in fewer.
TEST_F(SelectionTest, DuTellsSharedAndCompressedBytesApart) {
  const std::vector<float> ones(200'000, 1.0F);
  const std::string bytes = random_bytes(800'000, 5);
  const Array noise =
      Array::copy_bytes(DType::kUint8, {bytes.size()}, std::as_bytes(std::span(bytes))).value();
  const Tree tree = Tree::dict({{"ones", floats(ones)}, {"noise", noise}});
  save_tree(path("large"), 1, tree, {.compression = Compression::kAlways});
  save_tree(path("large"), 2, tree, {.compression = Compression::kAlways});
  const json steps = answer_of({"du", store("large"), "-l", "noise"})["steps"];
  EXPECT_EQ(steps[0]["stored_bytes"], 800'000);
  EXPECT_EQ(steps[0]["shared_bytes"], 0);
  EXPECT_EQ(steps[1]["stored_bytes"], 0);
  EXPECT_EQ(steps[1]["shared_bytes"], 800'000);
  const json packed = answer_of({"du", store("large"), "-l", "ones"})["steps"];
  EXPECT_EQ(packed[0]["size_bytes"], 800'000);
  EXPECT_LT(packed[0]["stored_bytes"], 400'000);
}

}  // namespace
}  // namespace stepstone::tool
