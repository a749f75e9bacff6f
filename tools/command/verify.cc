#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"

namespace stepstone::tool {
namespace {

struct VerifyArguments {
  std::filesystem::path store;
  std::optional<std::uint64_t> step;
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

Result<int> run_verify(const VerifyArguments& arguments, Console& console) {
  const auto store = STEPSTONE_TRY(open_for_reading(arguments.store));
  const auto verify = [&] {
    Progress progress("verify");
    return store->verify({.step = arguments.step,
                          .progress = [&](std::uint64_t done_bytes, std::uint64_t total_bytes) {
                            progress.update(done_bytes, total_bytes);
                          }});
  };
  const VerifyReport report = STEPSTONE_TRY(verify());
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
      "any. What is not named can still be read.\n\n"
      "Examples:\n"
      "  stepstone verify run\n"
      "  stepstone verify run --step 100");
  const auto arguments = std::make_shared<VerifyArguments>();
  verb.add_store(arguments->store);
  verb.add_step({.names = "--step", .description = "Only this step", .type_name = "N"},
                arguments->step);
  verb.add_json();
  verb.on_run([arguments](Console& console) { return run_verify(*arguments, console); });
}

}  // namespace stepstone::tool
