#include "tests/tools/fenced.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>

namespace stepstone::tool {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kIsSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kIsSanitized = true;
#else
constexpr bool kIsSanitized = false;
#endif
#else
constexpr bool kIsSanitized = false;
#endif

constexpr rlim_t kMemorySizeBytes = rlim_t{512} << 20;
constexpr rlim_t kProcessorSeconds = 10;

void put_up_fence() {
  if (!kIsSanitized) {
    std::uint64_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const auto page_size = static_cast<rlim_t>(::sysconf(_SC_PAGESIZE));
    const rlim_t most = pages * page_size + kMemorySizeBytes;
    const rlimit memory = {.rlim_cur = most, .rlim_max = most};
    ::setrlimit(RLIMIT_AS, &memory);
  }
  const rlimit time = {.rlim_cur = kProcessorSeconds, .rlim_max = kProcessorSeconds};
  ::setrlimit(RLIMIT_CPU, &time);
}

Result<void> read_all(const Format& format, const std::filesystem::path& path) {
  const Contents contents = STEPSTONE_TRY(format.read(path));
  for (const ContentLeaf& leaf : contents.leaves) {
    STEPSTONE_TRY(
        stream(leaf, [](std::span<const std::byte> /*piece*/) { return Result<void>(); }));
  }
  return {};
}

// Ends the process. Nothing may leave it: what called it is a copy of the test.
[[noreturn]] void report(const Format& format, const std::filesystem::path& path, int descriptor) {
  try {
    const Result<void> read = read_all(format, path);
    if (read) ::_exit(0);
    const std::string message =
        std::string(to_string(read.error().code)) + ": " + read.error().message;
    [[maybe_unused]] const auto written = ::write(descriptor, message.data(), message.size());
    ::_exit(1);
  } catch (...) {
    ::_exit(2);
  }
}

}  // namespace

FencedResult read_fenced(const Format& format, const std::filesystem::path& path) {
  std::array<int, 2> ends = {};
  FencedResult result;
  if (::pipe(ends.data()) != 0) return result;
  const pid_t child = ::fork();
  if (child == 0) {
    put_up_fence();
    report(format, path, ends[1]);
  }
  ::close(ends[1]);
  std::array<char, 4096> buffer = {};
  while (true) {
    const ssize_t count = ::read(ends[0], buffer.data(), buffer.size());
    if (count <= 0) break;
    result.message.append(buffer.data(), static_cast<std::size_t>(count));
  }
  ::close(ends[0]);
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child) return result;
  result.has_survived = WIFEXITED(status) && WEXITSTATUS(status) <= 1;
  result.was_refused = WIFEXITED(status) && WEXITSTATUS(status) == 1;
  return result;
}

}  // namespace stepstone::tool
