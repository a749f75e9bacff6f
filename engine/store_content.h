#pragma once
// What a Store and a StepReader stand in front of: a database (StoreImpl, StepReaderImpl) or a
// portable file (PortableStore, PortableStepReader). Their calls are those of the classes in front,
// where they are described.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/store.h"

namespace stepstone {

// One step, held. Safe from several threads.
class StepContent {
 public:
  StepContent() = default;
  StepContent(const StepContent&) = delete;
  StepContent& operator=(const StepContent&) = delete;
  virtual ~StepContent() = default;

  virtual const StepRecord& record() const = 0;
  virtual Result<void> hold_files() const = 0;
  virtual Result<ItemRecord> read_item(std::string_view item, const LeafPath& below) const = 0;
  virtual Result<std::vector<StoredLeaf>> read_leaves(std::string_view item, const LeafPath& below,
                                                      const TreeStructure* structure) const = 0;
  virtual Result<StoredLeaf> read_leaf(std::string_view item, std::string encoded_path) const = 0;
  virtual Result<void> read_bytes(std::string_view item, const StoredLeaf& leaf,
                                  std::uint64_t offset, std::span<std::byte> destination) const = 0;
  virtual Result<void> read_all(std::span<const ReadRequest> requests) const = 0;
  virtual Result<LeafView> view(std::string_view item, const StoredLeaf& leaf,
                                ViewCheck check) const = 0;
};

// An open store. Safe from several threads, but for shut_down().
class StoreContent {
 public:
  StoreContent() = default;
  StoreContent(const StoreContent&) = delete;
  StoreContent& operator=(const StoreContent&) = delete;
  virtual ~StoreContent() = default;

  virtual const std::filesystem::path& directory() const = 0;
  virtual bool is_read_only() const = 0;
  virtual bool is_current() const = 0;
  virtual unsigned thread_count() const = 0;
  virtual std::vector<SaveId> saves() const = 0;
  // nullopt: there is no such step.
  virtual Result<std::optional<StepRecord>> find_step(std::uint64_t step) = 0;
  // Null: there is no such step.
  virtual Result<std::unique_ptr<StepContent>> open_step(std::uint64_t step) = 0;
  virtual Result<std::string> custom_metadata() = 0;
  virtual std::string preservation_policy() = 0;
  virtual Result<VerifyReport> verify(const VerifyOptions& options) = 0;
  // What no leaf shows, such as bytes that belong to nothing, where there can be such damage.
  virtual Result<void> check_whole() = 0;
  virtual Result<StoreUsage> usage() = 0;
  // The database to write to. kReadOnly, kClosed: there is none.
  virtual Result<std::shared_ptr<StoreImpl>> writable() = 0;
  virtual void wait_for_background() = 0;
  // When nobody else holds this object.
  virtual void shut_down() = 0;
};

// Less than this is read faster on one thread.
inline constexpr std::uint64_t kLargeSizeBytesMin = std::uint64_t{1} << 20;

// kNotFound: the step has no such item; names those that it has.
Result<void> check_item(const StepRecord& record, std::string_view item);
// kInvalidArgument: the bytes [offset, offset + size) are not inside the leaf.
Result<void> check_range(std::uint64_t step, std::string_view item, const StoredLeaf& leaf,
                         std::uint64_t offset, std::size_t size);
// The sum of the sizes. kInvalidArgument: a destination has another size than its leaf.
Result<std::uint64_t> check_sizes(std::uint64_t step, std::span<const ReadRequest> requests);

// What messages call a step, item or leaf.
std::string step_name(std::uint64_t step);
std::string item_name(std::uint64_t step, std::string_view item);
std::string leaf_name(std::uint64_t step, std::string_view item, std::string_view encoded_path);

}  // namespace stepstone
