// A portable file under the failures of a disk: whatever fails, and wherever the power goes, the
// name leads to the old file or to the new one, whole; and to the new one once it was acknowledged.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "engine/store.h"
#include "tests/support/engine_steps.h"
#include "tests/support/simulated_disk.h"

namespace stepstone {
namespace {

using stepstone::testing::holds_arrays;
using stepstone::testing::put_arrays;
using Fault = SimulatedDisk::Fault;
using Unsynced = SimulatedDisk::Unsynced;

constexpr const char* kFile = "/x.stone";
// A large file is written in blocks of whole pages and then cut to its size.
const std::vector<std::size_t> kSmallSizes = {100, 300000, 70000};
const std::vector<std::size_t> kLargeSizes = {100, std::size_t{9} << 20, 70000};

Result<StepRecord> save(const std::shared_ptr<SimulatedDisk>& disk,
                        const std::vector<std::size_t>& sizes, std::uint64_t attempt,
                        bool overwrite) {
  const auto writer =
      STEPSTONE_TRY(StepWriter::into_file(kFile, 5, {.overwrite = overwrite}, disk));
  STEPSTONE_TRY(put_arrays(*writer, "state", 5, attempt, sizes));
  return writer->commit();
}

bool is_there(const SimulatedDisk& disk) {
  const std::vector<std::string> files = disk.files();
  return std::find(files.begin(), files.end(), kFile) != files.end();
}

// Which attempt the file holds; 0: there is none. -1: something else.
int attempt_in(const std::shared_ptr<SimulatedDisk>& disk, const std::vector<std::size_t>& sizes) {
  if (!is_there(*disk)) return 0;
  OpenOptions options;
  options.file_system = disk;
  const auto store = Store::open(kFile, options);
  if (!store) return -1;
  const auto report = (*store)->verify();
  if (!report || !report->damages.empty()) return -1;
  for (const int attempt : {1, 2}) {
    const auto holds = holds_arrays(**store, 5, static_cast<std::uint64_t>(attempt), sizes);
    if (holds && *holds) return attempt;
  }
  return -1;
}

// With a file there that is to be replaced, or without; a small one or a large one.
class PortableFileCrash : public ::testing::TestWithParam<std::tuple<bool, bool>> {
 protected:
  void SetUp() override {
    if (replaces()) {
      ASSERT_TRUE(save(disk_, sizes(), 1, false));
    }
    disk_ = disk_->copy();
  }
  bool replaces() const { return std::get<0>(GetParam()); }
  const std::vector<std::size_t>& sizes() const {
    return std::get<1>(GetParam()) ? kLargeSizes : kSmallSizes;
  }
  int before() const { return replaces() ? 1 : 0; }

  std::shared_ptr<SimulatedDisk> disk_ = std::make_shared<SimulatedDisk>();
};

TEST_P(PortableFileCrash, EveryFailureIsToldAndLeavesOneWholeFileAndNothingBeside) {
  for (const Fault kind :
       {Fault{.lasts = false, .is_full = false}, Fault{.lasts = true, .is_full = false},
        Fault{.lasts = true, .is_full = true}}) {
    bool was_reached = true;
    for (std::uint64_t at = 1; was_reached; ++at) {
      SCOPED_TRACE(fmt::format("at {}, lasts {}, full {}", at, kind.lasts, kind.is_full));
      const auto disk = disk_->copy();
      Fault fault = kind;
      fault.at = at;
      disk->set_fault(fault);
      const auto saved = save(disk, sizes(), 2, replaces());
      was_reached = disk->fault_was_reached();
      disk->set_fault(std::nullopt);
      const int held = attempt_in(disk, sizes());
      EXPECT_TRUE(held == 2 || (!saved && held == before())) << held;
      if (saved || kind.lasts) continue;
      EXPECT_EQ(disk->files().size(), is_there(*disk) ? 1U : 0U);
      ASSERT_LT(at, 1000U);
    }
  }
}

TEST_P(PortableFileCrash, APowerLossAtAnyMomentLeavesOneWholeFile) {
  ASSERT_TRUE(save(disk_, sizes(), 2, replaces()));
  const std::size_t acknowledged = disk_->operation_count();
  for (std::size_t count = 0; count <= acknowledged; ++count) {
    for (const Unsynced unsynced :
         {Unsynced::kLost, Unsynced::kKept, Unsynced::kOrdered, Unsynced::kArbitrary}) {
      SCOPED_TRACE(fmt::format("after {} of {} operations, {}", count, acknowledged,
                               static_cast<int>(unsynced)));
      const int held = attempt_in(disk_->after_power_loss(count, unsynced, count), sizes());
      EXPECT_TRUE(held == 2 || (count < acknowledged && held == before())) << held;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(NewAndReplacingSmallAndLarge, PortableFileCrash,
                         ::testing::Combine(::testing::Bool(), ::testing::Bool()));

}  // namespace
}  // namespace stepstone
