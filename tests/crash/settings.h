#pragma once
// What the environment says about how much to test, and the entry points of child processes.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace stepstone {

// STEPSTONE_CRASH_SEED, so that a failure can be replayed.
std::uint64_t crash_seed();

// `count` times STEPSTONE_CRASH_SCALE (a number; 1 when it is not set), for a longer sweep.
std::uint64_t scaled(std::uint64_t count);

// How many states of each workload the power-loss test looks at: STEPSTONE_CRASH_STATES, or so many
// that all of them take a minute or two.
std::uint64_t crash_states_per_workload();

// What is being tried, to be printed if an assertion of RocksDB ends the process, which no test
// framework outlives.
void note_state(const std::string& state);

// Each runs in a process of its own, with the arguments that follow its name.
int run_saving_child(const std::vector<std::string>& arguments);
int run_flipping_child(const std::vector<std::string>& arguments);
int run_exporting_child(const std::vector<std::string>& arguments);
int run_forcing_child(const std::vector<std::string>& arguments);

}  // namespace stepstone
