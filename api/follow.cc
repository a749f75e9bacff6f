#include "api/follow.h"

#include <new>
#include <thread>
#include <utility>

#include "api/shared_store.h"

namespace stepstone {
namespace {

FollowOptions completed(FollowOptions options) {
  if (!options.clock) options.clock = std::chrono::steady_clock::now;
  if (!options.sleep) {
    options.sleep = [](std::chrono::nanoseconds duration) {
      std::this_thread::sleep_for(duration);
    };
  }
  return options;
}

}  // namespace

CheckpointsIterator::CheckpointsIterator(std::filesystem::path directory, FollowOptions options)
    : directory_(std::move(directory)), options_(completed(std::move(options))) {}

CheckpointsIterator::~CheckpointsIterator() = default;

Result<std::optional<HeldStep>> CheckpointsIterator::next() {
  if (returned_at_) {
    const auto waited = options_.clock() - *returned_at_;
    if (waited < options_.min_interval) options_.sleep(options_.min_interval - waited);
  }
  auto held = STEPSTONE_TRY(wait(lowest_step_));
  if (!held) return held;
  lowest_step_ = held->step() + 1;
  returned_at_ = options_.clock();
  return held;
}

Result<std::optional<HeldStep>> CheckpointsIterator::wait(std::uint64_t lowest_step) {
  auto begun = options_.clock();
  while (true) {
    try {
      auto held = STEPSTONE_TRY(hold_newest(lowest_step));
      if (held) return held;
    } catch (const std::bad_alloc&) {
      return fail(ErrorCode::kLimit, directory_.string() + ": out of memory");
    }
    if (options_.timeout && options_.clock() - begun >= *options_.timeout) {
      if (!options_.timeout_fn || options_.timeout_fn()) return std::optional<HeldStep>();
      begun = options_.clock();
    }
    options_.sleep(options_.poll_interval);
  }
}

// nullopt: there is none yet; or it has just been retired, and a newer one is there or on its way.
Result<std::optional<HeldStep>> CheckpointsIterator::hold_newest(std::uint64_t lowest_step) {
  const auto unless_absent = [](Error error) -> Result<std::optional<HeldStep>> {
    if (error.code == ErrorCode::kNotFound) return std::optional<HeldStep>();
    return tl::unexpected<Error>(std::move(error));
  };
  std::unique_ptr<SharedStore> store = std::move(store_);
  if (store == nullptr) {
    OpenOptions options;
    options.read_only = true;
    auto opened = SharedStore::open(directory_, options);
    if (!opened) return unless_absent(std::move(opened).error());
    store = std::make_unique<SharedStore>(*std::move(opened));
  } else if (Result<void> reloaded = store->reload(); !reloaded) {
    return unless_absent(std::move(reloaded).error());
  }
  // A store that this process writes to is not to be kept open by who waits for it.
  const bool is_read_only = (*store)->is_read_only();
  if (is_read_only) store_ = std::make_unique<SharedStore>(store->share());
  const std::optional<std::uint64_t> newest = (*store)->latest_step();
  if (!newest || *newest < lowest_step) return std::optional<HeldStep>();
  auto reader = (*store)->read_step(*newest);
  if (!reader) return unless_absent(std::move(reader).error());
  if (is_read_only) {
    if (Result<void> holds = (*reader)->hold_files(); !holds) {
      return unless_absent(std::move(holds).error());
    }
  }
  return std::optional<HeldStep>(HeldStep(std::move(store), *std::move(reader), options_.registry));
}

Result<std::optional<HeldStep>> wait_for_new_checkpoint(const std::filesystem::path& directory,
                                                        std::optional<std::uint64_t> until_step,
                                                        const FollowOptions& options) {
  return CheckpointsIterator(directory, options).wait(until_step.value_or(0));
}

}  // namespace stepstone
