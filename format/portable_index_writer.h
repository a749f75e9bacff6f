#pragma once
// The lower half of the writer of portable files: bytes into the sink, records into the index.

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/error.h"
#include "format/portable_layout.h"
#include "format/portable_writer.h"

namespace stepstone::portable {

// Appends to the sink, small pieces in blocks, and knows where it is.
class Output {
 public:
  explicit Output(PortableSink& sink) : sink_(&sink) {}

  std::uint64_t position() const { return position_; }
  Result<void> append(std::span<const std::byte> bytes);
  // Zeros up to the next multiple of `alignment`, which is at most 4096.
  Result<void> align(std::size_t alignment);
  Result<void> flush();

 private:
  PortableSink* sink_;
  std::vector<std::byte> block_;
  std::uint64_t position_ = 0;
};

// Collects records and builds the search trees over them from the bottom up, so that it never holds
// more than some records and one page of each level. Keys of one tree come in ascending order.
class IndexWriter {
 public:
  explicit IndexWriter(Output& output) : output_(&output) {}

  // `record` is one that encode() gave for `key`.
  Result<void> add(Tree tree, std::string key, std::string_view record);
  // Writes what was collected and the rest of the trees.
  Result<std::array<Root, kTreeCount>> finish();

 private:
  struct PendingRecord {
    Tree tree;
    std::string key;
    Place place;  // Its offset counts from the first record that is pending.
  };
  struct TreeState {
    std::vector<IndexPage> levels;
    std::uint64_t entry_count = 0;
  };

  Result<void> write_records();
  Result<void> add_entry(Tree tree, std::uint32_t level, std::string_view key, const Place& place);
  Result<Place> write_page(Tree tree, std::uint32_t level);
  Result<void> close_page(Tree tree, std::uint32_t level);
  Result<Root> finish_tree(Tree tree);
  TreeState& state(Tree tree) { return trees_[static_cast<std::size_t>(tree)]; }

  Output* output_;
  std::string records_;
  std::vector<PendingRecord> pending_;
  std::array<TreeState, kTreeCount> trees_;
};

}  // namespace stepstone::portable
