// Records that no writer of ours makes, under a hash that fits: built with the generated builders
// and sealed by hand. Each must be refused with an error, in memory that its own size bounds.
#include <flatbuffers/flatbuffers.h>
#include <gtest/gtest.h>

#include <functional>

#include "format/leaf_path.h"
#include "format/limits.h"
#include "format/records.h"
#include "format/schema/item_generated.h"
#include "format/schema/leaf_generated.h"
#include "format/schema/step_generated.h"
#include "format/schema/store_generated.h"
#include "support.h"

namespace stepstone {
namespace {

using flatbuffers::FlatBufferBuilder;
using flatbuffers::Offset;

const SaveId kSave = {1000, 7};

struct HeaderFields {
  std::uint32_t format_version = kFormatVersion;
  std::uint64_t required_features = 0;
  std::string key;

  Offset<schema::Header> build(FlatBufferBuilder& builder) const {
    const auto key_bytes =
        builder.CreateVector(reinterpret_cast<const std::uint8_t*>(key.data()), key.size());
    return schema::CreateHeader(builder, format_version, required_features, key_bytes);
  }
};

std::string sealed(const FlatBufferBuilder& builder) {
  return test::seal({reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize()});
}

struct LeafFields {
  HeaderFields header = {.key = leaf_key(kSave, "state", std::string("\x03w\0\x01\0", 5))};
  std::uint8_t kind = static_cast<std::uint8_t>(LeafKind::kArray);
  std::uint8_t dtype = static_cast<std::uint8_t>(DType::kFloat32);
  std::vector<std::uint64_t> shape = {3, 1024};
  std::uint64_t size_bytes = 12288;
  std::uint32_t chunk_size_bytes = 4096;
  std::vector<schema::Hash> hashes = {{1, 2}, {3, 4}, {5, 6}};
  std::optional<std::vector<std::uint8_t>> inline_bytes;
  std::vector<std::uint8_t> codecs;
  std::vector<schema::Origin> origins = {{900, 5, 0, 1, 0}, {800, 4, 2, 1, 1}};
  std::vector<std::pair<std::string, std::string>> sources = {
      {"ema", std::string("\x03w\0\x01\0", 5)}};
  std::vector<std::uint32_t> stored_sizes = {4096, 4096, 4096};
  std::vector<schema::Extent> extents = {{0, 1, 0}, {4096, 0, 2}};
  std::vector<schema::Base> bases;
  std::uint32_t alignment = 0;

  void clear_places() {
    origins.clear();
    sources.clear();
    stored_sizes.clear();
    extents.clear();
    bases.clear();
  }

  std::string build() const {
    FlatBufferBuilder builder;
    const auto header_offset = header.build(builder);
    std::vector<Offset<schema::Source>> source_offsets;
    for (const auto& [item, path] : sources) {
      const std::vector<std::uint8_t> item_bytes(item.begin(), item.end());
      const std::vector<std::uint8_t> path_bytes(path.begin(), path.end());
      source_offsets.push_back(schema::CreateSourceDirect(builder, &item_bytes, &path_bytes));
    }
    builder.Finish(
        schema::CreateLeafRecordDirect(
            builder, header_offset, kind, dtype, &shape, size_bytes, chunk_size_bytes, &hashes,
            inline_bytes ? &*inline_bytes : nullptr, codecs.empty() ? nullptr : &codecs,
            origins.empty() ? nullptr : &origins, sources.empty() ? nullptr : &source_offsets,
            stored_sizes.empty() ? nullptr : &stored_sizes, extents.empty() ? nullptr : &extents,
            bases.empty() ? nullptr : &bases, alignment),
        schema::LeafRecordIdentifier());
    return sealed(builder);
  }
  auto decode() const { return decode_leaf_record(build(), header.key); }
};

struct StepFields {
  struct Item {
    std::string name;
    std::string handler = "standard";
  };
  HeaderFields header = {.key = step_record_key(kSave.step)};
  std::uint64_t step = kSave.step;
  std::uint8_t placement = 0;
  std::vector<schema::Segment> segments = {{1000, 900, {1, 2}}};
  std::vector<Item> items = {{"a"}, {"b"}};
  std::vector<schema::SaveRef> origin_saves = {{800, 4}, {900, 5}};

