#include "trees.h"

#include <string_view>

#include "api/json_text.h"

namespace stepstone::python {
namespace {

// What a hook may return; see _native.pyi.
struct ForeignArray {
  Array array;
};

struct Node {
  NodeKind kind = NodeKind::kDict;
  std::string type_name;
  std::vector<PathComponent> labels;
  std::vector<nb::object> children;
  nb::object rebuild;
};

struct FinishedLeaf {
  nb::object value;
  nb::object finish;
};

std::string text_of(nb::handle text) {
  Py_ssize_t size = 0;
  const char* const utf8 = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  // A string with half a surrogate pair has no UTF-8.
  if (utf8 == nullptr) throw nb::python_error();
  return {utf8, static_cast<std::size_t>(size)};
}

// A cycle would go on for ever, and a very deep tree overrun the stack.
class Recursion {
 public:
  Recursion() {
    if (Py_EnterRecursiveCall(" in the tree of a checkpoint") != 0) throw nb::python_error();
  }
  ~Recursion() { Py_LeaveRecursiveCall(); }
  Recursion(const Recursion&) = delete;
  Recursion& operator=(const Recursion&) = delete;
};

class Reader {
 public:
  explicit Reader(nb::handle hook) : hook_(hook) {}

  PythonTree read(nb::handle value) {
    PythonTree result;
    origins_ = &result.origins;
    kept_ = &result.kept;
    result.tree = read_node(value);
    origins_ = nullptr;
    kept_ = nullptr;
    return result;
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    const std::string where = path_.empty() ? "the root" : "leaf '" + to_text(path_) + "'";
    raise({ErrorCode::kInvalidArgument, where + ": " + why});
  }

  Tree read_node(nb::handle value) {
    PyObject* const object = value.ptr();
    if (PyDict_CheckExact(object)) return read_dict(value);
    if (PyList_CheckExact(object)) return read_sequence(value, NodeKind::kList);
    if (PyTuple_CheckExact(object)) return read_sequence(value, NodeKind::kTuple);
    if (is_numpy_array(value)) {
      if (std::optional<Array> array = borrow_numpy(value)) {
        return leaf(value, Leaf(*std::move(array)));
      }
    } else if (is_numpy_scalar(value)) {
      if (std::optional<Array> array = borrow_numpy(value)) {
        origins_->push_back({Origin::Kind::kScalar, nb::borrow(value), {}});
        return {Leaf(*std::move(array))};
      }
    } else if (std::optional<Leaf> scalar = read_scalar(value)) {
      return leaf(value, *std::move(scalar));
    }
    return read_foreign(value);
  }

  Tree leaf(nb::handle value, Leaf read) {
    origins_->push_back({Origin::Kind::kPlain, nb::borrow(value), {}});
    return {std::move(read)};
  }

  static std::optional<Leaf> read_scalar(nb::handle value) {
    PyObject* const object = value.ptr();
    if (value.is_none()) return Leaf(None{});
    if (object == Py_Ellipsis) return Leaf(Placeholder{});
    if (PyBool_Check(object)) return Leaf(object == Py_True);
    if (PyLong_CheckExact(object)) {
      int overflow = 0;
      const long long number = PyLong_AsLongLongAndOverflow(object, &overflow);
      if (overflow == 0) return Leaf(static_cast<std::int64_t>(number));
      return Leaf(BigInteger{decimal_of(value)});
    }
    if (PyFloat_CheckExact(object)) return Leaf(PyFloat_AS_DOUBLE(object));
    if (PyComplex_CheckExact(object)) {
      const Py_complex number = PyComplex_AsCComplex(object);
      return Leaf(std::complex<double>(number.real, number.imag));
    }
    if (PyUnicode_CheckExact(object)) return Leaf(text_of(value));
    if (PyBytes_CheckExact(object)) {
      return Leaf(Bytes{std::string(PyBytes_AS_STRING(object),
                                    static_cast<std::size_t>(PyBytes_GET_SIZE(object)))});
    }
    return std::nullopt;
  }

  // Python refuses to write very long integers in decimals at once, since that takes quadratic
  // time; hexadecimal digits have no limit, but int() needs decimals no longer than that.
  static std::string decimal_of(nb::handle number) {
    const nb::object text = nb::steal(PyObject_Str(number.ptr()));
    if (!text.is_valid()) throw nb::python_error();
    return text_of(text);
  }

