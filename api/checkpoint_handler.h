#pragma once
// How an object becomes an item of a checkpoint, and an item an object again. To store a type of
// your own, derive from CheckpointHandler and add it to a HandlerRegistry; api/README.md has an
// example.

#include <functional>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeindex>
#include <utility>

#include "any_value.h"
#include "item_metadata.h"
#include "item_reader.h"
#include "item_writer.h"

namespace stepstone {

// The part of a save that nobody waits for; calls ItemWriter::write.
using BackgroundSave = std::function<Result<void>(ItemWriter& item)>;

// A handler without its types: what a registry holds. Handlers are shared and called from several
// threads at once, hence const. What one throws is turned into an error.
class AnyCheckpointHandler {
 public:
  AnyCheckpointHandler() = default;
  AnyCheckpointHandler(const AnyCheckpointHandler&) = default;
  AnyCheckpointHandler& operator=(const AnyCheckpointHandler&) = default;
  virtual ~AnyCheckpointHandler() = default;

  // Recorded with each item, so that a later process finds the handler: never change it. Not empty.
  virtual std::string type_name() const = 0;
  // What is recorded instead, where one object stands for several handlers. Not empty.
  virtual std::string recorded_name(const AnyValue& /*save_args*/) const { return type_name(); }
  virtual std::type_index save_args_type() const = 0;
  virtual std::type_index restore_args_type() const = 0;
  // Whether it restores what a handler of this name has saved.
  virtual bool can_restore(std::string_view recorded) const { return recorded == type_name(); }

  // The part of a save that the trainer waits for: checks, and writes (then the result is empty) or
  // takes what the background part needs. `save_args` is of save_args_type().
  virtual Result<BackgroundSave> begin_save(const AnyValue& save_args, ItemWriter& item) const = 0;
  // When all items of the step are written and just before the commit: the last occasion to make it
  // fail.
  virtual Result<void> finalize(const ItemWriter& /*item*/) const { return {}; }
  // `restore_args` is of restore_args_type(), or holds nothing: as it was saved.
  virtual Result<AnyValue> restore_any(const AnyValue& restore_args,
                                       const ItemReader& item) const = 0;
  virtual Result<ItemMetadata> metadata(const ItemReader& item) const { return item.metadata(); }
};

namespace internal {

// Save and Restore are plain types; Restore can be made without arguments and says what it gives
// back: `using Restored = Vocabulary;`.
template <typename Save, typename Restore>
class TypedCheckpointHandler : public AnyCheckpointHandler {
 public:
  std::type_index save_args_type() const final { return typeid(Save); }
  std::type_index restore_args_type() const final { return typeid(Restore); }

  virtual Result<typename Restore::Restored> restore(const Restore& args,
                                                     const ItemReader& item) const = 0;

  Result<AnyValue> restore_any(const AnyValue& restore_args, const ItemReader& item) const final {
    const Restore as_saved{};
    const auto* const args = restore_args.get_if<Restore>();
    return AnyValue(STEPSTONE_TRY(restore(args == nullptr ? as_saved : *args, item)));
  }
};

}  // namespace internal

// Saves while the trainer waits. The bytes are written in the background all the same: arrays that
// are handed to ItemWriter::write are only copied, or referred to, here.
template <typename Save, typename Restore>
class CheckpointHandler : public internal::TypedCheckpointHandler<Save, Restore> {
 public:
  virtual Result<void> save(const Save& args, ItemWriter& item) const = 0;

  Result<BackgroundSave> begin_save(const AnyValue& save_args, ItemWriter& item) const final {
    STEPSTONE_TRY(save(*save_args.get_if<Save>(), item));
    return BackgroundSave();
  }
};

// For objects that take long to turn into arrays.
template <typename Save, typename Restore>
class AsyncCheckpointHandler : public internal::TypedCheckpointHandler<Save, Restore> {
 public:
  // Copies, or refers to, all that the background part needs: the caller may change its object when
  // this has returned.
  virtual Result<BackgroundSave> save(const Save& args) const = 0;

  Result<BackgroundSave> begin_save(const AnyValue& save_args, ItemWriter& /*item*/) const final {
    BackgroundSave background = STEPSTONE_TRY(save(*save_args.get_if<Save>()));
    if (background) return background;
    return fail(ErrorCode::kInvalidArgument, "the handler gave no background part");
  }
};

}  // namespace stepstone
