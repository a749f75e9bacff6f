#include "tools/command/portable.h"

#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "format/portable_layout.h"
#include "tools/interruption.h"

namespace stepstone::tool {

bool is_portable_name(const std::filesystem::path& path) {
  return path.native().ends_with(kPortableExtension);
}

bool is_portable_file(const std::filesystem::path& path) {
  std::error_code ignored;
  // A pipe would be waited for.
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  std::string head(portable::kMagic.size(), '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(head.data(), static_cast<std::streamsize>(head.size()));
  return (file && head == portable::kMagic) || is_portable_name(path);
}

Result<int> export_portable(const PortableExport& arguments, Console& console) {
  note_interruptions();
  const auto store = STEPSTONE_TRY(open_for_reading(arguments.store));
  STEPSTONE_TRY(check_choice(*store, arguments.steps, arguments.choice));
  ExportOptions options;
  if (!arguments.steps.empty()) options.steps = arguments.steps;
  options.overwrite = arguments.overwrite;
  options.hooks = STEPSTONE_TRY(hooks_for(arguments.choice));
  options.should_stop = [] { return was_interrupted(); };
  Progress progress("export");
  options.progress = [&](std::uint64_t done_bytes, std::uint64_t total_bytes) {
    progress.update(done_bytes, total_bytes);
  };
  Result<ExportCounters> counters = store->export_steps(arguments.file, options);
  if (!counters && counters.error().code == ErrorCode::kAlreadyExists) {
    return fail(ErrorCode::kAlreadyExists,
                printable(arguments.file.native()) + " exists already; --force replaces it");
  }
  if (!counters) return tl::unexpected<Error>(std::move(counters).error());
  if (console.json) {
    const nlohmann::ordered_json answer = {{"store", printable(arguments.store.native())},
                                           {"file", printable(arguments.file.native())},
                                           {"step_count", counters->step_count},
                                           {"leaf_count", counters->leaf_count},
                                           {"size_bytes", counters->size_bytes},
                                           {"file_size_bytes", counters->file_size_bytes},
                                           {"format", kPortableFormatName}};
    STEPSTONE_TRY(console.output.write(answer.dump() + "\n"));
    return kExitOk;
  }
  STEPSTONE_TRY(console.output.write(
      fmt::format("exported {} to {}, {}\n", format_count(counters->step_count, "step", "steps"),
                  printable(arguments.file.native()), format_size(counters->file_size_bytes))));
  return kExitOk;
}

Result<int> import_portable(const PortableImport& arguments, Console& console) {
  note_interruptions();
  const auto file = STEPSTONE_TRY(open_for_reading(arguments.file));
  STEPSTONE_TRY(check_choice(*file, {}, arguments.choice));
  ImportOptions options;
  options.as_step = arguments.as_step;
  options.existing = arguments.overwrite       ? ImportOptions::Existing::kOverwrite
                     : arguments.skip_existing ? ImportOptions::Existing::kSkip
                                               : ImportOptions::Existing::kRefuse;
  options.hooks = STEPSTONE_TRY(hooks_for(arguments.choice));
  options.should_stop = [] { return was_interrupted(); };
  Progress progress("import");
  options.progress = [&](std::uint64_t done_bytes, std::uint64_t total_bytes) {
    progress.update(done_bytes, total_bytes);
  };
  const auto store = STEPSTONE_TRY(Store::open(arguments.store, {.create_if_missing = true}));
  Result<ImportCounters> counters = store->import_steps(*file, options);
  if (!counters && counters.error().code == ErrorCode::kAlreadyExists) {
    counters.error().message += "; --overwrite replaces it, --skip-existing leaves it";
  }
  if (!counters) return tl::unexpected<Error>(std::move(counters).error());
  STEPSTONE_TRY(store->close());
  if (console.json) {
    const nlohmann::ordered_json answer = {{"store", printable(arguments.store.native())},
                                           {"file", printable(arguments.file.native())},
                                           {"step_count", counters->step_count},
                                           {"skipped_count", counters->skipped_count},
                                           {"leaf_count", counters->leaf_count},
                                           {"size_bytes", counters->size_bytes},
                                           {"format", kPortableFormatName}};
    STEPSTONE_TRY(console.output.write(answer.dump() + "\n"));
    return kExitOk;
  }
  STEPSTONE_TRY(console.output.write(fmt::format(
      "imported {}, {}, into {}{}\n", format_count(counters->step_count, "step", "steps"),
      format_size(counters->size_bytes), printable(arguments.store.native()),
      counters->skipped_count == 0
          ? ""
          : fmt::format("; {} there already",
                        format_count(counters->skipped_count, "was", "were")))));
  return kExitOk;
}

}  // namespace stepstone::tool
