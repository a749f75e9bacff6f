#include "tools/command/verb.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>

#include "format/limits.h"
#include "tools/leaf_selection.h"

namespace stepstone::tool {
namespace {

std::string step_problem(const std::string& text) {
  return fmt::format("'{}' is not a step: a step is a whole number from 0 to {}", text,
                     limits::kStepMax);
}

CLI::Option& add(CLI::App& app, const Argument& argument, const Verb::TakeText& take) {
  // What is wrong is thrown, as the parser's own checks do; main() catches it.
  CLI::Option& option = *app.add_option(
      argument.names,
      [take, names = argument.names](const CLI::results_t& texts) {
        for (const std::string& text : texts) {
          const std::string problem = take(text);
          if (!problem.empty()) throw CLI::ValidationError(names, problem);
        }
        return true;
      },
      argument.description);
  option.type_name(argument.type_name)->required(argument.is_required);
  if (!argument.default_text.empty()) option.default_str(argument.default_text);
  return option;
}

}  // namespace

std::optional<std::uint64_t> parse_step(std::string_view text) {
  std::uint64_t step = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, code] = std::from_chars(text.data(), end, step);
  if (code != std::errc() || stop != end || step > limits::kStepMax) return std::nullopt;
  return step;
}

Verb::Verb(CommandLine& line, const std::string& name, const std::string& summary,
           const std::string& help)
    : app_(*line.app.add_subcommand(name, summary)), line_(line) {
  app_.footer(help);
}

void Verb::add_text(const Argument& argument, const TakeText& take) { add(app_, argument, take); }

void Verb::add_texts(const Argument& argument, const TakeText& take) {
  // An option takes one text each time it is given, so that what follows it is not taken for more.
  const bool is_positional = !argument.names.starts_with('-');
  add(app_, argument, take)
      .type_size(1)
      ->expected(is_positional && argument.is_required ? 1
                 : is_positional                       ? 0
                                                       : 1,
                 CLI::detail::expected_max_vector_size)
      ->allow_extra_args(is_positional);
}

void Verb::add_text(const Argument& argument, std::string& text) {
  add_text(argument, [&text](const std::string& given) {
    text = given;
    return std::string();
  });
}

void Verb::add_path(const Argument& argument, std::filesystem::path& path) {
  add_text(argument, [&path](const std::string& given) {
    path = given;
    // Of a variable that was not set, most likely: a mistake of the command line.
    return std::string(given.empty() ? "an empty path" : "");
  });
}

void Verb::add_flag(const std::string& names, const std::string& description, bool& is_set) {
  app_.add_flag(names, is_set, description);
}

void Verb::add_store(std::filesystem::path& store) {
  add_path({.names = "STORE", .description = "The store's directory", .is_required = true}, store);
}

void Verb::add_step(std::uint64_t& step) {
  add_step({.names = "STEP", .description = "The step's number", .is_required = true}, step);
}

void Verb::add_step(const Argument& argument, std::uint64_t& step) {
  add_text(argument, [&step](const std::string& text) {
    const auto number = parse_step(text);
    if (number) step = *number;
    return number ? std::string() : step_problem(text);
  });
}

void Verb::add_steps(const Argument& argument, std::vector<std::uint64_t>& steps) {
  add_texts(argument, [&steps](const std::string& text) {
    const auto number = parse_step(text);
    if (number) steps.push_back(*number);
    return number ? std::string() : step_problem(text);
  });
}

void Verb::add_step_lists(const Argument& argument, std::vector<std::uint64_t>& steps) {
  add_texts(argument, [&steps](const std::string& text) -> std::string {
    for (std::size_t begin = 0; begin <= text.size();) {
      const std::size_t end = std::min(text.find(',', begin), text.size());
      const auto step = parse_step(std::string_view(text).substr(begin, end - begin));
      if (!step) return fmt::format("'{}' is not a list of steps, such as 100,200", text);
      steps.push_back(*step);
      begin = end + 1;
    }
    return {};
  });
}

void Verb::add_step(const Argument& argument, std::optional<std::uint64_t>& step) {
  add_text(argument, [&step](const std::string& text) {
    step = parse_step(text);
    return step ? std::string() : step_problem(text);
  });
}

void Verb::add_item(std::optional<std::string>& item) {
  add_text({.names = "--item",
            .description = "Which item of the step; needed only if it has several",
            .type_name = "NAME"},
           [&item](const std::string& text) {
             item = text;
             return std::string();
           });
}

void Verb::add_leaves(LeafPatterns& patterns) {
  const auto take_into = [](std::vector<std::string>& texts) {
    return [&texts](const std::string& text) {
      texts.push_back(text);
      return std::string();
    };
  };
  add_texts({.names = "-l,--leaves",
             .description = "Only these leaves: a path, all that stands below a path, a pattern "
                            "(params/*) or re:EXPRESSION; may be given several times",
             .type_name = "PATTERN"},
            take_into(patterns.include));
  add_texts({.names = "-x,--exclude",
             .description = "Not these leaves; may be given several times",
             .type_name = "PATTERN"},
            take_into(patterns.exclude));
  add_flag("--regex", "Every PATTERN is a regular expression, as of grep -E", patterns.is_regex);
}

void Verb::add_json() { add_flag("--json", "Answer in JSON, for programs", line_.json); }

void Verb::choose_one(const std::string& heading, const std::vector<std::string>& names,
                      bool is_required) {
  CLI::Option_group& group = *app_.add_option_group(
      heading, is_required ? "One of these is needed" : "At most one of these");
  for (const std::string& name : names) group.add_option(app_.get_option(name));
  if (is_required) {
    group.require_option(1);
  } else {
    group.require_option(0, 1);
  }
}

void Verb::hide() { app_.group(""); }

void Verb::on_run(std::function<Result<int>(Console&)> run, int failure_exit_code) {
  app_.callback([&line = line_, run = std::move(run), failure_exit_code] {
    line.run = run;
    line.failure_exit_code = failure_exit_code;
  });
}

std::optional<std::uint64_t> Verb::parse_number(const std::string& text) {
  std::uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, code] = std::from_chars(text.data(), end, number);
  if (code != std::errc() || stop != end) return std::nullopt;
  return number;
}

std::string Verb::number_problem(const std::string& text, std::uint64_t least, std::uint64_t most) {
  if (most == std::numeric_limits<std::uint64_t>::max()) {
    return fmt::format("'{}' is not a whole number from {}", text, least);
  }
  return fmt::format("'{}' is not a whole number from {} to {}", text, least, most);
}

}  // namespace stepstone::tool
