// Goal: the shells complete the command. Method: the real shells, where they are installed, are
// asked what they make of a line.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <set>
#include <sstream>

#include "tests/tools/support.h"

namespace stepstone::tool {
namespace {

class CompletionTest : public TemporaryDirectoryTest {
 protected:
  CompletionTest() : TemporaryDirectoryTest(Place::kMemory) {
    // What is completed is called as it is called by people.
    std::filesystem::create_symlink(STEPSTONE_BINARY, path("stepstone"));
    write_file(path("alpha.run"), "");
  }

  static bool is_installed(const std::string& shell) {
    return std::system(fmt::format("command -v {} >/dev/null", shell).c_str()) == 0;
  }

  void write_completion(const std::string& shell, std::string_view name) const {
    const CommandResult result = run_stepstone({"completion", shell});
    EXPECT_EQ(result.exit_code, 0) << result.error;
    write_file(path(name), result.output);
  }

  // What the shell command writes, in the directory, within a minute.
  std::string output_of(const std::string& command) const {
    const std::string line =
        fmt::format("cd '{0}' && HOME='{0}' PATH=\"{0}:$PATH\" timeout 60 {1} >output 2>error",
                    path("").string(), command);
    EXPECT_EQ(std::system(line.c_str()), 0) << command << read_file(path("error"));
    EXPECT_EQ(read_file(path("error")), "") << command;
    return read_file(path("output"));
  }
};

TEST_F(CompletionTest, KnowsEveryVerbAndOption) {
  for (const char* const shell : {"bash", "zsh", "fish"}) {
    const CommandResult result = run_stepstone({"completion", shell});
    EXPECT_EQ(result.exit_code, 0);
    for (const char* const word :
         {"import", "diff", "stats", "keep", "best-count", "over-steps", "dry-run"}) {
      EXPECT_NE(result.output.find(word), std::string::npos) << shell << " " << word;
    }
    EXPECT_EQ(result.output.find("bench-child"), std::string::npos);
  }
  const CommandResult other = run_stepstone({"completion", "tcsh"});
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_NE(other.error.find("tcsh"), std::string::npos) << other.error;
}

TEST_F(CompletionTest, BashCompletes) {
  if (!is_installed("bash")) GTEST_SKIP() << "bash is not installed";
  write_completion("bash", "completion.bash");
  write_file(path("ask.bash"), R"(
. ./completion.bash
ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _stepstone; echo "${COMPREPLY[*]}"; }
ask stepstone ke
ask stepstone keep --be
ask stepstone keep --nothing
ask stepstone ls al
ask stepstone --color never ke
ask stepstone --color=never keep --dry
ask stepstone --vers
)");
  EXPECT_EQ(output_of("bash --norc ask.bash"),
            "keep\n--best --best-count\n\nalpha.run\nkeep\n--dry-run\n--version\n");
}

TEST_F(CompletionTest, ZshCompletes) {
  if (!is_installed("zsh")) GTEST_SKIP() << "zsh is not installed";
  std::filesystem::create_directory(path("functions"));
  write_completion("zsh", "functions/_stepstone");
  // An interactive shell on a pseudo-terminal, of which Tab completes the line and tells it.
  write_file(path("ask.zsh"), R"(
zmodload zsh/zpty
export TERM=dumb
zpty z zsh -f -i
zpty -w z 'PROMPT=; fpath=($PWD/functions $fpath); autoload -Uz compinit; compinit -u -D; tell() { zle complete-word; print -r -- "<<$BUFFER>>"; BUFFER= }; zle -N tell; bindkey "^I" tell; print READY'
zpty -r z out $'*READY\r*'
for line in "$@"; do
  zpty -w -n z "$line"$'\t'
  zpty -r z out '*<<*>>*'
  out=${out##*<<}
  print -r -- "${out%%>>*}|"
done
zpty -d z
)");
  EXPECT_EQ(output_of("zsh -f ask.zsh 'stepstone ke' 'stepstone keep --best-' 'stepstone keep "
                      "--nothing' 'stepstone ls al' 'stepstone --color never ke' 'stepstone "
                      "--color=never keep --dry' 'stepstone --vers' 'stepstone export run -o al'"),
            "stepstone keep |\nstepstone keep --best-count=|\nstepstone keep --nothing|\n"
            "stepstone ls alpha.run |\nstepstone --color never keep |\n"
            "stepstone --color=never keep --dry-run |\nstepstone --version |\n"
            "stepstone export run -o alpha.run |\n");
}

TEST_F(CompletionTest, FishCompletes) {
  if (!is_installed("fish")) GTEST_SKIP() << "fish is not installed";
  write_completion("fish", "completion.fish");
  const auto words = [&](const std::string& line) {
    // Each with a tab and a description behind it.
    std::istringstream lines(output_of(
        fmt::format("fish --no-config -c 'source completion.fish; complete -C \"{}\"'", line)));
    std::set<std::string> found;
    for (std::string word; std::getline(lines, word);)
      found.insert(word.substr(0, word.find('\t')));
    return found;
  };
  using Words = std::set<std::string>;
  EXPECT_EQ(words("stepstone ke"), Words{"keep"});
  EXPECT_EQ(words("stepstone keep --be"), (Words{"--best", "--best-count"}));
  EXPECT_EQ(words("stepstone keep --nothing"), Words{});
  EXPECT_EQ(words("stepstone ls al"), Words{"alpha.run"});
  EXPECT_EQ(words("stepstone --color never ke"), Words{"keep"});
  EXPECT_EQ(words("stepstone --color=never keep --dry"), Words{"--dry-run"});
  EXPECT_EQ(words("stepstone --vers"), Words{"--version"});
  // Every verb that the help lists.
  const Words verbs = words("stepstone ");
  EXPECT_TRUE(verbs.contains("import"));
  EXPECT_EQ(verbs.size(), 19U);
}

}  // namespace
}  // namespace stepstone::tool
