#include "api/composite.h"

#include <algorithm>

#include "format/leaf_path.h"

namespace stepstone::args {

Composite::Composite(std::initializer_list<Item> items) {
  for (const Item& item : items) set(item.first, item.second);
}

void Composite::set(std::string name, AnyValue value) {
  const auto found = std::find_if(items_.begin(), items_.end(),
                                  [&](const Item& item) { return item.first == name; });
  if (found == items_.end()) {
    items_.emplace_back(std::move(name), std::move(value));
  } else {
    found->second = std::move(value);
  }
}

const AnyValue* Composite::find(std::string_view name) const {
  const auto found = std::find_if(items_.begin(), items_.end(),
                                  [&](const Item& item) { return item.first == name; });
  return found == items_.end() ? nullptr : &found->second;
}

std::vector<std::string> Composite::names() const {
  std::vector<std::string> names;
  for (const Item& item : items_) names.push_back(item.first);
  return names;
}

Result<const AnyValue*> Composite::at(std::string_view name) const {
  if (const AnyValue* const value = find(name)) return value;
  std::string there;
  for (const Item& item : items_) {
    there += (there.empty() ? "'" : ", '") + printable(item.first) + "'";
  }
  return fail(ErrorCode::kNotFound, "there is no item '" + printable(name) + "', only " +
                                        (there.empty() ? "none" : there));
}

}  // namespace stepstone::args
