#pragma once
// What a StepWriter stands in front of: a save into a database, or into a portable file. The calls
// are those of StepWriter, where they are described.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "engine/progress.h"
#include "engine/save_plan.h"
#include "engine/store.h"

namespace stepstone {

class StepSaver {
 public:
  StepSaver() = default;
  StepSaver(const StepSaver&) = delete;
  StepSaver& operator=(const StepSaver&) = delete;
  virtual ~StepSaver() = default;

  virtual Result<void> put_item(std::string name, PlannedItem item) = 0;
  virtual Result<void> put_leaf(std::string_view item, std::string encoded_path, LeafInfo info,
                                std::shared_ptr<const LeafSource> source) = 0;
  virtual void on_progress(Progress::Callback callback) = 0;
  virtual Result<StepRecord> commit(const ChooseRetired& choose_retired) = 0;
  virtual bool give_up() = 0;
  virtual const SaveCounters& counters() const = 0;
};

// How a save ends. Whichever comes first decides: a call of give_up(), or the commit when all is
// written. Safe from several threads.
class SaveFate {
 public:
  // False: the commit has begun.
  bool give_up() {
    State before = State::kOpen;
    return state_.compare_exchange_strong(before, State::kGivenUp) || before == State::kGivenUp;
  }
  // kClosed: it was given up.
  Result<void> begin_commit(std::uint64_t step) {
    State open = State::kOpen;
    state_.compare_exchange_strong(open, State::kCommitting);
    return check_wanted(step);
  }
  Result<void> check_wanted(std::uint64_t step) const {
    if (state_ != State::kGivenUp) return {};
    return fail(ErrorCode::kClosed, "step " + std::to_string(step) + ": its save was given up");
  }

 private:
  enum class State : std::uint8_t { kOpen, kGivenUp, kCommitting };
  std::atomic<State> state_ = State::kOpen;
};

}  // namespace stepstone
