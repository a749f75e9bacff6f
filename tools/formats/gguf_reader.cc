// GGUF, versions 2 and 3: a header of counts, pairs of keys and values, and a description of each
// tensor, then the tensors' bytes, each aligned. Plain tensors alone are read; what a model runner
// wants to know besides is walked over, so that it is checked, but not kept. The header is read in
// blocks: what it costs in memory is the names of keys and tensors.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <optional>
#include <set>

#include "format/limits.h"
#include "tools/formats/formats.h"
#include "tools/formats/gguf.h"
#include "tools/formats/input_file.h"

namespace stepstone::tool {
namespace {

constexpr std::uint64_t kHeaderSizeBytesMax = 100'000'000;
constexpr std::uint64_t kTensorCountMax = std::uint64_t{1} << 18;
constexpr std::uint64_t kPairCountMax = std::uint64_t{1} << 16;
constexpr std::uint64_t kKeySizeBytesMax = 65'535;  // The format's.
constexpr std::uint64_t kAlignmentBytesMax = std::uint64_t{1} << 20;

tl::unexpected<Error> corrupt_gguf(std::string_view what) {
  return fail(ErrorCode::kCorrupt, "not a GGUF file: " + std::string(what));
}

// The file from its begin, front to back.
class HeaderReader {
 public:
  explicit HeaderReader(const InputFile& file) : file_(file) {}

  std::uint64_t position() const { return position_; }

  // An unsigned number of so many bytes.
  Result<std::uint64_t> number(std::size_t size) {
    std::array<std::byte, 8> bytes = {};
    STEPSTONE_TRY(take(std::span(bytes).first(size)));
    std::uint64_t value = 0;
    for (std::size_t i = size; i-- > 0;) value = value << 8 | std::to_integer<unsigned>(bytes[i]);
    return value;
  }

  // Its length, then its bytes.
  Result<std::string> text(std::uint64_t size_bytes_max, std::string_view what) {
    const std::uint64_t size_bytes = STEPSTONE_TRY(number(8));
    STEPSTONE_TRY(check_ahead(size_bytes));
    if (size_bytes > size_bytes_max) {
      return fail(ErrorCode::kLimit, fmt::format("{} of {} bytes is over the limit of {}", what,
                                                 size_bytes, size_bytes_max));
    }
    std::string text(static_cast<std::size_t>(size_bytes), '\0');
    STEPSTONE_TRY(take(std::as_writable_bytes(std::span(text))));
    return text;
  }

  Result<void> skip(std::uint64_t size_bytes) {
    STEPSTONE_TRY(check_ahead(size_bytes));
    position_ += size_bytes;
    return {};
  }

  Result<void> skip_text() { return skip(STEPSTONE_TRY(number(8))); }

  // `size_bytes` more are in the file, and in what may be a header.
  Result<void> check_ahead(std::uint64_t size_bytes) const {
    if (size_bytes > file_.size_bytes() - position_) {
      return corrupt_gguf(fmt::format("it ends within its header, at byte {}", file_.size_bytes()));
    }
    if (position_ + size_bytes > kHeaderSizeBytesMax) {
      return fail(ErrorCode::kLimit,
                  fmt::format("its header is over the limit of {} bytes", kHeaderSizeBytesMax));
    }
    return {};
  }

 private:
  Result<void> take(std::span<std::byte> destination) {
    STEPSTONE_TRY(check_ahead(destination.size()));
    while (!destination.empty()) {
      if (position_ < block_begin_ || position_ >= block_begin_ + block_.size()) {
        STEPSTONE_TRY(fill());
      }
      const auto from = static_cast<std::size_t>(position_ - block_begin_);
      const std::size_t size = std::min(destination.size(), block_.size() - from);
      std::copy_n(block_.begin() + static_cast<std::ptrdiff_t>(from), size, destination.begin());
      destination = destination.subspan(size);
      position_ += size;
    }
    return {};
  }

