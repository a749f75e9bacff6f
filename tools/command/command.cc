#include "tools/command/command.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace stepstone::tool {

Result<std::unique_ptr<Store>> open_for_reading(const std::filesystem::path& directory) {
  return Store::open(directory, {.read_only = true});
}

Result<std::string> choose_item(const StepRecord& step, const std::optional<std::string>& wanted) {
  std::string names;
  for (const ItemSummary& item : step.items) {
    if (wanted && item.name == *wanted) return item.name;
    names += (names.empty() ? "'" : ", '") + printable(item.name) + "'";
  }
  for (const ItemSummary& item : step.items) {
    if (wanted && printable(item.name) == *wanted) return item.name;
  }
  const std::string place = "step " + std::to_string(step.save.step);
  if (wanted) {
    return fail(ErrorCode::kNotFound, place + " has no item '" + printable(*wanted) + "'; it has " +
                                          (names.empty() ? "none" : names));
  }
  if (step.items.size() == 1) return step.items.front().name;
  if (step.items.empty()) return fail(ErrorCode::kNotFound, place + " has no items");
  return fail(ErrorCode::kInvalidArgument,
              place + " has several items: choose one with --item: " + names);
}

nlohmann::ordered_json text_or_null(const std::string& text) {
  if (text.empty()) return nullptr;
  return printable(text);
}

std::string metrics_in_line(const StepRecord& step) {
  // Lines stay lines, whatever a trainer puts into its metrics.
  constexpr std::size_t kSizeMax = 100;
  std::string metrics = printable(step.metrics);
  if (metrics.size() <= kSizeMax) return metrics;
  // Not within a character.
  std::size_t size = kSizeMax;
  while ((static_cast<unsigned char>(metrics[size]) & 0xC0) == 0x80) --size;
  return metrics.substr(0, size) + "...";
}

std::string_view type_name(const LeafRecord& record) {
  return record.dtype ? to_string(*record.dtype) : to_string(record.kind);
}

Result<void> stream_leaf(
    const StepReader& step, std::string_view item, const StoredLeaf& leaf,
    const std::function<Result<bool>(std::span<const std::byte> piece)>& consume) {
  // Whole chunks, so that none is read and hashed twice; chunk sizes are not bound to be multiples
  // of 16, 16 chunks together are.
  constexpr std::uint64_t kPieceSizeBytes = std::uint64_t{4} << 20;
  const std::uint64_t unit = std::max<std::uint64_t>(leaf.record.chunk_size_bytes, 1) *
                             (leaf.record.chunk_size_bytes % 16 == 0 ? 1 : 16);
  const std::uint64_t piece_size = std::max(kPieceSizeBytes / unit, std::uint64_t{1}) * unit;
  const std::uint64_t size_bytes = leaf.record.size_bytes;
  std::vector<std::byte> buffer(static_cast<std::size_t>(std::min(piece_size, size_bytes)));
  for (std::uint64_t offset = 0; offset < size_bytes;) {
    const auto size =
        static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), size_bytes - offset));
    const std::span<std::byte> piece(buffer.data(), size);
    STEPSTONE_TRY(step.read_bytes(item, leaf, offset, piece));
    if (!STEPSTONE_TRY(consume(piece))) return {};
    offset += size;
  }
  return {};
}

}  // namespace stepstone::tool
