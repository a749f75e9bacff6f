#include "api/cast_source.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "api/cast.h"

namespace stepstone {

Result<void> check_cast(DType from, DType to, bool allow_lossy) {
  const std::string_view why = allow_lossy ? std::string_view() : refusal(from, to);
  if (why.empty()) return {};
  return fail(ErrorCode::kMismatch, "cannot cast " + std::string(to_string(from)) + " to " +
                                        std::string(to_string(to)) + ": " + std::string(why) +
                                        "; set allow_lossy_cast if that is meant");
}

Result<std::span<const std::byte>> CastSource::read(std::uint64_t offset, std::size_t size,
                                                    std::span<std::byte> scratch) const {
  if (size == 0) return scratch.first(0);
  const std::uint64_t from_bits = info(from_).bits;
  const std::uint64_t to_bits = info(to_).bits;
  // Eight elements end at a byte in every dtype.
  constexpr std::uint64_t kGroup = 8;
  const std::uint64_t begin = offset * 8 / to_bits / kGroup * kGroup;
  const std::uint64_t wanted_end = ((offset + size) * 8 + to_bits - 1) / to_bits;
  const std::uint64_t end = std::min(element_count_, (wanted_end + kGroup - 1) / kGroup * kGroup);
  const auto source_size = static_cast<std::size_t>(((end - begin) * from_bits + 7) / 8);
  std::vector<std::byte> memory(source_size);
  const auto bytes = STEPSTONE_TRY(source_->read(begin * from_bits / 8, source_size, memory));
  const Array elements = STEPSTONE_TRY(Array::borrow(from_, {end - begin}, bytes));
  const Array result = STEPSTONE_TRY(cast(elements, to_, allow_lossy_));
  const auto skipped = static_cast<std::size_t>(offset - begin * to_bits / 8);
  std::memcpy(scratch.data(), result.bytes().data() + skipped, size);
  return scratch.first(size);
}

}  // namespace stepstone
