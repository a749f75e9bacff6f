// A safetensors file becomes an item whose tree is one flat dict: tensor names are its string keys,
// in the order of the tensors' bytes. Written is what the safetensors library would write.
//
// Of several files, those of the shards come first and the index that names them last, so that an
// index never names what is not there.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "format/limits.h"
#include "tools/formats/atomic_file.h"
#include "tools/formats/formats.h"
#include "tools/formats/safetensors.h"
#include "tools/formats/safetensors_index.h"

namespace stepstone::tool {
namespace {

// Each is a file that stays open while the save reads from it.
constexpr std::size_t kShardsMax = 512;

struct Opened {
  std::vector<std::shared_ptr<const SafetensorsFile>> files;
  std::optional<SafetensorsMetadata> metadata;
};

Result<Contents> to_contents(const Opened& opened) {
  Contents contents;
  contents.custom_metadata = STEPSTONE_TRY(to_custom_metadata(opened.metadata));
  std::vector<std::string> names;
  for (const auto& file : opened.files) {
    for (const SafetensorsTensor& tensor : file->header().tensors) {
      names.push_back(tensor.name);
      contents.leaves.push_back(
          STEPSTONE_TRY(flat_leaf(tensor.name, tensor.dtype, tensor.shape, file->source(tensor))));
    }
  }
  contents.structure = flat_dict(names);
  return contents;
}

// The index says which tensor is in which shard; the shards must agree, and hold nothing else.
Result<void> check_shard(const SafetensorsIndex& index, const std::string& shard, std::size_t count,
                         const SafetensorsFile& file) {
  for (const SafetensorsTensor& tensor : file.header().tensors) {
    const auto found = index.tensors.find(tensor.name);
    if (found == index.tensors.end() || found->second != shard) {
      return fail(ErrorCode::kCorrupt,
                  fmt::format("'{}' holds tensor '{}', which the index places elsewhere",
                              shown(shard), shown(tensor.name)));
    }
  }
  // All names in a file are distinct, and so are those of the index.
  if (count != file.header().tensors.size()) {
    return fail(ErrorCode::kCorrupt,
                fmt::format("the index places {} tensors in '{}', which holds {}", count,
                            shown(shard), file.header().tensors.size()));
  }
  return {};
}

Result<Opened> open_shards(const std::filesystem::path& path, const SafetensorsIndex& index) {
  std::map<std::string, std::size_t> shards;  // And how many tensors each has.
  for (const auto& [tensor, shard] : index.tensors) ++shards[shard];
  if (shards.size() > kShardsMax) {
    return fail(ErrorCode::kLimit,
                fmt::format("{} files are more than the limit of {}", shards.size(), kShardsMax));
  }
  Opened opened;
  for (const auto& [shard, count] : shards) {
    const auto file = STEPSTONE_TRY(SafetensorsFile::open(path.parent_path() / shard));
    STEPSTONE_TRY(check_shard(index, shard, count, *file));
    const auto& metadata = file->header().metadata;
    if (opened.files.empty()) {
      opened.metadata = metadata;
    } else if (opened.metadata != metadata) {
      return fail(ErrorCode::kUnsupported,
                  fmt::format("'{}' has other __metadata__ than '{}'; an item has one place for it",
                              shown(shard), shown(shards.begin()->first)));
    }
    opened.files.push_back(file);
  }
  return opened;
}

// What goes into one file, in the order of its bytes.
struct Shard {
  std::string name;
  std::string header;
  std::vector<const ContentLeaf*> leaves;
  std::vector<std::string> tensor_names;
};

struct Plan {
  std::vector<SafetensorsTensor> tensors;  // Tensor i is leaf i.
  std::optional<SafetensorsMetadata> metadata;
};

Result<Plan> plan(const Contents& contents) {
  Plan plan;
  plan.metadata = STEPSTONE_TRY(from_custom_metadata(contents.custom_metadata));
  std::vector<std::string> names = STEPSTONE_TRY(flat_names(contents, "safetensors"));
  for (std::size_t i = 0; i < names.size(); ++i) {
    const ContentLeaf& leaf = contents.leaves[i];
    if (!safetensors_name(*leaf.info.dtype)) {
      return fail(ErrorCode::kUnsupported,
                  fmt::format("leaf '{}' has dtype {}, which safetensors lacks",
                              to_text(leaf.encoded_path), to_string(*leaf.info.dtype)));
    }
    plan.tensors.push_back({.name = std::move(names[i]),
                            .dtype = *leaf.info.dtype,
                            .shape = leaf.info.shape,
                            .size_bytes = leaf.info.size_bytes});
  }
  return plan;
}

Result<Shard> make_shard(const Contents& contents, const Plan& plan,
                         std::span<const std::size_t> leaves) {
  std::vector<SafetensorsTensor> tensors;
  tensors.reserve(leaves.size());
  for (const std::size_t i : leaves) tensors.push_back(plan.tensors[i]);
  Shard shard;
  std::vector<SafetensorsTensor> ordered;
  for (const std::size_t place : canonical_order(tensors)) {
    shard.leaves.push_back(&contents.leaves[leaves[place]]);
    shard.tensor_names.push_back(tensors[place].name);
    ordered.push_back(std::move(tensors[place]));
  }
  shard.header = STEPSTONE_TRY(encode_safetensors_header(plan.metadata, ordered));
  return shard;
}

// In the order of the leaves, each file as full as it gets.
std::vector<std::vector<std::size_t>> distribute(const Plan& plan, std::uint64_t size_bytes_max) {
  std::vector<std::vector<std::size_t>> groups(1);
  std::uint64_t size_bytes = 0;
  for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
    const std::uint64_t added = plan.tensors[i].size_bytes;
    if (size_bytes_max != 0 && !groups.back().empty() &&
        (added > size_bytes_max || size_bytes > size_bytes_max - added)) {
      groups.emplace_back();
      size_bytes = 0;
    }
    groups.back().push_back(i);
    size_bytes += added;
  }
  return groups;
}

// Whole and on the disk, but not under its name yet.
Result<std::unique_ptr<AtomicFile>> write_shard(const Shard& shard, const Destination& destination,
                                                const std::filesystem::path& path) {
  auto file = STEPSTONE_TRY(AtomicFile::create(path, destination.replace));
  STEPSTONE_TRY(file->write(shard.header));
  for (const ContentLeaf* leaf : shard.leaves) {
    STEPSTONE_TRY(stream(*leaf, [&](std::span<const std::byte> piece) -> Result<void> {
      STEPSTONE_TRY(destination.on_bytes(piece.size()));
      return file->write(piece);
    }));
  }
  STEPSTONE_TRY(destination.on_bytes(0));
  STEPSTONE_TRY(file->finish());
  return file;
}

Result<Written> write_shards(std::vector<Shard> shards, const Contents& contents,
                             const Destination& destination) {
  const std::filesystem::path directory = destination.path.parent_path();
  const std::string stem = destination.path.stem().native();
  SafetensorsIndex index;
  index.total_size_bytes = contents.size_bytes();
  for (std::size_t i = 0; i < shards.size(); ++i) {
    shards[i].name = fmt::format("{}-{:05}-of-{:05}.safetensors", stem, i + 1, shards.size());
    for (const std::string& name : shards[i].tensor_names) index.tensors[name] = shards[i].name;
  }
  const std::string json = STEPSTONE_TRY(encode_safetensors_index(index));
  const std::filesystem::path index_path = directory / (stem + ".safetensors.index.json");
  // Refused here already if it is there, before the shards are written.
  const auto index_file = STEPSTONE_TRY(AtomicFile::create(index_path, destination.replace));
  Written written{.path = index_path};
  // None gets its name before all are written: shards of two models beside each other would be
  // read as one.
  std::vector<std::unique_ptr<AtomicFile>> files;
  for (const Shard& shard : shards) {
    files.push_back(STEPSTONE_TRY(write_shard(shard, destination, directory / shard.name)));
    written.size_bytes += files.back()->size_bytes();
  }
  STEPSTONE_TRY(index_file->write(json));
  for (const auto& file : files) STEPSTONE_TRY(file->publish());
  STEPSTONE_TRY(index_file->publish());
  written.size_bytes += index_file->size_bytes();
  written.file_count = shards.size() + 1;
  return written;
}

}  // namespace

