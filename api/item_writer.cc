#include "api/item_writer.h"

#include "api/json.h"
#include "api/tree_plan.h"

namespace stepstone {

ItemWriter::ItemWriter(std::uint64_t step, std::string name)
    : step_(step), name_(std::move(name)) {}

ItemWriter::~ItemWriter() = default;
ItemWriter::ItemWriter(ItemWriter&&) noexcept = default;
ItemWriter& ItemWriter::operator=(ItemWriter&&) noexcept = default;

Result<void> ItemWriter::write(const Tree& tree, const PerLeaf<SaveArgs>& save_args) {
  if (plan_ != nullptr) {
    return fail(ErrorCode::kInvalidArgument, "the handler wrote the item twice");
  }
  plan_ = std::make_unique<TreePlan>(STEPSTONE_TRY(TreePlan::make(tree, save_args)));
  return {};
}

Result<void> ItemWriter::set_custom_metadata(const Tree& json) {
  custom_metadata_ = STEPSTONE_TRY_CONTEXT(to_json(json), "custom metadata");
  return {};
}

}  // namespace stepstone
