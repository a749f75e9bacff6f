#include "api/checkpoint_manager.h"
#include "api/json.h"
#include "policies.h"
#include "python_items.h"
#include "steps.h"

namespace stepstone::python {
namespace {

using Count = std::optional<std::uint64_t>;

// A callback without a result; what it raises is reported where nobody catches it.
template <typename... Args>
std::function<void(Args...)> callback_of(const nb::object& function) {
  if (function.is_none()) return nullptr;
  return [shared = SharedObject(function)](Args... args) {
    const nb::gil_scoped_acquire gil;
    try {
      shared.get()(std::forward<Args>(args)...);
    } catch (nb::python_error& error) {
      error.discard_as_unraisable("a callback of a checkpoint manager");
    }
  };
}

std::function<bool(std::uint64_t, Count)> should_save_function(const nb::object& function) {
  if (function.is_none()) return nullptr;
  return [shared = SharedObject(function)](std::uint64_t step, Count latest_step) {
    const nb::gil_scoped_acquire gil;
    try {
      const nb::object answer = shared.get()(step, latest_step);
      const int is_true = PyObject_IsTrue(answer.ptr());
      if (is_true < 0) throw nb::python_error();
      return is_true == 1;
    } catch (nb::python_error& error) {
      throw std::runtime_error(error.what());
    }
  };
}

std::function<std::chrono::system_clock::time_point()> clock_function(const nb::object& function) {
  if (function.is_none()) return nullptr;
  return [shared = SharedObject(function)] {
    using Clock = std::chrono::system_clock;
    const nb::gil_scoped_acquire gil;
    try {
      const std::chrono::nanoseconds since(nb::cast<std::int64_t>(shared.get()()));
      return Clock::time_point(std::chrono::duration_cast<Clock::duration>(since));
    } catch (nb::python_error& error) {
      error.discard_as_unraisable("the clock of a checkpoint manager");
      return Clock::now();
    }
  };
}

std::optional<std::chrono::nanoseconds> duration_of(std::optional<double> seconds) {
  if (!seconds) return std::nullopt;
  return nanoseconds_of(*seconds);
}

class Manager {
 public:
  Manager(const std::string& directory, const CheckpointManagerOptions& options,
          const std::optional<std::string>& metadata)
      : directory_(directory), timeout_(options.async_options.timeout) {
    ManagerItems items;
    items.handler_registry = python_registry();
    if (metadata) items.metadata = JsonText(*metadata);
    manager_ =
        value_of(without_gil([&] { return CheckpointManager::open(directory, options, items); }));
  }
  ~Manager() {
    if (manager_ == nullptr) return;
    if (process_.is_forked()) {
      static_cast<void>(manager_.release());
    } else {
      without_gil([&] { manager_.reset(); });
    }
  }
  Manager(const Manager&) = delete;
  Manager& operator=(const Manager&) = delete;

  CheckpointManager& get() const {
    process_.check("the manager of " + directory_);
    return *manager_;
  }
  const std::string& directory() const { return directory_; }

  bool save(std::uint64_t step, const std::vector<SaveItem>& items, bool is_single,
            const std::optional<std::string>& metrics,
            const std::optional<std::string>& custom_metadata, bool force, bool overwrite) const {
    CheckpointManager& manager = get();
    const PythonItems python_items(items);
    const args::CheckpointArgs args = python_items.to_args(is_single);
    CheckpointManager::SaveOptions options{
        .force = force, .metrics = {}, .custom_metadata = {}, .overwrite = overwrite};
    if (metrics) options.metrics = JsonText(*metrics);
    if (custom_metadata) options.custom_metadata = JsonText(*custom_metadata);
    return python_items.value_of(without_gil([&] { return manager.save(step, args, options); }));
  }

  void wait_until_finished(std::optional<double> timeout_s) const {
    CheckpointManager& manager = get();
    if (!timeout_s && timeout_) timeout_s = std::chrono::duration<double>(*timeout_).count();
    wait_interruptibly(timeout_s, [&](std::chrono::nanoseconds slice) {
      return manager.wait_until_finished(slice);
    });
  }

  // What stays with the parent in a forked child is left alone.
  void close() const {
    if (process_.is_forked()) return;
    value_of(without_gil([&] { return manager_->close(); }));
  }

