// A safetensors file becomes an item whose tree is one flat dict: tensor names are its string keys,
// in the order of the tensors' bytes. The header is checked whole before the store is opened or
// created, so that a bad file leaves no trace; the bytes are read by the save's own threads, piece
// by piece.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "format/limits.h"
#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"
#include "tools/safetensors.h"

namespace stepstone::tool {
namespace {

struct ImportArguments {
  std::filesystem::path file;
  std::filesystem::path store;
  std::uint64_t step = 0;
  std::string item = "default";
  bool overwrite = false;
};

class TensorSource final : public LeafSource {
 public:
  TensorSource(std::shared_ptr<const SafetensorsFile> file, std::uint64_t offset)
      : file_(std::move(file)), offset_(offset) {}

  Result<std::span<const std::byte>> read(std::uint64_t offset, std::size_t size,
                                          std::span<std::byte> scratch) const override {
    STEPSTONE_TRY(file_->read(offset_ + offset, scratch.first(size)));
    return scratch.first(size);
  }

 private:
  const std::shared_ptr<const SafetensorsFile> file_;
  const std::uint64_t offset_;
};

TreeStructure flat_dict(const SafetensorsHeader& header) {
  TreeStructure structure;
  structure.kinds.assign(1 + header.tensors.size(), NodeKind::kLeaf);
  structure.kinds.front() = NodeKind::kDict;
  structure.child_counts.push_back(static_cast<std::uint32_t>(header.tensors.size()));
  for (const SafetensorsTensor& tensor : header.tensors) {
    append_component(structure.labels, PathComponent::key(tensor.name));
  }
  return structure;
}

Result<void> put_tensors(const std::shared_ptr<const SafetensorsFile>& file,
                         const std::string& item, const std::string& custom_metadata,
                         StepWriter& writer) {
  const SafetensorsHeader& header = file->header();
  STEPSTONE_TRY(writer.put_item(item, "standard", flat_dict(header), custom_metadata));
  for (const SafetensorsTensor& tensor : header.tensors) {
    LeafInfo info{.kind = LeafKind::kArray,
                  .dtype = tensor.dtype,
                  .shape = tensor.shape,
                  .size_bytes = tensor.size_bytes};
    STEPSTONE_TRY(
        writer.put_leaf(item, STEPSTONE_TRY(encode_path({PathComponent::key(tensor.name)})),
                        std::move(info), std::make_shared<TensorSource>(file, tensor.offset)));
  }
  return {};
}

Result<StepRecord> save(const ImportArguments& arguments,
                        const std::shared_ptr<const SafetensorsFile>& file,
                        const std::string& custom_metadata, Store& store) {
  Result<std::unique_ptr<StepWriter>> writer =
      store.begin_save(arguments.step, {.overwrite = arguments.overwrite});
  if (!writer && writer.error().code == ErrorCode::kAlreadyExists) {
    return fail(ErrorCode::kAlreadyExists,
                fmt::format("step {} is in {} already; --overwrite replaces it", arguments.step,
                            arguments.store.native()));
  }
  if (!writer) return tl::unexpected<Error>(std::move(writer).error());
  STEPSTONE_TRY(put_tensors(file, arguments.item, custom_metadata, **writer));
  Progress progress("import");
  (*writer)->on_progress([&](std::uint64_t done_bytes, std::uint64_t total_bytes) {
    progress.update(done_bytes, total_bytes);
  });
  return (*writer)->commit();
}

std::string check_name(const std::string& name) {
  if (name.size() <= limits::kNameSizeBytesMax) return {};
  return fmt::format("a name of {} bytes is over the limit of {}", name.size(),
                     limits::kNameSizeBytesMax);
}

Result<int> run_import(const ImportArguments& arguments, Console& console) {
  const auto file = STEPSTONE_TRY(SafetensorsFile::open(arguments.file));
  const std::string custom_metadata = STEPSTONE_TRY_CONTEXT(
      to_custom_metadata(file->header().metadata), printable(arguments.file.native()));
  const auto store = STEPSTONE_TRY(Store::open(arguments.store, {.create_if_missing = true}));
  const StepRecord record = STEPSTONE_TRY(save(arguments, file, custom_metadata, *store));
  STEPSTONE_TRY(store->close());

  const std::size_t leaf_count = file->header().tensors.size();
  if (console.json) {
    const nlohmann::ordered_json answer = {{"store", printable(arguments.store.native())},
                                           {"step", arguments.step},
                                           {"item", printable(arguments.item)},
                                           {"leaf_count", leaf_count},
                                           {"size_bytes", record.size_bytes},
                                           {"committed_unix_ns", record.committed_unix_ns}};
    STEPSTONE_TRY(console.output.write(answer.dump() + "\n"));
    return kExitOk;
  }
  STEPSTONE_TRY(console.output.write(
      fmt::format("imported {}, {}, as step {} of {} (item '{}')\n",
                  format_count(leaf_count, "tensor", "tensors"), format_size(record.size_bytes),
                  arguments.step, printable(arguments.store.native()), printable(arguments.item))));
  return kExitOk;
}

}  // namespace

void add_import(CommandLine& line) {
  Verb verb(line, "import", "Save a safetensors file as a step",
            "The store is created if it is missing. Each tensor becomes a leaf under its name; the "
            "file's\n"
            "__metadata__ is kept. When the command ends well, the step survives power loss; when "
            "it does\n"
            "not, the store is as it was before.\n\n"
            "Examples:\n"
            "  stepstone import model.safetensors run --step 0\n"
            "  stepstone import model.safetensors run --step 0 --overwrite   replace step 0");
  const auto arguments = std::make_shared<ImportArguments>();
  verb.add_path({.names = "FILE", .description = "The safetensors file", .is_required = true},
                arguments->file);
  verb.add_store(arguments->store);
  verb.add_step({.names = "--step",
                 .description = "The number of the step to save",
                 .type_name = "N",
                 .is_required = true},
                arguments->step);
  verb.add_text({.names = "--item",
                 .description = "The name of the item to save",
                 .type_name = "NAME",
                 .default_text = arguments->item},
                [arguments](const std::string& name) {
                  arguments->item = name;
                  return check_name(name);
                });
  verb.add_flag("--overwrite", "Replace the step, all of its items, if it is there already",
                arguments->overwrite);
  verb.add_json();
  verb.on_run([arguments](Console& console) { return run_import(*arguments, console); });
}

}  // namespace stepstone::tool
