#include "tests/crash/commit.h"

#include <fmt/format.h>

#include <sstream>

namespace stepstone {
namespace {

constexpr std::size_t kStepsKept = 4;

}  // namespace

std::string to_line(const Commit& commit) {
  std::string line = "try";
  if (commit.save) {
    line += fmt::format(" save {} {} {}", commit.save->step, commit.save->attempt,
                        static_cast<unsigned>(commit.save->size));
  }
  line += " retire";
  for (const std::uint64_t step : commit.retire) line += fmt::format(" {}", step);
  return line;
}

Commit from_line(const std::string& line, std::uint64_t seed) {
  std::istringstream words(line);
  std::string word;
  words >> word >> word;
  Commit commit;
  if (word == "save") {
    ModelStep step{.seed = seed};
    unsigned size = 0;
    words >> step.step >> step.attempt >> size >> word;
    step.size = static_cast<StepSize>(size);
    commit.save = step;
  }
  std::uint64_t step = 0;
  while (words >> step) commit.retire.push_back(step);
  return commit;
}

void update(Model& model, const Commit& commit) {
  for (const std::uint64_t step : commit.retire) model.erase(step);
  if (commit.save) model[commit.save->step] = *commit.save;
}

StepSize draw_size(Random& random) {
  const std::uint64_t draw = random.below(20);
  if (draw < 7) return StepSize::kTiny;
  if (draw < 11) return StepSize::kSmall;
  if (draw < 15) return StepSize::kSegment;
  return draw < 19 ? StepSize::kMedium : StepSize::kLarge;
}

Commit draw_commit(const std::vector<std::uint64_t>& steps, std::uint64_t seed,
                   std::uint64_t attempt, Random& random) {
  Commit commit;
  if (steps.size() > 1 && random.one_in(10)) {
    commit.retire.push_back(steps[random.below(steps.size())]);
    return commit;
  }
  commit.overwrite = !steps.empty() && random.one_in(5);
  const std::uint64_t step = commit.overwrite
                                 ? steps[random.below(steps.size())]
                                 : (steps.empty() ? 0 : steps.back() + 1 + random.below(10));
  commit.save =
      ModelStep{.seed = seed, .step = step, .attempt = attempt, .size = draw_size(random)};
  const std::size_t count = steps.size() + (commit.overwrite ? 0 : 1);
  for (std::size_t i = 0; count > kStepsKept && i < count - kStepsKept; ++i) {
    if (steps[i] != step) commit.retire.push_back(steps[i]);
  }
  return commit;
}

Result<void> carry_out(Store& store, const Commit& commit) {
  if (!commit.save) return store.retire(commit.retire);
  STEPSTONE_TRY(save_model_step(store, *commit.save, commit.overwrite, commit.retire));
  return {};
}

}  // namespace stepstone
