#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"
#include "tools/interruption.h"
#include "tools/leaf_verification.h"

namespace stepstone::tool {
namespace {

struct VerifyArguments {
  std::filesystem::path store;
  std::optional<std::uint64_t> step;
  LeafPatterns patterns;
  std::filesystem::path resume_file;    // Empty: none.
  std::uint64_t max_mb_per_second = 0;  // 0: as fast as it can.
  unsigned thread_count = 0;            // 0: one for each processor.
};

nlohmann::ordered_json to_json(const Damage& damage) {
  nlohmann::ordered_json json = {{"step", damage.step},
                                 {"item", nullptr},
                                 {"leaf", nullptr},
                                 {"message", printable(damage.message)}};
  if (!damage.item.empty()) json["item"] = printable(damage.item);
  if (damage.leaf) json["leaf"] = printable(*damage.leaf);
  return json;
}

std::string to_line(const Damage& damage) {
  std::string place = fmt::format("step {}", damage.step);
  if (!damage.item.empty()) place += fmt::format(" item '{}'", printable(damage.item));
  if (damage.leaf) place += fmt::format(" leaf '{}'", printable(*damage.leaf));
  // The engine's own messages mostly name the place already.
  const std::string message = printable(damage.message);
  return message.starts_with(place) ? message : place + ": " + message;
}

// All of it, and the files' indexes besides.
Result<VerifyReport> verify_everything(const VerifyArguments& arguments, const Store& store) {
  Progress progress("verify");
  return store.verify({.step = arguments.step,
                       .progress = [&](std::uint64_t done_bytes, std::uint64_t total_bytes) {
                         progress.update(done_bytes, total_bytes);
                       }});
}

Result<VerifyReport> verify_some(const VerifyArguments& arguments, const Store& store) {
  VerificationOptions options;
  options.step = arguments.step;
  options.selection = STEPSTONE_TRY(LeafSelection::compile(arguments.patterns));
  options.bytes_per_second = arguments.max_mb_per_second * 1'000'000;
  options.thread_count = arguments.thread_count;
  options.state_file = arguments.resume_file;
  options.should_stop = was_interrupted;
  note_interruptions();
  Progress progress("verify");
  options.progress = [&](std::uint64_t done_bytes, std::uint64_t total_bytes) {
    progress.update(done_bytes, total_bytes);
  };
  Verification verification = STEPSTONE_TRY(verify_leaves(store, arguments.patterns, options));
  if (verification.is_complete) return std::move(verification.report);
  return fail(ErrorCode::kClosed, arguments.resume_file.empty()
                                      ? "interrupted"
                                      : "interrupted; the same command goes on from where it was");
}

Result<int> run_verify(const VerifyArguments& arguments, Console& console) {
  const auto store = STEPSTONE_TRY(open_for_reading(arguments.store));
  const bool is_partial = !arguments.patterns.include.empty() ||
                          !arguments.patterns.exclude.empty() || !arguments.resume_file.empty() ||
                          arguments.max_mb_per_second != 0 || arguments.thread_count != 0;
  const VerifyReport report = STEPSTONE_TRY(is_partial ? verify_some(arguments, *store)
                                                       : verify_everything(arguments, *store));
  if (console.json) {
    nlohmann::ordered_json damages = nlohmann::ordered_json::array();
    for (const Damage& damage : report.damages) damages.push_back(to_json(damage));
    const nlohmann::ordered_json answer = {{"store", printable(arguments.store.native())},
                                           {"step_count", report.step_count},
                                           {"leaf_count", report.leaf_count},
                                           {"size_bytes", report.size_bytes},
                                           {"damages", std::move(damages)}};
    STEPSTONE_TRY(console.output.write(answer.dump() + "\n"));
  } else {
    std::string text;
    for (const Damage& damage : report.damages) text += to_line(damage) + "\n";
    text += fmt::format(
        "verified {}, {}, {}: {}\n", format_count(report.step_count, "step", "steps"),
        format_count(report.leaf_count, "leaf", "leaves"), format_size(report.size_bytes),
        report.damages.empty()
            ? "no damage"
            : format_count(report.damages.size(), "damaged place", "damaged places"));
    STEPSTONE_TRY(console.output.write(text));
  }
  return report.damages.empty() ? kExitOk : kExitFailed;
}

}  // namespace

void add_verify(CommandLine& line) {
  Verb verb(
      line, "verify", "Read every byte and check it against its hash",
      "Writes one line for each damage, naming step, item and leaf, and exits with 1 if there is\n"
      "any. What is not named can still be read. With chosen leaves, a limit, --threads or a file "
      "to "
      "resume from,\n"
      "only what the leaves hold is read, and not the indexes of the files.\n\n"
      "Examples:\n"
      "  stepstone verify run\n"
      "  stepstone verify run --step 100\n"
      "  stepstone verify run --max-mb-per-second 50 --resume-file verify.state");
  const auto arguments = std::make_shared<VerifyArguments>();
  verb.add_store(arguments->store);
  verb.add_step({.names = "--step", .description = "Only this step", .type_name = "N"},
                arguments->step);
  verb.add_leaves(arguments->patterns);
  verb.add_number({.names = "--max-mb-per-second",
                   .description = "Read no more than so many MB (10^6 bytes) in a second",
                   .type_name = "N"},
                  arguments->max_mb_per_second, 1, 1'000'000);
  verb.add_path({.names = "--resume-file",
                 .description = "Note in this file how far it is, and begin where it says",
                 .type_name = "FILE"},
                arguments->resume_file);
  verb.add_number({.names = "--threads",
                   .description = "How many threads read; without it: one for each processor",
                   .type_name = "N"},
                  arguments->thread_count, 1, 1024);
  verb.add_json();
  verb.on_run([arguments](Console& console) { return run_verify(*arguments, console); });
}

}  // namespace stepstone::tool
