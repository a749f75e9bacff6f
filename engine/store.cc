#include "engine/store.h"

#include <fmt/format.h>

#include <system_error>

#include "engine/portable_store.h"
#include "engine/recompression.h"
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

tl::unexpected<Error> step_not_found(const Store& store, std::uint64_t step) {
  return fail(ErrorCode::kNotFound,
              fmt::format("step {} is not in {}{}", step, store.directory().string(),
                          known_steps(store.steps())));
}

bool is_regular_file(const std::filesystem::path& path, const OpenOptions& options) {
  if (options.file_system == nullptr) {
    std::error_code error;
    return std::filesystem::is_regular_file(path, error);
  }
  const rocksdb::IOOptions io;
  bool is_directory = false;
  return options.file_system->FileExists(path.string(), io, nullptr).ok() &&
         options.file_system->IsDirectory(path.string(), io, &is_directory, nullptr).ok() &&
         !is_directory;
}

}  // namespace

Store::Store(std::shared_ptr<StoreContent> content) : content_(std::move(content)) {}

Store::~Store() = default;

Result<std::unique_ptr<Store>> Store::open(const std::filesystem::path& directory,
                                           const OpenOptions& options) {
  if (directory.empty()) return fail(ErrorCode::kInvalidArgument, "store: the path is empty");
  // "run/" is the directory "run".
  const std::filesystem::path path = directory.has_filename() ? directory : directory.parent_path();
  if (is_regular_file(path, options)) {
    auto file = STEPSTONE_TRY(PortableStore::open(path, options));
    return std::unique_ptr<Store>(new Store(std::move(file)));
  }
  auto impl = std::make_shared<StoreImpl>(path, options);
  STEPSTONE_TRY(impl->open());
  return std::unique_ptr<Store>(new Store(std::move(impl)));
}

Result<void> Store::close() {
  if (content_ == nullptr) return {};
  if (content_.use_count() != 1) {
    return fail(ErrorCode::kBusy, fmt::format("store {}: a reader or a save of it is still there",
                                              content_->directory().string()));
  }
  content_->shut_down();
  content_.reset();
  return {};
}

std::filesystem::path Store::directory() const {
  return content_ == nullptr ? std::filesystem::path() : content_->directory();
}

bool Store::is_read_only() const { return content_ == nullptr || content_->is_read_only(); }

bool Store::is_current() const { return content_ == nullptr || content_->is_current(); }

std::vector<std::uint64_t> Store::steps() const {
  std::vector<std::uint64_t> steps;
  for (const SaveId& save : saves()) steps.push_back(save.step);
  return steps;
}

std::optional<std::uint64_t> Store::latest_step() const {
  const std::vector<SaveId> all = saves();
  if (all.empty()) return std::nullopt;
  return all.back().step;
}

std::vector<SaveId> Store::saves() const {
  return content_ == nullptr ? std::vector<SaveId>() : content_->saves();
}

Result<std::string> Store::custom_metadata() const {
  return content_ == nullptr ? std::string() : content_->custom_metadata();
}

std::string Store::preservation_policy() const {
  return content_ == nullptr ? std::string() : content_->preservation_policy();
}

Result<std::shared_ptr<StoreImpl>> Store::writable() const {
  if (content_ == nullptr) return closed();
  return content_->writable();
}

Result<void> Store::set_custom_metadata(const std::string& json) {
  return STEPSTONE_TRY(writable())->set_custom_metadata(json);
}

Result<StepRecord> Store::step_record(std::uint64_t step) const {
  if (content_ == nullptr) return closed();
  std::optional<StepRecord> found = STEPSTONE_TRY(content_->find_step(step));
  if (!found) return step_not_found(*this, step);
  return *std::move(found);
}

Result<std::shared_ptr<const StepReader>> Store::read_step(std::uint64_t step) const {
  if (content_ == nullptr) return closed();
  std::unique_ptr<StepContent> content = STEPSTONE_TRY(content_->open_step(step));
  if (content == nullptr) return step_not_found(*this, step);
  return std::shared_ptr<const StepReader>(new StepReader(std::move(content)));
}

Result<void> Store::retire(std::span<const std::uint64_t> steps_to_retire) {
  const std::shared_ptr<StoreImpl> impl = STEPSTONE_TRY(writable());
  for (const std::uint64_t step : steps_to_retire) {
    if (!impl->registry().find(step)) return step_not_found(*this, step);
  }
  if (steps_to_retire.empty()) return {};
  STEPSTONE_TRY(impl->commit(nullptr, steps_to_retire));
  return {};
}

Result<RecompressCounters> Store::recompress(std::uint64_t step) {
  const std::shared_ptr<StoreImpl> impl = STEPSTONE_TRY(writable());
  if (!impl->registry().find(step)) return step_not_found(*this, step);
  return STEPSTONE_TRY(Recompression::run(impl, step,
                                          {.thread_count = impl->thread_count(),
                                           .untouched_steps = {},
                                           .throttle = nullptr}))
      .counters;
}

void Store::wait_for_collector() {
  if (content_ != nullptr) content_->wait_for_background();
}

Result<VerifyReport> Store::verify(const VerifyOptions& options) const {
  if (content_ == nullptr) return closed();
  if (options.step) {
    // Damage is for the report to tell.
    const Result<StepRecord> record = step_record(*options.step);
    if (!record && record.error().code == ErrorCode::kNotFound) {
      return tl::unexpected<Error>(record.error());
    }
  }
  return content_->verify(options);
}

Result<StoreUsage> Store::usage() const {
  if (content_ == nullptr) return closed();
  return content_->usage();
}

StepReader::StepReader(std::unique_ptr<StepContent> content) : content_(std::move(content)) {}

StepReader::~StepReader() = default;

const StepRecord& StepReader::record() const { return content_->record(); }

Result<void> StepReader::hold_files() const { return content_->hold_files(); }

Result<ItemRecord> StepReader::read_item(std::string_view item, const LeafPath& below) const {
  return content_->read_item(item, below);
}

Result<std::vector<StoredLeaf>> StepReader::read_leaves(std::string_view item,
                                                        const LeafPath& below,
                                                        const TreeStructure* structure) const {
  return content_->read_leaves(item, below, structure);
}

Result<StoredLeaf> StepReader::read_leaf(std::string_view item, std::string encoded_path) const {
  return content_->read_leaf(item, std::move(encoded_path));
}

Result<void> StepReader::read_bytes(std::string_view item, const StoredLeaf& leaf,
                                    std::uint64_t offset, std::span<std::byte> destination) const {
  return content_->read_bytes(item, leaf, offset, destination);
}

Result<void> StepReader::read_all(std::span<const ReadRequest> requests) const {
  return content_->read_all(requests);
}

Result<LeafView> StepReader::view(std::string_view item, const StoredLeaf& leaf,
                                  ViewCheck check) const {
  return content_->view(item, leaf, check);
}

}  // namespace stepstone
