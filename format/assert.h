#pragma once
// STEPSTONE_ASSERT states what our own logic guarantees; on in every build, because a storage
// engine that goes on after a broken invariant writes garbage. Bytes from disk or from the caller
// are never asserted: they get an Error.

namespace stepstone::internal {
[[noreturn]] void assertion_failed(const char* condition, const char* file, int line);
}  // namespace stepstone::internal

#define STEPSTONE_ASSERT(condition) \
  ((condition) ? void() : ::stepstone::internal::assertion_failed(#condition, __FILE__, __LINE__))
