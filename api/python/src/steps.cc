#include "steps.h"

#include <algorithm>
#include <new>

#include "api/checkpoint_plan.h"
#include "api/item_reader.h"
#include "api/json.h"
#include "api/stored_item.h"
#include "engine/store.h"
#include "leaf_args.h"

namespace stepstone::python {
namespace {

struct Restored {
  nb::object tree;
  RestoreReport report;
  RestoreStatistics statistics;
};

std::string_view kind_name(LeafKind kind) {
  switch (kind) {
    case LeafKind::kArray:
      return "array";
    case LeafKind::kNone:
      return "none";
    case LeafKind::kBool:
      return "bool";
    case LeafKind::kInt64:
      return "int";
    case LeafKind::kBigInteger:
      return "big_int";
    case LeafKind::kFloat64:
      return "float";
    case LeafKind::kComplex128:
      return "complex";
    case LeafKind::kString:
      return "string";
    case LeafKind::kBytes:
      return "bytes";
  }
  return "unknown";
}

// A target that is one leaf, or one branch, inside of containers that have nothing else.
struct Branch {
  std::vector<const Tree*> containers;  // From the root on, each the only child of the one before.
  LeafPath path;
  const Tree* end = nullptr;

  explicit Branch(const Tree& target) : end(&target) {
    while (end->children().size() == 1) {
      containers.push_back(end);
      path.push_back(end->children().front().label);
      end = &end->children().front().tree;
    }
  }

