// Steps into a portable file.
#include "api/checkpoint_path.h"
#include "api/portable.h"
#include "native.h"

namespace stepstone::python {

Progress progress_of(const nb::object& function) {
  if (function.is_none()) return nullptr;
  return [shared = SharedObject(function)](std::uint64_t done_bytes, std::uint64_t total_bytes) {
    const nb::gil_scoped_acquire gil;
    try {
      shared.get()(done_bytes, total_bytes);
    } catch (nb::python_error& error) {
      error.discard_as_unraisable("a progress callback");
    }
  };
}

namespace {

std::optional<DType> float_dtype_of(const std::optional<std::string>& name) {
  if (!name) return std::nullopt;
  const std::optional<DType> dtype = dtype_from_name(*name);
  if (!dtype || info(*dtype).kind != DTypeKind::kFloat) {
    raise({ErrorCode::kInvalidArgument,
           "floating-point arrays cannot be cast to " + *name + ": it is no such dtype"});
  }
  return dtype;
}

nb::tuple export_at(const std::string& path, const std::string& file,
                    std::optional<std::vector<std::uint64_t>> steps,
                    std::optional<std::vector<std::string>> items, const std::string& subtree,
                    const std::optional<std::string>& cast_floats, bool force, bool compress,
                    bool share, const nb::object& progress) {
  PortableOptions options;
  options.selection.items = std::move(items);
  options.selection.subtree = value_of(parse_path(subtree));
  options.selection.cast_floats = float_dtype_of(cast_floats);
  if (steps && resolve_checkpoint_path(path).step) {
    raise({ErrorCode::kInvalidArgument, path + " is one step: give the run's path with steps"});
  }
  options.steps = std::move(steps);
  options.force = force;
  options.compress = compress;
  options.share = share;
  options.progress = progress_of(progress);
  const PortableCounters counters =
      value_of(without_gil([&] { return export_checkpoint(path, file, options); }));
  return nb::make_tuple(counters.step_count, counters.leaf_count, counters.size_bytes,
                        counters.file_size_bytes);
}

}  // namespace

void bind_export(nb::module_& module) {
  module.def("export_checkpoint", &export_at, nb::arg("path"), nb::arg("file"), nb::kw_only(),
             nb::arg("steps") = nb::none(), nb::arg("items") = nb::none(), nb::arg("subtree") = "",
             nb::arg("cast_floats") = nb::none(), nb::arg("force") = false,
             nb::arg("compress") = false, nb::arg("share") = true,
             nb::arg("progress") = nb::none());
}

}  // namespace stepstone::python
