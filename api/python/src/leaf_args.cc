#include "leaf_args.h"

namespace stepstone::python {
namespace {

std::optional<DType> dtype_of(const std::optional<std::string>& name) {
  if (!name) return std::nullopt;
  const std::optional<DType> dtype = dtype_from_name(*name);
  if (!dtype) raise({ErrorCode::kInvalidArgument, "there is no dtype " + *name});
  return dtype;
}

// The memory of a writable, C-contiguous buffer. It stays where it is as long as the object lives:
// what numpy and torch give out as buffers does not move.
std::span<std::byte> memory_of(nb::handle buffer) {
  Py_buffer view;
  if (PyObject_GetBuffer(buffer.ptr(), &view, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS) != 0) {
    throw nb::python_error();
  }
  const std::span<std::byte> memory(static_cast<std::byte*>(view.buf),
                                    static_cast<std::size_t>(view.len));
  PyBuffer_Release(&view);
  return memory;
}

template <typename Options>
void add(PerLeaf<Options>& all, PathFinder& paths, const Selector& selector, Options options) {
  if (const auto* const pattern = std::get_if<std::string>(&selector)) {
    all.add(*pattern, std::move(options));
    return;
  }
  const Result<LeafPath> path = paths.find(std::get<nb::tuple>(selector));
  if (!path) raise(with_context(path.error(), "options for a leaf that is not in the tree"));
  all.add(*path, std::move(options));
}

// Called back from C++, which turns what is thrown into an error with its text.
Result<Leaf> call_back(const SharedObject& function, nb::handle argument) {
  const nb::object result = function.get()(argument);
  const PythonTree tree =
      from_python(result, nb::cpp_function([](nb::object value) { return value; }));
  if (!tree.tree.is_leaf()) {
    return fail(ErrorCode::kInvalidArgument, "a transform gave a container, not a leaf");
  }
  // The memory is Python's.
  if (const auto* const array = tree.tree.get_if<Array>()) return Leaf(array->owned());
  return tree.tree.leaf();
}

Transform transform_of(std::string pattern, bool is_path, std::optional<std::string> original_path,
                       bool use_fallback, const nb::object& value_fn,
                       std::vector<std::string> inputs, const nb::object& compute) {
  Transform transform{.pattern = std::move(pattern),
                      .is_path = is_path,
                      .original_path = std::move(original_path),
                      .use_fallback = use_fallback,
                      .value_fn = nullptr,
                      .inputs = std::move(inputs),
                      .compute = nullptr};
  if (!value_fn.is_none()) {
    transform.value_fn = [function = SharedObject(value_fn)](const Leaf& stored) {
      const nb::gil_scoped_acquire gil;
      return call_back(function, leaf_to_python(stored));
    };
  }
  if (!compute.is_none()) {
    transform.compute = [function = SharedObject(compute)](const std::vector<Leaf>& stored) {
      const nb::gil_scoped_acquire gil;
      nb::list values;
      for (const Leaf& leaf : stored) values.append(leaf_to_python(leaf));
      return call_back(function, values);
    };
  }
  return transform;
}

}  // namespace

Compression compression_of(const std::string& name) {
  if (name == "auto") return Compression::kAuto;
  if (name == "none") return Compression::kNone;
  if (name == "always") return Compression::kAlways;
  if (name == "delta") return Compression::kDelta;
  raise({ErrorCode::kInvalidArgument,
         "there is no compression '" + name + "': auto, none, always or delta"});
}

MapArrays map_of(const std::string& name) {
  if (name == "no") return MapArrays::kNo;
  if (name == "checked") return MapArrays::kChecked;
  if (name == "unchecked") return MapArrays::kUnchecked;
  raise({ErrorCode::kInvalidArgument,
         "arrays cannot be mapped as '" + name + "': no, checked or unchecked"});
}

PerLeaf<SaveArgs> to_save_args(const Tree& tree, const Selected<SaveArgs>& options) {
  PerLeaf<SaveArgs> all;
  PathFinder paths(tree);
  for (const auto& [selector, args] : options) add(all, paths, selector, args);
  return all;
}

bool RestoreOptions::has_paths() const {
  for (const auto& [selector, args] : restore_args) {
    if (std::holds_alternative<nb::tuple>(selector)) return true;
  }
  return false;
}

args::PyTreeRestore RestoreOptions::to_args(const Tree& tree) const {
  args::PyTreeRestore args;
  PathFinder paths(tree);
  if (target != nullptr) args.borrowed_item = &target->tree;
  for (const auto& [selector, leaf_args] : restore_args) {
    RestoreArgs merged = leaf_args.args;
    merged.pad = merged.pad || pad_or_truncate;
    merged.truncate = merged.truncate || pad_or_truncate;
    merged.allow_lossy_cast = merged.allow_lossy_cast || lossy;
    add(args.restore_args, paths, selector, std::move(merged));
  }
  if (pad_or_truncate || lossy) {
    args.restore_args.add(LeafPath(), RestoreArgs{.allow_lossy_cast = lossy,
                                                  .pad = pad_or_truncate,
                                                  .truncate = pad_or_truncate});
  }
  args.subtree = subtree;
  args.partial_restore = partial_restore;
  args.keep_missing = keep_missing;
  args.any_container = any_container;
  args.transforms = transforms;
  args.transforms_default_to_original = transforms_default_to_original;
  // A function could write to what it is given.
  args.map = transforms.empty() ? map : MapArrays::kNo;
  return args;
}

void bind_leaf_args(nb::module_& module) {
  nb::class_<SaveArgs>(module, "LeafSaveArgs")
      .def(
          "__init__",
          [](SaveArgs* self, const std::optional<std::string>& dtype, bool allow_lossy_cast,
             std::optional<std::uint32_t> chunk_size_bytes,
             const std::optional<std::string>& compression, std::optional<bool> share) {
            std::optional<Compression> chosen;
            if (compression) chosen = compression_of(*compression);
            new (self) SaveArgs{.dtype = dtype_of(dtype),
                                .allow_lossy_cast = allow_lossy_cast,
                                .chunk_size_bytes = chunk_size_bytes,
                                .compression = chosen,
                                .share = share};
          },
          nb::kw_only(), nb::arg("dtype") = nb::none(), nb::arg("allow_lossy_cast") = false,
          nb::arg("chunk_size_bytes") = nb::none(), nb::arg("compression") = nb::none(),
          nb::arg("share") = nb::none());

  nb::class_<LeafRestoreArgs>(module, "LeafRestoreArgs")
      .def(
          "__init__",
          [](LeafRestoreArgs* self, bool skip,
             const std::vector<std::pair<std::uint64_t, std::uint64_t>>& slice,
             const std::optional<std::string>& dtype, bool allow_lossy_cast,
             std::optional<std::vector<std::uint64_t>> shape, bool pad, bool truncate,
             nb::object destination) {
            RestoreArgs args{.skip = skip,
                             .slice = {},
                             .dtype = dtype_of(dtype),
                             .allow_lossy_cast = allow_lossy_cast,
                             .shape = std::move(shape),
                             .pad = pad,
                             .truncate = truncate,
                             .destination = {}};
            for (const auto& [begin, end] : slice) args.slice.push_back({begin, end});
            if (!destination.is_none()) args.destination = memory_of(destination);
            new (self) LeafRestoreArgs{std::move(args), std::move(destination)};
          },
          nb::kw_only(), nb::arg("skip") = false,
          nb::arg("slice") = std::vector<std::pair<std::uint64_t, std::uint64_t>>(),
          nb::arg("dtype") = nb::none(), nb::arg("allow_lossy_cast") = false,
          nb::arg("shape") = nb::none(), nb::arg("pad") = false, nb::arg("truncate") = false,
          nb::arg("destination") = nb::none());

  nb::class_<Transform>(module, "Transform")
      .def(
          "__init__",
          [](Transform* self, std::string pattern, std::optional<std::string> original_path,
             bool use_fallback, const nb::object& value_fn, std::vector<std::string> inputs,
             const nb::object& compute, bool is_path) {
            new (self) Transform(transform_of(std::move(pattern), is_path, std::move(original_path),
                                              use_fallback, value_fn, std::move(inputs), compute));
          },
          nb::arg("pattern"), nb::kw_only(), nb::arg("original_path") = nb::none(),
          nb::arg("use_fallback") = false, nb::arg("value_fn") = nb::none(),
          nb::arg("inputs") = std::vector<std::string>(), nb::arg("compute") = nb::none(),
          nb::arg("is_path") = false);

  nb::class_<RestoreOptions>(module, "RestoreOptions")
      .def(
          "__init__",
          [](RestoreOptions* self, nb::object target,
             std::vector<std::pair<Selector, LeafRestoreArgs>> restore_args, std::string subtree,
             bool partial_restore, bool keep_missing, std::vector<Transform> transforms,
             bool transforms_default_to_original, bool any_container, bool pad_or_truncate,
             bool lossy, const std::string& map) {
            const PythonTree* tree = nullptr;
            if (!target.is_none()) tree = nb::cast<const PythonTree*>(target);
            new (self) RestoreOptions{tree,
                                      std::move(target),
                                      std::move(restore_args),
                                      std::move(subtree),
                                      partial_restore,
                                      keep_missing,
                                      std::move(transforms),
                                      transforms_default_to_original,
                                      any_container,
                                      pad_or_truncate,
                                      lossy,
                                      map_of(map)};
          },
          nb::kw_only(), nb::arg("target") = nb::none(),
          nb::arg("restore_args") = std::vector<std::pair<Selector, LeafRestoreArgs>>(),
          nb::arg("subtree") = "", nb::arg("partial_restore") = false,
          nb::arg("keep_missing") = false, nb::arg("transforms") = std::vector<Transform>(),
          nb::arg("transforms_default_to_original") = true, nb::arg("any_container") = false,
          nb::arg("pad_or_truncate") = false, nb::arg("lossy") = false, nb::arg("map") = "no");
}

}  // namespace stepstone::python
