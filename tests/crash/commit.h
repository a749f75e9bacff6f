#pragma once
// The commits of a saving child, and how it tells of them: one line before each, "done" after it.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/model.h"
#include "tests/support/random.h"

namespace stepstone {

struct Commit {
  std::optional<ModelStep> save;
  bool overwrite = false;
  std::vector<std::uint64_t> retire;
};

std::string to_line(const Commit& commit);
Commit from_line(const std::string& line, std::uint64_t seed);

// What the commit makes of a store's steps.
void update(Model& model, const Commit& commit);

StepSize draw_size(Random& random);

// A commit that a trainer might make which keeps a few of its `steps`. `attempt` is used by no
// other.
Commit draw_commit(const std::vector<std::uint64_t>& steps, std::uint64_t seed,
                   std::uint64_t attempt, Random& random);

Result<void> carry_out(Store& store, const Commit& commit);

}  // namespace stepstone
