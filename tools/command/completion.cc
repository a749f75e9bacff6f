// Completion for shells, generated from what the parser knows. All of it is static: verbs, options,
// and otherwise the names of files, which stores are.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tools/command/command.h"
#include "tools/command/grammar.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"

namespace stepstone::tool {
namespace {

std::string replaced(std::string text, std::string_view what, std::string_view by) {
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at)) {
    text.replace(at, what.size(), by);
    at += by.size();
  }
  return text;
}

// All options of a verb and of the command, as words.
std::string option_words(const std::vector<OptionGrammar>& options) {
  std::vector<std::string> words;
  for (const OptionGrammar& option : options) {
    if (option.is_positional) continue;
    words.insert(words.end(), option.names.begin(), option.names.end());
  }
  return fmt::format("{}", fmt::join(words, " "));
}

// Those of the command that a value follows.
std::string valued_options(const Grammar& grammar, std::string_view separator) {
  std::vector<std::string> names;
  for (const OptionGrammar& option : grammar.options) {
    if (!option.is_positional && option.takes_value) {
      names.insert(names.end(), option.names.begin(), option.names.end());
    }
  }
  return fmt::format("{}", fmt::join(names, separator));
}

std::string bash(const Grammar& grammar) {
  std::string verbs;
  std::string cases;
  for (const VerbGrammar& verb : grammar.verbs) {
    verbs += (verbs.empty() ? "" : " ") + verb.name;
    cases += fmt::format("    {}) words='{}' ;;\n", verb.name, option_words(verb.options));
  }
  return fmt::format(
      R"(# Completion of {0} for bash: . <({0} completion bash)
_{0}() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} verb= words= i
  for ((i = 1; i < COMP_CWORD; ++i)); do
    case ${{COMP_WORDS[i]}} in
      {4}) ((++i)) ;;
      -*) ;;
      *) verb=${{COMP_WORDS[i]}}; break ;;
    esac
  done
  case $verb in
    '') words='{1} {2}' ;;
{3}  esac
  if [[ -z $verb || $current == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  else
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  fi
}}
complete -o filenames -F _{0} {0}
)",
      grammar.name, verbs, option_words(grammar.options), cases, valued_options(grammar, " | "));
}

std::string zsh_text(std::string text) {
  for (const char* special : {"\\", "[", "]", ":"}) {
    text = replaced(std::move(text), special, std::string("\\") + special);
  }
  return replaced(std::move(text), "'", "'\\''");
}

// What _arguments takes, a line for each name of an option.
std::string zsh_options(const std::vector<OptionGrammar>& options, int indentation) {
  std::string lines;
  for (const OptionGrammar& option : options) {
    if (option.is_positional) continue;
    for (const std::string& name : option.names) {
      // `--name=value` is one word for the parser, and would otherwise be no option for zsh.
      const bool may_be_joined = option.takes_value && name.starts_with("--");
      lines +=
          fmt::format("{:{}}'{}{}{}[{}]{}' \\\n", "", indentation, option.is_repeatable ? "*" : "",
                      name, may_be_joined ? "=" : "", zsh_text(option.description),
                      option.takes_value ? ":" + zsh_text(option.type_name) + ":_files" : "");
    }
  }
  return lines;
}

std::string zsh(const Grammar& grammar) {
  std::string verbs;
  std::string cases;
  for (const VerbGrammar& verb : grammar.verbs) {
    verbs += fmt::format("    '{}:{}'\n", verb.name, zsh_text(verb.summary));
    cases += fmt::format("        {})\n          _arguments \\\n{}            '*:file:_files' ;;\n",
                         verb.name, zsh_options(verb.options, 12));
  }
  return fmt::format(R"(#compdef {0}
# Completion of {0} for zsh: put it into a directory of $fpath as _{0}.
_{0}() {{
  local curcontext=$curcontext state line
  local -A opt_args
  local -a verbs
  verbs=(
{1}  )
  _arguments -C \
{3}    '1: :->verb' \
    '*:: :->rest'
  case $state in
    verb) _describe verb verbs ;;
    rest)
      case $words[1] in
{2}      esac ;;
  esac
}}
_{0} "$@"
)",
                     grammar.name, verbs, cases, zsh_options(grammar.options, 4));
}

std::string fish_text(std::string text) {
  return replaced(replaced(std::move(text), "\\", "\\\\"), "'", "\\'");
}

std::string fish(const Grammar& grammar) {
  std::string text = fmt::format(
      R"(# Completion of {0} for fish: {0} completion fish > ~/.config/fish/completions/{0}.fish
# Whether this is the verb of the line; '': whether it has none yet.
function __{0}_verb_is
  set -l words (commandline -opc)
  set -e words[1]
  while set -q words[1]
    switch $words[1]
      case {1}
        set -q words[2]; and set -e words[1]
      case '-*'
      case '*'
        test $words[1] = "$argv[1]"
        return
    end
    set -e words[1]
  end
  test -z "$argv[1]"
end
)",
      grammar.name, valued_options(grammar, " "));
  const auto append_options = [&](const std::vector<OptionGrammar>& options,
                                  const std::string& condition) {
    for (const OptionGrammar& option : options) {
      if (option.is_positional) continue;
      std::string names;
      for (const std::string& name : option.names) {
        names += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      }
      text += fmt::format("complete -c {} -n '{}'{}{} -d '{}'\n", grammar.name, condition, names,
                          option.takes_value ? " -r" : "", fish_text(option.description));
    }
  };
  const std::string is_verb = fmt::format("__{}_verb_is ", grammar.name);
  append_options(grammar.options, is_verb + "\"\"");
  for (const VerbGrammar& verb : grammar.verbs) {
    text += fmt::format("complete -c {} -n '{}\"\"' -f -a {} -d '{}'\n", grammar.name, is_verb,
                        verb.name, fish_text(verb.summary));
  }
  for (const VerbGrammar& verb : grammar.verbs) {
    append_options(verb.options, is_verb + verb.name);
  }
  return text;
}

}  // namespace

void add_completion(CommandLine& line) {
  Verb verb(line, "completion", "Write what a shell needs to complete this command",
            "Examples:\n"
            "  . <(stepstone completion bash)\n"
            "  stepstone completion zsh > \"${fpath[1]}/_stepstone\"\n"
            "  stepstone completion fish > ~/.config/fish/completions/stepstone.fish");
  const auto shell = std::make_shared<std::string>();
  verb.add_text({.names = "SHELL", .description = "bash, zsh or fish", .is_required = true},
                [shell](const std::string& text) -> std::string {
                  *shell = text;
                  const bool is_known = text == "bash" || text == "zsh" || text == "fish";
                  return is_known ? "" : fmt::format("'{}' is not bash, zsh or fish", text);
                });
  verb.on_run([shell, &app = line.app](Console& console) -> Result<int> {
    const Grammar grammar = grammar_of(app);
    STEPSTONE_TRY(console.output.write(*shell == "bash"  ? bash(grammar)
                                       : *shell == "zsh" ? zsh(grammar)
                                                         : fish(grammar)));
    return kExitOk;
  });
}

}  // namespace stepstone::tool
