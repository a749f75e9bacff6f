#include "portable_support.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "format/dtype.h"
#include "format/keys.h"
#include "format/leaf_path.h"

namespace stepstone::test {
namespace {

using portable::IndexPage;
using portable::Place;
using portable::Tree;

class KnownBytes final : public PortableLeafBytes {
 public:
  KnownBytes(const SampleLeaf& leaf, Hashes hashes) : leaf_(&leaf) {
    if (hashes == Hashes::kUnknown) return;
    for (std::size_t at = 0; at < leaf.bytes.size(); at += leaf.info.chunk_size_bytes) {
      hashes_.push_back(hash128(as_bytes(leaf.bytes.substr(at, leaf.info.chunk_size_bytes))));
    }
  }
  std::span<const Hash128> hashes() const override { return hashes_; }
  Result<std::span<const std::byte>> chunk(std::uint32_t chunk) override {
    const std::size_t at = std::size_t{chunk} * leaf_->info.chunk_size_bytes;
    const std::size_t size =
        std::min<std::size_t>(leaf_->info.chunk_size_bytes, leaf_->bytes.size() - at);
    return as_bytes(leaf_->bytes).subspan(at, size);
  }

 private:
  const SampleLeaf* leaf_;
  std::vector<Hash128> hashes_;
};

std::string encoded(const LeafPath& path) { return encode_path(path).value(); }

SampleLeaf array_leaf(const LeafPath& path, DType dtype, std::vector<std::uint64_t> shape,
                      std::string bytes) {
  SampleLeaf leaf;
  leaf.info = {.encoded_path = encoded(path),
               .kind = LeafKind::kArray,
               .dtype = dtype,
               .shape = std::move(shape),
               .size_bytes = bytes.size(),
               .chunk_size_bytes = 4096};
  leaf.bytes = std::move(bytes);
  return leaf;
}

SampleLeaf value_leaf(const std::string& encoded_path, LeafKind kind, std::string bytes) {
  SampleLeaf leaf;
  leaf.info = {.encoded_path = encoded_path,
               .kind = kind,
               .size_bytes = bytes.size(),
               .chunk_size_bytes = 4096};
  leaf.bytes = std::move(bytes);
  return leaf;
}

// A dict of string keys with a leaf under each.
TreeStructure flat_dict(const std::vector<std::string>& keys) {
  TreeStructure structure;
  structure.kinds.assign(keys.size() + 1, NodeKind::kLeaf);
  structure.kinds[0] = NodeKind::kDict;
  structure.child_counts = {static_cast<std::uint32_t>(keys.size())};
  for (const std::string& key : keys) append_component(structure.labels, PathComponent::key(key));
  return structure;
}

void append_random_node(Random& random, int depth, TreeStructure* structure) {
  const std::uint64_t choice = depth == 0 ? 1 : random.below(7);
  if (choice < 2) {
    structure->kinds.push_back(NodeKind::kLeaf);
    return;
  }
  const auto kind = static_cast<NodeKind>(choice);
  structure->kinds.push_back(kind);
  const auto child_count = static_cast<std::uint32_t>(random.below(5));
  structure->child_counts.push_back(child_count);
  if (kind == NodeKind::kNamedTuple || kind == NodeKind::kCustom) {
    structure->type_indices.push_back(0);
    structure->type_names = {"Point"};
  }
  std::set<PathComponent> labels;
  for (std::uint32_t child = 0; child < child_count; ++child) {
    if (kind != NodeKind::kList && kind != NodeKind::kTuple) {
      PathComponent label;
      do {
        label = random.component();
        if (kind == NodeKind::kNamedTuple) label = PathComponent::attribute(random.name());
        if (kind == NodeKind::kDict && label.kind != PathComponent::Kind::kIntegerKey) {
          label = PathComponent::key(random.name());
        }
      } while (!labels.insert(label).second);
      append_component(structure->labels, label);
    }
    append_random_node(random, depth - 1, structure);
  }
}

SampleLeaf random_leaf(Random& random, const std::string& path) {
  switch (random.below(6)) {
    case 0:
      return value_leaf(path, LeafKind::kNone, "");
    case 1:
      return value_leaf(path, LeafKind::kInt64, random.bytes(8));
    case 2:
      return value_leaf(path, LeafKind::kBytes, random.bytes(random.below(6000)));
    default:
      break;
  }
  SampleLeaf leaf;
  leaf.info.encoded_path = path;
  leaf.info.dtype = static_cast<DType>(1 + random.below(28));
  for (std::uint64_t rank = random.below(4); rank > 0; --rank) {
    leaf.info.shape.push_back(random.below(16));
  }
  leaf.info.chunk_size_bytes = 4096 + 64 * static_cast<std::uint32_t>(random.below(8));
  leaf.info.size_bytes = array_size_bytes(*leaf.info.dtype, leaf.info.shape).value();
  leaf.bytes = random.one_in(3) ? std::string(leaf.info.size_bytes, 'z')
                                : random.bytes(leaf.info.size_bytes);
  return leaf;
}

}  // namespace

Result<void> write_to(PortableSink& sink, const std::vector<SampleStep>& steps,
                      PortableWriteOptions options, Hashes hashes) {
  PortableWriter writer = STEPSTONE_TRY(PortableWriter::create(sink, options));
  for (const SampleStep& step : steps) {
    STEPSTONE_TRY(writer.begin_step(step.info));
    for (const SampleItem& item : step.items) {
      STEPSTONE_TRY(writer.begin_item(item.info));
      for (const SampleLeaf& leaf : item.leaves) {
        KnownBytes bytes(leaf, hashes);
        STEPSTONE_TRY(writer.add_leaf(leaf.info, bytes));
      }
    }
    STEPSTONE_TRY(writer.end_step());
  }
  STEPSTONE_TRY(writer.finish());
  return {};
}

std::string written(const std::vector<SampleStep>& steps, PortableWriteOptions options,
                    Hashes hashes) {
  MemorySink sink;
  const Result<void> result = write_to(sink, steps, options, hashes);
  EXPECT_TRUE(result.has_value()) << result.error().message;
  return result ? sink.bytes() : std::string();
}

std::vector<SampleStep> sample_portable_steps() {
  SampleItem item;
  item.info = {.name = "state", .handler = "standard", .structure = flat_dict({"w", "n"})};
  item.leaves = {value_leaf(encoded({PathComponent::key("n")}), LeafKind::kInt64,
                            from_hex("0700000000000000")),
                 array_leaf({PathComponent::key("w")}, DType::kFloat32, {3},
                            from_hex("0000803f 00000040 00004040"))};
  SampleStep step;
  step.info = {.step = 1000,
               .started_unix_ns = 1700000000000000000,
               .committed_unix_ns = 1700000000250000000,
               .metrics = "{\"loss\":0.25}"};
  step.items = {std::move(item)};
  return {std::move(step)};
}

std::vector<SampleStep> sample_shared_steps() {
  std::string weights;
  for (int i = 0; i < 3000; ++i) weights += from_hex(i % 2 == 0 ? "0000803f" : "000080bf");
  SampleItem metadata;
  metadata.info = {.name = "metadata", .handler = "json", .structure = leaf_structure()};
  metadata.leaves = {value_leaf(encoded({}), LeafKind::kString, "{\"a\":1}")};
  SampleItem state;
  state.info = {.name = "state",
                .handler = "standard",
                .structure = flat_dict({"kernel", "bias", "empty", "step"}),
                .custom_metadata = "{\"b\":2}"};
  state.leaves = {array_leaf({PathComponent::key("bias")}, DType::kInt4, {3}, from_hex("2103")),
                  array_leaf({PathComponent::key("empty")}, DType::kFloat64, {0, 7}, ""),
                  array_leaf({PathComponent::key("kernel")}, DType::kFloat32, {3000}, weights),
                  value_leaf(encoded({PathComponent::key("step")}), LeafKind::kNone, "")};
  SampleStep first;
  first.info = {.step = 1, .started_unix_ns = 5, .committed_unix_ns = -6, .metrics = "{}"};
  first.items = {metadata, state};
  SampleStep second = first;
  second.info.step = 2;
  second.info.custom_metadata = "{\"c\":3}";
  second.items[1].leaves[2].bytes[5000] = 'x';  // In the second of three chunks.
  return {std::move(first), std::move(second)};
}

std::vector<SampleStep> random_steps(Random& random) {
  SampleStep step;
  step.info = {.step = random.below(1000),
               .started_unix_ns = static_cast<std::int64_t>(random.bits()),
               .metrics = random.bytes(random.below(20)),
               .custom_metadata = random.bytes(random.below(20))};
  std::set<std::string> names;
  for (std::uint64_t count = 1 + random.below(3); count > 0; --count) names.insert(random.name());
  for (const std::string& name : names) {
    SampleItem item;
    item.info = {.name = name, .handler = random.bytes(random.below(9)), .custom_metadata = "{}"};
    append_random_node(random, 4, &item.info.structure);
    std::set<std::string> paths;
    const auto note = [&](const std::string& path) -> Result<void> {
      paths.insert(path);
      return {};
    };
    EXPECT_TRUE(visit(item.info.structure, {.enter = {}, .leaf = note, .leave = {}}).has_value());
    for (const std::string& path : paths) item.leaves.push_back(random_leaf(random, path));
    step.items.push_back(std::move(item));
  }
  std::vector<SampleStep> steps = {step};
  for (std::uint64_t count = random.below(3); count > 0; --count) {
    step.info.step += 1 + random.below(1000);
    for (SampleItem& item : step.items) {
      for (SampleLeaf& leaf : item.leaves) {
        if (!leaf.bytes.empty() && random.one_in(3)) {
          leaf.bytes[random.below(leaf.bytes.size())] = random.byte();
        }
      }
    }
    steps.push_back(step);
  }
  return steps;
}

Result<PortableFile> open_file(const std::string& bytes, bool is_mapped) {
  if (is_mapped) return PortableFile::open(as_bytes(bytes));
  return PortableFile::open(
      bytes.size(),
      [&bytes](std::uint64_t offset, std::span<std::byte> destination) -> Result<void> {
        if (offset > bytes.size() || destination.size() > bytes.size() - offset) {
          ADD_FAILURE() << "read beyond the end";
          return fail(ErrorCode::kIo, "read beyond the end");
        }
        const auto source = as_bytes(bytes).subspan(offset, destination.size());
        std::copy(source.begin(), source.end(), destination.begin());
        return {};
      });
}

Result<void> read_everything(const PortableFile& file) {
  ChunkDecoder decoder;
  return file.for_each_step([&](const StepRecord& step) -> Result<void> {
    STEPSTONE_TRY(file.step(step.save.step));
    for (const ItemSummary& item : step.items) {
      STEPSTONE_TRY(file.item(step.save.step, item.name));
      STEPSTONE_TRY(file.for_each_leaf(
          step.save.step, item.name,
          [&](std::string_view path, const PortableLeaf& leaf) -> Result<void> {
            STEPSTONE_TRY(file.leaf(step.save.step, item.name, path));
            // A piece of fixed size, because the leaf may say that it is huge.
            std::array<std::byte, 8192> piece{};
            const std::uint64_t size_bytes =
                std::min<std::uint64_t>(piece.size(), leaf.record().size_bytes);
            STEPSTONE_TRY(file.read(leaf, 0, std::span(piece).first(size_bytes), decoder));
            const auto viewed = file.view(leaf, PortableFile::Check::kHashes);
            if (!viewed && viewed.error().code != ErrorCode::kUnsupported) {
              return tl::unexpected<Error>(viewed.error());
            }
            return {};
          }));
    }
    return {};
  });
}

void reseal(std::string* record, const std::function<void(std::string*)>& change) {
  record->resize(record->size() - sizeof(Hash128));
  change(record);
  *record = seal(*record);
}

PortableParts::PortableParts() : header(as_string(portable::encode_header())), data(128, 'd') {
  a.dtype = DType::kFloat32;
  a.shape = {16};
  a.size_bytes = 64;
  a.chunk_size_bytes = 4096;
  a.hashes = {hash128(as_bytes(std::string(64, 'd')))};
  a.extents = {{0, 0, 64}};
  b = a;
  b.extents[0].offset_bytes = 128;
  item.handler = "standard";
  item.leaf_count = 2;
  item.size_bytes = 128;
  item.structure = flat_dict({"b", "a"});
  step.save = {5, 0};
  step.size_bytes = 128;
  step.items = {{"state", "standard", 2, 128}};
}

std::string PortableParts::build() const {
  const SaveId save = {5, 0};
  const std::string keys[] = {leaf_key(save, "state", encoded({PathComponent::key("a")})),
                              leaf_key(save, "state", encoded({PathComponent::key("b")})),
                              item_key(save, "state"), step_record_key(5)};
  // The key of the step's record is that of the step that it describes.
  std::string records[] = {encode(a, keys[0]).value(), encode(b, keys[1]).value(),
                           encode(item, keys[2]).value(),
                           encode(step, step_record_key(step.save.step)).value()};
  const Tree trees[] = {Tree::kLeaves, Tree::kLeaves, Tree::kItems, Tree::kSteps};
  std::string file = header + data;
  const auto put = [&](const std::string& bytes) {
    file.append((8 - file.size() % 8) % 8, '\0');
    const Place place{record_hash(bytes), file.size(), bytes.size()};
    file += bytes;
    return place;
  };
  std::map<Tree, IndexPage> pages;
  for (int i = 0; i < 4; ++i) {
    if (change_record) change_record(i, &records[i]);
    pages[trees[i]].add(keys[i], put(records[i]));
  }
  portable::Footer footer;
  for (auto& [tree, page] : pages) {
    portable::Root& root = footer.roots[static_cast<std::size_t>(tree)];
    root.entry_count = page.size();
    if (change_page) change_page(tree, &page);
    std::string bytes = encode_index_page(page, tree, 0).value();
    if (change_page_bytes) change_page_bytes(tree, &bytes);
    root.place = put(bytes);
  }
  file.append((8 - file.size() % 8) % 8, '\0');
  file += padding;
  footer.file_size_bytes = file.size() + portable::kFooterSizeBytes;
  if (change_footer) change_footer(&footer);
  std::string end = as_string(portable::encode_footer(footer));
  if (change_footer_bytes) change_footer_bytes(&end);
  return file + end + tail;
}

}  // namespace stepstone::test
