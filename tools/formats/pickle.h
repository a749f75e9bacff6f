#pragma once
// The part of Python's pickle that torch.save writes for tensors in dicts, lists and tuples.
// Nothing is executed: a pickle is a program for a small stack machine, and of its instructions and
// of the functions that it may name, those on a list are understood and all others refused.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "format/dtype.h"
#include "format/error.h"

namespace stepstone::tool {

struct PickleValue {
  enum class Kind : std::uint8_t {
    kNone,
    kBool,        // `number`
    kInteger,     // `number`
    kBigInteger,  // `text`, decimal
    kFloat,       // `number`, its bits
    kComplex,     // `text`, its sixteen bytes
    kString,      // `text`, UTF-8
    kBytes,       // `text`
    kTuple,       // `children`
    kList,        // `children`
    kDict,        // `children`, keys and values by turns
    kTensor,      // `number`, of Pickle::tensors
    // What only stands inside others, and is nowhere in what parse_pickle() gives.
    kFunction,
    kDType,
    kStorageType,
    kStorage,
    kMark,
  };
  Kind kind = Kind::kNone;
  std::uint32_t text = 0;  // Of Pickle::texts.
  std::int64_t number = 0;
  std::vector<std::uint32_t> children;  // Of Pickle::values.
};

// A view of a storage, as the pickle describes it; nothing of it has been held against the storage.
struct PickledTensor {
  std::uint32_t storage_key = 0;         // Of Pickle::texts.
  DType dtype = DType::kFloat32;         // Of the view.
  std::uint64_t storage_size_bytes = 0;  // That the pickle says.
  std::uint64_t first = 0;               // In elements.
  std::vector<std::uint64_t> shape;
  std::vector<std::uint64_t> strides;
};

// A storage that the pickle refers to, as often as it does.
struct PickledStorage {
  std::uint32_t key = 0;  // Of Pickle::texts.
  std::uint32_t element_size_bytes = 1;
};

// Values refer to each other by their places, and one may be referred to many times, or by itself.
struct Pickle {
  std::deque<PickleValue> values;  // Not a vector, which would be copied as it grows.
  std::vector<std::shared_ptr<const std::string>> texts;
  std::vector<PickledTensor> tensors;
  std::vector<PickledStorage> storages;
  std::uint32_t root = 0;
};

inline constexpr std::uint64_t kPickleSizeBytesMax = std::uint64_t{64} << 20;
inline constexpr std::size_t kPickleValuesMax = std::size_t{1} << 22;

// What optimizers and modules hang on to an OrderedDict besides its entries is passed over.
// kUnsupported: an instruction, a function or a use of one that is not on the list (the message
// names it and the byte where it stands). kCorrupt: not a pickle. kLimit: longer than the above, or
// of more values.
Result<Pickle> parse_pickle(std::string_view bytes);

// The same of a pickle that others may follow; moves `bytes` to what stands behind it. `is_cut`:
// `bytes` are the beginning of more, and a pickle that does not end in them is kLimit.
Result<Pickle> parse_next_pickle(std::string_view& bytes, bool is_cut);

// The names that PyTorch has for a dtype: of the class of its storages (empty: it has none, and is
// stored as bytes), and of itself, `torch.float32`. Empty, both: PyTorch lacks it.
struct TorchNames {
  std::string_view storage;
  std::string_view dtype;
};
TorchNames torch_names(DType dtype);

}  // namespace stepstone::tool
