#include "engine/replacement.h"

#include <algorithm>

#include "format/assert.h"

namespace stepstone {
namespace {

constexpr std::size_t kSampledChunks = 32;

// Less is not worth a commit: at least a 64th has to go.
bool is_worth_it(std::uint64_t before, std::uint64_t after) { return after < before - before / 64; }

bool is_same_place(const ChunkPlace& a, const std::vector<ChunkSource>& a_sources,
                   const ChunkPlace& b, const std::vector<ChunkSource>& b_sources) {
  if (a.save != b.save || (a.source == 0) != (b.source == 0)) return false;
  return a.source == 0 || a_sources[a.source - 1] == b_sources[b.source - 1];
}

// Where the step before has the base of a delta; else where it was, its source renumbered.
ChunkBase moved_base(const ChunkBase& base, const PlannedLeaf& leaf, std::uint32_t shift) {
  const auto moved =
      leaf.base == nullptr ? std::nullopt : leaf.base->delta_base(leaf.record, base.chunk);
  if (moved && moved->hash == base.hash) return *moved;
  ChunkBase stays = base;
  if (stays.source != 0) stays.source += shift;
  return stays;
}

}  // namespace

Replacement::Replacement(const StepReaderImpl& replaced, std::vector<StoredLeaf> leaves,
                         Settings settings)
    : replaced_(replaced), leaves_(std::move(leaves)), settings_(std::move(settings)) {}

void Replacement::adopt_hashes(std::span<PlannedLeaf> leaves) const {
  STEPSTONE_ASSERT(leaves.size() == leaves_.size());
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    STEPSTONE_ASSERT(leaves[i].record.hashes.size() == leaves_[i].record.hashes.size());
    leaves[i].record.hashes = leaves_[i].record.hashes;
    leaves[i].is_hashed = true;
  }
}

// What is encoded in a save that others refer to anyway is no concern of this one. A delta would
// only grow.
bool Replacement::stays(const PlannedLeaf& leaf, const StoredLeaf& stored, std::uint32_t chunk,
                        const ChunkPlace& place) const {
  const Codec codec = stored.record.codec_at(chunk);
  if (codec == Codec::kDelta || (place.save != replaced().save && codec != Codec::kRaw))
    return true;
  const auto held = settings_.held.find(place.save);
  return held != settings_.held.end() &&
         held->second.contains(replaced_.key_of_chunk(*leaf.item, stored, chunk));
}

// Leaves that were tied and parted have chunks in one place still, which would be stored twice if
// each of them were to store its own anew.
void Replacement::hold_places_of_others(std::span<const PlannedLeaf> leaves) {
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    if (leaves[i].planned_chunk_count() == 0) continue;
    for (const ChunkOrigin& origin : leaves_[i].record.origins) {
      if (origin.source == 0) continue;
      for (std::uint32_t chunk = origin.first_chunk;
           chunk - origin.first_chunk < origin.chunk_count; ++chunk) {
        settings_.held[origin.save].add(replaced_.key_of_chunk(*leaves[i].item, leaves_[i], chunk),
                                        1);
      }
    }
  }
}

