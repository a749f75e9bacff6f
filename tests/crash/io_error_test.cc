// The k-th operation on the disk fails, for every k: once or from then on, as a broken disk (EIO)
// or a full one (ENOSPC). The call that met it must say so, or have done its work all the same; it
// must not acknowledge what a later power loss takes away, and not end the process. Afterwards,
// with the disk in order again, the store opens whole and saves.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/store.h"
#include "tests/crash/settings.h"
#include "tests/crash/workloads.h"
#include "tests/support/database_files.h"
#include "tests/support/model.h"
#include "tests/support/random.h"
#include "tests/support/simulated_disk.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using Fault = SimulatedDisk::Fault;
using Operation = SimulatedDisk::Operation;
using Unsynced = SimulatedDisk::Unsynced;

constexpr std::uint64_t kNextStep = 1'000'000;

constexpr Fault kKinds[] = {{.lasts = false, .is_full = false},
                            {.lasts = true, .is_full = false},
                            {.lasts = true, .is_full = true}};

std::string name_of(const Fault& fault) {
  return fmt::format(
      "{} {}{}{}", fault.is_full ? "ENOSPC" : "EIO",
      fault.lasts ? "from operation " : "at operation ", fault.at,
      fault.only ? fmt::format(" of {}", SimulatedDisk::to_string(*fault.only)) : "");
}

bool is_one_of(const Model& model, const Model& a, const Model& b) {
  return model == a || model == b;
}

// The disk is in order again; `before` is what was acknowledged, `after` what the commit that
// failed would have made of it.
std::string check_recovery(const std::shared_ptr<SimulatedDisk>& disk, const Model& before,
                           const Model& after) {
  Model model;
  {
    const auto store = open_on(disk);
    if (!store) return "open failed: " + store.error().message;
    const Result<Model> found = read_model(**store);
    if (!found) return "reading failed: " + found.error().message;
    if (!is_one_of(*found, before, after)) {
      return "the store shows " + to_string(*found) + " instead of " + to_string(before) + " or " +
             to_string(after);
    }
    model = *found;
    const ModelStep next{.seed = 7,
                         .step = model.empty() ? 0 : model.rbegin()->first + 1,
                         .attempt = 1'000'000,
                         .size = StepSize::kSegment};
    if (const auto saved = save_model_step(**store, next); !saved) {
      return "the next save failed: " + saved.error().message;
    }
    model[next.step] = next;
    (*store)->wait_for_collector();
    if (const Result<void> closed = (*store)->close(); !closed) return closed.error().message;
    if (std::string text = stray_files(disk, kStorePath); !text.empty()) return text;
  }
  const auto store = open_on(disk);
  if (!store) return "open after the next save failed: " + store.error().message;
  return difference(**store, model);
}

struct ErrorTally {
  std::uint64_t cases = 0;
  std::uint64_t reported = 0;
  std::uint64_t tolerated = 0;  // The work was done all the same.
  std::uint64_t went_on = 0;    // The store took a save afterwards, without being opened again.
  std::map<std::string, std::uint64_t> codes;
};

class IoErrorCase {
 public:
  IoErrorCase(const Workload& workload, std::uint64_t seed, ErrorTally& tally)
      : workload_(workload), seed_(seed), tally_(tally) {}

