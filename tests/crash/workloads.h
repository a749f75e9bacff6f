#pragma once
// Short runs of a trainer on a simulated disk, with a record of when each commit began and when it
// was acknowledged.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "engine/store.h"
#include "tests/support/model.h"
#include "tests/support/simulated_disk.h"

namespace stepstone {

inline constexpr const char* kStorePath = "/runs/store";

// Opens the store on the disk, creating it if it is not there.
Result<std::unique_ptr<Store>> open_on(const std::shared_ptr<SimulatedDisk>& disk);

struct RecordedCommit {
  std::size_t begun_at = 0;         // The disk's operation count when it was called...
  std::size_t acknowledged_at = 0;  // ...and when it had returned.
  Model model;                      // The store's steps once it holds.
};

struct Recording {
  std::vector<RecordedCommit> commits;  // The first one is the store's creation.
};

// What a workload works with. Each function gives an empty text or what went wrong.
class Recorder {
 public:
  Recorder(std::shared_ptr<SimulatedDisk> disk, Recording& recording, std::uint64_t seed)
      : disk_(std::move(disk)), recording_(recording), seed_(seed) {}

  std::string open();
  std::string close();
  std::string save(std::uint64_t step, StepSize size,
                   const std::vector<std::uint64_t>& retire = {});
  std::string retire(const std::vector<std::uint64_t>& steps);
  std::string recompress(std::uint64_t step);
  void wait_for_collector() { store_->wait_for_collector(); }

  Store& store() { return *store_; }
  std::uint64_t seed() const { return seed_; }
  // As the acknowledged commits have it.
  const Model& model() const { return model_; }
  // What the commit that failed last would have made of it.
  const Model& attempted() const { return attempted_; }
  bool has_store() const { return store_ != nullptr; }
  const Error& last_error() const { return last_error_; }

 private:
  std::string finish(std::size_t begun_at, Model model, const Result<void>& result);

  std::shared_ptr<SimulatedDisk> disk_;
  Recording& recording_;
  const std::uint64_t seed_;
  std::unique_ptr<Store> store_;
  Model model_;
  Model attempted_;
  Error last_error_{};
  std::uint64_t next_attempt_ = 1;
};

struct Workload {
  std::string name;
  std::function<std::string(Recorder&)> run;
};

// The name is GoogleTest's. NOLINTNEXTLINE(readability-identifier-naming)
inline void PrintTo(const Workload& workload, std::ostream* stream) { *stream << workload.name; }

std::vector<Workload> workloads();

}  // namespace stepstone
