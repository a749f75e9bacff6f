// Goal: the command does what its manual says, for people and for programs. Method: the real binary
// is run in a temporary directory on files and stores made here.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "engine/store.h"
#include "tests/tools/support.h"
#include "tools/system.h"

namespace stepstone::tool {
namespace {

using nlohmann::json;

// Tensors of every dtype of safetensors, with names and shapes that are hard on a tool.
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

class CommandTest : public TemporaryDirectoryTest {
 protected:
  static constexpr std::uint64_t kSeed = 42;

  std::string store() const { return path("run").string(); }

  // Imports every_kind_of_tensor() as step 7.
  void import_samples() const {
    write_file(path("in.safetensors"), canonical_safetensors_bytes(tensors_, metadata_));
    const CommandResult result =
        run_stepstone({"import", path("in.safetensors"), store(), "--step", "7"});
    ASSERT_EQ(result.exit_code, 0) << result.error;
  }

  // Two items with a nested tree, among them leaves that are no arrays, as step 3.
  void save_nested_items() const;

  json answer_of(const std::vector<std::string>& arguments) const {
    const CommandResult result = run_stepstone(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.error;
    EXPECT_EQ(result.error, "");
    return json::parse(result.output, nullptr, /*allow_exceptions=*/false);
  }

  void expect_failure(const std::vector<std::string>& arguments, int exit_code,
                      std::string_view words) const {
    const CommandResult result = run_stepstone(arguments);
    EXPECT_EQ(result.exit_code, exit_code);
    EXPECT_EQ(result.error.substr(0, 11), "stepstone: ");
    EXPECT_NE(result.error.find(words), std::string::npos) << result.error;
    EXPECT_EQ(result.error.find('\n'), result.error.size() - 1) << result.error;
    EXPECT_EQ(result.output, "");
  }

  const std::vector<NamedTensor> tensors_ = every_kind_of_tensor(kSeed);
  const SafetensorsMetadata metadata_ = {{"format", "pt"}, {"b", "\"\\\n"}, {"a", "\xC3\xA9"}};
};

std::string text_path(const std::string& name) { return to_text({PathComponent::key(name)}); }

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

TEST_F(CommandTest, LsListsTheStepsForPeopleAndPrograms) {
  import_samples();
  ASSERT_EQ(run_stepstone({"import", path("in.safetensors"), store(), "--step", "100"}).exit_code,
            0);
  const json answer = answer_of({"ls", store(), "--json"});
  EXPECT_EQ(answer["store"], store());
  ASSERT_EQ(answer["steps"].size(), 2U);
  EXPECT_EQ(answer["steps"][0]["step"], 7);
  EXPECT_EQ(answer["steps"][1]["step"], 100);
  const json& step = answer["steps"][1];
  EXPECT_GT(step["committed_unix_ns"], 0);
  EXPECT_EQ(step["leaf_count"], tensors_.size());
  ASSERT_EQ(step["items"].size(), 1U);
  EXPECT_EQ(step["items"][0]["name"], "default");
  EXPECT_EQ(step["items"][0]["handler"], "standard");
  EXPECT_EQ(step["items"][0]["leaf_count"], tensors_.size());
  EXPECT_EQ(step["items"][0]["size_bytes"], step["size_bytes"]);

  const CommandResult text = run_stepstone({"ls", store()});
  EXPECT_EQ(text.exit_code, 0);
  EXPECT_NE(text.output.find("STEP"), std::string::npos);
  EXPECT_NE(text.output.find("\n   7  "), std::string::npos) << text.output;
  EXPECT_NE(text.output.find("\n 100  "), std::string::npos) << text.output;
  EXPECT_NE(text.output.find("\n2 steps, "), std::string::npos) << text.output;
}

TEST_F(CommandTest, DuTellsWhatStepsTakeAloneAndTogether) {
  import_samples();
  ASSERT_EQ(run_stepstone({"import", path("in.safetensors"), store(), "--step", "100"}).exit_code,
            0);
  json answer = answer_of({"du", store(), "--json"});
  ASSERT_EQ(answer["steps"].size(), 2U);
  // The one tensor that is large enough is the same in both.
  const std::uint64_t large = sizeof(float) * 1000 * 333;
  EXPECT_EQ(answer["steps"][0]["step"], 7);
  EXPECT_EQ(answer["steps"][0]["size_bytes"], answer["steps"][1]["size_bytes"]);
  EXPECT_GT(answer["steps"][0]["stored_bytes"], large / 2);
  EXPECT_EQ(answer["steps"][0]["shared_bytes"], 0);
  EXPECT_GT(answer["steps"][1]["shared_bytes"], large / 2);
  EXPECT_LT(answer["steps"][1]["stored_bytes"], large / 2);
  EXPECT_EQ(answer["hidden_bytes"], 0);
  const CommandResult text = run_stepstone({"du", store()});
  EXPECT_EQ(text.exit_code, 0) << text.error;
  EXPECT_NE(text.output.find("\n 100  "), std::string::npos) << text.output;
  EXPECT_NE(text.output.find(" reclaimable\n"), std::string::npos) << text.output;

  ASSERT_EQ(run_stepstone({"rm", store(), "7"}).exit_code, 0);
  answer = answer_of({"du", store(), "--json"});
  ASSERT_EQ(answer["steps"].size(), 1U);
  EXPECT_GT(answer["hidden_bytes"], large / 2);
  EXPECT_LT(answer["reclaimable_bytes"], large / 8);
  EXPECT_EQ(run_stepstone({"verify", store()}).exit_code, 0);
}

TEST_F(CommandTest, ShowListsTheLeavesForPeopleAndPrograms) {
  import_samples();
  const json answer = answer_of({"show", store(), "7", "--json"});
  EXPECT_EQ(answer["step"], 7);
  EXPECT_EQ(answer["item"], "default");
  EXPECT_EQ(answer["handler"], "standard");
  EXPECT_EQ(answer["leaf_count"], tensors_.size());
  EXPECT_EQ(answer["damaged_count"], 0);
  EXPECT_EQ(json::parse(answer["item_metadata"].get<std::string>())["safetensors"]["format"], "pt");
  EXPECT_TRUE(answer["metrics"].is_null());
  ASSERT_EQ(answer["containers"].size(), 1U);
  EXPECT_EQ(answer["containers"][0], json({{"path", ""},
                                           {"kind", "dict"},
                                           {"type_name", nullptr},
                                           {"child_count", tensors_.size()}}));
  std::uint64_t size_bytes = 0;
  for (const json& leaf : answer["leaves"]) size_bytes += leaf["size_bytes"].get<std::uint64_t>();
  EXPECT_EQ(answer["size_bytes"], size_bytes);

  const CommandResult text = run_stepstone({"show", store(), "7"});
  EXPECT_EQ(text.exit_code, 0);
  EXPECT_NE(text.output.find("(1000, 333)"), std::string::npos);
  EXPECT_NE(text.output.find(fmt::format("\n{} leaves, ", tensors_.size())), std::string::npos);
}

TEST_F(CommandTest, NamesCannotSendEscapesToATerminal) {
  const std::string evil = "\x1b[2J\x07\xc2\x9b";
  write_file(path("in.safetensors"),
             safetensors_bytes({random_tensor(evil, DType::kUint8, {4}, 1)}));
  const std::string evil_store = path("run" + evil).string();
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"import", path("in.safetensors"), evil_store, "--step", "1",
                                 "--item", evil},
        {"ls", evil_store},
        {"ls", evil_store, "--json"},
        {"du", evil_store},
        {"du", evil_store, "--json"},
        {"show", evil_store, "1"},
        {"show", evil_store, "1", "--json"},
        {"cat", evil_store, "1", evil, "--json"},
        {"cat", evil_store, "1", "x" + evil, "--json"},
        {"cat", evil_store, evil, "x", "--json"},
        {"export", evil_store, "1", "-o", path(evil)},
        {"export", evil_store, "1", "-o", path(evil)},
        {"verify", evil_store},
        {"rm", evil_store, "2"},
        {evil}}) {
    const CommandResult result = run_stepstone(arguments);
    SCOPED_TRACE(arguments.front());
    EXPECT_FALSE(result.output.empty() && result.error.empty());
    for (const std::string& text : {result.output, result.error}) {
      EXPECT_EQ(text.find('\x1b'), std::string::npos);
      EXPECT_EQ(text.find('\x07'), std::string::npos);
      EXPECT_EQ(text.find('\x9b'), std::string::npos);
    }
  }
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

void put_leaf(StepWriter& writer, std::string_view item, const LeafPath& leaf, LeafInfo info,
              std::string_view bytes) {
  info.size_bytes = bytes.size();
  const Result<std::string> encoded = encode_path(leaf);
  ASSERT_TRUE(encoded.has_value());
  const auto result = writer.put_leaf(
      item, *encoded, info, std::make_shared<MemorySource>(std::as_bytes(std::span(bytes))));
  ASSERT_TRUE(result.has_value()) << result.error().message;
}

// "model": {"layers": [w, w], "bias": b}; "collision": {"a.b": x, "a": {"b": y}}; "scalars": a
// custom node with a string, a big integer, bytes and None; "alone": one leaf.
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

TEST_F(CommandTest, SeveralItemsHaveToBeChosenFrom) {
  save_nested_items();
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"show", store(), "3"},
                                                    {"cat", store(), "3", "bias", "--raw"},
                                                    {"export", store(), "3", "-o", path("out")}}) {
    expect_failure(arguments, 1, "'alone', 'collision', 'model', 'scalars'");
  }
  expect_failure({"show", store(), "3", "--item", "nothing"}, 1, "'alone', 'collision'");
  EXPECT_EQ(run_stepstone({"cat", store(), "3", "bias", "--raw", "--item", "model"}).output,
            "bias");
}

