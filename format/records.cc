// Encoding and decoding of the records. Each decode_* does in one place what the flatbuffers
// verifier cannot: the verifier proves that offsets stay inside the buffer, not that a shape
// multiplies to the size or that an enumeration has the value.
#include "format/records.h"

#include <algorithm>
#include <bit>

#include "format/assert.h"
#include "format/limits.h"
#include "format/record_framing.h"
#include "format/schema/item_generated.h"
#include "format/schema/leaf_generated.h"
#include "format/schema/step_generated.h"
#include "format/schema/store_generated.h"

namespace stepstone {
namespace {

using internal::as_bytes;
using internal::checked_size;
using internal::corrupt;
using internal::create_bytes;
using internal::create_header;
using internal::create_text;
using internal::from_schema;
using internal::is_misaligned;
using internal::read_little_endian;
using internal::sealed;
using internal::to_schema;
using internal::VerifiedRecord;
using internal::view;

Result<void> check_metadata_size(std::string_view json, std::string_view what) {
  if (json.size() <= limits::kMetadataSizeBytesMax) return {};
  return fail(ErrorCode::kLimit, std::string(what) + " of " + std::to_string(json.size()) +
                                     " bytes are over the limit of 64 MiB");
}

Result<void> check_name(std::string_view name, std::string_view what) {
  if (name.size() <= limits::kNameSizeBytesMax) return {};
  return fail(ErrorCode::kLimit, std::string(what) + " name of " + std::to_string(name.size()) +
                                     " bytes is over the limit of " +
                                     std::to_string(limits::kNameSizeBytesMax));
}

// What says where the chunks of a leaf are.
Result<void> check_places(const LeafRecord& record) {
  if (record.sources.size() > limits::kSourcesPerLeafMax) {
    return corrupt("leaf record: too many sources");
  }
  for (const ChunkSource& source : record.sources) {
    STEPSTONE_TRY(check_name(source.item, "item"));
    STEPSTONE_TRY(decode_path(source.encoded_path));
  }
  if (!record.stored_sizes.empty() && record.stored_sizes.size() != record.chunk_count()) {
    return corrupt("leaf record: wrong number of stored sizes");
  }
  for (std::uint32_t chunk = 0; chunk < record.chunk_count(); ++chunk) {
    const std::size_t stored = record.stored_size_at(chunk);
    const std::size_t size = record.chunk_size_at(chunk);
    if (record.codec_at(chunk) == Codec::kRaw ? stored != size : stored > size) {
      return corrupt("leaf record: impossible stored sizes");
    }
  }
  std::uint64_t first_free = 0;
  for (const ChunkExtent& extent : record.extents) {
    if (extent.first_chunk < first_free || extent.first_chunk >= record.chunk_count() ||
        extent.segment >= limits::kSegmentsPerStepMax) {
      return corrupt("leaf record: impossible extents");
    }
    first_free = std::uint64_t{extent.first_chunk} + 1;
  }
  return {};
}

// What chunks of codec delta differ from.
Result<void> check_bases(const LeafRecord& record) {
  const auto delta_count = static_cast<std::size_t>(
      std::count(record.codecs.begin(), record.codecs.end(), Codec::kDelta));
  if (record.bases.size() != delta_count) return corrupt("leaf record: wrong number of bases");
  std::uint64_t first_free = 0;
  for (const ChunkBase& base : record.bases) {
    if (base.chunk < first_free || base.chunk >= record.chunk_count() ||
        record.codec_at(base.chunk) != Codec::kDelta || base.save.step > limits::kStepMax ||
        base.source > record.sources.size()) {
      return corrupt("leaf record: impossible bases");
    }
    first_free = std::uint64_t{base.chunk} + 1;
    if (base.codec > kCodecLast) return fail(ErrorCode::kUnsupported, "leaf record: unknown codec");
    if (base.codec == Codec::kDelta) return corrupt("leaf record: a base that has a base");
    const std::size_t size = record.chunk_size_at(base.chunk);
    if (base.codec == Codec::kRaw ? base.stored_size != size : base.stored_size > size) {
      return corrupt("leaf record: impossible stored size of a base");
    }
  }
  return {};
}

Result<void> check_alignment(const LeafRecord& record) {
  const std::uint32_t alignment = record.alignment_bytes;
  if (alignment == 0) return {};
  if (!std::has_single_bit(alignment) || alignment > limits::kChunkAlignmentBytesMax ||
      record.inline_bytes || record.chunk_count() == 0) {
    return corrupt("leaf record: impossible alignment");
  }
  return {};
}

// What must hold for a leaf record, whether it is about to be written or was just read.
Result<void> check_leaf(const LeafRecord& record) {
  if (record.dtype.has_value() != (record.kind == LeafKind::kArray)) {
    return corrupt("leaf record: dtype and kind do not go together");
  }
  if (record.size_bytes > limits::kLeafSizeBytesMax) {
    return fail(ErrorCode::kLimit, "leaf of " + std::to_string(record.size_bytes) +
                                       " bytes is over the limit of 1 TiB");
  }
  std::uint64_t expected_size_bytes = record.size_bytes;
  if (record.kind == LeafKind::kArray) {
    expected_size_bytes = STEPSTONE_TRY(array_size_bytes(*record.dtype, record.shape));
  } else if (!record.shape.empty()) {
    return corrupt("leaf record: a scalar with a shape");
  } else if (record.kind == LeafKind::kNone) {
    expected_size_bytes = 0;
  } else if (record.kind == LeafKind::kBool) {
    expected_size_bytes = 1;
  } else if (record.kind == LeafKind::kInt64 || record.kind == LeafKind::kFloat64) {
    expected_size_bytes = 8;
  } else if (record.kind == LeafKind::kComplex128) {
    expected_size_bytes = 16;
  }
  if (record.size_bytes != expected_size_bytes) {
    return corrupt("leaf record: the size does not follow from dtype and shape");
  }
  if (record.chunk_size_bytes < limits::kChunkSizeBytesMin ||
      record.chunk_size_bytes > limits::kChunkSizeBytesMax) {
    return fail(ErrorCode::kLimit,
                "chunk size of " + std::to_string(record.chunk_size_bytes) + " bytes");
  }
  const std::uint64_t chunk_count = record.size_bytes / record.chunk_size_bytes +
                                    (record.size_bytes % record.chunk_size_bytes != 0);
  if (chunk_count > limits::kChunksPerLeafMax) {
    return fail(ErrorCode::kLimit,
                "leaf of " + std::to_string(chunk_count) + " chunks is over the limit of " +
                    std::to_string(limits::kChunksPerLeafMax) + "; choose a larger chunk size");
  }
  if (record.hashes.size() != chunk_count) return corrupt("leaf record: wrong number of hashes");
  if (record.inline_bytes &&
      (record.inline_bytes->size() != record.size_bytes || chunk_count > 1 ||
       record.size_bytes > limits::kInlineSizeBytesMax || !record.codecs.empty() ||
       !record.origins.empty() || !record.sources.empty() || !record.stored_sizes.empty() ||
       !record.extents.empty())) {
    return corrupt("leaf record: impossible inline bytes");
  }
  if (!record.codecs.empty() && record.codecs.size() != chunk_count) {
    return corrupt("leaf record: wrong number of codecs");
  }
  for (const Codec codec : record.codecs) {
    if (codec > kCodecLast) return fail(ErrorCode::kUnsupported, "leaf record: unknown codec");
  }
  std::uint64_t first_free = 0;
  for (const ChunkOrigin& origin : record.origins) {
    if (origin.chunk_count == 0 || origin.first_chunk < first_free ||
        std::uint64_t{origin.first_chunk} + origin.chunk_count > chunk_count ||
        origin.save.step > limits::kStepMax || origin.source > record.sources.size()) {
      return corrupt("leaf record: impossible origins");
    }
    first_free = std::uint64_t{origin.first_chunk} + origin.chunk_count;
  }
  STEPSTONE_TRY(check_alignment(record));
  STEPSTONE_TRY(check_places(record));
  return check_bases(record);
}

Result<void> check_store_text(std::string_view text, const char* what) {
  if (text.size() <= limits::kStoreMetadataSizeBytesMax) return {};
  return fail(ErrorCode::kLimit, what + (" of " + std::to_string(text.size())) +
                                     " bytes, over the limit of " +
                                     std::to_string(limits::kStoreMetadataSizeBytesMax));
}

Result<void> check_store(const StoreRecord& record) {
  if (record.newest_step > limits::kStepMax) return corrupt("store record: impossible step");
  STEPSTONE_TRY(check_store_text(record.custom_metadata, "store record: custom metadata"));
  return check_store_text(record.preservation_policy, "store record: preservation policy");
}

Result<void> check_step(const StepRecord& record, std::string_view key) {
  if (record.save.step > limits::kStepMax) return corrupt("step record: impossible step");
  if (key != step_record_key(record.save.step) && key != step_copy_key(record.save)) {
    return corrupt("step record: it describes another step than its key names");
  }
  if (record.items.empty() || record.items.size() > limits::kItemsPerStepMax) {
    return fail(ErrorCode::kLimit, "step of " + std::to_string(record.items.size()) +
                                       " items: it must have 1 to " +
                                       std::to_string(limits::kItemsPerStepMax));
  }
  // The copy in a segment is written before the segments are complete, and names none.
  if (record.segments.size() > limits::kSegmentsPerStepMax ||
      (record.placement == Placement::kSmall && !record.segments.empty())) {
    return corrupt("step record: impossible segments");
  }
  for (const SegmentInfo& segment : record.segments) {
    if (segment.data_size_bytes > segment.size_bytes) {
      return corrupt("step record: impossible segments");
    }
  }
  for (std::size_t i = 0; i < record.items.size(); ++i) {
    STEPSTONE_TRY(check_name(record.items[i].name, "item"));
    STEPSTONE_TRY(check_name(record.items[i].handler, "handler"));
    if (i != 0 && record.items[i - 1].name >= record.items[i].name) {
      return corrupt("step record: items out of order");
    }
  }
  if (record.origin_saves.size() > limits::kOriginSavesPerStepMax) {
    return fail(ErrorCode::kLimit, "step that refers to " +
                                       std::to_string(record.origin_saves.size()) +
                                       " other saves is over the limit of " +
                                       std::to_string(limits::kOriginSavesPerStepMax));
  }
  for (std::size_t i = 0; i < record.origin_saves.size(); ++i) {
    const SaveId& origin = record.origin_saves[i];
    if (origin.step > limits::kStepMax || origin == record.save ||
        (i != 0 && record.origin_saves[i - 1] >= origin)) {
      return corrupt("step record: impossible origin saves");
    }
  }
  STEPSTONE_TRY(check_metadata_size(record.metrics, "metrics"));
  STEPSTONE_TRY(check_metadata_size(record.custom_metadata, "custom metadata"));
  return check_store_text(record.store_metadata, "step record: metadata of the store");
}

// Counts the leaves of a structure while checking it.
Result<void> check_item(const ItemRecord& record) {
  STEPSTONE_TRY(check_name(record.handler, "handler"));
  STEPSTONE_TRY(check_metadata_size(record.custom_metadata, "custom metadata"));
  std::uint64_t leaf_count = 0;
  STEPSTONE_TRY(visit(record.structure, {.enter = {},
                                         .leaf = [&](const std::string&) -> Result<void> {
                                           ++leaf_count;
                                           return {};
                                         },
                                         .leave = {}}));
  if (leaf_count != record.leaf_count) return corrupt("item record: wrong number of leaves");
  return {};
}

// A value that is about to be written and does not hold together is the caller's mistake, not
// damage.
Error as_argument_error(Error error) {
  if (error.code == ErrorCode::kCorrupt) error.code = ErrorCode::kInvalidArgument;
  return error;
}

// A value that was read and is over a limit was never written by us: that is damage.
Error as_damage_error(Error error) {
  if (error.code == ErrorCode::kLimit) error.code = ErrorCode::kCorrupt;
  return error;
}

// A flatbuffer ends at 2 GiB, and a builder that is driven beyond asserts: what could get there is
// added up first.
Result<void> check_encoded_size(const TreeStructure& structure) {
  constexpr std::uint64_t kNumberSizeBytes = sizeof(std::uint32_t);
  constexpr std::uint64_t kNameOverheadBytes = 12;  // Offset, length, terminator and padding.
  std::uint64_t size_bytes =
      structure.kinds.size() + structure.labels.size() +
      kNumberSizeBytes * (structure.child_counts.size() + structure.type_indices.size());
  for (const std::string& name : structure.type_names) {
    size_bytes += name.size() + kNameOverheadBytes;
  }
  if (size_bytes <= limits::kRecordSizeBytesMax) return {};
  return fail(ErrorCode::kLimit, "tree structure of " + std::to_string(size_bytes) +
                                     " bytes is over the limit of 1 GiB");
}

}  // namespace

std::size_t LeafRecord::chunk_size_at(std::uint32_t chunk) const {
  STEPSTONE_ASSERT(chunk < chunk_count());
  const std::uint64_t offset = std::uint64_t{chunk} * chunk_size_bytes;
  return static_cast<std::size_t>(std::min<std::uint64_t>(chunk_size_bytes, size_bytes - offset));
}

std::size_t LeafRecord::stored_size_at(std::uint32_t chunk) const {
  return stored_sizes.empty() ? chunk_size_at(chunk) : stored_sizes[chunk];
}

Codec LeafRecord::codec_at(std::uint32_t chunk) const {
  return codecs.empty() ? Codec::kRaw : codecs[chunk];
}

const ChunkOrigin* LeafRecord::origin_of(std::uint32_t chunk) const {
  const auto next =
      std::upper_bound(origins.begin(), origins.end(), chunk,
                       [](std::uint32_t c, const ChunkOrigin& o) { return c < o.first_chunk; });
  if (next == origins.begin()) return nullptr;
  const ChunkOrigin& origin = *std::prev(next);
  return chunk - origin.first_chunk < origin.chunk_count ? &origin : nullptr;
}

const ChunkBase* LeafRecord::base_of(std::uint32_t chunk) const {
  const auto found =
      std::lower_bound(bases.begin(), bases.end(), chunk,
                       [](const ChunkBase& base, std::uint32_t c) { return base.chunk < c; });
  return found == bases.end() || found->chunk != chunk ? nullptr : &*found;
}

Result<void> check(const LeafRecord& record) {
  return check_leaf(record).map_error(as_argument_error);
}

Hash128 record_hash(std::string_view bytes) {
  STEPSTONE_ASSERT(bytes.size() >= internal::kTrailerSizeBytes);
  const std::string_view trailer = bytes.substr(bytes.size() - internal::kTrailerSizeBytes);
  return {read_little_endian(trailer), read_little_endian(trailer.substr(8))};
}

Result<std::string> encode(const StoreRecord& record, std::string_view key) {
  STEPSTONE_TRY(check_store(record).map_error(as_argument_error));
  flatbuffers::FlatBufferBuilder builder(512);
  const auto header = create_header(builder, key);
  const schema::Hash store_id = to_schema(record.store_id);
  const schema::Hash digest = to_schema(record.steps_digest);
  const schema::Hash newest_hash = to_schema(record.newest_step_hash);
  const auto custom_metadata = create_text(builder, record.custom_metadata);
  const auto preservation_policy = create_text(builder, record.preservation_policy);
  schema::StoreRecordBuilder table(builder);
  table.add_header(header);
  table.add_store_id(&store_id);
  table.add_created_unix_ns(record.created_unix_ns);
  table.add_sequence(record.sequence);
  table.add_step_count(record.step_count);
  table.add_steps_digest(&digest);
  table.add_newest_step(record.newest_step);
  table.add_newest_step_hash(&newest_hash);
  table.add_next_generation(record.next_generation);
  table.add_custom_metadata(custom_metadata);
  table.add_preservation_policy(preservation_policy);
  schema::FinishStoreRecordBuffer(builder, table.Finish());
  return checked_size(sealed(builder));
}

Result<StoreRecord> decode_store_record(std::string_view bytes, std::string_view key) {
  VerifiedRecord<schema::StoreRecord> table;
  STEPSTONE_TRY(table.open(bytes, key, schema::StoreRecordIdentifier()));
  StoreRecord record;
  record.store_id = from_schema(table->store_id());
  record.created_unix_ns = table->created_unix_ns();
  record.sequence = table->sequence();
  record.step_count = table->step_count();
  record.steps_digest = from_schema(table->steps_digest());
  record.newest_step = table->newest_step();
  record.newest_step_hash = from_schema(table->newest_step_hash());
  record.next_generation = table->next_generation();
  record.custom_metadata = view(table->custom_metadata());
  record.preservation_policy = view(table->preservation_policy());
  STEPSTONE_TRY(check_store(record));
  return record;
}

Result<std::string> encode(const StepRecord& record, std::string_view key) {
  STEPSTONE_TRY(check_step(record, key).map_error(as_argument_error));
  flatbuffers::FlatBufferBuilder builder(1024);
  const auto header = create_header(builder, key);
  std::vector<flatbuffers::Offset<schema::ItemSummary>> items;
  for (const ItemSummary& item : record.items) {
    const auto name = create_bytes(builder, item.name);
    const auto handler = builder.CreateString(item.handler);
    items.push_back(
        schema::CreateItemSummary(builder, name, handler, item.leaf_count, item.size_bytes));
  }
  const auto item_vector = builder.CreateVector(items);
  std::vector<schema::Segment> segments;
  for (const SegmentInfo& segment : record.segments) {
    segments.emplace_back(segment.size_bytes, segment.data_size_bytes,
                          to_schema(segment.tail_hash));
  }
  const auto segment_vector = builder.CreateVectorOfStructs(segments);
  flatbuffers::Offset<flatbuffers::Vector<const schema::SaveRef*>> origin_saves;
  if (!record.origin_saves.empty()) {
    std::vector<schema::SaveRef> saves;
    for (const SaveId& save : record.origin_saves) saves.emplace_back(save.step, save.generation);
    origin_saves = builder.CreateVectorOfStructs(saves);
  }
  const auto metrics = create_text(builder, record.metrics);
  const auto custom_metadata = create_text(builder, record.custom_metadata);
  const auto store_metadata = create_text(builder, record.store_metadata);
  const schema::Hash previous_hash = to_schema(record.previous_hash);
  schema::StepRecordBuilder table(builder);
  table.add_header(header);
  table.add_step(record.save.step);
  table.add_generation(record.save.generation);
  table.add_sequence(record.sequence);
  table.add_previous_hash(&previous_hash);
  table.add_started_unix_ns(record.started_unix_ns);
  table.add_committed_unix_ns(record.committed_unix_ns);
  table.add_size_bytes(record.size_bytes);
  table.add_placement(static_cast<schema::Placement>(record.placement));
  table.add_segments(segment_vector);
  table.add_items(item_vector);
  table.add_metrics(metrics);
  table.add_custom_metadata(custom_metadata);
  table.add_origin_saves(origin_saves);
  table.add_store_metadata(store_metadata);
  schema::FinishStepRecordBuffer(builder, table.Finish());
  return checked_size(sealed(builder));
}

Result<StepRecord> decode_step_record(std::string_view bytes, std::string_view key) {
  VerifiedRecord<schema::StepRecord> table;
  STEPSTONE_TRY(table.open(bytes, key, schema::StepRecordIdentifier()));
  StepRecord record;
  record.save = {table->step(), table->generation()};
  record.sequence = table->sequence();
  record.previous_hash = from_schema(table->previous_hash());
  record.started_unix_ns = table->started_unix_ns();
  record.committed_unix_ns = table->committed_unix_ns();
  record.size_bytes = table->size_bytes();
  if (table->placement() > schema::Placement::MAX) {
    return fail(ErrorCode::kUnsupported, "step record: unknown placement");
  }
  record.placement = static_cast<Placement>(table->placement());
  if (is_misaligned(table->segments()) || is_misaligned(table->origin_saves())) {
    return corrupt("step record is no valid flatbuffer");
  }
  if (table->origin_saves() != nullptr) {
    for (const schema::SaveRef* save : *table->origin_saves()) {
      record.origin_saves.push_back({save->step(), save->generation()});
    }
  }
  if (table->segments() != nullptr) {
    for (const schema::Segment* segment : *table->segments()) {
      record.segments.push_back(
          {segment->size_bytes(), segment->data_size_bytes(), from_schema(&segment->tail_hash())});
    }
  }
  for (const schema::ItemSummary* item : *table->items()) {
    // Many offsets may lead to one long name, so names are measured before they are copied.
    STEPSTONE_TRY(check_name(view(item->name()), "item").map_error(as_damage_error));
    STEPSTONE_TRY(check_name(view(item->handler()), "handler").map_error(as_damage_error));
    record.items.push_back({std::string(view(item->name())), std::string(view(item->handler())),
                            item->leaf_count(), item->size_bytes()});
  }
  record.metrics = view(table->metrics());
  record.custom_metadata = view(table->custom_metadata());
  record.store_metadata = view(table->store_metadata());
  STEPSTONE_TRY(check_step(record, key).map_error(as_damage_error));
  return record;
}

Result<std::string> encode(const ItemRecord& record, std::string_view key) {
  STEPSTONE_TRY(check_item(record).map_error(as_argument_error));
  STEPSTONE_TRY(check_encoded_size(record.structure));
  const TreeStructure& structure = record.structure;
  flatbuffers::FlatBufferBuilder builder(1024 + structure.kinds.size() + structure.labels.size());
  const auto header = create_header(builder, key);
  const auto handler = builder.CreateString(record.handler);
  const auto custom_metadata = create_text(builder, record.custom_metadata);
  const auto kinds = builder.CreateVector(
      reinterpret_cast<const std::uint8_t*>(structure.kinds.data()), structure.kinds.size());
  const auto child_counts = builder.CreateVector(structure.child_counts);
  const auto type_names = builder.CreateVectorOfStrings(structure.type_names);
  const auto type_indices = builder.CreateVector(structure.type_indices);
  const auto labels = create_bytes(builder, structure.labels);
  const auto tree =
      schema::CreateTreeStructure(builder, kinds, child_counts, type_names, type_indices, labels);
  schema::FinishItemRecordBuffer(
      builder, schema::CreateItemRecord(builder, header, handler, record.leaf_count,
                                        record.size_bytes, tree, custom_metadata));
  return checked_size(sealed(builder));
}

Result<ItemRecord> decode_item_record(std::string_view bytes, std::string_view key,
                                      const LeafPath& below) {
  VerifiedRecord<schema::ItemRecord> table;
  STEPSTONE_TRY(table.open(bytes, key, schema::ItemRecordIdentifier()));
  ItemRecord record;
  record.handler = view(table->handler());
  record.leaf_count = table->leaf_count();
  record.size_bytes = table->size_bytes();
  record.custom_metadata = view(table->custom_metadata());
  const schema::TreeStructure* const tree = table->structure();
  record.structure.kinds.reserve(tree->kinds()->size());
  for (const std::uint8_t kind : *tree->kinds()) {
    record.structure.kinds.push_back(static_cast<NodeKind>(kind));
  }
  if (tree->child_counts() != nullptr) {
    record.structure.child_counts.assign(tree->child_counts()->begin(),
                                         tree->child_counts()->end());
  }
  if (tree->type_names() != nullptr) {
    // Many offsets may lead to one name; copies of it must not outgrow the record.
    if (tree->type_names()->size() > tree->kinds()->size()) {
      return corrupt("item record: more type names than nodes");
    }
    std::size_t names_size_bytes = 0;
    for (const flatbuffers::String* name : *tree->type_names()) {
      names_size_bytes += name->size();
      if (names_size_bytes > bytes.size()) return corrupt("item record: type names overlap");
      record.structure.type_names.emplace_back(view(name));
    }
  }
  if (tree->type_indices() != nullptr) {
    record.structure.type_indices.assign(tree->type_indices()->begin(),
                                         tree->type_indices()->end());
  }
  record.structure.labels = view(tree->labels());
  if (below.empty()) {
    STEPSTONE_TRY(check_item(record).map_error(as_damage_error));
  } else {
    record.structure = STEPSTONE_TRY(substructure(record.structure, below));
    STEPSTONE_TRY(visit(record.structure, {}).map_error(as_damage_error));
  }
  return record;
}

Result<std::string> encode(const LeafRecord& record, std::string_view key) {
  STEPSTONE_TRY(check(record));
  flatbuffers::FlatBufferBuilder builder(256 + record.hashes.size() * sizeof(Hash128) +
                                         (record.inline_bytes ? record.inline_bytes->size() : 0));
  const auto header =
      create_header(builder, key, record.alignment_bytes != 0 ? kFeatureAlignment : 0);
  const auto shape = builder.CreateVector(record.shape);
  const auto hashes = builder.CreateVectorOfStructs(
      reinterpret_cast<const schema::Hash*>(record.hashes.data()), record.hashes.size());
  flatbuffers::Offset<flatbuffers::Vector<std::uint8_t>> inline_bytes;
  if (record.inline_bytes) {
    inline_bytes =
        builder.CreateVector(reinterpret_cast<const std::uint8_t*>(record.inline_bytes->data()),
                             record.inline_bytes->size());
  }
  flatbuffers::Offset<flatbuffers::Vector<std::uint8_t>> codecs;
  if (!record.codecs.empty()) {
    codecs = builder.CreateVector(reinterpret_cast<const std::uint8_t*>(record.codecs.data()),
                                  record.codecs.size());
  }
  flatbuffers::Offset<flatbuffers::Vector<const schema::Origin*>> origins;
  if (!record.origins.empty()) {
    std::vector<schema::Origin> runs;
    for (const ChunkOrigin& origin : record.origins) {
      runs.emplace_back(origin.save.step, origin.save.generation, origin.first_chunk,
                        origin.chunk_count, origin.source);
    }
    origins = builder.CreateVectorOfStructs(runs);
  }
  flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<schema::Source>>> sources;
  if (!record.sources.empty()) {
    std::vector<flatbuffers::Offset<schema::Source>> offsets;
    for (const ChunkSource& source : record.sources) {
      const auto item = create_bytes(builder, source.item);
      const auto path = create_bytes(builder, source.encoded_path);
      offsets.push_back(schema::CreateSource(builder, item, path));
    }
    sources = builder.CreateVector(offsets);
  }
  flatbuffers::Offset<flatbuffers::Vector<std::uint32_t>> stored_sizes;
  if (!record.stored_sizes.empty()) stored_sizes = builder.CreateVector(record.stored_sizes);
  flatbuffers::Offset<flatbuffers::Vector<const schema::Extent*>> extents;
  if (!record.extents.empty()) {
    std::vector<schema::Extent> runs;
    for (const ChunkExtent& extent : record.extents) {
      runs.emplace_back(extent.offset_bytes, extent.segment, extent.first_chunk);
    }
    extents = builder.CreateVectorOfStructs(runs);
  }
  flatbuffers::Offset<flatbuffers::Vector<const schema::Base*>> bases;
  if (!record.bases.empty()) {
    std::vector<schema::Base> entries;
    for (const ChunkBase& base : record.bases) {
      entries.emplace_back(to_schema(base.hash), base.save.step, base.save.generation, base.source,
                           base.chunk, base.stored_size, static_cast<std::uint8_t>(base.codec));
    }
    bases = builder.CreateVectorOfStructs(entries);
  }
  schema::LeafRecordBuilder table(builder);
  table.add_header(header);
  table.add_kind(static_cast<std::uint8_t>(record.kind));
  table.add_dtype(record.dtype ? static_cast<std::uint8_t>(*record.dtype) : std::uint8_t{0});
  table.add_shape(shape);
  table.add_size_bytes(record.size_bytes);
  table.add_chunk_size_bytes(record.chunk_size_bytes);
  table.add_hashes(hashes);
  table.add_inline_bytes(inline_bytes);
  table.add_codecs(codecs);
  table.add_origins(origins);
  table.add_sources(sources);
  table.add_stored_sizes(stored_sizes);
  table.add_extents(extents);
  table.add_bases(bases);
  table.add_alignment(record.alignment_bytes);
  schema::FinishLeafRecordBuffer(builder, table.Finish());
  return checked_size(sealed(builder));
}

Result<LeafRecord> decode_leaf_record(std::string_view bytes, std::string_view key) {
  VerifiedRecord<schema::LeafRecord> table;
  STEPSTONE_TRY(table.open(bytes, key, schema::LeafRecordIdentifier(), kFeatureAlignment));
  if ((table->header()->required_features() == 0) != (table->alignment() == 0)) {
    return corrupt("leaf record: its features do not fit what it holds");
  }
  if (is_misaligned(table->shape()) || is_misaligned(table->hashes()) ||
      is_misaligned(table->origins()) || is_misaligned(table->extents()) ||
      is_misaligned(table->bases())) {
    return corrupt("leaf record is no valid flatbuffer");
  }
  LeafRecord record;
  const std::optional<LeafKind> kind = leaf_kind_from_number(table->kind());
  if (!kind) return fail(ErrorCode::kUnsupported, "leaf record: unknown kind of leaf");
  record.kind = *kind;
  if (table->dtype() != 0) {
    record.dtype = dtype_from_number(table->dtype());
    if (!record.dtype) return fail(ErrorCode::kUnsupported, "leaf record: unknown dtype");
  }
  if (table->shape() != nullptr) {
    record.shape.assign(table->shape()->begin(), table->shape()->end());
  }
  record.size_bytes = table->size_bytes();
  record.chunk_size_bytes = table->chunk_size_bytes();
  if (table->hashes() != nullptr) {
    record.hashes.reserve(table->hashes()->size());
    for (const schema::Hash* hash : *table->hashes()) record.hashes.push_back(from_schema(hash));
  }
  if (table->inline_bytes() != nullptr) {
    const auto* const data = reinterpret_cast<const std::byte*>(table->inline_bytes()->data());
    record.inline_bytes.emplace(data, data + table->inline_bytes()->size());
  }
  if (table->codecs() != nullptr) {
    for (const std::uint8_t codec : *table->codecs()) {
      record.codecs.push_back(static_cast<Codec>(codec));
    }
  }
  if (table->origins() != nullptr) {
    for (const schema::Origin* origin : *table->origins()) {
      record.origins.push_back({origin->first_chunk(),
                                origin->chunk_count(),
                                {origin->step(), origin->generation()},
                                origin->source()});
    }
  }
  if (table->sources() != nullptr) {
    if (table->sources()->size() > limits::kSourcesPerLeafMax) {
      return corrupt("leaf record: too many sources");
    }
    // Many offsets may lead to one path; copies of it must not outgrow the record.
    std::size_t sources_size_bytes = 0;
    for (const schema::Source* source : *table->sources()) {
      sources_size_bytes += source->item()->size() + source->path()->size();
      if (sources_size_bytes > bytes.size()) return corrupt("leaf record: sources overlap");
      record.sources.push_back(
          {std::string(view(source->item())), std::string(view(source->path()))});
    }
  }
  if (table->stored_sizes() != nullptr) {
    record.stored_sizes.assign(table->stored_sizes()->begin(), table->stored_sizes()->end());
  }
  if (table->extents() != nullptr) {
    for (const schema::Extent* extent : *table->extents()) {
      record.extents.push_back({extent->first_chunk(), extent->segment(), extent->offset()});
    }
  }
  if (table->bases() != nullptr) {
    for (const schema::Base* base : *table->bases()) {
      record.bases.push_back({.chunk = base->chunk(),
                              .save = {base->step(), base->generation()},
                              .source = base->source(),
                              .codec = static_cast<Codec>(base->codec()),
                              .stored_size = base->stored_size(),
                              .hash = from_schema(&base->hash())});
    }
  }
  record.alignment_bytes = table->alignment();
  STEPSTONE_TRY(check_leaf(record).map_error(as_damage_error));
  return record;
}

}  // namespace stepstone
