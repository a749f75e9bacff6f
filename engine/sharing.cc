#include "engine/sharing.h"

#include <algorithm>
#include <map>

#include "engine/parallel.h"
#include "engine/step_reader.h"
#include "format/assert.h"
#include "format/limits.h"

namespace stepstone {
namespace {

// A step that refers to so many saves is written anew, so that the list never reaches its limit.
constexpr std::size_t kOriginSavesMax = limits::kOriginSavesPerStepMax / 2;
constexpr std::size_t kSourcesMax = limits::kSourcesPerLeafMax / 2;
// What is compared of two leaves of one size before all their bytes are.
constexpr std::size_t kSampleSizeBytes = 256;

}  // namespace

class SharingBase::Impl {
 public:
  Impl(std::shared_ptr<StoreImpl> store, SaveRegistry::Leased leased)
      : reader_(std::move(store), std::move(leased)) {}

  const StepReaderImpl& reader() const { return reader_; }

  void find(std::span<PlannedLeaf> leaves) const {
    if (leaves.empty()) return;
    const std::string& item = *leaves.front().item;
    const std::vector<ItemSummary>& items = reader_.record().items;
    const auto summary = std::find_if(items.begin(), items.end(),
                                      [&](const ItemSummary& s) { return s.name == item; });
    if (summary == items.end()) return;
    const auto wanted = static_cast<std::uint64_t>(
        std::count_if(leaves.begin(), leaves.end(),
                      [](const PlannedLeaf& leaf) { return leaf.planned_chunk_count() != 0; }));
    // One scan reads all records of the item; a look-up reads one, and takes as long as ten of a
    // scan.
    if (wanted > summary->leaf_count / 10) {
      Result<std::vector<StoredLeaf>> stored = reader_.read_leaves(item);
      if (stored) return match(leaves, *stored);
    }
    for (PlannedLeaf& leaf : leaves) {
      if (leaf.planned_chunk_count() == 0) continue;
      Result<StoredLeaf> stored = reader_.read_leaf(item, leaf.encoded_path);
      if (stored) set_base(leaf, std::move(stored->record));
    }
  }

 private:
  void match(std::span<PlannedLeaf> leaves, std::vector<StoredLeaf>& stored) const {
    auto next = stored.begin();
    for (PlannedLeaf& leaf : leaves) {
      while (next != stored.end() && next->encoded_path < leaf.encoded_path) ++next;
      if (next == stored.end()) return;
      if (next->encoded_path == leaf.encoded_path && leaf.planned_chunk_count() != 0) {
        set_base(leaf, std::move(next->record));
      }
    }
  }

  void set_base(PlannedLeaf& leaf, LeafRecord record) const {
    if (!leaf.is_shareable || record.inline_bytes ||
        record.chunk_size_bytes != leaf.record.chunk_size_bytes ||
        record.sources.size() > kSourcesMax) {
      return;
    }
    std::vector<ChunkPlace> places = places_of(record, reader_.record().save, *leaf.item,
                                               leaf.encoded_path, 0, record.chunk_count());
    // Places name sources by number.
    leaf.record.sources = record.sources;
    leaf.base = std::make_unique<BaseLeaf>(BaseLeaf{std::move(record), std::move(places)});
  }

