// Splitting and joining are done by one step on vectors of 16 bytes: the perfect shuffle, which
// takes a byte alternately from the first and the second half of W vectors (an unpack or zip
// instruction each). On a byte's index it is a rotation by one bit; the index of byte p of element
// j, of 16 elements of W bytes, is j * W + p, that of byte j of plane p is p * 16 + j. So four
// shuffles split and log2(W) join.
#define ZSTD_STATIC_LINKING_ONLY  // ZSTD_c_literalCompressionMode
#include "format/chunk_codec.h"

#include <zstd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <new>
#include <string>

#include "format/assert.h"
#include "format/limits.h"

namespace stepstone {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::size_t kElementSizeBytesMax = 8;
constexpr std::size_t kPatternSizeBytesMax = 16;
constexpr std::size_t kPlaneEntrySizeBytes = 4;
constexpr std::uint32_t kIsCompressed = std::uint32_t{1} << 31;
constexpr std::uint8_t kFlagRotated = 1;

constexpr std::size_t header_size_bytes(std::size_t width) {
  return 2 + width * kPlaneEntrySizeBytes;
}

constexpr bool is_element_size(std::size_t width) {
  return width == 1 || width == 2 || width == 4 || width == 8;
}

tl::unexpected<Error> corrupt(const char* what) {
  return fail(ErrorCode::kCorrupt, std::string("encoded chunk: ") + what);
}

// GCC's and Clang's vectors, which every processor has in one form or another.
constexpr std::size_t kVectorSizeBytes = 16;
using ByteVector = std::uint8_t __attribute__((vector_size(kVectorSizeBytes)));

ByteVector interleave_low(ByteVector a, ByteVector b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
ByteVector interleave_high(ByteVector a, ByteVector b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                 31);
}

template <std::size_t W, std::size_t Count>
void shuffle(std::array<ByteVector, W>& vectors) {
  for (std::size_t round = 0; round < Count; ++round) {
    std::array<ByteVector, W> next;
    for (std::size_t i = 0; i < W / 2; ++i) {
      next[2 * i] = interleave_low(vectors[i], vectors[i + W / 2]);
      next[2 * i + 1] = interleave_high(vectors[i], vectors[i + W / 2]);
    }
    vectors = next;
  }
}

// GCC takes no vector of a type that depends on a template's parameter.
template <std::size_t W>
struct ElementOf;
template <>
struct ElementOf<2> {
  using Type = std::uint16_t;
  using Vector = Type __attribute__((vector_size(kVectorSizeBytes)));
};
template <>
struct ElementOf<4> {
  using Type = std::uint32_t;
  using Vector = Type __attribute__((vector_size(kVectorSizeBytes)));
};
template <>
struct ElementOf<8> {
  using Type = std::uint64_t;
  using Vector = Type __attribute__((vector_size(kVectorSizeBytes)));
};
template <std::size_t W>
using Element = typename ElementOf<W>::Type;
template <std::size_t W>
using ElementVector = typename ElementOf<W>::Vector;

// Left by one: the sign moves from the highest bit to the lowest. `Value` is an element or a vector
// of them; static_cast because narrow elements are widened to calculate.
template <std::size_t W, typename Value>
Value rotated_left(Value value) {
  return static_cast<Value>((value << 1) | (value >> (8 * W - 1)));
}
template <std::size_t W, typename Value>
Value rotated_right(Value value) {
  return static_cast<Value>((value >> 1) | (value << (8 * W - 1)));
}

// `planes` is W planes of `count` bytes, one behind the other.
template <std::size_t W, bool IsRotated>
void split(const std::byte* elements, std::size_t count, std::byte* planes) {
  std::size_t i = 0;
  for (; i + kVectorSizeBytes <= count; i += kVectorSizeBytes) {
    std::array<ByteVector, W> vectors;
    std::memcpy(vectors.data(), elements + i * W, sizeof(vectors));
    if constexpr (IsRotated) {
      for (ByteVector& vector : vectors) {
        vector = reinterpret_cast<ByteVector>(
            rotated_left<W>(reinterpret_cast<ElementVector<W>>(vector)));
      }
    }
    shuffle<W, 4>(vectors);
    for (std::size_t p = 0; p < W; ++p) {
      std::memcpy(planes + p * count + i, &vectors[p], kVectorSizeBytes);
    }
  }
  for (; i < count; ++i) {
    Element<W> element;
    std::memcpy(&element, elements + i * W, W);
    if constexpr (IsRotated) element = rotated_left<W>(element);
    for (std::size_t p = 0; p < W; ++p) planes[p * count + i] = std::byte(element >> (8 * p));
  }
}

using PlanePointers = std::array<const std::byte*, kElementSizeBytesMax>;

template <std::size_t W, bool IsRotated>
void join(const PlanePointers& planes, std::size_t count, std::byte* elements) {
  std::size_t i = 0;
  for (; i + kVectorSizeBytes <= count; i += kVectorSizeBytes) {
    std::array<ByteVector, W> vectors;
    for (std::size_t p = 0; p < W; ++p) std::memcpy(&vectors[p], planes[p] + i, kVectorSizeBytes);
    shuffle<W, std::countr_zero(W)>(vectors);
    if constexpr (IsRotated) {
      for (ByteVector& vector : vectors) {
        vector = reinterpret_cast<ByteVector>(
            rotated_right<W>(reinterpret_cast<ElementVector<W>>(vector)));
      }
    }
    std::memcpy(elements + i * W, vectors.data(), sizeof(vectors));
  }
  for (; i < count; ++i) {
    Element<W> element = 0;
    for (std::size_t p = 0; p < W; ++p) {
      element = static_cast<Element<W>>(
          element | Element<W>{std::to_integer<std::uint8_t>(planes[p][i])} << (8 * p));
    }
    if constexpr (IsRotated) element = rotated_right<W>(element);
    std::memcpy(elements + i * W, &element, W);
  }
}

void split(std::size_t width, bool is_rotated, const std::byte* elements, std::size_t count,
           std::byte* planes) {
  switch (width) {
    case 2:
      return (is_rotated ? split<2, true> : split<2, false>)(elements, count, planes);
    case 4:
      return (is_rotated ? split<4, true> : split<4, false>)(elements, count, planes);
    case 8:
      return (is_rotated ? split<8, true> : split<8, false>)(elements, count, planes);
    default:
      STEPSTONE_ASSERT(false);
  }
}

void join(std::size_t width, bool is_rotated, const PlanePointers& planes, std::size_t count,
          std::byte* elements) {
  switch (width) {
    case 2:
      return (is_rotated ? join<2, true> : join<2, false>)(planes, count, elements);
    case 4:
      return (is_rotated ? join<4, true> : join<4, false>)(planes, count, elements);
    case 8:
      return (is_rotated ? join<8, true> : join<8, false>)(planes, count, elements);
    default:
      STEPSTONE_ASSERT(false);
  }
}

// The size of the shortest pattern that the chunk repeats, or 0. Ordinary bytes differ at once.
std::size_t pattern_size_bytes(std::span<const std::byte> chunk) {
  for (std::size_t size = 1; size <= kPatternSizeBytesMax && size < chunk.size(); size *= 2) {
    if (std::memcmp(chunk.data(), chunk.data() + size, chunk.size() - size) == 0) return size;
  }
  return 0;
}

bool is_one_byte_repeated(std::span<const std::byte> plane) {
  return std::memcmp(plane.data(), plane.data() + 1, plane.size() - 1) == 0;
}

void fill(std::span<const std::byte> pattern, std::span<std::byte> destination) {
  if (pattern.size() == 1) {
    std::memset(destination.data(), std::to_integer<int>(pattern[0]), destination.size());
    return;
  }
  // What is there already is a whole number of patterns, so it can be doubled.
  std::size_t filled = std::min(pattern.size(), destination.size());
  std::memcpy(destination.data(), pattern.data(), filled);
  while (filled < destination.size()) {
    const std::size_t more = std::min(filled, destination.size() - filled);
    std::memcpy(destination.data() + filled, destination.data(), more);
    filled += more;
  }
}

// At this level zstd looks for repetitions at one position in a thousand: what is left is the
// Huffman coder, which ZSTD_c_literalCompressionMode switches on.
constexpr int kHuffmanLevel = -1000;
constexpr int kOrdinaryLevel = 1;

constexpr std::size_t kSampleSizeBytes = 4096;
constexpr std::size_t kSamplePieces = 4;

// Whether a Huffman code would be worth its time, by the chance that two bytes of a sample are
// equal: at least 2^-7.5, where bytes of full entropy have 2^-8.
bool has_skewed_bytes(std::span<const std::byte> plane) {
  const std::size_t piece = std::min(kSampleSizeBytes, plane.size()) / kSamplePieces;
  const std::size_t stride = plane.size() / kSamplePieces;
  // One table for each piece, so that equal neighbours do not wait for one another.
  std::array<std::array<std::uint16_t, 256>, kSamplePieces> counts{};
  for (std::size_t i = 0; i < piece; ++i) {
    for (std::size_t p = 0; p < kSamplePieces; ++p) {
      ++counts[p][std::to_integer<std::size_t>(plane[p * stride + i])];
    }
  }
  std::uint64_t equal_pairs = 0;
  for (std::size_t value = 0; value < 256; ++value) {
    std::uint32_t count = 0;
    for (const auto& table : counts) count += table[value];
    equal_pairs += std::uint64_t{count} * count;
  }
  const std::uint64_t total = piece * kSamplePieces;
  // Each byte is equal to itself; 181 is 2^7.5.
  return (equal_pairs - total) * 181 > total * total;
}

// Whether sequences of 8 bytes come back soon, as they do in text and in tables. Exponents repeat
// so long a sequence rarely.
bool has_repetitions(std::span<const std::byte> probe) {
  using Sequence = std::uint64_t;
  constexpr int kTableBits = 10;
  std::array<Sequence, std::size_t{1} << kTableBits> seen{};
  if (probe.size() < 2 * sizeof(Sequence)) return false;
  const std::size_t count = probe.size() - sizeof(Sequence);
  std::size_t repetitions = 0;
  for (std::size_t i = 0; i < count; ++i) {
    Sequence sequence;
    std::memcpy(&sequence, probe.data() + i, sizeof(sequence));
    Sequence& last = seen[sequence * 0x9E3779B97F4A7C15 >> (64 - kTableBits)];
    repetitions += last == sequence;
    last = sequence;
  }
  return repetitions * 16 > count;
}

// `a` and `b` have the size of `result`, which may be either of them.
void exclusive_or(std::span<const std::byte> a, std::span<const std::byte> b,
                  std::span<std::byte> result) {
  // Plain enough for the compiler to take vectors.
  for (std::size_t i = 0; i < result.size(); ++i) result[i] = a[i] ^ b[i];
}

// zstd finds a frame of any of its former formats too; only today's is ours.
bool is_one_frame(std::span<const std::byte> bytes) {
  std::uint32_t magic = 0;
  if (bytes.size() < sizeof(magic)) return false;
  std::memcpy(&magic, bytes.data(), sizeof(magic));
  return magic == ZSTD_MAGICNUMBER &&
         ZSTD_findFrameCompressedSize(bytes.data(), bytes.size()) == bytes.size();
}

}  // namespace

