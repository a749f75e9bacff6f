#pragma once
// numpy's .npy format, read: what its header says, and where the array's bytes begin.

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "engine/leaf_source.h"
#include "format/dtype.h"
#include "format/error.h"

namespace stepstone::tool {

struct NpyHeader {
  DType dtype = DType::kFloat32;
  bool is_big_endian = false;
  bool is_fortran_order = false;
  std::vector<std::uint64_t> shape;
  std::uint64_t data_position = 0;  // From the file's begin.
};

// `head` is what the file begins with, as far as it goes or at least kNpyHeadSizeBytesMax. The
// header is a Python literal, of which exactly numpy's own form is read and nothing is evaluated.
// kCorrupt: no such header. kUnsupported: objects, strings, dates, structured and other dtypes that
// a store has no place for (the message names them). kLimit: rank or size of the shape, or a header
// longer than numpy would read.
Result<NpyHeader> parse_npy_header(std::string_view head);

// numpy's own limit, and the bytes before the header.
inline constexpr std::size_t kNpyHeaderSizeBytesMax = 10'000;
inline constexpr std::size_t kNpyHeadSizeBytesMax = kNpyHeaderSizeBytesMax + 12;

// An array of a .npy file, whose bytes `file` gives. C order and little-endian whatever the file
// has. kCorrupt: more or fewer bytes than the header says; and as parse_npy_header().
struct NpyArray {
  DType dtype = DType::kFloat32;
  std::vector<std::uint64_t> shape;
  std::shared_ptr<const LeafSource> source;
};
Result<NpyArray> open_npy(std::shared_ptr<const LeafSource> file, std::uint64_t size_bytes);

}  // namespace stepstone::tool
