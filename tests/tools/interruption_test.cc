// Goal: Ctrl-C leaves nothing half done, and what was begun can be gone on with. Method: the real
// binary gets SIGINT when a file shows that it is under way; what it left is looked at, and the
// same command run again.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "tests/tools/store_support.h"
#include "tests/tools/support.h"

namespace stepstone::tool {
namespace {

using nlohmann::json;

// The command, running.
class Running {
 public:
  explicit Running(std::vector<std::string> arguments, const std::string& output = "/dev/null") {
    arguments.insert(arguments.begin(), STEPSTONE_BINARY);
    std::vector<char*> pointers;
    pointers.reserve(arguments.size() + 1);
    for (std::string& word : arguments) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output.c_str(),
                                       O_WRONLY | O_CREAT | O_TRUNC, 0666);
    ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    EXPECT_EQ(::posix_spawn(&child_, STEPSTONE_BINARY, &actions, nullptr, pointers.data(), environ),
              0);
    ::posix_spawn_file_actions_destroy(&actions);
  }

  bool has_ended() {
    if (!status_) {
      int status = 0;
      if (::waitpid(child_, &status, WNOHANG) == child_) status_ = status;
    }
    return status_.has_value();
  }

  // Until `is_under_way`, or until it has ended.
  template <typename Condition>
  void interrupt_when(Condition is_under_way) {
    while (!has_ended() && !is_under_way()) std::this_thread::yield();
    if (!has_ended()) ::kill(child_, SIGINT);
  }

  // Its exit code, or 128 + the signal that ended it.
  int wait() {
    int status = 0;
    if (!status_ && ::waitpid(child_, &status, 0) == child_) status_ = status;
    const int ended = status_.value_or(-1);
    return WIFEXITED(ended) ? WEXITSTATUS(ended) : 128 + WTERMSIG(ended);
  }

 private:
  pid_t child_ = 0;
  std::optional<int> status_;
};

class InterruptionTest : public TemporaryDirectoryTest {
 protected:
  // Three steps of 12 MB, which have nothing in common.
  InterruptionTest() {
    for (const std::uint64_t step : {1U, 2U, 3U}) {
      std::vector<std::pair<std::string, Tree>> leaves;
      for (std::size_t leaf = 0; leaf < 3; ++leaf) {
        const std::string bytes = random_bytes(std::size_t{4} << 20, step * 10 + leaf);
        leaves.emplace_back(
            fmt::format("w{}", leaf),
            Array::copy_bytes(DType::kUint8, {bytes.size()}, std::as_bytes(std::span(bytes)))
                .value());
      }
      save_tree(path("run"), step, Tree::dict(std::move(leaves)));
    }
  }

  std::string store() const { return path("run").string(); }

  static json answer_of(std::vector<std::string> arguments, int exit_code = 0) {
    arguments.emplace_back("--json");
    const CommandResult result = run_stepstone(arguments);
    EXPECT_EQ(result.exit_code, exit_code) << result.error;
    return json::parse(result.output, nullptr, /*allow_exceptions=*/false);
  }

