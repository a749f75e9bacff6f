#pragma once
// A step that somebody is reading.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "args.h"
#include "handler_registry.h"
#include "item_metadata.h"

namespace stepstone {

class SharedStore;
class StepReader;
struct RestoreStatistics;

// What `args` ask of a step: an args::Composite for items, the one object for anything else, and
// whichever it is where they hold nothing. kInvalidArgument: the step is of the other kind. Errors
// as of CheckpointManager::restore.
Result<AnyValue> restore_step(const StepReader& reader, const args::CheckpointArgs& args,
                              const HandlerRegistry& registry,
                              RestoreStatistics* statistics = nullptr);

// While it lives, the step that it was made for can be read whole, whatever becomes of the step: in
// the process that writes, the collector leaves its bytes alone; in another process, its files stay
// open, and so stay readable when the writer deletes them. Copies nothing. Move-only; its const
// methods may be called from several threads.
class HeldStep {
 public:
  // For the library's use: a reader of `store`, which is kept open along with it.
  HeldStep(std::unique_ptr<SharedStore> store, std::shared_ptr<const StepReader> reader,
           HandlerRegistry registry);
  HeldStep(HeldStep&&) noexcept;
  HeldStep& operator=(HeldStep&&) noexcept;
  ~HeldStep();

  std::uint64_t step() const;
  std::vector<std::string> item_names() const;

  // As CheckpointManager::restore.
  template <typename Restore>
  Result<typename Restore::Restored> restore(const Restore& args) const {
    return STEPSTONE_TRY(restore_any(args)).template get<typename Restore::Restored>();
  }
  Result<Tree> restore() const { return STEPSTONE_TRY(restore_any({})).get<Tree>(); }
  Result<AnyValue> restore_any(const args::CheckpointArgs& args) const;

  Result<ItemMetadata> item_metadata(const std::string& item) const;
  // Of one leaf, as it is stored, whatever else the item holds: one look-up. kNotFound, kCorrupt,
  // kIo.
  Result<LeafMetadata> leaf_metadata(const std::string& item, const LeafPath& path) const;
  std::uint64_t leaf_count(const std::string& item) const;  // 0 where there is no such item.
  std::optional<Tree> metrics() const;                      // nullopt: it was saved without.

  // For the library's use.
  const StepReader& reader() const { return *reader_; }

 private:
  std::unique_ptr<SharedStore> store_;  // Goes last.
  std::shared_ptr<const StepReader> reader_;
  HandlerRegistry registry_;
};

}  // namespace stepstone
