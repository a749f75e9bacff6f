#include "tools/bench/bench.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>

#include "tools/bench/context.h"
#include "tools/system.h"

namespace stepstone::bench {
namespace {

using Run = Result<void> (*)(Context& context);
struct Workload {
  WorkloadDescription description;
  Run run;
};

constexpr Workload kWorkloads[] = {
    {{"gpt2", "GPT-2 small with Adam: 444 float32 leaves, 1.49 GB, saved and restored"}, run_gpt2},
    {{"small", "10,000 leaves of 1 KiB, saved and restored"}, run_small},
    {{"big", "16 leaves of 64 MiB, saved and restored"}, run_big},
    {{"tiny-steps", "196 KB a step, the newest 3 kept: 500 steps, or --steps"}, run_tiny_steps},
    {{"shared", "gpt2 with one of its 444 leaves changed in each step: 5 steps, or --steps"},
     run_shared},
    {{"leaf", "random leaves of 1 KiB among 100,000 in 10 steps, or --leaves and --steps"},
     run_leaf},
    {{"retire", "steps of gpt2 retired; and 10 steps, or --steps, with the newest 3 kept"},
     run_retire},
    {{"compress", "real weights as float32 and bfloat16: the codec alone; 727 MB saved, restored"},
     run_compress},
    {{"scale", "1 MB to 2 GB (--all: 8 GB) and 10 to 1,000,000 leaves, with a fit"}, run_scale},
    {{"hash", "gpt2's bytes hashed in chunks of 256 KiB, and nothing else"}, run_hash},
    {{"portable", "gpt2 exported into a portable file, imported, and read in place"}, run_portable},
};

const Workload* find_workload(std::string_view name) {
  for (const Workload& workload : kWorkloads) {
    if (workload.description.name == name) return &workload;
  }
  return nullptr;
}

constexpr auto kDescriptions = [] {
  std::array<WorkloadDescription, std::size(kWorkloads)> descriptions = {};
  for (std::size_t i = 0; i < descriptions.size(); ++i) {
    descriptions[i] = kWorkloads[i].description;
  }
  return descriptions;
}();

}  // namespace

std::span<const WorkloadDescription> workload_descriptions() { return kDescriptions; }

}  // namespace stepstone::bench

namespace stepstone::tool {
namespace {

Result<void> write_json(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (file) return {};
  return fail(ErrorCode::kIo, path.string() + ": cannot be written");
}

}  // namespace

Result<int> run_bench(const BenchArguments& arguments, Console& console) {
  std::vector<std::string> names = arguments.workloads;
  if (names.empty()) names.emplace_back("gpt2");
  for (const std::string& name : names) {
    if (bench::find_workload(name) == nullptr) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("there is no workload '{}'; `stepstone bench --help` lists them",
                              printable(name)));
    }
  }
  for (const std::string& codec : arguments.codecs) STEPSTONE_TRY(bench::parse_codec(codec));
  const auto scratch = STEPSTONE_TRY(bench::Scratch::make(arguments.directory));
  const bench::Machine machine = bench::describe_machine(scratch->path().parent_path());
  STEPSTONE_TRY(console.output.write(bench::to_text(machine)));
  std::vector<bench::Row> rows;
  for (const std::string& name : names) {
    for (const std::string& codec : arguments.codecs) {
      bench::Context context(arguments, scratch->path() / name, name, codec);
      std::filesystem::create_directories(context.scratch());
      STEPSTONE_TRY_CONTEXT(bench::find_workload(name)->run(context), name);
      std::error_code ignored;
      std::filesystem::remove_all(context.scratch(), ignored);
      STEPSTONE_TRY(console.output.write("\n" + bench::to_table(context.rows())));
      rows.insert(rows.end(), context.rows().begin(), context.rows().end());
      // Now already, so that a later workload that fails does not lose what there is.
      if (!arguments.json_file.empty()) {
        STEPSTONE_TRY(write_json(arguments.json_file, bench::to_json(machine, rows)));
      }
    }
  }
  return kExitOk;
}

}  // namespace stepstone::tool