namespace internal {

void FreeContext::operator()(ZSTD_CCtx_s* context) const { ZSTD_freeCCtx(context); }
void FreeContext::operator()(ZSTD_DCtx_s* context) const { ZSTD_freeDCtx(context); }

std::span<std::byte> Scratch::of_size(std::size_t size_bytes) {
  if (size_bytes > capacity_bytes_) {
    memory_.reset();
    capacity_bytes_ = 0;
    memory_ = std::make_unique_for_overwrite<std::byte[]>(size_bytes);
    capacity_bytes_ = size_bytes;
  }
  return {memory_.get(), size_bytes};
}

}  // namespace internal

ElementLayout element_layout(DType dtype) {
  const DTypeInfo& dtype_info = info(dtype);
  const bool is_complex = dtype_info.kind == DTypeKind::kComplex;
  const int size_bytes = std::max(1, dtype_info.bits / (is_complex ? 16 : 8));
  return {
      .size_bytes = static_cast<std::uint8_t>(size_bytes),
      .is_floating_point = size_bytes > 1 && (is_complex || dtype_info.kind == DTypeKind::kFloat)};
}

ChunkEncoder::ChunkEncoder() : context_(ZSTD_createCCtx()) {
  if (context_ == nullptr) throw std::bad_alloc();
  const std::size_t result = ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_literalCompressionMode,
                                                    static_cast<int>(ZSTD_ps_enable));
  STEPSTONE_ASSERT(ZSTD_isError(result) == 0);
}