  bool exists(std::string_view name) const { return std::filesystem::exists(path(name)); }
};

constexpr std::uint64_t kSizeBytes = std::uint64_t{9} * (4 << 20);

TEST_F(InterruptionTest, VerificationGoesOnFromWhereItWas) {
  const std::string state = path("state").string();
  Running slow({"verify", store(), "--max-mb-per-second", "1", "--resume-file", state});
  slow.interrupt_when([&] { return exists("state"); });
  EXPECT_EQ(slow.wait(), 130);
  ASSERT_TRUE(exists("state"));
  const json answer = answer_of({"verify", store(), "--resume-file", state});
  EXPECT_EQ(answer["step_count"], 3);
  EXPECT_EQ(answer["leaf_count"], 9);
  EXPECT_EQ(answer["size_bytes"], kSizeBytes);
  EXPECT_EQ(answer["damages"], json::array());
  // Done: the next one begins anew.
  EXPECT_FALSE(exists("state"));
}

TEST_F(InterruptionTest, VerificationBeginsWhereItsFileSays) {
  // A state as if step 1 were done and had been damaged; only the rest is read.
  const std::string state = path("state").string();
  const auto note = [&](std::uint64_t step, const std::string& selection) {
    write_file(state,
               fmt::format(R"({{"verification":{{"store":"{}","step":null,"leaves":[{}],)"
                           R"("exclude":[],"regex":false}},"step":{},"generation":0,"item":0,)"
                           R"("piece":0,"step_count":1,"leaf_count":3,"size_bytes":12,)"
                           R"("damages":[{{"step":1,"item":"default","leaf":"w0",)"
                           R"("message":"it was"}}]}})",
                           std::filesystem::canonical(store()).string(), selection, step));
  };
  note(2, "");
  const json answer = answer_of({"verify", store(), "--resume-file", state}, 1);
  EXPECT_EQ(answer["step_count"], 3);
  EXPECT_EQ(answer["leaf_count"], 9);
  EXPECT_EQ(answer["size_bytes"], 12 + 6 * (4 << 20));
  ASSERT_EQ(answer["damages"].size(), 1U);
  EXPECT_EQ(answer["damages"][0]["message"], "it was");
  // The state of another selection, and no state at all: nothing is read or removed.
  note(2, "\"w0\"");
  EXPECT_EQ(answer_of({"verify", store(), "--resume-file", state}, 1)["error"]["code"],
            "invalid_argument");
  for (const char* const text : {"", "[]", "{}", R"({"verification":1})"}) {
    write_file(state, text);
    EXPECT_EQ(answer_of({"verify", store(), "--resume-file", state}, 1)["error"]["code"],
              "invalid_argument");
    EXPECT_EQ(read_file(state), text);
  }
  EXPECT_EQ(
      answer_of({"verify", store(), "--resume-file", path("no/such").string()}, 1)["error"]["code"],
      "io");
}

TEST_F(InterruptionTest, ChosenLeavesAreVerifiedAlone) {
  const json some = answer_of({"verify", store(), "-l", "w1", "--step", "2"});
  EXPECT_EQ(some["step_count"], 1);
  EXPECT_EQ(some["leaf_count"], 1);
  EXPECT_EQ(some["size_bytes"], 4 << 20);
  EXPECT_EQ(answer_of({"verify", store(), "--threads", "1"})["leaf_count"], 9);
  EXPECT_EQ(answer_of({"verify", store(), "-l", "zzz"}, 1)["error"]["code"], "not_found");
  EXPECT_EQ(answer_of({"verify", store(), "-l", "w1", "--step", "7"}, 1)["error"]["code"],
            "not_found");
  // Damage to one leaf is found where it is looked for.
  for (const auto& entry : std::filesystem::directory_iterator(path("run"))) {
    if (entry.path().extension() != ".sst") continue;
    std::string bytes = read_file(entry.path());
    const std::size_t place = bytes.find(random_bytes(64, 21));
    if (place == std::string::npos) continue;
    bytes[place] = static_cast<char>(bytes[place] ^ 1);
    write_file(entry.path(), bytes);
  }
  EXPECT_EQ(answer_of({"verify", store(), "-x", "w1"})["damages"].size(), 0U);
  const json damaged = answer_of({"verify", store(), "-l", "w1"}, 1);
  ASSERT_EQ(damaged["damages"].size(), 1U);
  EXPECT_EQ(damaged["damages"][0]["step"], 2);
  EXPECT_EQ(damaged["damages"][0]["item"], "default");
  EXPECT_EQ(damaged["damages"][0]["leaf"], "w1");
}

TEST_F(InterruptionTest, CopyLeavesWholeStepsAndGoesOn) {
  Running copy({"copy", store(), path("copy").string()});
  copy.interrupt_when([&] { return exists("copy/CURRENT"); });
  const int exit_code = copy.wait();
  // It may have been quicker than the signal.
  EXPECT_TRUE(exit_code == 130 || exit_code == 0) << exit_code;
  const json rest = answer_of({"copy", store(), path("copy").string(), "--skip-existing"});
  EXPECT_EQ(rest["step_count"].get<int>() + rest["skipped_count"].get<int>(), 3);
  EXPECT_EQ(answer_of({"verify", path("copy").string()})["size_bytes"], kSizeBytes);
  EXPECT_EQ(answer_of({"diff", store() + ":3", path("copy").string() + ":3"})["equal"], true);
}

TEST_F(InterruptionTest, ExportLeavesNoFile) {
  Running slow({"export", store(), "3", "-o", path("out.safetensors").string()});
  slow.interrupt_when([&] {
    for (const auto& entry : std::filesystem::directory_iterator(path(""))) {
      if (entry.path().filename().native().find("partial") != std::string::npos) return true;
    }
    return false;
  });
  const int exit_code = slow.wait();
  EXPECT_TRUE(exit_code == 130 || exit_code == 0) << exit_code;
  EXPECT_EQ(exists("out.safetensors"), exit_code == 0);
  for (const auto& entry : std::filesystem::directory_iterator(path(""))) {
    EXPECT_EQ(entry.path().native().find("partial"), std::string::npos) << entry.path();
  }
}

// What a verb is at while it is interrupted. WORK is a copy of the store RUN of four steps,
// SOURCE a safetensors file with the tensors of step 1, STONE a portable file with all of them,
// TARGET and OUT are not there yet.
struct InterruptedVerb {
  std::string name;
  std::string line;
  // The same once more, to its end.
  std::string again;
  std::string store;  // In which the steps are counted; empty: the verb makes the files `files`,
  std::vector<std::string> files;  // all or none, of which the last is the one to read.
  // Which steps there may be after the interruption, and which there are in the end.
  std::vector<std::vector<std::uint64_t>> possible_steps;
  std::vector<std::uint64_t> steps;
  bool has_retired = false;  // Steps 1 and 2 of WORK are retired, but not yet collected.
};

// NOLINTNEXTLINE(readability-identifier-naming): what GoogleTest looks for.
void PrintTo(const InterruptedVerb& verb, std::ostream* stream) { *stream << verb.line; }

const std::vector<std::vector<std::uint64_t>> kPrefixes = {
    {}, {1}, {1, 2}, {1, 2, 3}, {1, 2, 3, 4}};
const std::vector<std::uint64_t> kAll = {1, 2, 3, 4};

const std::vector<InterruptedVerb>& interrupted_verbs() {
  static const std::vector<InterruptedVerb> kVerbs = {
      {.name = "recompress",
       .line = "recompress WORK",
       .again = "recompress WORK",
       .store = "work",
       .possible_steps = {kAll},
       .steps = kAll},
      {.name = "keep",
       .line = "keep WORK --last 1",
       .again = "keep WORK --last 1",
       .store = "work",
       .possible_steps = {kAll, {4}},
       .steps = {4}},
      {.name = "gc",
       .line = "gc WORK",
       .again = "gc WORK",
       .store = "work",
       .possible_steps = {{3, 4}},
       .steps = {3, 4},
       .has_retired = true},
      {.name = "import",
       .line = "import SOURCE WORK --step 9",
       .again = "import SOURCE WORK --step 9 --overwrite",
       .store = "work",
       .possible_steps = {kAll, {1, 2, 3, 4, 9}},
       .steps = {1, 2, 3, 4, 9}},
      {.name = "import_into_a_new_store",
       .line = "import SOURCE TARGET --step 9",
       .again = "import SOURCE TARGET --step 9 --overwrite",
       .store = "target",
       .possible_steps = {{}, {9}},
       .steps = {9}},
      {.name = "import_of_a_portable_file",
       .line = "import STONE TARGET",
       .again = "import STONE TARGET --skip-existing",
       .store = "target",
       .possible_steps = kPrefixes,
       .steps = kAll},
      {.name = "copy",
       .line = "copy RUN TARGET",
       .again = "copy RUN TARGET --skip-existing",
       .store = "target",
       .possible_steps = kPrefixes,
       .steps = kAll},
      {.name = "export",
       .line = "export RUN 1 -o OUT.safetensors",
       .again = "export RUN 1 -o OUT.safetensors --force",
       .files = {"out.safetensors"}},
      {.name = "export_to_shards",
       .line = "export RUN 1 -o OUT.safetensors --shard-size 1MB",
       .again = "export RUN 1 -o OUT.safetensors --shard-size 1MB --force",
       .files = {"out-00001-of-00002.safetensors", "out-00002-of-00002.safetensors",
                 "out.safetensors.index.json"}},
      {.name = "export_to_a_portable_file",
       .line = "export RUN -o OUT.stone",
       .again = "export RUN -o OUT.stone --force",
       .files = {"out.stone"}},
  };
  return kVerbs;
}

// Those that end on an interruption by themselves; it ends the others where they are.
std::vector<InterruptedVerb> asking_verbs() {
  std::vector<InterruptedVerb> verbs;
  std::ranges::copy_if(interrupted_verbs(), std::back_inserter(verbs),
                       [](const InterruptedVerb& verb) {
                         return verb.name.starts_with("import") || verb.name.starts_with("copy") ||
                                verb.name.starts_with("export");
                       });
  return verbs;
}

class EveryInterruptionTest : public TemporaryDirectoryTest,
                              public testing::WithParamInterface<InterruptedVerb> {
 protected:
  EveryInterruptionTest() {
    std::vector<NamedTensor> tensors;
    for (const std::uint64_t step : kAll) {
      std::vector<std::pair<std::string, Tree>> leaves;
      for (std::uint64_t leaf = 0; leaf < 2; ++leaf) {
        const std::string name = fmt::format("w{}", leaf);
        // Numbers that all have the same exponent, so that there is something to compress.
        NamedTensor tensor =
            random_tensor(name, DType::kFloat32, {std::uint64_t{1} << 18}, step * 10 + leaf);
        for (std::size_t i = 3; i < tensor.bytes.size(); i += 4) tensor.bytes[i] = '\x3f';
        leaves.emplace_back(name, Array::copy_bytes(tensor.dtype, tensor.shape,
                                                    std::as_bytes(std::span(tensor.bytes)))
                                      .value());
        if (step == 1) tensors.push_back(std::move(tensor));
      }
      save_tree(path("run"), step, Tree::dict(std::move(leaves)),
                {.compression = Compression::kNone});
    }
    write_file(path("in.safetensors"), safetensors_bytes(tensors));
    if (GetParam().line.find("STONE") != std::string::npos) {
      const CommandResult made =
          run_stepstone({"export", path("run").string(), "-o", path("in.stone").string()});
      EXPECT_EQ(made.exit_code, 0) << made.error;
    }
  }

  std::vector<std::string> words(const std::string& line) const {
    std::vector<std::string> words;
    std::istringstream stream(line);
    for (std::string word; stream >> word;) {
      for (const auto& [name, file] :
           std::initializer_list<std::pair<const char*, const char*>>{{"WORK", "work"},
                                                                      {"RUN", "run"},
                                                                      {"SOURCE", "in.safetensors"},
                                                                      {"STONE", "in.stone"},
                                                                      {"TARGET", "target"},
                                                                      {"OUT", "out"}}) {
        if (word.starts_with(name)) {
          word.replace(0, std::strlen(name), path(file).string());
          break;
        }
      }
      words.push_back(word);
    }
    return words;
  }

  // As it was in the beginning.
  void restore() const {
    for (const char* name : {"work", "target", "imported"}) std::filesystem::remove_all(path(name));
    for (const std::string& name : GetParam().files) std::filesystem::remove(path(name));
    constexpr auto kRecursive = std::filesystem::copy_options::recursive;
    if (!GetParam().has_retired) {
      if (GetParam().store == "work") {
        std::filesystem::copy(path("run"), path("work"), kRecursive);
      }
      return;
    }
    // The image of a trainer that was killed after it had retired steps that someone was reading.
    std::filesystem::copy(path("run"), path("trainer"), kRecursive);
    {
      const auto store = Store::open(path("trainer"), {}).value();
      const auto first = store->read_step(1).value();
      const auto second = store->read_step(2).value();
      ASSERT_TRUE(store->retire(std::vector<std::uint64_t>{1, 2}));
      store->wait_for_collector();
      // One instant's: what RocksDB does meanwhile in the background, a copy would have the half
      // of.
      std::map<std::string, std::uintmax_t> before;
      do {
        before = file_sizes(path("trainer"));
        std::filesystem::remove_all(path("work"));
        std::filesystem::create_directories(path("work/staging"));
        for (const auto& [name, size_bytes] : before) {
          std::error_code ignored;
          std::filesystem::copy_file(path("trainer") / name, path("work") / name, ignored);
        }
      } while (before != file_sizes(path("trainer")) || before != file_sizes(path("work")));
    }
    std::filesystem::remove_all(path("trainer"));
  }

  static std::map<std::string, std::uintmax_t> file_sizes(const std::filesystem::path& directory) {
    std::map<std::string, std::uintmax_t> sizes;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      std::error_code ignored;
      if (!entry.is_regular_file(ignored)) continue;
      const std::uintmax_t size_bytes = entry.file_size(ignored);
      // It may be gone by now, and is not for the copy then.
      if (!ignored) sizes[entry.path().filename().native()] = size_bytes;
    }
    return sizes;
  }

