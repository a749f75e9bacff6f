#pragma once
// The directory of a store: telling it from anything else, and making it.

#include <rocksdb/file_system.h>

#include <filesystem>
#include <string>

#include "engine/file_system.h"
#include "engine/store.h"
#include "format/head.h"
#include "format/records.h"

namespace stepstone {

// Where files are written before they are ingested.
inline constexpr const char* kStagingDirectory = "staging";
inline constexpr const char* kInterruptedCreation =
    "its creation was interrupted: create it again (create_if_missing)";

// Tells a store, the remains of an interrupted creation, an empty place and anything else apart;
// creates the directory and HEAD where that was asked for. Errors as of Store::open.
Result<void> prepare_store_directory(StoreFileSystem& file_system,
                                     const std::filesystem::path& directory,
                                     const OpenOptions& options);

bool has_database(rocksdb::FileSystem& file_system, const std::filesystem::path& directory);

// What HEAD witnesses of this record's commit.
Head head_of(const StoreRecord& record);

// kCorrupt, with what to do.
tl::unexpected<Error> corrupt_store(std::string what);

// Of a store, or of a run.
Hash128 random_id();

}  // namespace stepstone