// 0 where zstd did not succeed: nothing is lost, the plane is then stored as it is.
std::size_t ChunkEncoder::compress(std::span<const std::byte> plane, int level,
                                   std::span<std::byte> to) {
  ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, level);
  const std::size_t size_bytes =
      ZSTD_compress2(context_.get(), to.data(), to.size(), plane.data(), plane.size());
  return ZSTD_isError(size_bytes) != 0 ? 0 : size_bytes;
}

// 0 where it is not worthwhile.
std::size_t ChunkEncoder::compress_if_worthwhile(std::span<const std::byte> plane,
                                                 std::size_t probe_size_bytes,
                                                 std::span<std::byte> to) {
  int level = has_skewed_bytes(plane) ? kHuffmanLevel : 0;
  const std::span probe =
      plane.subspan((plane.size() - std::min(plane.size(), probe_size_bytes)) / 2,
                    std::min(plane.size(), probe_size_bytes));
  if (has_repetitions(probe)) {
    // Rare enough to find out by trying.
    const std::span sample = plane.first(std::min(plane.size(), 4 * kSampleSizeBytes));
    const std::span trial = trial_.of_size(ZSTD_compressBound(sample.size()));
    const std::size_t ordinary = compress(sample, kOrdinaryLevel, trial);
    const std::size_t huffman = level == 0 ? sample.size() : compress(sample, level, trial);
    if (ordinary != 0 && ordinary < huffman - huffman / 8) level = kOrdinaryLevel;
  }
  if (level == 0) return 0;
  const std::size_t size_bytes = compress(plane, level, to);
  return size_bytes < plane.size() - plane.size() / 32 ? size_bytes : 0;
}