 private:
  std::string directory_;
  std::optional<std::chrono::nanoseconds> timeout_;
  OwnProcess process_;
  std::unique_ptr<CheckpointManager> manager_;
};

void bind_statistics(nb::module_& module) {
  nb::class_<SaveStatistics>(module, "SaveStatistics")
      .def_ro("step", &SaveStatistics::step)
      .def_ro("leaf_count", &SaveStatistics::leaf_count)
      .def_ro("size_bytes", &SaveStatistics::size_bytes)
      .def_ro("staged_bytes", &SaveStatistics::staged_bytes)
      .def_ro("stored_bytes", &SaveStatistics::stored_bytes)
      .def_ro("shared_bytes", &SaveStatistics::shared_bytes)
      .def_ro("staging_capacity_bytes", &SaveStatistics::staging_capacity_bytes)
      .def_ro("thread_count", &SaveStatistics::thread_count)
      .def_ro("is_async", &SaveStatistics::is_async)
      .def_ro("wait_s", &SaveStatistics::wait_s)
      .def_ro("stage_s", &SaveStatistics::stage_s)
      .def_ro("stall_s", &SaveStatistics::stall_s)
      .def_ro("queue_s", &SaveStatistics::queue_s)
      .def_ro("write_s", &SaveStatistics::write_s)
      .def_ro("commit_s", &SaveStatistics::commit_s)
      .def_ro("total_s", &SaveStatistics::total_s);
}

void bind_options(nb::module_& module) {
  nb::class_<CheckpointManagerOptions>(module, "ManagerOptions")
      .def(
          "__init__",
          [](CheckpointManagerOptions* self, std::uint64_t save_interval_steps,
             nb::handle save_on_steps, const nb::object& should_save_fn,
             const std::optional<SavePolicy>& save_policy, Count max_to_keep, Count keep_period,
             std::optional<double> keep_time_interval_s, const nb::object& best_fn,
             const std::string& best_mode, bool keep_checkpoints_without_metrics,
             const std::optional<KeepPolicy>& preservation_policy, bool prevent_write_metrics,
             std::string step_prefix, unsigned step_format_fixed_length, bool create,
             bool read_only, bool is_async, std::optional<double> timeout_s,
             const nb::object& post_finalization_callback, const nb::object& on_save,
             const nb::object& clock_ns, bool check_is_saving_in_progress, bool save_root_metadata,
             std::uint64_t async_queue_size_bytes, std::uint64_t staging_reserve_bytes,
             std::vector<int> preemption_signals, nb::handle storage, const nb::object& progress) {
            CheckpointManagerOptions options;
            options.save_interval_steps = save_interval_steps;
            for (const nb::handle step : nb::borrow(save_on_steps)) {
              options.save_on_steps.insert(nb::cast<std::uint64_t>(step));
            }
            options.should_save_fn = should_save_function(should_save_fn);
            if (save_policy) options.save_decision_policy = save_policy->policy;
            options.max_to_keep = max_to_keep;
            options.keep_period = keep_period;
            options.keep_time_interval = duration_of(keep_time_interval_s);
            options.best_fn = metric_function(best_fn);
            if (best_mode != "max" && best_mode != "min") {
              raise({ErrorCode::kInvalidArgument, "best_mode is 'max' or 'min'"});
            }
            options.best_mode = best_mode == "max" ? BestMode::kMax : BestMode::kMin;
            options.keep_checkpoints_without_metrics = keep_checkpoints_without_metrics;
            if (preservation_policy) options.preservation_policy = preservation_policy->policy;
            options.prevent_write_metrics = prevent_write_metrics;
            options.step_prefix = std::move(step_prefix);
            options.step_format_fixed_length = step_format_fixed_length;
            options.create = create;
            options.read_only = read_only;
            options.enable_async_checkpointing = is_async;
            options.async_options.timeout = duration_of(timeout_s);
            options.async_options.post_finalization_callback =
                callback_of(post_finalization_callback);
            options.on_save = callback_of<const SaveStatistics&>(on_save);
            options.clock = clock_function(clock_ns);
            options.enable_should_save_is_saving_in_progress_check = check_is_saving_in_progress;
            options.save_root_metadata = save_root_metadata;
            options.async_queue_size_bytes = async_queue_size_bytes;
            options.staging_reserve_bytes = staging_reserve_bytes;
            if (!preemption_signals.empty()) {
              options.preemption = value_of(Preemption::on_signals(std::move(preemption_signals)));
            }
            options.storage = storage_options_of(storage);
            options.progress = progress_of(progress);
            new (self) CheckpointManagerOptions(std::move(options));
          },
          nb::kw_only(), nb::arg("save_interval_steps") = 1,
          nb::arg("save_on_steps") = nb::make_tuple(), nb::arg("should_save_fn") = nb::none(),
          nb::arg("save_policy") = nb::none(), nb::arg("max_to_keep") = nb::none(),
          nb::arg("keep_period") = nb::none(), nb::arg("keep_time_interval_s") = nb::none(),
          nb::arg("best_fn") = nb::none(), nb::arg("best_mode") = "max",
          nb::arg("keep_checkpoints_without_metrics") = true,
          nb::arg("preservation_policy") = nb::none(), nb::arg("prevent_write_metrics") = false,
          nb::arg("step_prefix") = "", nb::arg("step_format_fixed_length") = 0,
          nb::arg("create") = true, nb::arg("read_only") = false, nb::arg("is_async") = true,
          nb::arg("timeout_s") = 1200.0, nb::arg("post_finalization_callback") = nb::none(),
          nb::arg("on_save") = nb::none(), nb::arg("clock_ns") = nb::none(),
          nb::arg("check_is_saving_in_progress") = true, nb::arg("save_root_metadata") = true,
          nb::arg("async_queue_size_bytes") = 0, nb::arg("staging_reserve_bytes") = 0,
          nb::arg("preemption_signals") = std::vector<int>(), nb::arg("storage") = nb::none(),
          nb::arg("progress") = nb::none());
}

}  // namespace

void bind_manager(nb::module_& module) {
  bind_statistics(module);
  bind_options(module);

  const auto hold = [](const Manager& self, Count step) {
    CheckpointManager& manager = self.get();
    return Step(value_of(without_gil([&] { return manager.hold(step); })));
  };
  const auto hold_committed = [](const Manager& self, Count step) {
    CheckpointManager& manager = self.get();
    return Step(value_of(without_gil([&] { return manager.hold_committed(step); })));
  };
  nb::class_<Manager>(module, "Manager")
      .def(nb::init<const std::string&, const CheckpointManagerOptions&,
                    const std::optional<std::string>&>(),
           nb::arg("directory"), nb::arg("options"), nb::arg("metadata").none())
      .def_prop_ro("directory", &Manager::directory)
      .def("save", &Manager::save, nb::arg("step"), nb::arg("items"), nb::kw_only(),
           nb::arg("is_single"), nb::arg("metrics") = nb::none(),
           nb::arg("custom_metadata") = nb::none(), nb::arg("force") = false,
           nb::arg("overwrite") = false)
      .def(
          "should_save",
          [](const Manager& self, std::uint64_t step) {
            CheckpointManager& manager = self.get();
            return without_gil([&] { return manager.should_save(step); });
          },
          nb::arg("step"))
      .def("hold", hold, nb::arg("step").none())
      .def("hold_committed", hold_committed, nb::arg("step").none())
      .def("latest_step",
           [](const Manager& self) {
             CheckpointManager& manager = self.get();
             return without_gil([&] { return manager.latest_step(); });
           })
      .def("best_step",
           [](const Manager& self) {
             CheckpointManager& manager = self.get();
             return without_gil([&] { return manager.best_step(); });
           })
      .def("all_steps",
           [](const Manager& self) {
             CheckpointManager& manager = self.get();
             return without_gil([&] { return manager.all_steps(); });
           })
      .def(
          "step_name",
          [](const Manager& self, std::uint64_t step) { return self.get().step_name(step); },
          nb::arg("step"))
      .def("root_metadata",
           [](const Manager& self) -> std::optional<std::string> {
             CheckpointManager& manager = self.get();
             const RootMetadata metadata =
                 value_of(without_gil([&] { return manager.metadata(); }));
             if (!metadata.custom_metadata) return std::nullopt;
             return value_of(to_json(*metadata.custom_metadata));
           })
      .def(
          "metrics",
          [](const Manager& self, std::uint64_t step) -> std::optional<std::string> {
            CheckpointManager& manager = self.get();
            const std::optional<Tree> metrics =
                value_of(without_gil([&] { return manager.metrics(step); }));
            if (!metrics) return std::nullopt;
            return value_of(to_json(*metrics));
          },
          nb::arg("step"))
      .def("reload",
           [](const Manager& self) {
             CheckpointManager& manager = self.get();
             value_of(without_gil([&] { return manager.reload(); }));
           })
      .def(
          "delete_step",
          [](const Manager& self, std::uint64_t step) {
            CheckpointManager& manager = self.get();
            value_of(without_gil([&] { return manager.delete_step(step); }));
          },
          nb::arg("step"))
      .def("request_preemption", [](const Manager& self) { self.get().request_preemption(); })
      .def(
          "reached_preemption",
          [](const Manager& self, std::uint64_t step) {
            return self.get().reached_preemption(step);
          },
          nb::arg("step"))
      .def("wait_until_finished", &Manager::wait_until_finished,
           nb::arg("timeout_s").none() = nb::none())
      .def("check_for_errors", [](const Manager& self) { value_of(self.get().check_for_errors()); })
      .def("is_saving_in_progress",
           [](const Manager& self) { return self.get().is_saving_in_progress(); })
      .def("saves_in_progress", [](const Manager& self) { return self.get().saves_in_progress(); })
      .def("last_save_statistics",
           [](const Manager& self) { return self.get().last_save_statistics(); })
      .def("close", &Manager::close);
}

}  // namespace stepstone::python
