// The command `stepstone`: reads the command line, calls the verb, turns its error into a message
// and an exit code. tools/README.md is its manual.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>

#include "format/limits.h"
#include "tools/bench/bench.h"
#include "tools/command/command.h"
#include "tools/system.h"

namespace stepstone::tool {
namespace {

constexpr const char* kDescription =
    "Looks into Stepstone checkpoint stores, and moves weights in and out of them.\n\n"
    "A store is a directory that holds a run's checkpoints, called steps. A step has items (mostly "
    "one,\n"
    "'default'), an item is a tree of leaves: arrays, numbers, strings.";
constexpr const char* kFooter =
    "Examples:\n"
    "  stepstone import model.safetensors run --step 0     make a store out of a model's weights\n"
    "  stepstone ls run                                    which steps are there\n"
    "  stepstone show run 0                                which leaves step 0 has\n"
    "  stepstone verify run                                is every byte as it was saved\n"
    "  stepstone bench gpt2                                how fast it is on this machine\n"
    "\n`stepstone VERB --help` explains a verb. Exit codes: 0 all is well, 1 it failed or found "
    "damage,\n"
    "2 the command line is wrong.";

std::optional<std::uint64_t> parse_step(const std::string& text) {
  std::uint64_t step = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, code] = std::from_chars(text.data(), end, step);
  if (code != std::errc() || stop != end || step > limits::kStepMax) return std::nullopt;
  return step;
}

std::string check_item(const std::string& name) {
  if (name.size() <= limits::kNameSizeBytesMax) return {};
  return fmt::format("a name of {} bytes is over the limit of {}", name.size(),
                     limits::kNameSizeBytesMax);
}

// What the command line says, as text. Bound to the parser, so it stays where it is.
struct CommandLine {
  std::string store;
  std::string file;
  std::string step;
  std::vector<std::string> steps;
  std::string leaf;
  std::string item;
  bool overwrite = false;
  bool force = false;
  bool json = false;
  bool raw = false;
  bool npy = false;
  BenchArguments bench;
  BenchChildArguments bench_child;

  // Set by the verb that was given.
  std::function<Result<int>(Console&)> run;

  // Only to be called for what has passed check_step().
  std::uint64_t step_number() const { return parse_step(step).value_or(0); }
};

// The argument kinds that verbs share.
class Verb {
 public:
  Verb(CLI::App& parent, CommandLine& line, const char* name, const char* description,
       const char* footer)
      : app_(*parent.add_subcommand(name, description)), line_(line) {
    app_.footer(footer);
  }

  CLI::App& app() { return app_; }

  void add_store() {
    app_.add_option("STORE", line_.store, "The store's directory")->required()->type_name("");
  }
  void add_step() {
    app_.add_option("STEP", line_.step, "The step's number")
        ->required()
        ->type_name("")
        ->check(check_step);
  }
  void add_item() {
    item_ = app_.add_option("--item", line_.item,
                            "Which item of the step; needed only if it has several")
                ->type_name("NAME");
  }
  void add_json() { app_.add_flag("--json", line_.json, "Answer in JSON, for programs"); }

  std::optional<std::string> item() const {
    return item_->count() == 0 ? std::nullopt : std::optional(line_.item);
  }

  static std::string check_step(const std::string& text) {
    if (parse_step(text)) return {};
    return fmt::format("'{}' is not a step: a step is a whole number from 0 to {}", text,
                       limits::kStepMax);
  }

