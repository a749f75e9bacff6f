#pragma once
// Ctrl-C, as something that a verb can end on in good order.

#include <signal.h>

#include <csignal>

namespace stepstone::tool {

namespace interruption_internal {
// A signal handler can reach nothing but static storage.
inline volatile std::sig_atomic_t signal_seen = 0;
}  // namespace interruption_internal

// From here to the end of the process, SIGINT, SIGTERM and SIGHUP do not end it: they are only
// noted, unless they were ignored before. The second of one kind ends the process, as ever. For a
// verb that asks was_interrupted() while it works. It is not taken back: what comes when the work
// is done must not make the exit code say that it was not.
inline void note_interruptions() {
  struct sigaction action = {};
  action.sa_handler = [](int) { interruption_internal::signal_seen = 1; };
  // The handler is gone after the first.
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction previous = {};
    ::sigaction(signal, nullptr, &previous);
    if (previous.sa_handler != SIG_IGN) ::sigaction(signal, &action, nullptr);
  }
}

// From any thread.
inline bool was_interrupted() { return interruption_internal::signal_seen != 0; }

}  // namespace stepstone::tool