TEST_F(CommandTest, NestedPathsAreTakenAsTheyAreShown) {
  save_nested_items();
  const json model = answer_of({"show", store(), "3", "--item", "model", "--json"});
  EXPECT_EQ(model["metrics"], R"({"loss":1})");
  ASSERT_EQ(model["containers"].size(), 2U);
  EXPECT_EQ(model["containers"][1]["path"], "layers");
  EXPECT_EQ(model["containers"][1]["kind"], "list");
  const json scalars = answer_of({"show", store(), "3", "--item", "scalars", "--json"});
  EXPECT_EQ(scalars["containers"][0]["kind"], "custom");
  EXPECT_EQ(scalars["containers"][0]["type_name"], "State");
  EXPECT_EQ(scalars["leaves"][0]["kind"], to_string(LeafKind::kString));
  EXPECT_TRUE(scalars["leaves"][0]["dtype"].is_null());
  for (const char* item : {"model", "scalars", "collision", "alone"}) {
    const json shown = answer_of({"show", store(), "3", "--item", item, "--json"});
    for (const json& leaf : shown["leaves"]) {
      const CommandResult result =
          run_stepstone({"cat", store(), "3", leaf["path"], "--raw", "--item", item});
      EXPECT_EQ(result.exit_code, 0) << result.error;
      EXPECT_EQ(result.output.size(), leaf["size_bytes"]);
    }
  }
  EXPECT_EQ(run_stepstone({"cat", store(), "3", "layers[1]", "--raw", "--item", "model"}).output,
            "w1w1");
  EXPECT_EQ(run_stepstone({"cat", store(), "3", "", "--raw", "--item", "alone"}).output, "solo");
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

TEST_F(CommandTest, RmRemovesTheStepsOrNone) {
  import_samples();
  for (const char* step : {"8", "9"}) {
    ASSERT_EQ(run_stepstone({"import", path("in.safetensors"), store(), "--step", step}).exit_code,
              0);
  }
  expect_failure({"rm", store(), "7", "6"}, 1, "step 6");
  EXPECT_EQ(answer_of({"ls", store(), "--json"})["steps"].size(), 3U);
  const json answer = answer_of({"rm", store(), "9", "7", "9", "--json"});
  EXPECT_EQ(answer["removed"], json({7, 9}));
  EXPECT_EQ(answer["remaining_step_count"], 1);
  EXPECT_EQ(answer_of({"ls", store(), "--json"})["steps"].size(), 1U);
  const CommandResult last = run_stepstone({"rm", store(), "8"});
  EXPECT_EQ(last.exit_code, 0) << last.error;
  EXPECT_EQ(run_stepstone({"ls", store()}).output, "no steps\n");
}

TEST_F(CommandTest, RecompressEncodesStepsAndKeepsWhatTheyHold) {
  // Numbers that all have the same exponent.
  NamedTensor numbers = random_tensor("numbers", DType::kFloat32, {256, 1024}, kSeed);
  for (std::size_t i = 3; i < numbers.bytes.size(); i += 4) numbers.bytes[i] = '\x3f';
  const std::string bytes = canonical_safetensors_bytes({numbers}, {});
  write_file(path("numbers.safetensors"), bytes);
  {
    const auto store = *Store::open(this->store(), {.create_if_missing = true});
    for (const std::uint64_t step : {1U, 2U}) {
      const auto writer = *store->begin_save(step, {.compression = Compression::kNone});
      TreeStructure structure;
      structure.kinds = {NodeKind::kDict, NodeKind::kLeaf};
      structure.child_counts = {1};
      append_component(structure.labels, PathComponent::key("numbers"));
      ASSERT_TRUE(writer->put_item("default", "standard", structure));
      ASSERT_TRUE(writer->put_leaf(
          "default", *encode_path({PathComponent::key("numbers")}),
          {.kind = LeafKind::kArray,
           .dtype = DType::kFloat32,
           .shape = {256, 1024},
           .size_bytes = numbers.bytes.size(),
           .compression = {}},
          std::make_shared<MemorySource>(std::as_bytes(std::span(numbers.bytes)))));
      ASSERT_TRUE(writer->commit());
    }
  }
  expect_failure({"recompress", store(), "1", "3"}, 1, "step 3");
  const auto stored_bytes = [&] {
    return answer_of({"du", store(), "--json"})["stored_bytes"].get<std::uint64_t>();
  };
  const std::uint64_t before = stored_bytes();
  const json answer = answer_of({"recompress", store(), "2", "1", "--json"});
  ASSERT_EQ(answer["steps"].size(), 2U);
  EXPECT_EQ(answer["steps"][0]["step"], 1);
  EXPECT_EQ(answer["steps"][0]["replaced"], true);
  EXPECT_EQ(answer["steps"][0]["bytes_before"], numbers.bytes.size());
  EXPECT_LT(answer["steps"][0]["bytes_after"], numbers.bytes.size() * 9 / 10);
  EXPECT_EQ(answer["steps"][1]["replaced"], true);  // It refers to what step 1 has now.
  EXPECT_LT(stored_bytes(), before * 9 / 10);
  for (const char* step : {"1", "2"}) {
    EXPECT_EQ(run_stepstone({"cat", store(), step, "numbers", "--raw"}).output, numbers.bytes);
  }
  EXPECT_EQ(run_stepstone({"recompress", store()}).output,
            "step 1: left as it is\nstep 2: left as it is\n");
  EXPECT_EQ(run_stepstone({"verify", store()}).exit_code, 0);
}

TEST_F(CommandTest, MissingThingsAreNamed) {
  expect_failure({"ls", path("nowhere")}, 1, "nowhere");
  EXPECT_FALSE(std::filesystem::exists(path("nowhere")));
  expect_failure({"rm", path("nowhere"), "1"}, 1, "nowhere");
  EXPECT_FALSE(std::filesystem::exists(path("nowhere")));
  import_samples();
  expect_failure({"show", store(), "8"}, 1, "step 8");
  expect_failure({"verify", store(), "--step", "8"}, 1, "step 8");
  expect_failure({"export", store(), "8", "-o", path("out")}, 1, "step 8");
  expect_failure({"cat", store(), "7", "nothing", "--raw"}, 1, "'nothing'");
}

TEST_F(CommandTest, StoreThatIsBeingWrittenIsBusyForWritersAndOpenForReaders) {
  import_samples();
  const auto writer = Store::open(store(), {});
  ASSERT_TRUE(writer.has_value()) << writer.error().message;
  const CommandResult result = run_stepstone({"rm", store(), "7", "--json"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(json::parse(result.output)["error"]["code"], "busy");
  EXPECT_EQ(run_stepstone({"cat", store(), "7", "large", "--raw"}).output, tensors_.back().bytes);
}

TEST_F(CommandTest, WrongCommandLinesExitWithTwo) {
  import_samples();
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {},
           {"frobnicate"},
           {"ls"},
           {"ls", store(), "--nonsense"},
           {"ls", store(), "too", "many"},
           {"du"},
           {"show", store()},
           {"show", store(), "seven"},
           {"show", store(), "-7"},
           {"show", store(), "7.0"},
           {"show", store(), "0x7"},
           {"show", store(), " 7"},
           {"show", store(), ""},
           {"show", store(), "9223372036854775808"},
           {"show", store(), "18446744073709551623"},
           {"cat", store(), "7", "large"},
           {"cat", store(), "7", "large", "--raw", "--npy"},
           {"cat", store(), "7", "a//b", "--raw"},
           {"cat", store(), "7", "a[x]", "--raw"},
           {"export", store(), "7"},
           {"import", path("in.safetensors"), store()},
           {"import", path("in.safetensors"), store(), "--step", "x"},
           {"rm", store()},
           {"rm", store(), "7", "x"},
       }) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(arguments, " ")));
    expect_failure(arguments, 2, "--help");
  }
  // A step with leading zeros is decimal.
  EXPECT_EQ(answer_of({"show", store(), "007", "--json"})["step"], 7);
}

