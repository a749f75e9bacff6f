// Goal: what the manual promises of every verb holds for each: it answers people and programs, says
// what is wrong in one line and a code, changes nothing when it fails, reports damage, and is quiet
// when nobody reads. Method: one table with a line for each verb; the real binary on a store of two
// steps. The fields of --json are held against the manual itself.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "tests/tools/store_support.h"
#include "tests/tools/support.h"
#include "tools/system.h"

// After the headers that declare what it uses: only Linux has capabilities.
#include <linux/capability.h>

namespace stepstone::tool {
namespace {

using nlohmann::json;

// What a verb does to the store that is called STORE in its line.
enum class Use { kNone, kReads, kWrites };

// STORE is the store, STONE a portable file of it, FILE a safetensors file, TARGET and OUTPUT what
// is not there yet, SCRATCH a directory.
struct VerbCase {
  std::string line;  // That succeeds.
  Use use = Use::kReads;
  // The fields of its answer with --json, without `error`; empty: it has no such answer.
  std::string fields;
  // The same line about a step that is not there; empty: it names none.
  std::string line_of_step_99;
  // The same line, to which --leaves and the like may be added; empty: it takes none.
  std::string line_for_leaves;
  // Of `line`, or of this one if it is not empty, when a byte of a leaf of step 1 is damaged.
  std::string line_of_damage;
  int exit_code_of_damage = 0;
  // Of failures that are not the command line's.
  int exit_code_of_failure = 1;

