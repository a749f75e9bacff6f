// A file of another format becomes an item. It is checked whole before the store is opened or
// created, so that a bad file leaves no trace; the bytes are read by the save's own threads, piece
// by piece.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "format/limits.h"
#include "tools/command/command.h"
#include "tools/command/portable.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"
#include "tools/formats/formats.h"
#include "tools/formats/kept_leaves.h"
#include "tools/interruption.h"
#include "tools/leaf_selection.h"

namespace stepstone::tool {
namespace {

struct ImportArguments {
  std::filesystem::path file;
  std::filesystem::path store;
  std::optional<std::uint64_t> step;
  std::optional<std::string> item;
  bool is_portable = false;        // --format stone.
  const Format* format = nullptr;  // Null: to be told from the file.
  LeafPatterns patterns;
  bool overwrite = false;
  bool skip_existing = false;
};

constexpr std::string_view kDefaultItem = "default";

std::string check_name(const std::string& name) {
  if (name.size() <= limits::kNameSizeBytesMax) return {};
  return fmt::format("a name of {} bytes is over the limit of {}", name.size(),
                     limits::kNameSizeBytesMax);
}

// A leaf of a file, until Ctrl-C: the save then ends as after any other error, and leaves nothing.
class InterruptibleSource final : public LeafSource {
 public:
  explicit InterruptibleSource(std::shared_ptr<const LeafSource> source)
      : source_(std::move(source)) {}

  Result<std::span<const std::byte>> read(std::uint64_t offset, std::size_t size,
                                          std::span<std::byte> scratch) const override {
    if (was_interrupted()) {
      return fail(ErrorCode::kClosed, "interrupted; nothing was imported");
    }
    return source_->read(offset, size, scratch);
  }

