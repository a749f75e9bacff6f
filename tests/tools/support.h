#pragma once
// What the tests of the tool share: temporary directories, safetensors files and running the
// command.

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/formats/safetensors.h"

namespace stepstone::tool {

// A directory of its own for each test, removed with it.
class TemporaryDirectoryTest : public testing::Test {
 protected:
  // Where the tests' files are to be.
  enum class Place { kDisk, kMemory };
  // In memory where that can be, for small stores that are made again and again: a sync costs
  // nothing there.
  explicit TemporaryDirectoryTest(Place place = Place::kDisk);
  ~TemporaryDirectoryTest() override;

  std::filesystem::path path(std::string_view name) const { return directory_ / name; }

 private:
  std::filesystem::path directory_;
};

std::string repeated(std::string_view part, std::size_t count);

std::string read_file(const std::filesystem::path& path);
void write_file(const std::filesystem::path& path, std::string_view bytes);

struct CommandResult {
  int exit_code = -1;  // 128 + the signal's number if one ended it.
  std::string output;
  std::string error;
};

// Runs the real binary. `output_descriptor`: what its standard output is to be, if not captured.
CommandResult run_stepstone(const std::vector<std::string>& arguments,
                            std::optional<int> output_descriptor = std::nullopt);

// Random bytes that depend on `seed` alone.
std::string random_bytes(std::size_t size, std::uint64_t seed);

// A tensor of a file to be written.
struct NamedTensor {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<std::uint64_t> shape;
  std::string bytes;
};
// With random bytes (valid ones for booleans).
NamedTensor random_tensor(std::string name, DType dtype, std::vector<std::uint64_t> shape,
                          std::uint64_t seed);

// A safetensors file with the tensors one behind the other, in the order given.
std::string safetensors_bytes(const std::vector<NamedTensor>& tensors,
                              const std::optional<SafetensorsMetadata>& metadata = std::nullopt);

// The same in the order of the safetensors library.
std::string canonical_safetensors_bytes(
    const std::vector<NamedTensor>& tensors,
    const std::optional<SafetensorsMetadata>& metadata = std::nullopt);

}  // namespace stepstone::tool
