#include "tools/bench/raw.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <fstream>
#include <string>
#include <thread>

#include "engine/parallel.h"
#include "tools/bench/memory.h"
#include "tools/system.h"

namespace stepstone::bench {
namespace {

using tool::FileDescriptor;

tl::unexpected<Error> system_failure(const std::filesystem::path& path) {
  return tl::unexpected<Error>(tool::system_error(errno, path.native()));
}

// With O_DIRECT the last piece is padded, which a Memory allows for.
bool write_new_file(const std::filesystem::path& path, std::span<const std::byte> bytes,
                    int flags) {
  const FileDescriptor file(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | flags, 0644));
  if (file.get() < 0) return false;
  bool is_good = true;
  for (std::size_t done = 0; is_good && done < bytes.size(); done += kPieceBytes) {
    const std::size_t rest = std::min(kPieceBytes, bytes.size() - done);
    const std::size_t size = (flags & O_DIRECT) != 0 ? kPieceBytes : rest;
    is_good = ::write(file.get(), bytes.data() + done, size) == static_cast<ssize_t>(size);
  }
  return is_good && ::fdatasync(file.get()) == 0;
}

// The ranges into which work on `size` bytes is cut, one for each thread, at multiples of a piece.
std::pair<std::size_t, std::size_t> range_of(std::size_t size, std::size_t part,
                                             std::size_t part_count) {
  const std::size_t pieces = (size + kPieceBytes - 1) / kPieceBytes;
  return {std::min(size, pieces * part / part_count * kPieceBytes),
          std::min(size, pieces * (part + 1) / part_count * kPieceBytes)};
}

// Calls work(begin, end) for each thread's range and returns the time.
template <typename Work>
Result<double> timed_in_parallel(std::size_t size, unsigned thread_count, const Work& work) {
  Result<void> result;
  const double seconds = seconds_of([&] {
    result = parallel_for(thread_count, thread_count, [&](std::size_t part) {
      const auto [begin, end] = range_of(size, part, thread_count);
      return work(begin, end);
    });
  });
  STEPSTONE_TRY(std::move(result));
  return seconds;
}

}  // namespace

std::vector<DurableWrites::Way> DurableWrites::make_ways() {
  return {{"write, 1 file", 0, 1, {}},
          {"write, 2 files", 0, 2, {}},
          {"O_DIRECT write, 1 file", O_DIRECT, 1, {}},
          {"O_DIRECT write, 2 files", O_DIRECT, 2, {}}};
}

Result<bool> DurableWrites::write(const Way& way, const std::filesystem::path& directory,
                                  std::span<const std::byte> bytes) {
  const std::filesystem::path paths[] = {directory / "raw0", directory / "raw1"};
  const std::size_t half = bytes.size() / 2 / kPieceBytes * kPieceBytes;
  bool first = false;
  bool second = true;
  if (way.file_count == 1) {
    first = write_new_file(paths[0], bytes, way.flags);
  } else {
    std::thread other([&] { second = write_new_file(paths[1], bytes.subspan(half), way.flags); });
    first = write_new_file(paths[0], bytes.first(half), way.flags);
    other.join();
  }
  // Some file systems have no O_DIRECT; the limit is then that of the others.
  if (!(first && second) && way.flags == 0) return system_failure(directory);
  return first && second;
}

Result<void> DurableWrites::sample(const std::filesystem::path& directory,
                                   std::span<const std::byte> bytes) {
  for (Way& way : ways_) {
    if (way.file_count == 2 && bytes.size() < 2 * kPieceBytes) continue;
    ::sync();
    Result<bool> written = false;
    const double seconds = seconds_of([&] { written = write(way, directory, bytes); });
    std::error_code ignored;
    for (const char* name : {"raw0", "raw1"}) std::filesystem::remove(directory / name, ignored);
    if (STEPSTONE_TRY(std::move(written))) way.samples.push_back(seconds);
  }
  ::sync();
  return {};
}

Limit DurableWrites::best() const {
  const Way* best = nullptr;
  for (const Way& way : ways_) {
    if (way.samples.empty()) continue;
    if (best == nullptr || median(way.samples) < median(best->samples)) best = &way;
  }
  if (best == nullptr) return {};
  return {best->name, best->samples};
}

Result<void> write_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  if (!write_new_file(path, bytes, 0)) return system_failure(path);
  return {};
}

Result<double> append_durably(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  const FileDescriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (file.get() < 0) return system_failure(path);
  int error = 0;
  const double seconds = seconds_of([&] {
    error = tool::write_fully(file.get(), bytes);
    if (error == 0 && ::fdatasync(file.get()) != 0) error = errno;
  });
  if (error != 0) return tl::unexpected<Error>(tool::system_error(error, path.native()));
  return seconds;
}

Result<double> parallel_copy(std::span<std::byte> destination, std::span<const std::byte> source,
                             unsigned thread_count) {
  return timed_in_parallel(
      source.size(), thread_count, [&](std::size_t begin, std::size_t end) -> Result<void> {
        std::copy(source.data() + begin, source.data() + end, destination.data() + begin);
        return {};
      });
}

