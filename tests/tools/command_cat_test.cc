// `cat`: a leaf as bytes, as .npy and as JSON; the real binary, as in command_test.cc.
#include <fcntl.h>
#include <unistd.h>

#include "tests/tools/command_support.h"
#include "tools/system.h"

namespace stepstone::tool {
namespace {

using nlohmann::json;

TEST_F(CommandTest, CatRawGivesTheBytesOfEveryLeaf) {
  import_samples();
  for (const NamedTensor& tensor : tensors_) {
    SCOPED_TRACE(text_path(tensor.name));
    const CommandResult result =
        run_stepstone({"cat", store(), "7", text_path(tensor.name), "--raw"});
    EXPECT_EQ(result.exit_code, 0) << result.error;
    EXPECT_EQ(result.output, tensor.bytes);
  }
}

TEST_F(CommandTest, CatNpyIsAHeadAndTheBytes) {
  import_samples();
  const NamedTensor& large = tensors_.back();
  const CommandResult result = run_stepstone({"cat", store(), "7", "large", "--npy"});
  EXPECT_EQ(result.exit_code, 0) << result.error;
  ASSERT_GT(result.output.size(), large.bytes.size());
  EXPECT_EQ(result.output.substr(result.output.size() - large.bytes.size()), large.bytes);
  EXPECT_EQ(result.output.substr(0, 6), "\x93NUMPY");
  EXPECT_NE(result.output.substr(0, 128).find("'shape': (1000, 333), "), std::string::npos);
}

TEST_F(CommandTest, CatNpyRefusesWhatNumpyLacks) {
  import_samples();
  expect_failure({"cat", store(), "7", "dtype.bfloat16", "--npy"}, 1, "bfloat16");
  expect_failure({"cat", store(), "7", "dtype.float8_e4m3fn", "--npy"}, 1, "float8_e4m3fn");
  expect_failure({"cat", store(), "7", "dtype.float4_e2m1fn", "--npy"}, 1, "float4_e2m1fn");
}

TEST_F(CommandTest, CatJsonHasDtypeShapeAndValues) {
  NamedTensor tensor{"w", DType::kInt16, {2, 3}, std::string(12, '\0')};
  for (std::size_t i = 0; i < 6; ++i) tensor.bytes[2 * i] = static_cast<char>(i * 10);
  write_file(path("in.safetensors"), safetensors_bytes({tensor}));
  ASSERT_EQ(run_stepstone({"import", path("in.safetensors"), store(), "--step", "7"}).exit_code, 0);
  EXPECT_EQ(answer_of({"cat", store(), "7", "w", "--json"}),
            json({{"step", 7},
                  {"item", "default"},
                  {"leaf", "w"},
                  {"kind", "array"},
                  {"dtype", "int16"},
                  {"shape", {2, 3}},
                  {"size_bytes", 12},
                  {"values", {0, 10, 20, 30, 40, 50}}}));
}

TEST_F(CommandTest, CatJsonHasAsManyValuesAsTheLeafHasElements) {
  import_samples();
  for (const NamedTensor& tensor : tensors_) {
    if (tensor.name == "large") continue;
    SCOPED_TRACE(text_path(tensor.name));
    const json answer = answer_of({"cat", store(), "7", text_path(tensor.name), "--json"});
    EXPECT_EQ(answer["leaf"], text_path(tensor.name));
    EXPECT_EQ(answer["dtype"], to_string(tensor.dtype));
    EXPECT_EQ(answer["values"].size(), element_count(tensor.shape));
  }
}

TEST_F(CommandTest, CatJsonOfALargeLeafNeedsForce) {
  import_samples();
  const CommandResult refused = run_stepstone({"cat", store(), "7", "large", "--json"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_EQ(json::parse(refused.output)["error"]["code"], "limit");
  const json answer = answer_of({"cat", store(), "7", "large", "--json", "--force"});
  EXPECT_EQ(answer["values"].size(), 333'000U);
}

TEST_F(CommandTest, CatStopsQuietlyWhenNobodyReads) {
  import_samples();
  int ends[2] = {-1, -1};
  ASSERT_EQ(::pipe(ends), 0);
  ::close(ends[0]);
  const CommandResult result = run_stepstone({"cat", store(), "7", "large", "--raw"}, ends[1]);
  ::close(ends[1]);
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.error, "");
}

TEST_F(CommandTest, CatFailsWhenTheOutputIsFull) {
  import_samples();
  const FileDescriptor full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  if (full.get() < 0) GTEST_SKIP() << "this machine has no /dev/full";
  const CommandResult result = run_stepstone({"cat", store(), "7", "large", "--raw"}, full.get());
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.error.find("standard output"), std::string::npos) << result.error;
}

TEST_F(CommandTest, CatJsonShowsLeavesThatAreNoArrays) {
  save_nested_items();
  const auto value = [&](const char* leaf) {
    return answer_of({"cat", store(), "3", leaf, "--json", "--item", "scalars"})["value"];
  };
  EXPECT_EQ(value(".text"), "h\xC3\xA9llo\n");
  EXPECT_EQ(value(".big"), "123456789012345678901234567890");
  EXPECT_EQ(value(".bytes"), "01ff");
  EXPECT_TRUE(value(".none").is_null());
  EXPECT_EQ(value(".count"), -2);
  expect_failure({"cat", store(), "3", ".text", "--npy", "--item", "scalars"}, 1, ".npy");
  const CommandResult scalar =
      run_stepstone({"cat", store(), "3", ".count", "--npy", "--item", "scalars"});
  EXPECT_EQ(scalar.exit_code, 0) << scalar.error;
  EXPECT_NE(scalar.output.find("'<i8', 'fortran_order': False, 'shape': ()"), std::string::npos);
}

}  // namespace
}  // namespace stepstone::tool
