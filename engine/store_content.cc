#include "engine/store_content.h"

#include <fmt/format.h>

#include "format/leaf_path.h"

namespace stepstone {

std::string step_name(std::uint64_t step) { return fmt::format("step {}", step); }

std::string item_name(std::uint64_t step, std::string_view item) {
  return fmt::format("step {} item '{}'", step, printable(item));
}

std::string leaf_name(std::uint64_t step, std::string_view item, std::string_view encoded_path) {
  return fmt::format("step {} item '{}' leaf '{}'", step, printable(item), to_text(encoded_path));
}

Result<void> check_item(const StepRecord& record, std::string_view item) {
  std::string names;
  for (const ItemSummary& summary : record.items) {
    if (summary.name == item) return {};
    names += (names.empty() ? "'" : ", '") + printable(summary.name) + "'";
  }
  return fail(ErrorCode::kNotFound, fmt::format("{} is not there; the step has {}",
                                                item_name(record.save.step, item), names));
}

Result<void> check_range(std::uint64_t step, std::string_view item, const StoredLeaf& leaf,
                         std::uint64_t offset, std::size_t size) {
  const std::uint64_t size_bytes = leaf.record.size_bytes;
  if (offset <= size_bytes && size <= size_bytes - offset) return {};
  return fail(
      ErrorCode::kInvalidArgument,
      fmt::format("{}: bytes {} to {} are not inside its {} bytes",
                  leaf_name(step, item, leaf.encoded_path), offset, offset + size, size_bytes));
}

Result<std::uint64_t> check_sizes(std::uint64_t step, std::span<const ReadRequest> requests) {
  std::uint64_t size_bytes = 0;
  for (const ReadRequest& request : requests) {
    if (request.destination.size() != request.leaf->record.size_bytes) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("{}: a destination of {} bytes for a leaf of {}",
                              leaf_name(step, request.item, request.leaf->encoded_path),
                              request.destination.size(), request.leaf->record.size_bytes));
    }
    size_bytes += request.destination.size();
  }
  return size_bytes;
}

}  // namespace stepstone
