#include "policies.h"

#include <cmath>
#include <set>
#include <stdexcept>

#include "trees.h"

namespace stepstone::python {
namespace {

using TimePoint = std::chrono::system_clock::time_point;

std::int64_t unix_ns(TimePoint time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

TimePoint time_of(std::int64_t unix_ns) {
  return TimePoint(
      std::chrono::duration_cast<TimePoint::duration>(std::chrono::nanoseconds(unix_ns)));
}

nb::list to_list(std::span<const CheckpointInfo> infos) {
  nb::list list;
  for (const CheckpointInfo& info : infos) list.append(nb::cast(info));
  return list;
}

// What a policy of Python raises becomes an exception of C++ with its text, which the library turns
// into the error of the save.
template <typename Call>
auto as_exception(const Call& call) {
  try {
    return call();
  } catch (nb::python_error& error) {
    throw std::runtime_error(error.what());
  } catch (const nb::cast_error&) {
    throw std::runtime_error("it answered with a value of the wrong type");
  }
}

class PythonSavePolicy : public SaveDecisionPolicy {
 public:
  explicit PythonSavePolicy(nb::object decide) : decide_(std::move(decide)) {}

  bool should_save(const CheckpointInfo& step, std::span<const CheckpointInfo> previous_steps,
                   const DecisionContext& context) const override {
    const nb::gil_scoped_acquire gil;
    return as_exception([&] {
      const nb::object answer = decide_.get()(
          step, to_list(previous_steps), context.is_saving_in_progress, context.reached_preemption);
      const int is_true = PyObject_IsTrue(answer.ptr());
      if (is_true < 0) throw nb::python_error();
      return is_true == 1;
    });
  }

 private:
  SharedObject decide_;
};

class PythonPreservationPolicy : public PreservationPolicy {
 public:
  PythonPreservationPolicy(nb::object preserve, std::string name)
      : preserve_(std::move(preserve)), name_(std::move(name)) {}

  std::vector<bool> should_preserve(std::span<const CheckpointInfo> checkpoints,
                                    const PreservationContext& context) const override {
    const nb::gil_scoped_acquire gil;
    return as_exception([&] {
      const nb::object answer =
          preserve_.get()(to_list(checkpoints), unix_ns(context.now), context.saved_step);
      std::vector<bool> kept;
      for (const nb::handle each : nb::borrow(answer)) {
        const int is_true = PyObject_IsTrue(each.ptr());
        if (is_true < 0) throw nb::python_error();
        kept.push_back(is_true == 1);
      }
      return kept;
    });
  }
  Tree description() const override { return Tree::dict({{"policy", name_}}); }

 private:
  SharedObject preserve_;
  std::string name_;
};

template <typename Policy, typename... Args>
SavePolicy make_save_policy(Args... args) {
  SavePolicy made{std::make_shared<const Policy>(std::move(args)...)};
  value_of(made.policy->check());
  return made;
}

template <typename Policy, typename... Args>
KeepPolicy make_keep_policy(Args... args) {
  KeepPolicy made{std::make_shared<const Policy>(std::move(args)...)};
  value_of(made.policy->check());
  return made;
}

using Count = std::optional<std::uint64_t>;

std::set<std::uint64_t> set_of(nb::handle steps) {
  std::set<std::uint64_t> set;
  for (const nb::handle step : nb::borrow(steps)) set.insert(nb::cast<std::uint64_t>(step));
  return set;
}

void bind_save_policies(nb::module_& module) {
  nb::class_<SavePolicy>(module, "SavePolicy")
      .def(
          "should_save",
          [](const SavePolicy& self, const CheckpointInfo& step,
             const std::vector<CheckpointInfo>& previous_steps, bool is_saving_in_progress,
             bool reached_preemption) {
            return self.policy->should_save(step, previous_steps,
                                            {.is_saving_in_progress = is_saving_in_progress,
                                             .reached_preemption = reached_preemption});
          },
          nb::arg("step"), nb::arg("previous_steps"), nb::arg("is_saving_in_progress"),
          nb::arg("reached_preemption"));
  module.def("fixed_interval_policy", &make_save_policy<FixedIntervalPolicy, std::uint64_t>,
             nb::arg("interval"));
  module.def(
      "specific_steps_policy",
      [](nb::handle steps) { return make_save_policy<SpecificStepsPolicy>(set_of(steps)); },
      nb::arg("steps"));
  module.def(
      "continuous_policy",
      [](std::optional<double> minimum_interval_s) {
        std::optional<std::chrono::nanoseconds> interval;
        if (minimum_interval_s) interval = nanoseconds_of(*minimum_interval_s);
        return make_save_policy<ContinuousCheckpointingPolicy>(interval);
      },
      nb::arg("minimum_interval_s").none());
  module.def("preemption_policy", &make_save_policy<PreemptionCheckpointingPolicy>);
  module.def("initial_save_policy", &make_save_policy<InitialSavePolicy>);
  module.def(
      "any_save_policy",
      [](const std::vector<SavePolicy>& policies) {
        SaveDecisionPolicies all;
        for (const SavePolicy& each : policies) all.push_back(each.policy);
        return make_save_policy<AnySavePolicy>(std::move(all));
      },
      nb::arg("policies"));
  module.def(
      "python_save_policy",
      [](nb::object decide) { return make_save_policy<PythonSavePolicy>(std::move(decide)); },
      nb::arg("decide"));
}

void bind_preservation_policies(nb::module_& module) {
  nb::class_<KeepPolicy>(module, "PreservationPolicy")
      .def(
          "should_preserve",
          [](const KeepPolicy& self, const std::vector<CheckpointInfo>& checkpoints,
             std::int64_t now_ns, Count saved_step) {
            return self.policy->should_preserve(checkpoints,
                                                {.now = time_of(now_ns), .saved_step = saved_step});
          },
          nb::arg("checkpoints"), nb::arg("now_ns"), nb::arg("saved_step").none());
  module.def("preserve_all", &make_keep_policy<PreserveAll>);
  module.def("latest_n", &make_keep_policy<LatestN, Count>, nb::arg("n").none());
  module.def("newest", &make_keep_policy<Newest>);
  module.def(
      "every_n_seconds",
      [](double interval_s) { return make_keep_policy<EveryNSeconds>(nanoseconds_of(interval_s)); },
      nb::arg("interval_s"));
  module.def(
      "every_n_steps",
      [](std::uint64_t interval_steps, bool exact_interval, Count max_to_keep) {
        return make_keep_policy<EveryNSteps>(
            interval_steps,
            EveryNStepsOptions{.exact_interval = exact_interval, .max_to_keep = max_to_keep});
      },
      nb::arg("interval_steps"), nb::arg("exact_interval"), nb::arg("max_to_keep").none());
  module.def("every_n_steps_closest", &make_keep_policy<EveryNStepsClosest, std::uint64_t, Count>,
             nb::arg("interval_steps"), nb::arg("max_to_keep").none());
  module.def(
      "custom_steps", [](nb::handle steps) { return make_keep_policy<CustomSteps>(set_of(steps)); },
      nb::arg("steps"));
  module.def(
      "latest_duration",
      [](double duration_s) {
        return make_keep_policy<LatestDuration>(nanoseconds_of(duration_s));
      },
      nb::arg("duration_s"));
  module.def(
      "best_n",
      [](const nb::object& get_metric, bool reverse, Count n, bool keep_checkpoints_without_metrics,
         bool keep_newest, const std::optional<std::string>& metric_key) {
        return make_keep_policy<BestN>(
            metric_function(get_metric),
            BestNOptions{
                .reverse = reverse,
                .n = n,
                .keep_checkpoints_without_metrics = keep_checkpoints_without_metrics,
                .keep_newest = keep_newest,
                .metric_path = metric_key ? to_text({PathComponent::key(*metric_key)}) : ""});
      },
      nb::arg("get_metric"), nb::arg("reverse"), nb::arg("n").none(),
      nb::arg("keep_checkpoints_without_metrics"), nb::arg("keep_newest"),
      nb::arg("metric_key").none());
  module.def(
      "any_preservation_policy",
      [](const std::vector<KeepPolicy>& policies) {
        PreservationPolicies all;
        for (const KeepPolicy& each : policies) all.push_back(each.policy);
        return make_keep_policy<AnyPreservationPolicy>(std::move(all));
      },
      nb::arg("policies"));
  module.def(
      "python_preservation_policy",
      [](nb::object preserve, std::string name) {
        return make_keep_policy<PythonPreservationPolicy>(std::move(preserve), std::move(name));
      },
      nb::arg("preserve"), nb::arg("name"));
}

}  // namespace

MetricFunction metric_function(const nb::object& function) {
  if (function.is_none()) return nullptr;
  return [shared = SharedObject(function)](const Tree& metrics) -> std::optional<double> {
    const nb::gil_scoped_acquire gil;
    return as_exception([&]() -> std::optional<double> {
      const nb::object value = shared.get()(to_python(PythonTree{metrics, {}, {}}, {}, nullptr));
      if (value.is_none()) return std::nullopt;
      const double number = PyFloat_AsDouble(value.ptr());
      if (number == -1 && PyErr_Occurred() != nullptr) throw nb::python_error();
      return number;
    });
  };
}

std::chrono::nanoseconds nanoseconds_of(double seconds) {
  constexpr double kMax = 9.2e9;  // Seconds; what 64 bits of nanoseconds can hold.
  if (std::isnan(seconds) || seconds < 0) {
    raise({ErrorCode::kInvalidArgument, "a duration is not negative"});
  }
  return std::chrono::nanoseconds(static_cast<std::int64_t>(std::min(seconds, kMax) * 1e9));
}

void bind_policies(nb::module_& module) {
  nb::class_<CheckpointInfo>(module, "CheckpointInfo")
      .def(
          "__init__",
          [](CheckpointInfo* self, std::uint64_t step, std::int64_t time_ns, nb::handle metrics) {
            std::optional<Tree> tree;
            if (!metrics.is_none()) tree = from_python(metrics, nb::none()).tree;
            new (self) CheckpointInfo{step, time_of(time_ns), std::move(tree)};
          },
          nb::arg("step"), nb::arg("time_ns"), nb::arg("metrics").none())
      .def_ro("step", &CheckpointInfo::step)
      .def_prop_ro("time_ns", [](const CheckpointInfo& self) { return unix_ns(self.time); })
      .def_prop_ro("metrics", [](const CheckpointInfo& self) -> nb::object {
        return self.metrics ? to_python(PythonTree{*self.metrics, {}, {}}, {}, nullptr)
                            : nb::none();
      });
  bind_save_policies(module);
  bind_preservation_policies(module);
}

}  // namespace stepstone::python
