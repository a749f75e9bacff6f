#include "engine/step_copy.h"

#include <algorithm>
#include <cstring>

#include "engine/store_content.h"

namespace stepstone {
namespace {

// The bytes of a leaf of the original; each is checked as it is read. A leaf that stands in its
// record is looked up when it is wanted: a state of nothing else would be in memory twice.
class OriginalSource final : public LeafSource {
 public:
  OriginalSource(std::shared_ptr<const StepReader> step, std::string item, StoredLeaf leaf,
                 const std::function<bool()>& should_stop)
      : step_(std::move(step)),
        item_(std::move(item)),
        leaf_(std::move(leaf)),
        should_stop_(should_stop) {
    is_inline_ = leaf_.record.inline_bytes.has_value();
    leaf_.record.inline_bytes.reset();
  }

  Result<std::span<const std::byte>> read(std::uint64_t offset, std::size_t size,
                                          std::span<std::byte> scratch) const override {
    if (should_stop_ && should_stop_()) {
      return fail(ErrorCode::kClosed, "the copying was stopped");
    }
    const std::span<std::byte> bytes = scratch.first(size);
    if (is_inline_) {
      const StoredLeaf leaf = STEPSTONE_TRY(step_->read_leaf(item_, leaf_.encoded_path));
      STEPSTONE_TRY(step_->read_bytes(item_, leaf, offset, bytes));
    } else {
      STEPSTONE_TRY(step_->read_bytes(item_, leaf_, offset, bytes));
    }
    return bytes;
  }

 private:
  const std::shared_ptr<const StepReader> step_;
  const std::string item_;
  StoredLeaf leaf_;
  bool is_inline_ = false;
  const std::function<bool()>& should_stop_;
};

}  // namespace

Result<std::optional<StepCopy::Item>> StepCopy::plan_item(const std::string& name) const {
  ItemRecord record = STEPSTONE_TRY(step_->read_item(name));
  Item item{.name = name,
            .content = {.handler = std::move(record.handler),
                        .structure = std::move(record.structure),
                        .custom_metadata = std::move(record.custom_metadata),
                        .below = {}},
            .encoded_paths = {}};
  if (hooks_.item && !STEPSTONE_TRY_CONTEXT(hooks_.item(*step_, name, item.content),
                                            item_name(step_->record().save.step, name))) {
    return std::nullopt;
  }
  STEPSTONE_TRY_CONTEXT(
      visit(item.content.structure, {.enter = {},
                                     .leaf = [&](const std::string& path) -> Result<void> {
                                       item.encoded_paths.push_back(path);
                                       return {};
                                     },
                                     .leave = {}}),
      item_name(step_->record().save.step, name));
  std::sort(item.encoded_paths.begin(), item.encoded_paths.end());
  return item;
}

Result<StepCopy::Leaf> StepCopy::plan_leaf(const Item& item,
                                           const std::string& encoded_path) const {
  std::string original_path;
  for (const PathComponent& component : item.content.below) {
    append_component(original_path, component);
  }
  original_path += encoded_path;
  StoredLeaf stored = STEPSTONE_TRY(step_->read_leaf(item.name, std::move(original_path)));
  const LeafRecord& record = stored.record;
  Leaf leaf{.content = {.encoded_path = encoded_path,
                        .info = {.kind = record.kind,
                                 .dtype = record.dtype,
                                 .shape = record.shape,
                                 .size_bytes = record.size_bytes,
                                 .compression = {},
                                 .chunk_size_bytes = record.chunk_size_bytes},
                        .source = nullptr},
            .original_size_bytes = record.size_bytes,
            .hashes = record.hashes};
  const auto original =
      std::make_shared<const OriginalSource>(step_, item.name, std::move(stored), should_stop_);
  leaf.content.source = original;
  if (!hooks_.leaf) return leaf;
  const std::uint32_t chunk_size_bytes = *leaf.content.info.chunk_size_bytes;
  STEPSTONE_TRY_CONTEXT(hooks_.leaf(*step_, item.name, leaf.content),
                        leaf_name(step_->record().save.step, item.name, encoded_path));
  leaf.content.encoded_path = encoded_path;
  if (leaf.content.source != original || leaf.content.info.chunk_size_bytes != chunk_size_bytes) {
    leaf.hashes.clear();
  }
  return leaf;
}

}  // namespace stepstone