  // Something is being written that has no name yet.
  bool is_under_way() const {
    std::error_code ignored;
    for (const char* directory : {"", "work/staging", "target/staging"}) {
      for (const auto& entry : std::filesystem::directory_iterator(path(directory), ignored)) {
        if (*directory != '\0' || is_partial(entry.path())) return true;
      }
    }
    return false;
  }

  static bool is_partial(const std::filesystem::path& file) {
    return file.native().find(".partial") != std::string::npos;
  }

  // Every step there is has the bytes of the one that it was made from.
  void expect_whole_steps(const std::filesystem::path& store) const {
    const CommandResult verified = run_stepstone({"verify", store.string()});
    EXPECT_EQ(verified.exit_code, 0) << verified.output << verified.error;
    for (const std::uint64_t step : steps_of(store)) {
      const CommandResult difference =
          run_stepstone({"diff", fmt::format("{}:{}", path("run").string(), step == 9 ? 1 : step),
                         fmt::format("{}:{}", store.string(), step)});
      EXPECT_EQ(difference.exit_code, 0) << difference.output << difference.error;
    }
  }

  static std::vector<std::uint64_t> steps_of(const std::filesystem::path& store) {
    const auto opened = Store::open(store, {.read_only = true});
    EXPECT_TRUE(opened.has_value()) << opened.error().message;
    return opened ? (*opened)->steps() : std::vector<std::uint64_t>();
  }

