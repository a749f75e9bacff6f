// Handlers: what the library has, what a user adds, and how they are found.
#include "api/handlers.h"

#include <atomic>
#include <fstream>
#include <stdexcept>

#include "api/checkpointer.h"
#include "api/file_handler.h"
#include "api/json.h"
#include "api/stateful.h"
#include "tests/api/support.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

using testing::array_of;
using testing::fails;
using testing::is_ok;

class HandlersTest : public ::testing::Test {
 protected:
  std::filesystem::path at(const char* name) const { return directory_.path() / name; }

  // What is restored without saying how, by an object that did not see the save.
  template <typename T>
  Result<T> saved_and_restored(const AnyValue& args) const {
    STEPSTONE_TRY(Checkpointer().save(at("c"), args, {.force = true}));
    return Checkpointer().restore<T>(at("c"));
  }

  TemporaryDirectory directory_;
};

TEST_F(HandlersTest, EveryKindOfObjectComesBackWithoutSayingHow) {
  const Tree tree = Tree::dict({{"w", array_of<float>({1, 2})}, {"t", Tree::tuple({1, "x"})}});
  EXPECT_EQ(*saved_and_restored<Tree>(args::StandardSave(tree)), tree);
  EXPECT_EQ(*saved_and_restored<Tree>(args::PyTreeSave(tree)), tree);
  const Array array = array_of<double>({1, 2, 3});
  EXPECT_EQ(*saved_and_restored<Array>(args::ArraySave(array)), array);
  const Tree json = Tree::dict({{"version", 1.0}, {"tags", Tree::list({"a", None{}, true, -3})}});
  EXPECT_EQ(*saved_and_restored<Tree>(args::JsonSave(json)), json);
  const ProtoMessage message{.type_name = "pkg.Config", .bytes = std::string("\0\xff\x12", 3)};
  EXPECT_EQ(*saved_and_restored<ProtoMessage>(args::ProtoSave(message)), message);
  const RandomKey key{.algorithm = "threefry2x32", .state = array_of<std::uint32_t>({0, 42})};
  EXPECT_EQ(*saved_and_restored<RandomKey>(args::RandomKeySave(key)), key);
}

TEST_F(HandlersTest, ObjectsOfAKnownKindNeedNoArguments) {
  const Array array = array_of<double>({1, 2, 3});
  const args::Composite all({{"tree", Tree::list({1, 2})},
                             {"array", array},
                             {"proto", ProtoMessage{"T", "bytes"}},
                             {"key", RandomKey{"MT19937", Tree::list({1, 2})}}});
  ASSERT_TRUE(is_ok(Checkpointer().save(at("c"), all)));
  const auto restored = Checkpointer().restore<args::Composite>(at("c"));
  ASSERT_TRUE(is_ok(restored));
  EXPECT_EQ(*restored->get<Tree>("tree"), Tree::list({1, 2}));
  EXPECT_EQ(*restored->get<Array>("array"), array);
  EXPECT_EQ(restored->get<ProtoMessage>("proto")->bytes, "bytes");
  EXPECT_EQ(restored->get<RandomKey>("key")->algorithm, "MT19937");
  EXPECT_TRUE(fails(restored->get<Array>("tree"), ErrorCode::kMismatch, {"'tree'", "Tree"}));
  EXPECT_TRUE(fails(restored->get<Array>("none"), ErrorCode::kNotFound, {"'none'", "'array'"}));
  // By a handler of one kind, in that kind's way.
  ASSERT_TRUE(is_ok(PyTreeCheckpointer().save(at("p"), Tree::list({1}))));
  EXPECT_EQ(PyTreeCheckpointer().metadata(at("p"))->items[0].second.handler, "pytree");
  const Checkpointer json{JsonCheckpointHandler()};
  ASSERT_TRUE(is_ok(json.save(at("j"), Tree::list({1}))));
  EXPECT_EQ(json.metadata(at("j"))->items[0].second.handler, "json");
}

