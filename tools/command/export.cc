// An item becomes a file of another format, or steps become a portable file. Everything that can be
// wrong with the item is found before the file is begun, and the file gets its name only when its
// bytes are on the disk.
#include <fmt/format.h>

#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "tools/command/command.h"
#include "tools/command/portable.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"
#include "tools/formats/formats.h"
#include "tools/formats/kept_leaves.h"
#include "tools/interruption.h"
#include "tools/leaf_pieces.h"
#include "tools/leaf_selection.h"
#include "tools/transfer_choice.h"

namespace stepstone::tool {
namespace {

struct ExportArguments {
  std::filesystem::path store;
  std::vector<std::uint64_t> steps;
  std::filesystem::path file;
  std::optional<std::string> item;
  bool is_portable = false;        // --format stone.
  const Format* format = nullptr;  // Null: to be told from the file's name.
  LeafPatterns patterns;
  std::optional<DType> cast_to;
  std::uint64_t shard_size_bytes = 0;
  bool deflate = false;
  bool force = false;
};

// A leaf of a store.
class StoredSource final : public LeafSource {
 public:
  StoredSource(std::shared_ptr<const StepReader> step, std::string item, StoredLeaf leaf)
      : step_(std::move(step)), item_(std::move(item)), leaf_(std::move(leaf)) {}

  Result<std::span<const std::byte>> read(std::uint64_t offset, std::size_t size,
                                          std::span<std::byte> scratch) const override {
    STEPSTONE_TRY(step_->read_bytes(item_, leaf_, offset, scratch.first(size)));
    return scratch.first(size);
  }

 private:
  const std::shared_ptr<const StepReader> step_;
  const std::string item_;
  const StoredLeaf leaf_;
};

ContentLeaf to_content(const std::shared_ptr<const StepReader>& step, const std::string& item,
                       StoredLeaf stored) {
  ContentLeaf leaf;
  leaf.encoded_path = stored.encoded_path;
  leaf.info = {.kind = stored.record.kind,
               .dtype = stored.record.dtype,
               .shape = stored.record.shape,
               .size_bytes = stored.record.size_bytes};
  leaf.piece_size_bytes = piece_size_bytes(stored.record);
  leaf.source = std::make_shared<StoredSource>(step, item, std::move(stored));
  return leaf;
}

Result<void> cast_leaf(DType to, ContentLeaf& leaf) {
  const std::optional<DType> from = leaf.info.dtype;
  STEPSTONE_TRY(cast_floats(to, leaf.info, leaf.source));
  if (!from || leaf.info.dtype == from) return {};
  // As much of the stored leaf for each piece as without a cast.
  leaf.piece_size_bytes = leaf.piece_size_bytes / (info(*from).bits / 8) * (info(to).bits / 8);
  return {};
}

Result<Contents> gather(const ExportArguments& arguments,
                        const std::shared_ptr<const StepReader>& step, const std::string& item) {
  const LeafSelection selection = STEPSTONE_TRY(LeafSelection::compile(arguments.patterns));
  ItemRecord record = STEPSTONE_TRY(step->read_item(item));
  Contents contents;
  contents.structure = std::move(record.structure);
  contents.custom_metadata = std::move(record.custom_metadata);
  for (ItemLeaf& leaf : STEPSTONE_TRY(list_leaves(*step, item))) {
    contents.leaves.push_back(to_content(step, item, std::move(leaf.stored)));
  }
  contents = STEPSTONE_TRY(select_leaves(std::move(contents), selection));
  if (arguments.cast_to) {
    for (ContentLeaf& leaf : contents.leaves) STEPSTONE_TRY(cast_leaf(*arguments.cast_to, leaf));
  }
  return contents;
}

Result<const Format*> choose_format(const ExportArguments& arguments) {
  const Format* format = arguments.format;
  if (format == nullptr) format = format_of_extension(arguments.file);
  // What had no format before others were there to be chosen from.
  if (format == nullptr) format = find_format("safetensors");
  if (arguments.shard_size_bytes != 0 && format->name != "safetensors") {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("--shard-size is for safetensors files, not for {}", format->name));
  }
  if (arguments.deflate && format->name != "npz") {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("--deflate is for npz files, not for {}", format->name));
  }
  return format;
}