  // The block that begins here. There is at least one byte more.
  Result<void> fill() {
    constexpr std::uint64_t kBlockSizeBytes = std::uint64_t{64} << 10;
    block_.resize(
        static_cast<std::size_t>(std::min(kBlockSizeBytes, file_.size_bytes() - position_)));
    block_begin_ = position_;
    return file_.read(position_, block_);
  }

  const InputFile& file_;
  std::uint64_t position_ = 0;  // Never beyond the file's end.
  std::uint64_t block_begin_ = 0;
  std::vector<std::byte> block_;
};

// The types of values.
constexpr std::uint64_t kUint32 = 4;
constexpr std::uint64_t kBool = 7;
constexpr std::uint64_t kString = 8;
constexpr std::uint64_t kArray = 9;
constexpr std::array<std::uint8_t, 13> kValueSizes = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

Result<void> skip_array(HeaderReader& reader) {
  const std::uint64_t type = STEPSTONE_TRY(reader.number(4));
  const std::uint64_t count = STEPSTONE_TRY(reader.number(8));
  if (type == kArray) return fail(ErrorCode::kUnsupported, "it is an array of arrays");
  if (type >= kValueSizes.size())
    return corrupt_gguf(fmt::format("{} is no type of a value", type));
  // A string has at least its length.
  const std::uint64_t least = type == kString ? 8 : kValueSizes[static_cast<std::size_t>(type)];
  std::uint64_t size_bytes = 0;
  if (__builtin_mul_overflow(count, least, &size_bytes)) {
    return corrupt_gguf("an array has more values than a file has bytes");
  }
  if (type != kString) return reader.skip(size_bytes);
  STEPSTONE_TRY(reader.check_ahead(size_bytes));
  for (std::uint64_t i = 0; i < count; ++i) STEPSTONE_TRY(reader.skip_text());
  return {};
}

Result<void> skip_value(HeaderReader& reader, std::uint64_t type) {
  if (type >= kValueSizes.size())
    return corrupt_gguf(fmt::format("{} is no type of a value", type));
  if (type == kString) return reader.skip_text();
  if (type == kArray) return skip_array(reader);
  const std::uint64_t value =
      STEPSTONE_TRY(reader.number(kValueSizes[static_cast<std::size_t>(type)]));
  if (type == kBool && value > 1) return corrupt_gguf(fmt::format("{} is no bool", value));
  return {};
}

Result<std::uint64_t> read_alignment(HeaderReader& reader, std::uint64_t type) {
  if (type != kUint32) return corrupt_gguf("it is not of type uint32");
  const std::uint64_t alignment_bytes = STEPSTONE_TRY(reader.number(4));
  if (!std::has_single_bit(alignment_bytes)) {
    return corrupt_gguf(fmt::format("{} is no power of two", alignment_bytes));
  }
  if (alignment_bytes > kAlignmentBytesMax) {
    return fail(ErrorCode::kLimit,
                fmt::format("{} is over the limit of {}", alignment_bytes, kAlignmentBytesMax));
  }
  return alignment_bytes;
}

// Walks over the pairs; what they say of the alignment.
Result<std::uint64_t> read_pairs(HeaderReader& reader, std::uint64_t count) {
  std::uint64_t alignment_bytes = gguf::kAlignmentBytes;
  std::set<std::string> keys;
  for (std::uint64_t i = 0; i < count; ++i) {
    std::string key = STEPSTONE_TRY(reader.text(kKeySizeBytesMax, "a key"));
    const std::uint64_t type = STEPSTONE_TRY(reader.number(4));
    const std::string place = "the value of '" + shown(key) + "'";
    if (key == "general.alignment") {
      alignment_bytes = STEPSTONE_TRY_CONTEXT(read_alignment(reader, type), place);
    } else {
      STEPSTONE_TRY_CONTEXT(skip_value(reader, type), place);
    }
    if (key.empty()) return corrupt_gguf("a key is empty");
    if (!keys.insert(key).second) {
      return corrupt_gguf(fmt::format("the key '{}' is there twice", shown(key)));
    }
  }
  return alignment_bytes;
}

// "Q4_K" of what packs several numbers into blocks; empty: it is unknown.
std::string_view quantised_name(std::uint64_t type) {
  constexpr std::array<std::pair<std::uint64_t, std::string_view>, 24> kNames = {{
      {2, "Q4_0"},   {3, "Q4_1"},    {6, "Q5_0"},     {7, "Q5_1"},    {8, "Q8_0"},
      {9, "Q8_1"},   {10, "Q2_K"},   {11, "Q3_K"},    {12, "Q4_K"},   {13, "Q5_K"},
      {14, "Q6_K"},  {15, "Q8_K"},   {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"},
      {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"},   {22, "IQ2_S"},  {23, "IQ4_XS"},
      {29, "IQ1_M"}, {34, "TQ1_0"},  {35, "TQ2_0"},   {39, "MXFP4"},
  }};
  for (const auto& [number, name] : kNames) {
    if (number == type) return name;
  }
  return {};
}

Result<DType> dtype_of(std::uint64_t type) {
  for (const auto& [number, dtype] : gguf::kTypes) {
    if (number == type) return dtype;
  }
  const std::string_view name = quantised_name(type);
  return fail(ErrorCode::kUnsupported,
              fmt::format("it is {}; only F32, F16, BF16, F64, I8, I16, I32 and I64 can be read",
                          name.empty() ? fmt::format("of the unknown type {}", type)
                                       : fmt::format("quantised as {}", name)));
}

struct Tensor {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<std::uint64_t> shape;
  std::uint64_t size_bytes = 0;
  std::uint64_t offset = 0;  // From the begin of the tensors' bytes.
};

// What stands behind the name.
Result<void> read_description(HeaderReader& reader, Tensor& tensor) {
  const std::uint64_t rank = STEPSTONE_TRY(reader.number(4));
  if (rank > gguf::kRankMax) {
    return corrupt_gguf(
        fmt::format("it has {} dimensions, and at most {} are allowed", rank, gguf::kRankMax));
  }
  for (std::uint64_t i = 0; i < rank; ++i) {
    tensor.shape.push_back(STEPSTONE_TRY(reader.number(8)));
  }
  // The fastest axis comes first.
  std::reverse(tensor.shape.begin(), tensor.shape.end());
  tensor.dtype = STEPSTONE_TRY(dtype_of(STEPSTONE_TRY(reader.number(4))));
  tensor.offset = STEPSTONE_TRY(reader.number(8));
  tensor.size_bytes = STEPSTONE_TRY(array_size_bytes(tensor.dtype, tensor.shape));
  return {};
}

Result<std::vector<Tensor>> read_tensors(HeaderReader& reader, std::uint64_t count) {
  std::vector<Tensor> tensors;
  for (std::uint64_t i = 0; i < count; ++i) {
    Tensor tensor;
    tensor.name = STEPSTONE_TRY(reader.text(limits::kNameSizeBytesMax, "a tensor's name"));
    STEPSTONE_TRY_CONTEXT(read_description(reader, tensor), "tensor '" + shown(tensor.name) + "'");
    tensors.push_back(std::move(tensor));
  }
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const Tensor& tensor : tensors) names.emplace_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) {
    return corrupt_gguf(fmt::format("the tensor '{}' is there twice", shown(*twice)));
  }
  return tensors;
}

Result<void> check_zeros(const InputFile& file, std::uint64_t begin, std::uint64_t end) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(end - begin));
  STEPSTONE_TRY(file.read(begin, bytes));
  if (std::any_of(bytes.begin(), bytes.end(), [](std::byte byte) { return byte != std::byte{}; })) {
    return corrupt_gguf(
        fmt::format("between byte {} and {}, where nothing is, there are not zeros", begin, end));
  }
  return {};
}