TEST_F(HandlersTest, TheThreeTreeHandlersRestoreWhatTheOthersSaved) {
  ASSERT_TRUE(is_ok(Checkpointer().save(at("c"), args::ArraySave(array_of<float>({1, 2})))));
  const auto as_doubles =
      Checkpointer().restore(at("c"), args::StandardRestore(AbstractArray{DType::kFloat64, {2}}));
  ASSERT_TRUE(is_ok(as_doubles));
  EXPECT_EQ(*as_doubles, Tree(array_of<double>({1, 2})));
  ASSERT_TRUE(is_ok(Checkpointer().save(at("t"), args::StandardSave(array_of<float>({3})))));
  EXPECT_EQ(*Checkpointer().restore(at("t"), args::ArrayRestore()), array_of<float>({3}));
  ASSERT_TRUE(is_ok(Checkpointer().save(at("d"), args::StandardSave(Tree::dict({{"a", 1}})))));
  EXPECT_TRUE(fails(Checkpointer().restore(at("d"), args::ArrayRestore()), ErrorCode::kMismatch,
                    {"'default'", "StandardRestore"}));
  EXPECT_TRUE(fails(Checkpointer().restore(at("d"), args::JsonRestore()), ErrorCode::kMismatch,
                    {"'json'", "'standard'"}));
}

TEST_F(HandlersTest, ExpectationsOfTypesAreChecked) {
  ASSERT_TRUE(is_ok(Checkpointer().save(at("p"), args::ProtoSave({"pkg.A", "x"}))));
  EXPECT_TRUE(is_ok(Checkpointer().restore(at("p"), args::ProtoRestore{.type_name = "pkg.A"})));
  EXPECT_TRUE(fails(Checkpointer().restore(at("p"), args::ProtoRestore{.type_name = "pkg.B"}),
                    ErrorCode::kMismatch, {"'pkg.A'", "'pkg.B'"}));
  ASSERT_TRUE(is_ok(Checkpointer().save(at("k"), args::RandomKeySave({"philox", 1}))));
  EXPECT_TRUE(fails(Checkpointer().restore(at("k"), args::RandomKeyRestore{.algorithm = "rbg"}),
                    ErrorCode::kMismatch, {"'philox'", "'rbg'"}));
}

class Iterator final : public StatefulCheckpointable {
 public:
  Result<Tree> save_state() const override {
    if (position < 0) return fail(ErrorCode::kInvalidArgument, "the iterator is exhausted");
    return Tree::dict({{"position", position}});
  }
  Result<void> load_state(const Tree& state) override {
    const Tree* const found = state.find("position");
    if (found == nullptr) return fail(ErrorCode::kMismatch, "no position");
    position = *found->get_if<std::int64_t>();
    return {};
  }

  std::int64_t position = 0;
};

TEST_F(HandlersTest, AStatefulObjectSavesAndLoadsItself) {
  Iterator iterator;
  iterator.position = 17;
  ASSERT_TRUE(is_ok(Checkpointer().save(at("c"), args::StatefulSave(iterator))));
  Iterator other;
  ASSERT_TRUE(is_ok(Checkpointer().restore(at("c"), args::StatefulRestore(other))));
  EXPECT_EQ(other.position, 17);
  EXPECT_EQ(*Checkpointer().restore(at("c")), Tree::dict({{"position", 17}}));
  iterator.position = -1;
  EXPECT_TRUE(fails(Checkpointer().save(at("c"), args::StatefulSave(iterator), {.force = true}),
                    ErrorCode::kInvalidArgument, {"step 0 item 'default'", "exhausted"}));
  EXPECT_EQ(*Checkpointer().restore(at("c")), Tree::dict({{"position", 17}}));
}

// Words, saved by a background part.
using Words = std::vector<std::string>;
struct WordsSave {
  Words words;
};
struct WordsRestore {
  using Restored = Words;
  bool reversed = false;
};

