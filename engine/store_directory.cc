#include "engine/store_directory.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <vector>

#include "engine/head_file.h"
#include "engine/rocksdb_support.h"
#include "format/leaf_path.h"

namespace stepstone {
namespace {

// Whether a file of this name might be taken for one of the store's, which RocksDB deletes when it
// does not know it, or for those of another database.
bool is_database_name(const std::string& name) {
  constexpr std::array<const char*, 13> kPatterns = {
      "CURRENT", "IDENTITY", "LOG",     "LOG.old.*", "MANIFEST-*", "OPTIONS-*",      "*.sst",
      "*.log",   "*.blob",   "*.dbtmp", "*.ldb",     "HEAD*",      kStagingDirectory};
  return std::any_of(kPatterns.begin(), kPatterns.end(),
                     [&](const char* pattern) { return fnmatch(pattern, name.c_str(), 0) == 0; });
}

bool file_exists(rocksdb::FileSystem& file_system, const std::filesystem::path& path) {
  return file_system.FileExists(path.string(), rocksdb::IOOptions(), nullptr).ok();
}

// Creates the directory and its parents, durably: each new one is synced into the one above.
Result<void> create_directories(rocksdb::FileSystem& file_system,
                                const std::filesystem::path& path) {
  if (file_exists(file_system, path)) return {};
  const std::filesystem::path parent = path.parent_path();
  if (!parent.empty() && parent != path) STEPSTONE_TRY(create_directories(file_system, parent));
  STEPSTONE_TRY(
      to_result(file_system.CreateDirIfMissing(path.string(), rocksdb::IOOptions(), nullptr),
                "directory " + path.string()));
  return sync_directory(file_system, parent.empty() ? "." : parent.string());
}

// HEAD comes before the database, so that a database without HEAD is never taken for ours. It is
// created under RocksDB's lock: of several processes that create the store at once, one gives it
// its identity.
Result<void> create_head(StoreFileSystem& file_system, const std::filesystem::path& directory) {
  const rocksdb::IOOptions io;
  rocksdb::FileLock* lock = nullptr;
  const rocksdb::IOStatus locked =
      file_system.LockFile((directory / "LOCK").string(), io, &lock, nullptr);
  if (file_system.lock_was_refused()) {
    return fail(ErrorCode::kBusy, "another process is creating it: try again in a moment");
  }
  STEPSTONE_TRY(to_result(locked, "LOCK"));
  const auto create = [&]() -> Result<void> {
    const std::filesystem::path path = directory / "HEAD";
    if (file_exists(file_system, path)) return {};
    StoreRecord fresh;
    fresh.store_id = random_id();
    STEPSTONE_TRY(HeadFile::create(file_system, directory.string(), path.string(), head_of(fresh)));
    return {};
  };
  const Result<void> created = create();
  STEPSTONE_TRY(to_result(file_system.UnlockFile(lock, io, nullptr), "LOCK"));
  return created;
}

}  // namespace

tl::unexpected<Error> corrupt_store(std::string what) {
  return fail(ErrorCode::kCorrupt,
              std::move(what) + "; nothing was deleted: keep a copy of the directory as it is");
}

Hash128 random_id() {
  std::random_device device;
  const auto draw = [&] { return std::uint64_t{device()} << 32 | device(); };
  return {draw(), draw()};
}

Head head_of(const StoreRecord& record) {
  return {.store_id = record.store_id,
          .sequence = record.sequence,
          .step_count = record.step_count,
          .steps_digest = record.steps_digest,
          .newest_step = record.newest_step,
          .newest_step_hash = record.newest_step_hash};
}

bool has_database(rocksdb::FileSystem& file_system, const std::filesystem::path& directory) {
  return file_exists(file_system, directory / "CURRENT");
}

Result<void> prepare_store_directory(StoreFileSystem& file_system,
                                     const std::filesystem::path& directory,
                                     const OpenOptions& options) {
  const rocksdb::IOOptions io;
  const bool exists = file_exists(file_system, directory);
  if (!exists && !options.create_if_missing) {
    return fail(ErrorCode::kNotFound, "no such directory");
  }
  if (exists) {
    bool is_directory = false;
    STEPSTONE_TRY(to_result(file_system.IsDirectory(directory.string(), io, &is_directory, nullptr),
                            "directory"));
    if (!is_directory) return fail(ErrorCode::kInvalidArgument, "it is a file, not a store");
  } else {
    STEPSTONE_TRY(create_directories(file_system, directory));
  }
  // In this order: whoever is creating the store creates HEAD first.
  const bool database_exists = has_database(file_system, directory);
  const bool has_head = file_exists(file_system, directory / "HEAD");
  if (has_head && database_exists) return {};
  if (has_head) {
    const Head head = STEPSTONE_TRY(HeadFile::read(file_system, (directory / "HEAD").string()));
    if (head.sequence != 0) {
      // Another process may have created it, and saved, since it was looked for.
      if (has_database(file_system, directory)) return {};
      return corrupt_store("the database is gone (no CURRENT), but HEAD witnesses steps");
    }
    if (options.create_if_missing) return {};
    return fail(ErrorCode::kNotFound, kInterruptedCreation);
  }
  if (database_exists) {
    return fail(ErrorCode::kInvalidArgument,
                "it holds a database without HEAD: it is not a store, or its HEAD was removed");
  }
  std::vector<std::string> children;
  STEPSTONE_TRY(
      to_result(file_system.GetChildren(directory.string(), io, &children, nullptr), "directory"));
  if (std::find(children.begin(), children.end(), "HEAD") != children.end()) {
    // Somebody else may just have created it.
    if (file_exists(file_system, directory / "HEAD")) {
      return prepare_store_directory(file_system, directory, options);
    }
    return fail(ErrorCode::kInvalidArgument, "its HEAD is a link that leads nowhere");
  }
  for (const std::string& child : children) {
    if (child == "." || child == ".." || child == "lost+found" || child == "HEAD.tmp" ||
        child == "LOCK") {
      continue;
    }
    if (options.create_if_missing && options.beside_other_files && !is_database_name(child)) {
      continue;
    }
    return fail(options.create_if_missing ? ErrorCode::kInvalidArgument : ErrorCode::kNotFound,
                fmt::format("it is not a store, and holds other things ('{}'): choose an empty or "
                            "new directory",
                            printable(child)));
  }
  if (!options.create_if_missing) {
    return fail(ErrorCode::kNotFound, "the directory is empty: no store was created there");
  }
  return create_head(file_system, directory);
}

}  // namespace stepstone
