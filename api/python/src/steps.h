#pragma once
// Reading steps.

#include <memory>
#include <optional>
#include <string>

#include "api/held_step.h"
#include "native.h"

namespace stepstone::python {

// A HeldStep that Python may let go before the garbage collector comes by.
class Step {
 public:
  explicit Step(HeldStep step) : step_(std::make_shared<const HeldStep>(std::move(step))) {}
  explicit Step(std::shared_ptr<const HeldStep> step) : step_(std::move(step)) {}
  ~Step();
  Step(Step&&) noexcept = default;
  Step& operator=(Step&&) noexcept = default;

  // Raises "closed" after release() and in a forked child. A share, so that another thread may
  // release meanwhile.
  std::shared_ptr<const HeldStep> get() const;
  void release();

 private:
  std::shared_ptr<const HeldStep> step_;
  OwnProcess process_;
};

// JSON text as it was saved; None for none.
nb::object json_object(const std::string& text);

}  // namespace stepstone::python
