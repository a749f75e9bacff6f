#pragma once
// Ctrl-C, as something that a verb can end on in good order.

#include <signal.h>

#include <array>
#include <csignal>
#include <cstddef>

namespace stepstone::tool {

// While it lives, SIGINT, SIGTERM and SIGHUP do not end the process: they are only noted, once and
// for all, unless they were ignored before. The second of one kind ends the process, as ever. One
// at a time; was_interrupted() from any thread.
class InterruptionGuard {
 public:
  InterruptionGuard() {
    struct sigaction action = {};
    action.sa_handler = [](int) { signal_seen = 1; };
    // The handler is gone after the first.
    action.sa_flags = static_cast<int>(SA_RESETHAND);
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

  static bool was_interrupted() { return signal_seen != 0; }

 private:
  static constexpr std::array<int, 3> kSignals = {SIGINT, SIGTERM, SIGHUP};
  // A signal handler can reach nothing but static storage.
  static inline volatile std::sig_atomic_t signal_seen = 0;

  std::array<struct sigaction, kSignals.size()> previous_ = {};
};

}  // namespace stepstone::tool
