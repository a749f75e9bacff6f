// One measurement in one process, so that the peak of its memory belongs to what was measured:
//
//   stepstone_bench save STATE STORE     durable save of the state as step 0 of a new store
//   stepstone_bench restore STATE STORE  restore into new memory; compared with the state, untimed
//   stepstone_bench raw STATE DIRECTORY  the same bytes written as fast as the disk takes them
//   stepstone_bench hash MEBIBYTES THREADS  that much memory hashed in chunks of 256 KiB
//
// STATE is a directory with `leaves`, a line "name extent..." for each float32 leaf, and `bytes`,
// the leaves one after the other. Prints one line of JSON. versus_orbax.py makes the state and puts
// the lines side by side.

#include <fcntl.h>
#include <stepstone/stepstone.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <span>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "format/hash.h"

namespace {

using stepstone::Array;
using stepstone::CheckpointManager;
using stepstone::DType;
using stepstone::ErrorCode;
using stepstone::Result;
using stepstone::Tree;

constexpr std::size_t kWriteBytes = std::size_t{1} << 20;

struct Leaf {
  std::string name;
  std::vector<std::uint64_t> shape;
  std::span<const std::byte> bytes;
};

struct State {
  std::shared_ptr<std::byte> memory;  // Page-aligned, as O_DIRECT wants it.
  std::size_t size_bytes = 0;
  std::vector<Leaf> leaves;
};

tl::unexpected<stepstone::Error> system_failure(const std::string& what) {
  return stepstone::fail(ErrorCode::kIo, what + ": " + std::strerror(errno));
}

double seconds(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// A line of /proc/self/status, in bytes.
std::uint64_t memory_bytes(const std::string& name) {
  std::ifstream status("/proc/self/status");
  std::string word;
  std::uint64_t kibibytes = 0;
  while (status >> word && word != name + ":") {
  }
  status >> kibibytes;
  return kibibytes * 1024;
}

// From here on VmHWM, the peak of the resident memory, counts anew.
void reset_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

Result<State> load_state(const std::filesystem::path& directory) {
  State state;
  std::ifstream index(directory / "leaves");
  for (std::string line; std::getline(index, line);) {
    std::istringstream words(line);
    Leaf leaf;
    words >> leaf.name;
    for (std::uint64_t extent = 0; words >> extent;) leaf.shape.push_back(extent);
    state.leaves.push_back(std::move(leaf));
  }
  const int file = open((directory / "bytes").c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status {};
  if (file < 0 || fstat(file, &status) != 0) return system_failure((directory / "bytes").string());
  state.size_bytes = static_cast<std::size_t>(status.st_size);
  const std::size_t padded = (state.size_bytes + kWriteBytes - 1) / kWriteBytes * kWriteBytes;
  void* memory = mmap(nullptr, padded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return system_failure("memory for the state");
  state.memory = {static_cast<std::byte*>(memory), [padded](std::byte* p) { munmap(p, padded); }};
  for (std::size_t done = 0; done < state.size_bytes;) {
    const ssize_t count = read(file, state.memory.get() + done, state.size_bytes - done);
    if (count <= 0) return system_failure((directory / "bytes").string());
    done += static_cast<std::size_t>(count);
  }
  close(file);
  std::size_t offset = 0;
  for (Leaf& leaf : state.leaves) {
    std::size_t size = sizeof(float);
    for (const std::uint64_t extent : leaf.shape) size *= extent;
    if (size > state.size_bytes - offset) break;
    leaf.bytes = {state.memory.get() + offset, size};
    offset += size;
  }
  if (offset != state.size_bytes || offset == 0) {
    return stepstone::fail(ErrorCode::kInvalidArgument,
                           directory.string() + ": the leaves do not add up to the bytes");
  }
  return state;
}

Result<std::string> save(const State& state, const std::string& store) {
  std::vector<std::pair<std::string, Tree>> children;
  for (const Leaf& leaf : state.leaves) {
    children.emplace_back(leaf.name,
                          STEPSTONE_TRY(Array::borrow(DType::kFloat32, leaf.shape, leaf.bytes)));
  }
  const auto manager =
      STEPSTONE_TRY(CheckpointManager::open(store, {.enable_async_checkpointing = false}));
  const stepstone::args::StandardSave arguments(Tree::dict(std::move(children)));
  Result<bool> saved = false;
  reset_peak();
  const double elapsed = seconds([&] { saved = manager->save(0, arguments); });
  STEPSTONE_TRY(std::move(saved));
  const std::uint64_t peak = memory_bytes("VmHWM");
  STEPSTONE_TRY(manager->close());
  std::ostringstream json;
  json << "{\"seconds\": " << elapsed << ", \"state_bytes\": " << state.size_bytes
       << ", \"peak_bytes\": " << peak << "}";
  return json.str();
}

Result<std::string> restore(const std::string& state_directory, const std::string& store) {
  const auto manager =
      STEPSTONE_TRY(CheckpointManager::open(store, {.create = false, .read_only = true}));
  Result<Tree> tree = Tree();
  reset_peak();
  const double elapsed = seconds([&] { tree = manager->restore(0); });
  if (!tree) return tl::unexpected(tree.error());
  const std::uint64_t peak = memory_bytes("VmHWM");
  const State state = STEPSTONE_TRY(load_state(state_directory));
  for (const Leaf& leaf : state.leaves) {
    const Tree* found = tree->find(leaf.name);
    const Array* array = found == nullptr ? nullptr : found->get_if<Array>();
    if (array == nullptr || array->shape() != leaf.shape ||
        !std::ranges::equal(array->bytes(), leaf.bytes)) {
      return stepstone::fail(ErrorCode::kMismatch, leaf.name + ": not restored as it was saved");
    }
  }
  std::ostringstream json;
  json << "{\"seconds\": " << elapsed << ", \"state_bytes\": " << state.size_bytes
       << ", \"peak_bytes\": " << peak << "}";
  return json.str();
}

// Writes the bytes in pieces of 1 MiB and returns once they are durable. With O_DIRECT the last
// piece is padded, which the state's memory allows for.
bool write_file(const std::string& path, std::span<const std::byte> bytes, int flags) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | flags, 0644);
  if (file < 0) return false;
  bool good = true;
  for (std::size_t done = 0; good && done < bytes.size(); done += kWriteBytes) {
    const std::size_t rest = std::min(kWriteBytes, bytes.size() - done);
    const std::size_t size = (flags & O_DIRECT) != 0 ? kWriteBytes : rest;
    good = write(file, bytes.data() + done, size) == static_cast<ssize_t>(size);
  }
  good = good && fdatasync(file) == 0;
  return close(file) == 0 && good;
}

Result<std::string> raw(const State& state, const std::string& directory) {
  const std::span<const std::byte> bytes(state.memory.get(), state.size_bytes);
  const std::size_t half = state.size_bytes / 2 / kWriteBytes * kWriteBytes;
  const std::string paths[] = {directory + "/raw0", directory + "/raw1"};
  std::ostringstream json;
  for (const int flags : {0, O_DIRECT}) {
    for (const int file_count : {1, 2}) {
      bool first = false, second = true;
      const double elapsed = seconds([&] {
        if (file_count == 1) {
          first = write_file(paths[0], bytes, flags);
        } else {
          std::thread other([&] { second = write_file(paths[1], bytes.subspan(half), flags); });
          first = write_file(paths[0], bytes.first(half), flags);
          other.join();
        }
      });
      const bool good = first && second;
      const int error = errno;
      for (const std::string& path : paths) std::filesystem::remove(path);
      errno = error;
      // Some file systems have no O_DIRECT; the limit is then that of the others.
      if (!good && flags == 0) return system_failure(directory);
      if (!good) continue;
      sync();
      json << (json.tellp() > 0 ? ", " : "{") << '"' << (flags != 0 ? "O_DIRECT" : "buffered")
           << ", " << file_count << (file_count == 1 ? " file" : " files") << "\": " << elapsed;
    }
  }
  json << "}";
  return json.str();
}

Result<std::string> hash(const std::string& mebibytes, const std::string& threads) {
  constexpr std::size_t kChunkBytes = std::size_t{256} << 10;
  const std::size_t thread_count = std::max(1UL, std::strtoul(threads.c_str(), nullptr, 10));
  const std::size_t chunk_count = std::strtoul(mebibytes.c_str(), nullptr, 10) * 4 / thread_count;
  // Written, because the pages of untouched memory are all the same page of zeros.
  const std::vector<std::byte> memory(chunk_count * thread_count * kChunkBytes, std::byte{1});
  std::vector<stepstone::Hash128> sums(thread_count);
  const auto hash_part = [&](std::size_t part) {
    for (std::size_t chunk = 0; chunk < chunk_count; ++chunk) {
      const std::size_t offset = (part * chunk_count + chunk) * kChunkBytes;
      sums[part] = sums[part] + stepstone::hash128(std::span(memory).subspan(offset, kChunkBytes));
    }
  };
  const double elapsed = seconds([&] {
    std::vector<std::jthread> others;
    for (std::size_t part = 1; part < thread_count; ++part) others.emplace_back(hash_part, part);
    hash_part(0);
  });
  std::ostringstream json;
  json << "{\"seconds\": " << elapsed << ", \"bytes\": " << memory.size() << ", \"sum\": \""
       << stepstone::to_string(sums[0]) << "\"}";
  return json.str();
}

Result<std::string> measure(const std::string& what, const std::string& state,
                            const std::string& place) {
  if (what == "restore") return restore(state, place);
  if (what == "save") return save(STEPSTONE_TRY(load_state(state)), place);
  if (what == "raw") return raw(STEPSTONE_TRY(load_state(state)), place);
  if (what == "hash") return hash(state, place);
  return stepstone::fail(ErrorCode::kInvalidArgument, what + ": not save, restore, raw or hash");
}

}  // namespace

int main(int argument_count, char** arguments) {
  if (argument_count != 4) {
    std::cerr << "usage: stepstone_bench save|restore|raw STATE PLACE\n"
                 "       stepstone_bench hash MEBIBYTES THREADS\n";
    return 2;
  }
  const Result<std::string> json = measure(arguments[1], arguments[2], arguments[3]);
  if (!json) {
    std::cerr << "stepstone_bench: " << json.error().message << '\n';
    return 1;
  }
  std::cout << *json << '\n';
  return 0;
}
