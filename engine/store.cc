#include "engine/store.h"

#include <fmt/format.h>

#include "engine/recompression.h"
#include "engine/step_reader.h"
#include "engine/store_impl.h"

namespace stepstone {
namespace {

tl::unexpected<Error> closed() { return fail(ErrorCode::kClosed, "the store is closed"); }

// "; it has steps 1, 2, 3 (…)": the way out of a kNotFound.
std::string known_steps(const std::vector<std::uint64_t>& steps) {
  if (steps.empty()) return "; the store has no steps";
  constexpr std::size_t kShown = 8;
  const std::size_t first = steps.size() > kShown ? steps.size() - kShown : 0;
  std::string text = steps.size() == 1 ? "; it has step " : "; it has steps ";
  for (std::size_t i = first; i < steps.size(); ++i) {
    text += fmt::format("{}{}", i == first ? "" : ", ", steps[i]);
  }
  if (steps.size() > kShown) text += fmt::format(" and {} earlier ones", steps.size() - kShown);
  return text;
}

tl::unexpected<Error> step_not_found(const StoreImpl& store, std::uint64_t step,
                                     const std::vector<std::uint64_t>& steps) {
  return fail(ErrorCode::kNotFound, fmt::format("step {} is not in {}{}", step,
                                                store.directory().string(), known_steps(steps)));
}

}  // namespace

Store::Store(std::shared_ptr<StoreImpl> impl) : impl_(std::move(impl)) {}

Store::~Store() = default;

Result<std::unique_ptr<Store>> Store::open(const std::filesystem::path& directory,
                                           const OpenOptions& options) {
  if (directory.empty()) return fail(ErrorCode::kInvalidArgument, "store: the path is empty");
  // "run/" is the directory "run".
  const std::filesystem::path path = directory.has_filename() ? directory : directory.parent_path();
  auto impl = std::make_shared<StoreImpl>(path, options);
  STEPSTONE_TRY(impl->open());
  return std::unique_ptr<Store>(new Store(std::move(impl)));
}

Result<void> Store::close() {
  if (impl_ == nullptr) return {};
  if (impl_.use_count() != 1) {
    return fail(ErrorCode::kBusy, fmt::format("store {}: a reader or a save of it is still there",
                                              impl_->directory().string()));
  }
  impl_->shut_down();
  impl_.reset();
  return {};
}

std::filesystem::path Store::directory() const {
  return impl_ == nullptr ? std::filesystem::path() : impl_->directory();
}

bool Store::is_read_only() const { return impl_ == nullptr || impl_->options().read_only; }

bool Store::is_current() const { return impl_ == nullptr || !impl_->was_changed_by_writer(); }

std::vector<std::uint64_t> Store::steps() const {
  return impl_ == nullptr ? std::vector<std::uint64_t>() : impl_->registry().steps();
}

std::optional<std::uint64_t> Store::latest_step() const {
  const std::vector<std::uint64_t> all = steps();
  if (all.empty()) return std::nullopt;
  return all.back();
}

std::vector<SaveId> Store::saves() const {
  return impl_ == nullptr ? std::vector<SaveId>() : impl_->registry().visible_saves();
}

std::string Store::custom_metadata() const {
  return impl_ == nullptr ? std::string() : impl_->custom_metadata();
}

Result<void> Store::set_custom_metadata(const std::string& json) {
  if (impl_ == nullptr) return closed();
  return impl_->set_custom_metadata(json);
}

Result<StepRecord> Store::step_record(std::uint64_t step) const {
  if (impl_ == nullptr) return closed();
  std::optional<VisibleStep> found = impl_->registry().find(step);
  if (!found) return step_not_found(*impl_, step, steps());
  return std::move(found->record);
}

Result<std::shared_ptr<const StepReader>> Store::read_step(std::uint64_t step) const {
  if (impl_ == nullptr) return closed();
  std::optional<SaveRegistry::Leased> leased = impl_->registry().lease(step);
  if (!leased) return step_not_found(*impl_, step, steps());
  return std::shared_ptr<const StepReader>(
      new StepReader(std::make_unique<StepReaderImpl>(impl_, *std::move(leased))));
}

Result<void> Store::retire(std::span<const std::uint64_t> steps_to_retire) {
  if (impl_ == nullptr) return closed();
  STEPSTONE_TRY(impl_->check_writable());
  for (const std::uint64_t step : steps_to_retire) {
    if (!impl_->registry().find(step)) return step_not_found(*impl_, step, steps());
  }
  if (steps_to_retire.empty()) return {};
  STEPSTONE_TRY(impl_->commit(nullptr, steps_to_retire));
  return {};
}

Result<RecompressCounters> Store::recompress(std::uint64_t step) {
  if (impl_ == nullptr) return closed();
  STEPSTONE_TRY(impl_->check_writable());
  if (!impl_->registry().find(step)) return step_not_found(*impl_, step, steps());
  return STEPSTONE_TRY(Recompression::run(impl_, step,
                                          {.thread_count = impl_->thread_count(),
                                           .untouched_steps = {},
                                           .throttle = nullptr}))
      .counters;
}

void Store::wait_for_collector() {
  if (impl_ != nullptr) impl_->wait_for_background();
}

}  // namespace stepstone
