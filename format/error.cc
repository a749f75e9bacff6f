#include "format/error.h"

#include <cstdio>
#include <cstdlib>

#include "format/assert.h"

namespace stepstone {

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid_argument";
    case ErrorCode::kNotFound:
      return "not_found";
    case ErrorCode::kAlreadyExists:
      return "already_exists";
    case ErrorCode::kMismatch:
      return "mismatch";
    case ErrorCode::kCorrupt:
      return "corrupt";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kLimit:
      return "limit";
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kNoSpace:
      return "no_space";
    case ErrorCode::kPermissionDenied:
      return "permission_denied";
    case ErrorCode::kReadOnly:
      return "read_only";
    case ErrorCode::kBusy:
      return "busy";
    case ErrorCode::kClosed:
      return "closed";
  }
  return "unknown";
}

namespace internal {

void assertion_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "stepstone: %s:%d: assertion failed: %s\n", file, line, condition);
  std::abort();
}

}  // namespace internal
}  // namespace stepstone
