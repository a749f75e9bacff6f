#pragma once
// What steps are called when they are shown or exported: "23", "0023", "step_23", "step_0023". In a
// store a step is a number, and nothing is ever looked up by such a name.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "../format/error.h"

namespace stepstone {

class StepNameFormat {
 public:
  struct Found {
    std::uint64_t step = 0;
    std::string name;
    bool operator==(const Found&) const = default;
  };

  StepNameFormat() = default;
  StepNameFormat(const StepNameFormat&) = default;
  StepNameFormat& operator=(const StepNameFormat&) = default;
  virtual ~StepNameFormat() = default;

  virtual std::string build_name(std::uint64_t step) const = 0;
  // The step that has this name; nullopt: none has. "0023" is not a name of a format that builds
  // "23".
  virtual std::optional<std::uint64_t> step_of(std::string_view name) const = 0;

  // Those among `names` that are names of steps, ascending by step.
  std::vector<Found> find_all(std::span<const std::string> names) const;
  // kNotFound: none among `names` is this step's.
  Result<std::string> find_step(std::uint64_t step, std::span<const std::string> names) const;
};

struct StandardNameOptions {
  std::string step_prefix;                // "step" for "step_23"; empty: none.
  unsigned step_format_fixed_length = 0;  // Zeros in front up to so many digits, at most 20.
};

// kInvalidArgument: a prefix with '/', or more digits than 20.
Result<std::shared_ptr<const StepNameFormat>> standard_name_format(
    const StandardNameOptions& options = {});

// Builds names as `write` does, and finds those of all of `reads`: the first that knows a name says
// which step it is. kInvalidArgument: null, or `write` is not among `reads`.
Result<std::shared_ptr<const StepNameFormat>> composite_name_format(
    std::shared_ptr<const StepNameFormat> write,
    std::vector<std::shared_ptr<const StepNameFormat>> reads);

}  // namespace stepstone
