// Maps a portable file and views one float32 leaf of its newest step in place, in C++:
//   view_leaf FILE ITEM PATH
#include <fcntl.h>
#include <stepstone/format/portable_file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <iostream>

namespace {

stepstone::Result<void> print(std::span<const std::byte> bytes, const char* item,
                              const char* path) {
  using stepstone::PortableFile;
  const auto file = STEPSTONE_TRY(PortableFile::open(bytes));
  const auto encoded =
      STEPSTONE_TRY(stepstone::encode_path(STEPSTONE_TRY(stepstone::parse_path(path))));
  const auto steps = STEPSTONE_TRY(file.steps());
  const auto leaf = STEPSTONE_TRY(file.leaf(steps.back(), item, encoded));
  const auto content = STEPSTONE_TRY(file.view(leaf, PortableFile::Check::kHashes));
  std::cout << to_string(*leaf.record().dtype) << ' '
            << stepstone::to_string(stepstone::Shape(leaf.record().shape)) << '\n';
  for (std::size_t at = 0; at < content.size(); at += sizeof(float)) {
    float value = 0;
    std::memcpy(&value, content.data() + at, sizeof(value));
    std::cout << value << '\n';
  }
  return file.verify();
}

}  // namespace

int main(int, char** argv) {
  const int descriptor = open(argv[1], O_RDONLY | O_CLOEXEC);
  struct stat status {};
  if (descriptor < 0 || fstat(descriptor, &status) != 0) return 1;
  const auto size = static_cast<std::size_t>(status.st_size);
  void* const begin = mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
  if (begin == MAP_FAILED) return 1;
  const auto result = print({static_cast<const std::byte*>(begin), size}, argv[2], argv[3]);
  if (!result) std::cerr << result.error().message << '\n';
  return result ? 0 : 1;
}
