#pragma once
// One checkpoint at one path.

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "args.h"
#include "composite_handler.h"
#include "handlers.h"
#include "item_metadata.h"
#include "storage_options.h"

namespace stepstone {

struct CheckpointOptions {
  bool force = false;  // Replace what is there, atomically: the old checkpoint survives any crash
                       // before the new one is durable.
  StorageOptions storage = {};
  std::optional<Tree> custom_metadata = {};  // As args::JsonSave.
  // Called while the checkpoint is written, from any thread but never twice at once. Must not
  // throw.
  std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> progress = {};
};

// Saves and restores a single checkpoint at a path; for a series of them, see CheckpointManager.
// The path is a store directory with one step or, if it is called `*.stone`, one portable file;
// every call opens it and closes it again, so that the object holds nothing but its handlers. Where
// this process has it open already, through a manager or another call, both use the one open store.
// All but close() may be called from any thread; of two saves to one path at once the one that
// commits last stays, or, without force, the first.
//
// Where a checkpoint is read, `STORE/STEP`, `STORE/STEP/ITEM` and, of a single checkpoint,
// `PATH/ITEM` are paths as well; STORE may be a portable file, of one step or more.
//
// A portable file is replaced by another (force) in one instant, and never changed; what it holds
// is compressed only where StorageOptions::compression is kAlways or kDelta.
class Checkpointer {
 public:
  using SaveOptions = CheckpointOptions;

  // Whatever the arguments ask for, or the checkpoint was saved with.
  Checkpointer() : Checkpointer(HandlerRegistry::defaults()) {}
  explicit Checkpointer(HandlerRegistry registry);
  // A single object, with this handler.
  template <std::derived_from<AnyCheckpointHandler> Handler>
  explicit Checkpointer(Handler handler)
      : Checkpointer(std::make_shared<const Handler>(std::move(handler))) {}
  explicit Checkpointer(std::shared_ptr<const AnyCheckpointHandler> handler);
  // Several objects.
  explicit Checkpointer(const CompositeCheckpointHandler& handler);

  // When it returns OK, the checkpoint survives power loss; until then the path holds what it held.
  // kAlreadyExists: a checkpoint is there and options.force is not set. kInvalidArgument: the path
  // holds something else or is inside a store, `args` have no handler, or hold what cannot be saved
  // (an AbstractArray). kBusy: another process writes there. kLimit, kIo, kNoSpace,
  // kPermissionDenied, kReadOnly, kClosed.
  Result<void> save(const std::filesystem::path& path, const args::CheckpointArgs& args,
                    const SaveOptions& options) const;
  Result<void> save(const std::filesystem::path& path, const args::CheckpointArgs& args) const {
    return save(path, args, SaveOptions{});
  }

  // As it was saved; T is what its handler restores: a Tree, an Array, args::Composite where the
  // checkpoint has several items. kNotFound: no checkpoint there. kInvalidArgument: the path holds
  // a run of steps, or something else. kMismatch: it is no T. kUnsupported: its handler is not
  // registered. kCorrupt, kIo, kClosed.
  template <typename T = Tree>
  Result<T> restore(const std::filesystem::path& path) const {
    const AnyValue all =
        std::is_same_v<T, args::Composite> ? AnyValue(args::Composite()) : AnyValue();
    return STEPSTONE_TRY_CONTEXT(STEPSTONE_TRY(restore_any(path, all)).template get<T>(),
                                 path.string());
  }
  // What `args` make of it: args::StandardRestore, or args::Composite for some items of several. As
  // above; kMismatch: it does not fit the target.
  template <typename Args>
  Result<typename Args::Restored> restore(const std::filesystem::path& path,
                                          const Args& args) const {
    return STEPSTONE_TRY_CONTEXT(
        STEPSTONE_TRY(restore_any(path, args)).template get<typename Args::Restored>(),
        path.string());
  }

  // Of the whole step, or of the one item that the path names. Reads no arrays. Errors as of
  // restore().
  Result<StepMetadata> metadata(const std::filesystem::path& path) const;

  // Every other call gives kClosed from now on. Nothing needs it.
  void close() { is_closed_ = true; }

 protected:
  Result<AnyValue> restore_any(const std::filesystem::path& path, const AnyValue& args) const;
  // Before a save: its arguments are those that this object is for. kInvalidArgument, kClosed.
  Result<void> check_save(const std::filesystem::path& path, const AnyValue& args) const;
  const HandlerRegistry& registry() const { return registry_; }

 private:
  Result<void> check_open(const std::filesystem::path& path) const;

  HandlerRegistry registry_;
  bool is_composite_ = false;
  std::vector<std::string> item_names_;  // Empty: any.
  bool is_closed_ = false;
};

// Trees, with StandardSave and StandardRestore.
class StandardCheckpointer : public Checkpointer {
 public:
  StandardCheckpointer() : Checkpointer(StandardCheckpointHandler()) {}
};

// Trees, with PyTreeSave and PyTreeRestore.
class PyTreeCheckpointer : public Checkpointer {
 public:
  PyTreeCheckpointer() : Checkpointer(PyTreeCheckpointHandler()) {}
};

}  // namespace stepstone
