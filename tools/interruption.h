#pragma once
// Ending early without leaving anything half done.

#include <array>
#include <csignal>

namespace stepstone::tool {

// While it lives, SIGINT, SIGTERM and SIGHUP only set a flag, so that an interrupted verb can
// remove its temporary file. A signal that is ignored (nohup) stays so. One at a time.
class InterruptionGuard {
 public:
  InterruptionGuard();
  ~InterruptionGuard();
  InterruptionGuard(const InterruptionGuard&) = delete;
  InterruptionGuard& operator=(const InterruptionGuard&) = delete;

  // From any thread.
  static bool was_interrupted() { return signal_seen != 0; }

 private:
  static constexpr std::array<int, 3> kSignals = {SIGINT, SIGTERM, SIGHUP};
  // A signal handler can reach nothing but static storage.
  static inline volatile std::sig_atomic_t signal_seen = 0;

  std::array<struct sigaction, kSignals.size()> previous_ = {};
};

}  // namespace stepstone::tool