  std::string verb() const { return line.substr(0, line.find(' ')); }
};

// NOLINTNEXTLINE(readability-identifier-naming): what GoogleTest looks for.
void PrintTo(const VerbCase& verb, std::ostream* stream) { *stream << verb.line; }

const std::vector<VerbCase>& cases() {
  static const std::vector<VerbCase> kCases = {
      {.line = "import FILE STORE --step 7",
       .use = Use::kWrites,
       .fields = "store step item leaf_count size_bytes committed_unix_ns",
       .line_for_leaves = "import STONE TARGET"},
      {.line = "ls STORE", .fields = "store rules steps"},
      {.line = "du STORE",
       .fields = "store stored_bytes hidden_bytes reclaimable_bytes steps",
       .line_for_leaves = "du STORE"},
      {.line = "show STORE 1",
       .fields = "store step committed_unix_ns metrics custom_metadata item handler item_metadata "
                 "leaf_count size_bytes damaged_count containers leaves",
       .line_of_step_99 = "show STORE 99",
       .line_for_leaves = "show STORE 1"},
      {.line = "cat STORE 1 params/w --force",
       .fields = "step item leaf kind dtype shape size_bytes values",
       .line_of_step_99 = "cat STORE 99 params/w",
       .line_for_leaves = "cat STORE 1 --force",
       .exit_code_of_damage = 1},
      {.line = "diff STORE:1 1",
       .fields = "a b equal common_leaf_count read_bytes containers leaves",
       .line_of_step_99 = "diff STORE:99 1",
       .line_for_leaves = "diff STORE:1 1",
       .line_of_damage = "diff STORE:1 2",
       .exit_code_of_damage = 2,
       .exit_code_of_failure = 2},
      {.line = "stats STORE 1",
       .fields = "store step item damaged_count leaves",
       .line_of_step_99 = "stats STORE 99",
       .line_for_leaves = "stats STORE 1",
       .exit_code_of_damage = 1},
      {.line = "watch STORE --once",
       .fields = "step committed_unix_ns leaf_count size_bytes items metrics"},
      {.line = "copy STORE TARGET",
       .fields = "from to step_count skipped_count leaf_count size_bytes stored_bytes",
       .line_of_step_99 = "copy STORE TARGET --steps 99",
       .line_for_leaves = "copy STORE TARGET",
       .exit_code_of_damage = 1},
      {.line = "export STORE 1 -o OUTPUT",
       .fields = "store step item file tensor_count file_size_bytes format file_count",
       .line_of_step_99 = "export STORE 99 -o OUTPUT",
       .line_for_leaves = "export STORE 1 -o OUTPUT",
       .exit_code_of_damage = 1},
      {.line = "verify STORE",
       .fields = "store step_count leaf_count size_bytes damages",
       .line_of_step_99 = "verify STORE --step 99",
       .line_for_leaves = "verify STORE",
       .exit_code_of_damage = 1},
      {.line = "rm STORE 1",
       .use = Use::kWrites,
       .fields = "store removed remaining_step_count",
       .line_of_step_99 = "rm STORE 1 99"},
      {.line = "keep STORE --last 1",
       .use = Use::kWrites,
       .fields = "store dry_run kept removed remaining_step_count",
       .line_of_step_99 = "keep STORE --steps 99"},
      {.line = "gc STORE",
       .use = Use::kWrites,
       .fields = "store stored_bytes_before stored_bytes freed_bytes hidden_bytes "
                 "reclaimable_bytes"},
      {.line = "recompress STORE",
       .use = Use::kWrites,
       .fields = "store steps",
       .line_of_step_99 = "recompress STORE 1 99",
       .exit_code_of_damage = 1},
      {.line = "report STORE -o OUTPUT",
       .fields = "store file file_size_bytes step_count measured_step_count leaf_count "
                 "problem_count problems",
       .exit_code_of_damage = 1},
      {.line = "bench hash --shrink 1000 --samples 1 --directory SCRATCH", .use = Use::kNone},
      {.line = "completion bash", .use = Use::kNone},
      {.line = "man", .use = Use::kNone},
  };
  return kCases;
}

std::set<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

// What stands between backquotes.
std::set<std::string> quoted_in(std::string_view text) {
  std::set<std::string> words;
  for (std::size_t at = text.find('`'); at != std::string_view::npos; at = text.find('`', at)) {
    const std::size_t end = text.find('`', at + 1);
    if (end == std::string_view::npos) break;
    words.emplace(text.substr(at + 1, end - at - 1));
    at = end + 1;
  }
  return words;
}

// The chapter of the manual about --json.
std::string json_chapter() {
  const std::string manual = read_file(STEPSTONE_TOOLS_MANUAL);
  const std::size_t begin = manual.find("\n## `--json`\n");
  EXPECT_NE(begin, std::string::npos);
  return manual.substr(begin, manual.find("\n## ", begin + 1) - begin);
}

void collect_fields(const json& value, std::set<std::string>& fields) {
  for (const auto& [name, inner] : value.items()) {
    if (value.is_object()) fields.insert(name);
    if (inner.is_structured()) collect_fields(inner, fields);
  }
}

class EveryVerbTest : public TemporaryDirectoryTest, public testing::WithParamInterface<VerbCase> {
 protected:
  EveryVerbTest() : TemporaryDirectoryTest(Place::kMemory) {
    if (uses_store()) make_store();
    write_file(path("in.safetensors"),
               safetensors_bytes({random_tensor("w", DType::kFloat32, {10}, 3)}));
    std::filesystem::create_directory(path("scratch"));
  }