  StepReaderImpl reader_;
};

SharingBase::SharingBase(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

SharingBase::~SharingBase() = default;

std::unique_ptr<SharingBase> SharingBase::open(std::shared_ptr<StoreImpl> store, std::uint64_t step,
                                               bool only_earlier) {
  const std::vector<std::uint64_t> steps = store->registry().steps();
  const auto next = std::lower_bound(steps.begin(), steps.end(), step);
  if (steps.empty() || (only_earlier && next == steps.begin())) return nullptr;
  std::optional<SaveRegistry::Leased> leased =
      store->registry().lease(next == steps.begin() ? steps.back() : *std::prev(next));
  if (!leased || leased->record.placement != Placement::kSegments ||
      leased->record.origin_saves.size() > kOriginSavesMax) {
    return nullptr;
  }
  return std::unique_ptr<SharingBase>(
      new SharingBase(std::make_unique<Impl>(std::move(store), *std::move(leased))));
}

SaveId SharingBase::save() const { return impl_->reader().record().save; }

bool SharingBase::is_mostly_shared() const {
  const StepRecord& record = impl_->reader().record();
  std::uint64_t stored_bytes = 0;
  for (const SegmentInfo& segment : record.segments) stored_bytes += segment.size_bytes;
  return stored_bytes < record.size_bytes / 2;
}

void SharingBase::find(std::span<PlannedLeaf> leaves) const { impl_->find(leaves); }

Result<void> SharingBase::read_base(const PlannedLeaf& leaf, const ChunkBase& base,
                                    std::span<std::byte> destination) const {
  return impl_->reader().read_base(*leaf.item, leaf.encoded_path, leaf.record, base, destination);
}

namespace {

// Of the beginning, middle and end; of the hashes where they are known.
Result<Hash128> sample_hash(const PlannedLeaf& leaf) {
  if (leaf.is_hashed) return hash128(std::as_bytes(std::span(leaf.record.hashes)));
  const std::uint64_t size_bytes = leaf.record.size_bytes;
  std::vector<std::byte> sample;
  std::vector<std::byte> scratch(kSampleSizeBytes);
  for (const std::uint64_t wanted :
       {std::uint64_t{0}, size_bytes / 2,
        size_bytes - std::min<std::uint64_t>(size_bytes, kSampleSizeBytes)}) {
    const auto size =
        static_cast<std::size_t>(std::min<std::uint64_t>(kSampleSizeBytes, size_bytes - wanted));
    const auto bytes = STEPSTONE_TRY(leaf.source->read(wanted, size, scratch));
    sample.insert(sample.end(), bytes.begin(), bytes.end());
  }
  return hash128(sample);
}

Result<void> hash_chunk(PlannedLeaf& leaf, std::uint32_t chunk) {
  std::vector<std::byte> scratch(leaf.record.chunk_size_bytes);
  const auto bytes =
      STEPSTONE_TRY(leaf.source->read(std::uint64_t{chunk} * leaf.record.chunk_size_bytes,
                                      leaf.record.chunk_size_at(chunk), scratch));
  leaf.record.hashes[chunk] = hash128(bytes);
  return {};
}

struct Sample {
  std::uint64_t size_bytes;
  std::uint32_t chunk_size_bytes;
  Hash128 hash;

  auto operator<=>(const Sample&) const = default;
};

}  // namespace

Result<void> find_equal_leaves(std::uint64_t step, std::span<PlannedLeaf> leaves,
                               unsigned thread_count) {
  std::map<std::uint64_t, std::size_t> count_of_size;
  const auto is_candidate = [](const PlannedLeaf& leaf) {
    return leaf.is_shareable && leaf.planned_chunk_count() != 0;
  };
  for (const PlannedLeaf& leaf : leaves) {
    if (is_candidate(leaf)) ++count_of_size[leaf.record.size_bytes];
  }
  std::map<Sample, std::vector<PlannedLeaf*>> alike;
  for (PlannedLeaf& leaf : leaves) {
    if (!is_candidate(leaf) || count_of_size[leaf.record.size_bytes] == 1) continue;
    const Sample sample{
        leaf.record.size_bytes, leaf.record.chunk_size_bytes,
        STEPSTONE_TRY_CONTEXT(sample_hash(leaf), leaf_name(step, *leaf.item, leaf.encoded_path))};
    alike[sample].push_back(&leaf);
  }
  std::vector<std::pair<PlannedLeaf*, std::uint32_t>> chunks;
  for (const auto& entry : alike) {
    if (entry.second.size() == 1) continue;
    for (PlannedLeaf* const leaf : entry.second) {
      if (leaf->is_hashed) continue;
      leaf->is_hashed = true;
      for (std::uint32_t c = 0; c < leaf->record.chunk_count(); ++c) chunks.emplace_back(leaf, c);
    }
  }
  STEPSTONE_TRY(parallel_for(thread_count, chunks.size(), [&](std::size_t i) -> Result<void> {
    PlannedLeaf& leaf = *chunks[i].first;
    STEPSTONE_TRY_CONTEXT(hash_chunk(leaf, chunks[i].second),
                          leaf_name(step, *leaf.item, leaf.encoded_path));
    return {};
  }));
  for (auto& entry : alike) {
    std::vector<PlannedLeaf*>& group = entry.second;
    for (std::size_t i = 1; i < group.size(); ++i) {
      const auto same = std::find_if(group.begin(), group.begin() + static_cast<std::ptrdiff_t>(i),
                                     [&](const PlannedLeaf* other) {
                                       return other->equal == nullptr &&
                                              other->record.hashes == group[i]->record.hashes;
                                     });
      if (same != group.begin() + static_cast<std::ptrdiff_t>(i)) group[i]->equal = *same;
    }
  }
  return {};
}

void refer_to_equal_leaf(PlannedLeaf& leaf, SaveId save) {
  const PlannedLeaf& other = *leaf.equal;
  STEPSTONE_ASSERT(other.equal == nullptr && other.places.size() == leaf.record.chunk_count());
  leaf.record.codecs = other.record.codecs;
  leaf.record.stored_sizes = other.record.stored_sizes;
  leaf.places = other.places;
  leaf.bases = other.bases;
  // The sources of the other leaf, and behind them the other leaf itself; each of them may be this
  // leaf's own place in an earlier save.
  leaf.record.sources = other.record.sources;
  leaf.record.sources.push_back({*other.item, other.encoded_path});
  const auto others_place = static_cast<std::uint32_t>(leaf.record.sources.size());
  const auto translate = [&](SaveId holder, std::uint32_t& number) {
    if (number == 0) number = others_place;
    const ChunkSource& source = leaf.record.sources[number - 1];
    if (holder != save && source.item == *leaf.item && source.encoded_path == leaf.encoded_path) {
      number = 0;
    }
  };
  for (ChunkPlace& place : leaf.places) translate(place.save, place.source);
  for (ChunkBase& base : leaf.bases) translate(base.save, base.source);
}

}  // namespace stepstone