class WordsHandler final : public AsyncCheckpointHandler<WordsSave, WordsRestore> {
 public:
  explicit WordsHandler(std::shared_ptr<std::atomic<int>> finalized = {}, bool fails = false)
      : finalized_(std::move(finalized)), fails_(fails) {}

  std::string type_name() const override { return "words"; }
  Result<BackgroundSave> save(const WordsSave& args) const override {
    return BackgroundSave([words = args.words, fails = fails_](ItemWriter& item) -> Result<void> {
      if (fails) throw std::runtime_error("no words left");
      std::vector<Tree> children;
      for (const std::string& word : words) children.emplace_back(word);
      return item.write(Tree::list(std::move(children)));
    });
  }
  Result<Words> restore(const WordsRestore& args, const ItemReader& item) const override {
    const Tree tree = STEPSTONE_TRY(item.read());
    Words words;
    for (const Tree::Child& child : tree.children()) {
      words.push_back(*child.tree.get_if<std::string>());
    }
    if (args.reversed) std::reverse(words.begin(), words.end());
    return words;
  }
  Result<void> finalize(const ItemWriter& /*item*/) const override {
    if (finalized_ != nullptr) ++*finalized_;
    return {};
  }

 private:
  std::shared_ptr<std::atomic<int>> finalized_;
  bool fails_;
};

TEST_F(HandlersTest, AHandlerOfTheUsersIsFoundByItsArgumentsAndByItsRecordedName) {
  auto finalized = std::make_shared<std::atomic<int>>(0);
  HandlerRegistry registry = HandlerRegistry::defaults();
  ASSERT_TRUE(is_ok(registry.add(WordsHandler(finalized))));
  const Checkpointer checkpointer(registry);
  const Words words = {"a", "", "b"};
  ASSERT_TRUE(is_ok(checkpointer.save(
      at("c"), args::Composite({{"words", WordsSave{words}}, {"state", Tree::list({1})}}))));
  EXPECT_EQ(*finalized, 1);
  const auto as_saved = checkpointer.restore<args::Composite>(at("c"));
  ASSERT_TRUE(is_ok(as_saved));
  EXPECT_EQ(*as_saved->get<Words>("words"), words);
  EXPECT_EQ(*checkpointer.restore(at("c") / "words", WordsRestore{.reversed = true}),
            (Words{"b", "", "a"}));
  // Without the handler, the rest of the checkpoint can be read, and the words are described.
  EXPECT_TRUE(fails(Checkpointer().restore<args::Composite>(at("c")), ErrorCode::kUnsupported,
                    {"item 'words'", "'words'", "HandlerRegistry"}));
  EXPECT_TRUE(is_ok(Checkpointer().restore(at("c"), args::Composite({{"state", {}}}))));
  const auto metadata = Checkpointer().metadata(at("c"));
  ASSERT_TRUE(is_ok(metadata));
  EXPECT_EQ(metadata->find("words")->handler, "words");
  EXPECT_EQ(metadata->find("words")->leaves.size(), 3U);
}

TEST_F(HandlersTest, WhatAHandlerThrowsOrForgetsFailsTheSave) {
  ASSERT_TRUE(is_ok(Checkpointer().save(at("c"), Tree(1))));
  EXPECT_TRUE(
      fails(Checkpointer(WordsHandler({}, true)).save(at("c"), WordsSave{{"a"}}, {.force = true}),
            ErrorCode::kInvalidArgument, {"item 'default'", "'words' threw: no words left"}));

  struct NothingSave {};
  struct NothingRestore {
    using Restored = int;
  };
  struct NothingHandler final : CheckpointHandler<NothingSave, NothingRestore> {
    std::string type_name() const override { return "nothing"; }
    Result<void> save(const NothingSave& /*args*/, ItemWriter& /*item*/) const override {
      return {};
    }
    Result<int> restore(const NothingRestore& /*args*/, const ItemReader& /*item*/) const override {
      return 1;
    }
  };
  EXPECT_TRUE(fails(Checkpointer(NothingHandler()).save(at("c"), NothingSave(), {.force = true}),
                    ErrorCode::kInvalidArgument, {"'nothing' did not write"}));
  EXPECT_EQ(*Checkpointer().restore(at("c")), Tree(1)) << "the checkpoint is as it was";
}

