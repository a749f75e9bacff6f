#include "tools/leaf_selection.h"

#include <regex.h>

#include <algorithm>
#include <array>

#include "api/per_leaf.h"

namespace stepstone::tool {
namespace {

// A regular expression of the C library: its matcher does not recurse, however long a path is.
class Regex {
 public:
  Regex() = default;
  ~Regex() {
    if (is_compiled_) ::regfree(&regex_);
  }
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  // What is wrong with it, or nothing. Once.
  std::string compile(const std::string& text) {
    const int error = ::regcomp(&regex_, text.c_str(), REG_EXTENDED | REG_NOSUB);
    is_compiled_ = error == 0;
    if (is_compiled_) return {};
    std::array<char, 256> message = {};
    ::regerror(error, &regex_, message.data(), message.size());
    return message.data();
  }

  bool is_compiled() const { return is_compiled_; }
  bool is_found_in(const std::string& text) const {
    return ::regexec(&regex_, text.c_str(), 0, nullptr, 0) == 0;
  }

 private:
  regex_t regex_ = {};
  bool is_compiled_ = false;
};

}  // namespace

class LeafSelection::Pattern {
 public:
  static Result<std::shared_ptr<const Pattern>> compile(const std::string& text, bool is_regex) {
    constexpr std::string_view kRegexMark = "re:";
    const bool is_marked = text.starts_with(kRegexMark);
    auto pattern = std::make_shared<Pattern>();
    if (is_regex || is_marked) {
      const std::string problem =
          pattern->regex_.compile(is_marked ? text.substr(kRegexMark.size()) : text);
      if (problem.empty()) return pattern;
      return fail(ErrorCode::kInvalidArgument,
                  "'" + text + "' is not a regular expression: " + problem);
    }
    // A text may be both, as "layers[3]" is.
    if (auto path = parse_path(text))
      pattern->index_.add({.path = *std::move(path), .pattern = {}});
    if (!text.empty()) pattern->index_.add({.path = {}, .pattern = text});
    return pattern;
  }

  bool selects(const LeafPath& path, const std::string& text) const {
    if (regex_.is_compiled()) return regex_.is_found_in(text);
    return index_.find(path, text).has_value();
  }

 private:
  Regex regex_;
  LeafIndex index_;
};

Result<LeafSelection> LeafSelection::compile(const LeafPatterns& patterns) {
  LeafSelection selection;
  for (const std::string& text : patterns.include) {
    selection.include_.push_back(STEPSTONE_TRY(Pattern::compile(text, patterns.is_regex)));
  }
  for (const std::string& text : patterns.exclude) {
    selection.exclude_.push_back(STEPSTONE_TRY(Pattern::compile(text, patterns.is_regex)));
  }
  return selection;
}

bool LeafSelection::selects(const LeafPath& path, const std::string& text) const {
  const auto matches = [&](const std::shared_ptr<const Pattern>& pattern) {
    return pattern->selects(path, text);
  };
  if (!include_.empty() && std::none_of(include_.begin(), include_.end(), matches)) return false;
  return std::none_of(exclude_.begin(), exclude_.end(), matches);
}

Result<std::vector<ItemLeaf>> list_leaves(const StepReader& step, std::string_view item,
                                          const LeafSelection& selection) {
  const ItemRecord record = STEPSTONE_TRY(step.read_item(item));
  std::vector<StoredLeaf> stored = STEPSTONE_TRY(step.read_leaves(item));
  std::vector<ItemLeaf> leaves;
  const auto add = [&](const std::string& encoded_path) -> Result<void> {
    const auto found = std::lower_bound(
        stored.begin(), stored.end(), encoded_path,
        [](const StoredLeaf& leaf, const std::string& path) { return leaf.encoded_path < path; });
    if (found == stored.end() || found->encoded_path != encoded_path) {
      return fail(ErrorCode::kCorrupt, "step " + std::to_string(step.record().save.step) +
                                           " item '" + printable(item) + "' leaf '" +
                                           to_text(encoded_path) + "': its record is missing");
    }
    LeafPath path = STEPSTONE_TRY(decode_path(encoded_path));
    std::string text = to_text(path);
    // Every path occurs once in a structure, so that the record may be moved.
    if (selection.selects(path, text)) {
      leaves.push_back(
          {std::move(path), std::move(text), {encoded_path, std::move(found->record)}});
    }
    return {};
  };
  STEPSTONE_TRY(visit(record.structure, {.enter = {}, .leaf = add, .leave = {}}));
  return leaves;
}

}  // namespace stepstone::tool
