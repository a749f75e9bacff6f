// A slice is a rising sequence of runs of adjacent elements. Runs of a chunk or more go straight to
// the destination; shorter ones are taken out of a window of whole chunks, which moves on with
// them.
#include "api/slice_reader.h"

#include <algorithm>

#include "api/array_region.h"

namespace stepstone {
namespace {

class SliceReader {
 public:
  SliceReader(const StepReader& reader, std::string_view item, const StoredLeaf& leaf,
              std::span<std::byte> destination)
      : reader_(reader),
        item_(item),
        leaf_(leaf),
        bits_(info(*leaf.record.dtype).bits),
        destination_(destination) {}

  Result<void> read_run(std::uint64_t first, std::uint64_t count) {
    const std::uint64_t begin = first * bits_ / 8;
    const std::uint64_t end = ((first + count) * bits_ + 7) / 8;
    if (bits_ >= 8 && end - begin >= leaf_.record.chunk_size_bytes) {
      STEPSTONE_TRY(
          reader_.read_bytes(item_, leaf_, begin,
                             destination_.subspan(static_cast<std::size_t>(done_ * bits_ / 8),
                                                  static_cast<std::size_t>(end - begin))));
    } else {
      STEPSTONE_TRY(show(begin, end));
      copy_elements(window_.data(), first - window_begin_ * 8 / bits_, destination_.data(), done_,
                    count, bits_);
    }
    done_ += count;
    return {};
  }

 private:
  // Makes the window hold these bytes.
  Result<void> show(std::uint64_t begin, std::uint64_t end) {
    if (begin >= window_begin_ && end <= window_begin_ + window_.size()) return {};
    const std::uint64_t chunk = leaf_.record.chunk_size_bytes;
    const std::uint64_t window_end =
        std::min((end + chunk - 1) / chunk * chunk, leaf_.record.size_bytes);
    window_begin_ = begin / chunk * chunk;
    window_.resize(static_cast<std::size_t>(window_end - window_begin_));
    return reader_.read_bytes(item_, leaf_, window_begin_, window_);
  }

  const StepReader& reader_;
  std::string_view item_;
  const StoredLeaf& leaf_;
  unsigned bits_;
  std::span<std::byte> destination_;
  std::uint64_t done_ = 0;  // Elements.
  std::uint64_t window_begin_ = 0;
  std::vector<std::byte> window_;
};

}  // namespace

Result<void> read_slice(const StepReader& reader, std::string_view item, const StoredLeaf& leaf,
                        const std::vector<Slice>& slice, std::span<std::byte> destination) {
  SliceReader slice_reader(reader, item, leaf, destination);
  // The padding bits behind packed elements are zero, as in every array.
  if (!destination.empty()) destination.back() = std::byte{0};
  return for_each_run(slice, leaf.record.shape, [&](std::uint64_t first, std::uint64_t count) {
    return slice_reader.read_run(first, count);
  });
}

}  // namespace stepstone
