#pragma once
// A step as verbs that deal with two of them take it: STORE, STORE:STEP or STORE:STEP:ITEM.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "engine/store.h"
#include "format/error.h"

namespace stepstone::tool {

struct StepReference {
  std::filesystem::path store;
  std::optional<std::uint64_t> step;  // nullopt: the newest.
  std::optional<std::string> item;    // nullopt: the only one.
};

// What exists as it stands is a store, whatever colons it has. `:STEP` and a STEP alone are of
// `same_store`, if there is one. kInvalidArgument: none of the forms.
Result<StepReference> parse_reference(const std::string& text,
                                      const std::optional<std::filesystem::path>& same_store = {});

struct OpenedStep {
  std::shared_ptr<Store> store;
  std::shared_ptr<const StepReader> step;
  std::string item;
};

// For reading. A store that `other` has open already is not opened again. Errors as of
// Store::open(), read_step() and choose_item(); kNotFound also: a store without steps.
Result<OpenedStep> open_reference(const StepReference& reference,
                                  const OpenedStep* other = nullptr);

}  // namespace stepstone::tool