Result<bool> Replacement::plan(std::span<PlannedLeaf> leaves) {
  hold_places_of_others(leaves);
  std::vector<RawChunk> to_encode;
  bool can_move = false;  // To what the step before has in fewer bytes.
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    PlannedLeaf& leaf = leaves[i];
    if (leaf.planned_chunk_count() == 0) continue;
    const StoredLeaf& stored = leaves_[i];
    const std::vector<ChunkPlace> places =
        places_of(stored.record, replaced().save, *leaf.item, leaf.encoded_path, 0,
                  stored.record.chunk_count());
    // What may be referred to, put together from both: first the sources of the step before, then
    // those of the old record.
    auto offer = std::make_unique<BaseLeaf>(BaseLeaf{stored.record, places, {}});
    const auto shift = static_cast<std::uint32_t>(leaf.record.sources.size());
    leaf.record.sources.insert(leaf.record.sources.end(), stored.record.sources.begin(),
                               stored.record.sources.end());
    offer->is_offered.assign(places.size(), false);
    offer->record.codecs.clear();
    offer->record.stored_sizes.clear();
    offer->record.bases.clear();
    for (std::uint32_t chunk = 0; chunk < places.size(); ++chunk) {
      Codec codec = stored.record.codec_at(chunk);
      std::size_t stored_size = stored.record.stored_size_at(chunk);
      const bool is_in_base = leaf.base != nullptr && leaf.base->has(leaf.record, chunk);
      if (is_in_base) {
        can_move = can_move || leaf.base->record.stored_size_at(chunk) < stored_size;
        codec = leaf.base->record.codec_at(chunk);
        stored_size = leaf.base->record.stored_size_at(chunk);
        offer->places[chunk] = leaf.base->places[chunk];
        offer->is_offered[chunk] = true;
        if (const ChunkBase* const base = leaf.base->record.base_of(chunk)) {
          offer->record.bases.push_back(*base);
        }
      } else if (stays(leaf, stored, chunk, places[chunk])) {
        if (places[chunk].source != 0) offer->places[chunk].source += shift;
        offer->is_offered[chunk] = true;
        if (const ChunkBase* const base = stored.record.base_of(chunk)) {
          offer->record.bases.push_back(moved_base(*base, leaf, shift));
          can_move = can_move || offer->record.bases.back().stored_size < base->stored_size;
        }
      } else if (codec == Codec::kRaw) {
        to_encode.push_back({&leaf, chunk});
      }
      offer->record.codecs.push_back(codec);
      offer->record.stored_sizes.push_back(static_cast<std::uint32_t>(stored_size));
    }
    leaf.base = std::move(offer);
  }
  if (can_move) return true;
  if (to_encode.empty()) return false;
  return settings_.samples_first ? sample_becomes_smaller(to_encode) : true;
}

Result<bool> Replacement::sample_becomes_smaller(std::span<const RawChunk> chunks) {
  const std::size_t sampled_count = std::min(chunks.size(), kSampledChunks);
  ChunkEncoder encoder;
  std::vector<std::byte> scratch;
  std::uint64_t before = 0;
  std::uint64_t after = 0;
  for (std::size_t i = 0; i < sampled_count; ++i) {
    const auto [leaf, chunk] = chunks[(2 * i + 1) * chunks.size() / (2 * sampled_count)];
    scratch.resize(leaf->record.chunk_size_bytes);
    const auto bytes =
        STEPSTONE_TRY(leaf->source->read(std::uint64_t{chunk} * leaf->record.chunk_size_bytes,
                                         leaf->record.chunk_size_at(chunk), scratch));
    before += bytes.size();
    after += encoder.encode(bytes, leaf->layout()).bytes.size();
  }
  return is_worth_it(before, after);
}

bool Replacement::is_smaller(std::span<const PlannedLeaf> leaves, SaveId save) {
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const PlannedLeaf& leaf = leaves[i];
    if (leaf.planned_chunk_count() == 0) continue;
    const LeafRecord& old = leaves_[i].record;
    const std::vector<ChunkPlace> old_places = places_of(
        old, replaced().save, *leaf.item, leaf.encoded_path, 0, leaf.record.chunk_count());
    const std::vector<ChunkPlace> new_places =
        places_of(leaf.record, save, *leaf.item, leaf.encoded_path, 0, leaf.record.chunk_count());
    for (const ChunkBase& base : leaf.record.bases) {
      const ChunkBase* const old_base = old.base_of(base.chunk);
      if (old_base == nullptr || old_base->stored_size == base.stored_size) continue;
      bytes_before_ += old_base->stored_size;
      bytes_after_ += base.stored_size;
    }
    for (std::uint32_t chunk = 0; chunk < leaf.record.chunk_count(); ++chunk) {
      if (is_same_place(old_places[chunk], old.sources, new_places[chunk], leaf.record.sources)) {
        continue;
      }
      bytes_before_ += old.stored_size_at(chunk);
      bytes_after_ += leaf.record.stored_size_at(chunk);
    }
  }
  return is_worth_it(bytes_before_, bytes_after_);
}

}  // namespace stepstone