  std::string build() const {
    FlatBufferBuilder builder;
    const auto header_offset = header.build(builder);
    std::vector<Offset<schema::ItemSummary>> summaries;
    for (const Item& item : items) {
      const std::vector<std::uint8_t> name(item.name.begin(), item.name.end());
      summaries.push_back(schema::CreateItemSummaryDirect(builder, &name, item.handler.c_str()));
    }
    const schema::Hash previous_hash;
    builder.Finish(schema::CreateStepRecordDirect(
                       builder, header_offset, step, kSave.generation, 1, &previous_hash, 0, 0, 0,
                       static_cast<schema::Placement>(placement), &segments, &summaries,
                       /*metrics=*/nullptr, /*custom_metadata=*/nullptr, &origin_saves),
                   schema::StepRecordIdentifier());
    return sealed(builder);
  }
  auto decode() const { return decode_step_record(build(), header.key); }
};

struct ItemFields {
  HeaderFields header = {.key = item_key(kSave, "state")};
  std::string handler = "standard";
  std::uint64_t leaf_count = 2;
  std::vector<std::uint8_t> kinds = {6, 1, 1};  // A custom node of two leaves.
  std::vector<std::uint32_t> child_counts = {2};
  std::vector<std::string> type_names = {"Point"};
  std::vector<std::uint32_t> type_indices = {0};
  std::string labels = std::string("\x04x\0\x01\x04y\0\x01", 8);

  std::string build() const {
    FlatBufferBuilder builder;
    const auto header_offset = header.build(builder);
    const auto handler_offset = builder.CreateString(handler);
    const auto kind_vector = builder.CreateVector(kinds);
    const auto count_vector = builder.CreateVector(child_counts);
    const auto name_vector = builder.CreateVectorOfStrings(type_names);
    const auto index_vector = builder.CreateVector(type_indices);
    const auto label_vector =
        builder.CreateVector(reinterpret_cast<const std::uint8_t*>(labels.data()), labels.size());
    const auto tree = schema::CreateTreeStructure(builder, kind_vector, count_vector, name_vector,
                                                  index_vector, label_vector);
    builder.Finish(
        schema::CreateItemRecord(builder, header_offset, handler_offset, leaf_count, 0, tree),
        schema::ItemRecordIdentifier());
    return sealed(builder);
  }
  auto decode() const { return decode_item_record(build(), header.key); }
};

struct StoreFields {
  HeaderFields header = {.key = store_record_key()};
  std::uint64_t newest_step = 5;
  std::string custom_metadata = "{}";
  std::string preservation_policy = "{}";