TEST(HandlerRegistry, RefusesWhatIsTaken) {
  HandlerRegistry registry = HandlerRegistry::defaults();
  EXPECT_TRUE(fails(registry.add(JsonCheckpointHandler()), ErrorCode::kAlreadyExists, {"'json'"}));
  ASSERT_TRUE(is_ok(registry.add("meta", JsonCheckpointHandler())));
  EXPECT_TRUE(fails(registry.add("meta", ProtoCheckpointHandler()), ErrorCode::kAlreadyExists,
                    {"'meta'", "'json'"}));
  EXPECT_TRUE(fails(registry.add(std::shared_ptr<const AnyCheckpointHandler>()),
                    ErrorCode::kInvalidArgument, {"null"}));
  EXPECT_TRUE(fails(registry.for_save("meta", args::StandardSave(Tree())),
                    ErrorCode::kInvalidArgument, {"'json'", "JsonSave", "StandardSave"}));
  EXPECT_TRUE(fails(registry.for_save("x", AnyValue(7)), ErrorCode::kInvalidArgument, {"int"}));
  EXPECT_TRUE(fails(registry.for_save("x", AnyValue()), ErrorCode::kInvalidArgument, {"nothing"}));
  // A copy does not follow.
  HandlerRegistry copy = registry;
  ASSERT_TRUE(is_ok(copy.add(WordsHandler())));
  EXPECT_FALSE(registry.for_save("x", WordsSave()));
}

// Writes two files, one of them in a directory.
struct FilesSave {
  std::string text;
  bool with_link = false;
};
struct FilesRestore {
  using Restored = std::string;
};

