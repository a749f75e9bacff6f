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

TEST(ParallelInOrder, TakesWhatWasMadeInOrderAndOneAtATime) {
  for (const unsigned threads : {0U, 1U, 2U, 7U}) {
    std::vector<std::size_t> taken;  // Not guarded: two at a time would be a race.
    ASSERT_TRUE(parallel_in_order(
        threads, 500, [](std::size_t i) { return Result<std::size_t>(2 * i); },
        [&](std::size_t made) -> Result<void> {
          taken.push_back(made);
          return {};
        }));
    ASSERT_EQ(taken.size(), 500);
    for (std::size_t i = 0; i < taken.size(); ++i) EXPECT_EQ(taken[i], 2 * i);
  }
}

TEST(ParallelInOrder, ReturnsTheErrorOfTheLowestIndexAndTakesNothingAfterIt) {
  for (const unsigned threads : {1U, 4U}) {
    std::size_t taken_count = 0;
    const Result<void> result = parallel_in_order(
        threads, 100,
        [](std::size_t i) -> Result<std::size_t> {
          if (i >= 20) return fail(ErrorCode::kIo, "at " + std::to_string(i));
          return i;
        },
        [&](std::size_t) -> Result<void> {
          ++taken_count;
          return {};
        });
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().message, "at 20");
    EXPECT_EQ(taken_count, 20);
  }
}

TEST(ParallelInOrder, EndsWhenTakingFails) {
  for (const unsigned threads : {1U, 4U}) {
    const Result<void> result = parallel_in_order(
        threads, 100, [](std::size_t i) { return Result<std::size_t>(i); },
        [](std::size_t made) -> Result<void> {
          if (made == 7) throw std::bad_alloc();
          if (made > 7) return fail(ErrorCode::kIo, "taken after an error");
          return {};
        });
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::kLimit);
  }
}

TEST(ParallelInOrder, OfNothingSucceeds) {
  EXPECT_TRUE(parallel_in_order(
      4, 0, [](std::size_t) -> Result<int> { std::abort(); },
      [](int) -> Result<void> { std::abort(); }));
}

}  // namespace
}  // namespace stepstone
