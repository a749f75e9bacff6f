// `import` and `export` of safetensors; the real binary, as in command_test.cc.
#include <sys/stat.h>

#include "tests/tools/command_support.h"

namespace stepstone::tool {
namespace {

using nlohmann::json;

TEST_F(CommandTest, ExportGivesTheImportedFileBack) {
  import_samples();
  const CommandResult result =
      run_stepstone({"export", store(), "7", "-o", path("out.safetensors")});
  EXPECT_EQ(result.exit_code, 0) << result.error;
  EXPECT_EQ(read_file(path("out.safetensors")), read_file(path("in.safetensors")));
}

TEST_F(CommandTest, ExportPutsAFileInAnyOrderIntoTheCanonicalOne) {
  std::vector<NamedTensor> reversed(tensors_.rbegin(), tensors_.rend());
  write_file(path("in.safetensors"), safetensors_bytes(reversed, metadata_));
  ASSERT_EQ(run_stepstone({"import", path("in.safetensors"), store(), "--step", "7"}).exit_code, 0);
  ASSERT_EQ(run_stepstone({"export", store(), "7", "-o", path("out.safetensors")}).exit_code, 0);
  EXPECT_EQ(read_file(path("out.safetensors")), canonical_safetensors_bytes(tensors_, metadata_));

  // The store itself keeps the file's order.
  const json shown = answer_of({"show", store(), "7", "--json"});
  ASSERT_EQ(shown["leaves"].size(), reversed.size());
  for (std::size_t i = 0; i < reversed.size(); ++i) {
    EXPECT_EQ(shown["leaves"][i]["path"], text_path(reversed[i].name));
  }
}

TEST_F(CommandTest, FileWithoutTensorsOrMetadataComesBack) {
  for (const auto& metadata : {std::optional<SafetensorsMetadata>(),
                               std::optional<SafetensorsMetadata>(SafetensorsMetadata())}) {
    const std::string bytes = safetensors_bytes({}, metadata);
    write_file(path("in.safetensors"), bytes);
    const CommandResult import =
        run_stepstone({"import", path("in.safetensors"), store(), "--step", "7", "--overwrite"});
    ASSERT_EQ(import.exit_code, 0) << import.error;
    ASSERT_EQ(
        run_stepstone({"export", store(), "7", "-o", path("out.safetensors"), "--force"}).exit_code,
        0);
    EXPECT_EQ(read_file(path("out.safetensors")), bytes);
  }
}

TEST_F(CommandTest, ImportAnswersInJson) {
  write_file(path("in.safetensors"), canonical_safetensors_bytes(tensors_));
  const json answer = answer_of(
      {"import", path("in.safetensors"), store(), "--step", "7", "--item", "weights", "--json"});
  std::uint64_t size_bytes = 0;
  for (const NamedTensor& tensor : tensors_) size_bytes += tensor.bytes.size();
  EXPECT_EQ(answer["store"], store());
  EXPECT_EQ(answer["step"], 7);
  EXPECT_EQ(answer["item"], "weights");
  EXPECT_EQ(answer["leaf_count"], tensors_.size());
  EXPECT_EQ(answer["size_bytes"], size_bytes);
  EXPECT_GT(answer["committed_unix_ns"], 0);
}

TEST_F(CommandTest, ImportKeepsAnExistingStepUnlessToldOtherwise) {
  import_samples();
  const NamedTensor other = random_tensor("other", DType::kUint8, {3}, 1);
  write_file(path("other.safetensors"), safetensors_bytes({other}));
  expect_failure({"import", path("other.safetensors"), store(), "--step", "7"}, 1, "--overwrite");
  EXPECT_EQ(run_stepstone({"cat", store(), "7", "large", "--raw"}).output, tensors_.back().bytes);

  const CommandResult result =
      run_stepstone({"import", path("other.safetensors"), store(), "--step", "7", "--overwrite"});
  EXPECT_EQ(result.exit_code, 0) << result.error;
  EXPECT_EQ(run_stepstone({"cat", store(), "7", "other", "--raw"}).output, other.bytes);
  expect_failure({"cat", store(), "7", "large", "--raw"}, 1, "'large'");
}

TEST_F(CommandTest, ImportOfABadFileCreatesNoStore) {
  const std::string good = canonical_safetensors_bytes(tensors_);
  write_file(path("in.safetensors"), std::string_view(good).substr(0, good.size() - 1));
  expect_failure({"import", path("in.safetensors"), store(), "--step", "7"}, 1, "in.safetensors");
  expect_failure({"import", path("nothing"), store(), "--step", "7"}, 1, "nothing");
  EXPECT_FALSE(std::filesystem::exists(store()));
}

TEST_F(CommandTest, ImportLeavesADirectoryOfOtherThingsAlone) {
  write_file(path("in.safetensors"), canonical_safetensors_bytes(tensors_));
  std::filesystem::create_directory(path("photos"));
  write_file(path("photos/cat.jpg"), "meow");
  const CommandResult result =
      run_stepstone({"import", path("in.safetensors"), path("photos"), "--step", "7"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path("photos")), {}), 1);
}

TEST_F(CommandTest, ExportReplacesAFileOnlyWithForce) {
  import_samples();
  write_file(path("out.safetensors"), "precious");
  expect_failure({"export", store(), "7", "-o", path("out.safetensors")}, 1, "--force");
  EXPECT_EQ(read_file(path("out.safetensors")), "precious");
  const CommandResult result =
      run_stepstone({"export", store(), "7", "-o", path("out.safetensors"), "--force"});
  EXPECT_EQ(result.exit_code, 0) << result.error;
  EXPECT_EQ(read_file(path("out.safetensors")), read_file(path("in.safetensors")));
}

TEST_F(CommandTest, ExportThroughASymbolicLinkReplacesItsTarget) {
  import_samples();
  write_file(path("target"), "old");
  std::filesystem::create_symlink(path("target"), path("link"));
  const CommandResult result =
      run_stepstone({"export", store(), "7", "-o", path("link"), "--force"});
  EXPECT_EQ(result.exit_code, 0) << result.error;
  EXPECT_TRUE(std::filesystem::is_symlink(path("link")));
  EXPECT_EQ(read_file(path("target")), read_file(path("in.safetensors")));
}

TEST_F(CommandTest, ExportRefusesADestinationThatIsNoFile) {
  import_samples();
  std::filesystem::create_directory(path("out"));
  expect_failure({"export", store(), "7", "-o", path("out"), "--force"}, 1, "regular file");
  expect_failure({"export", store(), "7", "-o", path("no/such/directory")}, 1, "no/such");
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  expect_failure({"export", store(), "7", "-o", path("pipe"), "--force"}, 1, "regular file");
}

TEST_F(CommandTest, FailedExportLeavesNothingBehind) {
  save_nested_items();
  const auto count = [&] {
    return std::distance(std::filesystem::directory_iterator(path("")), {});
  };
  const auto before = count();
  expect_failure({"export", store(), "3", "-o", path("out.safetensors"), "--item", "scalars"}, 1,
                 "safetensors");
  EXPECT_EQ(count(), before);
}

TEST_F(CommandTest, ExportAnswersInJson) {
  import_samples();
  const json answer = answer_of({"export", store(), "7", "-o", path("out.safetensors"), "--json"});
  EXPECT_EQ(answer["step"], 7);
  EXPECT_EQ(answer["item"], "default");
  EXPECT_EQ(answer["file"], path("out.safetensors").string());
  EXPECT_EQ(answer["tensor_count"], tensors_.size());
  EXPECT_EQ(answer["file_size_bytes"], std::filesystem::file_size(path("out.safetensors")));
}

TEST_F(CommandTest, ExportJoinsNestedNames) {
  save_nested_items();
  const CommandResult result =
      run_stepstone({"export", store(), "3", "-o", path("out.safetensors"), "--item", "model"});
  ASSERT_EQ(result.exit_code, 0) << result.error;
  const std::vector<std::uint64_t> shape = {4};
  EXPECT_EQ(read_file(path("out.safetensors")),
            canonical_safetensors_bytes({{"layers.0", DType::kUint8, shape, "w0w0"},
                                         {"layers.1", DType::kUint8, shape, "w1w1"},
                                         {"bias", DType::kUint8, shape, "bias"}}));
}

TEST_F(CommandTest, ExportNamesTheLeavesThatItCannotHold) {
  save_nested_items();
  const std::string out = path("out.safetensors");
  expect_failure({"export", store(), "3", "-o", out, "--item", "collision"}, 1,
                 "leaves 'a/b' and 'a.b' would both be the tensor 'a.b'");
  expect_failure({"export", store(), "3", "-o", out, "--item", "scalars"}, 1, "leaf '.");
  expect_failure({"export", store(), "3", "-o", out, "--item", "alone"}, 1, "without a name");
}

}  // namespace
}  // namespace stepstone::tool