Result<Contents> read_safetensors(const std::filesystem::path& path) {
  Opened opened;
  opened.files.push_back(STEPSTONE_TRY(SafetensorsFile::open(path)));
  opened.metadata = opened.files.front()->header().metadata;
  return STEPSTONE_TRY_CONTEXT(to_contents(opened), printable(path.native()));
}

Result<Contents> read_safetensors_index(const std::filesystem::path& path) {
  const std::string name = printable(path.native());
  const auto file = STEPSTONE_TRY(InputFile::open(path));
  const SafetensorsIndex index = STEPSTONE_TRY_CONTEXT(read_index(*file), name);
  const Opened opened = STEPSTONE_TRY_CONTEXT(open_shards(path, index), name);
  return STEPSTONE_TRY_CONTEXT(to_contents(opened), name);
}

Result<Written> write_safetensors(const Contents& contents, const Destination& destination) {
  const Plan planned = STEPSTONE_TRY(plan(contents));
  std::vector<Shard> shards;
  for (const auto& group : distribute(planned, destination.shard_size_bytes)) {
    shards.push_back(STEPSTONE_TRY(make_shard(contents, planned, group)));
  }
  if (shards.size() > kShardsMax) {
    return fail(ErrorCode::kLimit,
                fmt::format("{} files are more than the limit of {}: choose larger ones",
                            shards.size(), kShardsMax));
  }
  if (shards.size() > 1) return write_shards(std::move(shards), contents, destination);
  const auto file = STEPSTONE_TRY(write_shard(shards.front(), destination, destination.path));
  STEPSTONE_TRY(file->publish());
  return Written{.path = destination.path, .size_bytes = file->size_bytes()};
}

}  // namespace stepstone::tool
