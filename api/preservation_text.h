#pragma once
// Why steps are kept: policies as the text that a store holds of the one by which it is kept, and
// what follows from that text for each step. api/README.md specifies the text.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/preservation_policies.h"
#include "format/records.h"

namespace stepstone {

// JSON; of null: that of PreserveAll. A description that does not fit into a store, which JSON
// cannot hold, or which throws, becomes that of an unknown policy.
std::string to_text(const PreservationPolicy* policy);

struct PreservationRule {
  std::string words;      // "the newest 3", "multiples of 1000".
  bool is_known = false;  // False: only the program that saved can tell what it keeps.
};

struct PreservationReasons {
  std::vector<PreservationRule> rules;  // None: the text is empty, or not understood.
  // For each step the rules that keep it, ascending; none: those that are known let it go with the
  // next save, unless it is one that is not known that keeps it.
  std::vector<std::vector<std::uint32_t>> of_steps;
};

// What the policy in `text` says of `steps`, which are ascending and all that the store has, as it
// was in the last commit that added one of them. The text may come from a stranger.
PreservationReasons explain_preservation(std::string_view text, std::span<const StepRecord> steps);

// "the newest 3, multiples of 1000 and the 2 with the lowest loss"; empty: there are none.
std::string in_words(std::span<const PreservationRule> rules);

}  // namespace stepstone