  void expect_nothing_partial() const {
    for (const auto& entry : std::filesystem::directory_iterator(path(""))) {
      EXPECT_FALSE(is_partial(entry.path())) << entry.path();
    }
    if (GetParam().store.empty()) return;
    std::error_code ignored;
    for (const auto& entry :
         std::filesystem::directory_iterator(path(GetParam().store) / "staging", ignored)) {
      ADD_FAILURE() << entry.path();
    }
  }

  void expect_nothing_half_done(int exit_code) const {
    EXPECT_TRUE(exit_code == 130 || exit_code == 0) << exit_code;
    const InterruptedVerb& verb = GetParam();
    if (verb.store.empty()) {
      for (const std::string& file : verb.files) {
        EXPECT_EQ(std::filesystem::exists(path(file)), exit_code == 0) << file;
      }
      expect_nothing_partial();
      return;
    }
    // A store that was to be made may not be there, or not yet be one.
    const bool is_store = std::filesystem::exists(path(verb.store) / "HEAD");
    if (!is_store) {
      EXPECT_TRUE(verb.possible_steps.front().empty());
      return;
    }
    const std::vector<std::uint64_t> steps = steps_of(path(verb.store));
    EXPECT_TRUE(std::find(verb.possible_steps.begin(), verb.possible_steps.end(), steps) !=
                verb.possible_steps.end())
        << fmt::format("{}", fmt::join(steps, " "));
    if (exit_code == 0) {
      EXPECT_EQ(steps, verb.steps);
    }
    expect_whole_steps(path(verb.store));
  }