 private:
  CLI::App& app_;
  CommandLine& line_;
  CLI::Option* item_ = nullptr;
};

void add_import(CLI::App& app, CommandLine& line) {
  Verb verb(app, line, "import", "Save a safetensors file as a step",
            "The store is created if it is missing. Each tensor becomes a leaf under its name; the "
            "file's\n"
            "__metadata__ is kept. When the command ends well, the step survives power loss; when "
            "it does\n"
            "not, the store is as it was before.\n\n"
            "Examples:\n"
            "  stepstone import model.safetensors run --step 0\n"
            "  stepstone import model.safetensors run --step 0 --overwrite   replace step 0");
  verb.app().add_option("FILE", line.file, "The safetensors file")->required()->type_name("");
  verb.add_store();
  verb.app()
      .add_option("--step", line.step, "The number of the step to save")
      ->required()
      ->type_name("N")
      ->check(Verb::check_step);
  line.item = "default";
  verb.app()
      .add_option("--item", line.item, "The name of the item to save")
      ->check(check_item)
      ->capture_default_str()
      ->type_name("NAME");
  verb.app().add_flag("--overwrite", line.overwrite,
                      "Replace the step, all of its items, if it is there already");
  verb.add_json();
  verb.app().callback([&line] {
    line.run = [&line](Console& console) {
      return run_import({.file = line.file,
                         .store = line.store,
                         .step = line.step_number(),
                         .item = line.item,
                         .overwrite = line.overwrite},
                        console);
    };
  });
}

void add_ls(CLI::App& app, CommandLine& line) {
  Verb verb(app, line, "ls", "List the steps of a store",
            "Examples:\n"
            "  stepstone ls run\n"
            "  stepstone ls run --json | jq '.steps[-1].step'    the newest step");
  verb.add_store();
  verb.add_json();
  verb.app().callback([&line] {
    line.run = [&line](Console& console) { return run_ls({.store = line.store}, console); };
  });
}

void add_du(CLI::App& app, CommandLine& line) {
  Verb verb(app, line, "du", "Tell how much room each step takes, alone and shared with others",
            "Examples:\n"
            "  stepstone du run\n"
            "  stepstone du run --json | jq .reclaimable_bytes    what no step needs any more");
  verb.add_store();
  verb.add_json();
  verb.app().callback([&line] {
    line.run = [&line](Console& console) { return run_du({.store = line.store}, console); };
  });
}

void add_show(CLI::App& app, CommandLine& line) {
  Verb verb(app, line, "show", "Show the tree of an item: path, type, shape and size of each leaf",
            "A path as shown is what `stepstone cat` takes: names joined by '/', layers[3] for a "
            "place in\n"
            "a list, {7} for a number as a key, .mu for an attribute; a backslash makes a special\n"
            "character plain and \\xHH stands for a byte that is not printable.\n\n"
            "Examples:\n"
            "  stepstone show run 100\n"
            "  stepstone show run 100 --item state");
  verb.add_store();
  verb.add_step();
  verb.add_item();
  verb.add_json();
  verb.app().callback([&line, verb] {
    line.run = [&line, verb](Console& console) {
      return run_show({.store = line.store, .step = line.step_number(), .item = verb.item()},
                      console);
    };
  });
}

void add_cat(CLI::App& app, CommandLine& line) {
  Verb verb(app, line, "cat", "Write one leaf to standard output",
            "Every byte is checked against its hash before it is written. The path is as "
            "`stepstone show`\n"
            "shows it; quote it for the shell.\n\n"
            "Examples:\n"
            "  stepstone cat run 100 params/layer0/kernel --json\n"
            "  stepstone cat run 100 params/layer0/kernel --npy > kernel.npy\n"
            "  stepstone cat run 100 'layers[3]/w' --raw | xxd | head");
  verb.add_store();
  verb.add_step();
  verb.app()
      .add_option("LEAF", line.leaf, "The leaf's path, as in params/layer0/kernel")
      ->required()
      ->type_name("")
      ->check([](const std::string& text) {
        const Result<LeafPath> path = parse_path(text);
        return path ? std::string() : path.error().message;
      });
  verb.add_item();
  CLI::Option_group& formats = *verb.app().add_option_group("Format", "One of these is needed");
  formats.add_flag("--raw", line.raw, "The bytes as they were saved, little-endian");
  formats.add_flag("--npy", line.npy,
                   "A .npy file for numpy.load; not for dtypes that numpy lacks");
  formats.add_flag("--json", line.json, "Dtype, shape and values in JSON; up to 1 MiB of data");
  formats.require_option(1);
  verb.app().add_flag("--force", line.force, "With --json: however large the leaf is");
  verb.app().callback([&line, verb] {
    line.run = [&line, verb](Console& console) -> Result<int> {
      const CatFormat format = line.raw   ? CatFormat::kRaw
                               : line.npy ? CatFormat::kNpy
                                          : CatFormat::kJson;
      return run_cat({.store = line.store,
                      .step = line.step_number(),
                      .leaf = STEPSTONE_TRY(parse_path(line.leaf)),
                      .item = verb.item(),
                      .format = format,
                      .force = line.force},
                     console);
    };
  });
}

void add_export(CLI::App& app, CommandLine& line) {
  Verb verb(app, line, "export", "Write an item as a safetensors file",
            "Leaves must be arrays of dtypes that safetensors has. The parts of a path are joined "
            "by '.'.\n"
            "A file that the safetensors library wrote, imported and exported, is the same byte "
            "for byte.\n"
            "The file appears under its name when it is whole and on the disk.\n\n"
            "Examples:\n"
            "  stepstone export run 100 -o model.safetensors\n"
            "  stepstone export run 100 -o model.safetensors --force    replace the file");
  verb.add_store();
  verb.add_step();
  verb.app()
      .add_option("-o,--output", line.file, "The file to write")
      ->required()
      ->type_name("FILE");
  verb.add_item();
  verb.app().add_flag("--force", line.force, "Replace the file if it is there already");
  verb.add_json();
  verb.app().callback([&line, verb] {
    line.run = [&line, verb](Console& console) {
      return run_export({.store = line.store,
                         .step = line.step_number(),
                         .file = line.file,
                         .item = verb.item(),
                         .force = line.force},
                        console);
    };
  });
}

void add_verify(CLI::App& app, CommandLine& line) {
  Verb verb(
      app, line, "verify", "Read every byte and check it against its hash",
      "Writes one line for each damage, naming step, item and leaf, and exits with 1 if there is\n"
      "any. What is not named can still be read.\n\n"
      "Examples:\n"
      "  stepstone verify run\n"
      "  stepstone verify run --step 100");
  verb.add_store();
  CLI::Option* const step = verb.app()
                                .add_option("--step", line.step, "Only this step")
                                ->type_name("N")
                                ->check(Verb::check_step);
  verb.add_json();
  verb.app().callback([&line, step] {
    line.run = [&line, step](Console& console) {
      return run_verify(
          {.store = line.store,
           .step = step->count() == 0 ? std::nullopt : std::optional(line.step_number())},
          console);
    };
  });
}

void add_rm(CLI::App& app, CommandLine& line) {
  Verb verb(app, line, "rm", "Remove steps",
            "All of them go in one instant, or none if one is not there. This cannot be undone.\n\n"
            "Examples:\n"
            "  stepstone rm run 100\n"
            "  stepstone rm run 100 200 300");
  verb.add_store();
  verb.app()
      .add_option("STEP", line.steps, "The steps' numbers")
      ->required()
      ->type_name("")
      ->check(Verb::check_step);
  verb.add_json();
  verb.app().callback([&line] {
    line.run = [&line](Console& console) {
      RmArguments arguments{.store = line.store, .steps = {}};
      for (const std::string& step : line.steps) {
        arguments.steps.push_back(parse_step(step).value_or(0));
      }
      return run_rm(arguments, console);
    };
  });
}

void add_recompress(CLI::App& app, CommandLine& line) {
  Verb verb(app, line, "recompress", "Encode steps that were saved without compression",
            "Each step is saved again in fewer bytes and takes its own place in one instant; what "
            "is read from\n"
            "it stays the same. One that would not become smaller is left alone. From the oldest "
            "to the newest:\n"
            "a later step that shares chunks with one of these refers to the encoded ones.\n\n"
            "Examples:\n"
            "  stepstone recompress run            all steps\n"
            "  stepstone recompress run 100 200");
  verb.add_store();
  verb.app()
      .add_option("STEP", line.steps, "The steps' numbers; without any: all")
      ->type_name("")
      ->check(Verb::check_step);
  verb.add_json();
  verb.app().callback([&line] {
    line.run = [&line](Console& console) {
      RecompressArguments arguments{.store = line.store, .steps = {}};
      for (const std::string& step : line.steps) {
        arguments.steps.push_back(parse_step(step).value_or(0));
      }
      return run_recompress(arguments, console);
    };
  });
}

void add_bench(CLI::App& app, CommandLine& line) {
  BenchArguments& arguments = line.bench;
  std::string workloads = "Workloads:\n";
  for (const bench::WorkloadDescription& workload : bench::workload_descriptions()) {
    workloads += fmt::format("  {:<11} {}\n", workload.name, workload.description);
  }
  CLI::App& verb =
      *app.add_subcommand("bench", "Measure the store beside what this machine can do at most");
  verb.footer(workloads +
              "\nEach figure stands beside a limit that was measured in turns with it: ratio is "
              "value over limit,\n"
              "so that 1 is the limit, and of rates (MB/s) more is better. Medians; times drift, "
              "ratios less.\n\n"
              "Examples:\n"
              "  stepstone bench gpt2 small --json figures.json\n"
              "  stepstone bench gpt2 --shrink 1000 --samples 1    try it out in a second");
  verb.add_option("WORKLOAD,--workload", arguments.workloads, "Which ones; without any: gpt2")
      ->type_name("");
  verb.add_option("--metrics", arguments.metrics, "Only these rows")
      ->delimiter(',')
      ->type_name("NAME,...");
  verb.add_option("--directory", arguments.directory,
                  "Where to write; a directory is made there, and removed. Without it: here, if "
                  "here is on a disk")
      ->type_name("DIR");
  verb.add_option("--json", arguments.json_file, "Also write the figures here, for programs")
      ->type_name("FILE");
  verb.add_option("--samples", arguments.sample_count, "How often each thing is measured")
      ->check(CLI::Range(1U, 1000U))
      ->capture_default_str()
      ->type_name("N");
  verb.add_option("--codec", arguments.codecs,
                  "none, auto, always or delta; each workload with each")
      ->delimiter(',')
      ->capture_default_str()
      ->type_name("NAME,...");
  verb.add_option("--threads", arguments.thread_count, "0: one for each processor")
      ->capture_default_str()
      ->type_name("N");
  verb.add_option("--shrink", arguments.shrink, "States that are so many times smaller")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 30))
      ->type_name("N");
  verb.add_option("--steps", arguments.step_count,
                  "How many steps tiny-steps, shared, retire and leaf save")
      ->type_name("N");
  verb.add_option("--leaves", arguments.leaf_count, "How many leaves leaf saves, in all steps")
      ->type_name("N");
  verb.add_flag("--all", arguments.all, "scale: up to 8 GB");
  verb.add_option("--model", arguments.model, "compress: the safetensors file with the weights")
      ->capture_default_str()
      ->type_name("FILE");
  verb.callback(
      [&line] { line.run = [&line](Console& console) { return run_bench(line.bench, console); }; });

  BenchChildArguments& child = line.bench_child;
  CLI::App& hidden = *app.add_subcommand("bench-child", "One measurement of `stepstone bench`");
  hidden.group("");
  hidden.add_option("OPERATION", child.operation)->required();
  hidden.add_option("WORKLOAD", child.workload)->required();
  hidden.add_option("STORE", child.store)->required();
  hidden.add_option("--shrink", child.shrink);
  hidden.add_option("--codec", child.codec);
  hidden.callback([&line] {
    line.run = [&line](Console& console) { return run_bench_child(line.bench_child, console); };
  });
}