// Each tensor begins where the one before it ends, but for zeros up to the next multiple of the
// alignment; the last one ends with the file. So nothing overlaps, and nothing is hidden.
Result<void> check_layout(const InputFile& file, const std::vector<Tensor>& tensors,
                          std::uint64_t header_end, std::uint64_t alignment_bytes) {
  const std::uint64_t data_begin = gguf::aligned(header_end, alignment_bytes);
  std::uint64_t end = header_end;
  std::uint64_t next = data_begin;
  for (const Tensor& tensor : tensors) {
    const std::string place = "tensor '" + shown(tensor.name) + "'";
    if (tensor.offset != next - data_begin) {
      return corrupt_gguf(fmt::format("{} is at {}, where the one before it leads to {}", place,
                                      tensor.offset, next - data_begin));
    }
    if (next > file.size_bytes() || tensor.size_bytes > file.size_bytes() - next) {
      return corrupt_gguf(fmt::format("{} has {} bytes from {} on, and the file ends before", place,
                                      tensor.size_bytes, next));
    }
    if (end != next) STEPSTONE_TRY(check_zeros(file, end, next));
    end = next + tensor.size_bytes;
    next = gguf::aligned(end, alignment_bytes);
  }
  // The zeros behind the last one may be missing.
  if (file.size_bytes() != end && file.size_bytes() != next) {
    return corrupt_gguf(
        fmt::format("it has {} bytes, and its tensors end at {}", file.size_bytes(), end));
  }
  return check_zeros(file, end, file.size_bytes());
}

