// A safetensors file becomes an item whose tree is one flat dict: tensor names are its string keys,
// in the order of the tensors' bytes. The header is checked whole before the store is opened or
// created, so that a bad file leaves no trace; the bytes are read by the save's own threads, piece
// by piece.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/command/command.h"
#include "tools/safetensors.h"

namespace stepstone::tool {
namespace {

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

}  // namespace

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

}  // namespace stepstone::tool
