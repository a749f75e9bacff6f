// Opening compares three witnesses before it lets RocksDB delete anything: the step records must
// add up to the digest in the StoreRecord, the StoreRecord must be at least as new as HEAD, and
// every visible step must have the segments that its record lists. RocksDB checks none of this: it
// takes a damaged log or MANIFEST for one that ends early, and cleans up.
#include <fmt/format.h>
#include <rocksdb/cache.h>
#include <rocksdb/wal_filter.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <set>
#include <thread>

#include "engine/dead_save_filter.h"
#include "engine/references.h"
#include "engine/rocksdb_support.h"
#include "engine/store_directory.h"
#include "engine/store_impl.h"
#include "format/leaf_path.h"

namespace stepstone {
namespace {

constexpr std::size_t kBlockCacheSizeBytes = std::size_t{16} << 20;

// Ends the replay of RocksDB's log before the first commit that is newer than `sequence`. A reader
// that opens beside a writer reads the MANIFEST first and the log after it, and would otherwise
// meet commits in the log whose segments came after its MANIFEST.
class CommitFilter : public rocksdb::WalFilter {
 public:
  explicit CommitFilter(std::uint64_t sequence) : sequence_(sequence) {}

  const char* Name() const override { return "StepstoneCommitFilter"; }

  WalProcessingOption LogRecordFound(unsigned long long /*log_number*/,
                                     const std::string& /*log_file_name*/,
                                     const rocksdb::WriteBatch& batch,
                                     rocksdb::WriteBatch* /*new_batch*/,
                                     bool* /*batch_changed*/) override {
    Handler handler;
    batch.Iterate(&handler).PermitUncheckedError();
    return handler.sequence > sequence_ ? WalProcessingOption::kStopReplay
                                        : WalProcessingOption::kContinueProcessing;
  }

 private:
  struct Handler : rocksdb::WriteBatch::Handler {
    std::uint64_t sequence = 0;

    rocksdb::Status PutCF(std::uint32_t /*family*/, const rocksdb::Slice& key,
                          const rocksdb::Slice& value) override {
      if (key.ToStringView() != store_record_key()) return rocksdb::Status::OK();
      const auto record = decode_store_record(value.ToStringView(), key.ToStringView());
      if (record) sequence = record->sequence;
      return rocksdb::Status::OK();
    }
    rocksdb::Status DeleteCF(std::uint32_t /*family*/, const rocksdb::Slice& /*key*/) override {
      return rocksdb::Status::OK();
    }
  };

