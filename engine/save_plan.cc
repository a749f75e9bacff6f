#include "engine/save_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/store_content.h"
#include "format/limits.h"

namespace stepstone {

Result<void> check_chunk_size(std::uint32_t size_bytes) {
  if (size_bytes >= limits::kChunkSizeBytesMin && size_bytes <= limits::kChunkSizeBytesMax) {
    return {};
  }
  return fail(ErrorCode::kLimit,
              fmt::format("a chunk size of {} bytes is not between {} and {}", size_bytes,
                          limits::kChunkSizeBytesMin, limits::kChunkSizeBytesMax));
}

Result<LeafRecord> plan_record(const LeafInfo& info, std::uint32_t chunk_size_bytes) {
  STEPSTONE_TRY(check_chunk_size(chunk_size_bytes));
  const std::uint64_t chunk_count =
      info.size_bytes / chunk_size_bytes + (info.size_bytes % chunk_size_bytes != 0 ? 1 : 0);
  if (chunk_count > limits::kChunksPerLeafMax) {
    return fail(ErrorCode::kLimit,
                fmt::format("{} chunks of {} bytes are over the limit of {} chunks", chunk_count,
                            chunk_size_bytes, limits::kChunksPerLeafMax));
  }
  LeafRecord record{.kind = info.kind,
                    .dtype = info.dtype,
                    .shape = info.shape,
                    .size_bytes = info.size_bytes,
                    .chunk_size_bytes = chunk_size_bytes};
  record.hashes.resize(static_cast<std::size_t>(chunk_count));
  STEPSTONE_TRY(check(record));
  return record;
}

Result<void> check_paths(std::uint64_t step, const std::string& item,
                         const TreeStructure& structure,
                         const std::vector<const std::string*>& paths) {
  std::vector<std::string> expected;
  const auto add = [&](const std::string& path) -> Result<void> {
    expected.push_back(path);
    return {};
  };
  Result<void> visited = visit(structure, {.enter = {}, .leaf = add, .leave = {}});
  // Here it is the caller's, and nothing that was read.
  if (!visited && visited.error().code == ErrorCode::kCorrupt) {
    visited.error().code = ErrorCode::kInvalidArgument;
  }
  STEPSTONE_TRY_CONTEXT(std::move(visited), item_name(step, item));
  if (!std::is_sorted(expected.begin(), expected.end())) {
    std::sort(expected.begin(), expected.end());
  }
  for (std::size_t i = 0; i < std::max(expected.size(), paths.size()); ++i) {
    const std::string* const wanted = i < expected.size() ? &expected[i] : nullptr;
    const std::string* const given = i < paths.size() ? paths[i] : nullptr;
    if (wanted != nullptr && given != nullptr && *wanted == *given) continue;
    const bool is_missing = wanted != nullptr && (given == nullptr || *wanted < *given);
    return fail(ErrorCode::kMismatch,
                leaf_name(step, item, is_missing ? expected[i] : *paths[i]) +
                    (is_missing ? " is in the tree, but its value was not given"
                                : " was given, but is not in the tree (or was given twice)"));
  }
  return {};
}

}  // namespace stepstone
