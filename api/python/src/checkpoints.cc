// Single checkpoints at a path, followers, and directories of files as trees.
#include <atomic>

#include "api/checkpoint_path.h"
#include "api/checkpoint_save.h"
#include "api/file_handler.h"
#include "api/follow.h"
#include "api/future.h"
#include "api/json.h"
#include "python_items.h"
#include "steps.h"
#include "trees.h"

namespace stepstone::python {
namespace {

using SaveFuture = Future<void>;

// A Future that waits for the save when it goes, without the GIL, unless it was forked.
class PendingSave {
 public:
  PendingSave(SaveFuture future, std::weak_ptr<CheckpointSave> save)
      : future_(std::make_unique<SaveFuture>(std::move(future))), save_(std::move(save)) {}
  ~PendingSave() {
    if (future_ == nullptr) return;
    if (process_.is_forked()) {
      static_cast<void>(future_.release());
    } else {
      without_gil([&] { future_.reset(); });
    }
  }
  PendingSave(PendingSave&&) noexcept = default;
  PendingSave& operator=(PendingSave&&) noexcept = default;

  bool is_done() const { return future_->is_done(); }

  bool cancel() const {
    process_.check("a save in the background");
    return without_gil([&] {
      const std::shared_ptr<CheckpointSave> save = save_.lock();
      return save != nullptr && save->cancel();
    });
  }

  void wait(std::optional<double> timeout_s) const {
    process_.check("a save in the background");
    wait_interruptibly(timeout_s, [&](std::chrono::nanoseconds slice) {
      const bool was_done = future_->is_done();
      Result<void> result =
          future_->result(std::chrono::duration_cast<std::chrono::milliseconds>(slice));
      // Another process writes there: not a reason to try again.
      if (was_done && !result && result.error().code == ErrorCode::kBusy) {
        result.error().code = ErrorCode::kIo;
      }
      return result;
    });
  }

 private:
  std::unique_ptr<SaveFuture> future_;
  std::weak_ptr<CheckpointSave> save_;  // Its memory goes when the save has ended.
  OwnProcess process_;
};

Result<std::shared_ptr<CheckpointSave>> begin_save(const std::string& path,
                                                   const args::CheckpointArgs& args,
                                                   const HandlerRegistry& registry,
                                                   const CheckpointOptions& options) {
  return std::shared_ptr<CheckpointSave>(
      STEPSTONE_TRY(CheckpointSave::begin(path, args, registry, options)));
}

CheckpointOptions options_of(bool force, const std::optional<std::string>& custom_metadata,
                             nb::handle storage, const nb::object& progress) {
  CheckpointOptions options{.force = force,
                            .storage = storage_options_of(storage),
                            .custom_metadata = {},
                            .progress = progress_of(progress)};
  if (custom_metadata) options.custom_metadata = value_of(from_json(*custom_metadata));
  return options;
}

void save_checkpoint(const std::string& path, const std::vector<SaveItem>& items, bool is_single,
                     bool force, const std::optional<std::string>& custom_metadata,
                     nb::handle storage, const nb::object& progress) {
  const PythonItems python_items(items, /*is_waited_for=*/true);
  const args::CheckpointArgs args = python_items.to_args(is_single);
  const HandlerRegistry registry = python_registry();
  const CheckpointOptions options = options_of(force, custom_metadata, storage, progress);
  python_items.value_of(without_gil([&]() -> Result<void> {
    const auto save = STEPSTONE_TRY(begin_save(path, args, registry, options));
    return save->finish();
  }));
}

PendingSave save_checkpoint_async(const std::string& path, const std::vector<SaveItem>& items,
                                  bool is_single, bool force,
                                  const std::optional<std::string>& custom_metadata,
                                  nb::handle storage, const nb::object& progress) {
  const PythonItems python_items(items);
  const args::CheckpointArgs args = python_items.to_args(is_single);
  const HandlerRegistry registry = python_registry();
  const CheckpointOptions options = options_of(force, custom_metadata, storage, progress);
  std::weak_ptr<CheckpointSave> begun;
  SaveFuture future = python_items.value_of(without_gil([&]() -> Result<SaveFuture> {
    const auto save = STEPSTONE_TRY(begin_save(path, args, registry, options));
    STEPSTONE_TRY(save->stage());
    begun = save;
    return SaveFuture::run([save] { return save->finish(); });
  }));
  return {std::move(future), std::move(begun)};
}

std::pair<Step, std::optional<std::string>> open_at(const std::string& path) {
  OpenCheckpoint open = value_of(without_gil([&]() -> Result<OpenCheckpoint> {
    OpenCheckpoint opened = STEPSTONE_TRY(open_checkpoint(path));
    if (opened.store->is_read_only()) STEPSTONE_TRY(opened.reader->hold_files());
    return opened;
  }));
  HeldStep step(std::make_unique<SharedStore>(std::move(open.store)), std::move(open.reader),
                HandlerRegistry());
  return {Step(std::move(step)), std::move(open.item)};
}

std::vector<std::uint64_t> list_steps(const std::string& path) {
  return value_of(without_gil([&]() -> Result<std::vector<std::uint64_t>> {
    const SharedStore store = STEPSTONE_TRY(SharedStore::open(path, {.read_only = true}));
    return store->steps();
  }));
}

// Looks once each time: who waits is Python, where the wait can be interrupted.
class Follower {
 public:
  explicit Follower(std::string directory) : directory_(std::move(directory)) {}

