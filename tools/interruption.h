#pragma once
// Ctrl-C and its like, for verbs that have something to clean up.

#include <array>
#include <csignal>
#include <cstddef>

#include "format/error.h"

namespace stepstone::tool {

// While it lives, SIGINT, SIGTERM and SIGHUP only set a flag, so that an interrupted verb can
// remove what it has begun. A signal that is ignored (nohup) stays so. One at a time.
class InterruptionGuard {
 public:
  InterruptionGuard() {
    struct sigaction action = {};
    action.sa_handler = [](int) { signal_seen = 1; };
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
      ::sigaction(kSignals[i], nullptr, &previous_[i]);
      if (previous_[i].sa_handler != SIG_IGN) ::sigaction(kSignals[i], &action, nullptr);
    }
  }
  ~InterruptionGuard() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
      ::sigaction(kSignals[i], &previous_[i], nullptr);
    }
  }
  InterruptionGuard(const InterruptionGuard&) = delete;
  InterruptionGuard& operator=(const InterruptionGuard&) = delete;

  // kIo: one of the signals came.
  static Result<void> check() {
    if (signal_seen != 0) return fail(ErrorCode::kIo, "interrupted");
    return {};
  }

 private:
  static constexpr std::array<int, 3> kSignals = {SIGINT, SIGTERM, SIGHUP};
  // A signal handler can reach nothing but static storage.
  static inline volatile std::sig_atomic_t signal_seen = 0;

  std::array<struct sigaction, kSignals.size()> previous_ = {};
};

}  // namespace stepstone::tool
