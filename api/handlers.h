#pragma once
// The handlers that the library has: HandlerRegistry::defaults(). What they take and give is said
// in args.h.

#include "args.h"
#include "checkpoint_handler.h"

namespace stepstone {

// Recorded as "standard". Restores what PyTreeCheckpointHandler and ArrayCheckpointHandler saved,
// too.
class StandardCheckpointHandler final
    : public CheckpointHandler<args::StandardSave, args::StandardRestore> {
 public:
  std::string type_name() const override { return "standard"; }
  bool can_restore(std::string_view recorded) const override;
  Result<void> save(const args::StandardSave& args, ItemWriter& item) const override;
  Result<Tree> restore(const args::StandardRestore& args, const ItemReader& item) const override;
};

// Recorded as "pytree". Restores what StandardCheckpointHandler and ArrayCheckpointHandler saved,
// too.
class PyTreeCheckpointHandler final
    : public CheckpointHandler<args::PyTreeSave, args::PyTreeRestore> {
 public:
  std::string type_name() const override { return "pytree"; }
  bool can_restore(std::string_view recorded) const override;
  Result<void> save(const args::PyTreeSave& args, ItemWriter& item) const override;
  Result<Tree> restore(const args::PyTreeRestore& args, const ItemReader& item) const override;
};

// Recorded as "array". Restores a tree that is one array, too.
class ArrayCheckpointHandler final : public CheckpointHandler<args::ArraySave, args::ArrayRestore> {
 public:
  std::string type_name() const override { return "array"; }
  bool can_restore(std::string_view recorded) const override;
  Result<void> save(const args::ArraySave& args, ItemWriter& item) const override;
  Result<Array> restore(const args::ArrayRestore& args, const ItemReader& item) const override;
};

// Recorded as "json".
class JsonCheckpointHandler final : public CheckpointHandler<args::JsonSave, args::JsonRestore> {
 public:
  std::string type_name() const override { return "json"; }
  Result<void> save(const args::JsonSave& args, ItemWriter& item) const override;
  Result<Tree> restore(const args::JsonRestore& args, const ItemReader& item) const override;
};

// Recorded as "proto".
class ProtoCheckpointHandler final : public CheckpointHandler<args::ProtoSave, args::ProtoRestore> {
 public:
  std::string type_name() const override { return "proto"; }
  Result<void> save(const args::ProtoSave& args, ItemWriter& item) const override;
  Result<ProtoMessage> restore(const args::ProtoRestore& args,
                               const ItemReader& item) const override;
};

// Recorded as "random_key".
class RandomKeyCheckpointHandler final
    : public CheckpointHandler<args::RandomKeySave, args::RandomKeyRestore> {
 public:
  std::string type_name() const override { return "random_key"; }
  Result<void> save(const args::RandomKeySave& args, ItemWriter& item) const override;
  Result<RandomKey> restore(const args::RandomKeyRestore& args,
                            const ItemReader& item) const override;
};

// Recorded as "stateful".
class StatefulCheckpointHandler final
    : public CheckpointHandler<args::StatefulSave, args::StatefulRestore> {
 public:
  std::string type_name() const override { return "stateful"; }
  Result<void> save(const args::StatefulSave& args, ItemWriter& item) const override;
  Result<Tree> restore(const args::StatefulRestore& args, const ItemReader& item) const override;
};

}  // namespace stepstone