  std::optional<Step> poll(std::uint64_t lowest_step) const {
    process_.check("a follower");
    std::optional<HeldStep> found = value_of(without_gil([&] {
      return wait_for_new_checkpoint(
          directory_, lowest_step,
          {.poll_interval = std::chrono::nanoseconds(1), .timeout = std::chrono::nanoseconds(0)});
    }));
    if (!found) return std::nullopt;
    return Step(*std::move(found));
  }

 private:
  std::string directory_;
  OwnProcess process_;
};

class Scratch {
 public:
  explicit Scratch(const std::optional<std::string>& parent)
      : directory_(value_of(ScratchDirectory::create(parent.value_or("")))) {}
  ~Scratch() {
    if (process_.is_forked()) static_cast<void>(directory_.release());
  }
  Scratch(Scratch&&) noexcept = default;
  Scratch& operator=(Scratch&&) noexcept = default;

  const ScratchDirectory& get() const {
    if (directory_ == nullptr) raise({ErrorCode::kClosed, "the scratch directory was closed"});
    return *directory_;
  }
  void close() {
    if (!process_.is_forked()) directory_.reset();
  }

 private:
  std::unique_ptr<ScratchDirectory> directory_;
  OwnProcess process_;
};

}  // namespace

void bind_checkpoints(nb::module_& module) {
  nb::class_<PendingSave>(module, "PendingSave")
      .def_prop_ro("is_done", &PendingSave::is_done)
      .def("cancel", &PendingSave::cancel)
      .def("wait", &PendingSave::wait, nb::arg("timeout_s").none() = nb::none());

  module.def("save_checkpoint", &save_checkpoint, nb::arg("path"), nb::arg("items"), nb::kw_only(),
             nb::arg("is_single"), nb::arg("force") = false,
             nb::arg("custom_metadata") = nb::none(), nb::arg("storage") = nb::none(),
             nb::arg("progress") = nb::none());
  module.def("save_checkpoint_async", &save_checkpoint_async, nb::arg("path"), nb::arg("items"),
             nb::kw_only(), nb::arg("is_single"), nb::arg("force") = false,
             nb::arg("custom_metadata") = nb::none(), nb::arg("storage") = nb::none(),
             nb::arg("progress") = nb::none());
  module.def("open_checkpoint", &open_at, nb::arg("path"));
  module.def("list_steps", &list_steps, nb::arg("path"));

  nb::class_<Follower>(module, "Follower")
      .def(nb::init<std::string>(), nb::arg("directory"))
      .def("poll", &Follower::poll, nb::arg("lowest_step"));

  nb::class_<Scratch>(module, "ScratchDirectory")
      .def(nb::init<const std::optional<std::string>&>(), nb::arg("parent") = nb::none())
      .def_prop_ro("path", [](const Scratch& self) { return self.get().path().string(); })
      .def("read",
           [](const Scratch& self) {
             return PythonTree{value_of(without_gil([&] { return self.get().read(); })), {}, {}};
           })
      .def(
          "write",
          [](const Scratch& self, const PythonTree& tree) {
            value_of(without_gil([&] { return self.get().write(tree.tree); }));
          },
          nb::arg("tree"))
      .def("close", &Scratch::close);
}

}  // namespace stepstone::python
