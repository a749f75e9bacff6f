// Goal: files of other formats keep every bit, in and out. Method: files that the real libraries
// wrote (tests/golden/interchange), taken in and given out as safetensors, equal byte for byte to
// what the safetensors library made of the same tensors; and out and in again in each format.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <random>

#include "tests/tools/hostile.h"
#include "tests/tools/store_support.h"
#include "tests/tools/support.h"
#include "tools/formats/strided_source.h"

namespace stepstone::tool {
namespace {

using nlohmann::json;

class InterchangeTest : public TemporaryDirectoryTest {
 protected:
  std::string store() const { return path("run"); }
  static std::string golden_path(std::string_view name) {
    return std::filesystem::path(STEPSTONE_GOLDEN_DIRECTORY) / "interchange" / name;
  }

  void import(const std::string& file, const std::string& step = "0") const {
    const CommandResult result =
        run_stepstone({"import", file, store(), "--step", step, "--overwrite"});
    ASSERT_EQ(result.exit_code, 0) << result.error;
  }
  // The file that it wrote.
  std::string export_as(const std::string& name, const std::vector<std::string>& more = {},
                        const std::string& step = "0") const {
    std::vector<std::string> arguments = {"export", store(), step, "-o", path(name), "--force"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const CommandResult result = run_stepstone(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.error;
    return result.exit_code == 0 && std::filesystem::exists(path(name)) ? read_file(path(name))
                                                                        : "";
  }
  std::string refusal(const std::string& name, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {"export", store(), "0", "-o", path(name)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const CommandResult result = run_stepstone(arguments);
    EXPECT_NE(result.exit_code, 0);
    EXPECT_FALSE(std::filesystem::exists(path(name)));
    return result.error;
  }
  json leaves(const std::string& step = "0") const {
    return json::parse(run_stepstone({"show", store(), step, "--json"}).output)["leaves"];
  }
  json cat(const std::string& leaf, const std::string& step = "0") const {
    return json::parse(run_stepstone({"cat", store(), step, leaf, "--json"}).output);
  }
};

TEST_F(InterchangeTest, ArchivesOfNumpyMeanWhatTheSafetensorsLibraryMadeOfThem) {
  for (const std::string name : {"stored.npz", "deflated.npz", "model.safetensors.index.json"}) {
    SCOPED_TRACE(name);
    import(golden_path(name));
    EXPECT_TRUE(export_as("out.safetensors") == golden(name + ".expected.safetensors"));
  }
}

TEST_F(InterchangeTest, FilesOfPyTorchMeanWhatTheSafetensorsLibraryMadeOfThem) {
  import(golden_path("state.pt"));
  std::vector<std::string> tensors;
  for (const json& leaf : leaves()) {
    if (leaf["kind"] == "array") {
      tensors.emplace_back("--leaves");
      tensors.push_back(leaf["path"]);
    }
  }
  EXPECT_TRUE(export_as("out.safetensors", tensors) == golden("state.pt.expected.safetensors"));
}

TEST_F(InterchangeTest, FilesOfPyTorchKeepTheirTreeAndItsValues) {
  import(golden_path("state.pt"));
  EXPECT_EQ(cat("values[1]")["value"], -2);
  EXPECT_EQ(cat("values[3]")["value"], std::int64_t{1} << 40);
  EXPECT_EQ(cat("values[4]")["value"], "1180591620717411303424");
  EXPECT_EQ(cat("values[5]")["value"], "-1180591620717411303424");
  EXPECT_EQ(cat("values[6]")["value"], 0.1);
  EXPECT_EQ(cat("values[7]")["kind"], "none");
  EXPECT_EQ(cat("values[9]")["value"], false);
  EXPECT_EQ(cat("values[10]")["value"], "text é");
  EXPECT_EQ(cat("values[11]")["value"], "00ff");
  EXPECT_EQ(cat("values[12]")["value"], json::array({1.0, -2.0}));
  EXPECT_EQ(cat("values[13][1][0]")["value"], "a");
  EXPECT_EQ(cat("size[1]")["value"], 5);
  EXPECT_EQ(cat("{7}/integer")["value"], "key");
  EXPECT_EQ(cat("optimizer/param_groups[0]/betas[1]")["value"], 0.999);
  EXPECT_EQ(cat("optimizer/state/{3}/step")["values"], json::array({1.0}));
}

TEST_F(InterchangeTest, FilesOfTheOldFormOfPyTorchMeanTheSameAsArchives) {
  import(golden_path("state.pt"), "0");
  import(golden_path("old_form.pt"), "1");
  EXPECT_EQ(leaves("1"), leaves("0"));
  const std::string archive = export_as("archive.pt", {}, "0");
  ASSERT_FALSE(archive.empty());
  EXPECT_TRUE(export_as("old.pt", {}, "1") == archive);
}

TEST_F(InterchangeTest, ArraysOfNumpyAreCOrderAndLittleEndianInAStore) {
  import(golden_path("c_order.npy"), "0");
  EXPECT_TRUE(run_stepstone({"cat", store(), "0", "", "--npy"}).output == golden("c_order.npy"));
  EXPECT_TRUE(export_as("out.npy") == golden("c_order.npy"));
  import(golden_path("big_endian.npy"), "1");
  EXPECT_EQ(cat("", "1")["values"], json::parse("[-9, -2, 5, 12, -4, 3, 10, -6, 1, 8]"));
  import(golden_path("fortran_order.npy"), "2");
  const json values = cat("", "2")["values"];
  ASSERT_EQ(values.size(), 60U);
  for (std::size_t i = 0; i < 60; ++i) {
    EXPECT_EQ(values[i], static_cast<double>(i * 7 % 23) - 9.0);
  }
}

TEST_F(InterchangeTest, WhatIsExportedIsTheSameWhenItIsImportedAgain) {
  import(golden_path("state.pt"), "0");
  const std::string first = export_as("first.pt");
  import(path("first.pt"), "1");
  EXPECT_EQ(leaves("1"), leaves("0"));
  EXPECT_TRUE(export_as("second.pt", {}, "1") == first);
  // The same as safetensors, of the tensors alone.
  EXPECT_TRUE(export_as("a.safetensors", {"--leaves", "model", "--leaves", "dtypes"}) ==
              export_as("b.safetensors", {"--leaves", "model", "--leaves", "dtypes"}, "1"));

  import(golden_path("stored.npz"), "2");
  const std::string expected = golden("stored.npz.expected.safetensors");
  for (const std::vector<std::string>& more : {std::vector<std::string>{}, {"--deflate"}}) {
    export_as("again.npz", more, "2");
    import(path("again.npz"), "3");
    EXPECT_TRUE(export_as("again.safetensors", {}, "3") == expected);
  }
  EXPECT_LT(export_as("small.npz", {"--deflate"}, "2").size(),
            export_as("large.npz", {}, "2").size());
}

TEST_F(InterchangeTest, ShardsAreAsLargeAsTheyMayBeAndMakeOneModelAgain) {
  import(golden_path("stored.npz"));
  const json answer =
      json::parse(run_stepstone({"export", store(), "0", "-o", path("m.safetensors"),
                                 "--shard-size", "150B", "--json"})
                      .output);
  EXPECT_EQ(answer["file_count"], 4);
  EXPECT_EQ(answer["file"], path("m.safetensors.index.json").native());
  EXPECT_FALSE(std::filesystem::exists(path("m.safetensors")));
  EXPECT_TRUE(std::filesystem::exists(path("m-00003-of-00003.safetensors")));
  const json index = json::parse(read_file(path("m.safetensors.index.json")));
  EXPECT_EQ(index["metadata"]["total_size"], 2293);
  EXPECT_EQ(index["weight_map"].size(), 8U);
  import(path("m.safetensors.index.json"), "1");
  EXPECT_TRUE(export_as("again.safetensors", {}, "1") == golden("stored.npz.expected.safetensors"));

  // A model that fits needs no index; shards are not replaced unasked.
  export_as("one.safetensors", {"--shard-size", "5GB"});
  EXPECT_TRUE(read_file(path("one.safetensors")) == golden("stored.npz.expected.safetensors"));
  EXPECT_NE(
      run_stepstone({"export", store(), "0", "-o", path("m.safetensors"), "--shard-size", "150B"})
          .error.find("--force"),
      std::string::npos);
}

TEST_F(InterchangeTest, CastLeavesLoseWidthAndNothingElse) {
  save_tree(path("run"), 0,
            Tree::dict({{"f", floats({1, 0.333333343F, 3e38F, -0.0F})}, {"n", Tree(7)}}));
  export_as("half.pt", {"--cast", "bfloat16"});
  import(path("half.pt"), "1");
  EXPECT_EQ(cat("f", "1")["dtype"], "bfloat16");
  EXPECT_EQ(cat("f", "1")["values"][1], 0.33398438);
  EXPECT_EQ(cat("n", "1")["value"], 7);
  export_as("half.npz", {"--cast", "float16", "--leaves", "f"});
  import(path("half.npz"), "2");
  EXPECT_EQ(cat("f", "2")["values"], json::parse(R"([1.0, 0.33325195, "inf", -0.0])"));
}

TEST_F(InterchangeTest, ChosenLeavesKeepTheirPlaces) {
  import(golden_path("state.pt"));
  export_as("some.pt", {"--leaves", "values[3]", "--leaves", "optimizer/param_groups[0]/params",
                        "--exclude", "optimizer/param_groups[0]/params[2]"});
  import(path("some.pt"), "1");
  std::vector<std::string> paths;
  for (const json& leaf : leaves("1")) paths.push_back(leaf["path"]);
  EXPECT_EQ(paths,
            (std::vector<std::string>{"optimizer/param_groups[0]/params/{0}",
                                      "optimizer/param_groups[0]/params/{1}",
                                      "optimizer/param_groups[0]/params/{3}", "values/{3}"}));
  EXPECT_NE(refusal("none.pt", {"--leaves", "nothing"}).find("no leaf"), std::string::npos);
  EXPECT_NE(refusal("none.pt", {"--leaves", "(", "--regex"}).find('('), std::string::npos);
}

TEST_F(InterchangeTest, WhatAFormatCannotHoldIsNamedBeforeAFileIsBegun) {
  import(golden_path("state.pt"));
  EXPECT_NE(refusal("x.npz").find("optimizer/param_groups[0]"), std::string::npos);
  EXPECT_NE(refusal("x.npz", {"--leaves", "dtypes"}).find("bfloat16"), std::string::npos);
  EXPECT_NE(refusal("x.npy").find("one array"), std::string::npos);
  EXPECT_NE(refusal("x.gguf", {"--leaves", "dtypes"}).find("GGUF has no dtype"), std::string::npos);
  EXPECT_NE(refusal("x.safetensors").find("arrays only"), std::string::npos);
  EXPECT_NE(refusal("x.npz", {"--shard-size", "1MB"}).find("--shard-size"), std::string::npos);
  EXPECT_NE(refusal("x.pt", {"--deflate"}).find("--deflate"), std::string::npos);
  EXPECT_NE(refusal("x.pt", {"--cast", "int8"}).find("int8"), std::string::npos);
  EXPECT_NE(refusal("x.pt", {"--shard-size", "many"}).find("many"), std::string::npos);
  EXPECT_NE(refusal("x.pt", {"--format", "hdf5"}).find("hdf5"), std::string::npos);
  EXPECT_NE(refusal("x.pt", {"--format", "safetensors-index"}).find("not one of"),
            std::string::npos);
}

TEST_F(InterchangeTest, TheFormatIsToldByTheFileOrByItsNameOrByTheUser) {
  write_file(path("unnamed"), golden("stored.npz.expected.safetensors"));
  import(path("unnamed"), "0");
  write_file(path("array"), golden("c_order.npy"));
  import(path("array"), "1");
  write_file(path("model.pth"), golden("state.pt"));
  import(path("model.pth"), "2");
  write_file(path("archive"), golden("stored.npz"));
  ASSERT_EQ(run_stepstone({"import", path("archive"), store(), "--step", "3", "--format", "npz"})
                .exit_code,
            0);
  EXPECT_EQ(leaves("3").size(), 8U);
  write_file(path("notes.txt"), "nothing of the kind");
  const CommandResult unknown =
      run_stepstone({"import", path("notes.txt"), store(), "--step", "4"});
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_NE(unknown.error.find("--format"), std::string::npos);
  write_file(path("model.gguf"), "GGUF and more");
  const CommandResult gguf = run_stepstone({"import", path("model.gguf"), store(), "--step", "4"});
  EXPECT_EQ(gguf.exit_code, 1);
  EXPECT_NE(gguf.error.find("GGUF"), std::string::npos) << gguf.error;
}

TEST_F(InterchangeTest, GgufFilesHaveTheirTensorsAlignedAndTheFastestAxisFirst) {
  save_tree(path("run"), 0, Tree::dict({{"a", floats({1, 2, 3})}, {"b", floats({4})}}));
  const std::string file = export_as("m.gguf");
  const std::string expected_head("GGUF\x03\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0", 24);
  EXPECT_EQ(file.substr(0, 24), expected_head);
  EXPECT_EQ(file.size() % 32, 0U);
  // Two tensors at the end, each in a place of 32 bytes.
  float first = 0;
  float last = 0;
  std::memcpy(&first, file.data() + file.size() - 64, sizeof first);
  std::memcpy(&last, file.data() + file.size() - 32, sizeof last);
  EXPECT_EQ(first, 1);
  EXPECT_EQ(last, 4);
}

TEST_F(InterchangeTest, GgufFilesComeBackByteForByte) {
  std::vector<std::pair<std::string, Tree>> arrays;
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBfloat16, DType::kFloat64,
                            DType::kInt8, DType::kInt16, DType::kInt32, DType::kInt64}) {
    for (const std::vector<std::uint64_t>& shape :
         {std::vector<std::uint64_t>{}, {0}, {3}, {2, 3}, {2, 3, 5, 7}}) {
      const NamedTensor tensor =
          random_tensor(fmt::format("{}.{}", to_string(dtype), fmt::join(shape, "x")), dtype, shape,
                        arrays.size());
      arrays.emplace_back(
          tensor.name,
          Array::copy_bytes(dtype, shape, std::as_bytes(std::span(tensor.bytes))).value());
    }
  }
  save_tree(path("run"), 0, Tree::dict(std::move(arrays)));
  const std::string file = export_as("m.gguf");
  import(path("m.gguf"), "1");
  EXPECT_EQ(run_stepstone({"diff", store() + ":0", "1"}).exit_code, 0);
  ASSERT_EQ(run_stepstone({"export", store(), "1", "-o", path("again.gguf")}).exit_code, 0);
  EXPECT_EQ(read_file(path("again.gguf")), file);
  // Some of it.
  const CommandResult part = run_stepstone(
      {"import", path("m.gguf"), store(), "--step", "2", "--leaves", "int*", "--json"});
  EXPECT_EQ(json::parse(part.output)["leaf_count"], 20) << part.output << part.error;
}

TEST_F(InterchangeTest, PortableFilesCarryStepsWholeOrInPart) {
  const Tree weights = Tree::dict({{"w", floats({1, 0.333333343F})}, {"b", floats({2})}});
  save_step(path("run"), 3, {{"params", weights}, {"opt", Tree::dict({{"mu", floats({9})}})}});
  save_step(path("run"), 5, {{"params", weights}});
  const std::string file = path("run.stone");
  ASSERT_EQ(run_stepstone({"export", store(), "-o", file}).exit_code, 0);
  const json all = json::parse(run_stepstone({"ls", file, "--json"}).output)["steps"];
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0]["items"].size(), 2U);
  EXPECT_NE(run_stepstone({"export", store(), "-o", file}).error.find("--force"),
            std::string::npos);

