#pragma once
// Recompresses the steps that are old enough, oldest first, in a thread of its own at a low
// priority. No save waits for it longer than one commit takes.

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "engine/throttle.h"
#include "format/error.h"
#include "format/keys.h"

namespace stepstone {

class StoreImpl;

class Recompressor {
 public:
  // `store` must outlive the recompressor. Leaves the newest `untouched_count` steps alone.
  Recompressor(StoreImpl& store, std::size_t untouched_count, std::uint64_t bytes_per_second);
  ~Recompressor();
  Recompressor(const Recompressor&) = delete;
  Recompressor& operator=(const Recompressor&) = delete;

  // kLimit: no thread is to be had.
  Result<void> start();
  // Gives up what is under way, unless it is being committed; for good.
  void stop();
  // The steps have changed.
  void wake();
  // Until no step is left that has not been tried.
  void wait_until_idle();

 private:
  struct Candidate {
    SaveId save;
    std::uint64_t size_bytes = 0;
    std::vector<std::uint64_t> untouched_steps;
  };

  void run();
  // The oldest step that is to be tried; nullopt: none.
  std::optional<Candidate> next_candidate();
  // Whether saves of the size of the candidate would still find room beside a new copy of it.
  bool has_room_for(const Candidate& candidate) const;
  // False: there is no room now, or the store takes no more writes.
  bool recompress(const Candidate& candidate);

  StoreImpl& store_;
  const std::size_t untouched_count_;
  Throttle throttle_;
  std::set<SaveId> done_;  // Recompressed, or tried without success. Of the thread alone.
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_due_ = true;
  bool is_busy_ = true;
  bool is_stopping_ = false;
  std::thread thread_;
};

}  // namespace stepstone
