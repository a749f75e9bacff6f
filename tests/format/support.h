#pragma once
// What the tests of format/ share: seeded randomness, values that are likely to hurt, hexadecimal
// text, and the sealing of records that encode() would refuse to write.

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/leaf_path.h"

namespace stepstone::test {

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

inline std::string as_string(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string to_hex(std::string_view bytes);
// Skips white space; anything else that is no digit ends the program.
std::string from_hex(std::string_view text);

// Sixteen bytes a line: offset, bytes, and what of them is ASCII.
std::string hex_dump(std::string_view bytes);

std::string read_file(const std::string& path);

// A flatbuffer closed by its hash, as every record is on disk.
std::string seal(std::string_view buffer);

// Bytes that operator new has handed out so far, freed ones included.
std::uint64_t allocated_bytes();

// The numbers to seed with; STEPSTONE_TEST_SEED=N in the environment tries N alone.
std::vector<std::uint64_t> seeds(std::uint64_t count);
// True then: what holds of many seeds together need not hold of one.
bool tries_one_seed();
std::string trace(std::uint64_t seed);

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}

  std::uint64_t bits() { return engine_(); }
  std::uint64_t below(std::uint64_t end) { return engine_() % end; }
  bool one_in(std::uint64_t count) { return below(count) == 0; }
  char byte() { return static_cast<char>(below(256)); }
  template <typename Value>
  const Value& one_of(const std::vector<Value>& values) {
    return values[below(values.size())];
  }

  std::string bytes(std::size_t size);
  // A name of the unpleasant kind: empty, separators, NUL and its escapes, invalid UTF-8, the
  // longest.
  std::string name();
  PathComponent component();
  LeafPath path();
  // `bytes` with one to three bytes changed, put in, taken out or cut off.
  std::string mutated(std::string bytes);

 private:
  std::mt19937_64 engine_;
};

}  // namespace stepstone::test