  void make_store() const {
    for (const std::uint64_t step : {1U, 2U}) {
      // Too large for a step without a segment, and nothing that could be compressed or shared.
      const std::string bytes = random_bytes(400'000, step);
      const Array w =
          Array::copy_bytes(DType::kUint8, {bytes.size()}, std::as_bytes(std::span(bytes))).value();
      save_tree(path("run"), step,
                Tree::dict({{"params", Tree::dict({{"w", w}, {"b", floats({1, 2})}})}}),
                {.metrics = R"({"loss": 1})"});
    }
  }

  const VerbCase& verb() const { return GetParam(); }
  bool uses_store() const { return verb().use != Use::kNone; }

  std::vector<std::string> arguments(const std::string& line, const std::string& store = {}) const {
    std::vector<std::string> words;
    std::istringstream stream(line);
    for (std::string word; stream >> word;) {
      for (const auto& [name, value] : std::map<std::string, std::string>{
               {"STORE", store.empty() ? path("run").string() : store},
               {"STONE", path("in.stone").string()},
               {"FILE", path("in.safetensors").string()},
               {"TARGET", path("target").string()},
               {"OUTPUT", path("output").string()},
               {"SCRATCH", path("scratch").string()}}) {
        if (word.starts_with(name)) word.replace(0, name.size(), value);
      }
      words.push_back(word);
    }
    return words;
  }

  // `cat` has to be told how to write.
  std::vector<std::string> for_people(std::vector<std::string> words) const {
    if (verb().verb() == "cat") words.emplace_back("--raw");
    return words;
  }
  static std::vector<std::string> for_programs(std::vector<std::string> words) {
    words.emplace_back("--json");
    return words;
  }

  // Fails with one line on standard error, for programs besides with a code, and changes nothing.
  void expect_failure(const std::vector<std::string>& words, const std::string& code,
                      std::string_view what, int exit_code) const {
    SCOPED_TRACE(fmt::format("{}", fmt::join(words, " ")));
    const auto before = files();
    const CommandResult text = run_stepstone(for_people(words));
    EXPECT_EQ(text.exit_code, exit_code) << text.error;
    EXPECT_TRUE(text.error.starts_with("stepstone: ")) << text.error;
    EXPECT_EQ(text.error.find('\n'), text.error.size() - 1) << text.error;
    EXPECT_NE(text.error.find(what), std::string::npos) << text.error;
    EXPECT_EQ(text.output, "");
    if (!verb().fields.empty()) {
      const CommandResult object = run_stepstone(for_programs(words));
      EXPECT_EQ(object.exit_code, exit_code);
      const json answer = json::parse(object.output, nullptr, /*allow_exceptions=*/false);
      ASSERT_TRUE(answer.is_object() && answer.contains("error")) << object.output;
      EXPECT_EQ(answer["error"]["code"], code) << object.output;
      EXPECT_EQ(object.error, "stepstone: " + answer["error"]["message"].get<std::string>() + "\n");
    }
    EXPECT_EQ(files(), before);
  }
  void expect_failure(const std::vector<std::string>& words, const std::string& code,
                      std::string_view what) const {
    expect_failure(words, code, what, verb().exit_code_of_failure);
  }

  // All files below the directory, with a hash of their bytes. A store that is opened for writing
  // has RocksDB's files renewed: there, only what says which steps there are.
  std::map<std::string, std::size_t> files() const {
    std::map<std::string, std::size_t> found;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path(""))) {
      if (verb().use == Use::kWrites && entry.path().parent_path() == path("run") &&
          entry.path().filename() != "HEAD" && entry.path().filename() != "staging") {
        continue;
      }
      found[entry.path().native()] =
          entry.is_regular_file() ? std::hash<std::string>()(read_file(entry.path())) : 0;
    }
    return found;
  }

  // One byte of the leaf `w` of step 1, wherever it stands, but not of its first chunk.
  void damage_leaf() const {
    for (const auto& entry : std::filesystem::directory_iterator(path("run"))) {
      if (entry.path().extension() != ".sst") continue;
      std::string bytes = read_file(entry.path());
      const std::size_t at = bytes.find(random_bytes(400'000, 1).substr(300'000, 64));
      if (at == std::string::npos) continue;
      bytes[at + 7] = static_cast<char>(bytes[at + 7] ^ 4);
      write_file(entry.path(), bytes);
      return;
    }
    FAIL() << "the leaf is in no file";
  }

  std::vector<std::uint64_t> steps() const {
    const auto opened = Store::open(path("run"), {.read_only = true});
    EXPECT_TRUE(opened.has_value());
    return opened ? (*opened)->steps() : std::vector<std::uint64_t>();
  }
};

class AnsweringVerbTest : public EveryVerbTest {};  // In JSON.
class StoreVerbTest : public EveryVerbTest {};      // That uses a store.
class SelectingVerbTest : public EveryVerbTest {};  // That takes --leaves.

TEST_P(EveryVerbTest, AnswersPeople) {
  const auto before = files();
  const CommandResult result = run_stepstone(for_people(arguments(verb().line)));
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.error, "");
  EXPECT_NE(result.output, "");
  if (verb().use != Use::kReads) return;
  // A store that is only read stays as it is, byte for byte.
  auto after = files();
  for (const char* name : {"output", "target"}) {
    std::erase_if(after,
                  [&](const auto& file) { return file.first.starts_with(path(name).native()); });
  }
  EXPECT_EQ(after, before);
}

