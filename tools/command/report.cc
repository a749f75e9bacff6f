#include <fmt/format.h>

#include <mutex>
#include <nlohmann/json.hpp>

#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"
#include "tools/formats/atomic_file.h"
#include "tools/interruption.h"
#include "tools/report/page.h"
#include "tools/report/report_data.h"

namespace stepstone::tool {
namespace {

struct ReportArguments {
  std::filesystem::path store;
  std::filesystem::path file;
  std::optional<std::string> item;
  std::optional<StepRanges> steps;
  bool no_statistics = false;
  bool force = false;
};

// "100,200,500-900": what is wrong with it, or nothing.
std::string parse_ranges(const std::string& text, std::optional<StepRanges>& ranges) {
  StepRanges parsed;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    const std::size_t dash = part.find('-');
    const auto first = parse_step(part.substr(0, dash));
    const auto last = dash == std::string::npos ? first : parse_step(part.substr(dash + 1));
    if (!first || !last || *first > *last) {
      return fmt::format("'{}' is neither a step's number nor two with '-' between them", part);
    }
    parsed.emplace_back(*first, *last);
    begin = end + 1;
  }
  ranges = std::move(parsed);
  return {};
}

Result<int> run_report(const ReportArguments& arguments, Console& console) {
  const auto store = STEPSTONE_TRY(open_for_reading(arguments.store));
  note_interruptions();
  // Before the work, so that a file that may not be replaced is no surprise at its end.
  const auto file = STEPSTONE_TRY(AtomicFile::create(arguments.file, arguments.force));
  ReportData report;
  {
    Progress progress("report");
    report = STEPSTONE_TRY(gather_report(
        *store,
        {.item = arguments.item,
         .measure = !arguments.no_statistics,
         .measured_steps = arguments.steps,
         .progress = [&](std::uint64_t done_bytes,
                         std::uint64_t total_bytes) { progress.update(done_bytes, total_bytes); },
         .was_interrupted = was_interrupted}));
  }
  const std::string page = STEPSTONE_TRY(make_page(report.json, {}));
  STEPSTONE_TRY(file->write(page));
  if (was_interrupted()) return fail(ErrorCode::kIo, "interrupted");
  STEPSTONE_TRY(file->publish());

  const int exit_code = report.problem_count == 0 ? kExitOk : kExitFailed;
  if (console.json) {
    const nlohmann::ordered_json answer = {{"store", printable(arguments.store.native())},
                                           {"file", printable(arguments.file.native())},
                                           {"file_size_bytes", page.size()},
                                           {"step_count", report.step_count},
                                           {"measured_step_count", report.measured_step_count},
                                           {"leaf_count", report.leaf_count},
                                           {"problem_count", report.problem_count},
                                           {"problems", report.problems}};
    STEPSTONE_TRY(console.output.write(answer.dump() + "\n"));
    return exit_code;
  }
  std::string text =
      fmt::format("wrote {}, {}: {}, {}, {} measured\n", printable(arguments.file.native()),
                  format_size(page.size()), format_count(report.step_count, "step", "steps"),
                  format_count(report.leaf_count, "leaf", "leaves"),
                  format_count(report.measured_step_count, "step", "steps"));
  for (const std::string& problem : report.problems) text += "DAMAGED " + problem + "\n";
  STEPSTONE_TRY(console.output.write(text));
  return exit_code;
}

}  // namespace

void add_report(CommandLine& line) {
  Verb verb(
      line, "report", "Write a page about a store, to be looked at in a browser",
      "One HTML file that needs nothing else, not even a network: the steps with their sizes, "
      "times and\n"
      "metrics, what is kept, where the bytes are, and each leaf's norm over the steps, its "
      "figures and its\n"
      "histogram. For these the leaves are read, of 24 steps at most unless --steps says "
      "which. Exits with 1\n"
      "if something could not be read; the page says what.\n\n"
      "Examples:\n"
      "  stepstone report run -o run.html\n"
      "  stepstone report run -o run.html --force --steps 100,500-900\n"
      "  stepstone report run -o run.html --no-statistics    without reading the leaves");
  const auto arguments = std::make_shared<ReportArguments>();
  verb.add_store(arguments->store);
  verb.add_path({.names = "-o,--output",
                 .description = "The file to write",
                 .type_name = "FILE",
                 .is_required = true},
                arguments->file);
  verb.add_text({.names = "--item",
                 .description = "Only the leaves of this item; without it, of all",
                 .type_name = "NAME"},
                [arguments](const std::string& text) {
                  arguments->item = text;
                  return std::string();
                });
  verb.add_text(
      {.names = "--steps",
       .description = "Measure these steps: numbers and ranges, with commas between",
       .type_name = "N,N-N"},
      [arguments](const std::string& text) { return parse_ranges(text, arguments->steps); });
  verb.add_flag("--no-statistics", "Do not read the leaves, so that it takes no time",
                arguments->no_statistics);
  verb.add_flag("--force", "Replace the file if it is there already", arguments->force);
  verb.add_json();
  verb.on_run([arguments](Console& console) { return run_report(*arguments, console); });
}

}  // namespace stepstone::tool
