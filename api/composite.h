#pragma once
// Several named things at once.

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "any_value.h"

namespace stepstone::args {

// Item names and a value for each, in the order in which they were set: the arguments of a save or
// a restore of several items, and what such a restore returns.
//
//   args::Composite({{"state", args::StandardSave(state)}, {"metadata", args::JsonSave(metadata)}})
//   Result<Tree> state = restored.get<Tree>("state");
//
// In a save, a Tree, Array, ProtoMessage or RandomKey may stand there without arguments around it.
// In a restore, a name without a value (`{"metadata", {}}`) is restored as it was saved. A value
// type.
class Composite {
 public:
  using Restored = Composite;
  using Item = std::pair<std::string, AnyValue>;

  Composite() = default;
  Composite(std::initializer_list<Item> items);  // NOLINT(google-explicit-constructor)

  // Adds an item, or replaces its value.
  void set(std::string name, AnyValue value);

  bool contains(std::string_view name) const { return find(name) != nullptr; }
  // Null: there is no such item. Valid until the Composite is changed.
  const AnyValue* find(std::string_view name) const;
  // The item's value where it is a T; null otherwise.
  template <typename T>
  const T* get_if(std::string_view name) const {
    const AnyValue* const value = find(name);
    return value == nullptr ? nullptr : value->get_if<T>();
  }
  // A copy of the item's value. kNotFound: no such item; the message names those there are.
  // kMismatch: it is not a T.
  template <typename T>
  Result<T> get(std::string_view name) const {
    const AnyValue* const value = STEPSTONE_TRY(at(name));
    return STEPSTONE_TRY_CONTEXT(value->get<T>(), "item '" + std::string(name) + "'");
  }

  std::vector<std::string> names() const;
  std::size_t size() const { return items_.size(); }
  bool empty() const { return items_.empty(); }
  std::vector<Item>::const_iterator begin() const { return items_.begin(); }
  std::vector<Item>::const_iterator end() const { return items_.end(); }

 private:
  Result<const AnyValue*> at(std::string_view name) const;

  std::vector<Item> items_;
};

}  // namespace stepstone::args