  const std::uint64_t sequence_;
};

}  // namespace

Result<void> StoreImpl::open() {
  if (options_.read_only && options_.create_if_missing) {
    return fail(ErrorCode::kInvalidArgument,
                "a store cannot be created read-only: choose one of the two");
  }
  // A process that is writing to the store may replace files while a reader opens them, so that the
  // reader sees half of a commit. It tries again for as long as it sees commits go on: damage does
  // not pass, and is reported after a few attempts.
  constexpr int kAttempts = 500;
  constexpr int kAttemptsWithoutCommit = 4;
  constexpr auto kPause = std::chrono::milliseconds(10);
  int attempts_without_commit = 0;
  for (int attempt = 1;; ++attempt) {
    const std::optional<std::uint64_t> sequence = witnessed_sequence();
    const Result<void> result = open_once();
    if (result) return result;
    shut_down();
    const bool may_be_passing =
        result.error().code == ErrorCode::kCorrupt || result.error().code == ErrorCode::kIo;
    if (options_.read_only && may_be_passing) std::this_thread::sleep_for(kPause);
    attempts_without_commit = witnessed_sequence() == sequence ? attempts_without_commit + 1 : 0;
    if (!options_.read_only || !may_be_passing || attempt == kAttempts ||
        attempts_without_commit == kAttemptsWithoutCommit) {
      return tl::unexpected<Error>(
          with_context(result.error(), fmt::format("store {}", directory_.string())));
    }
  }
}

std::optional<std::uint64_t> StoreImpl::witnessed_sequence() const {
  const std::shared_ptr<rocksdb::FileSystem> file_system =
      options_.file_system ? options_.file_system : rocksdb::FileSystem::Default();
  const Result<Head> head = HeadFile::read(*file_system, (directory_ / "HEAD").string());
  if (!head) return std::nullopt;
  return head->sequence;
}

Result<void> StoreImpl::open_once() {
  file_system_ = std::make_shared<StoreFileSystem>(
      options_.file_system ? options_.file_system : rocksdb::FileSystem::Default());
  env_ = rocksdb::NewCompositeEnv(file_system_);
  registry_ = std::make_shared<SaveRegistry>();
  run_id_ = random_id().low;
  STEPSTONE_TRY(prepare_store_directory(*file_system_, directory_, options_));
  // HEAD first: whatever the database shows afterwards must be at least as new.
  const Result<Head> head = HeadFile::read(*file_system_, (directory_ / "HEAD").string());
  if (!head) return tl::unexpected<Error>(head.error());
  const bool is_new = head->sequence == 0;
  if (options_.read_only) opened_manifest_ = manifest_mark();
  const Result<void> opened = open_database(is_new && options_.create_if_missing, head->sequence);
  if (!opened && is_new && !options_.create_if_missing &&
      opened.error().code == ErrorCode::kCorrupt) {
    return fail(ErrorCode::kNotFound, kInterruptedCreation);
  }
  STEPSTONE_TRY(opened);
  STEPSTONE_TRY(load_records());
  if (store_record_.store_id == Hash128{}) {
    if (head->sequence != 0)
      return corrupt_store("the database is empty, but HEAD witnesses steps");
    if (!options_.create_if_missing) {
      return fail(ErrorCode::kNotFound, kInterruptedCreation);
    }
    store_record_.store_id = head->store_id;
    STEPSTONE_TRY(initialize());
  }
  STEPSTONE_TRY(compare_with_head(head));
  STEPSTONE_TRY(check_segments());
  STEPSTONE_TRY(check_small_steps());
  STEPSTONE_TRY(check_hollow_saves());
  if (options_.read_only) return {};
  STEPSTONE_TRY(
      to_result(file_system_->CreateDirIfMissing((directory_ / kStagingDirectory).string(),
                                                 rocksdb::IOOptions(), nullptr),
                "staging directory"));
  head_.emplace(STEPSTONE_TRY(HeadFile::open(*file_system_, (directory_ / "HEAD").string())));
  // A crash between a commit and its HEAD: the commit holds, and HEAD catches up.
  if (head_of(store_record_) != *head) STEPSTONE_TRY(head_->write(head_of(store_record_)));
  file_system_->release_deletions();
  STEPSTONE_TRY(sweep());
  collector_ = std::make_unique<Collector>(*this, live_chunk_filter_);
  STEPSTONE_TRY(collector_->start());
  if (!options_.recompress_older_than) return {};
  recompressor_ = std::make_unique<Recompressor>(*this, *options_.recompress_older_than,
                                                 options_.recompress_bytes_per_second);
  return recompressor_->start();
}

// RocksDB may create what it misses only while there is nothing to lose: in a store that was
// written to, a missing column family is damage.
Result<void> StoreImpl::open_database(bool is_new, std::uint64_t head_sequence) {
  live_chunk_filter_ = std::make_shared<LiveChunkFilterFactory>();
  leaves_options_ = leaves_options(rocksdb::NewLRUCache(kBlockCacheSizeBytes));
  leaves_options_.compaction_filter_factory = live_chunk_filter_;
  const std::vector<rocksdb::ColumnFamilyDescriptor> families = {
      {rocksdb::kDefaultColumnFamilyName, steps_options()},
      {kStepsColumnFamily, steps_options()},
      {kSmallColumnFamily, small_options(dead_save_filter(registry_))},
      {kLeavesColumnFamily, leaves_options_},
  };
  rocksdb::DBOptions options = database_options(env_.get(), is_new);
  CommitFilter filter_commits(head_sequence);
  if (options_.read_only) {
    // RocksDB would begin a new LOG, and rename the one that a writing process is using.
    options.info_log = silent_logger();
    options.wal_filter = &filter_commits;
  }
  rocksdb::DB* database = nullptr;
  rocksdb::Status status = rocksdb::Status::InvalidArgument();
  if (is_new && !has_database(*file_system_, directory_)) {
    status =
        rocksdb::DB::Open(options, directory_.string(), {families.front()}, &handles_, &database);
    // All at once: opening would write RocksDB's OPTIONS file again for each of them.
    std::vector<rocksdb::ColumnFamilyHandle*> others;
    if (status.ok()) {
      status = database->CreateColumnFamilies({families.begin() + 1, families.end()}, &others);
    }
    handles_.insert(handles_.end(), others.begin(), others.end());
  }
  // Also where another process has just created it, and has gone again.
  if (database == nullptr && status.IsInvalidArgument()) {
    status = options_.read_only
                 ? rocksdb::DB::OpenForReadOnly(options, directory_.string(), families, &handles_,
                                                &database)
                 : rocksdb::DB::Open(options, directory_.string(), families, &handles_, &database);
  }
  database_.reset(database);
  if (!status.ok()) {
    if (file_system_->lock_was_refused()) {
      return fail(ErrorCode::kBusy,
                  "it is open for writing elsewhere: wait for that process, or open it read-only");
    }
    Error error = to_error(status, "opening the database");
    // A column family or the MANIFEST is missing, or a file that it names cannot be parsed.
    if (error.code == ErrorCode::kInvalidArgument || status.IsPathNotFound()) {
      error.code = ErrorCode::kCorrupt;
    }
    return tl::unexpected<Error>(std::move(error));
  }
  steps_ = handles_[1];
  small_ = handles_[2];
  leaves_ = handles_[3];
  return {};
}

Result<void> StoreImpl::load_records() {
  store_record_ = {};
  bool has_store_record = false;
  std::map<std::uint64_t, VisibleStep> steps;
  Hash128 digest;
  const std::unique_ptr<rocksdb::Iterator> entries(
      database_->NewIterator(rocksdb::ReadOptions(), steps_));
  for (entries->SeekToFirst(); entries->Valid(); entries->Next()) {
    const std::string_view key = entries->key().ToStringView();
    const std::string_view value = entries->value().ToStringView();
    if (key == store_record_key()) {
      store_record_ =
          STEPSTONE_TRY_CONTEXT(decode_store_record(value, key), std::string("store record"));
      has_store_record = true;
      continue;
    }
    StepRecord record = STEPSTONE_TRY_CONTEXT(decode_step_record(value, key),
                                              fmt::format("step record {}", printable(key)));
    const Hash128 hash = record_hash(value);
    digest = digest + hash;
    const std::uint64_t step = record.save.step;
    if (step_record_key(step) != key)
      return corrupt_store("a step record stands under another's key");
    steps.emplace(step, VisibleStep{std::move(record), hash});
  }
  STEPSTONE_TRY(to_result(entries->status(), "reading the step records"));
  if (has_store_record &&
      (store_record_.steps_digest != digest || store_record_.step_count != steps.size())) {
    return corrupt_store(fmt::format("{} step records are there where {} were committed",
                                     steps.size(), store_record_.step_count));
  }
  if (!has_store_record && !steps.empty()) return corrupt_store("the store record is gone");
  registry_->load(std::move(steps), store_record_.next_generation);
  return {};
}

Result<void> StoreImpl::initialize() {
  store_record_.created_unix_ns = unix_time_ns();
  const std::string key = store_record_key();
  rocksdb::WriteOptions durable;
  durable.sync = true;
  return to_result(database_->Put(durable, steps_, key, STEPSTONE_TRY(encode(store_record_, key))),
                   "creating the store record");
}

Result<void> StoreImpl::compare_with_head(const Result<Head>& head) {
  if (head->store_id != store_record_.store_id)
    return corrupt_store("HEAD belongs to another store");
  if (store_record_.sequence < head->sequence) {
    return corrupt_store(fmt::format(
        "commits are lost: HEAD witnesses commit {} (newest step {}), the database ends at {}",
        head->sequence, head->newest_step, store_record_.sequence));
  }
  if (store_record_.sequence == head->sequence && head_of(store_record_) != *head) {
    return corrupt_store("HEAD and the database disagree about the same commit");
  }
  return {};
}

Result<void> StoreImpl::check_segments() {
  std::vector<rocksdb::LiveFileMetaData> files;
  database_->GetLiveFilesMetaData(&files);
  std::map<SaveId, std::multiset<std::uint64_t>> sizes;
  for (const rocksdb::LiveFileMetaData& file : files) {
    const std::optional<SaveId> save = save_of_key(file.smallestkey);
    if (file.column_family_name == kLeavesColumnFamily && save) sizes[*save].insert(file.size);
  }
  for (const std::uint64_t step : registry_->steps()) {
    const StepRecord record = registry_->find(step)->record;
    std::multiset<std::uint64_t> expected;
    for (const SegmentInfo& segment : record.segments) expected.insert(segment.size_bytes);
    const auto found = sizes.find(record.save);
    if (!expected.empty() && (found == sizes.end() || found->second != expected)) {
      return corrupt_store(fmt::format("step {}: {} of its {} segments are known to the database",
                                       step, found == sizes.end() ? 0 : found->second.size(),
                                       expected.size()));
    }
  }
  // A MANIFEST that lost its end names files that are gone, and not those that took their place. A
  // file that is gone while nothing stands in its place is damage to some steps alone.
  if (!file_system_->holds_tables()) return {};
  for (const rocksdb::LiveFileMetaData& file : files) {
    const std::string path = file.db_path + "/" + file.relative_filename;
    if (file_system_->FileExists(path, rocksdb::IOOptions(), nullptr).IsNotFound()) {
      return corrupt_store(
          fmt::format("{} is gone, and tables that the database does not know are there",
                      file.relative_filename));
    }
  }
  return {};
}

// The entries of a small step came with its record, in one batch. If the record is there and they
// are not, the database has lost a file of theirs.
Result<void> StoreImpl::check_small_steps() {
  // Many at a time: looking them up one by one took half of the opening of 10,000 steps.
  constexpr std::size_t kBatchSize = 256;
  const std::map<SaveId, std::uint64_t> saves = registry_->small_saves();
  std::vector<std::string> keys;
  std::vector<rocksdb::Slice> slices;
  std::vector<rocksdb::PinnableSlice> values(kBatchSize);
  std::vector<rocksdb::Status> statuses(kBatchSize);
  for (auto next = saves.begin(); next != saves.end();) {
    const auto first = next;
    keys.clear();
    for (; next != saves.end() && keys.size() < kBatchSize; ++next) {
      keys.push_back(step_copy_key(next->first));
    }
    slices.assign(keys.begin(), keys.end());
    database_->MultiGet(rocksdb::ReadOptions(), small_, keys.size(), slices.data(), values.data(),
                        statuses.data(), /*sorted_input=*/true);
    auto save = first;
    for (std::size_t i = 0; i < keys.size(); ++i, ++save) {
      values[i].Reset();
      // An entry that is there but cannot be read is damage to this step alone.
      if (!statuses[i].IsNotFound()) continue;
      return corrupt_store(
          fmt::format("step {}: its entries are not known to the database", save->first.step));
    }
  }
  return {};
}

// A save that is not visible, but referred to, has no record that lists its files, and the
// collector rewrites them. So as long as no tables are about to be deleted, it is enough that it
// has any; else each chunk that is referred to must be inside the range of a file that is known.
Result<void> StoreImpl::check_hollow_saves() {
  const std::set<SaveId> hollow = registry_->hollow_saves();
  if (hollow.empty()) return {};
  std::map<SaveId, std::map<std::string, std::string>> files;  // The last key by the first.
  for (const rocksdb::LiveFileMetaData& file : segment_files(hollow)) {
    files[*save_of_key(file.smallestkey)].emplace(file.smallestkey, file.largestkey);
  }
  const auto is_known = [&](SaveId save, const std::string& key) {
    const auto ranges = files.find(save);
    if (ranges == files.end()) return false;
    const auto next = ranges->second.upper_bound(key);
    return next != ranges->second.begin() && key <= std::prev(next)->second;
  };
  const bool holds_tables = file_system_->holds_tables();
  for (const std::uint64_t step : registry_->steps()) {
    const StepRecord record = registry_->find(step)->record;
    bool is_missing = false;
    bool has_hollow = false;
    for (const SaveId origin : record.origin_saves) {
      if (!hollow.contains(origin)) continue;
      has_hollow = true;
      is_missing = is_missing || !files.contains(origin);
    }
    if (has_hollow && holds_tables && !is_missing) {
      // Leaf records that cannot be read are damage to this step alone.
      (void)visit_references(*this, record.save,
                             [&](SaveId origin, const std::string& key, std::uint32_t /*size*/) {
                               if (hollow.contains(origin) && !is_known(origin, key))
                                 is_missing = true;
                             });
    }
    if (is_missing) {
      return corrupt_store(fmt::format(
          "step {}: files with chunks that it shares with earlier saves are not known to the "
          "database",
          step));
    }
  }
  return {};
}

// Hands what crashed saves left behind to the collector, and hollow saves.
Result<void> StoreImpl::sweep() {
  std::vector<rocksdb::LiveFileMetaData> files;
  database_->GetLiveFilesMetaData(&files);
  std::set<SaveId> orphans;
  std::uint32_t next_generation = store_record_.next_generation;
  for (const rocksdb::LiveFileMetaData& file : files) {
    const std::optional<SaveId> save = save_of_key(file.smallestkey);
    if (file.column_family_name != kLeavesColumnFamily || !save) continue;
    next_generation = std::max(next_generation, save->generation + 1);
    if (!registry_->is_in_use(*save)) orphans.insert(*save);
  }
  registry_->raise_next_generation(next_generation);
  registry_->add_garbage({orphans.begin(), orphans.end()});

  const std::filesystem::path staging = directory_ / kStagingDirectory;
  std::vector<std::string> children;
  STEPSTONE_TRY(to_result(
      file_system_->GetChildren(staging.string(), rocksdb::IOOptions(), &children, nullptr),
      "staging directory"));
  for (const std::string& child : children) {
    if (child == "." || child == "..") continue;
    file_system_->DeleteFile((staging / child).string(), rocksdb::IOOptions(), nullptr)
        .PermitUncheckedError();
  }
  return {};
}

}  // namespace stepstone