TEST_P(AnsweringVerbTest, AnswersProgramsAsTheManualSays) {
  const CommandResult result = run_stepstone(for_programs(arguments(verb().line)));
  EXPECT_EQ(result.exit_code, 0) << result.error;
  EXPECT_EQ(result.error, "");
  EXPECT_EQ(result.output.find('\n'), result.output.size() - 1);
  const json answer = json::parse(result.output, nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(answer.is_object()) << result.output;

  std::set<std::string> fields;
  for (const auto& [name, value] : answer.items()) fields.insert(name);
  EXPECT_EQ(fields, words_of(verb().fields));

  // Each is in the verb's row of the manual, and what is inside them somewhere in its chapter.
  const std::string chapter = json_chapter();
  const std::size_t row = chapter.find("\n| `" + verb().verb() + "` |");
  ASSERT_NE(row, std::string::npos) << verb().verb() << " has no row";
  const auto in_row = quoted_in(chapter.substr(row, chapter.find('\n', row + 1) - row));
  for (const std::string& field : fields) EXPECT_TRUE(in_row.contains(field)) << field;
  const auto in_chapter = quoted_in(chapter);
  std::set<std::string> all;
  collect_fields(answer, all);
  for (const std::string& field : all) EXPECT_TRUE(in_chapter.contains(field)) << field;
}

TEST_P(StoreVerbTest, SaysWhatIsMissingOrNoStore) {
  const std::string missing = path("missing").string();
  if (verb().verb() == "import") {
    // Its store is made if it is missing; its file is not.
    expect_failure({"import", missing, path("run").string(), "--step", "7"}, "not_found", missing);
  } else {
    expect_failure(arguments(verb().line, missing), "not_found", missing);
    // A directory of other things, and a file that is none of ours.
    expect_failure(arguments(verb().line, path("scratch").string()), "not_found", "scratch");
    expect_failure(arguments(verb().line, path("in.safetensors").string()), "invalid_argument",
                   "in.safetensors");
  }
  if (!verb().line_of_step_99.empty()) {
    expect_failure(arguments(verb().line_of_step_99), "not_found", "99");
  }
}

TEST_P(SelectingVerbTest, SaysWhatIsWrongWithASelection) {
  ASSERT_EQ(
      run_stepstone({"export", path("run").string(), "-o", path("in.stone").string()}).exit_code,
      0);
  const auto selecting = [&](const std::vector<std::string>& selection) {
    std::vector<std::string> words = arguments(verb().line_for_leaves);
    words.insert(words.end(), selection.begin(), selection.end());
    return words;
  };
  expect_failure(selecting({"--leaves", "re:w("}), "invalid_argument", "regular expression");
  expect_failure(selecting({"--exclude", "re:w("}), "invalid_argument", "regular expression");
  expect_failure(selecting({"--leaves", "nothing/*"}), "not_found", "");
  expect_failure(selecting({"--exclude", "*"}), "not_found", "");
  for (const auto& selection :
       std::vector<std::vector<std::string>>{{"--leaves", "params/w"},
                                             {"-l", "*/w"},
                                             {"-l", "re:w$"},
                                             {"--regex", "-l", "^params/(w|x)$"},
                                             {"--exclude", "params/b"},
                                             {"-x", "re:/b"}}) {
    // Into a file that is not there yet.
    std::filesystem::remove(path("output"));
    std::filesystem::remove_all(path("target"));
    const CommandResult result = run_stepstone(for_people(selecting(selection)));
    EXPECT_EQ(result.exit_code, 0) << result.error;
    EXPECT_EQ(result.error, "");
  }
}

TEST_P(EveryVerbTest, SaysWhatIsWrongWithItsCommandLine) {
  auto words = arguments(verb().line);
  words.emplace_back("--nonsense");
  expect_failure(words, "usage", "--help", 2);
  if (!uses_store()) return;
  expect_failure({verb().verb()}, "usage", "--help", 2);
  // What an unset variable becomes, for each path of the line.
  const auto words_of_line = arguments(verb().line);
  for (std::size_t i = 1; i < words_of_line.size(); ++i) {
    if (!words_of_line[i].starts_with('/') || verb().verb() == "diff") continue;
    words = words_of_line;
    words[i].clear();
    expect_failure(words, "usage", "empty path", 2);
  }
}

// Runs `act` as if this were not root: permissions count.
bool without_privileges(const std::function<void()>& act) {
  bool is_without = true;
  // The bounding set is the thread's; what it starts inherits it.
  std::thread thread([&] {
    if (::geteuid() == 0) {
      for (const int capability : {CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH}) {
        is_without = is_without && ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0;
      }
    }
    if (is_without) act();
  });
  thread.join();
  return is_without;
}

TEST_P(StoreVerbTest, NeedsToWriteOnlyWhereItWrites) {
  const auto set_writable = [&](const char* name, bool is_writable) {
    std::filesystem::permissions(path(name), std::filesystem::perms(is_writable ? 0755 : 0555));
  };
  const bool could_try = without_privileges([&] {
    set_writable("run", false);
    if (verb().use == Use::kReads) {
      const CommandResult result = run_stepstone(for_people(arguments(verb().line)));
      EXPECT_EQ(result.exit_code, 0) << result.error;
      std::filesystem::remove_all(path("output"));
      std::filesystem::remove_all(path("target"));
    } else {
      expect_failure(arguments(verb().line), "permission_denied", path("run").native());
    }
    set_writable("run", true);
    if (verb().line.find("OUTPUT") == std::string::npos &&
        verb().line.find("TARGET") == std::string::npos) {
      return;
    }
    // Where a file or store would have to be made.
    set_writable("", false);
    expect_failure(arguments(verb().line), "permission_denied", path("").native());
    set_writable("", true);
  });
  if (!could_try) GTEST_SKIP() << "root, and not allowed to be less";
}

TEST_P(StoreVerbTest, ReportsDamageToALeafAndGoesOnWithoutIt) {
  damage_leaf();
  const std::string line = verb().line_of_damage.empty() ? verb().line : verb().line_of_damage;
  const CommandResult result = run_stepstone(for_people(arguments(line)));
  EXPECT_EQ(result.exit_code, verb().exit_code_of_damage) << result.error;
  if (verb().exit_code_of_damage != 0) {
    const std::string said = result.output + result.error;
    EXPECT_NE(said.find("params/w"), std::string::npos) << said;
    EXPECT_EQ(steps(), (std::vector<std::uint64_t>{1, 2}));
  }
  // Nothing that is half done.
  EXPECT_EQ(std::filesystem::exists(path("output")),
            verb().line.find("OUTPUT") != std::string::npos && verb().verb() != "export");
  if (std::filesystem::exists(path("target"))) {
    EXPECT_EQ(run_stepstone({"verify", path("target").string()}).exit_code, 0);
  }
  // The other step is there and whole, or was removed.
  for (const std::uint64_t step : steps()) {
    if (step == 1) continue;
    EXPECT_EQ(
        run_stepstone({"verify", path("run").string(), "--step", std::to_string(step)}).exit_code,
        0);
  }
}

TEST_P(StoreVerbTest, RefusesAStoreWhoseWitnessIsDamaged) {
  const std::string whole = read_file(path("run/HEAD"));
  write_file(path("run/HEAD"), std::string(whole.size(), '\xA5'));
  const std::vector<std::string> words = arguments(verb().line);
  const CommandResult result = run_stepstone(for_programs(words));
  EXPECT_EQ(result.exit_code, verb().exit_code_of_failure) << result.error;
  EXPECT_EQ(json::parse(result.output, nullptr, false)["error"]["code"], "corrupt")
      << result.output;
  EXPECT_FALSE(std::filesystem::exists(path("output")));
  // Nothing was lost.
  write_file(path("run/HEAD"), whole);
  EXPECT_EQ(run_stepstone({"verify", path("run").string()}).exit_code, 0);
  EXPECT_EQ(steps(), (std::vector<std::uint64_t>{1, 2}));
}

TEST_P(StoreVerbTest, IsBusyOnlyWhereItNeedsTheStoreForItself) {
  const auto writer = Store::open(path("run"), {});
  ASSERT_TRUE(writer.has_value()) << writer.error().message;
  const CommandResult result = run_stepstone(for_programs(arguments(verb().line)));
  if (verb().use == Use::kReads) {
    EXPECT_EQ(result.exit_code, 0) << result.error;
  } else {
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_EQ(json::parse(result.output, nullptr, false)["error"]["code"], "busy");
  }
}

TEST_P(EveryVerbTest, IsQuietWhenNobodyReads) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(::pipe(ends), 0);
  ::close(ends[0]);
  const FileDescriptor pipe(ends[1]);
  const CommandResult text = run_stepstone(for_people(arguments(verb().line)), pipe.get());
  EXPECT_EQ(text.exit_code, 0);
  EXPECT_EQ(text.error, "");
  if (verb().fields.empty()) return;
  // Once more, on what is left of the first time.
  std::string line = verb().line;
  if (verb().verb() == "rm") line = "rm STORE 2";
  if (verb().verb() == "import") line += "0";
  std::filesystem::remove_all(path("output"));
  std::filesystem::remove_all(path("target"));
  const CommandResult object = run_stepstone(for_programs(arguments(line)), pipe.get());
  EXPECT_EQ(object.exit_code, 0);
  EXPECT_EQ(object.error, "");
}