Result<double> parallel_read(std::span<const std::byte> source, unsigned thread_count) {
  std::atomic<std::uint64_t> sum = 0;  // Observable, so that the reading cannot be left out.
  const double seconds = STEPSTONE_TRY(timed_in_parallel(
      source.size(), thread_count, [&](std::size_t begin, std::size_t end) -> Result<void> {
        // A Memory is padded, so that the last words may be read whole.
        std::uint64_t sums[8] = {};
        for (std::size_t offset = begin; offset < end; offset += sizeof(sums)) {
          const auto* const words = reinterpret_cast<const std::uint64_t*>(source.data() + offset);
          for (std::size_t i = 0; i < 8; ++i) sums[i] ^= words[i];
        }
        for (const std::uint64_t each : sums) sum ^= each;
        return {};
      }));
  return sum == 1 ? seconds + 1e-12 : seconds;
}

Result<double> parallel_pread(const std::filesystem::path& path, std::span<std::byte> destination,
                              unsigned thread_count) {
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return system_failure(path);
  return timed_in_parallel(
      destination.size(), thread_count, [&](std::size_t begin, std::size_t end) -> Result<void> {
        for (std::size_t offset = begin; offset < end;) {
          const ssize_t count =
              ::pread(file.get(), destination.data() + offset, std::min(kPieceBytes, end - offset),
                      static_cast<off_t>(offset));
          if (count <= 0) return system_failure(path);
          offset += static_cast<std::size_t>(count);
        }
        return {};
      });
}

Result<double> sequential_read(const std::vector<std::filesystem::path>& files) {
  Memory buffer = STEPSTONE_TRY(Memory::allocate(kPieceBytes));
  Result<void> result;
  const auto read_all = [&]() -> Result<void> {
    for (const std::filesystem::path& path : files) {
      const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
      ssize_t count = file.get() < 0 ? -1 : 1;
      while (count > 0) count = ::read(file.get(), buffer.bytes().data(), kPieceBytes);
      if (count < 0) return system_failure(path);
    }
    return {};
  };
  const double seconds = seconds_of([&] { result = read_all(); });
  STEPSTONE_TRY(std::move(result));
  return seconds;
}

Result<double> durable_copy(const std::filesystem::path& path,
                            const std::filesystem::path& directory, std::uint64_t size_bytes,
                            unsigned thread_count) {
  std::atomic<unsigned> next_file = 0;
  const auto file_path = [&](unsigned number) {
    return directory / ("copy" + std::to_string(number));
  };
  const auto copy_part = [&](std::size_t begin, std::size_t end) -> Result<void> {
    const FileDescriptor in(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (in.get() < 0) return system_failure(path);
    const std::filesystem::path out_path = file_path(next_file++);
    const FileDescriptor out(
        ::open(out_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (out.get() < 0) return system_failure(out_path);
    std::vector<std::byte> piece(kPieceBytes);
    while (begin < end) {
      const ssize_t count = ::pread(in.get(), piece.data(), std::min(kPieceBytes, end - begin),
                                    static_cast<off_t>(begin));
      if (count <= 0) return system_failure(path);
      const auto size = static_cast<std::size_t>(count);
      if (tool::write_fully(out.get(), std::span(piece).first(size)) != 0) {
        return system_failure(out_path);
      }
      begin += size;
    }
    return ::fdatasync(out.get()) == 0 ? Result<void>() : system_failure(out_path);
  };
  Result<double> seconds =
      timed_in_parallel(static_cast<std::size_t>(size_bytes), thread_count, copy_part);
  std::error_code ignored;
  for (unsigned i = 0; i < thread_count; ++i) std::filesystem::remove(file_path(i), ignored);
  return seconds;
}

std::vector<std::filesystem::path> files_below(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (std::filesystem::recursive_directory_iterator entry(directory, error), end;
       !error && entry != end; entry.increment(error)) {
    std::error_code ignored;
    if (entry->is_regular_file(ignored)) files.push_back(entry->path());
  }
  std::ranges::sort(files);
  return files;
}

std::vector<std::filesystem::path> segments_below(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> files = files_below(directory);
  std::erase_if(files, [](const auto& path) { return path.extension() != ".sst"; });
  return files;
}

std::uint64_t disk_bytes(const std::filesystem::path& directory) {
  std::uint64_t sum = 0;
  for (const std::filesystem::path& path : files_below(directory)) {
    struct stat status = {};
    if (::stat(path.c_str(), &status) != 0) continue;
    sum += static_cast<std::uint64_t>(status.st_blocks) * 512;
  }
  return sum;
}

Result<void> warm(const std::filesystem::path& directory) {
  STEPSTONE_TRY(sequential_read(files_below(directory)));
  return {};
}

Result<void> evict(const std::filesystem::path& directory) {
  for (const std::filesystem::path& path : files_below(directory)) {
    const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) return system_failure(path);
    // Dirty pages stay where they are.
    if (::fdatasync(file.get()) != 0) return system_failure(path);
    const int error = ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
    if (error != 0) return tl::unexpected<Error>(tool::system_error(error, path.native()));
  }
  return {};
}

std::uint64_t device_written_bytes() {
  std::ifstream counters("/proc/self/io");
  std::string word;
  std::uint64_t bytes = 0;
  while (counters >> word && word != "write_bytes:") {
  }
  counters >> bytes;
  return bytes;
}

}  // namespace stepstone::bench
