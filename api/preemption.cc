// A signal handler knows nothing but the signal's number, so what it writes to belongs to the whole
// process: one counter per signal, and the handler that it is to call next. It takes no lock and
// looks at no object, so that it may run at any time, also when the last Preemption has gone.
#include "api/preemption.h"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <mutex>

namespace stepstone {
namespace {

using PlainHandler = void (*)(int signal);
using InformedHandler = void (*)(int signal, siginfo_t* info, void* context);

struct Slot {
  std::atomic<std::uint64_t> count = 0;
  // Of who was there before; at most one of the two.
  std::atomic<PlainHandler> plain = nullptr;
  std::atomic<InformedHandler> informed = nullptr;
  // With the mutex held.
  unsigned user_count = 0;
  bool is_installed = false;
  struct sigaction previous = {};
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(std::atomic<PlainHandler>::is_always_lock_free);

// Never destroyed, and initialized before any code runs.
constinit std::array<Slot, NSIG> slots;
constinit std::mutex slots_mutex;

void handle(int signal, siginfo_t* info, void* context) {
  const int error = errno;
  Slot& slot = slots[static_cast<std::size_t>(signal)];
  slot.count.fetch_add(1);
  if (const PlainHandler plain = slot.plain.load()) plain(signal);
  if (const InformedHandler informed = slot.informed.load()) informed(signal, info, context);
  errno = error;
}

bool is_ours(const struct sigaction& action) {
  return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == handle;
}

// With the mutex held.
Result<void> install(int signal) {
  Slot& slot = slots[static_cast<std::size_t>(signal)];
  // It may still be there, under a handler of somebody else's that calls it.
  if (slot.is_installed) return {};
  const auto failed = [&] {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("signal {} cannot be handled: {}", signal, std::strerror(errno)));
  };
  if (sigaction(signal, nullptr, &slot.previous) != 0) return failed();
  const bool is_informed = (slot.previous.sa_flags & SA_SIGINFO) != 0;
  const bool is_handler =
      is_informed || (slot.previous.sa_handler != SIG_DFL && slot.previous.sa_handler != SIG_IGN);
  slot.informed = is_informed ? slot.previous.sa_sigaction : nullptr;
  slot.plain = is_handler && !is_informed ? slot.previous.sa_handler : nullptr;
  struct sigaction action = {};
  action.sa_sigaction = handle;
  // A read that is under way in the trainer goes on after the signal.
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  sigemptyset(&action.sa_mask);
  if (sigaction(signal, &action, nullptr) != 0) return failed();
  slot.is_installed = true;
  return {};
}

// With the mutex held.
void uninstall(int signal) {
  Slot& slot = slots[static_cast<std::size_t>(signal)];
  struct sigaction current = {};
  if (sigaction(signal, nullptr, &current) != 0 || !is_ours(current)) return;
  sigaction(signal, &slot.previous, nullptr);
  slot.is_installed = false;
}

}  // namespace

Result<std::shared_ptr<Preemption>> Preemption::on_signals(std::vector<int> signals) {
  auto preemption = std::make_shared<Preemption>();
  const std::scoped_lock lock(slots_mutex);
  for (const int signal : signals) {
    if (signal <= 0 || signal >= NSIG) {
      return fail(ErrorCode::kInvalidArgument, fmt::format("there is no signal {}", signal));
    }
  }
  for (const int signal : signals) {
    Slot& slot = slots[static_cast<std::size_t>(signal)];
    const std::uint64_t count_before = slot.count;
    const Result<void> installed = install(signal);
    if (!installed) {
      for (const Watched& watched : std::exchange(preemption->watched_, {})) {
        if (--slots[static_cast<std::size_t>(watched.signal)].user_count == 0) {
          uninstall(watched.signal);
        }
      }
      return tl::unexpected<Error>(installed.error());
    }
    ++slot.user_count;
    preemption->watched_.push_back({signal, count_before});
  }
  return preemption;
}

Preemption::~Preemption() {
  if (watched_.empty()) return;
  const std::scoped_lock lock(slots_mutex);
  for (const Watched& watched : watched_) {
    if (--slots[static_cast<std::size_t>(watched.signal)].user_count == 0) {
      uninstall(watched.signal);
    }
  }
}

bool Preemption::is_requested() const noexcept {
  if (is_requested_) return true;
  for (const auto& [signal, count_before] : watched_) {
    if (slots[static_cast<std::size_t>(signal)].count != count_before) return true;
  }
  return false;
}

}  // namespace stepstone
