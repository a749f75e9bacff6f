// The command `stepstone`: reads the command line, calls the verb, turns its error into a message
// and an exit code. tools/README.md is its manual.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"
#include "tools/interruption.h"
#include "tools/system.h"

namespace stepstone::tool {
namespace {

constexpr const char* kDescription =
    "Looks into Stepstone checkpoint stores, and moves weights in and out of them.\n\n"
    "A store is a directory that holds a run's checkpoints, called steps. A step has items (mostly "
    "one,\n"
    "'default'), an item is a tree of leaves: arrays, numbers, strings.";
constexpr const char* kFooter =
    "Examples:\n"
    "  stepstone import model.safetensors run --step 0     make a store out of a model's weights\n"
    "  stepstone ls run                                    which steps are there\n"
    "  stepstone show run 0                                which leaves step 0 has\n"
    "  stepstone verify run                                is every byte as it was saved\n"
    "  stepstone bench gpt2                                how fast it is on this machine\n"
    "\n`stepstone VERB --help` explains a verb. Exit codes: 0 all is well, 1 it failed or found "
    "damage,\n"
    "2 the command line is wrong.";

// One line on standard error and, for programs, an object on standard output unless a part of an
// answer stands there already. There is nobody left to tell when these writes fail.
void report(std::string_view code, std::string_view message, bool json, Output& output) {
  const std::string text = printable(message);
  const std::string line = "stepstone: " + text + "\n";
  write_fully(STDERR_FILENO, std::as_bytes(std::span(line)));
  if (!json || output.has_written()) return;
  const nlohmann::ordered_json answer = {{"error", {{"code", code}, {"message", text}}}};
  (void)output.write(answer.dump() + "\n");
}

int parse_and_run(int argument_count, char** arguments) {
  // A reader that goes away shows as an error of the write, see Output.
  std::signal(SIGPIPE, SIG_IGN);
  Console console;
  CLI::App app(kDescription, "stepstone");
  app.footer(kFooter);
  app.set_version_flag("--version", "stepstone " STEPSTONE_VERSION);
  app.require_subcommand(1);
  CommandLine line{.app = app, .run = {}};
  std::string color = "auto";
  app.add_option("--color", color, "Whether to use colours: auto (on a terminal), always, never")
      ->check(CLI::IsMember({"auto", "always", "never"}, CLI::ignore_case))
      ->type_name("WHEN");
  // So that it may also be given behind the verb.
  app.fallthrough();
  for (const auto add_verb : kVerbs) add_verb(line);
  try {
    app.parse(argument_count, arguments);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help or --version.
    // The parser may have stopped before it came to the flag.
    const bool json = std::any_of(arguments + 1, arguments + argument_count,
                                  [](std::string_view argument) { return argument == "--json"; });
    const auto verbs = app.get_subcommands();
    report("usage",
           fmt::format("{} (see `stepstone {}--help`)", error.what(),
                       verbs.empty() ? "" : verbs.front()->get_name() + " "),
           json, console.output);
    return kExitUsage;
  }
  console.json = line.json;
  console.color = wants_color(color);
  const Result<int> result = line.run(console);
  if (result) return *result;
  report(to_string(result.error().code), result.error().message, line.json, console.output);
  return was_interrupted() ? kExitInterrupted : line.failure_exit_code;
}

}  // namespace
}  // namespace stepstone::tool

int main(int argument_count, char** arguments) {
  // Stepstone throws nothing, but the libraries beneath it may, for want of memory above all: so
  // nothing is allocated to say so.
  try {
    return stepstone::tool::parse_and_run(argument_count, arguments);
  } catch (const std::exception& exception) {
    std::fprintf(stderr, "stepstone: %s\n", exception.what());
  } catch (...) {
    std::fputs("stepstone: unknown exception\n", stderr);
  }
  return stepstone::tool::kExitFailed;
}
