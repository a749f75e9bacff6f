#include "api/shared_store.h"

#include <sys/stat.h>

#include <compare>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "format/assert.h"

namespace stepstone {
namespace {

struct DirectoryId {
  dev_t device = 0;
  ino_t inode = 0;

  auto operator<=>(const DirectoryId&) const = default;
};

std::optional<DirectoryId> id_of(const std::filesystem::path& directory) {
  struct stat status {};
  if (stat(directory.c_str(), &status) != 0) return std::nullopt;
  return DirectoryId{status.st_dev, status.st_ino};
}

}  // namespace

// An open store. Each share holds it; who holds the table's mutex may trust its use_count().
struct SharedStore::Entry {
  explicit Entry(std::unique_ptr<Store> opened) : store(std::move(opened)) {}

  std::unique_ptr<Store> store;
};

// The entries are kept by the shares; one whose last share has gone is null here.
struct SharedStore::Table {
  std::mutex mutex;
  std::map<DirectoryId, std::weak_ptr<Entry>> writers;
  std::map<DirectoryId, std::weak_ptr<Entry>> readers;

  static std::shared_ptr<Entry> find(const std::map<DirectoryId, std::weak_ptr<Entry>>& entries,
                                     DirectoryId id) {
    const auto found = entries.find(id);
    return found == entries.end() ? nullptr : found->second.lock();
  }

  void forget_closed() {
    const auto is_closed = [](const auto& entry) { return entry.second.expired(); };
    std::erase_if(writers, is_closed);
    std::erase_if(readers, is_closed);
  }
};

// Never destroyed: a share may be held by an object that goes at the end of the process.
SharedStore::Table& SharedStore::table() {
  static auto* const kTable = new Table;
  return *kTable;
}

Result<std::shared_ptr<SharedStore::Entry>> SharedStore::find_or_open(
    const std::filesystem::path& directory, const OpenOptions& options) {
  Table& stores = table();
  const std::optional<DirectoryId> id = id_of(directory);
  if (id) {
    if (auto writer = Table::find(stores.writers, *id)) return writer;
    auto reader = options.read_only ? Table::find(stores.readers, *id) : nullptr;
    if (reader && reader->store->is_current()) return reader;
  }
  auto entry = std::make_shared<Entry>(STEPSTONE_TRY(Store::open(directory, options)));
  // It may not have been there before.
  const std::optional<DirectoryId> opened_id = id_of(directory);
  stores.forget_closed();
  if (opened_id) (options.read_only ? stores.readers : stores.writers)[*opened_id] = entry;
  return entry;
}

SharedStore::SharedStore(std::shared_ptr<Entry> entry, std::filesystem::path directory,
                         OpenOptions options)
    : entry_(std::move(entry)), directory_(std::move(directory)), options_(std::move(options)) {}

Result<SharedStore> SharedStore::open(const std::filesystem::path& directory,
                                      const OpenOptions& options) {
  if (options.file_system != nullptr) {
    auto store = STEPSTONE_TRY(Store::open(directory, options));
    return SharedStore(std::make_shared<Entry>(std::move(store)), directory, options);
  }
  const std::scoped_lock lock(table().mutex);
  return SharedStore(STEPSTONE_TRY(find_or_open(directory, options)), directory, options);
}

SharedStore::SharedStore(SharedStore&& other) noexcept = default;

SharedStore& SharedStore::operator=(SharedStore&& other) noexcept {
  std::swap(entry_, other.entry_);
  std::swap(directory_, other.directory_);
  std::swap(options_, other.options_);
  return *this;
}

SharedStore::~SharedStore() {
  if (entry_ == nullptr) return;
  // Whoever opens the directory next is to find it closed, and not being closed.
  const std::scoped_lock lock(table().mutex);
  entry_.reset();
}

SharedStore SharedStore::share() const {
  STEPSTONE_ASSERT(entry_ != nullptr);
  // Nobody may be about to find that it is the last one.
  const std::scoped_lock lock(table().mutex);
  return SharedStore(entry_, directory_, options_);
}

Store& SharedStore::operator*() const {
  STEPSTONE_ASSERT(entry_ != nullptr);
  return *entry_->store;
}

Store* SharedStore::operator->() const { return &**this; }

Result<void> SharedStore::reload() {
  if (entry_ == nullptr) return fail(ErrorCode::kClosed, "the store is closed");
  if (!entry_->store->is_read_only()) return {};
  const std::scoped_lock lock(table().mutex);
  if (options_.file_system == nullptr) {
    entry_ = STEPSTONE_TRY(find_or_open(directory_, options_));
  } else if (!entry_->store->is_current()) {
    entry_->store = STEPSTONE_TRY(Store::open(directory_, options_));
  }
  return {};
}

Result<void> SharedStore::close() {
  if (entry_ == nullptr) return {};
  const std::scoped_lock lock(table().mutex);
  if (entry_.use_count() == 1) STEPSTONE_TRY(entry_->store->close());
  entry_.reset();
  return {};
}

}  // namespace stepstone
