#include "support.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <limits>
#include <new>

#include "format/assert.h"
#include "format/hash.h"
#include "format/limits.h"

namespace {
std::atomic<std::uint64_t> allocated{0};
}  // namespace

// Counts what a decoder asks for: a few hostile bytes must not claim gigabytes. A sanitizer's
// runtime owns operator new and tells a hook of each allocation instead.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEPSTONE_COUNT_BY_HOOK 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define STEPSTONE_COUNT_BY_HOOK 1
#endif
#endif

#ifdef STEPSTONE_COUNT_BY_HOOK
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void*,
                                                                             std::size_t),
                                                         void (*free_hook)(const volatile void*));

namespace {
void count_allocation(const volatile void* /*memory*/, std::size_t size) {
  allocated.fetch_add(size, std::memory_order_relaxed);
}
void ignore_free(const volatile void* /*memory*/) {}
const bool hooks_are_installed =
    __sanitizer_install_malloc_and_free_hooks(count_allocation, ignore_free) > 0;
}  // namespace
#else
// Where only one of a pair is inlined, they look mismatched to g++.
[[gnu::noinline]] void* operator new(std::size_t size) {
  allocated.fetch_add(size, std::memory_order_relaxed);
  void* const memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t /*size*/) noexcept {
  std::free(memory);
}
#endif

namespace stepstone::test {

std::uint64_t allocated_bytes() {
#ifdef STEPSTONE_COUNT_BY_HOOK
  STEPSTONE_ASSERT(hooks_are_installed);
#endif
  return allocated.load(std::memory_order_relaxed);
}

std::string to_hex(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char byte : bytes) {
    const auto value = static_cast<unsigned char>(byte);
    text += kDigits[value >> 4];
    text += kDigits[value & 0xF];
  }
  return text;
}

std::string from_hex(std::string_view text) {
  std::string bytes;
  int high = -1;
  for (const char c : text) {
    if (c == ' ' || c == '\n') continue;
    const std::size_t digit = std::string_view("0123456789abcdef").find(c);
    STEPSTONE_ASSERT(digit != std::string_view::npos);
    if (high < 0) {
      high = static_cast<int>(digit);
    } else {
      bytes += static_cast<char>(high << 4 | static_cast<int>(digit));
      high = -1;
    }
  }
  STEPSTONE_ASSERT(high < 0);
  return bytes;
}

std::string hex_dump(std::string_view bytes) {
  constexpr std::size_t kLineSizeBytes = 16;
  std::string text;
  for (std::size_t offset = 0; offset < bytes.size(); offset += kLineSizeBytes) {
    const std::string_view line = bytes.substr(offset, kLineSizeBytes);
    char label[32];
    std::snprintf(label, sizeof(label), "%04zx ", offset);
    text += label;
    for (const char byte : line) text += " " + to_hex({&byte, 1});
    text.append(3 * (kLineSizeBytes - line.size()) + 2, ' ');
    for (const char byte : line) text += byte > 0x20 && byte < 0x7F ? byte : '.';
    text += '\n';
  }
  return text;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  STEPSTONE_ASSERT(file.is_open());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string seal(std::string_view buffer) {
  const Hash128 hash = hash128(as_bytes(buffer));
  std::string bytes(buffer);
  for (const std::uint64_t half : {hash.low, hash.high}) {
    for (int shift = 0; shift < 64; shift += 8) bytes += static_cast<char>(half >> shift);
  }
  return bytes;
}

std::vector<std::uint64_t> seeds(std::uint64_t count) {
  if (const char* const chosen = std::getenv("STEPSTONE_TEST_SEED")) {
    return {std::strtoull(chosen, nullptr, 10)};
  }
  std::vector<std::uint64_t> numbers;
  for (std::uint64_t seed = 1; seed <= count; ++seed) numbers.push_back(seed);
  return numbers;
}

bool tries_one_seed() { return std::getenv("STEPSTONE_TEST_SEED") != nullptr; }

std::string trace(std::uint64_t seed) {
  return "to try this alone: STEPSTONE_TEST_SEED=" + std::to_string(seed);
}

std::string Random::bytes(std::size_t size) {
  std::string text;
  for (std::size_t i = 0; i < size; ++i) text += byte();
  return text;
}

std::string Random::name() {
  static const std::vector<std::string> kFixed = {"",
                                                  ".",
                                                  "..",
                                                  "/",
                                                  "a/b",
                                                  "[0]",
                                                  "{7}",
                                                  "\\",
                                                  "\\e",
                                                  "\\x00",
                                                  ".a",
                                                  "a.b",
                                                  "0",
                                                  "-1",
                                                  "a",
                                                  "b",
                                                  "aa",
                                                  "e",
                                                  "x",
                                                  "\n",
                                                  "\x7f",
                                                  "\x1b[0m",
                                                  " ",
                                                  "\xff",
                                                  "é",
                                                  "重み",
                                                  "𝛽",
                                                  "\xc3",
                                                  "\xed\xa0\x80",
                                                  "\xc0\xaf",
                                                  "\xf5\x80\x80\x80",
                                                  "\xc2\x85"};
  const auto of_alphabet = [&](std::string_view alphabet, std::size_t size_max) {
    std::string text;
    for (std::size_t size = below(size_max + 1); size > 0; --size) {
      text += alphabet[below(alphabet.size())];
    }
    return text;
  };
  switch (below(16)) {
    case 0:
    case 1:
    case 2:
      return bytes(below(12));
    case 3:
    case 4:
    case 5:
    case 6:
      // What the escapes are made of.
      return of_alphabet(std::string_view("\x00\x01\xff", 3), 6);
    case 7:
    case 8:
      return of_alphabet("/.[]{}\\ex0", 6);
    case 9:
      return one_in(20) ? bytes(limits::kNameSizeBytesMax) : std::string(below(5), '\0');
    default:
      return one_of(kFixed);
  }
}

PathComponent Random::component() {
  static const std::vector<std::int64_t> kNumbers = {0,
                                                     1,
                                                     2,
                                                     9,
                                                     10,
                                                     255,
                                                     256,
                                                     65535,
                                                     std::int64_t{1} << 32,
                                                     std::numeric_limits<std::int64_t>::max()};
  switch (below(8)) {
    case 0:
      return {PathComponent::Kind::kIndex, one_of(kNumbers), {}};
    case 1:
      // The complement of x is -x - 1: the negative numbers at the same edges.
      return PathComponent::key(one_in(2) ? one_of(kNumbers) : ~one_of(kNumbers));
    case 2:
      return PathComponent::key(static_cast<std::int64_t>(bits()));
    case 3:
    case 4:
    case 5:
      return PathComponent::key(name());
    default:
      return PathComponent::attribute(name());
  }
}

LeafPath Random::path() {
  LeafPath path;
  for (std::uint64_t depth = below(5); depth > 0; --depth) path.push_back(component());
  return path;
}

std::string Random::mutated(std::string bytes) {
  for (std::uint64_t count = 1 + below(3); count > 0; --count) {
    const std::size_t at = bytes.empty() ? 0 : below(bytes.size());
    switch (below(bytes.empty() ? 1 : 5)) {
      case 0:
        bytes.insert(at, 1, byte());
        break;
      case 1:
        bytes.erase(at, 1);
        break;
      case 2:
        bytes.resize(at);
        break;
      case 3:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
        break;
      default:
        bytes[at] = one_of(std::vector<char>{'\0', '\x01', '\x02', '\xff', byte()});
        break;
    }
  }
  return bytes;
}

}  // namespace stepstone::test