TEST_P(EveryVerbTest, FailsWhenItCannotAnswer) {
  const FileDescriptor full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  if (full.get() < 0) GTEST_SKIP() << "this machine has no /dev/full";
  const CommandResult result = run_stepstone(for_people(arguments(verb().line)), full.get());
  EXPECT_EQ(result.exit_code, verb().exit_code_of_failure);
  EXPECT_NE(result.error.find("standard output"), std::string::npos) << result.error;
  EXPECT_EQ(result.error.find('\n'), result.error.size() - 1) << result.error;
}

std::string name_of_case(const testing::TestParamInfo<VerbCase>& info) { return info.param.verb(); }

auto cases_where(bool (*is_wanted)(const VerbCase&)) {
  std::vector<VerbCase> wanted;
  std::ranges::copy_if(cases(), std::back_inserter(wanted), is_wanted);
  return testing::ValuesIn(wanted);
}

INSTANTIATE_TEST_SUITE_P(Verbs, EveryVerbTest, testing::ValuesIn(cases()), name_of_case);
INSTANTIATE_TEST_SUITE_P(Verbs, AnsweringVerbTest,
                         cases_where([](const VerbCase& verb) { return !verb.fields.empty(); }),
                         name_of_case);
INSTANTIATE_TEST_SUITE_P(Verbs, StoreVerbTest,
                         cases_where([](const VerbCase& verb) { return verb.use != Use::kNone; }),
                         name_of_case);
