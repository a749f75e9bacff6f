#pragma once
// Portable files that no writer of ours makes, each by one change of a file that is whole, under
// hashes that fit, so that it is the one check which the change is about that refuses it.

#include <functional>
#include <vector>

#include "portable_support.h"

namespace stepstone::test {

struct Attack {
  const char* name;
  const char* message;  // A part of the error's.
  std::function<void(PortableParts*)> change;
  ErrorCode expected = ErrorCode::kCorrupt;
};

const std::vector<Attack>& attacks();

}  // namespace stepstone::test