  std::string build() const {
    FlatBufferBuilder builder;
    const auto header_offset = header.build(builder);
    const auto metadata_offset = builder.CreateString(custom_metadata);
    const auto policy_offset = builder.CreateString(preservation_policy);
    const schema::Hash id(1, 2);
    builder.Finish(
        schema::CreateStoreRecord(builder, header_offset, &id, 0, 0, 0, nullptr, newest_step,
                                  nullptr, 1, metadata_offset, policy_offset),
        schema::StoreRecordIdentifier());
    return sealed(builder);
  }
  auto decode() const { return decode_store_record(build(), header.key); }
};

template <typename Fields>
struct Attack {
  const char* what;
  std::function<void(Fields&)> change;
  ErrorCode code = ErrorCode::kCorrupt;
};

template <typename Fields>
void expect_refused(std::initializer_list<Attack<Fields>> attacks) {
  const auto honest = Fields().decode();
  ASSERT_TRUE(honest.has_value()) << honest.error().message;
  for (const Attack<Fields>& attack : attacks) {
    SCOPED_TRACE(attack.what);
    Fields fields;
    attack.change(fields);
    const auto decoded = fields.decode();
    ASSERT_FALSE(decoded.has_value());
    EXPECT_EQ(decoded.error().code, attack.code) << decoded.error().message;
    EXPECT_FALSE(decoded.error().message.empty());
  }
}

template <typename Fields>
class EveryKind : public testing::Test {};
using Kinds = testing::Types<StoreFields, StepFields, ItemFields, LeafFields>;
TYPED_TEST_SUITE(EveryKind, Kinds);

TYPED_TEST(EveryKind, OfANewerVersionOrWithAnUnknownFeatureIsUnsupported) {
  using Fields = TypeParam;
  expect_refused<Fields>({
      {"the next version", [](Fields& f) { f.header.format_version = 2; }, ErrorCode::kUnsupported},
      {"a far version", [](Fields& f) { f.header.format_version = 0xFFFFFFFF; },
       ErrorCode::kUnsupported},
      {"the first feature that no record has", [](Fields& f) { f.header.required_features = 2; },
       ErrorCode::kUnsupported},
      {"it and another", [](Fields& f) { f.header.required_features = 2 | kFeatureAlignment; },
       ErrorCode::kUnsupported},
      {"the last feature", [](Fields& f) { f.header.required_features = std::uint64_t{1} << 63; },
       ErrorCode::kUnsupported},
  });
}

TYPED_TEST(EveryKind, UnderAnotherKeyIsRefusedThoughItsHashFits) {
  TypeParam fields;
  const std::string bytes = fields.build();
  const std::string key = fields.header.key;
  fields.header.key += 'x';
  const std::string misplaced = fields.build();
  using Record = std::remove_cvref_t<decltype(*fields.decode())>;
  const auto decode = [](std::string_view record, std::string_view under) -> Result<Record> {
    if constexpr (std::is_same_v<Record, StoreRecord>) return decode_store_record(record, under);
    if constexpr (std::is_same_v<Record, StepRecord>) return decode_step_record(record, under);
    if constexpr (std::is_same_v<Record, ItemRecord>) return decode_item_record(record, under);
    if constexpr (std::is_same_v<Record, LeafRecord>) return decode_leaf_record(record, under);
  };
  EXPECT_TRUE(decode(bytes, key).has_value());
  ASSERT_FALSE(decode(misplaced, key).has_value());
  EXPECT_EQ(decode(misplaced, key).error().code, ErrorCode::kCorrupt);
}

template <typename Fields>
class EveryKindWithoutAlignment : public testing::Test {};
using KindsWithoutAlignment = testing::Types<StoreFields, StepFields, ItemFields>;
TYPED_TEST_SUITE(EveryKindWithoutAlignment, KindsWithoutAlignment);

TYPED_TEST(EveryKindWithoutAlignment, HasNoSuchFeature) {
  using Fields = TypeParam;
  expect_refused<Fields>({
      {"alignment", [](Fields& f) { f.header.required_features = kFeatureAlignment; },
       ErrorCode::kUnsupported},
  });
}

TEST(HostileLeafRecord, WithAnImpossibleAlignmentIsRefused) {
  const auto align = [](LeafFields& f, std::uint32_t alignment) {
    f.header.required_features = kFeatureAlignment;
    f.alignment = alignment;
  };
  LeafFields fields;
  align(fields, 64);
  const auto record = fields.decode();
  ASSERT_TRUE(record.has_value()) << record.error().message;
  EXPECT_EQ(record->alignment_bytes, 64U);
  expect_refused<LeafFields>({
      {"the feature and no alignment", [&](auto& f) { align(f, 0); }},
      {"an alignment without the feature", [](auto& f) { f.alignment = 64; }},
      {"no power of two", [&](auto& f) { align(f, 96); }},
      {"more than there may be", [&](auto& f) { align(f, 2 * limits::kChunkAlignmentBytesMax); }},
      {"2^31", [&](auto& f) { align(f, std::uint32_t{1} << 31); }},
      {"all bits", [&](auto& f) { align(f, 0xFFFFFFFF); }},
      {"of inline bytes",
       [&](auto& f) {
         align(f, 64);
         f.clear_places();
         f.shape = {3};
         f.size_bytes = 12;
         f.hashes.resize(1);
         f.inline_bytes.emplace(12);
       }},
      {"of no chunks",
       [&](auto& f) {
         align(f, 64);
         f.clear_places();
         f.shape = {0};
         f.size_bytes = 0;
         f.hashes.clear();
       }},
  });
}

TEST(HostileLeafRecord, IsRefused) {
  const auto u64 = [](int shift) { return std::uint64_t{1} << shift; };
  expect_refused<LeafFields>({
      {"kind 0", [](auto& f) { f.kind = 0; }, ErrorCode::kUnsupported},
      {"kind 10", [](auto& f) { f.kind = 10; }, ErrorCode::kUnsupported},
      {"kind 255", [](auto& f) { f.kind = 255; }, ErrorCode::kUnsupported},
      {"dtype 29", [](auto& f) { f.dtype = 29; }, ErrorCode::kUnsupported},
      {"dtype 255", [](auto& f) { f.dtype = 255; }, ErrorCode::kUnsupported},
      {"codec 4",
       [](auto& f) {
         f.codecs = {0, 4, 0};
       },
       ErrorCode::kUnsupported},
      {"codec 255",
       [](auto& f) {
         f.codecs = {0, 0, 255};
       },
       ErrorCode::kUnsupported},
      {"an array without a dtype", [](auto& f) { f.dtype = 0; }},
      {"a string with a dtype", [](auto& f) { f.kind = 8; }},
      {"a string with a shape",
       [](auto& f) {
         f.kind = 8;
         f.dtype = 0;
       }},
      {"another size", [](auto& f) { f.size_bytes = 12287; }},
      {"a size of 2^63", [&](auto& f) { f.size_bytes = u64(63); }},
      {"the size of another dtype", [](auto& f) { f.dtype = 17; }},
      {"a shape that overflows to the size",
       [&](auto& f) {
         f.shape = {u64(32), u64(32), 3, 1024};
       }},
      {"a shape of 2^63 twice and 0",
       [&](auto& f) {
         f.shape = {u64(63), u64(63), 0};
         f.size_bytes = 0;
         f.hashes.clear();
         f.clear_places();
       }},
      {"rank 33", [](auto& f) { f.shape.resize(33, 1); }},
      {"rank 100000", [](auto& f) { f.shape.resize(100000, 1); }},
      {"a hash too few", [](auto& f) { f.hashes.pop_back(); }},
      {"a hash too many",
       [](auto& f) {
         f.hashes.push_back({7, 8});
       }},
      {"no hashes", [](auto& f) { f.hashes.clear(); }},
      {"a chunk size of 0", [](auto& f) { f.chunk_size_bytes = 0; }},
      {"too small a chunk size", [](auto& f) { f.chunk_size_bytes = 4095; }},
      {"too large a chunk size",
       [](auto& f) {
         f.chunk_size_bytes = limits::kChunkSizeBytesMax + 1;
         f.hashes.resize(1);
         f.clear_places();
       }},
      {"more chunks than there may be",
       [&](auto& f) {
         f.shape = {u64(34)};
         f.size_bytes = u64(36);
       }},
      {"inline bytes and several chunks",
       [](auto& f) {
         f.clear_places();
         f.inline_bytes.emplace(12288);
       }},
      {"a codec too few",
       [](auto& f) {
         f.codecs = {0, 0};
       }},
      {"a codec too many",
       [](auto& f) {
         f.codecs = {0, 0, 0, 0};
       }},
      {"overlapping origins",
       [](auto& f) {
         f.origins = {{9, 5, 0, 2, 0}, {8, 4, 1, 1, 0}};
       }},
      {"the same origin twice",
       [](auto& f) {
         f.origins = {{9, 5, 1, 1, 0}, {9, 5, 1, 1, 0}};
       }},
      {"origins out of order",
       [](auto& f) {
         f.origins = {{9, 5, 2, 1, 0}, {8, 4, 0, 1, 0}};
       }},
      {"an empty origin",
       [](auto& f) {
         f.origins = {{9, 5, 1, 0, 0}};
       }},
      {"an origin beyond the leaf",
       [](auto& f) {
         f.origins = {{9, 5, 2, 2, 0}};
       }},
      {"an origin whose end overflows",
       [](auto& f) {
         f.origins = {{9, 5, 2, 0xFFFFFFFF, 0}};
       }},
      {"an origin that begins beyond",
       [](auto& f) {
         f.origins = {{9, 5, 0xFFFFFFFF, 1, 0}};
       }},
      {"an origin in an impossible step",
       [&](auto& f) {
         f.origins = {{u64(63), 5, 0, 1, 0}};
       }},
      {"an origin beyond the sources",
       [](auto& f) {
         f.origins = {{9, 5, 0, 1, 2}};
       }},
      {"more sources than there may be",
       [](auto& f) { f.sources.resize(limits::kSourcesPerLeafMax + 1, f.sources[0]); }},
      {"a source with an item's name over the limit",
       [](auto& f) { f.sources[0].first.assign(limits::kNameSizeBytesMax + 1, 'x'); }},
      {"a source whose path does not end", [](auto& f) { f.sources[0].second.pop_back(); }},
      {"a source without a path", [](auto& f) { f.sources[0].second.clear(); }},
      {"a stored size too few", [](auto& f) { f.stored_sizes.pop_back(); }},
      {"a stored size too many", [](auto& f) { f.stored_sizes.push_back(4096); }},
      {"a raw chunk that is stored smaller", [](auto& f) { f.stored_sizes[1] = 4095; }},
      {"a raw chunk that is stored larger", [](auto& f) { f.stored_sizes[1] = 4097; }},
      {"an extent beyond the leaf",
       [](auto& f) {
         f.extents = {{0, 0, 3}};
       }},
      {"extents out of order", [](auto& f) { std::swap(f.extents[0], f.extents[1]); }},
      {"the same extent twice", [](auto& f) { f.extents[1] = f.extents[0]; }},
      {"an extent in an impossible segment",
       [](auto& f) {
         f.extents = {{0, limits::kSegmentsPerStepMax, 0}};
       }},
  });
}

// Two deltas: one whose base stands in an earlier save, and one under another leaf's path.
LeafFields with_deltas() {
  LeafFields fields;
  fields.codecs = {3, 0, 3};
  fields.stored_sizes = {100, 4096, 4096};
  fields.bases = {{{7, 8}, 900, 5, 0, 0, 4096, 0}, {{9, 10}, 800, 4, 1, 2, 3000, 2}};
  return fields;
}

TEST(HostileLeafRecord, WithImpossibleBasesIsRefused) {
  const auto record = with_deltas().decode();
  ASSERT_TRUE(record.has_value()) << record.error().message;
  EXPECT_EQ(record->base_of(1), nullptr);
  EXPECT_EQ(record->base_of(2)->save, (SaveId{800, 4}));
  const auto base = [](std::uint64_t step, std::uint32_t source, std::uint32_t chunk,
                       std::uint32_t stored_size, std::uint8_t codec) {
    return schema::Base({7, 8}, step, 5, source, chunk, stored_size, codec);
  };
  struct Case {
    const char* what;
    std::function<void(LeafFields&)> damage;
    ErrorCode code = ErrorCode::kCorrupt;
  };
  const std::vector<Case> cases = {
      {"a base too few", [](auto& f) { f.bases.pop_back(); }},
      {"no bases", [](auto& f) { f.bases.clear(); }},
      {"no codecs", [](auto& f) { f.codecs.clear(), f.stored_sizes.clear(); }},
      {"a base too many", [&](auto& f) { f.bases.push_back(base(9, 0, 3, 4096, 0)); }},
      {"a base of a chunk that is no delta", [&](auto& f) { f.bases[1] = base(9, 0, 1, 4096, 0); }},
      {"the same base twice", [](auto& f) { f.bases[1] = f.bases[0]; }},
      {"bases out of order", [](auto& f) { std::swap(f.bases[0], f.bases[1]); }},
      {"a base beyond the leaf", [&](auto& f) { f.bases[1] = base(9, 0, 0xFFFFFFFF, 4096, 0); }},
      {"a base in an impossible step",
       [&](auto& f) { f.bases[0] = base(std::uint64_t{1} << 63, 0, 0, 4096, 0); }},
      {"a base beyond the sources", [&](auto& f) { f.bases[0] = base(9, 2, 0, 4096, 0); }},
      {"a base that is a delta", [&](auto& f) { f.bases[0] = base(9, 0, 0, 4096, 3); }},
      {"a base in codec 4", [&](auto& f) { f.bases[0] = base(9, 0, 0, 4096, 4); },
       ErrorCode::kUnsupported},
      {"a raw base that is stored smaller", [&](auto& f) { f.bases[0] = base(9, 0, 0, 4095, 0); }},
      {"an encoded base that is stored larger",
       [&](auto& f) { f.bases[0] = base(9, 0, 0, 4097, 2); }},
      {"a delta that is stored larger", [](auto& f) { f.stored_sizes[0] = 4097; }},
  };
  for (const Case& each : cases) {
    LeafFields fields = with_deltas();
    each.damage(fields);
    const auto refused = fields.decode();
    ASSERT_FALSE(refused.has_value()) << each.what;
    EXPECT_EQ(refused.error().code, each.code) << each.what;
  }
}

TEST(HostileLeafRecord, WithInlineBytesIsRefused) {
  const auto small = [](LeafFields& f) {
    f.shape = {3};
    f.size_bytes = 12;
    f.hashes.resize(1);
    f.clear_places();
    f.inline_bytes.emplace(12);
  };
  LeafFields honest;
  small(honest);
  ASSERT_TRUE(honest.decode().has_value());
  expect_refused<LeafFields>({
      {"a byte too few", [&](auto& f) { small(f), f.inline_bytes->resize(11); }},
      {"a byte too many", [&](auto& f) { small(f), f.inline_bytes->resize(13); }},
      {"none of the bytes", [&](auto& f) { small(f), f.inline_bytes->clear(); }},
      {"codecs", [&](auto& f) { small(f), f.codecs = {0}; }},
      {"origins",
       [&](auto& f) {
         small(f), f.origins = {{9, 5, 0, 1, 0}};
       }},
      {"sources", [&](auto& f) { small(f), f.sources = LeafFields().sources; }},
      {"stored sizes", [&](auto& f) { small(f), f.stored_sizes = {12}; }},
      {"extents",
       [&](auto& f) {
         small(f), f.extents = {{0, 0, 0}};
       }},
      {"a base",
       [&](auto& f) {
         small(f);
         f.bases = {{{7, 8}, 900, 5, 0, 0, 12, 0}};
       }},
      {"more than may be inline",
       [&](auto& f) {
         small(f);
         f.shape = {16385};
         f.size_bytes = 65540;
         f.inline_bytes->resize(65540);
         f.chunk_size_bytes = 1 << 20;
       }},
  });
}

TEST(HostileLeafRecord, OfAScalarOfAnotherSizeIsRefused) {
  struct Scalar {
    LeafKind kind;
    std::uint64_t size_bytes;
  };
  for (const Scalar scalar : {Scalar{LeafKind::kNone, 0},
                              {LeafKind::kBool, 1},
                              {LeafKind::kInt64, 8},
                              {LeafKind::kFloat64, 8},
                              {LeafKind::kComplex128, 16}}) {
    SCOPED_TRACE(to_string(scalar.kind));
    for (const std::uint64_t size_bytes : {0U, 1U, 4U, 8U, 16U, 17U}) {
      LeafFields fields;
      fields.kind = static_cast<std::uint8_t>(scalar.kind);
      fields.dtype = 0;
      fields.shape.clear();
      fields.size_bytes = size_bytes;
      fields.hashes.resize(size_bytes == 0 ? 0 : 1);
      fields.clear_places();
      EXPECT_EQ(fields.decode().has_value(), size_bytes == scalar.size_bytes) << size_bytes;
    }
  }
}

TEST(HostileStepRecord, IsRefused) {
  const auto key_of = [](StepFields& f) { f.header.key = step_record_key(f.step); };
  expect_refused<StepFields>({
      {"no items", [](auto& f) { f.items.clear(); }},
      {"items out of order", [](auto& f) { std::swap(f.items[0], f.items[1]); }},
      {"an item twice", [](auto& f) { f.items[1] = f.items[0]; }},
      {"an item's name over the limit", [](auto& f) { f.items[1].name.assign(4097, 'b'); }},
      {"a handler's name over the limit", [](auto& f) { f.items[1].handler.assign(4097, 'b'); }},
      {"more items than there may be",
       [](auto& f) {
         f.items.clear();
         for (int i = 0; i <= 1024; ++i) f.items.push_back({std::to_string(10000 + i)});
       }},
      {"far more items than there may be",
       [](auto& f) {
         f.items.clear();
         for (int i = 0; i < 100000; ++i) f.items.push_back({std::to_string(100000 + i)});
       }},
      {"a step over the limit",
       [&](auto& f) {
         f.step = std::uint64_t{1} << 63;
         key_of(f);
       }},
      {"another step than its key's", [](auto& f) { f.step = kSave.step + 1; }},
      {"the copy of another save",
       [](auto& f) {
         f.header.key = step_copy_key({kSave.step, kSave.generation + 1});
       }},
      {"an unknown placement",
       [](auto& f) {
         f.segments.clear();
         f.placement = 2;
       },
       ErrorCode::kUnsupported},
      {"a small step with segments", [](auto& f) { f.placement = 1; }},
      {"more segments than there may be", [](auto& f) { f.segments.resize(4097); }},
      {"origin saves out of order",
       [](auto& f) { std::swap(f.origin_saves[0], f.origin_saves[1]); }},
      {"an origin save twice", [](auto& f) { f.origin_saves[1] = f.origin_saves[0]; }},
      {"its own save as an origin",
       [](auto& f) {
         f.origin_saves = {{kSave.step, kSave.generation}};
       }},
      {"an origin save of an impossible step",
       [](auto& f) {
         f.origin_saves = {{std::uint64_t{1} << 63, 1}};
       }},
      {"more origin saves than there may be",
       [](auto& f) {
         f.origin_saves.clear();
         for (std::uint32_t i = 0; i <= limits::kOriginSavesPerStepMax; ++i) {
           f.origin_saves.emplace_back(1, i);
         }
       }},
      {"a segment of more data than bytes",
       [](auto& f) {
         f.segments = {{100, 101, {1, 2}}};
       }},
  });
}

TEST(HostileItemRecord, IsRefused) {
  expect_refused<ItemFields>({
      {"a leaf too few", [](auto& f) { f.leaf_count = 1; }},
      {"a leaf too many", [](auto& f) { f.leaf_count = 3; }},
      {"2^64 - 1 leaves", [](auto& f) { f.leaf_count = ~std::uint64_t{0}; }},
      {"a handler's name over the limit", [](auto& f) { f.handler.assign(4097, 'h'); }},
      {"no nodes", [](auto& f) { f.kinds.clear(); }},
      {"a node missing", [](auto& f) { f.kinds.pop_back(); }},
      {"a node left over", [](auto& f) { f.kinds.push_back(1); }},
      {"an unknown kind of node", [](auto& f) { f.kinds[2] = 7; }},
      {"kind 0", [](auto& f) { f.kinds[2] = 0; }},
      {"no counts", [](auto& f) { f.child_counts.clear(); }},
      {"a count left over", [](auto& f) { f.child_counts.push_back(0); }},
      {"a count of 2^32 - 1", [](auto& f) { f.child_counts[0] = 0xFFFFFFFF; }},
      {"no type names", [](auto& f) { f.type_names.clear(); }},
      {"a type index beyond the names", [](auto& f) { f.type_indices[0] = 1; }},
      {"a type index left over", [](auto& f) { f.type_indices.push_back(0); }},
      {"a type name left over", [](auto& f) { f.type_names.emplace_back("B"); }},
      {"more type names than nodes", [](auto& f) { f.type_names.resize(100000); }},
      {"a type's name over the limit", [](auto& f) { f.type_names[0].assign(4097, 't'); }},
      {"the same label twice",
       [](auto& f) { f.labels = std::string("\x04x\0\x01\x04x\0\x01", 8); }},
      {"a label cut off", [](auto& f) { f.labels.pop_back(); }},
      {"a label left over", [](auto& f) { f.labels += std::string("\x04z\0\x01", 4); }},
      {"a label of an unknown kind", [](auto& f) { f.labels[0] = 5; }},
      {"a tree deeper than it may be",
       [](auto& f) {
         f.kinds.assign(129, 3);
         f.kinds.push_back(1);
         f.child_counts.assign(129, 1);
         f.type_names.clear();
         f.type_indices.clear();
         f.labels.clear();
         f.leaf_count = 1;
       }},
  });
}

TEST(HostileStoreRecord, IsRefused) {
  expect_refused<StoreFields>({
      {"a step over the limit", [](auto& f) { f.newest_step = std::uint64_t{1} << 63; }},
  });
  for (std::string StoreFields::*text :
       {&StoreFields::custom_metadata, &StoreFields::preservation_policy}) {
    StoreFields fields;
    (fields.*text).assign(limits::kStoreMetadataSizeBytesMax, ' ');
    EXPECT_TRUE(fields.decode());
    (fields.*text) += ' ';
    const auto decoded = fields.decode();
    ASSERT_FALSE(decoded);
    EXPECT_EQ(decoded.error().code, ErrorCode::kLimit);
  }
}

// A mebibyte of offsets that all lead to one long name: copied for each, that would be gigabytes.
TEST(HostileRecords, SharedNamesDoNotMultiplyMemory) {
  FlatBufferBuilder builder;
  const std::string key = item_key(kSave, "state");
  const auto header = HeaderFields{.key = key}.build(builder);
  constexpr std::size_t kCount = 1 << 18;
  const auto handler = builder.CreateString("standard");
  const auto name = builder.CreateString(std::string(limits::kNameSizeBytesMax, 'n'));
  const auto names = builder.CreateVector(std::vector<Offset<flatbuffers::String>>(kCount, name));
  std::vector<std::uint8_t> kinds(kCount, static_cast<std::uint8_t>(NodeKind::kCustom));
  const auto kind_vector = builder.CreateVector(kinds);
  const auto tree = schema::CreateTreeStructure(builder, kind_vector, 0, names);
  builder.Finish(schema::CreateItemRecord(builder, header, handler, 0, 0, tree),
                 schema::ItemRecordIdentifier());
  const std::string bytes = sealed(builder);

  const std::uint64_t before = test::allocated_bytes();
  const auto decoded = decode_item_record(bytes, key);
  ASSERT_FALSE(decoded.has_value());
  EXPECT_EQ(decoded.error().code, ErrorCode::kCorrupt);
  EXPECT_LT(test::allocated_bytes() - before, 8 * bytes.size());
}

TEST(HostileRecords, SharedItemsDoNotMultiplyMemory) {
  FlatBufferBuilder builder;
  const std::string key = step_record_key(kSave.step);
  const auto header = HeaderFields{.key = key}.build(builder);
  const auto name = builder.CreateVector(std::vector<std::uint8_t>(1 << 22, 'n'));
  const auto handler = builder.CreateString("standard");
  const auto item = schema::CreateItemSummary(builder, name, handler);
  const auto items = builder.CreateVector(std::vector<Offset<schema::ItemSummary>>(1000, item));
  schema::StepRecordBuilder table(builder);
  table.add_header(header);
  table.add_step(kSave.step);
  table.add_generation(kSave.generation);
  table.add_items(items);
  builder.Finish(table.Finish(), schema::StepRecordIdentifier());
  const std::string bytes = sealed(builder);

  const std::uint64_t before = test::allocated_bytes();
  const auto decoded = decode_step_record(bytes, key);
  ASSERT_FALSE(decoded.has_value());
  EXPECT_EQ(decoded.error().code, ErrorCode::kCorrupt);
  EXPECT_LT(test::allocated_bytes() - before, 4 * bytes.size());
}

// The length of a vector is changed to what a small record cannot hold.
TEST(HostileRecords, LengthsBeyondTheBufferAreRefusedWithoutAnAllocation) {
  LeafFields fields;
  fields.hashes.assign(3, {0x1111111111111111, 0x1111111111111111});
  std::string buffer = fields.build();
  buffer.resize(buffer.size() - sizeof(Hash128));
  const std::size_t at = buffer.find(std::string(16, '\x11')) - 4;
  ASSERT_EQ(buffer[at], 3);
  for (const char* const length : {"ffffffff", "ffffff7f", "00000010", "04000000", "ffff0000"}) {
    buffer.replace(at, 4, test::from_hex(length));
    const std::uint64_t before = test::allocated_bytes();
    const auto decoded = decode_leaf_record(test::seal(buffer), fields.header.key);
    ASSERT_FALSE(decoded.has_value()) << length;
    EXPECT_EQ(decoded.error().code, ErrorCode::kCorrupt);
    EXPECT_LT(test::allocated_bytes() - before, 64U << 10) << length;
  }
}

// Flatbuffers' verifier lets a vector of 64-bit numbers stand at four bytes beside its alignment.
TEST(HostileRecords, MisalignedVectorsAreRefused) {
  int misaligned = 0;
  for (std::size_t padding = 1; padding <= 4; ++padding) {
    FlatBufferBuilder builder;
    const std::string key = leaf_key(kSave, "state", std::string("\x03w\0\x01\0", 5));
    const auto header = HeaderFields{.key = key}.build(builder);
    builder.CreateVector(std::vector<std::uint32_t>(padding));
    // Six halves of three hashes' worth; the length is then set to that of the hashes.
    std::vector<std::uint32_t> halves(12, 0x22222222);
    const auto hashes = builder.CreateVector(halves);
    const std::vector<std::uint64_t> shape = {3, 1024};
    const auto shape_vector = builder.CreateVector(shape);
    schema::LeafRecordBuilder table(builder);
    table.add_header(header);
    table.add_kind(1);
    table.add_dtype(static_cast<std::uint8_t>(DType::kFloat32));
    table.add_shape(shape_vector);
    table.add_size_bytes(12288);
    table.add_chunk_size_bytes(4096);
    table.add_hashes(Offset<flatbuffers::Vector<const schema::Hash*>>(hashes.o));
    builder.Finish(table.Finish(), schema::LeafRecordIdentifier());
    std::string buffer(reinterpret_cast<const char*>(builder.GetBufferPointer()),
                       builder.GetSize());
    const std::size_t data = buffer.find(std::string(48, '\x22'));
    ASSERT_NE(data, std::string::npos);
    buffer[data - 4] = 3;
    const auto decoded = decode_leaf_record(test::seal(buffer), key);
    if (data % 8 == 0) {
      EXPECT_TRUE(decoded.has_value()) << decoded.error().message;
      continue;
    }
    ++misaligned;
    ASSERT_FALSE(decoded.has_value());
    EXPECT_EQ(decoded.error().code, ErrorCode::kCorrupt);
  }
  EXPECT_GT(misaligned, 0);
}

TEST(HostileRecords, WithoutAHeaderAreRefused) {
  FlatBufferBuilder builder;
  const auto start = builder.StartTable();
  builder.AddElement<std::uint8_t>(schema::LeafRecord::VT_KIND, 1, 0);
  const Offset<schema::LeafRecord> root(builder.EndTable(start));
  builder.Finish(root, schema::LeafRecordIdentifier());
  const auto decoded = decode_leaf_record(sealed(builder), "k");
  ASSERT_FALSE(decoded.has_value());
  EXPECT_EQ(decoded.error().code, ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace stepstone
