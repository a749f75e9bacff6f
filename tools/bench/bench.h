#pragma once
// `stepstone bench`: measures the store on chosen workloads, beside the limits of the machine.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tools/command/command.h"

namespace stepstone::bench {

struct WorkloadDescription {
  const char* name;
  const char* description;  // One line.
};
std::span<const WorkloadDescription> workload_descriptions();

}  // namespace stepstone::bench

namespace stepstone::tool {

struct BenchArguments {
  std::vector<std::string> workloads;  // Empty: gpt2.
  std::vector<std::string> metrics;    // Only rows of these; empty: all.
  std::filesystem::path directory;     // Scratch is made here, and removed; empty: where we are.
  std::filesystem::path json_file;     // Empty: none.
  std::vector<std::string> codecs = {"auto"};  // Every workload is run with each of them.
  unsigned sample_count = 5;
  unsigned thread_count = 0;  // 0: one per processor.
  std::uint64_t shrink = 1;   // States are so many times smaller.
  // Of workloads that have steps or leaves to choose; 0: the workload's own number.
  std::uint64_t step_count = 0;
  std::uint64_t leaf_count = 0;
  bool all = false;  // scale: up to 8 GB.
  std::filesystem::path model = "build/data/model.safetensors";
};
// Prints a table per workload while it goes on. kInvalidArgument: a workload that there is not.
Result<int> run_bench(const BenchArguments& arguments, Console& console);

// One measurement in a process of its own, so that the peak of its memory is that measurement's:
// what run_bench() runs its own program for.
struct BenchChildArguments {
  std::string operation;
  std::string workload;
  std::filesystem::path store;
  std::string codec;
  std::uint64_t shrink = 1;
};
Result<int> run_bench_child(const BenchChildArguments& arguments, Console& console);

}  // namespace stepstone::tool
