// Ratio and speed of the chunk codec on the float weights of a safetensors file, on one core:
//
//   codec_bench build/data/model.safetensors [chunk size in KiB]
//
// The file's bytes behind its header are taken as float32, as they are and converted to other
// types, in chunks, as the store would; each figure is the median of nine passes over all of them.
#include <time.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "format/chunk_codec.h"

namespace stepstone {
namespace {

constexpr int kPasses = 9;

double processor_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

template <typename Work>
double median_seconds(const Work& work) {
  std::vector<double> seconds;
  for (int pass = 0; pass < kPasses; ++pass) {
    const double start = processor_seconds();
    work();
    seconds.push_back(processor_seconds() - start);
  }
  std::nth_element(seconds.begin(), seconds.begin() + kPasses / 2, seconds.end());
  return seconds[kPasses / 2];
}

bool measure(const char* name, std::span<const std::byte> bytes, ElementLayout layout,
             std::size_t chunk_size_bytes) {
  struct Stored {
    Codec codec;
    std::size_t size_bytes;
    std::vector<std::byte> bytes;
  };
  std::vector<Stored> stored;
  ChunkEncoder encoder;
  ChunkDecoder decoder;
  std::size_t stored_size_bytes = 0;
  const auto each_chunk = [&](const auto& visit) {
    for (std::size_t at = 0; at < bytes.size(); at += chunk_size_bytes) {
      visit(bytes.subspan(at, std::min(chunk_size_bytes, bytes.size() - at)));
    }
  };
  each_chunk([&](std::span<const std::byte> chunk) {
    const EncodedChunk encoded = encoder.encode(chunk, layout);
    stored_size_bytes += encoded.bytes.size();
    stored.push_back({encoded.codec, chunk.size(), {encoded.bytes.begin(), encoded.bytes.end()}});
  });
  const double encode_seconds = median_seconds([&] {
    each_chunk([&](std::span<const std::byte> chunk) { encoder.encode(chunk, layout); });
  });
  std::vector<std::byte> decoded(bytes.size());
  bool is_decoded = true;
  const double decode_seconds = median_seconds([&] {
    std::size_t at = 0;
    for (const Stored& chunk : stored) {
      is_decoded &=
          decoder.decode(chunk.codec, chunk.bytes, std::span(decoded).subspan(at, chunk.size_bytes))
              .has_value();
      at += chunk.size_bytes;
    }
  });
  const auto size = static_cast<double>(bytes.size());
  const bool is_equal = is_decoded && std::equal(bytes.begin(), bytes.end(), decoded.begin());
  std::printf("%-10s ratio %.4f  in %5.0f MB/s  out %5.0f MB/s  %s\n", name,
              static_cast<double>(stored_size_bytes) / size, size / encode_seconds / 1e6,
              size / decode_seconds / 1e6, is_equal ? "exact" : "WRONG");
  return is_equal;
}

// Rounded to the nearest, ties to even; weights are finite.
std::uint16_t to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

int run(const char* path, std::size_t chunk_size_bytes) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  std::uint64_t header_size_bytes = 0;
  if (bytes.size() < sizeof(header_size_bytes)) {
    std::fprintf(stderr, "%s: cannot be read\n", path);
    return 1;
  }
  std::memcpy(&header_size_bytes, bytes.data(), sizeof(header_size_bytes));
  if (header_size_bytes > bytes.size() - 8) {
    std::fprintf(stderr, "%s: no safetensors file\n", path);
    return 1;
  }
  std::vector<float> weights((bytes.size() - 8 - header_size_bytes) / sizeof(float));
  std::memcpy(weights.data(), bytes.data() + 8 + header_size_bytes, weights.size() * sizeof(float));

  std::vector<std::uint16_t> bfloat16;
  std::vector<double> float64(weights.begin(), weights.end());
  std::vector<std::int8_t> int8;
  for (const float weight : weights) {
    bfloat16.push_back(to_bfloat16(weight));
    int8.push_back(static_cast<std::int8_t>(std::clamp(weight * 500, -127.0F, 127.0F)));
  }
  bool is_exact = true;
  const auto test = [&](const char* name, const auto& values, DType dtype) {
    is_exact &=
        measure(name, std::as_bytes(std::span(values)), element_layout(dtype), chunk_size_bytes);
  };
  test("float32", weights, DType::kFloat32);
  test("bfloat16", bfloat16, DType::kBfloat16);
  test("float64", float64, DType::kFloat64);
  test("int8", int8, DType::kInt8);
  return is_exact ? 0 : 1;
}

}  // namespace
}  // namespace stepstone

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: codec_bench FILE.safetensors [chunk size in KiB]\n");
    return 2;
  }
  const unsigned long chunk_size_kib = argc == 3 ? std::strtoul(argv[2], nullptr, 10) : 256;
  if (chunk_size_kib == 0) return 2;
  return stepstone::run(argv[1], chunk_size_kib * 1024);
}
