#pragma once
// What every function of the C interface does first and last: look at its pointers, and turn a
// Result, or an exception, into a code and a text.

#include <exception>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "api/c/stepstone.h"
#include "format/error.h"

namespace stepstone::c {

// Keeps the text for stepstone_error_text(). Does not allocate: it may be about memory.
stepstone_code set_error(ErrorCode code, std::string_view message);
stepstone_code set_ok();

// kInvalidArgument: names the first pointer that is null.
Result<void> check_given(std::initializer_list<std::pair<const char*, const void*>> pointers);
// The same for memory that may be null where its size is 0.
Result<void> check_memory(const char* name, const void* memory, std::size_t size);

// Copied for the caller to free.
Result<char*> new_text(std::string_view text);

// Runs the body of a function. What the C++ API throws besides its Results is a lack of memory, or
// of threads.
template <typename Call>
stepstone_code guarded(const Call& call) {
  try {
    const Result<void> result = call();
    return result ? set_ok() : set_error(result.error().code, result.error().message);
  } catch (const std::exception& exception) {
    return set_error(ErrorCode::kLimit, exception.what());
  } catch (...) {
    return set_error(ErrorCode::kLimit, "an unknown exception");
  }
}

}  // namespace stepstone::c