INSTANTIATE_TEST_SUITE_P(Verbs, SelectingVerbTest, cases_where([](const VerbCase& verb) {
                           return !verb.line_for_leaves.empty();
                         }),
                         name_of_case);

// No verb is left out of the table; serve, which does not end by itself, has tests of its own.
TEST(EveryVerb, IsInTheTable) {
  const std::string help = run_stepstone({"--help"}).output;
  std::set<std::string> listed;
  std::istringstream lines(help.substr(help.find("\nSubcommands:") + 1));
  std::string line;
  std::getline(lines, line);
  while (std::getline(lines, line) && line.starts_with("  ")) {
    if (line[2] != ' ') listed.insert(line.substr(2, line.find(' ', 2) - 2));
  }
  std::set<std::string> tested = {"serve"};
  for (const VerbCase& verb : cases()) tested.insert(verb.verb());
  tested.erase("man");
  EXPECT_EQ(listed, tested);
  for (const std::string& verb : listed) {
    const CommandResult verb_help = run_stepstone({verb, "--help"});
    EXPECT_EQ(verb_help.exit_code, 0) << verb;
    EXPECT_NE(verb_help.output.find("Examples:\n  "), std::string::npos) << verb;
    EXPECT_NE(verb_help.output.find("stepstone " + verb), std::string::npos) << verb;
  }
}

}  // namespace
}  // namespace stepstone::tool
