#include "engine/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <new>
#include <vector>

namespace stepstone {
namespace {

TEST(ParallelFor, CallsEachIndexOnce) {
  for (const unsigned threads : {1U, 2U, 7U}) {
    std::vector<std::atomic<int>> calls(1000);
    ASSERT_TRUE(parallel_for(threads, calls.size(), [&](std::size_t i) {
      ++calls[i];
      return Result<void>();
    }));
    for (const auto& count : calls) EXPECT_EQ(count, 1);
  }
}

TEST(ParallelFor, ReturnsTheErrorOfTheLowestIndexAndBeginsNothingAfterIt) {
  std::atomic<int> calls = 0;
  const Result<void> result = parallel_for(1, 100, [&](std::size_t i) -> Result<void> {
    ++calls;
    if (i >= 3) return fail(ErrorCode::kIo, "at " + std::to_string(i));
    return {};
  });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message, "at 3");
  EXPECT_EQ(calls, 4);
}

TEST(ParallelFor, TurnsExhaustedMemoryIntoAnError) {
  const Result<void> result =
      parallel_for(2, 2, [](std::size_t) -> Result<void> { throw std::bad_alloc(); });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kLimit);
}

TEST(ParallelFor, OfNothingSucceeds) {
  EXPECT_TRUE(parallel_for(4, 0, [](std::size_t) -> Result<void> { std::abort(); }));
}

}  // namespace
}  // namespace stepstone
