#pragma once
// How the bytes of one chunk are stored; the bytes are specified in format/README.md, section
// "Codecs". Weights of a network do not repeat, so dictionary coders find little in them; what
// there is to gain lies in the exponents, which take few values. So a chunk of elements is split
// into byte planes (all first bytes, all second bytes, ...), with the sign of a floating-point
// number rotated out of the way so that its exponent fills a plane of its own, and each plane goes
// to zstd as a mere Huffman coder, or stays as it is where a sample shows that nothing is to be
// gained. Splitting floating-point numbers this way is ZipNN's idea (Hershcovitch et al., 2024).
//
// Pure functions of bytes with memory that is used again: no threads and no files. Both classes
// belong to one thread at a time; each call costs no allocation once the largest chunk was seen.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "dtype.h"
#include "error.h"
#include "records.h"

struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;

namespace stepstone {

struct ElementLayout {
  std::uint8_t size_bytes = 1;  // 1, 2, 4 or 8.
  bool is_floating_point = false;

  bool operator==(const ElementLayout&) const = default;
};

// How the bytes of an array of `dtype` are split: complex numbers as the two numbers they are made
// of, packed types as bytes. Whatever is no array has the default layout.
ElementLayout element_layout(DType dtype);

struct EncodedChunk {
  Codec codec = Codec::kRaw;
  std::span<const std::byte> bytes;
};

namespace internal {

struct FreeContext {
  void operator()(ZSTD_CCtx_s* context) const;
  void operator()(ZSTD_DCtx_s* context) const;
};

// Memory that grows, never shrinks, and is not filled with zeros first.
class Scratch {
 public:
  // What it held before is lost where it has to grow.
  std::span<std::byte> of_size(std::size_t size_bytes);

 private:
  std::unique_ptr<std::byte[]> memory_;
  std::size_t capacity_bytes_ = 0;
};

}  // namespace internal

class ChunkEncoder {
 public:
  // Throws std::bad_alloc.
  ChunkEncoder();

  // Chooses the codec by looking at the bytes; what it gives is smaller than `chunk`, or for kRaw
  // `chunk` itself. Any bytes of any size can be encoded under any layout; the layout decides only
  // how small they get. The result is valid until the next call, as long as `chunk` is. Throws
  // std::bad_alloc.
  EncodedChunk encode(std::span<const std::byte> chunk, ElementLayout layout);

  // Encodes what `chunk` differs in from `base`, which has the same size: kDelta, or kRaw where
  // that is not smaller than `chunk`. Otherwise as encode().
  EncodedChunk encode_delta(std::span<const std::byte> chunk, std::span<const std::byte> base,
                            ElementLayout layout);

 private:
  std::size_t compress(std::span<const std::byte> plane, int level, std::span<std::byte> to);
  std::size_t compress_if_worthwhile(std::span<const std::byte> plane, std::size_t probe_size_bytes,
                                     std::span<std::byte> to);

  std::unique_ptr<ZSTD_CCtx_s, internal::FreeContext> context_;
  internal::Scratch planes_;
  internal::Scratch encoded_;
  internal::Scratch trial_;
  internal::Scratch difference_;
  internal::Scratch delta_;
};

class ChunkDecoder {
 public:
  // Throws std::bad_alloc.
  ChunkDecoder();

  // Fills `destination`, the size of which must be known from elsewhere. `stored` may hold
  // anything: it is never read beyond its end, and no more memory is used than `destination` is
  // large. Errors: kCorrupt when it is not the encoding of exactly so many bytes; kUnsupported for
  // an unknown codec; kInvalidArgument for kDelta, which decode_delta() is for. What `destination`
  // holds after an error is undefined. Throws std::bad_alloc.
  Result<void> decode(Codec codec, std::span<const std::byte> stored,
                      std::span<std::byte> destination);

  // The same for a chunk of codec kDelta, whose base has the size of `destination`.
  Result<void> decode_delta(std::span<const std::byte> stored, std::span<const std::byte> base,
                            std::span<std::byte> destination);

 private:
  Result<void> decode_planes(std::span<const std::byte> stored, std::span<std::byte> destination);
  Result<void> decompress(std::span<const std::byte> frame, std::span<std::byte> plane);

  std::unique_ptr<ZSTD_DCtx_s, internal::FreeContext> context_;
  internal::Scratch planes_;
};

}  // namespace stepstone
