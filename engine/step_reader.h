#pragma once
// The inside of a StepReader of a database's step.

#include <rocksdb/slice.h>

#include <memory>
#include <string>

#include "engine/chunk_places.h"
#include "engine/chunk_scratch.h"
#include "engine/segment_files.h"
#include "engine/store.h"
#include "engine/store_content.h"
#include "engine/store_impl.h"

namespace stepstone {

class StepReaderImpl final : public StepContent {
 public:
  StepReaderImpl(std::shared_ptr<StoreImpl> store, SaveRegistry::Leased leased)
      : store_(std::move(store)),
        record_(std::move(leased.record)),
        lease_(std::move(leased.lease)),
        files_(*store_, record_) {}

  const StepRecord& record() const override { return record_; }
  StoreImpl& store() const { return *store_; }

  // The value of one key of this save, wherever the step is placed; nullopt: there is none.
  Result<std::optional<rocksdb::PinnableSlice>> get(const std::string& key, bool is_chunk) const;

  Result<void> hold_files() const override;
  Result<ItemRecord> read_item(std::string_view item, const LeafPath& below = {}) const override;
  Result<std::vector<StoredLeaf>> read_leaves(
      std::string_view item, const LeafPath& below = {},
      const TreeStructure* structure = nullptr) const override;
  Result<StoredLeaf> read_leaf(std::string_view item, std::string encoded_path) const override;
  Result<void> read_bytes(std::string_view item, const StoredLeaf& leaf, std::uint64_t offset,
                          std::span<std::byte> destination) const override;
  Result<void> read_all(std::span<const ReadRequest> requests) const override;
  Result<LeafView> view(std::string_view item, const StoredLeaf& leaf,
                        ViewCheck check) const override;
  // Where a chunk that has an entry of its own stands.
  std::string key_of_chunk(std::string_view item, const StoredLeaf& leaf,
                           std::uint32_t chunk) const;
  // The same of what a chunk of codec delta differs from; `record` is that of its leaf.
  static std::string key_of_base(std::string_view item, std::string_view encoded_path,
                                 const LeafRecord& record, const ChunkBase& base);
  // That chunk, which has the size of `destination`, checked. Its errors do not name it.
  Result<void> read_base(std::string_view item, std::string_view encoded_path,
                         const LeafRecord& record, const ChunkBase& base,
                         std::span<std::byte> destination) const;
  // A whole chunk, read from the file where it stands without a look-up. False: that does not lead
  // to the right bytes, and read_chunk() is to find out; the destination may have been written to.
  bool read_chunk_at(std::string_view item, const StoredLeaf& leaf, std::uint32_t chunk,
                     const ChunkPlace& place, std::span<std::byte> destination) const;
  // The bytes [begin, begin + destination.size()) of one chunk, the whole of which is checked.
  Result<void> read_chunk(std::string_view item, const StoredLeaf& leaf, std::uint32_t chunk,
                          std::size_t begin, std::span<std::byte> destination) const;

 private:
  rocksdb::ColumnFamilyHandle* family() const;
  // Encoded paths that part an item's leaf records into pieces of similar size, ascending.
  std::vector<std::string> part_leaves(std::string_view item, const LeafPath& below,
                                       const TreeStructure* structure) const;
  // Appends the leaves whose records stand in `keys`, of which `item_prefix_size` bytes are the
  // item's.
  Result<void> scan_leaves(std::string_view item, const KeyRange& keys,
                           std::size_t item_prefix_size, std::vector<StoredLeaf>& leaves) const;
  Result<std::vector<StoredLeaf>> look_up_leaves(std::string_view item, const LeafPath& below,
                                                 const TreeStructure* structure) const;
  Error to_read_error(const rocksdb::Status& status) const;

  std::shared_ptr<StoreImpl> store_;
  const StepRecord record_;
  std::unique_ptr<SaveRegistry::Lease> lease_;
  mutable SegmentFiles files_;
  mutable ChunkScratchPool scratches_;
};

}  // namespace stepstone
