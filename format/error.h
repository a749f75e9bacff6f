#pragma once
// What every fallible function returns. Nothing in Stepstone throws: a function either gives its
// value or an Error whose code a program can act on and whose message a person can.

#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <type_traits>
#include <utility>

namespace stepstone {

enum class ErrorCode : std::uint8_t {
  kInvalidArgument,   // The call itself is wrong, whatever the store holds. Nothing was changed.
  kNotFound,          // The store, step, item or leaf is not there.
  kAlreadyExists,     // The step or file is there already, and overwriting was not asked for.
  kMismatch,          // Stored structure, shape or dtype is not what the caller asked for.
  kCorrupt,           // Stored bytes are not the bytes that were saved.
  kUnsupported,       // Written by a newer version, or beyond what the format or the system can do.
  kLimit,             // A limit of format/limits.h would be exceeded.
  kIo,                // The operating system refused a read or a write.
  kNoSpace,           // The disk (or the quota) is full.
  kPermissionDenied,  // The operating system refused access.
  kReadOnly,          // The store was opened read-only, or the file system is.
  kBusy,              // Another process (or another Store of this one) has it open for writing.
  kClosed,            // The object was closed, or refuses writes after an earlier failure.
};

// The code's name as documents and `--json` output spell it: "not_found".
std::string_view to_string(ErrorCode code);

struct Error {
  ErrorCode code;
  std::string message;  // Names the thing (store, step, item, leaf) and, where there is one, the
                        // way out. Never empty.

  bool operator==(const Error&) const = default;
};

template <typename T>
using Result = tl::expected<T, Error>;

inline tl::unexpected<Error> fail(ErrorCode code, std::string message) {
  return tl::unexpected<Error>(Error{code, std::move(message)});
}

// Puts "`context`: " before the message: each layer that knows a name adds it once.
inline Error with_context(Error error, std::string_view context) {
  error.message.insert(0, ": ");
  error.message.insert(0, context);
  return error;
}

namespace internal {
template <typename T>
T take_value(Result<T>&& result) {
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}
}  // namespace internal

}  // namespace stepstone

#define STEPSTONE_CONCAT_(a, b) a##b
#define STEPSTONE_CONCAT(a, b) STEPSTONE_CONCAT_(a, b)
#define STEPSTONE_TRY_(name, expression)                                             \
  __extension__({                                                                    \
    auto name = (expression);                                                        \
    if (!name) return ::tl::unexpected<::stepstone::Error>(std::move(name).error()); \
    ::stepstone::internal::take_value(std::move(name));                              \
  })
// The value of a Result, or an early return of its error: `auto record = STEPSTONE_TRY(read());`.
#define STEPSTONE_TRY(expression) \
  STEPSTONE_TRY_(STEPSTONE_CONCAT(stepstone_try_, __COUNTER__), expression)

#define STEPSTONE_TRY_CONTEXT_(name, expression, context)                 \
  __extension__({                                                         \
    auto name = (expression);                                             \
    if (!name)                                                            \
      return ::tl::unexpected<::stepstone::Error>(                        \
          ::stepstone::with_context(std::move(name).error(), (context))); \
    ::stepstone::internal::take_value(std::move(name));                   \
  })
// The same, with `context` (evaluated only on error) put before the message.
#define STEPSTONE_TRY_CONTEXT(expression, context) \
  STEPSTONE_TRY_CONTEXT_(STEPSTONE_CONCAT(stepstone_try_, __COUNTER__), expression, context)
