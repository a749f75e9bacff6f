#pragma once
// This program once more, in a process of its own.

#include <string>
#include <vector>

#include "format/error.h"

namespace stepstone::bench {

// Runs this executable with `arguments` and returns what it writes to standard output. kIo: it
// failed; it has said why on standard error.
Result<std::string> run_self(const std::vector<std::string>& arguments);

}  // namespace stepstone::bench
