#include "api/c/call.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

namespace stepstone::c {
namespace {

// The one variable of the library that no object holds: a function that fails before there is a
// handle, as stepstone_open() does, has nowhere else to leave its text, and threads that share a
// handle must not see each other's. A plain array, so that it needs no constructor.
thread_local std::array<char, 2048> error_text;

constexpr auto number_of(ErrorCode code) { return static_cast<stepstone_code>(code) + 1; }
static_assert(number_of(ErrorCode::kInvalidArgument) == STEPSTONE_INVALID_ARGUMENT);
static_assert(number_of(ErrorCode::kNotFound) == STEPSTONE_NOT_FOUND);
static_assert(number_of(ErrorCode::kAlreadyExists) == STEPSTONE_ALREADY_EXISTS);
static_assert(number_of(ErrorCode::kMismatch) == STEPSTONE_MISMATCH);
static_assert(number_of(ErrorCode::kCorrupt) == STEPSTONE_CORRUPT);
static_assert(number_of(ErrorCode::kUnsupported) == STEPSTONE_UNSUPPORTED);
static_assert(number_of(ErrorCode::kLimit) == STEPSTONE_LIMIT);
static_assert(number_of(ErrorCode::kIo) == STEPSTONE_IO);
static_assert(number_of(ErrorCode::kNoSpace) == STEPSTONE_NO_SPACE);
static_assert(number_of(ErrorCode::kPermissionDenied) == STEPSTONE_PERMISSION_DENIED);
static_assert(number_of(ErrorCode::kReadOnly) == STEPSTONE_READ_ONLY);
static_assert(number_of(ErrorCode::kBusy) == STEPSTONE_BUSY);
static_assert(number_of(ErrorCode::kClosed) == STEPSTONE_CLOSED);

}  // namespace

stepstone_code set_error(ErrorCode code, std::string_view message) {
  std::size_t size = std::min(message.size(), error_text.size() - 1);
  // Not in the middle of a character.
  if (size < message.size()) {
    while (size > 0 && (static_cast<unsigned char>(message[size]) & 0xC0U) == 0x80U) --size;
  }
  std::memcpy(error_text.data(), message.data(), size);
  error_text[size] = '\0';
  return number_of(code);
}

stepstone_code set_ok() {
  error_text[0] = '\0';
  return STEPSTONE_OK;
}

Result<void> check_given(std::initializer_list<std::pair<const char*, const void*>> pointers) {
  for (const auto& [name, pointer] : pointers) {
    if (pointer == nullptr) {
      return fail(ErrorCode::kInvalidArgument, fmt::format("argument '{}' is NULL", name));
    }
  }
  return {};
}

Result<void> check_memory(const char* name, const void* memory, std::size_t size) {
  return size == 0 ? Result<void>() : check_given({{name, memory}});
}

Result<char*> new_text(std::string_view text) {
  auto* const copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (copy == nullptr) return fail(ErrorCode::kLimit, "out of memory for the text");
  std::memcpy(copy, text.data(), text.size());
  copy[text.size()] = '\0';
  return copy;
}

}  // namespace stepstone::c

uint32_t stepstone_c_version(void) { return STEPSTONE_C_VERSION; }

const char* stepstone_code_name(stepstone_code code) {
  if (code == STEPSTONE_OK) return "ok";
  if (code < STEPSTONE_OK || code > STEPSTONE_CLOSED) return "unknown";
  // All of these are literals, and so end with a NUL.
  return stepstone::to_string(static_cast<stepstone::ErrorCode>(code - 1)).data();
}

const char* stepstone_error_text(void) { return stepstone::c::error_text.data(); }

void stepstone_text_free(char* text) { std::free(text); }