TEST_F(CommandTest, ErrorsAreObjectsForPrograms) {
  const CommandResult missing = run_stepstone({"ls", path("nowhere"), "--json"});
  EXPECT_EQ(missing.exit_code, 1);
  const json error = json::parse(missing.output)["error"];
  EXPECT_EQ(error["code"], "not_found");
  EXPECT_EQ("stepstone: " + error["message"].get<std::string>() + "\n", missing.error);
  const CommandResult usage = run_stepstone({"ls", "--json"});
  EXPECT_EQ(usage.exit_code, 2);
  EXPECT_EQ(json::parse(usage.output)["error"]["code"], "usage");
}

TEST_F(CommandTest, HelpTeachesEachVerbByExample) {
  const CommandResult help = run_stepstone({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_EQ(help.error, "");
  for (const std::string verb :
       {"import", "ls", "show", "cat", "export", "verify", "rm", "recompress"}) {
    EXPECT_NE(help.output.find("\n  " + verb + " "), std::string::npos) << verb;
    const CommandResult verb_help = run_stepstone({verb, "--help"});
    EXPECT_EQ(verb_help.exit_code, 0) << verb;
    EXPECT_NE(verb_help.output.find("Examples:\n  stepstone " + verb), std::string::npos) << verb;
  }
}

TEST_F(CommandTest, VersionIsTheProjects) {
  const CommandResult result = run_stepstone({"--version"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.output, "stepstone " STEPSTONE_VERSION "\n");
}

}  // namespace
}  // namespace stepstone::tool