std::vector<std::string> items_of(const ExportArguments& arguments) {
  if (!arguments.item) return {};
  return {*arguments.item};
}

Result<int> run_export(const ExportArguments& arguments, Console& console) {
  if (arguments.is_portable || (arguments.format == nullptr && is_portable_name(arguments.file))) {
    return export_portable({.store = arguments.store,
                            .steps = arguments.steps,
                            .file = arguments.file,
                            .choice = {.items = items_of(arguments),
                                       .patterns = arguments.patterns,
                                       .cast_to = arguments.cast_to},
                            .overwrite = arguments.force},
                           console);
  }
  const Format* const format = STEPSTONE_TRY(choose_format(arguments));
  if (arguments.steps.size() != 1) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("a {} file holds one step: name one; a .stone file holds any number",
                            format->name));
  }
  const std::uint64_t step_number = arguments.steps.front();
  const auto store = STEPSTONE_TRY(open_for_reading(arguments.store));
  const auto step = STEPSTONE_TRY(store->read_step(step_number));
  const std::string item = STEPSTONE_TRY(choose_item(step->record(), arguments.item));
  const std::string place = fmt::format("step {} item '{}'", step_number, printable(item));
  const Contents contents = STEPSTONE_TRY_CONTEXT(gather(arguments, step, item), place);

  note_interruptions();
  Progress progress("export");
  const std::uint64_t total_bytes = contents.size_bytes();
  std::uint64_t done_bytes = 0;
  const Destination destination{
      .path = arguments.file,
      .replace = arguments.force,
      .shard_size_bytes = arguments.shard_size_bytes,
      .deflate = arguments.deflate,
      .on_bytes = [&](std::uint64_t size_bytes) -> Result<void> {
        if (was_interrupted()) return fail(ErrorCode::kIo, "interrupted");
        done_bytes += size_bytes;
        progress.update(done_bytes, total_bytes);
        return {};
      },
  };
  const Written written = STEPSTONE_TRY_CONTEXT(format->write(contents, destination), place);

  if (console.json) {
    const nlohmann::ordered_json answer = {{"store", printable(arguments.store.native())},
                                           {"step", step_number},
                                           {"item", printable(item)},
                                           {"file", printable(written.path.native())},
                                           {"tensor_count", contents.leaves.size()},
                                           {"file_size_bytes", written.size_bytes},
                                           {"format", format->name},
                                           {"file_count", written.file_count}};
    STEPSTONE_TRY(console.output.write(answer.dump() + "\n"));
    return kExitOk;
  }
  STEPSTONE_TRY(console.output.write(fmt::format(
      "exported {} to {}{}, {}\n", format_count(contents.leaves.size(), "tensor", "tensors"),
      printable(written.path.native()),
      written.file_count == 1 ? "" : fmt::format(" and {} more files", written.file_count - 1),
      format_size(written.size_bytes))));
  return kExitOk;
}

