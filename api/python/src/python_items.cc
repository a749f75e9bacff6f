#include "python_items.h"

#include "api/checkpoint_handler.h"
#include "api/json.h"
#include "leaf_args.h"

namespace stepstone::python {

// Belongs to one call of save(), which outlives its use.
struct PythonItems::Build {
  std::string handler;
  nb::object call;
  std::vector<nb::object> kept;  // The trees, whose memory the save borrows.
  std::unique_ptr<nb::python_error> error;

  Result<void> write(ItemWriter& item) {
    const nb::gil_scoped_acquire gil;
    try {
      const auto made =
          nb::cast<std::tuple<nb::object, Selected<SaveArgs>, std::optional<std::string>>>(call());
      const auto& [object, options, custom_metadata] = made;
      kept.push_back(object);
      const auto& tree = nb::cast<const PythonTree&>(object);
      if (custom_metadata) {
        STEPSTONE_TRY(item.set_custom_metadata(STEPSTONE_TRY(from_json(*custom_metadata))));
      }
      return item.write(tree.tree, to_save_args(tree.tree, options));
    } catch (nb::python_error& raised) {
      error = std::make_unique<nb::python_error>(std::move(raised));
      return fail(ErrorCode::kInvalidArgument, "Python raised an exception");
    }
  }
};

namespace {

// Shared, since values are copied on the way through the library: by threads without the GIL, too,
// but never the last of them.
struct PythonSave {
  std::shared_ptr<PythonItems::Build> build;
};

class PythonItemHandler final : public CheckpointHandler<PythonSave, args::PyTreeRestore> {
 public:
  std::string type_name() const override { return "python"; }
  std::string recorded_name(const AnyValue& save_args) const override {
    return save_args.get_if<PythonSave>()->build->handler;
  }
  bool can_restore(std::string_view /*recorded*/) const override { return true; }

  Result<void> save(const PythonSave& args, ItemWriter& item) const override {
    return args.build->write(item);
  }
  Result<Tree> restore(const args::PyTreeRestore& args, const ItemReader& item) const override {
    return item.read(args);
  }
};

}  // namespace

PythonItems::PythonItems(const std::vector<SaveItem>& items) {
  for (const auto& [name, handler, call] : items) {
    auto build = std::make_shared<Build>();
    build->handler = handler;
    build->call = call;
    builds_.emplace_back(name, std::move(build));
  }
}

args::CheckpointArgs PythonItems::to_args(bool is_single) const {
  if (is_single && builds_.size() == 1) return PythonSave{builds_.front().second};
  args::Composite composite;
  for (const auto& [name, build] : builds_) composite.set(name, PythonSave{build});
  return composite;
}

void PythonItems::rethrow() const {
  for (const auto& [name, build] : builds_) {
    if (build->error != nullptr) throw nb::python_error(*build->error);
  }
}

HandlerRegistry python_registry() {
  HandlerRegistry registry;
  python::value_of(registry.add(PythonItemHandler()));
  return registry;
}

StorageOptions storage_options_of(nb::handle options) {
  return options.is_none() ? StorageOptions() : nb::cast<StorageOptions>(options);
}

void bind_storage_options(nb::module_& module) {
  nb::class_<StorageOptions>(module, "StorageOptions")
      .def(
          "__init__",
          [](StorageOptions* self, const std::string& compression,
             const std::vector<std::pair<std::string, std::string>>& rules, bool share,
             std::optional<std::size_t> recompress_older_than) {
            StorageOptions options{.compression = compression_of(compression),
                                   .compression_rules = {},
                                   .share = share,
                                   .recompress_older_than = recompress_older_than};
            for (const auto& [pattern, each] : rules) {
              options.compression_rules.push_back({pattern, compression_of(each)});
            }
            new (self) StorageOptions(std::move(options));
          },
          nb::kw_only(), nb::arg("compression") = "auto",
          nb::arg("compression_rules") = std::vector<std::pair<std::string, std::string>>(),
          nb::arg("share") = true, nb::arg("recompress_older_than") = nb::none());
}

}  // namespace stepstone::python
