// The front of the manager: memory that cannot be had is an error here, and not an exception.
#include "api/checkpoint_manager.h"

#include <fmt/format.h>

#include <cstdio>
#include <new>

#include "api/manager_impl.h"

namespace stepstone {
namespace {

template <typename Call>
auto guarded(const Call& call, const std::string& what) -> decltype(call()) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kLimit, what + ": out of memory");
  }
}

std::string name_of(std::uint64_t step) { return fmt::format("step {}", step); }

}  // namespace

CheckpointManager::CheckpointManager(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

CheckpointManager::~CheckpointManager() {
  const Result<void> closed = impl_->close();
  if (!closed) {
    std::fprintf(stderr, "stepstone: closing %s: %s\n", impl_->directory().c_str(),
                 closed.error().message.c_str());
  }
}

Result<std::unique_ptr<CheckpointManager>> CheckpointManager::open(
    const std::filesystem::path& directory, const CheckpointManagerOptions& options,
    const ManagerItems& items) {
  const auto call = [&]() -> Result<std::unique_ptr<CheckpointManager>> {
    ManagerSetup setup = STEPSTONE_TRY(set_up(options, items));
    OpenOptions open_options;
    open_options.create_if_missing = options.create && !options.read_only;
    open_options.beside_other_files = true;
    open_options.read_only = options.read_only;
    open_options.recompress_older_than = options.storage.recompress_older_than;
    SharedStore store = STEPSTONE_TRY(SharedStore::open(directory, open_options));
    // "run/" is the directory "run".
    std::filesystem::path path = directory.has_filename() ? directory : directory.parent_path();
    auto impl = std::make_unique<Impl>(std::move(path), std::move(store), std::move(setup));
    STEPSTONE_TRY(impl->prepare());
    return std::unique_ptr<CheckpointManager>(new CheckpointManager(std::move(impl)));
  };
  return guarded(call, directory.string());
}

Result<bool> CheckpointManager::save(std::uint64_t step, const args::CheckpointArgs& args,
                                     const SaveOptions& options) {
  return guarded([&] { return impl_->save(step, args, options); }, name_of(step));
}

bool CheckpointManager::should_save(std::uint64_t step) const { return impl_->should_save(step); }

Result<void> CheckpointManager::wait_until_finished() { return impl_->wait_until_finished(); }

Result<void> CheckpointManager::wait_until_finished(std::chrono::nanoseconds timeout) {
  return impl_->wait_until_finished(timeout);
}

Result<void> CheckpointManager::check_for_errors() { return impl_->check_for_errors(); }

bool CheckpointManager::is_saving_in_progress() const { return impl_->is_saving_in_progress(); }

std::vector<CheckpointInfo> CheckpointManager::saves_in_progress() const {
  return impl_->saves_in_progress();
}

Result<AnyValue> CheckpointManager::restore_any(std::optional<std::uint64_t> step,
                                                const args::CheckpointArgs& args) {
  return guarded([&] { return impl_->restore(step, args); }, "restore");
}

Result<HeldStep> CheckpointManager::hold(std::optional<std::uint64_t> step) {
  return guarded([&] { return impl_->hold(step); }, "hold");
}

Result<HeldStep> CheckpointManager::hold_committed(std::optional<std::uint64_t> step) {
  return guarded([&] { return impl_->hold_committed(step); }, "hold");
}

std::optional<std::uint64_t> CheckpointManager::latest_step() const {
  const std::vector<std::uint64_t> steps = all_steps();
  if (steps.empty()) return std::nullopt;
  return steps.back();
}

std::optional<std::uint64_t> CheckpointManager::best_step() const { return impl_->best_step(); }

std::vector<std::uint64_t> CheckpointManager::all_steps() const { return impl_->all_steps(); }

std::string CheckpointManager::step_name(std::uint64_t step) const {
  return impl_->step_name(step);
}

Result<StepMetadata> CheckpointManager::metadata(std::uint64_t step) const {
  return guarded([&] { return impl_->metadata(step); }, name_of(step));
}

Result<RootMetadata> CheckpointManager::metadata() const {
  return guarded([&] { return impl_->metadata(); }, "metadata");
}

Result<std::vector<std::pair<std::string, ItemMetadata>>> CheckpointManager::item_metadata(
    std::uint64_t step) const {
  return STEPSTONE_TRY(metadata(step)).items;
}

Result<std::optional<Tree>> CheckpointManager::metrics(std::uint64_t step) const {
  return guarded([&] { return impl_->metrics(step); }, name_of(step));
}

Result<void> CheckpointManager::reload() {
  return guarded([&] { return impl_->reload(); }, "reload");
}

Result<void> CheckpointManager::delete_step(std::uint64_t step) { return impl_->delete_step(step); }

void CheckpointManager::request_preemption() { impl_->request_preemption(); }

bool CheckpointManager::reached_preemption(std::uint64_t /*step*/) const {
  return impl_->reached_preemption();
}

std::optional<SaveStatistics> CheckpointManager::last_save_statistics() const {
  return impl_->last_save_statistics();
}

std::optional<RestoreStatistics> CheckpointManager::last_restore_statistics() const {
  return impl_->last_restore_statistics();
}

const std::filesystem::path& CheckpointManager::directory() const { return impl_->directory(); }

Result<void> CheckpointManager::close() { return impl_->close(); }

}  // namespace stepstone
