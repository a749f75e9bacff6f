#include "python_items.h"

#include <cerrno>

#include "api/checkpoint_handler.h"
#include "api/json.h"
#include "leaf_args.h"

namespace stepstone::python {

// Belongs to one call of save(), which outlives its use.
struct PythonItems::Build {
  std::string handler;
  nb::object call;
  bool is_waited_for = false;
  std::vector<nb::object> kept;  // The trees, whose memory the save borrows.
  std::unique_ptr<nb::python_error> error;

  static Result<BackgroundSave> begin(const std::shared_ptr<Build>& build, ItemWriter& item);
};

namespace {

using Content = std::tuple<nb::object, Selected<SaveArgs>, std::optional<std::string>>;

Result<void> write_content(const Content& content, const Tree& tree, ItemWriter& item) {
  const auto& [object, options, custom_metadata] = content;
  if (custom_metadata) {
    STEPSTONE_TRY(item.set_custom_metadata(STEPSTONE_TRY(from_json(*custom_metadata))));
  }
  return item.write(tree, to_save_args(tree, options));
}

// The same tree, which needs nobody else's memory.
Tree owned(Tree tree) {
  if (const auto* const array = tree.get_if<Array>()) return {array->owned()};
  for (Tree::Child& child : tree.children()) child.tree = owned(std::move(child.tree));
  return tree;
}

ErrorCode code_of(const nb::python_error& raised) {
  if (raised.matches(PyExc_MemoryError)) return ErrorCode::kLimit;
  if (!raised.matches(PyExc_OSError)) return ErrorCode::kInvalidArgument;
  if (raised.matches(PyExc_PermissionError)) return ErrorCode::kPermissionDenied;
  const nb::object number = nb::getattr(raised.value(), "errno", nb::none());
  const bool is_full = nb::isinstance<nb::int_>(number) && nb::cast<int>(number) == ENOSPC;
  return is_full ? ErrorCode::kNoSpace : ErrorCode::kIo;
}

// What nobody waits for cannot raise: whoever asks for the outcome of the save is told.
Error error_of(const nb::python_error& raised) {
  const auto name = nb::cast<std::string>(nb::handle(raised.type()).attr("__name__"));
  return {code_of(raised), "its handler raised " + name + ": " +
                               nb::cast<std::string>(nb::str(nb::handle(raised.value())))};
}

BackgroundSave in_background(nb::object make, std::weak_ptr<PythonItems::Build> build) {
  return [make = SharedObject(std::move(make)),
          build = std::move(build)](ItemWriter& item) -> Result<void> {
    const nb::gil_scoped_acquire gil;
    try {
      const auto content = nb::cast<Content>(make.get()());
      // The objects are let go before the commit.
      return write_content(
          content, owned(nb::cast<const PythonTree&>(std::get<nb::object>(content)).tree), item);
    } catch (nb::python_error& raised) {
      Error error = error_of(raised);
      // Where the caller waits after all, it gets the exception itself.
      if (const std::shared_ptr<PythonItems::Build> waited = build.lock()) {
        waited->error = std::make_unique<nb::python_error>(std::move(raised));
      }
      return tl::unexpected<Error>(std::move(error));
    }
  };
}

// Shared, since values are copied on the way through the library: by threads without the GIL, too,
// but never the last of them.
struct PythonSave {
  std::shared_ptr<PythonItems::Build> build;
};

class PythonItemHandler final
    : public internal::TypedCheckpointHandler<PythonSave, args::PyTreeRestore> {
 public:
  std::string type_name() const override { return "python"; }
  std::string recorded_name(const AnyValue& save_args) const override {
    return save_args.get_if<PythonSave>()->build->handler;
  }
  bool can_restore(std::string_view /*recorded*/) const override { return true; }

  Result<BackgroundSave> begin_save(const AnyValue& save_args, ItemWriter& item) const override {
    return PythonItems::Build::begin(save_args.get_if<PythonSave>()->build, item);
  }
  Result<Tree> restore(const args::PyTreeRestore& args, const ItemReader& item) const override {
    return item.read(args);
  }
};

}  // namespace

Result<BackgroundSave> PythonItems::Build::begin(const std::shared_ptr<Build>& build,
                                                 ItemWriter& item) {
  const nb::gil_scoped_acquire gil;
  try {
    nb::object made = build->call();
    if (PyCallable_Check(made.ptr()) != 0) {
      if (!build->is_waited_for) return in_background(std::move(made), build);
      made = made();
    }
    const auto content = nb::cast<Content>(made);
    build->kept.push_back(std::get<nb::object>(content));
    STEPSTONE_TRY(
        write_content(content, nb::cast<const PythonTree&>(build->kept.back()).tree, item));
    return BackgroundSave();
  } catch (nb::python_error& raised) {
    build->error = std::make_unique<nb::python_error>(std::move(raised));
    return fail(ErrorCode::kInvalidArgument, "Python raised an exception");
  }
}

PythonItems::PythonItems(const std::vector<SaveItem>& items, bool is_waited_for) {
  for (const auto& [name, handler, call] : items) {
    auto build = std::make_shared<Build>();
    build->handler = handler;
    build->call = call;
    build->is_waited_for = is_waited_for;
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