Result<Contents> read_from(const std::shared_ptr<const InputFile>& file) {
  HeaderReader reader(*file);
  for (const char c : gguf::kMagic) {
    if (STEPSTONE_TRY(reader.number(1)) != static_cast<unsigned char>(c)) {
      return corrupt_gguf("it does not begin with GGUF");
    }
  }
  const std::uint64_t version = STEPSTONE_TRY(reader.number(4));
  if (version != 0 && (version & 0xFFFF) == 0) {
    return fail(ErrorCode::kUnsupported, "it is a big-endian GGUF file");
  }
  if (version != 2 && version != gguf::kVersion) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("version {} of GGUF cannot be read, only 2 and 3", version));
  }
  const std::uint64_t tensor_count = STEPSTONE_TRY(reader.number(8));
  const std::uint64_t pair_count = STEPSTONE_TRY(reader.number(8));
  if (tensor_count > kTensorCountMax || pair_count > kPairCountMax) {
    return fail(ErrorCode::kLimit,
                fmt::format("{} tensors and {} keys are over the limits of {} and {}", tensor_count,
                            pair_count, kTensorCountMax, kPairCountMax));
  }
  const std::uint64_t alignment_bytes = STEPSTONE_TRY(read_pairs(reader, pair_count));
  const std::vector<Tensor> tensors = STEPSTONE_TRY(read_tensors(reader, tensor_count));
  STEPSTONE_TRY(check_layout(*file, tensors, reader.position(), alignment_bytes));

  Contents contents;
  std::vector<std::string> names;
  names.reserve(tensors.size());
  const std::uint64_t data_begin = gguf::aligned(reader.position(), alignment_bytes);
  for (const Tensor& tensor : tensors) {
    names.push_back(tensor.name);
    contents.leaves.push_back(
        STEPSTONE_TRY(flat_leaf(tensor.name, tensor.dtype, tensor.shape,
                                std::make_shared<FileSource>(file, data_begin + tensor.offset))));
  }
  contents.structure = flat_dict(names);
  return contents;
}

}  // namespace

Result<Contents> read_gguf(const std::filesystem::path& path) {
  const auto file = STEPSTONE_TRY(InputFile::open(path));
  return STEPSTONE_TRY_CONTEXT(read_from(file), file->name());
}

}  // namespace stepstone::tool