// One line on standard error and, for programs, an object on standard output unless a part of an
// answer stands there already. There is nobody left to tell when these writes fail.
void report(std::string_view code, std::string_view message, bool json, Output& output) {
  const std::string text = printable(message);
  const std::string line = "stepstone: " + text + "\n";
  write_fully(STDERR_FILENO, std::as_bytes(std::span(line)));
  if (!json || output.has_written()) return;
  const nlohmann::ordered_json answer = {{"error", {{"code", code}, {"message", text}}}};
  (void)output.write(answer.dump() + "\n");
}

int parse_and_run(int argument_count, char** arguments) {
  // A reader that goes away shows as an error of the write, see Output.
  std::signal(SIGPIPE, SIG_IGN);
  Console console;
  CommandLine line;
  CLI::App app(kDescription, "stepstone");
  app.footer(kFooter);
  app.set_version_flag("--version", "stepstone " STEPSTONE_VERSION);
  app.require_subcommand(1);
  add_import(app, line);
  add_ls(app, line);
  add_du(app, line);
  add_show(app, line);
  add_cat(app, line);
  add_export(app, line);
  add_verify(app, line);
  add_rm(app, line);
  add_recompress(app, line);
  add_bench(app, line);
  try {
    app.parse(argument_count, arguments);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help or --version.
    // The parser may have stopped before it came to the flag.
    const bool json = std::any_of(arguments + 1, arguments + argument_count,
                                  [](std::string_view argument) { return argument == "--json"; });
    const auto verbs = app.get_subcommands();
    report("usage",
           fmt::format("{} (see `stepstone {}--help`)", error.what(),
                       verbs.empty() ? "" : verbs.front()->get_name() + " "),
           json, console.output);
    return kExitUsage;
  }
  console.json = line.json;
  const Result<int> result = line.run(console);
  if (result) return *result;
  report(to_string(result.error().code), result.error().message, line.json, console.output);
  return kExitFailed;
}

}  // namespace
}  // namespace stepstone::tool

int main(int argument_count, char** arguments) {
  // Stepstone throws nothing, but the libraries beneath it may, for want of memory above all: so
  // nothing is allocated to say so.
  try {
    return stepstone::tool::parse_and_run(argument_count, arguments);
  } catch (const std::exception& exception) {
    std::fprintf(stderr, "stepstone: %s\n", exception.what());
  } catch (...) {
    std::fputs("stepstone: unknown exception\n", stderr);
  }
  return stepstone::tool::kExitFailed;
}
