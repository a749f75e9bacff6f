#pragma once
// What the writer and the reader of portable files share: the fixed bytes at both ends, and the
// pages of the index. The format is specified in format/README.md, section "The portable file".

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "error.h"
#include "hash.h"

namespace stepstone::portable {

// The first bytes of every portable file.
inline constexpr std::string_view kMagic = "\x89STONE\r\n";
inline constexpr std::size_t kHeaderSizeBytes = 64;
inline constexpr std::size_t kFooterSizeBytes = 192;
inline constexpr std::size_t kRecordAlignment = 8;
// Of a leaf's bytes: a vector unit's widest register, and a page where that costs next to nothing.
inline constexpr std::size_t kLeafAlignment = 64;
inline constexpr std::size_t kBigLeafAlignment = 4096;
inline constexpr std::uint64_t kBigLeafSizeBytesMin = std::uint64_t{256} << 10;

// Where a record or a page stands.
struct Place {
  Hash128 hash;  // The one that closes it.
  std::uint64_t offset = 0;
  std::uint64_t size_bytes = 0;

  bool operator==(const Place&) const = default;
};

// The three search trees of a file.
enum class Tree : std::uint8_t { kSteps = 0, kItems = 1, kLeaves = 2 };
inline constexpr std::size_t kTreeCount = 3;

struct Root {
  Place place;                    // Of the root's page; all zero in a tree without entries.
  std::uint64_t entry_count = 0;  // Records in the tree.
  std::uint32_t level = 0;        // Of the root's page.

  bool operator==(const Root&) const = default;
};

struct Footer {
  std::array<Root, kTreeCount> roots;  // Indexed by Tree.
  std::uint64_t file_size_bytes = 0;

  bool operator==(const Footer&) const = default;
};

std::array<std::byte, kHeaderSizeBytes> encode_header();
std::array<std::byte, kFooterSizeBytes> encode_footer(const Footer& footer);

// kCorrupt: these are not the first bytes of a portable file. kUnsupported: of a newer version.
Result<void> check_header(std::span<const std::byte, kHeaderSizeBytes> bytes);
// `file_size_bytes` is that of the file at hand, at least that of a header and a footer. kCorrupt:
// damaged, or it belongs to a file of another size, or a root stands outside of it. kUnsupported:
// of a newer version.
Result<Footer> decode_footer(std::span<const std::byte, kFooterSizeBytes> bytes,
                             std::uint64_t file_size_bytes);

// A page of level 0 leads to records, one above it to pages of the level below, each under the
// first key in it.
struct IndexPage {
  std::string keys;
  std::vector<std::uint32_t> key_ends;
  std::vector<Place> places;

  bool operator==(const IndexPage&) const = default;

  std::size_t size() const { return places.size(); }
  std::string_view key(std::size_t entry) const;
  void add(std::string_view key, const Place& place);
  void clear();
};

// kLimit: over the limits of a page.
Result<std::string> encode_index_page(const IndexPage& page, Tree tree, std::uint32_t level);

// `bytes` stand at `offset` in a file. kCorrupt: anything in the page does not hold together, its
// keys are not strictly ascending, or it leads to a place that is not between the header and
// itself. kUnsupported: of a newer version.
Result<IndexPage> decode_index_page(std::string_view bytes, Tree tree, std::uint32_t level,
                                    std::uint64_t offset);

}  // namespace stepstone::portable
