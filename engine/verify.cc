// Verification: reads every byte that belongs to a step. What RocksDB's blocks hold is read through
// the leaf records and their hashes; what stands in a segment behind the blocks (index, properties,
// footer) is compared with the hash in the step record, because RocksDB does not checksum all of
// it. Damage is named by the leaves that it makes unreadable.
#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <tuple>
#include <unordered_set>

#include "engine/parallel.h"
#include "engine/progress.h"
#include "engine/segment_writer.h"
#include "engine/step_reader.h"
#include "format/leaf_path.h"

namespace stepstone {
namespace {

struct LeafPlace {
  std::string item;
  std::string encoded_path;
};

// The chunks that were found whole, so that one which many steps share is read once. Safe from
// several threads.
class VerifiedChunks {
 public:
  // `keys` are all that it takes to read the chunk.
  static Hash128 name(const std::string& keys, const Hash128& hash) {
    const std::string name = keys + to_string(hash);
    return hash128(std::as_bytes(std::span(name)));
  }

  bool contains(const Hash128& name) const {
    const std::scoped_lock lock(mutex_);
    return names_.contains(name);
  }
  void add(const Hash128& name) {
    const std::scoped_lock lock(mutex_);
    names_.insert(name);
  }

 private:
  struct HashOfHash {
    std::size_t operator()(const Hash128& hash) const { return hash.low; }
  };

  mutable std::mutex mutex_;
  std::unordered_set<Hash128, HashOfHash> names_;
};

// Verifies one step and adds what it finds to a report.
class StepVerifier {
 public:
  StepVerifier(const StepReaderImpl& reader, VerifiedChunks& verified, Progress& progress,
               VerifyReport& report)
      : reader_(reader),
        verified_(verified),
        progress_(progress),
        report_(report),
        step_(reader.record().save.step) {}

  enum class Outcome {
    kVerified,
    // Meanwhile the process that writes to the store has retired the step...
    kGone,
    // ...or saved it anew, or rewritten files with chunks that it shares with others.
    kMoved,
  };

  Outcome run() {
    check_segments();
    check_copy();
    std::vector<LeafPlace> places;
    for (const ItemSummary& item : reader_.record().items) collect_leaves(item.name, places);
    // One leaf after another per thread; errors become damage, so that nothing stops the rest.
    const Result<void> result =
        parallel_for(reader_.store().thread_count(), places.size(), [&](std::size_t i) {
          check_leaf(places[i]);
          return Result<void>();
        });
    if (!result) add({.step = step_, .item = {}, .leaf = {}, .message = result.error().message});
    if (!damages_.empty() && reader_.store().was_changed_by_writer()) {
      if (const std::optional<Outcome> outcome = what_the_writer_did()) return *outcome;
    }
    report_.damages.insert(report_.damages.end(), damages_.begin(), damages_.end());
    report_.leaf_count += places.size();
    report_.size_bytes += reader_.record().size_bytes;
    ++report_.step_count;
    return Outcome::kVerified;
  }

 private:
  void add(Damage damage) {
    const std::scoped_lock lock(mutex_);
    damages_.push_back(std::move(damage));
  }

  // nullopt: nothing that would explain the damage.
  std::optional<Outcome> what_the_writer_did() const {
    const auto newer = Store::open(reader_.store().directory(), reader_.store().options());
    if (newer) {
      const Result<StepRecord> record = (*newer)->step_record(step_);
      if (!record) return Outcome::kGone;
      if (record->save != reader_.record().save) return Outcome::kMoved;
    }
    if (!reader_.record().origin_saves.empty()) return Outcome::kMoved;
    return std::nullopt;
  }

  // The leaf or item that a key of a segment belongs to, for a message.
  static Damage damage_at(std::uint64_t step, std::string_view key) {
    Damage damage{.step = step, .item = {}, .leaf = {}, .message = {}};
    const Result<DecodedKey> decoded = decode_key(key);
    if (!decoded) return damage;
    damage.item = decoded->item;
    if (!decoded->encoded_path.empty()) damage.leaf = to_text(decoded->encoded_path);
    return damage;
  }

  void check_segments() {
    StoreImpl& store = reader_.store();
    const std::vector<SegmentInfo>& expected = reader_.record().segments;
    const auto files = store.segment_files({reader_.record().save});
    if (files.size() != expected.size()) {
      add({.step = step_,
           .item = {},
           .leaf = {},
           .message =
               fmt::format("{} of its {} segments are there", files.size(), expected.size())});
      return;
    }
    for (std::size_t i = 0; i < files.size(); ++i) {
      const std::string path = files[i].db_path + "/" + files[i].relative_filename;
      std::uint64_t size_bytes = 0;
      const rocksdb::IOStatus status =
          store.file_system().GetFileSize(path, rocksdb::IOOptions(), &size_bytes, nullptr);
      std::string message;
      if (!status.ok()) {
        message = "cannot be read: " + status.ToString();
      } else if (size_bytes != expected[i].size_bytes) {
        message = fmt::format("has {} bytes instead of {}", size_bytes, expected[i].size_bytes);
      } else {
        const Result<Hash128> hash =
            hash_of_tail(store.file_system(), path, expected[i].data_size_bytes, size_bytes);
        if (!hash) {
          message = hash.error().message;
        } else if (*hash != expected[i].tail_hash) {
          message = "its index or footer does not match its hash";
        } else {
          continue;
        }
      }
      // Name the last leaf of the file, and the range in words: the first key may be the step's
      // copy.
      Damage damage = damage_at(step_, files[i].largestkey);
      const Damage first = damage_at(step_, files[i].smallestkey);
      damage.message = fmt::format("segment {}, which holds leaves '{}' to '{}': {}",
                                   files[i].relative_filename, first.leaf.value_or("(the first)"),
                                   damage.leaf.value_or("(the last)"), message);
      add(std::move(damage));
    }
  }

