// The manual page, generated from what the parser knows, in man(7)'s language.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tools/command/command.h"
#include "tools/command/grammar.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"

namespace stepstone::tool {
namespace {

// Text in which nothing is taken for a request: lines begin with neither '.' nor '\''.
std::string escaped(std::string_view text) {
  std::string result;
  bool begins_line = true;
  for (const char c : text) {
    if (begins_line && (c == '.' || c == '\'')) result += "\\&";
    begins_line = c == '\n';
    if (c == '\\') {
      result += "\\e";
    } else if (c == '-') {
      result += "\\-";
    } else {
      result += c;
    }
  }
  return result;
}

// As it stands, line by line.
std::string verbatim(std::string_view text) {
  return fmt::format(".PP\n.nf\n{}\n.fi\n", escaped(text));
}

std::string options_text(const std::vector<OptionGrammar>& options) {
  std::string text;
  for (const OptionGrammar& option : options) {
    std::string names;
    for (const std::string& name : option.names) {
      names += fmt::format("{}\\fB{}\\fR", names.empty() ? "" : ", ", escaped(name));
    }
    if (!option.type_name.empty()) names += fmt::format(" \\fI{}\\fR", escaped(option.type_name));
    std::string description = escaped(option.description);
    if (!option.default_text.empty()) {
      description += fmt::format(" (default: {})", escaped(option.default_text));
    }
    text += fmt::format(".TP\n{}\n{}\n", names, description);
  }
  return text;
}

std::string manual_page(const Grammar& grammar) {
  std::string text = fmt::format(
      ".TH STEPSTONE 1 \"\" \"stepstone {0}\"\n"
      ".SH NAME\n{1} \\- look into Stepstone checkpoint stores, and move weights in and out\n"
      ".SH SYNOPSIS\n.B {1}\n[\\fIOPTIONS\\fR] \\fIVERB\\fR ...\n"
      ".SH DESCRIPTION\n{2}\n"
      ".SH OPTIONS\n{3}"
      ".SH VERBS\n",
      escaped(STEPSTONE_VERSION), grammar.name, escaped(grammar.description),
      options_text(grammar.options));
  for (const VerbGrammar& verb : grammar.verbs) {
    text += fmt::format(".SS \"{} {} [OPTIONS] {}\"\n{}.\n{}{}", grammar.name, verb.name,
                        escaped(positionals_text(verb)), escaped(verb.summary),
                        options_text(verb.options), verbatim(verb.help));
  }
  text +=
      ".SH EXIT STATUS\n"
      ".TP\n0\nAll is well.\n"
      ".TP\n1\nIt failed, or found damage; of \\fBdiff\\fR: the two differ.\n"
      ".TP\n2\nThe command line is wrong; of \\fBdiff\\fR also: it failed.\n"
      ".TP\n130\nIt was interrupted; nothing is half done.\n"
      ".SH ENVIRONMENT\n"
      ".TP\n\\fBNO_COLOR\\fR\nIf set and not empty, no colours unless \\fB\\-\\-color\\fR asks for "
      "them.\n";
  return text + ".SH EXAMPLES\n" + verbatim(grammar.help);
}

}  // namespace

void add_man(CommandLine& line) {
  Verb verb(line, "man", "Write the manual page", "");
  verb.hide();
  verb.on_run([&app = line.app](Console& console) -> Result<int> {
    STEPSTONE_TRY(console.output.write(manual_page(grammar_of(app))));
    return kExitOk;
  });
}

}  // namespace stepstone::tool
