// Goal: Ctrl-C leaves nothing half done, and what was begun can be gone on with. Method: the real
// binary gets SIGINT when a file shows that it is under way; what it left is looked at, and the
// same command run again.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "tests/tools/store_support.h"
#include "tests/tools/support.h"

namespace stepstone::tool {
namespace {

using nlohmann::json;

// The command, running.
class Running {
 public:
  explicit Running(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), STEPSTONE_BINARY);
    std::vector<char*> pointers;
    pointers.reserve(arguments.size() + 1);
    for (std::string& word : arguments) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    for (const int descriptor : {STDOUT_FILENO, STDERR_FILENO}) {
      ::posix_spawn_file_actions_addopen(&actions, descriptor, "/dev/null", O_WRONLY, 0);
    }
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

}  // namespace
}  // namespace stepstone::tool