  // What was restored at the end, inside of its containers again.
  Tree wrap(Tree restored) const {
    for (std::size_t i = containers.size(); i-- > 0;) {
      restored = Tree::container(containers[i]->kind(), containers[i]->type_name(),
                                 {{path[i], std::move(restored)}});
    }
    return restored;
  }
};

// Whether no options are for some leaves only, whose paths begin at the root.
bool is_for_all_leaves(const PerLeaf<RestoreArgs>& options) {
  return std::all_of(options.entries().begin(), options.entries().end(), [](const auto& entry) {
    return entry.where.path.empty() && entry.where.pattern.empty();
  });
}

// A part is found without a look at the rest of the item, where it stands where the target has it;
// nullopt: it does not, or there is something wrong, about which the whole item tells more.
std::optional<Tree> read_branch(const ItemReader& reader, const args::PyTreeRestore& args) {
  const Branch branch(*args.target());
  if (branch.path.empty()) return std::nullopt;
  args::PyTreeRestore part = args;
  part.borrowed_item = branch.end;
  part.subtree = to_text(branch.path);
  Result<Tree> restored = reader.read(part);
  if (!restored) return std::nullopt;
  return branch.wrap(*std::move(restored));
}

Result<Tree> read(const ItemReader& reader, const args::PyTreeRestore& args) {
  // Where the kinds of containers matter, those on the way have to be looked at, too.
  if (args.partial_restore && args.any_container && args.target() != nullptr &&
      args.subtree.empty() && args.transforms.empty() && is_for_all_leaves(args.restore_args)) {
    if (std::optional<Tree> part = read_branch(reader, args)) return *std::move(part);
  }
  return reader.read(args);
}

Restored restore(const Step& held, const std::string& item, const RestoreOptions* options) {
  const std::shared_ptr<const HeldStep> step = held.get();
  const RestoreOptions defaults;
  if (options == nullptr) options = &defaults;
  RestoreStatistics statistics{.step = step->step()};
  const ItemReader reader(step->reader(), item, &statistics);

  Tree stored;
  if (options->has_paths() && options->target == nullptr) {
    stored = value_of(without_gil([&] { return reader.metadata(); })).tree;
    // The paths begin where the subtree does; the restore says so if there is none.
    if (!options->subtree.empty()) {
      const LeafPath top = value_of(parse_path(options->subtree));
      if (const Tree* const below = stored.find(top)) stored = Tree(*below);
    }
  }
  args::PyTreeRestore args =
      options->to_args(options->target == nullptr ? stored : options->target->tree);
  RestoreReport report;
  args.report = &report;
  const auto begun = std::chrono::steady_clock::now();
  PythonTree tree;
  tree.tree = value_of(without_gil([&] { return read(reader, args); }));
  tree.is_read_only = options->map != MapArrays::kNo;
  statistics.total_s =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  return {nb::cast(std::move(tree)), std::move(report), statistics};
}

nb::dict item_handlers(const Step& held) {
  nb::dict handlers;
  const std::shared_ptr<const HeldStep> step = held.get();
  for (const ItemSummary& item : step->reader().record().items) {
    handlers[nb::str(item.name.data(), item.name.size())] = item.handler;
  }
  return handlers;
}

struct StepRecordView {
  StepRecord record;
};

// In the order of the metadata's leaves.
nb::list labels_of(const ItemMetadata& metadata) {
  nb::list all;
  metadata.tree.for_each_leaf([&](const LeafPath& path, const Leaf&) {
    nb::list labels;
    for (const PathComponent& label : path) labels.append(label_to_python(label));
    all.append(nb::tuple(labels));
  });
  return all;
}

struct LeafView {
  LeafMetadata leaf;
  nb::object labels;
};

nb::list leaves_of(const ItemMetadata& metadata) {
  nb::list leaves;
  const nb::list labels = labels_of(metadata);
  for (std::size_t i = 0; i < metadata.leaves.size(); ++i) {
    leaves.append(nb::cast(LeafView{metadata.leaves[i], labels[i]}));
  }
  return leaves;
}

void bind_metadata(nb::module_& module) {
  nb::class_<LeafView>(module, "LeafMetadata")
      .def_prop_ro("path", [](const LeafView& self) { return self.leaf.path; })
      .def_prop_ro("labels", [](const LeafView& self) { return self.labels; })
      .def_prop_ro("kind", [](const LeafView& self) { return kind_name(self.leaf.kind); })
      .def_prop_ro("dtype",
                   [](const LeafView& self) -> std::optional<std::string> {
                     if (!self.leaf.dtype) return std::nullopt;
                     return std::string(info(*self.leaf.dtype).name);
                   })
      .def_prop_ro("shape",
                   [](const LeafView& self) {
                     nb::list shape;
                     for (const std::uint64_t extent : self.leaf.shape) shape.append(extent);
                     return nb::tuple(shape);
                   })
      .def_prop_ro("size_bytes", [](const LeafView& self) { return self.leaf.size_bytes; })
      .def_prop_ro("stored_bytes", [](const LeafView& self) { return self.leaf.stored_bytes; })
      .def_prop_ro("chunk_size_bytes",
                   [](const LeafView& self) { return self.leaf.chunk_size_bytes; });

  nb::class_<ItemMetadata>(module, "ItemMetadata")
      .def_ro("handler", &ItemMetadata::handler)
      .def_prop_ro("custom_metadata",
                   [](const ItemMetadata& self) -> std::optional<std::string> {
                     // None means that there is none; a container is no None, although its leaf is.
                     if (self.custom_metadata == Tree()) return std::nullopt;
                     return value_of(to_json(self.custom_metadata));
                   })
      .def_prop_ro("tree",
                   [](const ItemMetadata& self) {
                     return PythonTree{self.tree, {}, {}};
                   })
      .def_prop_ro("leaves", &leaves_of)
      .def_ro("size_bytes", &ItemMetadata::size_bytes)
      .def_ro("stored_bytes", &ItemMetadata::stored_bytes);

  nb::class_<StepRecordView>(module, "StepMetadata")
      .def_prop_ro("step", [](const StepRecordView& self) { return self.record.save.step; })
      .def_prop_ro("metrics",
                   [](const StepRecordView& self) { return json_object(self.record.metrics); })
      .def_prop_ro(
          "custom_metadata",
          [](const StepRecordView& self) { return json_object(self.record.custom_metadata); })
      .def_prop_ro("init_timestamp_ns",
                   [](const StepRecordView& self) { return self.record.started_unix_ns; })
      .def_prop_ro("commit_timestamp_ns",
                   [](const StepRecordView& self) { return self.record.committed_unix_ns; })
      .def_prop_ro("size_bytes", [](const StepRecordView& self) { return self.record.size_bytes; });
}

}  // namespace

Step::~Step() {
  // A forked child has neither the threads nor the locks that letting go needs.
  if (step_ == nullptr || !process_.is_forked()) return;
  static_cast<void>(new (std::nothrow) std::shared_ptr<const HeldStep>(std::move(step_)));
}

std::shared_ptr<const HeldStep> Step::get() const {
  if (step_ == nullptr) raise({ErrorCode::kClosed, "the step was released"});
  process_.check("step " + std::to_string(step_->step()));
  return step_;
}

void Step::release() {
  if (step_ == nullptr || process_.is_forked()) return;
  std::shared_ptr<const HeldStep> step = std::move(step_);
  step_ = nullptr;
  without_gil([&] { step.reset(); });
}

nb::object json_object(const std::string& text) {
  return text.empty() ? nb::none() : nb::object(nb::str(text.data(), text.size()));
}

void bind_steps(nb::module_& module) {
  nb::class_<RestoreStatistics>(module, "RestoreStatistics")
      .def_ro("step", &RestoreStatistics::step)
      .def_ro("leaf_count", &RestoreStatistics::leaf_count)
      .def_ro("size_bytes", &RestoreStatistics::size_bytes)
      .def_ro("thread_count", &RestoreStatistics::thread_count)
      .def_ro("read_s", &RestoreStatistics::read_s)
      .def_ro("cast_s", &RestoreStatistics::cast_s)
      .def_ro("total_s", &RestoreStatistics::total_s);

  nb::class_<Restored>(module, "Restored")
      .def_ro("tree", &Restored::tree)
      .def_prop_ro("kept", [](const Restored& self) { return self.report.kept; })
      .def_prop_ro("dropped", [](const Restored& self) { return self.report.dropped; })
      .def_ro("statistics", &Restored::statistics);

  bind_metadata(module);

  nb::class_<Step>(module, "Step")
      .def_prop_ro("step", [](const Step& self) { return self.get()->step(); })
      .def_prop_ro("is_single",
                   [](const Step& self) { return is_single_item(self.get()->reader().record()); })
      .def("item_handlers", &item_handlers)
      .def("restore", &restore, nb::arg("item"), nb::arg("options").none() = nb::none())
      .def(
          "item_metadata",
          [](const Step& self, const std::string& item) {
            const std::shared_ptr<const HeldStep> step = self.get();
            const ItemReader reader(step->reader(), item, nullptr);
            return value_of(without_gil([&] { return reader.metadata(); }));
          },
          nb::arg("item"))
      .def("metadata",
           [](const Step& self) { return StepRecordView{self.get()->reader().record()}; })
      .def("share", [](const Step& self) { return Step(self.get()); })
      .def("release", &Step::release);
}

}  // namespace stepstone::python
