// Real weights: how small they get and how fast, and what that does to a save.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "engine/parallel.h"
#include "format/chunk_codec.h"
#include "tools/bench/context.h"
#include "tools/bench/raw.h"
#include "tools/formats/safetensors.h"

namespace stepstone::bench {
namespace {

constexpr std::size_t kChunkBytes = std::size_t{256} << 10;

// All float32 tensors of a safetensors file, one after the other.
struct Weights {
  std::vector<StateLeaf> tensors;
  Memory memory;
};

Result<Weights> load_weights(const std::filesystem::path& path) {
  Result<std::shared_ptr<const tool::SafetensorsFile>> opened = tool::SafetensorsFile::open(path);
  if (!opened) {
    return tl::unexpected<Error>(with_context(
        opened.error(), "the weights (tools/quickstart fetches them; --model names others)"));
  }
  const std::shared_ptr<const tool::SafetensorsFile> file = *std::move(opened);
  Weights weights;
  std::size_t size = 0;
  for (const tool::SafetensorsTensor& tensor : file->header().tensors) {
    if (tensor.dtype == DType::kFloat32) size += static_cast<std::size_t>(tensor.size_bytes);
  }
  weights.memory = STEPSTONE_TRY(Memory::allocate(size));
  std::size_t offset = 0;
  for (const tool::SafetensorsTensor& tensor : file->header().tensors) {
    if (tensor.dtype != DType::kFloat32) continue;
    const auto tensor_bytes = static_cast<std::size_t>(tensor.size_bytes);
    STEPSTONE_TRY(file->read(tensor.offset, weights.memory.bytes().subspan(offset, tensor_bytes)));
    weights.tensors.push_back({"", tensor.name, tensor.shape});
    offset += tensor_bytes;
  }
  return weights;
}

// Rounded to nearest, ties to even.
std::uint16_t to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

float float_at(std::span<const std::byte> bytes, std::size_t index) {
  float value = 0;
  std::memcpy(&value, bytes.data() + index * sizeof(float), sizeof(float));
  return value;
}

// Copies of the weights as bfloat16, one after the other. Each weight is moved by up to `reach` of
// itself, as training would move it, another way for each seed: the exponents stay spread as they
// are in the model, and no two copies have a chunk in common that could be stored once. Seed 0
// leaves the weights as they are.
void fill_bfloat16(const Weights& weights, std::uint64_t seed, std::span<std::byte> bytes,
                   float reach = 1.0F / 16) {
  const std::span<const std::byte> source = weights.memory.bytes();
  const std::size_t count = source.size() / sizeof(float);
  constexpr std::size_t kBatch = kChunkBytes;
  const auto fill_batch = [&](std::size_t batch) -> Result<void> {
    const std::size_t end = std::min((batch + 1) * kBatch, bytes.size() / 2);
    for (std::size_t i = batch * kBatch; i < end; ++i) {
      const std::uint64_t random = mix((i + 1) * 0x9E3779B97F4A7C15 + seed);
      const float place = static_cast<float>(random >> 40) * 0x1p-24F - 0.5F;
      const float factor = seed == 0 ? 1 : 1 + place * 2 * reach;
      const std::uint16_t value = to_bfloat16(float_at(source, i % count) * factor);
      std::memcpy(bytes.data() + 2 * i, &value, sizeof(value));
    }
    return {};
  };
  (void)parallel_for(effective_thread_count(0), (bytes.size() / 2 + kBatch - 1) / kBatch,
                     fill_batch);
}

// The codec alone, on one core; with `base`, which may be empty, as deltas from that.
Result<void> measure_codec(Context& context, std::span<const std::byte> bytes, DType dtype,
                           std::span<const std::byte> base = {}) {
  if (context.codec() == "none" || !context.wants({"ratio_compressed", "encode", "decode"})) {
    return {};
  }
  struct Stored {
    Codec codec = Codec::kRaw;
    std::vector<std::byte> bytes;
  };
  const ElementLayout layout = element_layout(dtype);
  const std::size_t chunk_count = (bytes.size() + kChunkBytes - 1) / kChunkBytes;
  const auto chunk_at = [](auto all, std::size_t chunk) {
    const std::size_t begin = chunk * kChunkBytes;
    return all.subspan(begin, std::min(kChunkBytes, all.size() - begin));
  };
  ChunkEncoder encoder;
  ChunkDecoder decoder;
  const auto encode_chunk = [&](std::size_t chunk) {
    if (base.empty()) return encoder.encode(chunk_at(bytes, chunk), layout);
    return encoder.encode_delta(chunk_at(bytes, chunk), chunk_at(base, chunk), layout);
  };
  const auto decode_chunk = [&](std::size_t chunk, const Stored& from,
                                std::span<std::byte> destination) {
    if (from.codec != Codec::kDelta) return decoder.decode(from.codec, from.bytes, destination);
    return decoder.decode_delta(from.bytes, chunk_at(base, chunk), destination);
  };
  std::vector<Stored> stored(chunk_count);
  std::size_t stored_bytes = 0;
  for (std::size_t chunk = 0; chunk < chunk_count; ++chunk) {
    const EncodedChunk encoded = encode_chunk(chunk);
    stored[chunk] = {encoded.codec, {encoded.bytes.begin(), encoded.bytes.end()}};
    stored_bytes += encoded.bytes.size();
  }
  Memory decoded = STEPSTONE_TRY(Memory::allocate(bytes.size()));
  std::vector<double> encode;
  std::vector<double> decode;
  Limit limit{"memcpy, one core", {}};
  std::size_t encoded_bytes = 0;  // Of all passes, so that none can be left out.
  STEPSTONE_TRY(context.repeat([&](unsigned /*sample*/) -> Result<void> {
    limit.samples.push_back(STEPSTONE_TRY(parallel_copy(decoded.bytes(), bytes, 1)));
    encode.push_back(seconds_of([&] {
      for (std::size_t chunk = 0; chunk < chunk_count; ++chunk) {
        encoded_bytes += encode_chunk(chunk).bytes.size();
      }
    }));
    Result<void> result;
    decode.push_back(seconds_of([&] {
      for (std::size_t chunk = 0; chunk < chunk_count && result; ++chunk) {
        result = decode_chunk(chunk, stored[chunk], chunk_at(decoded.bytes(), chunk));
      }
    }));
    return result;
  }));
  if (!std::ranges::equal(decoded.bytes(), bytes) ||
      encoded_bytes != stored_bytes * context.sample_count()) {
    return fail(ErrorCode::kMismatch, "the weights were not decoded as they were encoded");
  }
  context.add("ratio_compressed", "",
              {static_cast<double>(stored_bytes) / static_cast<double>(bytes.size())});
  context.add_rate("encode", bytes.size(), std::move(encode), limit);
  context.add_rate("decode", bytes.size(), std::move(decode), std::move(limit));
  return {};
}

// Saves and restores of such weights, as of gpt2; both limits are those of the uncompressed bytes.
Result<void> measure_store(Context& context, const Weights& weights, State& state) {
  if (!context.wants({"save", "restore_warm", "written_bytes"})) return {};
  constexpr std::uint64_t kUncounted = 2;
  STEPSTONE_TRY(context.check_space(4 * state.size_bytes()));
  const Tree tree = STEPSTONE_TRY(state.borrowed_tree());
  Memory destination = STEPSTONE_TRY(Memory::allocate(state.size_bytes()));
  const std::filesystem::path raw_file = context.scratch() / "raw";
  STEPSTONE_TRY(write_file(raw_file, state.bytes()));
  const auto store = STEPSTONE_TRY(Store::open(context.store_path(), open_options(context)));
  // Deltas are for weights that hardly move.
  const float reach = context.codec() == "delta" ? 1.0F / 1024 : 1.0F / 16;
  DurableWrites raw;
  Limit pread{"pread, all processors", {}};
  std::vector<double> save;
  std::vector<double> restore;
  std::vector<double> written;
  for (std::uint64_t step = 0; step < kUncounted + context.sample_count(); ++step) {
    STEPSTONE_TRY(Context::check_interrupted());
    fill_bfloat16(weights, step + 1, state.bytes(), reach);
    if (step >= kUncounted) STEPSTONE_TRY(raw.sample(context.scratch(), state.bytes()));
    const std::uint64_t previous = step - 1;
    Result<StepRecord> saved;
    const double time = seconds_of([&] {
      saved =
          save_tree(context.codec(), *store, step, tree, std::span(&previous, step == 0 ? 0 : 1));
    });
    STEPSTONE_TRY(std::move(saved));
    store->wait_for_collector();
    ::sync();
    if (step < kUncounted) continue;
    save.push_back(time);
    std::uint64_t segment_bytes = 0;
    for (const auto& path : segments_below(context.store_path())) {
      segment_bytes += std::filesystem::file_size(path);
    }
    written.push_back(static_cast<double>(segment_bytes));
    STEPSTONE_TRY(warm(context.scratch()));
    pread.samples.push_back(
        STEPSTONE_TRY(parallel_pread(raw_file, destination.bytes(), context.thread_count())));
    Result<void> read;
    restore.push_back(seconds_of([&] { read = read_into(*store, step, destination.bytes()); }));
    STEPSTONE_TRY(std::move(read));
    STEPSTONE_TRY(check_read(*store, step, state, destination.bytes()));
  }
  context.add_rate("save", state.size_bytes(), std::move(save), raw.best());
  context.add_rate("restore_warm", state.size_bytes(), std::move(restore), std::move(pread));
  context.add("written_bytes", "bytes", std::move(written),
              {"the state's bytes", {static_cast<double>(state.size_bytes())}});
  return store->close();
}

// Weights that have moved by up to one part in so many, against those of the step before.
Result<void> measure_deltas(Context& context, const Weights& weights,
                            std::span<const std::byte> base) {
  Memory moved = STEPSTONE_TRY(Memory::allocate(base.size()));
  for (const unsigned part : {1024U, 256U, 64U}) {
    fill_bfloat16(weights, part, moved.bytes(), 1.0F / static_cast<float>(part));
    context.describe_state(base.size(), weights.tensors.size(), fmt::format("moved-1/{}", part));
    STEPSTONE_TRY(measure_codec(context, moved.bytes(), DType::kBfloat16, base));
  }
  return {};
}

}  // namespace

Result<void> run_compress(Context& context) {
  const Weights weights = STEPSTONE_TRY(load_weights(context.settings().model));
  context.describe_state(weights.memory.size_bytes(), weights.tensors.size(), "float32");
  STEPSTONE_TRY(measure_codec(context, weights.memory.bytes(), DType::kFloat32));
  // 727 MB of all-MiniLM-L6-v2's.
  const std::size_t copies =
      std::max<std::size_t>(1, 16 / static_cast<std::size_t>(context.settings().shrink));
  std::vector<StateLeaf> leaves;
  for (std::size_t copy = 0; copy < copies; ++copy) {
    for (const StateLeaf& tensor : weights.tensors) {
      leaves.push_back({"copy" + std::to_string(copy), tensor.name, tensor.shape});
    }
  }
  State state = STEPSTONE_TRY(State::make(std::move(leaves), 0, DType::kBfloat16));
  context.describe_state(state.size_bytes(), state.leaves().size(), "bfloat16");
  const auto one_copy = state.bytes().first(weights.memory.size_bytes() / 2);
  fill_bfloat16(weights, 0, one_copy);
  STEPSTONE_TRY(measure_codec(context, one_copy, DType::kBfloat16));
  STEPSTONE_TRY(measure_deltas(context, weights, one_copy));
  context.describe_state(state.size_bytes(), state.leaves().size(), "bfloat16");
  return measure_store(context, weights, state);
}

}  // namespace stepstone::bench
