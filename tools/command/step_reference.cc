#include "tools/command/step_reference.h"

#include <fmt/format.h>

#include "tools/command/command.h"
#include "tools/command/verb.h"

namespace stepstone::tool {

Result<StepReference> parse_reference(const std::string& text,
                                      const std::optional<std::filesystem::path>& same_store) {
  std::error_code ignored;
  if (std::filesystem::exists(text, ignored))
    return StepReference{.store = text, .step = {}, .item = {}};
  if (same_store) {
    if (const auto step = parse_step(text)) return StepReference{*same_store, step, {}};
  }
  // From the right: neither steps nor most items have a colon, stores may.
  for (std::size_t colon = text.rfind(':'); colon != std::string::npos && colon + 1 < text.size();
       colon = colon == 0 ? std::string::npos : text.rfind(':', colon - 1)) {
    const std::string rest = text.substr(colon + 1);
    const std::size_t second = rest.find(':');
    const auto step = parse_step(std::string_view(rest).substr(0, second));
    if (!step) continue;
    StepReference reference{.store = text.substr(0, colon), .step = step, .item = {}};
    if (second != std::string::npos) reference.item = rest.substr(second + 1);
    if (colon == 0) {
      if (!same_store) break;
      reference.store = *same_store;
    }
    return reference;
  }
  if (text.find(':') == std::string::npos && !text.empty()) {
    // Opening it tells what is wrong with it.
    return StepReference{.store = text, .step = {}, .item = {}};
  }
  return fail(ErrorCode::kInvalidArgument,
              fmt::format("'{}' is neither a store nor STORE:STEP or STORE:STEP:ITEM", text));
}

Result<OpenedStep> open_reference(const StepReference& reference, const OpenedStep* other) {
  OpenedStep opened;
  std::error_code ignored;
  if (other != nullptr &&
      std::filesystem::equivalent(other->store->directory(), reference.store, ignored)) {
    opened.store = other->store;
  } else {
    opened.store = STEPSTONE_TRY(open_for_reading(reference.store));
  }
  const std::optional<std::uint64_t> step =
      reference.step ? reference.step : opened.store->latest_step();
  if (!step) {
    return fail(ErrorCode::kNotFound, printable(reference.store.native()) + " has no steps");
  }
  opened.step =
      STEPSTONE_TRY_CONTEXT(opened.store->read_step(*step), printable(reference.store.native()));
  opened.item = STEPSTONE_TRY(choose_item(opened.step->record(), reference.item));
  return opened;
}

}  // namespace stepstone::tool