EncodedChunk ChunkEncoder::encode(std::span<const std::byte> chunk, ElementLayout layout) {
  const EncodedChunk raw = {.codec = Codec::kRaw, .bytes = chunk};
  const std::size_t width = layout.size_bytes;
  STEPSTONE_ASSERT(is_element_size(width));
  if (const std::size_t size = pattern_size_bytes(chunk); size != 0) {
    return {.codec = Codec::kConstant, .bytes = chunk.first(size)};
  }
  const std::size_t count = chunk.size() / width;
  const std::size_t tail_size_bytes = chunk.size() % width;
  if (chunk.size() <= header_size_bytes(width) || chunk.size() > limits::kChunkSizeBytesMax) {
    return raw;
  }

  // A double's 11 bits of exponent do not fit one byte either way; unrotated they measured smaller.
  const bool is_rotated = layout.is_floating_point && (width == 2 || width == 4);
  std::span planes = chunk;
  if (width > 1) {
    const std::span split_planes = planes_.of_size(count * width);
    split(width, is_rotated, chunk.data(), count, split_planes.data());
    planes = split_planes;
  }
  // Room for what zstd may need at its fastest; only what is smaller than the chunk is kept.
  const std::size_t bound = ZSTD_compressBound(count);
  const std::span encoded =
      encoded_.of_size(header_size_bytes(width) + width * bound + tail_size_bytes);
  encoded[0] = std::byte(width);
  encoded[1] = std::byte(is_rotated ? kFlagRotated : 0);
  std::size_t end = header_size_bytes(width);
  for (std::size_t p = 0; p < width; ++p) {
    const std::span plane = planes.subspan(p * count, count);
    std::uint32_t entry = 0;
    if (is_one_byte_repeated(plane)) {
      entry = 1;
    } else if (const std::size_t size = compress_if_worthwhile(plane, kSampleSizeBytes / width,
                                                               encoded.subspan(end, bound));
               size != 0) {
      entry = static_cast<std::uint32_t>(size) | kIsCompressed;
    } else {
      entry = static_cast<std::uint32_t>(count);
    }
    const std::size_t size_bytes = entry & ~kIsCompressed;
    if ((entry & kIsCompressed) == 0) std::memcpy(encoded.data() + end, plane.data(), size_bytes);
    end += size_bytes;
    std::memcpy(encoded.data() + 2 + p * kPlaneEntrySizeBytes, &entry, sizeof(entry));
  }
  std::memcpy(encoded.data() + end, chunk.data() + count * width, tail_size_bytes);
  end += tail_size_bytes;
  if (end >= chunk.size()) return raw;
  return {.codec = Codec::kPlanes, .bytes = encoded.first(end)};
}

EncodedChunk ChunkEncoder::encode_delta(std::span<const std::byte> chunk,
                                        std::span<const std::byte> base, ElementLayout layout) {
  STEPSTONE_ASSERT(chunk.size() == base.size());
  const EncodedChunk raw = {.codec = Codec::kRaw, .bytes = chunk};
  const std::span difference = difference_.of_size(chunk.size());
  exclusive_or(chunk, base, difference);
  const EncodedChunk encoded = encode(difference, layout);
  if (encoded.codec == Codec::kRaw || encoded.bytes.size() + 1 >= chunk.size()) return raw;
  const std::span delta = delta_.of_size(encoded.bytes.size() + 1);
  delta[0] = std::byte(encoded.codec);
  std::memcpy(delta.data() + 1, encoded.bytes.data(), encoded.bytes.size());
  return {.codec = Codec::kDelta, .bytes = delta};
}