  std::string run(const Fault& fault, const std::shared_ptr<SimulatedDisk>& disk) {
    ++tally_.cases;
    Recording recording;
    Recorder recorder(disk, recording, seed_);
    disk->set_fault(fault);
    const std::string text = workload_.run(recorder);
    std::size_t operation_count = disk->operation_count();
    if (text.empty()) {
      if (disk->fault_was_reached()) ++tally_.tolerated;
    } else {
      if (!disk->fault_was_reached()) return "failed without a fault: " + text;
      ++tally_.reported;
      const ErrorCode code = recorder.last_error().code;
      ++tally_.codes[std::string(to_string(code))];
      const bool is_right = fault.is_full
                                ? code == ErrorCode::kNoSpace || code == ErrorCode::kClosed
                                : code == ErrorCode::kIo || code == ErrorCode::kClosed;
      if (!is_right) {
        return fmt::format("{}, reported as {}: {}", disk->first_failure(), to_string(code), text);
      }
      if (recorder.has_store()) {
        const Result<Model> found = read_model(recorder.store());
        if (!found) return "old steps cannot be read: " + found.error().message;
        if (*found != recorder.model()) {
          return "after the failure the store shows " + to_string(*found) + " instead of " +
                 to_string(recorder.model());
        }
      }
    }
    Model before = recorder.model();
    Model after = text.empty() ? before : recorder.attempted();
    const std::string where = disk->first_failure();
    disk->set_fault(std::nullopt);
    if (recorder.has_store() && fault.at % 2 == 0) {
      // The store may go on, or refuse to: what it acknowledges must hold all the same.
      if (recorder.save(kNextStep, StepSize::kSegment).empty()) {
        ++tally_.went_on;
        before = recorder.model();
        after = before;
        operation_count = disk->operation_count();
      } else if (recorder.last_error().code != ErrorCode::kClosed) {
        return fmt::format("{}, then: {}", where, recorder.last_error().message);
      }
    }
    if (recorder.has_store()) recorder.close();
    // What would a power loss right after the failure have left?
    for (const Unsynced unsynced : {Unsynced::kLost, Unsynced::kArbitrary}) {
      const auto struck = disk->after_power_loss(operation_count, unsynced, seed_ + fault.at);
      if (std::string problem = check_recovery(struck, before, after); !problem.empty()) {
        return where + "; after a power loss: " + problem;
      }
    }
    const std::string problem = check_recovery(disk, before, after);
    return problem.empty() ? "" : where + "; " + problem;
  }

 private:
  const Workload& workload_;
  const std::uint64_t seed_;
  ErrorTally& tally_;
};

class IoErrors : public ::testing::TestWithParam<Workload> {};

// Goal and method: see the top. A seeded sample of all k and kinds where they are more than the
// budget.
TEST_P(IoErrors, IsReportedAndLeavesTheStoreWhole) {
  const std::uint64_t seed = crash_seed();
  const Workload& workload = GetParam();
  Random random(seed);
  ErrorTally tally;
  IoErrorCase runner(workload, seed, tally);
  std::vector<Fault> faults;
  for (Fault kind : kKinds) {
    // A dry run counts the operations.
    const auto disk = std::make_shared<SimulatedDisk>();
    Recording recording;
    Recorder recorder(disk, recording, seed);
    kind.at = ~std::uint64_t{0};
    disk->set_fault(kind);
    ASSERT_EQ(workload.run(recorder), "");
    const std::uint64_t count = disk->fault_points();
    for (kind.at = 1; kind.at <= count; ++kind.at) faults.push_back(kind);
  }
  const std::size_t all = faults.size();
  for (std::size_t i = 0; i < faults.size(); ++i) {
    std::swap(faults[i], faults[i + random.below(faults.size() - i)]);
  }
  faults.resize(std::min<std::size_t>(all, scaled(120)));
  for (const Fault& fault : faults) {
    const std::string name =
        fmt::format("STEPSTONE_CRASH_SEED={} workload {}: {}", seed, workload.name, name_of(fault));
    note_state(name);
    const auto disk = std::make_shared<SimulatedDisk>();
    const std::string problem = runner.run(fault, disk);
    EXPECT_EQ(problem, "") << name;
    if (::testing::Test::HasFailure()) break;
  }
  std::string codes;
  for (const auto& [code, count] : tally.codes) codes += fmt::format(" {} {}", count, code);
  std::printf("workload %s: %llu faults of %zu, %llu reported (%s), %llu tolerated, %llu went on\n",
              workload.name.c_str(), static_cast<unsigned long long>(tally.cases), all,
              static_cast<unsigned long long>(tally.reported), codes.c_str(),
              static_cast<unsigned long long>(tally.tolerated),
              static_cast<unsigned long long>(tally.went_on));
  EXPECT_GT(tally.reported, 0U);
}

