// Goal: the command does what its manual says, for people and for programs. Method: the real binary
// is run in a temporary directory on files and stores made here.
#include <fmt/format.h>

#include "api/checkpoint_manager.h"
#include "engine/store.h"
#include "tests/tools/command_support.h"
#include "tests/tools/store_support.h"

namespace stepstone::tool {
namespace {

using nlohmann::json;

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

TEST_F(CommandTest, LsTellsWhyStepsAreKept) {
  {
    const auto policy = std::make_shared<AnyPreservationPolicy>(
        PreservationPolicies{std::make_shared<LatestN>(2), std::make_shared<EveryNSteps>(4)});
    const auto manager = CheckpointManager::open(store(), {.preservation_policy = policy}).value();
    for (std::uint64_t step = 1; step <= 6; ++step) {
      ASSERT_TRUE(manager->save(step, args::StandardSave(Tree(1))));
    }
    ASSERT_TRUE(manager->close());
  }
  const json answer = answer_of({"ls", store(), "--json"});
  EXPECT_EQ(answer["rules"], json({{{"words", "the newest 2"}, {"is_known", true}},
                                   {{"words", "multiples of 4"}, {"is_known", true}}}));
  ASSERT_EQ(answer["steps"].size(), 3U);
  EXPECT_EQ(answer["steps"][0]["kept_by"], json({"multiples of 4"}));
  EXPECT_EQ(answer["steps"][1]["kept_by"], json({"the newest 2"}));
  EXPECT_EQ(answer["steps"][2]["kept_by"], json({"the newest 2"}));
  const CommandResult text = run_stepstone({"ls", store()});
  EXPECT_NE(text.output.find("; kept: the newest 2 and multiples of 4\n"), std::string::npos)
      << text.output;
}

TEST_F(CommandTest, LsShowsMetricsWhereThereAreSome) {
  save_tree(store(), 1, Tree(1));
  EXPECT_EQ(run_stepstone({"ls", store()}).output.find("METRICS"), std::string::npos);
  const std::string numbers = R"({"loss": 0.5})";
  save_tree(store(), 2, Tree(1), {.metrics = numbers});
  save_tree(store(), 3, Tree(1), {.metrics = R"({"note": ")" + std::string(500, 'a') + "\"}"});
  const std::string text = run_stepstone({"ls", store()}).output;
  EXPECT_NE(text.find("ITEMS    METRICS\n"), std::string::npos) << text;
  EXPECT_NE(text.find("  default\n"), std::string::npos) << text;
  EXPECT_NE(text.find("  default  " + numbers + "\n"), std::string::npos) << text;
  EXPECT_NE(text.find("aaa...\n"), std::string::npos) << text;
  EXPECT_EQ(text.find(std::string(200, 'a')), std::string::npos) << text;
  // It is cut between characters, wherever these stand.
  for (const char* const indent : {"", " "}) {
    save_tree(store(), 4, Tree(1),
              {.overwrite = true,
               .metrics = fmt::format(R"({{{}"":"{}"}})", indent, repeated("\u00e9", 100))});
    const std::string cut = run_stepstone({"ls", store()}).output;
    EXPECT_NE(cut.find("\u00e9...\n"), std::string::npos) << cut;
  }
  const json answer = answer_of({"ls", store(), "--json"});
  EXPECT_EQ(answer["steps"][0]["metrics"], nullptr);
  EXPECT_EQ(answer["steps"][1]["metrics"], numbers);
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