  void check_copy() {
    const std::string key = step_copy_key(reader_.record().save);
    const auto decode = [&]() -> Result<StepRecord> {
      const auto value = STEPSTONE_TRY(reader_.get(key, /*is_chunk=*/false));
      if (!value) return fail(ErrorCode::kCorrupt, "it is gone");
      return decode_step_record(value->ToStringView(), key);
    };
    if (const Result<StepRecord> copy = decode(); !copy) {
      add({.step = step_,
           .item = {},
           .leaf = {},
           .message = "the copy of its record: " + copy.error().message});
    }
  }

  void collect_leaves(const std::string& item, std::vector<LeafPlace>& places) {
    const Result<ItemRecord> record = reader_.read_item(item);
    if (record) {
      // The structure was checked when the record was decoded.
      (void)visit(record->structure, {.enter = {},
                                      .leaf = [&](const std::string& path) -> Result<void> {
                                        places.push_back({item, path});
                                        return {};
                                      },
                                      .leave = {}});
      return;
    }
    add({.step = step_, .item = item, .leaf = {}, .message = record.error().message});
    // Without the structure, what leaf records can still be read tell of their leaves.
    const Result<std::vector<StoredLeaf>> leaves = reader_.read_leaves(item);
    if (!leaves) {
      add({.step = step_, .item = item, .leaf = {}, .message = leaves.error().message});
      return;
    }
    for (const StoredLeaf& leaf : *leaves) places.push_back({item, leaf.encoded_path});
  }

  void check_leaf(const LeafPlace& place) {
    const auto damaged = [&](const Error& error) {
      add({.step = step_,
           .item = place.item,
           .leaf = to_text(place.encoded_path),
           .message = error.message});
    };
    const Result<StoredLeaf> leaf = reader_.read_leaf(place.item, place.encoded_path);
    if (!leaf) return damaged(leaf.error());
    for (std::uint32_t chunk = 0; chunk < leaf->record.chunk_count(); ++chunk) {
      std::string keys = reader_.key_of_chunk(place.item, *leaf, chunk);
      if (const ChunkBase* const base = leaf->record.base_of(chunk)) {
        keys += StepReaderImpl::key_of_base(place.item, place.encoded_path, leaf->record, *base);
      }
      const Hash128 name = VerifiedChunks::name(keys, leaf->record.hashes[chunk]);
      if (!verified_.contains(name)) {
        const Result<void> result = reader_.read_chunk(place.item, *leaf, chunk, 0, {});
        if (!result) return damaged(result.error());
        verified_.add(name);
      }
      progress_.add(leaf->record.chunk_size_at(chunk));
    }
  }

  const StepReaderImpl& reader_;
  VerifiedChunks& verified_;
  Progress& progress_;
  std::mutex mutex_;
  std::vector<Damage> damages_;
  VerifyReport& report_;
  const std::uint64_t step_;
};

}  // namespace

Result<VerifyReport> StoreImpl::verify(const VerifyOptions& options) {
  std::vector<std::unique_ptr<StepReaderImpl>> readers;
  const std::vector<std::uint64_t> steps =
      options.step ? std::vector<std::uint64_t>{*options.step} : registry_->steps();
  for (const std::uint64_t step : steps) {
    std::optional<SaveRegistry::Leased> leased = registry_->lease(step);
    // One that was retired a moment ago is not there to be verified.
    if (!leased) continue;
    readers.push_back(std::make_unique<StepReaderImpl>(shared_from_this(), *std::move(leased)));
  }
  if (options.step && readers.empty()) {
    return fail(ErrorCode::kNotFound, step_name(*options.step) + " is not there any more");
  }
  std::uint64_t total_bytes = 0;
  for (const auto& reader : readers) total_bytes += reader->record().size_bytes;
  Progress progress(options.progress, total_bytes);
  VerifyReport report;
  VerifiedChunks verified;
  for (const auto& reader : readers) {
    using Outcome = StepVerifier::Outcome;
    Outcome outcome = StepVerifier(*reader, verified, progress, report).run();
    if (outcome == Outcome::kMoved) {
      const auto newer = STEPSTONE_TRY(Store::open(directory_, options_));
      Result<VerifyReport> again = newer->verify({.step = reader->record().save.step});
      if (again) {
        report.damages.insert(report.damages.end(), again->damages.begin(), again->damages.end());
        report.leaf_count += again->leaf_count;
        report.size_bytes += again->size_bytes;
        report.step_count += again->step_count;
        continue;
      }
      if (again.error().code != ErrorCode::kNotFound) return again;
      outcome = Outcome::kGone;
    }
    if (outcome == Outcome::kGone && options.step) {
      return fail(ErrorCode::kNotFound,
                  fmt::format("step {} was retired while it was verified", *options.step));
    }
  }
  std::stable_sort(report.damages.begin(), report.damages.end(),
                   [](const Damage& a, const Damage& b) {
                     return std::tie(a.step, a.item, a.leaf) < std::tie(b.step, b.item, b.leaf);
                   });
  return report;
}

}  // namespace stepstone
