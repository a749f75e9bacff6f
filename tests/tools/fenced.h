#pragma once
// Reading a hostile file in a process of its own, whose memory and time end soon.

#include <string>

#include "tools/formats/formats.h"

namespace stepstone::tool {

struct FencedResult {
  // The process came to its end by itself, within the fence.
  bool has_survived = false;
  bool was_refused = false;
  std::string message;  // Of the error, with its code first: "corrupt: ...".
};

// Reads the file as the format, and, if it is taken, every byte of what it holds. The process may
// have 512 MiB of memory more than it began with (not under a sanitizer, which takes what it likes)
// and ten seconds of a processor.
FencedResult read_fenced(const Format& format, const std::filesystem::path& path);

}  // namespace stepstone::tool
