#pragma once
// The notice that this process is about to be ended: a signal such as SIGTERM, or a call.

#include <atomic>
#include <csignal>
#include <cstdint>
#include <memory>
#include <vector>

#include "../format/error.h"

namespace stepstone {

// Handed to managers in CheckpointManagerOptions::preemption; several may share one. What has been
// noticed stays noticed. Safe from several threads.
class Preemption {
 public:
  // Notices calls of request() only.
  Preemption() = default;
  // Notices these signals too, as long as the object lives. Their default action (to end the
  // process) is not taken meanwhile; a handler that was there before is called as well. The last
  // object for a signal puts back the handler that the first one found, unless somebody else has
  // set one since, which is left alone. kInvalidArgument: a signal that cannot be handled.
  static Result<std::shared_ptr<Preemption>> on_signals(std::vector<int> signals = {SIGTERM});
  ~Preemption();
  Preemption(const Preemption&) = delete;
  Preemption& operator=(const Preemption&) = delete;

  // May be called from a signal handler.
  void request() noexcept { is_requested_.store(true); }
  bool is_requested() const noexcept;

 private:
  struct Watched {
    int signal = 0;
    std::uint64_t count_before = 0;  // Of the signals that came before this object.
  };

  std::atomic<bool> is_requested_ = false;
  std::vector<Watched> watched_;
};

}  // namespace stepstone