ChunkDecoder::ChunkDecoder() : context_(ZSTD_createDCtx()) {
  if (context_ == nullptr) throw std::bad_alloc();
}

Result<void> ChunkDecoder::decode(Codec codec, std::span<const std::byte> stored,
                                  std::span<std::byte> destination) {
  switch (codec) {
    case Codec::kRaw:
      if (stored.size() != destination.size()) return corrupt("wrong size");
      if (!stored.empty()) std::memcpy(destination.data(), stored.data(), stored.size());
      return {};
    case Codec::kConstant:
      if (!std::has_single_bit(stored.size()) || stored.size() > kPatternSizeBytesMax ||
          stored.size() >= destination.size()) {
        return corrupt("impossible pattern");
      }
      fill(stored, destination);
      return {};
    case Codec::kPlanes:
      return decode_planes(stored, destination);
    case Codec::kDelta:
      return fail(ErrorCode::kInvalidArgument, "encoded chunk: a delta is decoded with its base");
  }
  return fail(ErrorCode::kUnsupported, "encoded chunk: unknown codec");
}

Result<void> ChunkDecoder::decode_delta(std::span<const std::byte> stored,
                                        std::span<const std::byte> base,
                                        std::span<std::byte> destination) {
  STEPSTONE_ASSERT(base.size() == destination.size());
  if (stored.empty()) return corrupt("cut off");
  const auto codec = static_cast<Codec>(stored[0]);
  if (codec != Codec::kConstant && codec != Codec::kPlanes) {
    return corrupt("a delta in an impossible codec");
  }
  STEPSTONE_TRY(decode(codec, stored.subspan(1), destination));
  exclusive_or(destination, base, destination);
  return {};
}

Result<void> ChunkDecoder::decode_planes(std::span<const std::byte> stored,
                                         std::span<std::byte> destination) {
  if (stored.empty()) return corrupt("cut off");
  const auto width = std::to_integer<std::size_t>(stored[0]);
  if (!is_element_size(width)) return corrupt("impossible element size");
  if (stored.size() < header_size_bytes(width)) return corrupt("cut off");
  const auto flags = std::to_integer<std::uint8_t>(stored[1]);
  if ((flags & ~kFlagRotated) != 0 || (flags != 0 && width == 1)) return corrupt("unknown flags");
  const std::size_t count = destination.size() / width;
  const std::size_t tail_size_bytes = destination.size() % width;
  if (count == 0) return corrupt("fewer bytes than one element has");

  PlanePointers planes{};
  std::span<const std::byte> rest = stored.subspan(header_size_bytes(width));
  for (std::size_t p = 0; p < width; ++p) {
    std::uint32_t entry = 0;
    std::memcpy(&entry, stored.data() + 2 + p * kPlaneEntrySizeBytes, sizeof(entry));
    const std::size_t size_bytes = entry & ~kIsCompressed;
    if (size_bytes > rest.size()) return corrupt("cut off");
    const std::span plane = rest.first(size_bytes);
    rest = rest.subspan(size_bytes);
    const bool is_compressed = (entry & kIsCompressed) != 0;
    if (!is_compressed && size_bytes == count) {
      planes[p] = plane.data();
      continue;
    }
    const std::span decoded =
        width == 1 ? destination : planes_.of_size(count * width).subspan(p * count, count);
    if (is_compressed) {
      STEPSTONE_TRY(decompress(plane, decoded));
    } else if (size_bytes == 1) {
      std::memset(decoded.data(), std::to_integer<int>(plane[0]), count);
    } else {
      return corrupt("a plane of the wrong size");
    }
    planes[p] = decoded.data();
  }
  if (rest.size() != tail_size_bytes) return corrupt("wrong size");
  if (width > 1) {
    join(width, flags == kFlagRotated, planes, count, destination.data());
  } else if (planes[0] != destination.data()) {
    std::memcpy(destination.data(), planes[0], count);
  }
  if (!rest.empty()) std::memcpy(destination.data() + count * width, rest.data(), rest.size());
  return {};
}

Result<void> ChunkDecoder::decompress(std::span<const std::byte> frame,
                                      std::span<std::byte> plane) {
  if (!is_one_frame(frame)) return corrupt("a plane is no zstd frame");
  const std::size_t size_bytes =
      ZSTD_decompressDCtx(context_.get(), plane.data(), plane.size(), frame.data(), frame.size());
  if (ZSTD_isError(size_bytes) != 0) return corrupt(ZSTD_getErrorName(size_bytes));
  if (size_bytes != plane.size()) return corrupt("a plane of the wrong size");
  return {};
}

}  // namespace stepstone
