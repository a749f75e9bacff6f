#pragma once
// One fixed value of each thing that is stored, for the golden files and the specification's
// examples.

#include <bit>
#include <string>

#include "format/head.h"
#include "format/leaf_path.h"
#include "format/records.h"
#include "support.h"

namespace stepstone::test {

inline constexpr SaveId kSampleSave = {.step = 1000, .generation = 7};

inline Hash128 sample_hash(std::string_view what) { return hash128(as_bytes(what)); }

inline std::string sample_leaf_key() {
  return leaf_key(kSampleSave, "state", encode_path({PathComponent::key("w")}).value());
}

inline StoreRecord sample_store_record() {
  return {.store_id = sample_hash("store"),
          .created_unix_ns = 1700000000000000000,
          .sequence = 6,
          .step_count = 2,
          .steps_digest = sample_hash("a") + sample_hash("b"),
          .newest_step = 1000,
          .newest_step_hash = sample_hash("b"),
          .next_generation = 8};
}

inline StepRecord sample_step_record() {
  StepRecord record;
  record.save = kSampleSave;
  record.sequence = 6;
  record.previous_hash = sample_hash("a");
  record.started_unix_ns = 1700000000000000000;
  record.committed_unix_ns = 1700000000250000000;
  record.size_bytes = 12300;
  record.segments = {{20480, 16384, sample_hash("tail 0")}, {4096, 1024, sample_hash("tail 1")}};
  record.items = {{"metadata", "json", 1, 12}, {"state", "standard", 1, 12288}};
  record.metrics = "{\"loss\":0.25}";
  record.custom_metadata = "{\"run\":\"sample\"}";
  return record;
}

inline StepRecord sample_shared_step_record() {
  StepRecord record = sample_step_record();
  record.origin_saves = {{800, 4}, {900, 5}};
  return record;
}

// The specification's example: {'w': leaf, 7: [leaf, ()], 'p': Point(x=leaf)}.
inline ItemRecord sample_item_record() {
  ItemRecord record;
  record.handler = "standard";
  record.leaf_count = 3;
  record.size_bytes = 12288;
  record.structure.kinds = {NodeKind::kDict, NodeKind::kLeaf,  NodeKind::kList,
                            NodeKind::kLeaf, NodeKind::kTuple, NodeKind::kNamedTuple,
                            NodeKind::kLeaf};
  record.structure.child_counts = {3, 2, 0, 1};
  record.structure.type_names = {"Point"};
  record.structure.type_indices = {0};
  append_component(record.structure.labels, PathComponent::key("w"));
  append_component(record.structure.labels, PathComponent::key(std::int64_t{7}));
  append_component(record.structure.labels, PathComponent::key("p"));
  append_component(record.structure.labels, PathComponent::attribute("x"));
  record.custom_metadata = "{}";
  return record;
}

// float32 (3,), stored in the record itself.
inline LeafRecord sample_inline_leaf_record() {
  LeafRecord record;
  record.dtype = DType::kFloat32;
  record.shape = {3};
  record.size_bytes = 12;
  record.chunk_size_bytes = 262144;
  const std::string bytes = from_hex("0000803f 00000040 00004040");  // 1, 2, 3.
  record.hashes = {sample_hash(bytes)};
  const auto view = as_bytes(bytes);
  record.inline_bytes.emplace(view.begin(), view.end());
  return record;
}

// float32 (3, 1024) in three chunks, of which two stand in earlier saves.
inline LeafRecord sample_chunked_leaf_record() {
  LeafRecord record;
  record.dtype = DType::kFloat32;
  record.shape = {3, 1024};
  record.size_bytes = 12288;
  record.chunk_size_bytes = 4096;
  record.hashes = {sample_hash("chunk 0"), sample_hash("chunk 1"), sample_hash("chunk 2")};
  record.codecs.assign(3, Codec::kRaw);
  record.origins = {{0, 1, {900, 5}}, {2, 1, {800, 4}}};
  return record;
}

// float32 (3, 1024) in three chunks, which an earlier save stored, the last one under another path.
inline LeafRecord sample_shared_leaf_record() {
  LeafRecord record = sample_chunked_leaf_record();
  record.codecs.clear();
  record.origins = {{0, 2, {900, 5}, 0}, {2, 1, {800, 4}, 1}};
  record.sources = {{"ema", encode_path({PathComponent::key("w")}).value()}};
  record.stored_sizes = {4096, 4096, 4096};
  record.extents = {{0, 1, 0}, {2, 2, 20480}};
  return record;
}

// The same, each chunk brought to a multiple of 64 in its file.
inline LeafRecord sample_aligned_leaf_record() {
  LeafRecord record = sample_shared_leaf_record();
  record.alignment_bytes = 64;
  return record;
}

// float32 (3, 1024) in three chunks, of which two are deltas of chunks in earlier saves.
inline LeafRecord sample_delta_leaf_record() {
  LeafRecord record = sample_shared_leaf_record();
  record.codecs = {Codec::kDelta, Codec::kRaw, Codec::kDelta};
  record.origins = {{2, 1, {900, 5}, 0}};
  record.stored_sizes = {700, 4096, 650};
  record.extents.clear();
  record.bases = {{.chunk = 0,
                   .save = {900, 5},
                   .source = 0,
                   .codec = Codec::kRaw,
                   .stored_size = 4096,
                   .hash = sample_hash("base 0")},
                  {.chunk = 2,
                   .save = {800, 4},
                   .source = 1,
                   .codec = Codec::kPlanes,
                   .stored_size = 3000,
                   .hash = sample_hash("base 2")}};
  return record;
}

// 300 positive float32 of five exponents and 16 bits of mantissa, and three bytes more: as planes,
// one that is constant, two that are stored as they are, and one for zstd.
inline std::string sample_float_chunk() {
  std::string bytes;
  std::uint32_t state = 1;
  for (int i = 0; i < 300; ++i) {
    state = state * 1664525 + 1013904223;
    const std::uint32_t exponent =
        119 + static_cast<std::uint32_t>(std::countr_zero(state >> 4 | 16));
    const std::uint32_t bits = exponent << 23 | (state >> 16) << 7;
    for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(bits >> shift);
  }
  return bytes + "\x01\x02\x03";
}

// The same with every seventh number a little larger.
inline std::string sample_moved_chunk() {
  std::string bytes = sample_float_chunk();
  for (std::size_t i = 0; i + 4 < bytes.size(); i += 28) bytes[i] ^= 1;
  return bytes;
}

inline std::string sample_constant_chunk() {
  std::string bytes;
  while (bytes.size() < 4096) bytes += from_hex("0000803f");
  return bytes;
}

inline Head sample_head() {
  const StoreRecord store = sample_store_record();
  return {.store_id = store.store_id,
          .sequence = store.sequence,
          .step_count = store.step_count,
          .steps_digest = store.steps_digest,
          .newest_step = store.newest_step,
          .newest_step_hash = store.newest_step_hash};
}

// Flatbuffers promises that a buffer is read alike by every release, not that it is built alike.
inline constexpr const char* kOtherFlatbuffers =
    "this release of flatbuffers is not 2.0, which built the recorded bytes";

}  // namespace stepstone::test
