// Goal: whatever is said to be a .pt file, nothing of it is executed, and reading it is an error or
// a tree, within bounds. Method: pickles written by hand, around one tensor and one storage; files
// of PyTorch cut and changed.
#include <gtest/gtest.h>

#include <random>

#include "tests/tools/hostile.h"
#include "tests/tools/raw_zip.h"
#include "tools/formats/pickle.h"

namespace stepstone::tool {
namespace {

using HostileTorchTest = HostileFileTest;

std::string pickled_text(std::string_view value) {
  return "X" + little_endian(value.size(), 4) + std::string(value);
}
std::string pickled_integer(std::int64_t value) {
  return "\x8A\x08" + little_endian(static_cast<std::uint64_t>(value), 8);
}
std::string global(std::string_view module, std::string_view name) {
  return "c" + std::string(module) + "\n" + std::string(name) + "\n";
}

// A file of PyTorch with this pickle (without its head and its end) and one storage of four floats.
std::string torch_file_of(const std::string& pickle) {
  return raw_zip({{.name = "m/data.pkl", .packed = "\x80\x02" + pickle + "."},
                  {.name = "m/byteorder", .packed = "little"},
                  {.name = "m/data/0", .packed = std::string(16, '\0')}});
}
std::string file_of_raw(const std::string& pickle) {
  return raw_zip({{.name = "m/data.pkl", .packed = pickle}});
}

std::string storage(std::string_view key, std::int64_t size,
                    const std::string& type = global("torch", "FloatStorage")) {
  return "(" + pickled_text("storage") + type + pickled_text(key) + pickled_text("cpu") +
         pickled_integer(size) + "tQ";
}

struct View {
  std::string storage = stepstone::tool::storage("0", 4);
  std::int64_t first = 0;
  std::string shape = pickled_integer(4);
  std::string strides = pickled_integer(1);
  std::string hooks = global("collections", "OrderedDict") + ")R";
  std::string behind;
};
std::string tensor(const View& view) {
  return global("torch._utils", "_rebuild_tensor_v2") + "(" + view.storage +
         pickled_integer(view.first) + "(" + view.shape + "t(" + view.strides + "t\x89" +
         view.hooks + view.behind + "tR";
}
std::string in_dict(const std::string& value) { return "}(" + pickled_text("a") + value + "u"; }

// A tuple of the same thing twice, in a tuple of it twice, and so on: 2^depth leaves.
std::string laughs(std::size_t depth) {
  std::string pickle = "K\x01";
  for (std::size_t i = 0; i < depth; ++i)
    pickle += "q" + little_endian(i, 1) + "h" + little_endian(i, 1) + "\x86";
  return pickle;
}

std::vector<HostileFile> pickles() {
  const auto calls = [](std::string_view module, std::string_view name) {
    return torch_file_of(global(module, name) + "(" + pickled_text("touch /tmp/harm") + "tR");
  };
  return {
      {"System", calls("os", "system"), "'os.system'"},
      {"PosixSystem", calls("posix", "system"), "'posix.system'"},
      {"Eval", calls("builtins", "eval"), "'builtins.eval'"},
      {"Eval2", calls("__builtin__", "eval"), "'__builtin__.eval'"},
      {"Exec", calls("builtins", "exec"), "exec"},
      {"Getattr", calls("builtins", "getattr"), "getattr"},
      {"Import", calls("builtins", "__import__"), "__import__"},
      {"Popen", calls("subprocess", "Popen"), "subprocess"},
      {"TorchLoad", calls("torch", "load"), "torch.load"},
      {"TorchHub", calls("torch.hub", "load"), "torch.hub"},
      {"DottedName", calls("torch", "_utils.sys.modules"), "_utils.sys"},
      {"Numpy", calls("numpy._core.multiarray", "_reconstruct"), "numpy"},
      {"PartialFunction", calls("functools", "partial"), "functools"},
      {"Device", calls("torch", "device"), "torch.device"},
      {"Quantized", calls("torch", "QInt8Storage"), "QInt8Storage"},
      {"NameForTheTerminal", calls("os\x1b[2J", "x"), "\\x1b"},
      {"LongName", calls(std::string(100'000, 'm'), "x"), "…"},
      {"StackGlobal", torch_file_of(pickled_text("os") + pickled_text("system") + "\x93"), "0x93"},
      {"Instance", torch_file_of("(ios\nsystem\n"), "0x69"},
      {"Object", torch_file_of("(" + pickled_text("x") + "o"), "0x6f"},
      {"NewObject", torch_file_of(global("collections", "OrderedDict") + ")\x81"), "0x81"},
      {"NewObjectEx", torch_file_of(global("collections", "OrderedDict") + ")}\x92"), "0x92"},
      {"Extension", torch_file_of("\x82\x01"), "0x82"},
      {"PersistentText", torch_file_of("Pkey\n"), "0x50"},
      {"TextNumber", torch_file_of("I1\n"), "0x49"},
      {"TextNotUtf8", torch_file_of(pickled_text("\xC3\x28")), "UTF-8"},
      {"TextOfPython2NotUtf8", torch_file_of("U\x02\xFFx"), "UTF-8"},
      {"TextString", torch_file_of("S'x'\n"), "0x53"},
      {"Duplicate", torch_file_of("N2"), "0x32"},
      {"Pop", torch_file_of("NN0"), "0x30"},
      {"Set", torch_file_of("\x8F"), "0x8f"},
      {"Buffer", torch_file_of("\x97"), "0x97"},
      {"Long4", torch_file_of("\x8B" + little_endian(0xFFFFFFFF, 4)), "0x8b"},
      {"Bytes8", torch_file_of("\x8E" + little_endian(std::uint64_t{1} << 62, 8)), "0x8e"},
      {"Protocol0", file_of_raw("N."), "protocol"},
      {"Protocol77", file_of_raw("\x80\x4DN."), "protocol 77"},
      {"ProtocolInside", torch_file_of("N\x80\x02"), "inside"},
      {"EmptyPickle", file_of_raw(""), "end"},
      {"EndAlone", file_of_raw("\x80\x02."), "stack"},
      {"NoEnd", file_of_raw("\x80\x02N"), "end"},
      {"TwoEnds", torch_file_of("N."), "follows"},
      {"TwoValues", torch_file_of("NN"), "put together"},
      {"MarkLeft", torch_file_of("(N"), ""},
      {"TextOfFourGiB", torch_file_of("X\xFF\xFF\xFF\xFF"), "cut short"},
      {"NumberCutShort", file_of_raw("\x80\x02J\x01"), "cut short"},
      {"LineWithoutEnd",
       file_of_raw("\x80\x02"
                   "cos"),
       "cut short"},
      {"LongOf255BytesCutShort", file_of_raw("\x80\x02\x8A\xFF\x01"), "cut short"},
      {"TupleWithoutMark", torch_file_of("t"), "mark"},
      {"TupleOfTooFew", torch_file_of("N\x86"), "stack"},
      {"TupleAcrossAMark", torch_file_of("N(N\x86"), "stack"},
      {"AppendToADict", torch_file_of("}Na"), "no list"},
      {"AppendToNothing", torch_file_of("Na"), "stack"},
      {"AppendToATuple", torch_file_of(")Na"), "no list"},
      {"SetInAList", torch_file_of("]NNs"), "no list"},
      {"KeyWithoutValue", torch_file_of("}(Nu"), "key"},
      {"MemoMissing", torch_file_of("h\x07"), "noted"},
      {"LongMemoMissing", torch_file_of("j\xFF\xFF\xFF\xFF"), "noted"},
      {"NoteNothing", file_of_raw("\x80\x02q\x01."), "stack"},
      {"NoteAMark", torch_file_of("(q\x01"), "stack"},
      {"ListInItself",
       torch_file_of("]q\x01h\x01"
                     "a"),
       "deeper"},
      {"DictInItself", torch_file_of("}q\x01" + pickled_text("a") + "h\x01s"), "deeper"},
      {"NestedThousandfold", torch_file_of(repeated("](", 1000) + repeated("e", 1000)), "deeper"},
      {"NestedManyThousandfold", torch_file_of(repeated("](", 200'000) + repeated("e", 200'000)),
       "deeper"},
      {"Laughs", torch_file_of(laughs(30)), "1032"},
      {"MillionsOfValues", torch_file_of("](" + repeated("]", 5'000'000) + "e"), "values"},
      {"KeyIsATuple", torch_file_of("})Ns"), "neither"},
      {"KeyIsAFloat", torch_file_of("}G" + std::string(8, '\0') + "Ns"), "neither"},
      {"KeyTwice", torch_file_of("}(" + pickled_text("a") + "N" + pickled_text("a") + "Nu"), ""},
      {"KeyOfAMegabyte", torch_file_of("}(" + pickled_text(std::string(1 << 20, 'k')) + "Nu"), ""},
      {"CallOfATuple", torch_file_of("))R"), "call"},
      {"CallWithoutTuple", torch_file_of(global("collections", "OrderedDict") + "NR"), "arguments"},
      {"CallOfManyArguments",
       torch_file_of(global("torch", "Size") + "(" + repeated("N", 1000) + "tR"), "8 arguments"},
      {"OrderedDictOfNone", torch_file_of(global("collections", "OrderedDict") + "(NtR"),
       "OrderedDict"},
      {"OrderedDictOfTwo", torch_file_of(global("collections", "OrderedDict") + "(]]tR"),
       "OrderedDict"},
      {"OrderedDictOfNumbers",
       torch_file_of(global("collections", "OrderedDict") + "](K\x01"
                                                            "e\x85R"),
       "pairs"},
      {"OrderedDictOfTriples",
       torch_file_of(global("collections", "OrderedDict") + "](NNN\x87"
                                                            "e\x85R"),
       "pairs"},
      {"OneLongListOfPairsManyTimes",
       torch_file_of("(](" + repeated("NN\x86", 10'000) + "eq\x01" +
                     repeated(global("collections", "OrderedDict") + "h\x01\x85R", 10'000) + "t"),
       "OrderedDicts"},
      {"SizeOfAList", torch_file_of(global("torch", "Size") + "]\x85R"), "tuple"},
      {"EncodeOtherwise",
       torch_file_of(global("_codecs", "encode") + pickled_text("x") + pickled_text("rot13") +
                     "\x86R"),
       "encode"},
      {"EncodeBeyondABytes",
       torch_file_of(global("_codecs", "encode") + pickled_text("\xE2\x82\xAC") +
                     pickled_text("latin1") + "\x86R"),
       "bytes"},
      {"ComplexOfStrings",
       torch_file_of(global("__builtin__", "complex") + pickled_text("1") + pickled_text("2") +
                     "\x86R"),
       "complex"},
      {"StateOfAList", torch_file_of("]}b"), "state"},
      {"StateOfANumber", torch_file_of("K\x01}b"), "state"},
      {"FunctionAsValue", torch_file_of(in_dict(global("torch", "Size"))), "'a'"},
      {"DTypeAsValue", torch_file_of(in_dict(global("torch", "float32"))), "'a'"},
      {"StorageAsValue", torch_file_of(in_dict(storage("0", 4))), "'a'"},
  };
}

std::vector<HostileFile> tensors() {
  const auto view = [](const View& spoilt) { return torch_file_of(in_dict(tensor(spoilt))); };
  const std::string floats = global("torch", "FloatStorage");
  const std::string many = repeated(pickled_integer(2), 40);
  return {
      {"NoSuchStorage", view({.storage = storage("1", 4)}), "no storage '1'"},
      {"StorageElsewhere", view({.storage = storage("../../etc/passwd", 4)}), "no storage"},
      {"StorageIsThePickle", view({.storage = storage("../data.pkl", 4)}), "no storage"},
      {"StorageShorter", view({.storage = storage("0", 5)}), "16 bytes"},
      {"StorageLonger", view({.storage = storage("0", 3)}), "16 bytes"},
      {"StorageOfOtherWidth", view({.storage = storage("0", 4, global("torch", "DoubleStorage"))}),
       "16 bytes"},
      {"StorageOf2To62", view({.storage = storage("0", std::int64_t{1} << 62)}), "limit"},
      {"StorageOfNegativeSize", view({.storage = storage("0", -4)}), "storage"},
      {"StorageIsNone", view({.storage = "N"}), "storage"},
      {"StorageIsATuple", view({.storage = "(" + floats + "t"}), "storage"},
      {"StorageOfFourParts",
       view({.storage = "(" + pickled_text("storage") + floats + pickled_text("0") +
                        pickled_text("cpu") + "tQ"}),
       "storage"},
      {"OtherPersistentThing",
       view({.storage = "(" + pickled_text("module") + floats + pickled_text("0") +
                        pickled_text("cpu") + "K\x04tQ"}),
       "storage"},
      {"StorageKeyIsANumber",
       view({.storage = "(" + pickled_text("storage") + floats + "K\x01" + pickled_text("cpu") +
                        "K\x04tQ"}),
       "storage"},
      {"StorageTypeIsAFunction", view({.storage = storage("0", 4, global("torch", "Size"))}),
       "storage"},
      {"StorageWithoutType",
       view({.storage = storage("0", 16, global("torch.storage", "UntypedStorage"))}), "dtype"},
      {"FirstBeyond", view({.first = 1}), "beyond"},
      {"FirstFarBeyond", view({.first = std::int64_t{1} << 62}), "beyond"},
      {"FirstNegative", view({.first = -1}), ""},
      {"ShapeBeyond", view({.shape = pickled_integer(5)}), "beyond"},
      {"ShapeOf2To62", view({.shape = pickled_integer(std::int64_t{1} << 62)}), ""},
      {"ShapeNegative", view({.shape = pickled_integer(-4)}), "shape"},
      {"ShapeOfText", view({.shape = pickled_text("4")}), "shape"},
      {"ShapeOfABool", view({.shape = "\x88"}), "shape"},
      {"ShapeOfABigInteger", view({.shape = "\x8A\x09" + std::string(8, '\0') + "\x01"}), "shape"},
      {"ShapeOf40Dimensions", view({.shape = many, .strides = many}), "dimensions"},
      {"ProductOverflows",
       view({.shape =
                 pickled_integer(std::int64_t{1} << 40) + pickled_integer(std::int64_t{1} << 40),
             .strides = pickled_integer(0) + pickled_integer(0)}),
       ""},
      {"StrideBeyond", view({.shape = pickled_integer(2), .strides = pickled_integer(4)}),
       "beyond"},
      {"StrideNegative", view({.strides = pickled_integer(-1)}), "strides"},
      {"StrideOf2To63Minus1", view({.strides = pickled_integer(INT64_MAX)}), "beyond"},
      {"StridesTimesShapeWrapAround",
       view({.shape = pickled_integer(3) + pickled_integer(3),
             .strides =
                 pickled_integer(std::int64_t{1} << 62) + pickled_integer(std::int64_t{1} << 62)}),
       "beyond"},
      {"FewerStrides", view({.shape = pickled_integer(2) + pickled_integer(2)}), "lengths"},
      {"MoreStrides", view({.strides = pickled_integer(1) + pickled_integer(1)}), "lengths"},
      {"ExpandedToATebibyte",
       view({.shape = pickled_integer(std::int64_t{1} << 38), .strides = pickled_integer(0)}),
       "1032"},
      {"ExpandedToAGibibyte",
       view({.shape = pickled_integer(std::int64_t{1} << 28), .strides = pickled_integer(0)}),
       "1032"},
      {"OneViewManyTimes",
       torch_file_of("](" +
                     tensor({.shape = pickled_integer(100'000), .strides = pickled_integer(0)}) +
                     "q\x01" + repeated("h\x01", 10'000) + "e"),
       "1032"},
      {"Hooks", view({.hooks = in_dict("N")}), "hooks"},
      {"HooksAreAList", view({.hooks = "]"}), "hooks"},
      {"Conjugated", view({.behind = in_dict("\x88")}), "metadata"},
      {"MetadataIsAList", view({.behind = "]"}), "metadata"},
      {"NineArguments", view({.behind = "NNN"}), ""},
      {"FewArguments", torch_file_of(global("torch._utils", "_rebuild_tensor_v2") + ")R"),
       "arguments"},
      {"V3WithoutDType",
       torch_file_of(global("torch._utils", "_rebuild_tensor_v3") + "(" + storage("0", 4) +
                     "K\x01))\x89NNtR"),
       "dtype"},
      {"ParameterOfNone", torch_file_of(global("torch._utils", "_rebuild_parameter") + "(N\x88NtR"),
       "parameter"},
      {"NoPickle", raw_zip({{.name = "m/data/0", .packed = "x"}}), "data.pkl"},
      {"PickleDeeper", raw_zip({{.name = "m/n/data.pkl", .packed = "\x80\x02N."}}), "data.pkl"},
      {"TwoPickles",
       raw_zip({{.name = "m/data.pkl", .packed = "\x80\x02N."},
                {.name = "n/data.pkl", .packed = "\x80\x02N."}}),
       "several"},
      {"BigEndian",
       raw_zip({{.name = "m/data.pkl", .packed = "\x80\x02N."},
                {.name = "m/byteorder", .packed = "big"}}),
       "big-endian"},
      {"ByteOrderOfAMegabyte",
       raw_zip({{.name = "m/data.pkl", .packed = "\x80\x02N."},
                {.name = "m/byteorder", .packed = std::string(1 << 20, 'l')}}),
       "limit"},
      {"PickleIsABomb", raw_zip({deflated_entry("m/data.pkl", std::string(70 << 20, ']'))}),
       "limit"},
      {"Tar", std::string(1024, 't'), "directory"},
  };
}

// What PyTorch wrote before 1.6, of its parts; as they are, one tensor of four floats.
struct OldFile {
  std::string magic = "\x80\x02\x8A\x0Al\xFC\x9C\x46\xF9\x20\x6A\xA8\x50\x19.";
  std::string version = "\x80\x02M\xE9\x03.";
  std::string machine = "\x80\x02}" + pickled_text("little_endian") + "\x88s.";
  std::string pickle = "\x80\x02" + in_dict(tensor({.storage = old_storage("0", 4)})) + ".";
  std::string keys = "\x80\x02](" + pickled_text("0") + "e.";
  std::string storages = little_endian(4, 8) + "0123456789abcdef";

  static std::string old_storage(std::string_view key, std::int64_t size,
                                 const std::string& view = "N") {
    return "(" + pickled_text("storage") + global("torch", "FloatStorage") + pickled_text(key) +
           pickled_text("cpu") + pickled_integer(size) + view + "tQ";
  }
  std::string bytes() const { return magic + version + machine + pickle + keys + storages; }
};

std::vector<HostileFile> old_files() {
  const auto view = [](const std::string& storage) {
    return OldFile{.pickle = "\x80\x02" + in_dict(tensor({.storage = storage})) + "."}.bytes();
  };
  const auto of_storages = [](const std::string& keys, const std::string& storages) {
    return OldFile{.keys = "\x80\x02" + keys + ".", .storages = storages}.bytes();
  };
  const std::string floats(16, '\1');
  const std::string key = pickled_text("0");
  return {
      {"Empty", "", "directory"},
      {"OneByte", "\x80", "cut short"},
      {"MagicAlone", OldFile().magic, "end"},
      {"NoMagic", OldFile{.magic = "\x80\x02K\x01."}.bytes(), "torch.save"},
      {"OtherMagic",
       OldFile{.magic = "\x80\x02\x8A\x0Al\xFC\x9C\x46\xF9\x20\x6A\xA8\x50\x18."}.bytes(),
       "torch.save"},
      {"MagicIsText", OldFile{.magic = "\x80\x02" + key + "."}.bytes(), "torch.save"},
      {"MagicCallsSystem",
       OldFile{.magic = "\x80\x02" + global("os", "system") + key + "\x85R."}.bytes(), "os.system"},
      {"OtherVersion", OldFile{.version = "\x80\x02M\xEA\x03."}.bytes(), "1001"},
      {"VersionIsNone", OldFile{.version = "\x80\x02N."}.bytes(), "1001"},
      {"BigEndian",
       OldFile{.machine = "\x80\x02}" + pickled_text("little_endian") + "\x89s."}.bytes(),
       "big-endian"},
      {"NoByteOrder", OldFile{.machine = "\x80\x02}."}.bytes(), "order"},
      {"MachineIsAList", OldFile{.machine = "\x80\x02]."}.bytes(), "order"},
      {"CallsSystem",
       OldFile{.pickle = "\x80\x02" + global("os", "system") + key + "\x85R."}.bytes(),
       "os.system"},
      {"KeysCallSystem", of_storages(global("os", "system") + key + "\x85R", ""), "os.system"},
      {"KeysAreNone", of_storages("N", ""), "keys"},
      {"KeysAreATuple", of_storages(key + "\x85", ""), "keys"},
      {"KeyIsANumber",
       of_storages("](K\x01"
                   "e",
                   ""),
       "key"},
      {"KeysAreTensors", of_storages("](" + tensor({}) + "e", ""), "key"},
      {"NoStorages", of_storages("]", ""), "no storage '0'"},
      {"StorageNobodyViews",
       of_storages("](" + key + pickled_text("1") + "e",
                   little_endian(4, 8) + floats + little_endian(4, 8) + floats),
       "'1'"},
      {"StorageTwice",
       of_storages("](" + key + key + "e",
                   little_endian(4, 8) + floats + little_endian(4, 8) + floats),
       "two storages"},
      {"StorageWithoutSize", of_storages("](" + key + "e", "1234567"), "ends before"},
      {"StorageCutShort", of_storages("](" + key + "e", little_endian(4, 8) + "123"), "beyond"},
      {"StorageOf2To64", of_storages("](" + key + "e", std::string(8, '\xFF') + floats), "beyond"},
      {"StorageOf2To62",
       of_storages("](" + key + "e", little_endian(std::uint64_t{1} << 62, 8) + floats), "beyond"},
      {"StorageShorter", of_storages("](" + key + "e", little_endian(3, 8) + std::string(12, '\1')),
       "12 bytes"},
      {"StorageLonger", of_storages("](" + key + "e", little_endian(5, 8) + std::string(20, '\1')),
       "20 bytes"},
      {"SomethingFollows", OldFile().bytes() + "x", "follows"},
      {"TwoFiles", OldFile().bytes() + OldFile().bytes(), "follows"},
      {"StorageOfAView",
       view(
           OldFile::old_storage("0", 4, "(" + key + pickled_integer(0) + pickled_integer(4) + "t")),
       "view of another"},
      {"StorageOfSevenParts", view(OldFile::old_storage("0", 4, "NN")), "storage"},
      {"StorageOfNegativeSize", view(OldFile::old_storage("0", -4)), "storage"},
      {"TensorOfFiveArguments",
       OldFile{.pickle = "\x80\x02" + global("torch._utils", "_rebuild_tensor") + "(" +
                         OldFile::old_storage("0", 4) + pickled_integer(0) + "(K\x04t(K\x01tNtR."}
           .bytes(),
       "arguments"},
      {"VersionCutShort", OldFile().magic + "\x80\x02M\xE9", "cut short"},
      {"ByteOrderIsANumber",
       OldFile{.machine = "\x80\x02}" + pickled_text("little_endian") + "K\x01s."}.bytes(),
       "big-endian"},
      {"PickleOfOldProtocol", OldFile{.pickle = "N."}.bytes(), "protocol"},
      {"FunctionAlone", OldFile{.pickle = "\x80\x02" + global("torch", "Size") + "."}.bytes(), ""},
      {"NoKeys", OldFile{.keys = "", .storages = ""}.bytes(), "end"},
      {"KeyInAList", of_storages("](](" + key + "ee", ""), "key"},
      {"PickleWithoutEndIsOverTheLimit",
       OldFile().magic + OldFile().version + OldFile().machine + "\x80\x02X" +
           little_endian(70 << 20, 4) + std::string(70 << 20, 'x') + ".",
       "limit"},
  };
}

// As PyTorch 0.3 wrote it with Python 2, which no library of today does.
TEST_F(HostileTorchTest, TextAndDictsOfPython2AreRead) {
  const auto text = [](std::string_view value) {
    return "U" + little_endian(value.size(), 1) + std::string(value);
  };
  const std::string old_tensor = global("torch._utils", "_rebuild_tensor") + "(" +
                                 OldFile::old_storage("0", 4) + pickled_integer(1) + "(" +
                                 pickled_integer(3) + "t(" + pickled_integer(1) + "ttR";
  const OldFile file{.pickle = "\x80\x02" + global("collections", "OrderedDict") + "](](" +
                               text("layer.weight") + old_tensor + "e](" + text("name") + "T" +
                               little_endian(3, 4) + "net" + "ee\x85R."};
  write_file(path("old.pt"), file.bytes());
  const Result<Contents> contents = read_torch(path("old.pt"));
  ASSERT_TRUE(contents) << contents.error().message;
  ASSERT_EQ(contents->leaves.size(), 2U);
  const ContentLeaf& weight = contents->leaves[0];
  EXPECT_EQ(flat_name(weight.encoded_path).value(), "layer.weight");
  EXPECT_EQ(weight.info.dtype, DType::kFloat32);
  EXPECT_EQ(weight.info.shape, std::vector<std::uint64_t>{3});
  std::string bytes;
  ASSERT_TRUE(stream(weight, [&](std::span<const std::byte> piece) -> Result<void> {
    bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    return {};
  }));
  EXPECT_EQ(bytes, file.storages.substr(8 + 4));
  EXPECT_EQ(contents->leaves[1].info.kind, LeafKind::kString);
}

TEST_F(HostileTorchTest, FilesOfTheOldFormThatLieAreRefused) { expect_refused("pt", old_files()); }

TEST_F(HostileTorchTest, PicklesThatAreNoDataAreRefused) { expect_refused("pt", pickles()); }

TEST_F(HostileTorchTest, TensorsThatAreNotThereAreRefused) { expect_refused("pt", tensors()); }

TEST_F(HostileTorchTest, FilesCutShortAreRefused) {
  expect_cut_files_are_refused("pt", golden("state.pt"), 40);
  expect_cut_files_are_refused("pt", golden("old_form.pt"), 40);
}

TEST_F(HostileTorchTest, FilesWithChangedBytesDoNoHarm) {
  expect_changed_files_do_no_harm("pt", golden("state.pt"), 200);
  expect_changed_files_do_no_harm("pt", golden("old_form.pt"), 200);
}

// A checksum is no obstacle to who changes a pickle on purpose.
TEST_F(HostileTorchTest, ChangedPicklesAreErrorsOrValues) {
  const std::string pickle = "\x80\x02" + in_dict(tensor({})) + ".";
  const std::uint64_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  std::size_t refused_count = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string changed = pickle;
    for (std::size_t change = 0; change <= random() % 3; ++change) {
      changed[random() % changed.size()] = static_cast<char>(random());
    }
    const Result<Pickle> parsed = parse_pickle(changed);
    if (!parsed) {
      ++refused_count;
      EXPECT_FALSE(parsed.error().message.empty());
      continue;
    }
    EXPECT_LT(parsed->root, parsed->values.size());
  }
  EXPECT_GT(refused_count, 1000U);
}

}  // namespace
}  // namespace stepstone::tool
