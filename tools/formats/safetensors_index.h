#pragma once
// model.safetensors.index.json: which tensor of a model is in which of its safetensors files.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "format/error.h"
#include "tools/formats/input_file.h"

namespace stepstone::tool {

inline constexpr std::uint64_t kSafetensorsIndexSizeBytesMax = 100'000'000;

struct SafetensorsIndex {
  std::map<std::string, std::string, std::less<>> tensors;  // Its name, and its file's.
  std::uint64_t total_size_bytes = 0;  // Written; what a file says is not read.
};

// A file's name is one in the index's own directory, whatever it tries to be. Of what else the JSON
// holds besides "weight_map", only its form is looked at. kCorrupt, and kLimit for a name over
// limits::kNameSizeBytesMax.
Result<SafetensorsIndex> parse_safetensors_index(std::string_view json);

// kLimit: over kSafetensorsIndexSizeBytesMax; and as parse_safetensors_index(). Its messages do not
// begin with the path.
Result<SafetensorsIndex> read_index(const InputFile& file);

// As the libraries that write such files do: indented, names ascending. kInvalidArgument: a name is
// not UTF-8.
Result<std::string> encode_safetensors_index(const SafetensorsIndex& index);

}  // namespace stepstone::tool
