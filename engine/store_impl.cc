// Committing, and what a store tells of itself. How it is opened: store_opening.cc.
#include "engine/store_impl.h"

#include <fmt/format.h>
#include <rocksdb/convenience.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <chrono>
#include <set>

#include "engine/parallel.h"
#include "engine/rocksdb_support.h"
#include "engine/step_reader.h"
#include "engine/store_directory.h"

namespace stepstone {

std::int64_t unix_time_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

StoreImpl::StoreImpl(std::filesystem::path directory, const OpenOptions& options)
    : directory_(std::move(directory)),
      options_(options),
      thread_count_(effective_thread_count(options.thread_count)) {}

StoreImpl::~StoreImpl() { shut_down(); }

void StoreImpl::shut_down() {
  // Its thread looks at the pointer to it when it commits.
  if (recompressor_ != nullptr) recompressor_->stop();
  recompressor_.reset();
  collector_.reset();
  close_database();
}

void StoreImpl::close_database() {
  if (database_ == nullptr) return;
  rocksdb::CancelAllBackgroundWork(database_.get(), /*wait=*/true);
  for (rocksdb::ColumnFamilyHandle* handle : handles_) {
    database_->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
  }
  handles_.clear();
  database_.reset();
  head_.reset();
}

void StoreImpl::wait_for_background() {
  // What was recompressed leaves something to collect.
  if (recompressor_ != nullptr) recompressor_->wait_until_idle();
  if (!options_.read_only) registry_->wait_until_collected();
}

std::string StoreImpl::new_staging_path() {
  return (directory_ / kStagingDirectory /
          fmt::format("{:016x}-{}.sst", run_id_, next_staging_number_++))
      .string();
}

Result<void> StoreImpl::check_writable() const {
  if (options_.read_only) {
    return fail(ErrorCode::kReadOnly,
                fmt::format("store {} was opened read-only", directory_.string()));
  }
  if (has_failed_ || file_system_->write_has_failed()) {
    return fail(ErrorCode::kClosed,
                fmt::format("store {} refuses writes since one failed in a way that leaves the "
                            "disk's state unknown: close it and open it again",
                            directory_.string()));
  }
  return {};
}

Result<std::shared_ptr<StoreImpl>> StoreImpl::writable() {
  STEPSTONE_TRY(check_writable());
  return shared_from_this();
}

Result<std::optional<StepRecord>> StoreImpl::find_step(std::uint64_t step) {
  std::optional<VisibleStep> found = registry_->find(step);
  if (!found) return std::nullopt;
  return std::move(found->record);
}

Result<std::unique_ptr<StepContent>> StoreImpl::open_step(std::uint64_t step) {
  std::optional<SaveRegistry::Leased> leased = registry_->lease(step);
  if (!leased) return nullptr;
  return std::make_unique<StepReaderImpl>(shared_from_this(), *std::move(leased));
}

Result<StepRecord> StoreImpl::commit(Addition* addition, std::span<const std::uint64_t> retire) {
  return commit(addition, [&] { return std::vector<std::uint64_t>(retire.begin(), retire.end()); });
}

Result<StepRecord> StoreImpl::commit(Addition* addition, const ChooseRetired& choose) {
  const std::scoped_lock lock(commit_mutex_);
  STEPSTONE_TRY(check_writable());
  const std::vector<std::uint64_t> retire = STEPSTONE_TRY(choose());
  StepRecord record = STEPSTONE_TRY(commit_locked(addition, retire));
  if (recompressor_ != nullptr) recompressor_->wake();
  return record;
}

Result<std::string> StoreImpl::custom_metadata() {
  const std::scoped_lock lock(commit_mutex_);
  return store_record_.custom_metadata;
}

std::string StoreImpl::preservation_policy() {
  const std::scoped_lock lock(commit_mutex_);
  return store_record_.preservation_policy;
}

Result<void> StoreImpl::set_custom_metadata(const std::string& json) {
  const std::scoped_lock lock(commit_mutex_);
  STEPSTONE_TRY(check_writable());
  std::string previous = std::exchange(store_record_.custom_metadata, json);
  const Result<StepRecord> committed = commit_locked(nullptr, {});
  if (committed) return {};
  store_record_.custom_metadata = std::move(previous);
  return tl::unexpected<Error>(
      with_context(committed.error(), "metadata of the store " + directory_.string()));
}

Result<StepRecord> StoreImpl::commit_locked(Addition* addition,
                                            std::span<const std::uint64_t> retire) {
  StoreRecord next = store_record_;
  ++next.sequence;
  rocksdb::WriteBatch batch;
  std::optional<VisibleStep> published;
  std::vector<std::uint64_t> hidden;

  if (addition != nullptr) {
    StepRecord record = addition->record;
    const std::uint64_t step = record.save.step;
    if (addition->preservation_policy) next.preservation_policy = *addition->preservation_policy;
    const std::optional<VisibleStep> old = registry_->find(step);
    if (old && !addition->overwrite) {
      return fail(ErrorCode::kAlreadyExists, fmt::format("step {} exists already", step));
    }
    if (addition->replaced && (!old || old->record.save != *addition->replaced)) {
      return fail(ErrorCode::kBusy, fmt::format("step {} was {} meanwhile, and stays as it is now",
                                                step, old ? "overwritten" : "retired"));
    }
    record.sequence = next.sequence;
    record.previous_hash = next.newest_step_hash;
    if (record.committed_unix_ns == 0) record.committed_unix_ns = unix_time_ns();
    const std::string key = step_record_key(step);
    const std::string value = STEPSTONE_TRY_CONTEXT(encode(record, key), step_name(step));
    const Hash128 hash = record_hash(value);
    for (const auto& [entry_key, entry_value] : addition->small_entries) {
      STEPSTONE_TRY(to_result(batch.Put(small_, entry_key, entry_value), step_name(step)));
    }
    STEPSTONE_TRY(to_result(batch.Put(steps_, key, value), step_name(step)));
    if (old) {
      next.steps_digest = next.steps_digest - old->hash;
      --next.step_count;
    }
    next.steps_digest = next.steps_digest + hash;
    ++next.step_count;
    next.newest_step = step;
    next.newest_step_hash = hash;
    next.next_generation = std::max(next.next_generation, record.save.generation + 1);
    published = VisibleStep{std::move(record), hash};
  }
  for (const std::uint64_t step : std::set<std::uint64_t>(retire.begin(), retire.end())) {
    const std::optional<VisibleStep> old = registry_->find(step);
    if (!old || (published && published->record.save.step == step)) continue;
    STEPSTONE_TRY(to_result(batch.Delete(steps_, step_record_key(step)), step_name(step)));
    next.steps_digest = next.steps_digest - old->hash;
    --next.step_count;
    hidden.push_back(step);
  }
  const std::string store_key = store_record_key();
  STEPSTONE_TRY(
      to_result(batch.Put(steps_, store_key, STEPSTONE_TRY(encode(next, store_key))), "commit"));

  // From here on a failure leaves unknown what has reached the disk; only a new open can tell.
  const auto noted = [&](Result<void> result) {
    if (!result) has_failed_ = true;
    return result;
  };
  if (addition != nullptr && !addition->segment_paths.empty()) {
    STEPSTONE_TRY(noted(
        to_result(database_->IngestExternalFile(leaves_, addition->segment_paths, ingest_options()),
                  step_name(addition->record.save.step) + ": adding its segments")));
  }
  rocksdb::WriteOptions durable;
  durable.sync = true;
  STEPSTONE_TRY(noted(to_result(database_->Write(durable, &batch), "commit")));
  STEPSTONE_TRY(noted(head_->write(head_of(next))));

  store_record_ = next;
  if (!published) {
    registry_->retire(hidden);
    return StepRecord{};
  }
  const StepRecord record = published->record;
  registry_->end_save(record.save, std::move(published), hidden);
  return record;
}

bool StoreImpl::was_changed_by_writer() const {
  if (!options_.read_only) return false;
  const Result<Head> head = HeadFile::read(*file_system_, (directory_ / "HEAD").string());
  if (head && head->sequence != store_record_.sequence) return true;
  return manifest_mark() != opened_manifest_;
}

// Which files there are changes without a commit, too, when the collector has worked.
std::string StoreImpl::manifest_mark() const {
  std::string name;
  if (!rocksdb::ReadFileToString(file_system_.get(), (directory_ / "CURRENT").string(), &name)
           .ok()) {
    return {};
  }
  while (!name.empty() && name.back() == '\n') name.pop_back();
  std::uint64_t size_bytes = 0;
  file_system_
      ->GetFileSize((directory_ / name).string(), rocksdb::IOOptions(), &size_bytes, nullptr)
      .PermitUncheckedError();
  return fmt::format("{} {}", name, size_bytes);
}

std::vector<rocksdb::LiveFileMetaData> StoreImpl::table_files() const {
  std::vector<rocksdb::LiveFileMetaData> files;
  database_->GetLiveFilesMetaData(&files);
  return files;
}

std::vector<rocksdb::LiveFileMetaData> StoreImpl::segment_files(
    const std::set<SaveId>& saves) const {
  std::vector<rocksdb::LiveFileMetaData> all;
  database_->GetLiveFilesMetaData(&all);
  std::vector<rocksdb::LiveFileMetaData> files;
  for (rocksdb::LiveFileMetaData& file : all) {
    const std::optional<SaveId> save = save_of_key(file.smallestkey);
    if (file.column_family_name == kLeavesColumnFamily && save && saves.contains(*save)) {
      files.push_back(std::move(file));
    }
  }
  std::sort(files.begin(), files.end(),
            [](const auto& a, const auto& b) { return a.smallestkey < b.smallestkey; });
  return files;
}

}  // namespace stepstone
