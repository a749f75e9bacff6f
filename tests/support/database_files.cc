#include "tests/support/database_files.h"

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <vector>

#include "tests/support/null_logger.h"

namespace stepstone {
std::string stray_files(const std::shared_ptr<rocksdb::FileSystem>& file_system,
                        const std::string& directory) {
  const std::unique_ptr<rocksdb::Env> env = rocksdb::NewCompositeEnv(file_system);
  rocksdb::DBOptions options;
  options.env = env.get();
  options.info_log = std::make_shared<NullLogger>();
  options.skip_checking_sst_file_sizes_on_db_open = true;
  std::vector<std::string> names;
  rocksdb::Status status = rocksdb::DB::ListColumnFamilies(options, directory, &names);
  if (!status.ok()) return "listing the column families: " + status.ToString();
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  for (const std::string& name : names) {
    families.emplace_back(name, rocksdb::ColumnFamilyOptions());
  }
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* opened = nullptr;
  status = rocksdb::DB::OpenForReadOnly(options, directory, families, &handles, &opened);
  if (!status.ok()) return "opening the database: " + status.ToString();
  const std::unique_ptr<rocksdb::DB> database(opened);
  std::vector<rocksdb::LiveFileMetaData> files;
  database->GetLiveFilesMetaData(&files);
  for (rocksdb::ColumnFamilyHandle* handle : handles) {
    database->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
  }
  std::set<std::string> live;
  for (const rocksdb::LiveFileMetaData& file : files) live.insert(file.relative_filename);

  std::vector<std::string> children;
  status = file_system->GetChildren(directory, rocksdb::IOOptions(), &children, nullptr);
  if (!status.ok()) return "listing the directory: " + status.ToString();
  std::set<std::string> present;
  for (const std::string& child : children) {
    if (std::filesystem::path(child).extension() == ".sst") present.insert(child);
  }
  std::vector<std::string> staged;
  status = file_system->GetChildren(directory + "/staging", rocksdb::IOOptions(), &staged, nullptr);
  if (!status.ok()) return "listing the staging directory: " + status.ToString();
  std::erase_if(staged, [](const std::string& name) { return name == "." || name == ".."; });

  std::string text;
  for (const std::string& name : present) {
    if (!live.contains(name)) text += name + " belongs to nobody; ";
  }
  for (const std::string& name : live) {
    if (!present.contains(name)) text += name + " is gone; ";
  }
  for (const std::string& name : staged) text += "staging/" + name + " was left behind; ";
  return text;
}

}  // namespace stepstone