class FilesHandler final : public FileCheckpointHandler<FilesSave, FilesRestore> {
 public:
  using FileCheckpointHandler::FileCheckpointHandler;
  std::string type_name() const override { return "files"; }
  Result<void> save_files(const FilesSave& args,
                          const std::filesystem::path& directory) const override {
    std::filesystem::create_directory(directory / "sub");
    std::ofstream(directory / "sub" / "text") << args.text;
    const std::ofstream empty(directory / "empty");
    if (args.with_link) std::filesystem::create_symlink("/etc/passwd", directory / "link");
    return {};
  }
  Result<std::string> restore_files(const FilesRestore& /*args*/,
                                    const std::filesystem::path& directory) const override {
    EXPECT_TRUE(std::filesystem::is_empty(directory / "empty"));
    std::ifstream file(directory / "sub" / "text");
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
};

TEST_F(HandlersTest, FilesOfAHandlerBecomeLeavesAndFilesAgain) {
  std::filesystem::create_directory(at("scratch"));
  const Checkpointer checkpointer{FilesHandler(at("scratch"))};
  const std::string text(300000, 'x');
  ASSERT_TRUE(is_ok(checkpointer.save(at("c"), FilesSave{text})));
  EXPECT_EQ(*checkpointer.restore<std::string>(at("c")), text);
  const auto metadata = checkpointer.metadata(at("c"));
  ASSERT_TRUE(is_ok(metadata));
  EXPECT_EQ(metadata->items[0].second.leaves[1].path, "sub/text");
  EXPECT_EQ(metadata->items[0].second.leaves[1].size_bytes, text.size());
  EXPECT_TRUE(fails(checkpointer.save(at("d"), FilesSave{"x", true}), ErrorCode::kInvalidArgument,
                    {"link"}));
  EXPECT_TRUE(std::filesystem::is_empty(at("scratch"))) << "nothing is left behind";
}

TEST_F(HandlersTest, NamesInACheckpointCannotLeadOutOfTheScratchDirectory) {
  const Array file = *Array::copy_bytes(DType::kUint8, {1}, {{std::byte{65}}});
  std::filesystem::create_directory(at("scratch"));
  const auto scratch = ScratchDirectory::create(at("scratch"));
  ASSERT_TRUE(is_ok(scratch));
  for (const std::string& name :
       {std::string("../escaped"), std::string(".."), std::string("."), std::string(""),
        std::string("/tmp/escaped"), std::string("a/b"), std::string("a\0b", 3)}) {
    SCOPED_TRACE(printable(name));
    EXPECT_TRUE(fails((*scratch)->write(Tree::dict({{name, file}})), ErrorCode::kCorrupt));
    EXPECT_TRUE(fails((*scratch)->write(Tree::dict({{name, Tree::dict({{"x", file}})}})),
                      ErrorCode::kCorrupt));
  }
  EXPECT_TRUE(fails((*scratch)->write(Tree::integer_dict({{7, file}})), ErrorCode::kCorrupt));
  EXPECT_TRUE(fails((*scratch)->write(Tree::dict({{"f", 7}})), ErrorCode::kCorrupt, {"'f'"}));
  EXPECT_TRUE(fails((*scratch)->write(file), ErrorCode::kCorrupt));
  EXPECT_FALSE(std::filesystem::exists(at("scratch") / "escaped"));
  EXPECT_TRUE(std::filesystem::is_empty((*scratch)->path()));
  EXPECT_TRUE(fails(ScratchDirectory::create(at("missing")), ErrorCode::kIo, {"missing"}));
}

TEST(Json, ComesBackWithEveryKindOfValue) {
  const Tree tree = Tree::dict({{"none", None{}},
                                {"bools", Tree::list({true, false})},
                                {"int", std::numeric_limits<std::int64_t>::min()},
                                {"big", BigInteger{"123456789012345678901234567890"}},
                                {"uint64", BigInteger{"18446744073709551615"}},
                                {"float", 0.1},
                                {"whole", 1.0},
                                {"inf", -std::numeric_limits<double>::infinity()},
                                {"nan", std::numeric_limits<double>::quiet_NaN()},
                                {"text", "\xc3\xa9\n\"\\\x01"},
                                {"", Tree::dict()},
                                {"a.b/c", Tree::list({Tree::dict({{"z", 1}, {"a", 2}})})}});
  const auto text = to_json(tree);
  ASSERT_TRUE(is_ok(text));
  const auto back = from_json(*text);
  ASSERT_TRUE(is_ok(back));
  EXPECT_EQ(*back, tree) << *text;
  EXPECT_EQ(*from_json(*to_json(Tree::tuple({1, 2}))), Tree::list({1, 2}));
}

TEST(Json, RefusesWhatItCannotHold) {
  const std::vector<std::pair<Tree, std::string_view>> cases = {
      {Tree::dict({{"p", Tree::list({array_of<float>({1})})}}), "'p[0]'"},
      {Tree::dict({{"p", Bytes{"x"}}}), "'p'"},
      {Tree::integer_dict({{1, 2}}), "'{1}'"},
      {Tree::named_tuple("T", {{"a", 1}}), "named_tuple"},
      {Tree::dict({{"\xff", 1}}), "UTF-8"},
      {Tree::dict({{"k", "\xff"}}), "'k'"},
      {Tree::dict({{"a", 1}, {"a", 2}}), "twice"},
      {Tree::dict({{"__float__", "nan"}}), "__float__"},
      {std::complex<double>(1, 2), "complex"},
  };
  for (const auto& [tree, part] : cases) {
    EXPECT_TRUE(fails(to_json(tree), ErrorCode::kInvalidArgument, {part}));
  }
  for (const std::string& text : {std::string("{"), std::string(""), std::string("[1,]"),
                                  std::string(100000, '['), std::string("\xff")}) {
    EXPECT_TRUE(fails(from_json(text), ErrorCode::kCorrupt));
  }
}

}  // namespace
}  // namespace stepstone
