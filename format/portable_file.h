#pragma once
// Reads a portable file, which may come from a stranger: whatever its bytes are, nothing outside of
// it is read, nothing is believed before it was checked, and memory is taken only in proportion to
// the file's own size. Needs neither threads nor a database. The format is specified in
// format/README.md, section "The portable file".

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "chunk_codec.h"
#include "error.h"
#include "portable_layout.h"
#include "records.h"

namespace stepstone {

// One leaf of a portable file and where its chunks stand; only PortableFile makes one.
class PortableLeaf {
 public:
  // Says kind, dtype, shape, size_bytes and chunk_size_bytes.
  const LeafRecord& record() const { return record_; }
  // Whether its bytes stand as they are in one piece, or in the record, so that they can be viewed.
  bool is_contiguous() const;

 private:
  friend class PortableFile;
  friend class PortableVerification;

  LeafRecord record_;
  std::vector<std::uint64_t> chunk_offsets_;  // In the file; empty for an inline leaf.
};

// An open portable file. All functions but `=` are const and safe from several threads at once, if
// the read callback is. Errors of every function: kCorrupt, the file is damaged or was never a
// portable file; kUnsupported, a newer version wrote it; the errors of the read callback. Throws
// std::bad_alloc.
class PortableFile {
 public:
  // Fills `destination` with the file's bytes from `offset` on; is never asked beyond its end.
  using Read = std::function<Result<void>(std::uint64_t offset, std::span<std::byte> destination)>;
  enum class Check : std::uint8_t { kHashes, kNothing };

  // Of a file that lies in memory or is mapped, for as long as the PortableFile or a view from it
  // is used. Takes the same time whatever the file holds: header, footer and nothing else.
  static Result<PortableFile> open(std::span<const std::byte> mapping);
  // Of a file of `size_bytes` that `read` reads.
  static Result<PortableFile> open(std::uint64_t size_bytes, Read read);

  std::uint64_t size_bytes() const { return size_bytes_; }
  std::uint64_t step_count() const { return root(portable::Tree::kSteps).entry_count; }

  // The numbers of the steps, ascending, from the index alone.
  Result<std::vector<std::uint64_t>> steps() const;
  // Visits the steps in ascending order; an error of `visit` ends it and is returned.
  Result<void> for_each_step(const std::function<Result<void>(const StepRecord&)>& visit) const;
  // kNotFound: the step, the item or the leaf is not in the file.
  Result<StepRecord> step(std::uint64_t step) const;
  // Of the structure, the part at `below` alone; kNotFound: it has no such node.
  Result<ItemRecord> item(std::uint64_t step, std::string_view item,
                          const LeafPath& below = {}) const;
  // One look-up: a page for each level of the index (two hold 16,384 leaves) and the leaf's record.
  Result<PortableLeaf> leaf(std::uint64_t step, std::string_view item,
                            std::string_view encoded_path) const;
  // Visits an item's leaves in ascending order of their encoded paths. An item that is not there
  // has none.
  using VisitLeaf =
      std::function<Result<void>(std::string_view encoded_path, const PortableLeaf& leaf)>;
  Result<void> for_each_leaf(std::uint64_t step, std::string_view item,
                             const VisitLeaf& visit) const {
    return for_each_leaf(step, item, {}, visit);
  }
  // Only those below one of its containers.
  Result<void> for_each_leaf(std::uint64_t step, std::string_view item, const LeafPath& below,
                             const VisitLeaf& visit) const;

  // Fills `destination` with the leaf's bytes from `first_byte` on, each chunk checked against its
  // hash. The caller supplies the memory, having seen the leaf's size_bytes: a small file may
  // truthfully describe a huge array of zeros. Holds a chunk beside it. kInvalidArgument: not so
  // many bytes. After an error `destination` holds anything.
  Result<void> read(const PortableLeaf& leaf, std::uint64_t first_byte,
                    std::span<std::byte> destination, ChunkDecoder& decoder) const;

  // One chunk of a leaf, given by the leaf's record alone, checked against its hash. `chunk` is
  // below record.chunk_count(), and `destination` has the size of that chunk. A record that this
  // file did not give leads to kCorrupt, and never out of the file.
  Result<void> read_chunk(const LeafRecord& record, std::uint32_t chunk,
                          std::span<std::byte> destination, ChunkDecoder& decoder) const;

  // The leaf's bytes where they stand, aligned to 64 if the mapping is to a page; valid as long as
  // the mapping, and those of an inline leaf as long as `leaf`. With Check::kNothing only the pages
  // that are looked at are read, and damage is not noticed. kUnsupported: the leaf is compressed or
  // in pieces, or the file is not mapped; read() reads it.
  Result<std::span<const std::byte>> view(const PortableLeaf& leaf, Check check) const;

  // Checks everything: every byte of the file belongs to exactly one thing and has its hash,
  // every chunk decodes, and steps, items and leaves agree with each other. Takes memory for about
  // twice the file's records. Check::kNothing: all but the content of the chunks.
  Result<void> verify(Check check = Check::kHashes) const;

 private:
  friend class PortableVerification;

  // A record or page, in the mapping or in memory of its own.
  struct Bytes {
    std::string owned;
    std::string_view mapped;

    std::string_view view() const { return owned.empty() ? mapped : std::string_view(owned); }
  };
  struct KeyRange {
    std::string_view begin;
    std::optional<std::string_view> end;  // None: up to the last key.
  };
  using VisitEntry = std::function<Result<void>(std::string_view key, const portable::Place&)>;

  PortableFile(std::uint64_t size_bytes, std::span<const std::byte> mapping, Read read)
      : size_bytes_(size_bytes), mapping_(mapping), read_(std::move(read)) {}
  static Result<PortableFile> open(PortableFile file);

  const portable::Root& root(portable::Tree tree) const {
    return footer_.roots[static_cast<std::size_t>(tree)];
  }
  Result<void> read_at(std::uint64_t offset, std::span<std::byte> destination) const;
  Result<Bytes> load(const portable::Place& place) const;
  Result<portable::IndexPage> load_page(portable::Tree tree, std::uint32_t level,
                                        const portable::Place& place, const KeyRange& keys) const;
  Result<std::optional<portable::Place>> find(portable::Tree tree, std::string_view key) const;
  Result<void> scan(portable::Tree tree, const KeyRange& wanted, const VisitEntry& visit) const;
  Result<void> scan_page(portable::Tree tree, std::uint32_t level, const portable::Place& place,
                         const KeyRange& keys, const KeyRange& wanted,
                         const VisitEntry& visit) const;
  Result<StepRecord> load_step(std::string_view key, const portable::Place& place) const;
  Result<PortableLeaf> load_leaf(std::string_view key, const portable::Place& place) const;
  Result<void> read_chunk_at(std::uint64_t offset, const LeafRecord& record, std::uint32_t chunk,
                             std::span<std::byte> destination, ChunkDecoder& decoder) const;

  std::uint64_t size_bytes_ = 0;
  std::span<const std::byte> mapping_;  // Empty if `read_` is set.
  Read read_;
  portable::Footer footer_;
};

}  // namespace stepstone
