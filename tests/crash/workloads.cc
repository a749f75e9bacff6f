#include "tests/crash/workloads.h"

#include <iterator>

#include "tests/support/random.h"

namespace stepstone {
namespace {

// Ends a workload with the text of the first call that went wrong.
#define STEPSTONE_DO(expression)                                     \
  do {                                                               \
    if (std::string text = (expression); !text.empty()) return text; \
  } while (false)

std::string create(Recorder& run) {
  STEPSTONE_DO(run.open());
  return run.close();
}

std::string save_segments(Recorder& run) {
  STEPSTONE_DO(run.open());
  STEPSTONE_DO(run.save(1, StepSize::kSegment));
  STEPSTONE_DO(run.save(2, StepSize::kSegment));
  return run.close();
}

std::string save_small(Recorder& run) {
  STEPSTONE_DO(run.open());
  for (std::uint64_t step = 1; step <= 4; ++step) {
    STEPSTONE_DO(run.save(step, step % 2 == 0 ? StepSize::kSmall : StepSize::kTiny));
  }
  return run.close();
}

std::string save_medium(Recorder& run) {
  STEPSTONE_DO(run.open());
  STEPSTONE_DO(run.save(1, StepSize::kMedium));
  return run.close();
}

std::string overwrite(Recorder& run) {
  STEPSTONE_DO(run.open());
  STEPSTONE_DO(run.save(5, StepSize::kSegment));
  STEPSTONE_DO(run.save(5, StepSize::kSegment));
  STEPSTONE_DO(run.save(5, StepSize::kTiny));
  STEPSTONE_DO(run.save(5, StepSize::kSmall));
  STEPSTONE_DO(run.save(5, StepSize::kSegment));
  return run.close();
}

std::string keep_two(Recorder& run) {
  STEPSTONE_DO(run.open());
  STEPSTONE_DO(run.save(1, StepSize::kSegment));
  STEPSTONE_DO(run.save(2, StepSize::kSmall));
  STEPSTONE_DO(run.save(3, StepSize::kSegment, {1}));
  run.wait_for_collector();
  STEPSTONE_DO(run.save(4, StepSize::kTiny, {2}));
  STEPSTONE_DO(run.save(5, StepSize::kSegment, {3}));
  run.wait_for_collector();
  return run.close();
}

std::string retire(Recorder& run) {
  STEPSTONE_DO(run.open());
  STEPSTONE_DO(run.save(1, StepSize::kSegment));
  STEPSTONE_DO(run.save(2, StepSize::kSmall));
  STEPSTONE_DO(run.save(3, StepSize::kSegment));
  STEPSTONE_DO(run.retire({1, 2}));
  run.wait_for_collector();
  STEPSTONE_DO(run.retire({3}));
  run.wait_for_collector();
  return run.close();
}

// Steps that refer to chunks of others, among them of such as are retired or overwritten, whose
// files are rewritten and dropped meanwhile.
std::string share(Recorder& run) {
  STEPSTONE_DO(run.open());
  STEPSTONE_DO(run.save(1, StepSize::kShared));
  STEPSTONE_DO(run.save(2, StepSize::kShared));
  STEPSTONE_DO(run.save(3, StepSize::kShared, {1}));
  run.wait_for_collector();
  STEPSTONE_DO(run.save(3, StepSize::kShared));
  STEPSTONE_DO(run.save(4, StepSize::kShared, {2}));
  run.wait_for_collector();
  STEPSTONE_DO(run.close());
  STEPSTONE_DO(run.open());
  run.wait_for_collector();
  STEPSTONE_DO(run.save(5, StepSize::kShared, {3, 4}));
  run.wait_for_collector();
  STEPSTONE_DO(run.retire({5}));
  run.wait_for_collector();
  return run.close();
}

// Steps that are encoded after they were saved, and share before and after.
std::string recompress(Recorder& run) {
  STEPSTONE_DO(run.open());
  STEPSTONE_DO(run.save(1, StepSize::kSkewed));
  STEPSTONE_DO(run.save(2, StepSize::kSkewed));
  STEPSTONE_DO(run.save(3, StepSize::kSkewed, {1}));
  STEPSTONE_DO(run.recompress(2));
  STEPSTONE_DO(run.recompress(3));
  run.wait_for_collector();
  STEPSTONE_DO(run.save(4, StepSize::kSkewed));
  STEPSTONE_DO(run.close());
  STEPSTONE_DO(run.open());
  STEPSTONE_DO(run.recompress(4));
  STEPSTONE_DO(run.retire({2, 3}));
  run.wait_for_collector();
  return run.close();
}

// Steps that differ from chunks of others, which are retired, overwritten and encoded meanwhile.
std::string delta(Recorder& run) {
  STEPSTONE_DO(run.open());
  STEPSTONE_DO(run.save(1, StepSize::kMoving));
  STEPSTONE_DO(run.save(2, StepSize::kMoving));
  STEPSTONE_DO(run.save(3, StepSize::kMoving, {1}));
  run.wait_for_collector();
  STEPSTONE_DO(run.save(2, StepSize::kSkewed));
  STEPSTONE_DO(run.recompress(2));
  STEPSTONE_DO(run.recompress(3));
  run.wait_for_collector();
  STEPSTONE_DO(run.close());
  STEPSTONE_DO(run.open());
  STEPSTONE_DO(run.save(4, StepSize::kMoving, {2, 3}));
  run.wait_for_collector();
  STEPSTONE_DO(run.retire({4}));
  run.wait_for_collector();
  return run.close();
}

// Sessions enough for RocksDB to compact what each of them flushed.
std::string reopen(Recorder& run) {
  for (std::uint64_t session = 0; session < 6; ++session) {
    STEPSTONE_DO(run.open());
    STEPSTONE_DO(run.save(2 * session, session % 3 == 1 ? StepSize::kSegment : StepSize::kSmall));
    STEPSTONE_DO(run.save(
        2 * session + 1, StepSize::kTiny,
        session < 2 ? std::vector<std::uint64_t>{} : std::vector<std::uint64_t>{2 * session - 4}));
    STEPSTONE_DO(run.close());
  }
  return "";
}

std::string at_random(Recorder& run) {
  Random random(run.seed());
  STEPSTONE_DO(run.open());
  std::uint64_t next_step = 0;
  for (int i = 0; i < 14; ++i) {
    std::vector<std::uint64_t> steps;
    for (const auto& [step, model] : run.model()) steps.push_back(step);
    if (random.one_in(6)) {
      STEPSTONE_DO(run.close());
      STEPSTONE_DO(run.open());
    }
    if (!steps.empty() && random.one_in(5)) {
      STEPSTONE_DO(run.retire({steps[random.below(steps.size())]}));
      continue;
    }
    if (!steps.empty() && random.one_in(6)) {
      STEPSTONE_DO(run.recompress(steps[random.below(steps.size())]));
      continue;
    }
    const bool is_overwrite = !steps.empty() && random.one_in(4);
    const std::uint64_t step =
        is_overwrite ? steps[random.below(steps.size())] : (next_step += 1 + random.below(5));
    std::vector<std::uint64_t> retired;
    if (steps.size() > 2 && steps.front() != step) retired.push_back(steps.front());
    constexpr StepSize kSizes[] = {StepSize::kTiny,   StepSize::kSmall,  StepSize::kSegment,
                                   StepSize::kShared, StepSize::kSkewed, StepSize::kMoving};
    STEPSTONE_DO(run.save(step, kSizes[random.below(std::size(kSizes))], retired));
  }
  return run.close();
}

#undef STEPSTONE_DO

}  // namespace

Result<std::unique_ptr<Store>> open_on(const std::shared_ptr<SimulatedDisk>& disk) {
  OpenOptions options;
  options.create_if_missing = true;
  options.thread_count = 1;
  options.file_system = disk;
  return Store::open(kStorePath, options);
}

std::string Recorder::finish(std::size_t begun_at, Model model, const Result<void>& result) {
  attempted_ = std::move(model);
  if (!result) {
    last_error_ = result.error();
    return result.error().message;
  }
  model_ = attempted_;
  recording_.commits.push_back(
      {.begun_at = begun_at, .acknowledged_at = disk_->operation_count(), .model = model_});
  return "";
}

std::string Recorder::open() {
  const std::size_t begun_at = disk_->operation_count();
  auto store = open_on(disk_);
  if (!store) {
    last_error_ = store.error();
    return store.error().message;
  }
  store_ = *std::move(store);
  return finish(begun_at, model_, {});
}

std::string Recorder::close() {
  const Result<void> closed = store_->close();
  store_.reset();
  return closed ? "" : closed.error().message;
}

std::string Recorder::save(std::uint64_t step, StepSize size,
                           const std::vector<std::uint64_t>& retire) {
  Model model = model_;
  for (const std::uint64_t retired : retire) model.erase(retired);
  const bool overwrite = model.contains(step);
  const ModelStep saved{.seed = seed_, .step = step, .attempt = next_attempt_++, .size = size};
  model[step] = saved;
  const std::size_t begun_at = disk_->operation_count();
  const Result<StepRecord> record = save_model_step(*store_, saved, overwrite, retire);
  return finish(begun_at, std::move(model),
                record ? Result<void>() : Result<void>(tl::unexpected<Error>(record.error())));
}

std::string Recorder::retire(const std::vector<std::uint64_t>& steps) {
  Model model = model_;
  for (const std::uint64_t step : steps) model.erase(step);
  const std::size_t begun_at = disk_->operation_count();
  return finish(begun_at, std::move(model), store_->retire(steps));
}

std::string Recorder::recompress(std::uint64_t step) {
  const std::size_t begun_at = disk_->operation_count();
  const Result<RecompressCounters> counters = store_->recompress(step);
  return finish(begun_at, model_,
                counters ? Result<void>() : Result<void>(tl::unexpected<Error>(counters.error())));
}

std::vector<Workload> workloads() {
  return {{"Create", create},         {"SaveSegments", save_segments},
          {"SaveSmall", save_small},  {"SaveMedium", save_medium},
          {"Overwrite", overwrite},   {"KeepTwo", keep_two},
          {"Retire", retire},         {"Share", share},
          {"Recompress", recompress}, {"Delta", delta},
          {"Reopen", reopen},         {"AtRandom", at_random}};
}

}  // namespace stepstone