  ASSERT_EQ(run_stepstone({"import", file, path("copy")}).exit_code, 0);
  EXPECT_EQ(json::parse(run_stepstone({"diff", path("run").native() + ":5",
                                       path("copy").native() + ":5", "--json"})
                            .output)["equal"],
            true);
  EXPECT_NE(run_stepstone({"import", file, path("copy")}).error.find("--skip-existing"),
            std::string::npos);
  const json again = json::parse(
      run_stepstone({"import", file, path("copy"), "--skip-existing", "--json"}).output);
  EXPECT_EQ(again["skipped_count"], 2);

  // A part of one step, cast, under another number.
  const std::string part = path("part.stone");
  ASSERT_EQ(run_stepstone({"export", store(), "3", "-o", part, "--item", "params", "--leaves", "w",
                           "--cast", "bfloat16"})
                .exit_code,
            0);
  ASSERT_EQ(run_stepstone({"import", part, path("copy"), "--step", "9"}).exit_code, 0);
  const json shown = json::parse(run_stepstone({"show", path("copy"), "9", "--json"}).output);
  ASSERT_EQ(shown["leaves"].size(), 1U);
  EXPECT_EQ(shown["leaves"][0]["path"], "w");
  EXPECT_EQ(shown["leaves"][0]["dtype"], "bfloat16");
  // Any verb reads a portable file, and so does an export.
  EXPECT_EQ(
      run_stepstone({"export", part, "3", "-o", path("w.npz"), "--cast", "float16"}).exit_code, 1);
  EXPECT_EQ(run_stepstone({"export", part, "3", "-o", path("w.pt")}).exit_code, 0);
  EXPECT_NE(run_stepstone({"export", store(), "-o", path("w.pt")}).error.find("one step"),
            std::string::npos);
}

TEST_F(InterchangeTest, AListInAPortableFileIsWholeOrNotThere) {
  save_tree(path("run"), 0, Tree::dict({{"l", Tree::list({floats({1}), floats({2})})}}));
  const std::string file = path("x.stone");
  EXPECT_NE(
      run_stepstone({"export", store(), "0", "-o", file, "--leaves", "l[1]"}).error.find("list"),
      std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(file));
  EXPECT_EQ(run_stepstone({"export", store(), "0", "-o", file, "--leaves", "l"}).exit_code, 0);
}

// Against the obvious way: one element at a time.
TEST(StridedSource, GivesAnyRangeOfAnyViewAsElementByElement) {
  const std::uint64_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  for (int trial = 0; trial < 300; ++trial) {
    StridedLayout layout{.element_size_bytes = static_cast<std::uint32_t>(1U << random() % 4)};
    std::uint64_t reach = 1;
    std::uint64_t count = 1;
    for (std::size_t axis = 0; axis < 1 + random() % 4; ++axis) {
      layout.shape.push_back(1 + random() % 5);
      layout.strides.push_back(random() % 7 * (random() % 8 == 0 ? 100 : 1));
      reach += (layout.shape.back() - 1) * layout.strides.back();
      count *= layout.shape.back();
    }
    layout.first = random() % 3;
    if (random() % 4 == 0) layout.strides = fortran_strides(layout.shape), reach = count;
    const std::size_t width = layout.element_size_bytes;
    const std::string base = random_bytes((layout.first + reach) * width, random());
    std::string wanted;
    for (std::uint64_t element = 0; element < count; ++element) {
      std::uint64_t place = layout.first;
      std::uint64_t rest = element;
      for (std::size_t axis = layout.shape.size(); axis-- > 0;) {
        place += rest % layout.shape[axis] * layout.strides[axis];
        rest /= layout.shape[axis];
      }
      wanted += base.substr(place * width, width);
    }
    const StridedSource source(std::make_shared<MemorySource>(std::as_bytes(std::span(base))),
                               layout);
    for (int range = 0; range < 5; ++range) {
      const std::size_t offset = random() % wanted.size();
      const std::size_t size = 1 + random() % (wanted.size() - offset);
      std::vector<std::byte> scratch(size);
      const auto read = source.read(offset, size, scratch);
      ASSERT_TRUE(read.has_value());
      ASSERT_EQ(std::string(reinterpret_cast<const char*>(read->data()), size),
                wanted.substr(offset, size));
    }
  }
}

}  // namespace
}  // namespace stepstone::tool
