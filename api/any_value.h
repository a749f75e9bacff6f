#pragma once
// One value of any type: how arguments travel to the handler that knows them, and how what it
// restored travels back.

#include <memory>
#include <string>
#include <type_traits>
#include <typeindex>
#include <typeinfo>
#include <utility>

#include "../format/error.h"

namespace stepstone {

// The name of a C++ type as a person would write it, for messages.
std::string type_name_of(const std::type_index& type);

// Holds nothing or one value. Copies are cheap: they share the value, which nobody can change. Any
// type converts to it, so that `{"state", args::StandardSave(tree)}` can be written; whether there
// is a handler for the type is found out by whoever takes it.
class AnyValue {
 public:
  AnyValue() = default;
  // NOLINTBEGIN(google-explicit-constructor)
  template <typename T>
  requires(!std::is_same_v<T, AnyValue>) AnyValue(T value)
      : value_(std::make_shared<const T>(std::move(value))), type_(&typeid(T)) {}
  // NOLINTEND(google-explicit-constructor)

  bool has_value() const { return value_ != nullptr; }

  // The value, where it is a T; null otherwise. Valid as long as any copy of this.
  template <typename T>
  const T* get_if() const {
    return type_ != nullptr && *type_ == typeid(T) ? static_cast<const T*>(value_.get()) : nullptr;
  }
  // A copy of the value. kMismatch: it is not a T; the message says what it is.
  template <typename T>
  Result<T> get() const {
    if (const T* value = get_if<T>()) return *value;
    return fail(ErrorCode::kMismatch, "it is " + type_name() + ", not " + type_name_of(typeid(T)));
  }

  // Of the value; of void where there is none.
  std::type_index type() const { return type_ == nullptr ? typeid(void) : *type_; }
  std::string type_name() const { return has_value() ? type_name_of(type()) : "nothing"; }

 private:
  std::shared_ptr<const void> value_;
  const std::type_info* type_ = nullptr;
};

namespace args {

// What to save or how to restore it: any of the types in args.h, or those of a handler of the
// user's.
using CheckpointArgs = AnyValue;

}  // namespace args
}  // namespace stepstone
