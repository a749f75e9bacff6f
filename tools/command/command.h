#pragma once
// The tool's verbs. Each takes its arguments as the command line gave them, checked for form,
// writes its answer to the console and returns the exit code; an Error is written by the caller.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
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

struct Console {
  Output output;
  bool json = false;
};

struct ImportArguments {
  std::filesystem::path file;
  std::filesystem::path store;
  std::uint64_t step = 0;
  std::string item;
  bool overwrite = false;
};
Result<int> run_import(const ImportArguments& arguments, Console& console);

struct LsArguments {
  std::filesystem::path store;
};
Result<int> run_ls(const LsArguments& arguments, Console& console);

struct DuArguments {
  std::filesystem::path store;
};
Result<int> run_du(const DuArguments& arguments, Console& console);

struct ShowArguments {
  std::filesystem::path store;
  std::uint64_t step = 0;
  std::optional<std::string> item;
};
Result<int> run_show(const ShowArguments& arguments, Console& console);

enum class CatFormat { kRaw, kNpy, kJson };
struct CatArguments {
  std::filesystem::path store;
  std::uint64_t step = 0;
  LeafPath leaf;
  std::optional<std::string> item;
  CatFormat format = CatFormat::kRaw;
  bool force = false;
};
Result<int> run_cat(const CatArguments& arguments, Console& console);

struct ExportArguments {
  std::filesystem::path store;
  std::uint64_t step = 0;
  std::filesystem::path file;
  std::optional<std::string> item;
  bool force = false;
};
Result<int> run_export(const ExportArguments& arguments, Console& console);

struct VerifyArguments {
  std::filesystem::path store;
  std::optional<std::uint64_t> step;
};
Result<int> run_verify(const VerifyArguments& arguments, Console& console);

struct RmArguments {
  std::filesystem::path store;
  std::vector<std::uint64_t> steps;
};
Result<int> run_rm(const RmArguments& arguments, Console& console);

struct RecompressArguments {
  std::filesystem::path store;
  std::vector<std::uint64_t> steps;  // Empty: all.
};
Result<int> run_recompress(const RecompressArguments& arguments, Console& console);

// What several verbs share.

Result<std::unique_ptr<Store>> open_for_reading(const std::filesystem::path& directory);

// The item that was asked for, by its bytes or as printable() shows it; without one, the step's
// only item. kNotFound, kInvalidArgument: names the items there are.
Result<std::string> choose_item(const StepRecord& step, const std::optional<std::string>& wanted);

// "float32" for an array, "string" for a string.
std::string_view type_name(const LeafRecord& record);

// Reads a leaf from front to back in pieces, each but the last a multiple of 16 bytes (and so of
// every element), and hands them to `consume` until it returns false. Memory: one piece, a few MiB.
Result<void> stream_leaf(
    const StepReader& step, std::string_view item, const StoredLeaf& leaf,
    const std::function<Result<bool>(std::span<const std::byte> piece)>& consume);

}  // namespace stepstone::tool
