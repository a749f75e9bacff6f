// The machine has a stack of values and a memo, both of which refer to values by their places, so
// that a list that is filled after it was noted is the same list. Each instruction reads or makes a
// bounded number of values, and none is ever copied: work and memory follow the pickle's length.
#include "tools/formats/pickle.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <unordered_map>

#include "api/leaf_bytes.h"
#include "format/limits.h"
#include "tools/formats/contents.h"

namespace stepstone::tool {
namespace {

using Kind = PickleValue::Kind;

enum Function : std::int64_t {
  kOrderedDict,
  kRebuildTensor,
  kRebuildTensorV2,
  kRebuildTensorV3,
  kRebuildParameter,
  kTorchSize,
  kEncode,
  kMakeComplex,
};

struct FunctionName {
  std::string_view name;
  Function function;
};
constexpr std::array<FunctionName, 9> kFunctions = {{
    {"collections OrderedDict", kOrderedDict},
    {"torch._utils _rebuild_tensor", kRebuildTensor},
    {"torch._utils _rebuild_tensor_v2", kRebuildTensorV2},
    {"torch._utils _rebuild_tensor_v3", kRebuildTensorV3},
    {"torch._utils _rebuild_parameter", kRebuildParameter},
    {"torch Size", kTorchSize},
    {"_codecs encode", kEncode},
    {"__builtin__ complex", kMakeComplex},
    {"builtins complex", kMakeComplex},
}};

struct DTypeNames {
  DType dtype;
  TorchNames names;
};
constexpr std::array<DTypeNames, 20> kDTypes = {{
    {DType::kBool, {"BoolStorage", "bool"}},
    {DType::kUint8, {"ByteStorage", "uint8"}},
    {DType::kInt8, {"CharStorage", "int8"}},
    {DType::kInt16, {"ShortStorage", "int16"}},
    {DType::kInt32, {"IntStorage", "int32"}},
    {DType::kInt64, {"LongStorage", "int64"}},
    {DType::kFloat16, {"HalfStorage", "float16"}},
    {DType::kBfloat16, {"BFloat16Storage", "bfloat16"}},
    {DType::kFloat32, {"FloatStorage", "float32"}},
    {DType::kFloat64, {"DoubleStorage", "float64"}},
    {DType::kComplex64, {"ComplexFloatStorage", "complex64"}},
    {DType::kComplex128, {"ComplexDoubleStorage", "complex128"}},
    {DType::kUint16, {"", "uint16"}},
    {DType::kUint32, {"", "uint32"}},
    {DType::kUint64, {"", "uint64"}},
    {DType::kFloat8E4m3fn, {"", "float8_e4m3fn"}},
    {DType::kFloat8E5m2, {"", "float8_e5m2"}},
    {DType::kFloat8E4m3fnuz, {"", "float8_e4m3fnuz"}},
    {DType::kFloat8E5m2fnuz, {"", "float8_e5m2fnuz"}},
    {DType::kFloat8E8m0fnu, {"", "float8_e8m0fnu"}},
}};

// Of a storage: its element's dtype, or that it is bytes.
constexpr std::int64_t kUntyped = 0;

// Decimal text of a little-endian number in two's complement.
std::string decimal(std::string_view bytes) {
  const bool is_negative = (static_cast<unsigned char>(bytes.back()) & 0x80) != 0;
  std::vector<std::uint32_t> digits = {0};  // In base 10^9, the lowest first.
  for (std::size_t i = bytes.size(); i-- > 0;) {
    const auto byte = static_cast<unsigned char>(bytes[i]);
    // The magnitude less one of a negative number is its complement.
    std::uint64_t carry = is_negative ? static_cast<unsigned char>(~byte) : byte;
    for (std::uint32_t& digit : digits) {
      carry += std::uint64_t{digit} << 8;
      digit = static_cast<std::uint32_t>(carry % 1'000'000'000);
      carry /= 1'000'000'000;
    }
    if (carry != 0) digits.push_back(static_cast<std::uint32_t>(carry));
  }
  if (is_negative) {
    for (std::uint32_t& digit : digits) {
      if (++digit < 1'000'000'000) break;
      digit = 0;
      if (&digit == &digits.back()) {
        digits.push_back(1);
        break;
      }
    }
  }
  std::string text = (is_negative ? "-" : "") + std::to_string(digits.back());
  for (std::size_t i = digits.size() - 1; i-- > 0;) text += fmt::format("{:09}", digits[i]);
  return text;
}

class Machine {
 public:
  explicit Machine(std::string_view bytes, bool is_cut = false) : bytes_(bytes), is_cut_(is_cut) {}

  Result<Pickle> run() {
    while (!is_done_) {
      if (position_ == bytes_.size()) return cut_short("it has no end");
      begin_ = position_;
      const auto code = static_cast<unsigned char>(bytes_[position_++]);
      STEPSTONE_TRY(step(code));
      if (pickle_.values.size() > kPickleValuesMax) {
        return fail(ErrorCode::kLimit,
                    fmt::format("a pickle of more than {} values", kPickleValuesMax));
      }
    }
    return std::move(pickle_);
  }
  std::size_t end() const { return position_; }

 private:
  tl::unexpected<Error> corrupt(std::string_view what) const {
    return fail(ErrorCode::kCorrupt,
                fmt::format("not a pickle that torch.save wrote: at byte {}: {}", begin_, what));
  }
  tl::unexpected<Error> unsupported(std::string_view what) const {
    return fail(ErrorCode::kUnsupported,
                fmt::format("the pickle has, at byte {}, {}; only tensors, numbers, strings, bytes "
                            "and None in dicts, lists and tuples are read, and nothing is executed",
                            begin_, what));
  }

  tl::unexpected<Error> cut_short(std::string_view what) const {
    if (!is_cut_) return corrupt(what);
    return fail(ErrorCode::kLimit,
                fmt::format("a pickle is over the limit of {} bytes", kPickleSizeBytesMax));
  }

  Result<std::string_view> take(std::uint64_t size) {
    if (size > bytes_.size() - position_) return cut_short("cut short");
    const std::string_view taken = bytes_.substr(position_, static_cast<std::size_t>(size));
    position_ += static_cast<std::size_t>(size);
    return taken;
  }
  Result<std::uint64_t> take_number(std::size_t size) {
    const std::string_view bytes = STEPSTONE_TRY(take(size));
    std::uint64_t number = 0;
    for (std::size_t i = size; i-- > 0;) {
      number = number << 8 | static_cast<unsigned char>(bytes[i]);
    }
    return number;
  }
  Result<std::string_view> take_line() {
    const std::size_t end = bytes_.find('\n', position_);
    if (end == std::string_view::npos) return cut_short("cut short");
    const std::string_view line = bytes_.substr(position_, end - position_);
    position_ = end + 1;
    return line;
  }

  PickleValue& value(std::uint32_t place) { return pickle_.values[place]; }
  const std::string& text_of(std::uint32_t place) { return *pickle_.texts[value(place).text]; }

  void push(PickleValue made) {
    stack_.push_back(static_cast<std::uint32_t>(pickle_.values.size()));
    pickle_.values.push_back(std::move(made));
  }
  void push_number(Kind kind, std::int64_t number) {
    PickleValue made;
    made.kind = kind;
    made.number = number;
    push(std::move(made));
  }
  std::uint32_t add_text(std::string text) {
    pickle_.texts.push_back(std::make_shared<const std::string>(std::move(text)));
    return static_cast<std::uint32_t>(pickle_.texts.size() - 1);
  }
  void push_text(Kind kind, std::string text) {
    PickleValue made;
    made.kind = kind;
    made.text = add_text(std::move(text));
    push(std::move(made));
  }

  Result<std::uint32_t> pop() {
    if (stack_.empty() || value(stack_.back()).kind == Kind::kMark) {
      return corrupt("nothing is on the stack");
    }
    const std::uint32_t place = stack_.back();
    stack_.pop_back();
    return place;
  }
  Result<std::uint32_t> top() {
    const std::uint32_t place = STEPSTONE_TRY(pop());
    stack_.push_back(place);
    return place;
  }
  // What lies on the topmost mark, which goes too.
  Result<std::vector<std::uint32_t>> pop_to_mark() {
    if (marks_.empty()) return corrupt("no mark is on the stack");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<std::uint32_t> items(begin + 1, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return items;
  }

  Result<void> push_tuple(std::size_t size) {
    PickleValue made;
    made.kind = Kind::kTuple;
    made.children.resize(size);
    for (std::size_t i = size; i-- > 0;) made.children[i] = STEPSTONE_TRY(pop());
    push(std::move(made));
    return {};
  }

  // Adds to the list or dict that is on top of the stack.
  Result<void> extend(Kind kind, const std::vector<std::uint32_t>& items) {
    PickleValue& container = value(STEPSTONE_TRY(top()));
    if (container.kind != kind) return corrupt("items for what is no list or dict");
    if (kind == Kind::kDict && items.size() % 2 != 0) return corrupt("a key without a value");
    container.children.insert(container.children.end(), items.begin(), items.end());
    return {};
  }

  Result<void> step(unsigned char code);
  Result<void> note(std::uint64_t number);
  Result<void> recall(std::uint64_t number);
  Result<void> push_long(std::string_view bytes);
  Result<void> push_global();
  Result<void> push_storage();
  Result<void> reduce();
  Result<void> build();
  Result<void> make_ordered_dict(const std::vector<std::uint32_t>& arguments);
  Result<void> rebuild_tensor(const std::vector<std::uint32_t>& arguments, bool has_hooks,
                              bool has_dtype);
  Result<std::vector<std::uint64_t>> extents(std::uint32_t place, std::string_view what);

  std::string_view bytes_;
  const bool is_cut_;
  std::size_t position_ = 0;
  std::size_t begin_ = 0;  // Of the instruction.
  bool is_done_ = false;
  Pickle pickle_;
  std::vector<std::uint32_t> stack_;
  std::vector<std::size_t> marks_;  // Where in the stack they lie.
  std::unordered_map<std::uint64_t, std::uint32_t> memo_;
  std::size_t listed_count_ = 0;  // Entries of OrderedDicts that came as lists.
};

Result<void> Machine::step(unsigned char code) {
  if (begin_ == 0 && code != 0x80) return corrupt("it does not say which protocol it is of");
  switch (code) {
    case 0x80: {  // PROTO
      const std::uint64_t version = STEPSTONE_TRY(take_number(1));
      if (begin_ != 0) return corrupt("a begin inside");
      if (version < 2 || version > 5) return unsupported(fmt::format("protocol {}", version));
      return {};
    }
    case '.':
      pickle_.root = STEPSTONE_TRY(pop());
      if (!stack_.empty()) return corrupt("an end before all is put together");
      is_done_ = true;
      return {};
    case '(':
      marks_.push_back(stack_.size());
      push_number(Kind::kMark, 0);
      return {};
    case 'N':
      push_number(Kind::kNone, 0);
      return {};
    case 0x88:
    case 0x89:
      push_number(Kind::kBool, code == 0x88 ? 1 : 0);
      return {};
    case 'K':
      push_number(Kind::kInteger, static_cast<std::int64_t>(STEPSTONE_TRY(take_number(1))));
      return {};
    case 'M':
      push_number(Kind::kInteger, static_cast<std::int64_t>(STEPSTONE_TRY(take_number(2))));
      return {};
    case 'J':
      push_number(Kind::kInteger, static_cast<std::int32_t>(STEPSTONE_TRY(take_number(4))));
      return {};
    case 0x8A:  // LONG1
      return push_long(STEPSTONE_TRY(take(STEPSTONE_TRY(take_number(1)))));
    case 'G': {  // BINFLOAT, big-endian
      const std::string_view bytes = STEPSTONE_TRY(take(8));
      std::uint64_t bits = 0;
      for (const char byte : bytes) bits = bits << 8 | static_cast<unsigned char>(byte);
      push_number(Kind::kFloat, static_cast<std::int64_t>(bits));
      return {};
    }
    case 'X':    // BINUNICODE
    case 0x8C:   // SHORT_BINUNICODE
    case 'T':    // BINSTRING, the text of Python 2
    case 'U':    // SHORT_BINSTRING
    case 'B':    // BINBYTES
    case 'C': {  // SHORT_BINBYTES
      const std::size_t width = code == 'X' || code == 'T' || code == 'B' ? 4 : 1;
      const std::string_view text = STEPSTONE_TRY(take(STEPSTONE_TRY(take_number(width))));
      const bool is_text = code != 'B' && code != 'C';
      // What was text to Python 2 may have been anything.
      if (is_text && !is_utf8(text)) return unsupported("text that is not UTF-8");
      push_text(is_text ? Kind::kString : Kind::kBytes, std::string(text));
      return {};
    }
    case ')':
      push_number(Kind::kTuple, 0);
      return {};
    case ']':
      push_number(Kind::kList, 0);
      return {};
    case '}':
      push_number(Kind::kDict, 0);
      return {};
    case 't': {
      PickleValue made;
      made.kind = Kind::kTuple;
      made.children = STEPSTONE_TRY(pop_to_mark());
      push(std::move(made));
      return {};
    }
    case 0x85:
    case 0x86:
    case 0x87:
      return push_tuple(code - 0x84U);
    case 'a':
    case 's': {
      std::vector<std::uint32_t> items(code == 's' ? 2 : 1);
      for (std::size_t i = items.size(); i-- > 0;) items[i] = STEPSTONE_TRY(pop());
      return extend(code == 's' ? Kind::kDict : Kind::kList, items);
    }
    case 'e':
    case 'u':
      return extend(code == 'u' ? Kind::kDict : Kind::kList, STEPSTONE_TRY(pop_to_mark()));
    case 'q':
      return note(STEPSTONE_TRY(take_number(1)));
    case 'r':
      return note(STEPSTONE_TRY(take_number(4)));
    case 0x94:  // MEMOIZE
      return note(memo_.size());
    case 'h':
      return recall(STEPSTONE_TRY(take_number(1)));
    case 'j':
      return recall(STEPSTONE_TRY(take_number(4)));
    case 0x95:  // FRAME: its length matters to those who read ahead.
      STEPSTONE_TRY(take(8));
      return {};
    case 'c':
      return push_global();
    case 'Q':
      return push_storage();
    case 'R':
      return reduce();
    case 'b':
      return build();
    default:
      return unsupported(fmt::format("the instruction 0x{:02x}", code));
  }
}

Result<void> Machine::note(std::uint64_t number) {
  memo_[number] = STEPSTONE_TRY(top());
  return {};
}

Result<void> Machine::recall(std::uint64_t number) {
  const auto found = memo_.find(number);
  if (found == memo_.end()) return corrupt(fmt::format("nothing was noted as {}", number));
  stack_.push_back(found->second);
  return {};
}

Result<void> Machine::push_long(std::string_view bytes) {
  if (bytes.size() > 8) {
    const std::string text = decimal(bytes);
    push_text(Kind::kBigInteger, text);
    return {};
  }
  std::uint64_t number = 0;
  if (!bytes.empty() && (static_cast<unsigned char>(bytes.back()) & 0x80) != 0) number = ~number;
  for (std::size_t i = bytes.size(); i-- > 0;) {
    number = number << 8 | static_cast<unsigned char>(bytes[i]);
  }
  push_number(Kind::kInteger, static_cast<std::int64_t>(number));
  return {};
}

Result<void> Machine::push_global() {
  const std::string_view module = STEPSTONE_TRY(take_line());
  const std::string_view attribute = STEPSTONE_TRY(take_line());
  const std::string name = std::string(module) + " " + std::string(attribute);
  for (const FunctionName& known : kFunctions) {
    if (known.name != name) continue;
    push_number(Kind::kFunction, known.function);
    return {};
  }
  if (name == "torch.storage UntypedStorage") {
    push_number(Kind::kStorageType, kUntyped);
    return {};
  }
  if (module == "torch") {
    for (const DTypeNames& known : kDTypes) {
      if (!known.names.storage.empty() && attribute == known.names.storage) {
        push_number(Kind::kStorageType, static_cast<std::int64_t>(known.dtype));
        return {};
      }
      if (attribute != known.names.dtype) continue;
      push_number(Kind::kDType, static_cast<std::int64_t>(known.dtype));
      return {};
    }
  }
  return unsupported("the name '" + shown(module) + "." + shown(attribute) + "'");
}

// ('storage', type, key, device, how many elements[, None])
Result<void> Machine::push_storage() {
  const std::uint32_t place = STEPSTONE_TRY(pop());
  const std::vector<std::uint32_t>& parts = value(place).children;
  if (value(place).kind != Kind::kTuple || (parts.size() != 5 && parts.size() != 6) ||
      value(parts[0]).kind != Kind::kString || text_of(parts[0]) != "storage" ||
      value(parts[1]).kind != Kind::kStorageType || value(parts[2]).kind != Kind::kString ||
      value(parts[3]).kind != Kind::kString || value(parts[4]).kind != Kind::kInteger ||
      value(parts[4]).number < 0) {
    return unsupported("a reference to something that is not the storage of a tensor");
  }
  // Before PyTorch 0.4 a storage could be a part of another.
  if (parts.size() == 6 && value(parts[5]).kind != Kind::kNone) {
    return unsupported("a storage that is a view of another");
  }
  const std::int64_t type = value(parts[1]).number;
  pickle_.storages.push_back(
      {.key = value(parts[2]).text,
       .element_size_bytes = type == kUntyped ? 1U : info(static_cast<DType>(type)).bits / 8U});
  PickleValue made;
  made.kind = Kind::kStorage;
  made.text = value(parts[2]).text;
  made.number = value(parts[4]).number;
  made.children = {parts[1]};
  push(std::move(made));
  return {};
}

Result<std::vector<std::uint64_t>> Machine::extents(std::uint32_t place, std::string_view what) {
  const PickleValue& tuple = value(place);
  if (tuple.kind != Kind::kTuple) return corrupt(fmt::format("a tensor's {} is no tuple", what));
  if (tuple.children.size() > limits::kRankMax) {
    return fail(ErrorCode::kLimit,
                fmt::format("a tensor of more than {} dimensions", limits::kRankMax));
  }
  std::vector<std::uint64_t> numbers;
  for (const std::uint32_t child : tuple.children) {
    if (value(child).kind != Kind::kInteger || value(child).number < 0) {
      return corrupt(fmt::format("a tensor's {} has what is not a whole number from 0", what));
    }
    numbers.push_back(static_cast<std::uint64_t>(value(child).number));
  }
  return numbers;
}

// (storage, first, shape, strides[, requires_grad, hooks[, dtype][, metadata]])
Result<void> Machine::rebuild_tensor(const std::vector<std::uint32_t>& arguments, bool has_hooks,
                                     bool has_dtype) {
  const std::size_t count = has_dtype ? 7 : has_hooks ? 6 : 4;
  if (arguments.size() != count && (!has_hooks || arguments.size() != count + 1)) {
    return corrupt("a tensor of another number of arguments");
  }
  const PickleValue storage = value(arguments[0]);
  if (storage.kind != Kind::kStorage || value(arguments[1]).kind != Kind::kInteger ||
      value(arguments[1]).number < 0) {
    return corrupt("a tensor without a storage");
  }
  const auto is_nothing = [&](std::size_t i) {
    const PickleValue& argument = value(arguments[i]);
    return argument.kind == Kind::kNone ||
           (argument.kind == Kind::kDict && argument.children.empty());
  };
  if (has_hooks && !is_nothing(5)) return unsupported("a tensor with hooks");
  if (arguments.size() > count && !is_nothing(count)) {
    return unsupported("a tensor with metadata, such as one that is conjugated when it is read");
  }
  const std::int64_t type = value(storage.children[0]).number;
  PickledTensor tensor;
  if (has_dtype) {
    if (value(arguments[6]).kind != Kind::kDType || type != kUntyped) {
      return corrupt("a tensor without a dtype");
    }
    tensor.dtype = static_cast<DType>(value(arguments[6]).number);
  } else {
    if (type == kUntyped) return corrupt("a tensor without a dtype");
    tensor.dtype = static_cast<DType>(type);
  }
  const std::uint64_t width = type == kUntyped ? 1 : info(tensor.dtype).bits / 8;
  tensor.storage_key = storage.text;
  if (static_cast<std::uint64_t>(storage.number) > limits::kLeafSizeBytesMax) {
    return fail(ErrorCode::kLimit,
                fmt::format("a storage of {} elements is over the limit", storage.number));
  }
  tensor.storage_size_bytes = static_cast<std::uint64_t>(storage.number) * width;
  tensor.first = static_cast<std::uint64_t>(value(arguments[1]).number);
  tensor.shape = STEPSTONE_TRY(extents(arguments[2], "shape"));
  tensor.strides = STEPSTONE_TRY(extents(arguments[3], "strides"));
  if (tensor.shape.size() != tensor.strides.size()) {
    return corrupt("a tensor's shape and strides have other lengths");
  }
  push_number(Kind::kTensor, static_cast<std::int64_t>(pickle_.tensors.size()));
  pickle_.tensors.push_back(std::move(tensor));
  return {};
}

Result<void> Machine::reduce() {
  const std::uint32_t tuple = STEPSTONE_TRY(pop());
  const std::uint32_t function = STEPSTONE_TRY(pop());
  if (value(function).kind != Kind::kFunction) return unsupported("a call of what is no function");
  if (value(tuple).kind != Kind::kTuple) return corrupt("a call without arguments");
  // No function on the list takes more; without this, one long tuple could be copied at each call.
  if (value(tuple).children.size() > 8) return unsupported("a call with more than 8 arguments");
  const std::vector<std::uint32_t> arguments = value(tuple).children;
  const auto is = [&](std::size_t i, Kind kind) { return value(arguments[i]).kind == kind; };
  switch (value(function).number) {
    case kOrderedDict:
      return make_ordered_dict(arguments);
    case kRebuildTensor:
      return rebuild_tensor(arguments, false, false);
    case kRebuildTensorV2:
      return rebuild_tensor(arguments, true, false);
    case kRebuildTensorV3:
      return rebuild_tensor(arguments, true, true);
    case kRebuildParameter:
      if (arguments.size() != 3 || !is(0, Kind::kTensor)) {
        return corrupt("a parameter without a tensor");
      }
      stack_.push_back(arguments[0]);
      return {};
    case kTorchSize:
      if (arguments.size() != 1 || !is(0, Kind::kTuple)) return corrupt("a size without a tuple");
      stack_.push_back(arguments[0]);
      return {};
    case kMakeComplex: {
      if (arguments.size() != 2 || !is(0, Kind::kFloat) || !is(1, Kind::kFloat)) {
        return corrupt("a complex number of what are not two numbers");
      }
      std::string bytes;
      for (const std::uint32_t part : arguments) {
        const auto bits = static_cast<std::uint64_t>(value(part).number);
        for (unsigned shift = 0; shift < 64; shift += 8) bytes += static_cast<char>(bits >> shift);
      }
      push_text(Kind::kComplex, std::move(bytes));
      return {};
    }
    default:  // kEncode: bytes, as protocol 2 has no other way to write them.
      if (arguments.size() != 2 || !is(0, Kind::kString) || !is(1, Kind::kString) ||
          text_of(arguments[1]) != "latin1") {
        return unsupported("a call of '_codecs.encode' other than for bytes");
      }
      std::string bytes;
      const std::string& text = text_of(arguments[0]);
      for (std::size_t i = 0; i < text.size(); ++i) {
        const auto first = static_cast<unsigned char>(text[i]);
        if (first < 0x80) {
          bytes += text[i];
          continue;
        }
        // Two bytes of UTF-8 for U+0080 to U+00FF.
        if ((first != 0xC2 && first != 0xC3) || i + 1 == text.size() ||
            (static_cast<unsigned char>(text[i + 1]) & 0xC0) != 0x80) {
          return corrupt("bytes that are none");
        }
        bytes += static_cast<char>((first & 3) << 6 | (text[++i] & 0x3F));
      }
      push_text(Kind::kBytes, std::move(bytes));
      return {};
  }
}

// () or, as Python 2 writes it, ([[key, value], ...],)
Result<void> Machine::make_ordered_dict(const std::vector<std::uint32_t>& arguments) {
  PickleValue made;
  made.kind = Kind::kDict;
  if (arguments.size() > 1) return unsupported("an OrderedDict with arguments");
  if (!arguments.empty()) {
    const PickleValue& pairs = value(arguments[0]);
    if (pairs.kind != Kind::kList) return unsupported("an OrderedDict with arguments");
    // One list could be named by every call.
    listed_count_ += pairs.children.size();
    if (listed_count_ > kPickleValuesMax) {
      return fail(ErrorCode::kLimit,
                  fmt::format("OrderedDicts of more than {} entries", kPickleValuesMax));
    }
    for (const std::uint32_t place : pairs.children) {
      const PickleValue& pair = value(place);
      if ((pair.kind != Kind::kList && pair.kind != Kind::kTuple) || pair.children.size() != 2) {
        return corrupt("an OrderedDict of what are not pairs");
      }
      made.children.insert(made.children.end(), pair.children.begin(), pair.children.end());
    }
  }
  push(std::move(made));
  return {};
}

// State that is hung on to an OrderedDict: `_metadata` of a module's state_dict.
Result<void> Machine::build() {
  const std::uint32_t state = STEPSTONE_TRY(pop());
  if (value(STEPSTONE_TRY(top())).kind != Kind::kDict || value(state).kind != Kind::kDict) {
    return unsupported("an object with a state");
  }
  return {};
}

}  // namespace

Result<Pickle> parse_pickle(std::string_view bytes) {
  if (bytes.size() > kPickleSizeBytesMax) {
    return fail(ErrorCode::kLimit, fmt::format("a pickle of {} bytes is over the limit of {}",
                                               bytes.size(), kPickleSizeBytesMax));
  }
  Pickle pickle = STEPSTONE_TRY(parse_next_pickle(bytes, false));
  if (!bytes.empty()) {
    return fail(ErrorCode::kCorrupt,
                "not a pickle that torch.save wrote: something follows its end");
  }
  return pickle;
}

Result<Pickle> parse_next_pickle(std::string_view& bytes, bool is_cut) {
  Machine machine(bytes, is_cut);
  Pickle pickle = STEPSTONE_TRY(machine.run());
  bytes.remove_prefix(machine.end());
  return pickle;
}

TorchNames torch_names(DType dtype) {
  for (const DTypeNames& known : kDTypes) {
    if (known.dtype == dtype) return known.names;
  }
  return {};
}

}  // namespace stepstone::tool
