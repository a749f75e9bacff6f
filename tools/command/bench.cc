// The command line of what tools/bench/ does.
#include "tools/bench/bench.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "tools/command/verb.h"
#include "tools/command/verbs.h"

namespace stepstone::tool {
namespace {

std::string help() {
  std::string text = "Workloads:\n";
  for (const bench::WorkloadDescription& workload : bench::workload_descriptions()) {
    text += fmt::format("  {:<11} {}\n", workload.name, workload.description);
  }
  return text +
         "\nEach figure stands beside a limit that was measured in turns with it: ratio is value "
         "over limit,\n"
         "so that 1 is the limit, and of rates (MB/s) more is better. Medians; times drift, ratios "
         "less.\n\n"
         "Examples:\n"
         "  stepstone bench gpt2 small --json figures.json\n"
         "  stepstone bench gpt2 --shrink 1000 --samples 1    try it out in a second";
}

// One measurement, in a process that `stepstone bench` starts.
void add_bench_child(CommandLine& line) {
  Verb verb(line, "bench-child", "One measurement of `stepstone bench`", "");
  const auto arguments = std::make_shared<BenchChildArguments>();
  verb.hide();
  verb.add_text({.names = "OPERATION", .is_required = true}, arguments->operation);
  verb.add_text({.names = "WORKLOAD", .is_required = true}, arguments->workload);
  verb.add_store(arguments->store);
  verb.add_number<std::uint64_t>({.names = "--shrink"}, arguments->shrink, 1);
  verb.add_text({.names = "--codec"}, arguments->codec);
  verb.on_run([arguments](Console& console) { return run_bench_child(*arguments, console); });
}

}  // namespace

void add_bench(CommandLine& line) {
  Verb verb(line, "bench", "Measure the store beside what this machine can do at most", help());
  const auto arguments = std::make_shared<BenchArguments>();
  CLI::App& app = verb.app();
  app.add_option("WORKLOAD,--workload", arguments->workloads, "Which ones; without any: gpt2")
      ->type_name("");
  app.add_option("--metrics", arguments->metrics, "Only these rows")
      ->delimiter(',')
      ->type_name("NAME,...");
  app.add_option("--directory", arguments->directory,
                 "Where to write; a directory is made there, and removed. Without it: here, if "
                 "here is on a disk")
      ->type_name("DIR");
  app.add_option("--json", arguments->json_file, "Also write the figures here, for programs")
      ->type_name("FILE");
  app.add_option("--samples", arguments->sample_count, "How often each thing is measured")
      ->check(CLI::Range(1U, 1000U))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--codec", arguments->codecs,
                 "none, auto, always or delta; each workload with each")
      ->delimiter(',')
      ->capture_default_str()
      ->type_name("NAME,...");
  app.add_option("--threads", arguments->thread_count, "0: one for each processor")
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--shrink", arguments->shrink, "States that are so many times smaller")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 30))
      ->type_name("N");
  app.add_option("--steps", arguments->step_count,
                 "How many steps tiny-steps, shared, retire and leaf save")
      ->type_name("N");
  app.add_option("--leaves", arguments->leaf_count, "How many leaves leaf saves, in all steps")
      ->type_name("N");
  app.add_flag("--all", arguments->all, "scale: up to 8 GB");
  app.add_option("--model", arguments->model, "compress: the safetensors file with the weights")
      ->capture_default_str()
      ->type_name("FILE");
  verb.on_run([arguments](Console& console) { return run_bench(*arguments, console); });
  add_bench_child(line);
}

}  // namespace stepstone::tool
