#pragma once
// JSON that a caller gives, as text or as the tree that it says.

#include <optional>
#include <string>
#include <utility>

#include "tree.h"

namespace stepstone {

// Nothing, a text or a tree: `.metrics = Tree::dict({{"loss", 0.5}})`, or
// `.metrics = R"({"loss": 0.5})"`.
class JsonText {
 public:
  JsonText() = default;
  // NOLINTBEGIN(google-explicit-constructor)
  JsonText(std::string text) : text_(std::move(text)) {}
  JsonText(const char* text) : text_(text) {}
  JsonText(Tree tree) : tree_(std::move(tree)) {}
  // NOLINTEND(google-explicit-constructor)

  bool is_empty() const { return !tree_ && text_.empty(); }
  // The text as it was given, or of the tree; empty: there is none. kInvalidArgument: the text does
  // not parse, or JSON cannot hold the tree (the message names the leaf).
  Result<std::string> text() const;

 private:
  std::string text_;
  std::optional<Tree> tree_;
};

}  // namespace stepstone