  // What an interruption left is in nobody's way.
  void expect_to_go_on() const {
    const InterruptedVerb& verb = GetParam();
    const CommandResult again = run_stepstone(words(verb.again));
    EXPECT_EQ(again.exit_code, 0) << again.error;
    expect_nothing_partial();
    if (!verb.store.empty()) {
      EXPECT_EQ(steps_of(path(verb.store)), verb.steps);
      expect_whole_steps(path(verb.store));
    } else if (verb.files.back() == "out.stone") {
      EXPECT_EQ(steps_of(path("out.stone")), kAll);
      expect_whole_steps(path("out.stone"));
    } else {
      const CommandResult imported =
          run_stepstone({"import", path(verb.files.back()).string(), path("imported").string(),
                         "--step", "1", "--overwrite"});
      EXPECT_EQ(imported.exit_code, 0) << imported.error;
      expect_whole_steps(path("imported"));
    }
  }
};

TEST_P(EveryInterruptionTest, LeavesNothingHalfDone) {
  const InterruptedVerb& verb = GetParam();
  // So soon after its beginning; and when it is seen to write.
  const std::vector<std::optional<int>> delays_ms = {0, 6, 12, 20, 32, std::nullopt};
  for (const std::optional<int> delay_ms : delays_ms) {
    SCOPED_TRACE(delay_ms ? fmt::format("after {} ms", *delay_ms) : "when it is seen to write");
    restore();
    Running running(words(verb.line));
    if (delay_ms) {
      std::this_thread::sleep_for(std::chrono::milliseconds(*delay_ms));
      running.interrupt_when([] { return true; });
    } else {
      running.interrupt_when([&] { return is_under_way(); });
    }
    expect_nothing_half_done(running.wait());
    expect_to_go_on();
  }
}