  Tree read_dict(nb::handle value) {
    const Recursion recursion;
    origins_->emplace_back();
    std::vector<Tree::Child> children;
    children.reserve(static_cast<std::size_t>(PyDict_Size(value.ptr())));
    // A copy of the items: the hook is Python code, which may change the dict.
    const nb::object items = nb::steal(PyDict_Items(value.ptr()));
    for (const nb::handle item : nb::borrow<nb::list>(items)) {
      PathComponent label = key_of(nb::handle(PyTuple_GET_ITEM(item.ptr(), 0)));
      add_child(children, std::move(label), nb::handle(PyTuple_GET_ITEM(item.ptr(), 1)));
    }
    return Tree::container(NodeKind::kDict, {}, std::move(children));
  }

  PathComponent key_of(nb::handle key) const {
    if (PyUnicode_Check(key.ptr())) return PathComponent::key(text_of(key));
    if (PyLong_Check(key.ptr()) && !PyBool_Check(key.ptr())) {
      const long long number = PyLong_AsLongLong(key.ptr());
      if (number != -1 || PyErr_Occurred() == nullptr) {
        return PathComponent::key(static_cast<std::int64_t>(number));
      }
      PyErr_Clear();
    }
    refuse("the key " + nb::cast<std::string>(nb::repr(key)) + " of a dict is a " +
           nb::cast<std::string>(nb::handle(key.type()).attr("__name__")) +
           "; keys are strings or integers of 64 bits");
  }

  Tree read_sequence(nb::handle value, NodeKind kind) {
    const Recursion recursion;
    origins_->emplace_back();
    std::vector<Tree::Child> children;
    std::uint32_t position = 0;
    for (const nb::handle child : nb::borrow(value)) {
      add_child(children, PathComponent::index(position++), child);
    }
    return Tree::container(kind, {}, std::move(children));
  }

  void add_child(std::vector<Tree::Child>& children, PathComponent label, nb::handle value) {
    path_.push_back(std::move(label));
    Tree child = read_node(value);
    children.push_back({std::move(path_.back()), std::move(child)});
    path_.pop_back();
  }

  Tree read_foreign(nb::handle value) {
    const Recursion recursion;
    const nb::object answer = hook_(value);
    if (const Node* node = nullptr; nb::try_cast(answer, node)) return read_hooked(*node);
    if (const FinishedLeaf* finished = nullptr; nb::try_cast(answer, finished)) {
      Tree tree = read_value(finished->value);
      if (!tree.is_leaf()) refuse("the value of a Leaf is a container");
      origins_->back() = {Origin::Kind::kFinish, nb::borrow(value), finished->finish};
      keep_alive(finished->value);
      return tree;
    }
    if (std::optional<Tree> array = read_array(value, answer)) return *std::move(array);
    if (answer.is(value)) {
      refuse("a " + nb::cast<std::string>(nb::handle(value.type()).attr("__name__")) +
             " cannot be stored");
    }
    keep_alive(answer);
    return read_node(answer);
  }

  // What a hook made for an array; nullopt: `made` is something else.
  std::optional<Tree> read_array(nb::handle value, nb::handle made) {
    if (const ForeignArray* array = nullptr; nb::try_cast(made, array)) {
      keep_alive(made);
      return leaf(value, array->array);
    }
    if (const AbstractArray* array = nullptr; nb::try_cast(made, array)) {
      return leaf(value, *array);
    }
    return std::nullopt;
  }

  // The value of a Leaf; the hook has said already what an array is.
  Tree read_value(nb::handle value) {
    std::optional<Tree> array = read_array(value, value);
    return array ? *std::move(array) : read_node(value);
  }

  Tree read_hooked(const Node& node) {
    origins_->push_back({Origin::Kind::kRebuild, {}, node.rebuild});
    std::vector<Tree::Child> children;
    children.reserve(node.children.size());
    for (std::size_t i = 0; i < node.children.size(); ++i) {
      keep_alive(node.children[i]);
      add_child(children, node.labels[i], node.children[i]);
    }
    return Tree::container(node.kind, node.type_name, std::move(children));
  }

  // What a hook made may be held by nobody else, and the tree borrow its memory.
  void keep_alive(nb::handle object) { kept_->push_back(nb::borrow(object)); }

