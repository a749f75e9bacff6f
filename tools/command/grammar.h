#pragma once
// What the parser knows of the command line, for what is generated from it: completions and the
// manual page.

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace stepstone::tool {

struct OptionGrammar {
  std::vector<std::string>
      names;  // "-o", "--output"; of a positional, its one name without dashes.
  std::string description;
  std::string type_name;     // Of its value; empty for a flag or a positional.
  std::string default_text;  // Empty: none.
  bool is_positional = false;
  bool takes_value = false;
  bool is_required = false;
  bool is_repeatable = false;
};

struct VerbGrammar {
  std::string name;
  std::string summary;
  std::string help;
  std::vector<OptionGrammar> options;  // Positionals in their order, then the others.
};

struct Grammar {
  std::string name;
  std::string description;
  std::string help;
  std::vector<OptionGrammar> options;
  std::vector<VerbGrammar> verbs;  // But for hidden ones.
};

Grammar grammar_of(const CLI::App& app);

// "FILE STORE [STEP...]".
std::string positionals_text(const VerbGrammar& verb);

}  // namespace stepstone::tool