// Goal: a staged file that an earlier run left, and that cannot be removed, is never written to: it
// may be one with an ingested segment. Method: every moment of a save as a killed process leaves
// it, reopened on a disk that deletes nothing, and saved to.
TEST(IoError, FilesThatCannotBeDeletedAreNeverWrittenTo) {
  const auto disk = std::make_shared<SimulatedDisk>();
  Recording recording;
  Recorder recorder(disk, recording, crash_seed());
  ASSERT_EQ(recorder.open(), "");
  const std::size_t begin = disk->operation_count();
  ASSERT_EQ(recorder.save(1, StepSize::kSegment), "");
  std::uint64_t leftovers = 0;
  for (std::size_t at = begin; at <= disk->operation_count(); ++at) {
    const auto killed = disk->after_power_loss(at, Unsynced::kKept, 0);
    killed->set_fault(Fault{.only = Operation::kDelete, .lasts = true});
    const auto store = open_on(killed);
    ASSERT_TRUE(store.has_value()) << store.error().message;
    if (killed->fault_was_reached()) ++leftovers;
    Model model = read_model(**store).value();
    const ModelStep next{.step = 2, .attempt = 2, .size = StepSize::kSegment};
    const auto saved = save_model_step(**store, next);
    ASSERT_TRUE(saved.has_value()) << saved.error().message;
    model[2] = next;
    ASSERT_EQ(difference(**store, model), "") << "killed after " << disk->describe(at);
  }
  EXPECT_GT(leftovers, 0U);
}

// Goal: an error while the collector rewrites a file costs nothing but the room. Method: fail each
// of its operations in turn, with the retired step held by a reader until the fault is set.
TEST(IoError, AFileThatCannotBeRewrittenStaysAndTheStoreGoesOn) {
  std::uint64_t rewrites_failed = 0;
  for (const bool is_full : {false, true}) {
    for (const Operation only : {Operation::kCreate, Operation::kWrite, Operation::kSync}) {
      for (std::uint64_t at = 1; at < 100; ++at) {
        const auto disk = std::make_shared<SimulatedDisk>();
        Recording recording;
        Recorder recorder(disk, recording, crash_seed());
        ASSERT_EQ(recorder.open(), "");
        ASSERT_EQ(recorder.save(1, StepSize::kShared), "");
        for (std::uint64_t step = 2; step <= 5; ++step) {
          ASSERT_EQ(recorder.save(step, StepSize::kShared), "");
        }
        auto reader = *recorder.store().read_step(1);
        ASSERT_EQ(recorder.retire({1, 2, 3, 4}), "");
        recorder.wait_for_collector();
        disk->set_fault(Fault{.at = at, .only = only, .is_full = is_full});
        reader.reset();
        recorder.wait_for_collector();
        const bool was_reached = disk->fault_was_reached();
        const std::string failure = disk->first_failure();
        disk->set_fault(std::nullopt);
        SCOPED_TRACE(fmt::format("STEPSTONE_CRASH_SEED={} {} {}: {}", crash_seed(),
                                 SimulatedDisk::to_string(only), at, failure));
        ASSERT_EQ(difference(recorder.store(), recorder.model()), "");
        if (failure.find(".sst") != std::string::npos) ++rewrites_failed;
        // The store's own records are another matter.
        if (failure.find("MANIFEST") == std::string::npos) {
          ASSERT_EQ(recorder.save(6, StepSize::kShared, {5}), "");
        }
        recorder.wait_for_collector();
        ASSERT_EQ(recorder.close(), "");
        ASSERT_EQ(recorder.open(), "");
        ASSERT_EQ(difference(recorder.store(), recorder.model()), "");
        if (!was_reached) break;
      }
    }
  }
  EXPECT_GT(rewrites_failed, 3U);
}

