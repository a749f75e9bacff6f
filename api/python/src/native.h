#pragma once
// What the sources of the native module share: errors as exceptions, Python objects that the
// library's threads may let go, and waits that a signal's handler can interrupt.

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "format/error.h"

namespace stepstone::python {

namespace nb = nanobind;

// Raises what the error factory makes of it. With the GIL.
[[noreturn]] void raise(const Error& error);

// The value, or the exception. With the GIL.
template <typename T>
T value_of(Result<T> result) {
  if (!result) raise(result.error());
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}

// What `call` returns, made without the GIL.
template <typename Call>
auto without_gil(Call&& call) {
  const nb::gil_scoped_release release;
  return call();
}

// A Python object that any thread may copy and let go.
class SharedObject {
 public:
  SharedObject() = default;
  // With the GIL.
  explicit SharedObject(nb::object object);

  explicit operator bool() const { return object_ != nullptr; }
  // With the GIL.
  nb::handle get() const { return object_ == nullptr ? nb::handle() : *object_; }
  // Keeps the object alive.
  std::shared_ptr<const void> owner() const { return object_; }

 private:
  std::shared_ptr<const nb::handle> object_;
};

// Nothing that threads or locks stand behind works in a forked child.
class OwnProcess {
 public:
  OwnProcess();
  bool is_forked() const;
  // kClosed in a forked child; `what` is the thing that was opened.
  void check(const std::string& what) const;

 private:
  pid_t process_;
};

// Repeats `attempt(slice)`, which gives kBusy when the time is over, until it has another answer or
// `timeout` is over; between, Python's signal handlers run. With the GIL.
template <typename Attempt>
void wait_interruptibly(std::optional<double> timeout_s, const Attempt& attempt) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kSlice(50);
  const Clock::time_point begun = Clock::now();
  while (true) {
    const Result<void> result =
        without_gil([&] { return attempt(std::chrono::nanoseconds(kSlice)); });
    if (result || result.error().code != ErrorCode::kBusy) return value_of(result);
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
    const std::chrono::duration<double> waited = Clock::now() - begun;
    if (timeout_s && waited.count() >= *timeout_s) raise(result.error());
  }
}

// Bytes that are done, and bytes in all.
using Progress = std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)>;
// Null for None. What the function raises is reported as nobody's to catch: the library, which
// calls it from any of its threads, does not stop half-way.
Progress progress_of(const nb::object& function);

void bind_errors(nb::module_& module);
void bind_trees(nb::module_& module);
void bind_leaf_args(nb::module_& module);
void bind_policies(nb::module_& module);
void bind_steps(nb::module_& module);
void bind_checkpoints(nb::module_& module);
void bind_export(nb::module_& module);
void bind_manager(nb::module_& module);

}  // namespace stepstone::python
