#pragma once
// How a verb says its command line: what it takes, what for, and what it does then. It stands
// between the verbs and the parser, CLI11, whose header takes longer to compile than any verb; a
// verb that needs more than this includes it and uses app().

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "format/error.h"

namespace CLI {
class App;
}

namespace stepstone::tool {

struct Console;
struct LeafPatterns;

// What the parser fills in. Stays where it is while the parser lives.
struct CommandLine {
  CLI::App& app;
  bool json = false;
  int failure_exit_code = 1;  // When `run` gives an error.
  // Of the verb that was given. Returns the exit code.
  std::function<Result<int>(Console&)> run;
};

// Something that a verb takes.
struct Argument {
  std::string names;  // "STORE" by its place, "-o,--output" by its name.
  std::string description;
  std::string type_name;  // Of what follows a name: "FILE".
  bool is_required = false;
  std::string default_text;  // Shown in the help, if any.
};

// One verb, while it is being described. What the arguments are stored in must live as long as the
// parser: let the function given to on_run() own it.
class Verb {
 public:
  // `help` follows the list of options: what else there is to say, and examples.
  Verb(CommandLine& line, const std::string& name, const std::string& summary,
       const std::string& help);

  // What is called with the text of an argument; returns what is wrong with it, or nothing.
  using TakeText = std::function<std::string(const std::string& text)>;
  void add_text(const Argument& argument, const TakeText& take);
  // Any number of times; at least once if it is required.
  void add_texts(const Argument& argument, const TakeText& take);
  void add_text(const Argument& argument, std::string& text);
  void add_path(const Argument& argument, std::filesystem::path& path);
  void add_flag(const std::string& names, const std::string& description, bool& is_set);
  template <class Number>
  void add_number(const Argument& argument, Number& number, std::uint64_t least,
                  std::uint64_t most = std::numeric_limits<Number>::max()) {
    add_text(argument, [&number, least, most](const std::string& text) -> std::string {
      const auto value = parse_number(text);
      if (!value || *value < least || *value > most) return number_problem(text, least, most);
      number = static_cast<Number>(*value);
      return {};
    });
  }

  // What many verbs take, described in the same words.
  void add_store(std::filesystem::path& store);
  void add_step(std::uint64_t& step);
  void add_steps(const Argument& argument, std::vector<std::uint64_t>& steps);
  void add_step(const Argument& argument, std::uint64_t& step);
  void add_step(const Argument& argument, std::optional<std::uint64_t>& step);
  // "100,200", any number of times.
  void add_step_lists(const Argument& argument, std::vector<std::uint64_t>& steps);
  void add_item(std::optional<std::string>& item);
  // --leaves, --exclude and --regex: see LeafPatterns.
  void add_leaves(LeafPatterns& patterns);
  // CommandLine::json.
  void add_json();

  // At most one, or if `is_required` exactly one, of these options, which were added before.
  void choose_one(const std::string& heading, const std::vector<std::string>& names,
                  bool is_required);
  // In no list of verbs.
  void hide();

  // What the verb does. `failure_exit_code`: main()'s exit code for an error of `run`.
  void on_run(std::function<Result<int>(Console&)> run, int failure_exit_code = 1);

  CLI::App& app() { return app_; }

 private:
  static std::optional<std::uint64_t> parse_number(const std::string& text);
  static std::string number_problem(const std::string& text, std::uint64_t least,
                                    std::uint64_t most);

  CLI::App& app_;
  CommandLine& line_;
};

// A step's number, or nullopt.
std::optional<std::uint64_t> parse_step(std::string_view text);

}  // namespace stepstone::tool
