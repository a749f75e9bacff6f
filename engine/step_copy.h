#pragma once
// What a copy of a step consists of: the original, as the hooks change it.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/transfer.h"

namespace stepstone {

class StepCopy {
 public:
  // `hooks` and `should_stop` must outlive this and the sources that it gives.
  StepCopy(std::shared_ptr<const StepReader> step, const TransferHooks& hooks,
           const std::function<bool()>& should_stop)
      : step_(std::move(step)), hooks_(hooks), should_stop_(should_stop) {}

  const StepReader& step() const { return *step_; }

  struct Item {
    std::string name;
    TransferItem content;
    std::vector<std::string> encoded_paths;  // Of its leaves in the copy, ascending.
  };
  // nullopt: the item is left out.
  Result<std::optional<Item>> plan_item(const std::string& name) const;

  struct Leaf {
    TransferLeaf content;
    std::uint64_t original_size_bytes = 0;
    std::vector<Hash128> hashes;  // Of the chunks, if they are the original's; else empty.
  };
  Result<Leaf> plan_leaf(const Item& item, const std::string& encoded_path) const;

 private:
  std::shared_ptr<const StepReader> step_;
  const TransferHooks& hooks_;
  const std::function<bool()>& should_stop_;
};

}  // namespace stepstone
