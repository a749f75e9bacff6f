#pragma once
// The inside of a Store that is a portable file. Everything is read with pread, which gives an
// error where a mapping of a file that has become shorter, or of a failing disk, would stop the
// process; views alone map it.

#include <filesystem>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/chunk_scratch.h"
#include "engine/read_only_file.h"
#include "engine/store_content.h"
#include "format/portable_file.h"

namespace stepstone {

class PortableStore final : public StoreContent,
                            public std::enable_shared_from_this<PortableStore> {
 public:
  // Errors as of Store::open, for a path where a regular file is.
  static Result<std::shared_ptr<PortableStore>> open(const std::filesystem::path& path,
                                                     const OpenOptions& options);

  PortableStore(std::filesystem::path path, unsigned thread_count,
                std::unique_ptr<ReadOnlyFile> file, PortableFile content,
                std::vector<std::uint64_t> steps);

  const std::filesystem::path& directory() const override { return path_; }
  bool is_read_only() const override { return true; }
  bool is_current() const override { return file_->is_current(); }
  unsigned thread_count() const override { return thread_count_; }
  std::vector<SaveId> saves() const override;
  Result<std::optional<StepRecord>> find_step(std::uint64_t step) override;
  Result<std::unique_ptr<StepContent>> open_step(std::uint64_t step) override;
  Result<std::string> custom_metadata() override;
  std::string preservation_policy() override { return {}; }
  Result<VerifyReport> verify(const VerifyOptions& options) override;
  Result<void> check_whole() override;
  Result<StoreUsage> usage() override;
  Result<std::shared_ptr<StoreImpl>> writable() override;
  void wait_for_background() override {}
  void shut_down() override {}

  const PortableFile& content() const { return content_; }
  ChunkScratchPool& scratches() { return scratches_; }

  // The file, mapped when somebody asks for the first time.
  struct Mapped {
    std::shared_ptr<const ReadOnlyFile::Mapping> mapping;
    PortableFile content;
  };
  Result<std::shared_ptr<const Mapped>> map();

  // With the path of the file in front.
  Error at_path(Error error) const;

 private:
  const std::filesystem::path path_;
  const unsigned thread_count_;
  const std::unique_ptr<ReadOnlyFile> file_;
  const PortableFile content_;
  const std::vector<std::uint64_t> steps_;
  ChunkScratchPool scratches_;
  std::mutex mapped_mutex_;
  std::shared_ptr<const Mapped> mapped_;
};

class PortableStepReader final : public StepContent {
 public:
  PortableStepReader(std::shared_ptr<PortableStore> store, StepRecord record)
      : store_(std::move(store)), record_(std::move(record)) {}

  const StepRecord& record() const override { return record_; }
  // The one file is open.
  Result<void> hold_files() const override { return {}; }
  Result<ItemRecord> read_item(std::string_view item, const LeafPath& below) const override;
  Result<std::vector<StoredLeaf>> read_leaves(std::string_view item, const LeafPath& below,
                                              const TreeStructure* structure) const override;
  Result<StoredLeaf> read_leaf(std::string_view item, std::string encoded_path) const override;
  Result<void> read_bytes(std::string_view item, const StoredLeaf& leaf, std::uint64_t offset,
                          std::span<std::byte> destination) const override;
  Result<void> read_all(std::span<const ReadRequest> requests) const override;
  Result<LeafView> view(std::string_view item, const StoredLeaf& leaf,
                        ViewCheck check) const override;

 private:
  Result<void> read_chunk(std::string_view item, const StoredLeaf& leaf, std::uint32_t chunk,
                          std::span<std::byte> destination) const;
  // What the step says is there: its absence is damage.
  template <typename Value>
  Result<Value> expected(Result<Value> result) const;

  const std::shared_ptr<PortableStore> store_;
  const StepRecord record_;
};

}  // namespace stepstone