 private:
  const std::shared_ptr<const LeafSource> source_;
};

Result<Contents> read_contents(const ImportArguments& arguments) {
  const LeafSelection selection = STEPSTONE_TRY(LeafSelection::compile(arguments.patterns));
  const Format* format = arguments.format;
  if (format == nullptr) format = STEPSTONE_TRY(detect_format(arguments.file));
  Contents contents = STEPSTONE_TRY(format->read(arguments.file));
  return STEPSTONE_TRY_CONTEXT(select_leaves(std::move(contents), selection),
                               printable(arguments.file.native()));
}

Result<void> put_item(Contents contents, const std::string& item, StepWriter& writer) {
  STEPSTONE_TRY(writer.put_item(item, "standard", std::move(contents.structure),
                                std::move(contents.custom_metadata)));
  for (ContentLeaf& leaf : contents.leaves) {
    STEPSTONE_TRY(writer.put_leaf(item, std::move(leaf.encoded_path), std::move(leaf.info),
                                  std::make_shared<InterruptibleSource>(std::move(leaf.source))));
  }
  return {};
}

Result<StepRecord> save(const ImportArguments& arguments, const std::string& item,
                        Contents contents, Store& store) {
  Result<std::unique_ptr<StepWriter>> writer =
      store.begin_save(*arguments.step, {.overwrite = arguments.overwrite});
  if (!writer && writer.error().code == ErrorCode::kAlreadyExists) {
    return fail(ErrorCode::kAlreadyExists,
                fmt::format("step {} is in {} already; --overwrite replaces it", *arguments.step,
                            arguments.store.native()));
  }
  if (!writer) return tl::unexpected<Error>(std::move(writer).error());
  STEPSTONE_TRY(put_item(std::move(contents), item, **writer));
  Progress progress("import");
  (*writer)->on_progress([&](std::uint64_t done_bytes, std::uint64_t total_bytes) {
    progress.update(done_bytes, total_bytes);
  });
  return (*writer)->commit();
}

Result<int> run_import(const ImportArguments& arguments, Console& console) {
  const std::string item = arguments.item.value_or(std::string(kDefaultItem));
  Contents contents = STEPSTONE_TRY(read_contents(arguments));
  const std::size_t leaf_count = contents.leaves.size();
  note_interruptions();
  const auto store = STEPSTONE_TRY(Store::open(arguments.store, {.create_if_missing = true}));
  const StepRecord record = STEPSTONE_TRY(save(arguments, item, std::move(contents), *store));
  STEPSTONE_TRY(store->close());

  if (console.json) {
    const nlohmann::ordered_json answer = {{"store", printable(arguments.store.native())},
                                           {"step", *arguments.step},
                                           {"item", printable(item)},
                                           {"leaf_count", leaf_count},
                                           {"size_bytes", record.size_bytes},
                                           {"committed_unix_ns", record.committed_unix_ns}};
    STEPSTONE_TRY(console.output.write(answer.dump() + "\n"));
    return kExitOk;
  }
  STEPSTONE_TRY(console.output.write(
      fmt::format("imported {}, {}, as step {} of {} (item '{}')\n",
                  format_count(leaf_count, "leaf", "leaves"), format_size(record.size_bytes),
                  *arguments.step, printable(arguments.store.native()), printable(item))));
  return kExitOk;
}

}  // namespace

void add_import(CommandLine& line) {
  Verb verb(line, "import",
            "Save the steps of a portable file, or a file of another format as a step",
            "Reads portable files (.stone), with all their steps and all that is known of them;\n"
            "safetensors files, one or several with an index (model.safetensors.index.json), "
            "NumPy's\n"
            ".npy and .npz, PyTorch's .pt, of which nothing is executed, and GGUF files of plain "
            "tensors. A dict\n"
            "of tensors becomes a dict of leaves under their names; a .pt file keeps its tree of "
            "dicts, lists\n"
            "and tuples.\n\n"
            "The store is created if it is missing. When the command ends well, the step survives "
            "power loss;\n"
            "when it does not, the store is as it was before, or new and empty.\n\n"
            "Examples:\n"
            "  stepstone import model.safetensors run --step 0\n"
            "  stepstone import model.safetensors run --step 0 --overwrite   replace step 0\n"
            "  stepstone import checkpoint.pt run --step 1200 --item trainer\n"
            "  stepstone import model.safetensors run --step 0 --leaves '*.bias'\n"
            "  stepstone import run.stone copy --skip-existing               go on where it ended");
  const auto arguments = std::make_shared<ImportArguments>();
  verb.add_path({.names = "FILE", .description = "The file to read", .is_required = true},
                arguments->file);
  verb.add_store(arguments->store);
  verb.add_step(
      {.names = "--step",
       .description = "The number of the step to save; of a .stone file, only to save its "
                      "one step under another number",
       .type_name = "N"},
      arguments->step);
  verb.add_text(
      {.names = "--item",
       .description = "The name of the item to save (default); of a .stone file, the only "
                      "item to take",
       .type_name = "NAME"},
      [arguments](const std::string& name) {
        arguments->item = name;
        return check_name(name);
      });
  verb.add_text(
      {.names = "--format",
       .description = "What the file is, if it does not tell: stone, " + readable_format_names(),
       .type_name = "NAME"},
      [arguments](const std::string& name) -> std::string {
        arguments->is_portable = name == kPortableFormatName;
        if (arguments->is_portable) return {};
        arguments->format = find_format(name);
        if (arguments->format != nullptr && arguments->format->read != nullptr) return {};
        return fmt::format("'{}' is not one of stone, {}", name, readable_format_names());
      });
  verb.add_leaves(arguments->patterns);
  verb.add_flag("--overwrite", "Replace the step, all of its items, if it is there already",
                arguments->overwrite);
  verb.add_flag("--skip-existing", "Of a .stone file: leave the steps that are there already",
                arguments->skip_existing);
  verb.add_json();
  verb.on_run([arguments, &line](Console& console) -> Result<int> {
    if (arguments->is_portable ||
        (arguments->format == nullptr && is_portable_file(arguments->file))) {
      return import_portable(
          {.file = arguments->file,
           .store = arguments->store,
           .as_step = arguments->step,
           .choice = {.items = arguments->item ? std::vector<std::string>{*arguments->item}
                                               : std::vector<std::string>(),
                      .patterns = arguments->patterns,
                      .cast_to = {}},
           .overwrite = arguments->overwrite,
           .skip_existing = arguments->skip_existing},
          console);
    }
    if (!arguments->step || arguments->skip_existing) {
      line.failure_exit_code = kExitUsage;
      return fail(ErrorCode::kInvalidArgument,
                  arguments->step ? "--skip-existing is for .stone files"
                                  : "--step is required (see `stepstone import --help`)");
    }
    return run_import(*arguments, console);
  });
}

}  // namespace stepstone::tool
