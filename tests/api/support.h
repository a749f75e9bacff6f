#pragma once
// What the tests of api/ share: seeded randomness, and looking at a Result.

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/array.h"
#include "format/error.h"

namespace stepstone::testing {

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}

  std::uint64_t bits() { return engine_(); }
  std::uint64_t below(std::uint64_t end) { return engine_() % end; }
  bool one_in(std::uint64_t count) { return below(count) == 0; }
  std::byte byte() { return static_cast<std::byte>(engine_() & 0xFF); }
  template <typename Value>
  const Value& one_of(const std::vector<Value>& values) {
    return values[below(values.size())];
  }
  std::vector<std::byte> bytes(std::size_t size) {
    std::vector<std::byte> bytes(size);
    for (std::byte& b : bytes) b = byte();
    return bytes;
  }

 private:
  std::mt19937_64 engine_;
};

inline constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

// Bytes like no others that a test saves: neither shared nor compressed.
inline Array new_bytes(std::size_t size) {
  static std::uint64_t seed = 0;
  return *Array::copy_bytes(DType::kUint8, {size}, Random(++seed).bytes(size));
}

// What a test draws from; STEPSTONE_TEST_SEED=N in the environment puts another in its place.
inline std::uint64_t seed_or(std::uint64_t usual) {
  const char* const text = std::getenv("STEPSTONE_TEST_SEED");
  return text == nullptr ? usual : std::strtoull(text, nullptr, 10);
}
inline std::string trace(std::uint64_t seed) {
  return "replay with STEPSTONE_TEST_SEED=" + std::to_string(seed);
}

template <typename T>
::testing::AssertionResult is_ok(const Result<T>& result) {
  if (result) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << to_string(result.error().code) << ": " << result.error().message;
}

// Whether it failed with this code and a message that has all of `parts`.
template <typename T>
::testing::AssertionResult fails(const Result<T>& result, ErrorCode code,
                                 std::initializer_list<std::string_view> parts = {}) {
  if (result) return ::testing::AssertionFailure() << "it succeeded";
  const auto found = [&] {
    return ::testing::AssertionFailure()
           << to_string(result.error().code) << ": " << result.error().message;
  };
  if (result.error().code != code || result.error().message.empty()) {
    return found() << " (expected " << to_string(code) << ")";
  }
  for (const std::string_view part : parts) {
    if (result.error().message.find(part) == std::string::npos) {
      return found() << " (expected to mention \"" << part << "\")";
    }
  }
  return ::testing::AssertionSuccess();
}

template <typename T>
Array array_of(const std::vector<T>& values, std::vector<std::uint64_t> shape) {
  return *Array::copy_of(std::span<const T>(values), std::move(shape));
}
template <typename T>
Array array_of(const std::vector<T>& values) {
  return array_of(values, {values.size()});
}

inline std::vector<std::byte> packed_bytes(const Array& array) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(array.size_bytes()));
  array.gather(0, bytes);
  return bytes;
}

// While it lives, this process cannot write a file beyond so many bytes: to a store, a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(std::uint64_t size_bytes) {
    previous_handler_ = std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &previous_);
    rlimit limit = previous_;
    limit.rlim_cur = size_bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &previous_);
    std::signal(SIGXFSZ, previous_handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit previous_{};
  void (*previous_handler_)(int) = SIG_DFL;
};

inline std::vector<DType> all_dtypes() {
  std::vector<DType> all;
  for (auto number = static_cast<std::uint8_t>(kDTypeFirst);
       number <= static_cast<std::uint8_t>(kDTypeLast); ++number) {
    all.push_back(static_cast<DType>(number));
  }
  return all;
}

}  // namespace stepstone::testing