  nb::handle hook_;
  LeafPath path_;
  std::vector<Origin>* origins_ = nullptr;
  std::vector<nb::object>* kept_ = nullptr;
};

NodeKind kind_of(std::string_view name) {
  for (const NodeKind kind : {NodeKind::kDict, NodeKind::kList, NodeKind::kTuple,
                              NodeKind::kNamedTuple, NodeKind::kCustom}) {
    if (to_string(kind) == name) return kind;
  }
  raise({ErrorCode::kInvalidArgument, "there is no container of the kind " + std::string(name)});
}

PathComponent label_of(std::string_view label_kind, nb::handle label) {
  if (label_kind == "attribute") return PathComponent::attribute(text_of(label));
  if (label_kind == "index") return PathComponent::index(nb::cast<std::uint32_t>(label));
  if (PyUnicode_Check(label.ptr())) return PathComponent::key(text_of(label));
  return PathComponent::key(nb::cast<std::int64_t>(label));
}

std::string_view label_kind_name(const std::vector<Tree::Child>& children) {
  if (children.empty()) return "attribute";
  switch (children.front().label.kind) {
    case PathComponent::Kind::kIndex:
      return "index";
    case PathComponent::Kind::kAttribute:
      return "attribute";
    case PathComponent::Kind::kIntegerKey:
    case PathComponent::Kind::kStringKey:
      break;
  }
  return "key";
}

struct LeafWriter {
  nb::object operator()(None) const { return nb::none(); }
  nb::object operator()(const Array& array) const { return numpy_array(array); }
  nb::object operator()(const AbstractArray& array) const { return nb::cast(array); }
  nb::object operator()(bool value) const { return nb::bool_(value); }
  nb::object operator()(std::int64_t value) const { return nb::int_(value); }
  nb::object operator()(const BigInteger& value) const {
    PyObject* const number = PyLong_FromString(value.decimal.c_str(), nullptr, 10);
    if (number == nullptr) throw nb::python_error();
    return nb::steal(number);
  }
  nb::object operator()(double value) const { return nb::float_(value); }
  nb::object operator()(const std::complex<double>& value) const {
    return nb::steal(PyComplex_FromDoubles(value.real(), value.imag()));
  }
  nb::object operator()(const std::string& value) const {
    return nb::str(value.data(), value.size());
  }
  nb::object operator()(const Bytes& value) const {
    return nb::bytes(value.bytes.data(), value.bytes.size());
  }
  nb::object operator()(Placeholder) const { return nb::borrow(Py_Ellipsis); }
};

// In bytes, as it is stored.
struct LeafSize {
  std::uint64_t operator()(const Array& array) const { return array.size_bytes(); }
  std::uint64_t operator()(bool /*value*/) const { return 1; }
  std::uint64_t operator()(std::int64_t /*value*/) const { return sizeof(std::int64_t); }
  std::uint64_t operator()(double /*value*/) const { return sizeof(double); }
  std::uint64_t operator()(const std::complex<double>& value) const { return sizeof(value); }
  std::uint64_t operator()(const BigInteger& value) const { return value.decimal.size(); }
  std::uint64_t operator()(const std::string& value) const { return value.size(); }
  std::uint64_t operator()(const Bytes& value) const { return value.bytes.size(); }
  std::uint64_t operator()(None /*none*/) const { return 0; }
  std::uint64_t operator()(Placeholder /*placeholder*/) const { return 0; }
  std::uint64_t operator()(const AbstractArray& /*array*/) const { return 0; }
};

class Writer {
 public:
  Writer(nb::handle make_node, const PythonTree* like, bool is_read_only)
      : make_node_(make_node), like_(like), is_read_only_(is_read_only) {}

  nb::object write(const Tree& tree) {
    const Recursion recursion;
    const Origin* const origin = next_origin();
    if (tree.is_leaf()) return write_leaf(tree.leaf(), origin);
    if (origin != nullptr && origin->kind == Origin::Kind::kRebuild) {
      nb::list children;
      for (const Tree::Child& child : tree.children()) children.append(write(child.tree));
      return origin->call(children);
    }
    switch (tree.kind()) {
      case NodeKind::kDict: {
        nb::dict dict;
        for (const Tree::Child& child : tree.children()) {
          dict[label_to_python(child.label)] = write(child.tree);
        }
        return dict;
      }
      case NodeKind::kList:
        return write_list(tree);
      case NodeKind::kTuple:
        return nb::tuple(write_list(tree));
      default:
        break;
    }
    nb::list labels;
    for (const Tree::Child& child : tree.children()) labels.append(label_to_python(child.label));
    return make_node_(to_string(tree.kind()), tree.type_name(), label_kind_name(tree.children()),
                      labels, write_list(tree));
  }

 private:
  const Origin* next_origin() {
    if (like_ == nullptr || next_ >= like_->origins.size()) return nullptr;
    return &like_->origins[next_++];
  }

