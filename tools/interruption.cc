#include "tools/interruption.h"

namespace stepstone::tool {

InterruptionGuard::InterruptionGuard() {
  struct sigaction action = {};
  action.sa_handler = [](int) { signal_seen = 1; };
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    ::sigaction(kSignals[i], nullptr, &previous_[i]);
    if (previous_[i].sa_handler != SIG_IGN) ::sigaction(kSignals[i], &action, nullptr);
  }
}

InterruptionGuard::~InterruptionGuard() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    ::sigaction(kSignals[i], &previous_[i], nullptr);
  }
}

}  // namespace stepstone::tool
