#include "tests/crash/settings.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace stepstone {
namespace {

char noted_state[1024];

void on_abort(int /*signal*/) {
  [[maybe_unused]] ssize_t ignored = write(2, noted_state, std::strlen(noted_state));
  ignored = write(2, "\n", 1);
}

}  // namespace

void note_state(const std::string& state) {
  std::snprintf(noted_state, sizeof(noted_state), "%s", state.c_str());
  std::signal(SIGABRT, on_abort);
}

std::uint64_t crash_seed() {
  const char* const text = std::getenv("STEPSTONE_CRASH_SEED");
  return text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
}

std::uint64_t scaled(std::uint64_t count) {
  const char* const text = std::getenv("STEPSTONE_CRASH_SCALE");
  if (text == nullptr) return count;
  const double scale = std::strtod(text, nullptr);
  return std::max<std::uint64_t>(1, static_cast<std::uint64_t>(scale * static_cast<double>(count)));
}

std::uint64_t crash_states_per_workload() {
  const char* const text = std::getenv("STEPSTONE_CRASH_STATES");
  return text == nullptr ? scaled(300) : std::strtoull(text, nullptr, 10);
}

}  // namespace stepstone