class FinishedVerbTest : public EveryInterruptionTest {};

// When it has answered, its stores may still be to be closed.
TEST_P(FinishedVerbTest, IsNotSaidToHaveBeenInterrupted) {
  const InterruptedVerb& verb = GetParam();
  const std::string answer = path("answer").string();
  for (int round = 0; round < 6; ++round) {
    restore();
    std::filesystem::remove(answer);
    Running running(words(verb.line), answer);
    running.interrupt_when([&] {
      std::error_code ignored;
      const std::uintmax_t size_bytes = std::filesystem::file_size(answer, ignored);
      return !ignored && size_bytes != 0;
    });
    EXPECT_EQ(running.wait(), 0);
    expect_nothing_half_done(0);
  }
}

// One shard of each model, under the index of one, would be read as a model that never was.
TEST_F(InterruptionTest, ShardsAreReplacedAllOrNone) {
  const std::string file = path("m.safetensors").string();
  const std::vector<std::string> names = {
      "m-00001-of-00003.safetensors", "m-00002-of-00003.safetensors",
      "m-00003-of-00003.safetensors", "m.safetensors.index.json"};
  const auto contents = [&] {
    std::vector<std::string> bytes;
    for (const std::string& name : names) bytes.push_back(read_file(path(name)));
    return bytes;
  };
  const auto arguments = [&](const char* step) {
    return std::vector<std::string>{"export", store(),        step,   "-o",
                                    file,     "--shard-size", "4MiB", "--force"};
  };
  ASSERT_EQ(run_stepstone(arguments("2")).exit_code, 0);
  const auto second = contents();
  ASSERT_EQ(run_stepstone(arguments("1")).exit_code, 0);
  const auto first = contents();
  ASSERT_NE(first[0], second[0]);
  Running running(arguments("2"));
  // The last shard is under way.
  running.interrupt_when([&] {
    for (const auto& entry : std::filesystem::directory_iterator(path(""))) {
      if (entry.path().filename().native().starts_with(names[2] + ".partial")) return true;
    }
    return false;
  });
  const int exit_code = running.wait();
  EXPECT_TRUE(exit_code == 130 || exit_code == 0) << exit_code;
  EXPECT_TRUE(contents() == (exit_code == 0 ? second : first));
}

INSTANTIATE_TEST_SUITE_P(Verbs, EveryInterruptionTest, testing::ValuesIn(interrupted_verbs()),
                         [](const auto& instance) { return instance.param.name; });
INSTANTIATE_TEST_SUITE_P(Verbs, FinishedVerbTest, testing::ValuesIn(asking_verbs()),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace stepstone::tool
