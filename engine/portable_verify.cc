// What is in a portable file, counted and checked as a whole. Damage is named by the leaves that it
// makes unreadable, as in a database; what no leaf shows, such as bytes that belong to nothing, is
// left to the format's own verification.
#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <set>
#include <tuple>
#include <unordered_set>

#include "engine/parallel.h"
#include "engine/portable_store.h"
#include "engine/progress.h"
#include "format/leaf_path.h"

namespace stepstone {
namespace {

// Calls visit(chunk, offset in the file) for each chunk of a leaf that has a place of its own.
template <typename Visit>
Result<void> visit_chunks(const LeafRecord& record, const Visit& visit) {
  std::uint64_t offset = 0;
  auto next = record.extents.begin();
  for (std::uint32_t chunk = 0; chunk < record.chunk_count() && !record.inline_bytes; ++chunk) {
    if (next != record.extents.end() && next->first_chunk == chunk) {
      offset = (next++)->offset_bytes;
    }
    STEPSTONE_TRY(visit(chunk, offset));
    offset += record.stored_size_at(chunk);
  }
  return {};
}

// The chunks that were found whole, so that one which many leaves share is read once.
class VerifiedChunks {
 public:
  bool contains(std::uint64_t offset, const Hash128& hash) const {
    const std::scoped_lock lock(mutex_);
    return chunks_.contains({offset, hash.low, hash.high});
  }
  void add(std::uint64_t offset, const Hash128& hash) {
    const std::scoped_lock lock(mutex_);
    chunks_.insert({offset, hash.low, hash.high});
  }

 private:
  mutable std::mutex mutex_;
  std::set<std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>> chunks_;
};

class PortableVerifier {
 public:
  PortableVerifier(PortableStore& store, Progress& progress) : store_(store), progress_(progress) {}

  void check_step(std::uint64_t step) {
    const Result<StepRecord> record = store_.content().step(step);
    ++report_.step_count;
    if (!record)
      return add({.step = step, .item = {}, .leaf = {}, .message = record.error().message});
    report_.size_bytes += record->size_bytes;
    for (const ItemSummary& item : record->items) check_item(step, item.name);
  }

  // What no leaf shows.
  void check_file(std::uint64_t first_step) {
    if (!report_.damages.empty()) return;
    const Result<void> result = store_.content().verify(PortableFile::Check::kNothing);
    if (!result) {
      add({.step = first_step, .item = {}, .leaf = {}, .message = result.error().message});
    }
  }

  VerifyReport take() {
    std::stable_sort(report_.damages.begin(), report_.damages.end(),
                     [](const Damage& a, const Damage& b) {
                       return std::tie(a.step, a.item, a.leaf) < std::tie(b.step, b.item, b.leaf);
                     });
    return std::move(report_);
  }

 private:
  void add(Damage damage) {
    const std::scoped_lock lock(mutex_);
    report_.damages.push_back(std::move(damage));
  }

  void check_item(std::uint64_t step, const std::string& item) {
    const auto damaged = [&](const Error& error) {
      add({.step = step, .item = item, .leaf = {}, .message = error.message});
    };
    const Result<ItemRecord> record = store_.content().item(step, item);
    if (!record) return damaged(record.error());
    std::vector<std::string> paths;
    (void)visit(record->structure, {.enter = {},
                                    .leaf = [&](const std::string& path) -> Result<void> {
                                      paths.push_back(path);
                                      return {};
                                    },
                                    .leave = {}});
    // One leaf after another per thread; errors become damage, so that nothing stops the rest.
    const Result<void> result =
        parallel_for(store_.thread_count(), paths.size(), [&](std::size_t i) -> Result<void> {
          const Result<void> checked = check_leaf(step, item, paths[i]);
          if (!checked) {
            add({.step = step,
                 .item = item,
                 .leaf = to_text(paths[i]),
                 .message = checked.error().message});
          }
          return {};
        });
    if (!result) damaged(result.error());
    report_.leaf_count += paths.size();
  }

  Result<void> check_leaf(std::uint64_t step, const std::string& item, const std::string& path) {
    const PortableLeaf leaf = STEPSTONE_TRY(store_.content().leaf(step, item, path));
    const LeafRecord& record = leaf.record();
    const ChunkScratchPool::Lease scratch = store_.scratches().take();
    const auto check_chunk = [&](std::uint32_t chunk, std::uint64_t offset) -> Result<void> {
      if (record.inline_bytes || !verified_.contains(offset, record.hashes[chunk])) {
        scratch->decoded.resize(record.chunk_size_at(chunk));
        STEPSTONE_TRY(
            store_.content().read_chunk(record, chunk, scratch->decoded, scratch->decoder));
        if (!record.inline_bytes) verified_.add(offset, record.hashes[chunk]);
      }
      progress_.add(record.chunk_size_at(chunk));
      return {};
    };
    if (record.inline_bytes && record.chunk_count() == 1) return check_chunk(0, 0);
    return visit_chunks(record, check_chunk);
  }

  PortableStore& store_;
  Progress& progress_;
  VerifiedChunks verified_;
  std::mutex mutex_;
  VerifyReport report_;
};

}  // namespace

Result<VerifyReport> PortableStore::verify(const VerifyOptions& options) {
  const std::vector<std::uint64_t> steps =
      options.step ? std::vector<std::uint64_t>{*options.step} : steps_;
  std::uint64_t total_bytes = 0;
  for (const std::uint64_t step : steps) {
    const Result<StepRecord> record = content_.step(step);
    if (record) total_bytes += record->size_bytes;
  }
  Progress progress(options.progress, total_bytes);
  PortableVerifier verifier(*this, progress);
  for (const std::uint64_t step : steps) verifier.check_step(step);
  if (!options.step && !steps.empty()) verifier.check_file(steps.front());
  return verifier.take();
}

Result<void> PortableStore::check_whole() {
  return content_.verify(PortableFile::Check::kNothing).map_error([&](Error error) {
    return at_path(std::move(error));
  });
}

Result<StoreUsage> PortableStore::usage() {
  StoreUsage usage{.stored_bytes = content_.size_bytes()};
  std::unordered_set<std::uint64_t> counted;  // Chunks, by where they stand.
  for (const std::uint64_t step : steps_) {
    const StepRecord record = STEPSTONE_TRY(
        content_.step(step).map_error([&](Error error) { return at_path(std::move(error)); }));
    StepUsage of_step{.step = step, .size_bytes = record.size_bytes};
    for (const ItemSummary& item : record.items) {
      STEPSTONE_TRY(content_.for_each_leaf(
          step, item.name, [&](std::string_view, const PortableLeaf& leaf) -> Result<void> {
            if (leaf.record().inline_bytes) of_step.stored_bytes += leaf.record().size_bytes;
            return visit_chunks(
                leaf.record(), [&](std::uint32_t chunk, std::uint64_t offset) -> Result<void> {
                  (counted.insert(offset).second ? of_step.stored_bytes : of_step.shared_bytes) +=
                      leaf.record().stored_size_at(chunk);
                  return {};
                });
          }));
    }
    usage.steps.push_back(of_step);
  }
  return usage;
}

}  // namespace stepstone