// "500MB", "2GiB", "1000": bytes, or nullopt.
std::optional<std::uint64_t> parse_size(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, std::uint64_t>, 8> kUnits = {{
      {"KiB", std::uint64_t{1} << 10},
      {"MiB", std::uint64_t{1} << 20},
      {"GiB", std::uint64_t{1} << 30},
      {"KB", 1'000},
      {"MB", 1'000'000},
      {"GB", 1'000'000'000},
      {"B", 1},
      {"", 1},
  }};
  for (const auto& [unit, factor] : kUnits) {
    if (!text.ends_with(unit)) continue;
    const std::string_view digits = text.substr(0, text.size() - unit.size());
    std::uint64_t number = 0;
    const char* const end = digits.data() + digits.size();
    const auto [stop, code] = std::from_chars(digits.data(), end, number);
    std::uint64_t size_bytes = 0;
    if (code != std::errc() || stop != end || number == 0 ||
        __builtin_mul_overflow(number, factor, &size_bytes)) {
      return std::nullopt;
    }
    return size_bytes;
  }
  return std::nullopt;
}

void add_choices(Verb& verb, const std::shared_ptr<ExportArguments>& arguments) {
  verb.add_text({.names = "--format",
                 .description =
                     "What to write, if FILE's extension does not tell: " + writable_format_names(),
                 .type_name = "NAME"},
                [arguments](const std::string& name) -> std::string {
                  arguments->is_portable = name == kPortableFormatName;
                  if (arguments->is_portable) return {};
                  arguments->format = find_format(name);
                  if (arguments->format != nullptr && arguments->format->write != nullptr) {
                    return {};
                  }
                  return fmt::format("'{}' is not one of stone, {}", name, writable_format_names());
                });
  verb.add_leaves(arguments->patterns);
  verb.add_text(
      {.names = "--cast",
       .description = "Leaves of float32 and float64 become bfloat16, float16 or float32",
       .type_name = "DTYPE"},
      [arguments](const std::string& name) -> std::string {
        const std::optional<DType> dtype = dtype_from_name(name);
        arguments->cast_to = dtype;
        if (dtype == DType::kBfloat16 || dtype == DType::kFloat16 || dtype == DType::kFloat32) {
          return {};
        }
        return fmt::format("'{}' is not one of bfloat16, float16, float32", name);
      });
  verb.add_text({.names = "--shard-size",
                 .description = "Several safetensors files of at most so much, such as 5GB, and an "
                                "index",
                 .type_name = "SIZE"},
                [arguments](const std::string& text) -> std::string {
                  const std::optional<std::uint64_t> size_bytes = parse_size(text);
                  arguments->shard_size_bytes = size_bytes.value_or(0);
                  return size_bytes ? "" : fmt::format("'{}' is not a size such as 500MB", text);
                });
  verb.add_flag("--deflate", "Pack the arrays of a .npz file", arguments->deflate);
}

}  // namespace

void add_export(CommandLine& line) {
  Verb verb(line, "export", "Write steps as a portable file, or an item in another format",
            "A .stone file holds steps as they are, whole or in part, with all that is known of "
            "them; every\n"
            "verb reads it like a store. Of others the extension says which: .safetensors, .npy, "
            ".npz, .pt (also .pth, .bin, .ckpt) or "
            ".gguf; any\n"
            "other is safetensors. A .pt file keeps the tree, and torch.load reads it with "
            "weights_only=True.\n"
            "The others hold arrays under flat names: the parts of a path are joined by '.'.\n"
            "A file that the safetensors library wrote, imported and exported, is the same byte "
            "for byte.\n"
            "The file appears under its name when it is whole and on the disk.\n\n"
            "Examples:\n"
            "  stepstone export run 100 -o model.safetensors\n"
            "  stepstone export run 100 -o model.safetensors --force    replace the file\n"
            "  stepstone export run -o run.stone                        all steps\n"
            "  stepstone export run 100 -o w.stone --item params --cast bfloat16\n"
            "  stepstone export run 100 -o weights.pt --leaves params --cast bfloat16\n"
            "  stepstone export run 100 -o model.safetensors --shard-size 5GB");
  const auto arguments = std::make_shared<ExportArguments>();
  verb.add_store(arguments->store);
  verb.add_steps({.names = "STEP",
                  .description = "The step's number; of a .stone file any number of them, and "
                                 "without one all"},
                 arguments->steps);
  verb.add_path({.names = "-o,--output",
                 .description = "The file to write",
                 .type_name = "FILE",
                 .is_required = true},
                arguments->file);
  verb.add_item(arguments->item);
  add_choices(verb, arguments);
  verb.add_flag("--force", "Replace the file if it is there already", arguments->force);
  verb.add_json();
  verb.on_run([arguments](Console& console) { return run_export(*arguments, console); });
}

}  // namespace stepstone::tool