  nb::list write_list(const Tree& tree) {
    nb::list list;
    for (const Tree::Child& child : tree.children()) list.append(write(child.tree));
    return list;
  }

  nb::object write_leaf(const Leaf& leaf, const Origin* origin) const {
    const auto* const array = std::get_if<Array>(&leaf);
    if (origin == nullptr || std::holds_alternative<Placeholder>(leaf)) {
      return array == nullptr ? leaf_to_python(leaf)
                              : numpy_array(*array, {.is_read_only = is_read_only_});
    }
    // The target's own value, which was kept: its memory is the caller's.
    if (array != nullptr && array->is_borrowed() && array->element_count() != 0) {
      return origin->object;
    }
    const bool is_finished = origin->kind == Origin::Kind::kFinish;
    nb::object value =
        array == nullptr
            ? leaf_to_python(leaf)
            : numpy_array(*array, {.as_bits = is_finished, .is_read_only = is_read_only_});
    switch (origin->kind) {
      case Origin::Kind::kFinish:
        return origin->call(value);
      case Origin::Kind::kScalar:
        return array == nullptr ? value : nb::object(value[nb::tuple()]);
      default:
        return value;
    }
  }

  nb::handle make_node_;
  const PythonTree* like_;
  bool is_read_only_;
  std::size_t next_ = 0;
};

Array foreign_array(const std::string& dtype_name, const std::vector<std::uint64_t>& shape,
                    std::uintptr_t pointer, const std::optional<std::vector<std::int64_t>>& strides,
                    nb::object owner, bool is_immutable) {
  const std::optional<DType> dtype = dtype_from_name(dtype_name);
  if (!dtype) {
    raise({ErrorCode::kInvalidArgument, "arrays of " + dtype_name + " cannot be stored"});
  }
  // Python has addresses as integers. NOLINTNEXTLINE(performance-no-int-to-ptr)
  const auto* const data = reinterpret_cast<const std::byte*>(pointer);
  const bool is_packed = info(*dtype).bits < 8;
  const DType stored = is_packed ? DType::kUint8 : *dtype;
  if (strides) {
    const Array array = value_of(Array::borrow_strided(stored, shape, *strides, data));
    return is_packed ? pack(array, *dtype) : array;
  }
  const std::size_t size =
      value_of(
          Array::borrow_strided(stored, shape, std::vector<std::int64_t>(shape.size(), 0), data))
          .size_bytes();
  const std::span<const std::byte> bytes(data, size);
  if (is_packed) return pack(value_of(Array::borrow(stored, shape, bytes)), *dtype);
  if (!is_immutable) return value_of(Array::borrow(*dtype, shape, bytes));
  return value_of(Array::own(*dtype, shape, bytes, SharedObject(std::move(owner)).owner()));
}

nb::tuple shape_tuple(const std::vector<std::uint64_t>& shape) {
  nb::list list;
  for (const std::uint64_t extent : shape) list.append(extent);
  return nb::tuple(list);
}

}  // namespace

PythonTree from_python(nb::handle value, nb::handle hook) { return Reader(hook).read(value); }

nb::object to_python(const PythonTree& tree, nb::handle make_node, const PythonTree* like) {
  return Writer(make_node, like, tree.is_read_only).write(tree.tree);
}

nb::object leaf_to_python(const Leaf& leaf) { return std::visit(LeafWriter(), leaf); }

nb::object label_to_python(const PathComponent& label) {
  const bool is_number =
      label.kind == PathComponent::Kind::kIndex || label.kind == PathComponent::Kind::kIntegerKey;
  if (is_number) return nb::int_(label.number);
  return nb::str(label.name.data(), label.name.size());
}

Result<const Tree::Child*> PathFinder::child_of(const Tree& tree, nb::handle label) {
  const auto [entry, is_new] = children_.try_emplace(&tree);
  Children& children = entry->second;
  if (is_new) {
    // Of two that read the same, the first.
    for (const Tree::Child& child : tree.children()) {
      const bool is_named = child.label.kind == PathComponent::Kind::kStringKey ||
                            child.label.kind == PathComponent::Kind::kAttribute;
      if (is_named) {
        children.by_name.emplace(child.label.name, &child);
      } else {
        children.by_number.emplace(child.label.number, &child);
      }
    }
  }
  const Tree::Child* found = nullptr;
  if (PyUnicode_Check(label.ptr())) {
    const auto named = children.by_name.find(text_of(label));
    if (named != children.by_name.end()) found = named->second;
  } else {
    const auto numbered = children.by_number.find(nb::cast<std::int64_t>(label));
    if (numbered != children.by_number.end()) found = numbered->second;
  }
  if (found != nullptr) return found;
  return fail(ErrorCode::kNotFound, "there is no " + nb::cast<std::string>(nb::repr(label)));
}

Result<LeafPath> PathFinder::find(nb::handle labels) {
  LeafPath path;
  const Tree* node = tree_;
  for (const nb::handle label : nb::borrow(labels)) {
    const Tree::Child* const child =
        STEPSTONE_TRY_CONTEXT(child_of(*node, label), "'" + to_text(path) + "'");
    path.push_back(child->label);
    node = &child->tree;
  }
  return path;
}

void bind_trees(nb::module_& module) {
  nb::class_<ForeignArray>(module, "Array")
      .def(
          "__init__",
          [](ForeignArray* self, const std::string& dtype, const std::vector<std::uint64_t>& shape,
             std::uintptr_t pointer, const std::optional<std::vector<std::int64_t>>& strides,
             nb::object owner, bool is_immutable) {
            new (self) ForeignArray{
                foreign_array(dtype, shape, pointer, strides, std::move(owner), is_immutable)};
          },
          nb::arg("dtype"), nb::arg("shape"), nb::arg("pointer"), nb::arg("strides").none(),
          nb::arg("owner"), nb::arg("is_immutable"),
          // A borrowed array lives no longer than what it was borrowed of.
          nb::keep_alive<1, 6>());

  nb::class_<AbstractArray>(module, "AbstractArray")
      .def(
          "__init__",
          [](AbstractArray* self, const std::string& dtype, std::vector<std::uint64_t> shape) {
            const std::optional<DType> found = dtype_from_name(dtype);
            if (!found) {
              raise({ErrorCode::kInvalidArgument, "arrays of " + dtype + " cannot be stored"});
            }
            new (self) AbstractArray{*found, std::move(shape)};
          },
          nb::arg("dtype"), nb::arg("shape"))
      .def_prop_ro("dtype",
                   [](const AbstractArray& self) { return std::string(info(self.dtype).name); })
      .def_prop_ro("shape", [](const AbstractArray& self) { return shape_tuple(self.shape); });

  nb::class_<Node>(module, "Node")
      .def(
          "__init__",
          [](Node* self, const std::string& kind, std::string type_name,
             const std::string& label_kind, nb::sequence labels, nb::sequence children,
             nb::object rebuild) {
            Node node{kind_of(kind), std::move(type_name), {}, {}, std::move(rebuild)};
            for (const nb::handle label : labels)
              node.labels.push_back(label_of(label_kind, label));
            for (const nb::handle child : children) node.children.push_back(nb::borrow(child));
            if (node.labels.size() != node.children.size()) {
              raise({ErrorCode::kInvalidArgument, "a node needs one label for each child"});
            }
            new (self) Node(std::move(node));
          },
          nb::arg("kind"), nb::arg("type_name"), nb::arg("label_kind"), nb::arg("labels"),
          nb::arg("children"), nb::arg("rebuild") = nb::none());

  nb::class_<FinishedLeaf>(module, "Leaf")
      .def(
          "__init__",
          [](FinishedLeaf* self, nb::object value, nb::object finish) {
            new (self) FinishedLeaf{std::move(value), std::move(finish)};
          },
          nb::arg("value").none(), nb::arg("finish"));

  nb::class_<PythonTree>(module, "Tree")
      .def_static(
          "from_python", [](nb::handle value, nb::handle hook) { return from_python(value, hook); },
          nb::arg("value").none(), nb::arg("hook"))
      .def(
          "to_python",
          [](const PythonTree& self, nb::handle make_node, const PythonTree* like) {
            return to_python(self, make_node, like);
          },
          nb::arg("make_node").none(), nb::arg("like") = nb::none())
      .def("leaf_paths",
           [](const PythonTree& self) {
             std::vector<std::string> paths;
             self.tree.for_each_leaf(
                 [&](const LeafPath& path, const Leaf&) { paths.push_back(to_text(path)); });
             return paths;
           })
      .def_prop_ro("size_bytes", [](const PythonTree& self) {
        std::uint64_t size = 0;
        self.tree.for_each_leaf([&](const LeafPath& /*path*/, const Leaf& leaf) {
          size += std::visit(LeafSize(), leaf);
        });
        return size;
      });
}

}  // namespace stepstone::python
