#pragma once
// Writes a portable file front to back in one pass, into whatever takes its bytes. The format is
// specified in format/README.md, section "The portable file".
//
//   auto writer = STEPSTONE_TRY(PortableWriter::create(sink, {}));
//   STEPSTONE_TRY(writer.begin_step({.step = 1000}));
//   STEPSTONE_TRY(writer.begin_item({.name = "state", .handler = "standard", .structure = tree}));
//   for (...) STEPSTONE_TRY(writer.add_leaf(leaf, bytes));
//   STEPSTONE_TRY(writer.end_step());
//   STEPSTONE_TRY(writer.finish());

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "format/dtype.h"
#include "format/error.h"
#include "format/hash.h"
#include "format/tree_structure.h"

namespace stepstone {

// Where the file goes: its bytes are appended in order and never touched again. Creating a file
// atomically and making it durable is the business of whoever implements this.
class PortableSink {
 public:
  virtual ~PortableSink() = default;
  virtual Result<void> append(std::span<const std::byte> bytes) = 0;
};

// The bytes of one leaf, chunk by chunk. The writer asks for each chunk at most once, in ascending
// order, and only for those that the file does not hold yet.
class PortableLeafBytes {
 public:
  virtual ~PortableLeafBytes() = default;
  // Of all chunks, if they are known; with them, what the file holds already is not read again.
  virtual std::span<const Hash128> hashes() const { return {}; }
  // Of exactly the size that chunk `chunk` has; valid until the next call.
  virtual Result<std::span<const std::byte>> chunk(std::uint32_t chunk) = 0;
};

struct PortableWriteOptions {
  // Chunks are stored in the codec that makes them smallest. What is compressed cannot be viewed
  // in a mapping.
  bool compress = false;
  // Chunks that an earlier step of the file holds, and leaves that any does, are not stored again.
  // A leaf of which only a part was shared stands in pieces, and cannot be viewed as a whole.
  bool share = true;
  // For remembering what can be shared; what does not fit is stored again.
  std::size_t sharing_memory_bytes_max = std::size_t{64} << 20;
};

struct PortableStepInfo {
  std::uint64_t step = 0;
  std::int64_t started_unix_ns = 0;
  std::int64_t committed_unix_ns = 0;
  std::string metrics;          // JSON text, or empty.
  std::string custom_metadata;  // JSON text, or empty.
  std::string store_metadata;   // That of the store as a whole; readers look at the last step's.
};

struct PortableItemInfo {
  std::string name;
  std::string handler;
  TreeStructure structure;
  std::string custom_metadata;  // JSON text, or empty.
};

struct PortableLeafInfo {
  std::string encoded_path;
  LeafKind kind = LeafKind::kArray;
  std::optional<DType> dtype;  // Set exactly for kArray.
  std::vector<std::uint64_t> shape;
  std::uint64_t size_bytes = 0;
  std::uint32_t chunk_size_bytes = std::uint32_t{256} << 10;  // A multiple of 64.
};

// Holds, whatever it writes: a few megabytes of buffers, a chunk, the records of the item and step
// at hand, a page of each level of the index, and what it remembers for sharing. Belongs to one
// thread at a time. Throws std::bad_alloc.
//
// Errors of every call: kInvalidArgument and kLimit for what could not be read back, or comes out
// of order, before anything of it is written, so that the writer can go on; the errors of the sink
// and of a leaf's bytes, after which the file is not to be finished and every further call is
// kClosed.
class PortableWriter {
 public:
  // `sink` must live as long as the writer does.
  static Result<PortableWriter> create(PortableSink& sink, PortableWriteOptions options);

  PortableWriter(PortableWriter&&) noexcept;
  PortableWriter& operator=(PortableWriter&&) noexcept;
  ~PortableWriter();

  // Steps come in ascending order.
  Result<void> begin_step(PortableStepInfo step);
  // Ends the item before. The items of a step come in ascending order of their names as bytes.
  Result<void> begin_item(PortableItemInfo item);
  // The leaves of an item come in ascending order of their encoded paths, and are exactly those of
  // its structure. kCorrupt: a chunk does not match the hash that its source gave.
  Result<void> add_leaf(const PortableLeafInfo& leaf, PortableLeafBytes& bytes);
  // The same for a leaf that lies in memory.
  Result<void> add_leaf(const PortableLeafInfo& leaf, std::span<const std::byte> bytes);
  // A step has at least one item.
  Result<void> end_step();
  // Writes the index and the footer; gives the size of the file in bytes. A file has at least one
  // step. The writer can do nothing more.
  Result<std::uint64_t> finish();

 private:
  class Impl;
  explicit PortableWriter(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace stepstone
