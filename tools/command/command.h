#pragma once
// What the verbs share. Each writes its answer to the console and returns the exit code; an Error
// is written by main().

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/store.h"
#include "format/error.h"
#include "format/leaf_path.h"
#include "tools/output.h"

namespace stepstone::tool {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitInterrupted = 130;  // As a shell says of what SIGINT ended.

struct Console {
  Output output;
  bool json = false;
  bool color = false;
};

Result<std::unique_ptr<Store>> open_for_reading(const std::filesystem::path& directory);

// The item that was asked for, by its bytes or as printable() shows it; without one, the step's
// only item. kNotFound, kInvalidArgument: names the items there are.
Result<std::string> choose_item(const StepRecord& step, const std::optional<std::string>& wanted);

// Metrics or metadata for programs: the text, null if there is none.
nlohmann::ordered_json text_or_null(const std::string& text);

// The metrics for people, as a part of a line, cut where they are long.
std::string metrics_in_line(const StepRecord& step);

// "float32" for an array, "string" for a string.
std::string_view type_name(const LeafRecord& record);

// Reads a leaf from front to back in pieces, each but the last a multiple of 16 bytes (and so of
// every element), and hands them to `consume` until it returns false. Memory: one piece, a few MiB.
Result<void> stream_leaf(
    const StepReader& step, std::string_view item, const StoredLeaf& leaf,
    const std::function<Result<bool>(std::span<const std::byte> piece)>& consume);

}  // namespace stepstone::tool