// A tmpfs with a size, which only root can mount.
class SmallDisk {
 public:
  explicit SmallDisk(std::uint64_t size_bytes) {
    const std::string options = fmt::format("size={}", size_bytes);
    is_mounted_ = mount("tmpfs", path().c_str(), "tmpfs", 0, options.c_str()) == 0;
  }
  ~SmallDisk() {
    if (is_mounted_) umount2(path().c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  bool is_mounted() const { return is_mounted_; }
  std::string path() const { return directory_.path().string(); }

 private:
  TemporaryDirectory directory_;
  bool is_mounted_ = false;
};

// Goal: a disk that really runs full gives kNoSpace, keeps the old steps readable, and takes saves
// again once there is room. Method: save until it is full; look; make room; open again if asked to.
TEST(FullDisk, SaysSoKeepsOldStepsAndRecoversOnceThereIsRoom) {
  for (const unsigned size_mib : {2U, 3U, 5U, 8U, 13U}) {
    SCOPED_TRACE(fmt::format("{} MiB", size_mib));
    const SmallDisk disk(std::uint64_t{size_mib} << 20);
    if (!disk.is_mounted()) {
      GTEST_SKIP() << "no tmpfs can be mounted here (" << std::strerror(errno)
                   << "): run this as root";
    }
    const std::string ballast = disk.path() + "/ballast";
    {
      std::ofstream file(ballast);
      file << std::string(std::size_t{512} << 10, 'x');
      ASSERT_TRUE(file.flush().good());
    }
    OpenOptions options;
    options.create_if_missing = true;
    auto store = Store::open(disk.path() + "/store", options);
    ASSERT_TRUE(store.has_value()) << store.error().message;
    Model model;
    Model attempted;
    std::optional<Error> error;
    for (std::uint64_t step = 0; step < 1000 && !error; ++step) {
      const ModelStep next{.step = step, .size = static_cast<StepSize>(step % 3)};
      attempted = model;
      attempted[step] = next;
      const auto saved = save_model_step(**store, next);
      if (saved) {
        model = attempted;
      } else {
        error = saved.error();
      }
    }
    ASSERT_TRUE(error.has_value()) << "the disk never ran full";
    EXPECT_EQ(error->code, ErrorCode::kNoSpace) << error->message;
    EXPECT_EQ(difference(**store, model), "");
    {
      OpenOptions read_only;
      read_only.read_only = true;
      const auto reader = Store::open(disk.path() + "/store", read_only);
      ASSERT_TRUE(reader.has_value()) << reader.error().message;
      const Result<Model> found = read_model(**reader);
      ASSERT_TRUE(found.has_value()) << found.error().message;
      EXPECT_TRUE(is_one_of(*found, model, attempted)) << to_string(*found);
    }
    std::filesystem::remove(ballast);
    const ModelStep next{.step = 2000, .size = StepSize::kTiny};
    auto saved = save_model_step(**store, next);
    if (!saved) {
      ASSERT_EQ(saved.error().code, ErrorCode::kClosed) << saved.error().message;
      store->reset();
      store = Store::open(disk.path() + "/store", options);
      ASSERT_TRUE(store.has_value()) << store.error().message;
      const Result<Model> found = read_model(**store);
      ASSERT_TRUE(found.has_value()) << found.error().message;
      ASSERT_TRUE(is_one_of(*found, model, attempted)) << to_string(*found);
      model = *found;
      saved = save_model_step(**store, next);
    }
    ASSERT_TRUE(saved.has_value()) << saved.error().message;
    model[2000] = next;
    EXPECT_EQ(difference(**store, model), "");
    // Retiring makes room too.
    std::vector<std::uint64_t> all = (*store)->steps();
    const Result<void> retired = (*store)->retire(all);
    EXPECT_TRUE(retired.has_value()) << retired.error().message;
  }
}

INSTANTIATE_TEST_SUITE_P(, IoErrors, ::testing::ValuesIn(workloads()),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace stepstone
