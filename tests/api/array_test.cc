#include "api/array.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <thread>

#include "format/limits.h"
#include "tests/api/support.h"

namespace stepstone {
namespace {

using testing::array_of;
using testing::fails;
using testing::is_ok;
using testing::packed_bytes;
using testing::Random;

std::vector<std::byte> counting_bytes(std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + 3);
  return bytes;
}

// The packed elements by the definition of strides: one address per element, in C order.
std::vector<std::byte> gathered_one_by_one(const Array& array) {
  std::vector<std::byte> packed;
  const std::size_t item_size = info(array.dtype()).bits / 8U;
  const std::vector<std::uint64_t>& shape = array.shape();
  for (std::uint64_t element = 0; element < array.element_count(); ++element) {
    std::uint64_t rest = element;
    const std::byte* at = array.data();
    for (std::size_t axis = shape.size(); axis-- > 0;) {
      at += static_cast<std::int64_t>(rest % shape[axis]) * array.strides_bytes()[axis];
      rest /= shape[axis];
    }
    packed.insert(packed.end(), at, at + item_size);
  }
  return packed;
}

void expect_every_range(const Array& array) {
  ASSERT_FALSE(array.is_contiguous());
  const std::vector<std::byte> expected = gathered_one_by_one(array);
  ASSERT_EQ(expected.size(), array.size_bytes());
  for (std::size_t offset = 0; offset <= expected.size(); ++offset) {
    for (std::size_t size = 0; size <= expected.size() - offset; ++size) {
      std::vector<std::byte> found(size);
      array.gather(offset, found);
      ASSERT_TRUE(std::equal(found.begin(), found.end(),
                             expected.begin() + static_cast<std::ptrdiff_t>(offset)))
          << "offset " << offset << " size " << size;
    }
  }
}

TEST(Array, DefaultIsAnEmptyFloat32Array) {
  const Array array;
  EXPECT_EQ(array.dtype(), DType::kFloat32);
  EXPECT_EQ(array.shape(), std::vector<std::uint64_t>{0});
  EXPECT_EQ(array.element_count(), 0U);
  EXPECT_TRUE(array.bytes().empty());
  EXPECT_EQ(array, array.owned());
  EXPECT_FALSE(array.owned().is_borrowed());
}

TEST(Array, ZerosAreZeroForEveryDType) {
  for (const DType dtype : testing::all_dtypes()) {
    const auto array = Array::zeros(dtype, {3, 5});
    ASSERT_TRUE(is_ok(array));
    EXPECT_EQ(array->size_bytes(), (15U * info(dtype).bits + 7) / 8) << to_string(dtype);
    EXPECT_FALSE(array->is_borrowed());
    for (const std::byte byte : array->bytes()) EXPECT_EQ(byte, std::byte{0});
  }
}

TEST(Array, BorrowRefersToTheCallersMemory) {
  std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const auto array = Array::borrow(std::span<const float>(values), {2, 3});
  ASSERT_TRUE(is_ok(array));
  EXPECT_TRUE(array->is_borrowed());
  EXPECT_EQ(static_cast<const void*>(array->data()), values.data());
  values[4] = 50;
  EXPECT_EQ((*array->values<float>())[4], 50);
}

TEST(Array, CopyOfIsIndependentOfTheSource) {
  std::vector<std::int32_t> values = {1, 2, 3};
  const Array array = array_of(values);
  values[0] = 9;
  EXPECT_FALSE(array.is_borrowed());
  EXPECT_EQ((*array.values<std::int32_t>())[0], 1);
}

TEST(Array, OwnKeepsTheMemoryAlive) {
  const auto memory = std::make_shared<std::vector<std::byte>>(counting_bytes(8));
  auto array = Array::own(DType::kUint8, {8}, *memory, memory);
  ASSERT_TRUE(is_ok(array));
  EXPECT_FALSE(array->is_borrowed());
  EXPECT_EQ(array->data(), memory->data());
  EXPECT_EQ(memory.use_count(), 2);
  Array copy = *array;
  EXPECT_EQ(copy.data(), memory->data());
  EXPECT_EQ(memory.use_count(), 3);
  // What another owner may see is copied before it is written.
  copy.mutable_bytes()[0] = std::byte{99};
  EXPECT_NE(copy.data(), memory->data());
  EXPECT_EQ((*memory)[0], counting_bytes(8)[0]);
  *array = Array();
  EXPECT_EQ(memory.use_count(), 1);
}

TEST(Array, AdoptedMemoryIsWrittenInPlaceWhileNobodySharesIt) {
  std::shared_ptr<std::byte[]> memory(new std::byte[8]);
  std::byte* const bytes = memory.get();
  auto array = Array::adopt(DType::kUint8, {8}, std::move(memory));
  ASSERT_TRUE(is_ok(array));
  EXPECT_EQ(array->mutable_bytes().data(), bytes);
  const Array copy = *array;
  EXPECT_NE(array->mutable_bytes().data(), bytes);
  EXPECT_EQ(copy.data(), bytes);
}

TEST(Array, OwnedCopiesOnlyWhatIsBorrowedOrStrided) {
  const std::vector<std::byte> memory = counting_bytes(12);
  const Array borrowed = *Array::borrow(DType::kUint8, {12}, memory);
  const Array owned = borrowed.owned();
  EXPECT_NE(owned.data(), borrowed.data());
  EXPECT_EQ(owned, borrowed);
  EXPECT_EQ(owned.owned().data(), owned.data());
  const Array strided = *Array::borrow_strided(DType::kUint8, {3, 4}, {1, 3}, memory.data());
  const Array packed = strided.owned();
  EXPECT_TRUE(packed.is_contiguous());
  EXPECT_EQ(packed_bytes(packed), gathered_one_by_one(strided));
}

TEST(Array, MutableBytesCopiesWhatIsSharedAndOnlyThat) {
  Array array = array_of<std::uint8_t>({1, 2, 3});
  const std::byte* const before = array.data();
  array.mutable_bytes()[0] = std::byte{10};
  EXPECT_EQ(array.data(), before) << "the only owner writes in place";

  Array copy = array;
  copy.mutable_bytes()[1] = std::byte{20};
  EXPECT_NE(copy.data(), array.data());
  EXPECT_EQ(array, array_of<std::uint8_t>({10, 2, 3}));
  EXPECT_EQ(copy, array_of<std::uint8_t>({10, 20, 3}));
  array.mutable_bytes()[2] = std::byte{30};
  EXPECT_EQ(array.data(), before) << "the other owner has gone its own way";

  const std::vector<std::byte> memory = counting_bytes(3);
  Array borrowed = *Array::borrow(DType::kUint8, {3}, memory);
  borrowed.mutable_bytes()[0] = std::byte{0};
  EXPECT_EQ(memory, counting_bytes(3));
  EXPECT_FALSE(borrowed.is_borrowed());
}

// A reader in another thread drops its copy; whoever writes afterwards must not be seen by it.
TEST(Array, MutableBytesIsOrderedAfterTheReadsOfOtherOwners) {
  for (int round = 0; round < 200; ++round) {
    Array array = array_of<std::uint8_t>(std::vector<std::uint8_t>(64, 1));
    unsigned sum = 0;
    std::thread reader([copy = array, &sum]() mutable {
      for (const std::byte byte : copy.bytes()) sum += std::to_integer<unsigned>(byte);
      copy = Array();
    });
    for (std::byte& byte : array.mutable_bytes()) byte = std::byte{2};
    reader.join();
    EXPECT_EQ(sum, 64U);
  }
}

TEST(Array, GathersEveryRangeOfStridedMemory) {
  const std::vector<std::byte> memory = counting_bytes(4096);
  const std::byte* const middle = memory.data() + 2048;
  struct Case {
    const char* name;
    DType dtype;
    std::vector<std::uint64_t> shape;
    std::vector<std::int64_t> strides_bytes;
  };
  const std::vector<Case> cases = {
      {"every other element", DType::kFloat32, {7}, {8}},
      {"backwards", DType::kInt16, {9}, {-2}},
      {"broadcast", DType::kFloat32, {3, 4}, {0, 4}},
      {"one element many times", DType::kUint16, {2, 3}, {0, 0}},
      {"transposed", DType::kFloat32, {3, 4}, {4, 12}},
      {"transposed with gaps", DType::kInt16, {3, 4, 2}, {2, 30, 10}},
      {"rows with gaps", DType::kUint8, {4, 5}, {9, 1}},
      {"rows backwards", DType::kUint8, {4, 5}, {-5, 1}},
      {"rows overlap", DType::kUint16, {4, 3}, {2, 2}},
      {"not aligned", DType::kFloat32, {3, 2}, {13, 5}},
      {"axes of one in between", DType::kInt16, {1, 3, 1, 2, 1}, {99, -8, 1000, 6, -3}},
      {"wide elements", DType::kComplex128, {2, 2}, {16, -64}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const auto array = Array::borrow_strided(c.dtype, c.shape, c.strides_bytes, middle);
    ASSERT_TRUE(is_ok(array));
    expect_every_range(*array);
  }
}

TEST(Array, GathersRandomStridedArrays) {
  const std::uint64_t seed = testing::seed_or(1);
  SCOPED_TRACE(testing::trace(seed));
  Random random(seed);
  const std::vector<std::byte> memory = random.bytes(1 << 16);
  for (int round = 0; round < 300; ++round) {
    const std::size_t rank = 1 + random.below(5);
    std::vector<std::uint64_t> shape;
    std::vector<std::int64_t> strides;
    for (std::size_t axis = 0; axis < rank; ++axis) {
      shape.push_back(1 + random.below(4));
      strides.push_back(static_cast<std::int64_t>(random.below(2001)) - 1000);
    }
    const DType dtype = random.one_of<DType>(
        {DType::kUint8, DType::kFloat16, DType::kFloat32, DType::kFloat64, DType::kComplex128});
    const auto array = Array::borrow_strided(dtype, shape, strides, memory.data() + (1 << 15));
    ASSERT_TRUE(is_ok(array));
    if (array->is_contiguous()) continue;  // All axes of extent one.
    const std::vector<std::byte> expected = gathered_one_by_one(*array);
    EXPECT_EQ(packed_bytes(*array), expected);
    const std::size_t offset = random.below(expected.size() + 1);
    std::vector<std::byte> part(random.below(expected.size() - offset + 1));
    array->gather(offset, part);
    EXPECT_TRUE(std::equal(part.begin(), part.end(),
                           expected.begin() + static_cast<std::ptrdiff_t>(offset)));
  }
}

TEST(Array, StridesThatSayContiguousAreRecognised) {
  const std::vector<std::byte> memory = counting_bytes(96);
  const auto is_contiguous = [&](std::vector<std::uint64_t> shape,
                                 std::vector<std::int64_t> strides) {
    const auto array =
        Array::borrow_strided(DType::kFloat32, std::move(shape), std::move(strides), memory.data());
    return array->is_contiguous();
  };
  EXPECT_TRUE(is_contiguous({2, 3, 4}, {48, 16, 4}));
  EXPECT_TRUE(is_contiguous({}, {}));
  EXPECT_TRUE(is_contiguous({1, 4, 1}, {-7, 4, std::numeric_limits<std::int64_t>::max()}));
  EXPECT_TRUE(is_contiguous({2, 0, 3}, {1, 1, 1})) << "nothing is ever stepped over";
  EXPECT_FALSE(is_contiguous({2, 3, 4}, {48, 16, 8}));
  EXPECT_FALSE(is_contiguous({2, 3, 4}, {0, 16, 4}));
}

// Some libraries put the largest number they have there.
TEST(Array, StridesOfAxesOfExtentOneAreNeverComputedWith) {
  const std::vector<std::byte> memory = counting_bytes(24);
  constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();
  const auto array =
      Array::borrow_strided(DType::kUint8, {3, 1, 4, 1}, {8, kHuge, 2, kHuge}, memory.data());
  ASSERT_TRUE(is_ok(array));
  expect_every_range(*array);
}

TEST(Array, WithoutElementsTheOtherExtentsMayBeHuge) {
  const auto array =
      Array::borrow_strided(DType::kFloat64, {0, std::uint64_t{1} << 62}, {8, 8}, nullptr);
  ASSERT_TRUE(is_ok(array));
  EXPECT_EQ(array->size_bytes(), 0U);
  EXPECT_TRUE(array->is_contiguous());
}

TEST(Array, EqualityIsOfDTypeShapeAndBytes) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(array_of<float>({1, nan}), array_of<float>({1, nan}));
  EXPECT_NE(array_of<float>({1, nan}), array_of<float>({1, -nan})) << "another NaN";
  EXPECT_NE(array_of<float>({0.0F}), array_of<float>({-0.0F}));
  EXPECT_NE(array_of<float>({1, 2}), array_of<float>({1, 3}));
  EXPECT_NE(array_of<float>({1, 2}, {2}), array_of<float>({1, 2}, {1, 2}));
  EXPECT_NE(array_of<std::int32_t>({1}), array_of<std::uint32_t>({1}));
  EXPECT_EQ(*Array::zeros(DType::kInt8, {0, 3}), *Array::zeros(DType::kInt8, {0, 3}));
  EXPECT_NE(*Array::zeros(DType::kInt8, {0, 3}), *Array::zeros(DType::kInt8, {3, 0}));

  const std::vector<float> columns = {1, 3, 5, 2, 4, 6};
  const Array transposed = *Array::borrow_strided(DType::kFloat32, {3, 2}, {4, 12},
                                                  std::as_bytes(std::span(columns)).data());
  EXPECT_EQ(transposed, array_of<float>({1, 2, 3, 4, 5, 6}, {3, 2})) << "strides do not matter";
}

TEST(Array, PackedElementsShareBytes) {
  const std::vector<std::byte> bytes = {std::byte{0x21}, std::byte{0x03}};
  const auto array = Array::borrow(DType::kInt4, {3}, bytes);
  ASSERT_TRUE(is_ok(array));
  EXPECT_EQ(array->element_count(), 3U);
  EXPECT_EQ(array->size_bytes(), 2U);
  EXPECT_EQ(Array::zeros(DType::kUint2, {5})->size_bytes(), 2U);
  EXPECT_EQ(Array::zeros(DType::kUint2, {})->size_bytes(), 1U);
}

TEST(Array, RefusesBytesThatDoNotFitTheShape) {
  const std::vector<std::byte> bytes(12);
  for (const std::uint64_t rows : {2U, 4U}) {
    EXPECT_TRUE(fails(Array::borrow(DType::kFloat32, {rows}, bytes), ErrorCode::kInvalidArgument,
                      {"(" + std::to_string(rows) + ",)", "float32",
                       std::to_string(4 * rows) + " bytes", "12 were given"}));
  }
  // Twelve bytes are 23 or 24 packed elements.
  EXPECT_TRUE(is_ok(Array::own(DType::kInt4, {23}, bytes, std::make_shared<int>(0))));
  EXPECT_TRUE(fails(Array::own(DType::kInt4, {25}, bytes, std::make_shared<int>(0)),
                    ErrorCode::kInvalidArgument, {"int4", "13 bytes"}));
  const std::vector<float> values(6);
  EXPECT_TRUE(fails(Array::copy_of(std::span<const float>(values), {2, 2}),
                    ErrorCode::kInvalidArgument, {"(2, 2)", "24 were given"}));
}

TEST(Array, RefusesShapesOverTheLimits) {
  const std::vector<std::uint64_t> rank_33(limits::kRankMax + 1, 1);
  EXPECT_TRUE(fails(Array::zeros(DType::kInt8, rank_33), ErrorCode::kLimit, {"rank 33", "32"}));
  EXPECT_TRUE(fails(Array::borrow(DType::kInt8, rank_33, {}), ErrorCode::kLimit, {"rank 33"}));
  EXPECT_TRUE(
      fails(Array::borrow_strided(DType::kInt8, rank_33, std::vector<std::int64_t>(33, 1), nullptr),
            ErrorCode::kLimit, {"rank 33"}));
  EXPECT_TRUE(is_ok(Array::zeros(DType::kInt8, std::vector<std::uint64_t>(limits::kRankMax, 1))));
  EXPECT_TRUE(fails(Array::zeros(DType::kFloat64, {std::uint64_t{1} << 38}), ErrorCode::kLimit,
                    {"float64", "1 TiB"}));
  EXPECT_TRUE(fails(Array::zeros(DType::kInt8, {std::uint64_t{1} << 33, std::uint64_t{1} << 33}),
                    ErrorCode::kLimit, {"too many elements"}));
  EXPECT_TRUE(fails(Array::zeros(DType::kInt8, {std::uint64_t{1} << 33, std::uint64_t{1} << 33, 0}),
                    ErrorCode::kLimit, {"too many elements"}));
}

TEST(Array, RefusesStridesThatAreNotOnePerAxis) {
  const std::vector<std::byte> bytes(64);
  EXPECT_TRUE(fails(Array::borrow_strided(DType::kInt8, {2, 2}, {2}, bytes.data()),
                    ErrorCode::kInvalidArgument, {"(2, 2)", "1 strides"}));
  EXPECT_TRUE(fails(Array::borrow_strided(DType::kInt8, {2}, {2, 1}, bytes.data()),
                    ErrorCode::kInvalidArgument, {"(2,)", "2 strides"}));
  for (const DType dtype : {DType::kInt4, DType::kUint2, DType::kFloat4E2m1fn}) {
    EXPECT_TRUE(fails(Array::borrow_strided(dtype, {2}, {1}, bytes.data()),
                      ErrorCode::kInvalidArgument, {to_string(dtype), "whole bytes"}));
  }
}

TEST(Array, ValuesNeedTheDTypeContiguityAndAlignment) {
  const Array array = array_of<float>({1.5F, 2.5F});
  ASSERT_TRUE(is_ok(array.values<float>()));
  EXPECT_EQ((*array.values<float>())[1], 2.5F);
  EXPECT_TRUE(fails(array.values<std::int32_t>(), ErrorCode::kMismatch, {"float32", "int32"}));

  const std::vector<float> values = {1, 2, 3, 4};
  const auto bytes = std::as_bytes(std::span(values));
  const Array strided = *Array::borrow_strided(DType::kFloat32, {2}, {8}, bytes.data());
  EXPECT_TRUE(fails(strided.values<float>(), ErrorCode::kInvalidArgument, {"owned()"}));
  const Array unaligned = *Array::borrow(DType::kFloat32, {2}, bytes.subspan(1, 8));
  EXPECT_TRUE(fails(unaligned.values<float>(), ErrorCode::kInvalidArgument, {"owned()"}));
  EXPECT_TRUE(is_ok(unaligned.owned().values<float>()));
  EXPECT_EQ(packed_bytes(unaligned), packed_bytes(unaligned.owned()));
}

}  // namespace
}  // namespace stepstone
