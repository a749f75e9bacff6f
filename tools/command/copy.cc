#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"
#include "tools/interruption.h"
#include "tools/transfer_choice.h"

namespace stepstone::tool {
namespace {

struct CopyArguments {
  std::filesystem::path from;
  std::filesystem::path to;
  std::vector<std::uint64_t> steps;  // Empty: all.
  std::optional<std::uint64_t> as_step;
  TransferChoice choice;
  bool overwrite = false;
  bool skip_existing = false;
};

Result<ImportOptions> import_options(const CopyArguments& arguments) {
  ImportOptions options;
  if (!arguments.steps.empty()) options.steps = arguments.steps;
  options.as_step = arguments.as_step;
  if (arguments.overwrite) options.existing = ImportOptions::Existing::kOverwrite;
  if (arguments.skip_existing) options.existing = ImportOptions::Existing::kSkip;
  options.hooks = STEPSTONE_TRY(hooks_for(arguments.choice));
  options.should_stop = was_interrupted;
  return options;
}

Result<int> run_copy(const CopyArguments& arguments, Console& console) {
  // Nothing is created for a source that is not there.
  const auto from = STEPSTONE_TRY(open_for_reading(arguments.from));
  STEPSTONE_TRY(check_choice(*from, arguments.steps, arguments.choice));
  note_interruptions();
  ImportOptions options = STEPSTONE_TRY(import_options(arguments));
  const auto to = STEPSTONE_TRY(Store::open(arguments.to, {.create_if_missing = true}));
  const auto copy = [&] {
    Progress progress("copy");
    options.progress = [&](std::uint64_t done_bytes, std::uint64_t total_bytes) {
      progress.update(done_bytes, total_bytes);
    };
    return to->import_steps(*from, options);
  };
  Result<ImportCounters> counters = copy();
  if (!counters && was_interrupted()) {
    return fail(ErrorCode::kClosed,
                "interrupted; the steps that were copied are whole, and --skip-existing goes on "
                "from there");
  }
  if (!counters) return tl::unexpected<Error>(std::move(counters).error());
  STEPSTONE_TRY(to->close());
  if (console.json) {
    const nlohmann::ordered_json answer = {
        {"from", printable(arguments.from.native())}, {"to", printable(arguments.to.native())},
        {"step_count", counters->step_count},         {"skipped_count", counters->skipped_count},
        {"leaf_count", counters->leaf_count},         {"size_bytes", counters->size_bytes},
        {"stored_bytes", counters->stored_bytes}};
    STEPSTONE_TRY(console.output.write(answer.dump() + "\n"));
    return kExitOk;
  }
  std::string text = fmt::format(
      "copied {}, {}, {}, stored as {}", format_count(counters->step_count, "step", "steps"),
      format_count(counters->leaf_count, "leaf", "leaves"), format_size(counters->size_bytes),
      format_size(counters->stored_bytes));
  if (counters->skipped_count != 0) {
    text += fmt::format("; {} there already", counters->skipped_count);
  }
  STEPSTONE_TRY(console.output.write(text + "\n"));
  return kExitOk;
}

}  // namespace

void add_copy(CommandLine& line) {
  Verb verb(line, "copy", "Copy steps of a store or portable file into another store",
            "Each step is committed by itself, from the lowest up, with its times, metrics and "
            "metadata. An\n"
            "interruption leaves whole steps: --skip-existing goes on from there. The store TO is "
            "created if\n"
            "it is missing; FROM may have a trainer that writes to it.\n\n"
            "Examples:\n"
            "  stepstone copy run backup --skip-existing\n"
            "  stepstone copy run other --steps 100 --as 0\n"
            "  stepstone copy run weights --leaves params       without optimizer state\n"
            "  stepstone copy weights.stone run");
  const auto arguments = std::make_shared<CopyArguments>();
  verb.add_path({.names = "FROM",
                 .description = "The store or portable file to copy from",
                 .is_required = true},
                arguments->from);
  verb.add_path({.names = "TO", .description = "The store to copy into", .is_required = true},
                arguments->to);
  verb.add_step_lists({.names = "--steps",
                       .description = "These steps; without it: all; may be given several times",
                       .type_name = "STEP,..."},
                      arguments->steps);
  verb.add_step({.names = "--as",
                 .description = "What the only step that is copied becomes",
                 .type_name = "STEP"},
                arguments->as_step);
  verb.add_texts({.names = "--item",
                  .description = "Only this item of each step; may be given several times",
                  .type_name = "NAME"},
                 [arguments](const std::string& text) {
                   arguments->choice.items.push_back(text);
                   return std::string();
                 });
  verb.add_leaves(arguments->choice.patterns);
  verb.add_flag("--overwrite", "Replace steps that are there already", arguments->overwrite);
  verb.add_flag("--skip-existing", "Leave steps that are there already as they are",
                arguments->skip_existing);
  verb.choose_one("Existing steps", {"--overwrite", "--skip-existing"}, /*is_required=*/false);
  verb.add_json();
  verb.on_run([arguments](Console& console) { return run_copy(*arguments, console); });
}

}  // namespace stepstone::tool
