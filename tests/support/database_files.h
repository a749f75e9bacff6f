#pragma once
// What RocksDB itself says of a store's files, asked behind the engine's back.

#include <memory>
#include <string>

namespace rocksdb {
class FileSystem;
}

namespace stepstone {

// Empty if the *.sst files of the directory are exactly those that its MANIFEST names and
// `staging/` is empty, else what is too many or too few. The store may be open, but must be idle.
std::string stray_files(const std::shared_ptr<rocksdb::FileSystem>& file_system,
                        const std::string& directory);

}  // namespace stepstone
