#pragma once
// Policies: the library's, and Python's.

#include <functional>
#include <memory>

#include "api/best_n.h"
#include "api/preservation_policies.h"
#include "api/save_policies.h"
#include "native.h"

namespace stepstone::python {

struct SavePolicy {
  std::shared_ptr<const SaveDecisionPolicy> policy;
};

struct KeepPolicy {
  std::shared_ptr<const PreservationPolicy> policy;
};

// Of a Python function that takes metrics as a dict; null for None.
MetricFunction metric_function(const nb::object& function);

std::chrono::nanoseconds nanoseconds_of(double seconds);

}  // namespace stepstone::python
