#include <pthread.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "native.h"

namespace stepstone::python {
namespace {

// The package sets it once, when it is imported; a module has no better place for what every call
// needs.
nb::object& error_factory() {
  static nb::object* const kFactory = new nb::object();  // Outlives the interpreter.
  return *kFactory;
}

}  // namespace

void raise(const Error& error) {
  if (error_factory().is_valid()) {
    const nb::object exception =
        error_factory()(nb::str(to_string(error.code).data()), nb::str(error.message.c_str()));
    PyErr_SetObject(exception.type().ptr(), exception.ptr());
  } else {
    PyErr_SetString(PyExc_RuntimeError, error.message.c_str());
  }
  throw nb::python_error();
}

SharedObject::SharedObject(nb::object object)
    : object_(new nb::handle(object.release()), [](const nb::handle* handle) {
        // When the interpreter has ended, there is nothing to give back to.
        if (Py_IsInitialized() != 0) {
          const nb::gil_scoped_acquire gil;
          handle->dec_ref();
        }
        delete handle;
      }) {}

namespace {

// In a child of fork(), RocksDB's own static objects wait for ever, when the process exits, for
// threads that stayed with the parent. What Python has to do at its end is done by then; the
// streams of C are flushed, and no static object is destroyed.
void leave_static_objects_alone() {
  on_exit(
      [](int status, void*) {
        std::fflush(nullptr);
        _exit(status);
      },
      nullptr);
}

}  // namespace

OwnProcess::OwnProcess() : process_(getpid()) {
  // From the first store on, for all children to come.
  static const int kRegistered = pthread_atfork(nullptr, nullptr, &leave_static_objects_alone);
  static_cast<void>(kRegistered);
}

bool OwnProcess::is_forked() const { return getpid() != process_; }

void OwnProcess::check(const std::string& what) const {
  if (!is_forked()) return;
  raise({ErrorCode::kClosed,
         what + " was opened before this process was forked, which leaves its threads and locks "
                "behind: open it again in the child"});
}

void bind_errors(nb::module_& module) {
  module.def(
      "set_error_factory", [](nb::object factory) { error_factory() = std::move(factory); },
      nb::arg("factory"));
}

}  // namespace stepstone::python
