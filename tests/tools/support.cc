#include "tests/tools/support.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>

#include "tools/system.h"

namespace stepstone::tool {
namespace {

// A file without a name, open for reading and writing.
FileDescriptor unnamed_file() {
  const std::string directory = testing::TempDir();
  FileDescriptor file(::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (file.get() >= 0) return file;
  std::string name = directory + "/stepstone-output-XXXXXX";
  FileDescriptor named(::mkstemp(name.data()));
  EXPECT_GE(named.get(), 0);
  ::unlink(name.c_str());
  return named;
}

std::string contents(const FileDescriptor& file) {
  std::string text;
  char buffer[65536];
  ::lseek(file.get(), 0, SEEK_SET);
  for (;;) {
    const ssize_t count = ::read(file.get(), buffer, sizeof(buffer));
    if (count <= 0) return text;
    text.append(buffer, static_cast<std::size_t>(count));
  }
}

}  // namespace

TemporaryDirectoryTest::TemporaryDirectoryTest(Place place) {
  const char* chosen = std::getenv("STEPSTONE_TEST_DIRECTORY");
  const std::string memory = chosen != nullptr ? chosen : "/dev/shm";
  const bool is_in_memory = place == Place::kMemory && ::access(memory.c_str(), W_OK) == 0;
  std::string name = (is_in_memory ? memory : testing::TempDir()) + "/stepstone-tools-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) std::abort();
  directory_ = name;
}

TemporaryDirectoryTest::~TemporaryDirectoryTest() {
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

std::string repeated(std::string_view part, std::size_t count) {
  std::string all;
  for (std::size_t i = 0; i < count; ++i) all += part;
  return all;
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.is_open()) << path;
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return std::move(bytes).str();
}

void write_file(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  ASSERT_TRUE(file.good()) << path;
}

CommandResult run_stepstone(const std::vector<std::string>& arguments,
                            std::optional<int> output_descriptor) {
  const FileDescriptor output = unnamed_file();
  const FileDescriptor error = unnamed_file();
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, output_descriptor.value_or(output.get()),
                                     STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, error.get(), STDERR_FILENO);
  std::vector<std::string> words = {STEPSTONE_BINARY};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers;
  pointers.reserve(words.size() + 1);
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  pid_t child = 0;
  const int spawn_error =
      ::posix_spawn(&child, STEPSTONE_BINARY, &actions, nullptr, pointers.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  CommandResult result;
  EXPECT_EQ(spawn_error, 0) << STEPSTONE_BINARY;
  if (spawn_error != 0) return result;
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.output = contents(output);
  result.error = contents(error);
  return result;
}

std::string random_bytes(std::size_t size, std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(generator());
  return bytes;
}

NamedTensor random_tensor(std::string name, DType dtype, std::vector<std::uint64_t> shape,
                          std::uint64_t seed) {
  const Result<std::uint64_t> size = array_size_bytes(dtype, shape);
  EXPECT_TRUE(size.has_value());
  NamedTensor tensor{std::move(name), dtype, std::move(shape),
                     random_bytes(static_cast<std::size_t>(size.value_or(0)), seed)};
  if (dtype == DType::kBool) {
    for (char& byte : tensor.bytes) byte = static_cast<char>(byte & 1);
  }
  return tensor;
}

std::string safetensors_bytes(const std::vector<NamedTensor>& tensors,
                              const std::optional<SafetensorsMetadata>& metadata) {
  std::vector<SafetensorsTensor> descriptions;
  descriptions.reserve(tensors.size());
  for (const NamedTensor& tensor : tensors) {
    descriptions.push_back({.name = tensor.name,
                            .dtype = tensor.dtype,
                            .shape = tensor.shape,
                            .size_bytes = tensor.bytes.size()});
  }
  const Result<std::string> header = encode_safetensors_header(metadata, descriptions);
  EXPECT_TRUE(header.has_value()) << header.error().message;
  std::string bytes = header.value_or("");
  for (const NamedTensor& tensor : tensors) bytes += tensor.bytes;
  return bytes;
}

std::string canonical_safetensors_bytes(const std::vector<NamedTensor>& tensors,
                                        const std::optional<SafetensorsMetadata>& metadata) {
  std::vector<SafetensorsTensor> descriptions;
  descriptions.reserve(tensors.size());
  for (const NamedTensor& tensor : tensors) {
    descriptions.push_back({.name = tensor.name, .dtype = tensor.dtype});
  }
  std::vector<NamedTensor> ordered;
  ordered.reserve(tensors.size());
  for (const std::size_t i : canonical_order(descriptions)) ordered.push_back(tensors[i]);
  return safetensors_bytes(ordered, metadata);
}

}  // namespace stepstone::tool
