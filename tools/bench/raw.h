#pragma once
// The limits: what this machine does with the same bytes when nothing but the bytes is asked for.
// All times are in seconds.

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <span>
#include <vector>

#include "format/error.h"
#include "tools/bench/row.h"

namespace stepstone::bench {

template <typename Work>
double seconds_of(Work&& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// The raw limit of a durable save: the bytes written in pieces of 1 MiB to new files, then
// fdatasync. Four ways: buffered or O_DIRECT, one file or two files in two threads.
class DurableWrites {
 public:
  // Times each way once in `directory` and removes the files. `bytes` lie in a Memory, from its
  // beginning.
  Result<void> sample(const std::filesystem::path& directory, std::span<const std::byte> bytes);
  // The way with the lowest median.
  Limit best() const;

 private:
  struct Way {
    const char* name;
    int flags;
    int file_count;
    std::vector<double> samples;
  };
  static Result<bool> write(const Way& way, const std::filesystem::path& directory,
                            std::span<const std::byte> bytes);

  std::vector<Way> ways_ = make_ways();
  static std::vector<Way> make_ways();
};

// A new file with these bytes, on the disk and in the page cache.
Result<void> write_file(const std::filesystem::path& path, std::span<const std::byte> bytes);

// Appends the bytes to a file and makes them durable: the limit of a small step.
Result<double> append_durably(const std::filesystem::path& path, std::span<const std::byte> bytes);

// memcpy on all threads.
Result<double> parallel_copy(std::span<std::byte> destination, std::span<const std::byte> source,
                             unsigned thread_count);
// Every byte looked at once on all threads.
Result<double> parallel_read(std::span<const std::byte> source, unsigned thread_count);
// pread in pieces of 1 MiB on all threads. The file has at least the destination's size.
Result<double> parallel_pread(const std::filesystem::path& path, std::span<std::byte> destination,
                              unsigned thread_count);
// All of the files one after the other on one thread, in pieces of 1 MiB.
Result<double> sequential_read(const std::vector<std::filesystem::path>& files);
// A copy of the file's bytes made durable in new files in the directory, each thread reading its
// part and writing it into a file of its own, in pieces of 1 MiB through the page cache. They are
// removed.
Result<double> durable_copy(const std::filesystem::path& path,
                            const std::filesystem::path& directory, std::uint64_t size_bytes,
                            unsigned thread_count);

// The files in a directory and below it.
std::vector<std::filesystem::path> files_below(const std::filesystem::path& directory);
// The segments among them.
std::vector<std::filesystem::path> segments_below(const std::filesystem::path& directory);
// What they take on the disk: 512 times stat's blocks.
std::uint64_t disk_bytes(const std::filesystem::path& directory);

// Reads the files, so that they are in the page cache.
Result<void> warm(const std::filesystem::path& directory);
// Puts them out of the page cache, after syncing them: posix_fadvise, which leaves the rest of the
// machine's cache alone.
Result<void> evict(const std::filesystem::path& directory);

// Bytes that this process has sent to the disk so far: write_bytes of /proc/self/io.
std::uint64_t device_written_bytes();

}  // namespace stepstone::bench
