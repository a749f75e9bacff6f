#pragma once
// Portable files (.stone) on the command line: steps as they are, with all that is known of them.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "tools/command/command.h"
#include "tools/transfer_choice.h"

namespace stepstone::tool {

inline constexpr std::string_view kPortableFormatName = "stone";
inline constexpr std::string_view kPortableExtension = ".stone";

// By its first bytes, or, of a file that is yet to be written, by its extension.
bool is_portable_file(const std::filesystem::path& path);
bool is_portable_name(const std::filesystem::path& path);

struct PortableExport {
  std::filesystem::path store;
  std::vector<std::uint64_t> steps;  // Empty: all.
  std::filesystem::path file;
  TransferChoice choice;
  bool overwrite = false;
};
Result<int> export_portable(const PortableExport& arguments, Console& console);

struct PortableImport {
  std::filesystem::path file;
  std::filesystem::path store;
  std::optional<std::uint64_t> as_step;  // The file's only step is saved as this one.
  TransferChoice choice;                 // Of what is in the file.
  bool overwrite = false;
  bool skip_existing = false;
};
Result<int> import_portable(const PortableImport& arguments, Console& console);

}  // namespace stepstone::tool
