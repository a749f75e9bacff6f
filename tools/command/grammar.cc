#include "tools/command/grammar.h"

#include <CLI/CLI.hpp>
#include <algorithm>

namespace stepstone::tool {
namespace {

OptionGrammar grammar_of(const CLI::Option& option) {
  OptionGrammar grammar;
  for (const std::string& name : option.get_snames()) grammar.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) grammar.names.push_back("--" + name);
  grammar.is_positional = grammar.names.empty();
  if (grammar.is_positional) grammar.names.push_back(option.get_name(true));
  grammar.description = option.get_description();
  grammar.takes_value = option.get_items_expected_max() > 0;
  grammar.type_name = option.get_type_name();
  // A check of the parser's own adds what it checks: "N:UINT in [1 - 9]".
  grammar.type_name = grammar.type_name.substr(0, grammar.type_name.find(':'));
  grammar.default_text = option.get_default_str();
  grammar.is_required = option.get_required();
  grammar.is_repeatable = option.get_items_expected_max() > 1;
  return grammar;
}

// Of an option group, too, which is an app without a name, but with a --help of its own.
void append_options(const CLI::App& app, std::vector<OptionGrammar>& options) {
  for (const CLI::Option* const option : app.get_options()) {
    if (app.get_name().empty() && option == app.get_help_ptr()) continue;
    if (!option->get_group().empty()) options.push_back(grammar_of(*option));
  }
  for (const CLI::App* const child : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (child->get_name().empty()) append_options(*child, options);
  }
}

std::vector<OptionGrammar> options_of(const CLI::App& app) {
  std::vector<OptionGrammar> options;
  append_options(app, options);
  std::stable_partition(options.begin(), options.end(),
                        [](const OptionGrammar& option) { return option.is_positional; });
  return options;
}

}  // namespace

Grammar grammar_of(const CLI::App& app) {
  Grammar grammar{.name = app.get_name(),
                  .description = app.get_description(),
                  .help = app.get_footer(),
                  .options = options_of(app),
                  .verbs = {}};
  for (const CLI::App* const verb : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (verb->get_name().empty() || verb->get_group().empty()) continue;
    grammar.verbs.push_back({.name = verb->get_name(),
                             .summary = verb->get_description(),
                             .help = verb->get_footer(),
                             .options = options_of(*verb)});
  }
  return grammar;
}

std::string positionals_text(const VerbGrammar& verb) {
  std::string text;
  for (const OptionGrammar& option : verb.options) {
    if (!option.is_positional) continue;
    const std::string name = option.names.front() + (option.is_repeatable ? "..." : "");
    text += (text.empty() ? "" : " ") + (option.is_required ? name : "[" + name + "]");
  }
  return text;
}

}  // namespace stepstone::tool
