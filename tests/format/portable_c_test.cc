// The C interface to portable files gives what the C++ one gives, an error with a text for whatever
// is wrong, and nothing that would end a program in C.
#include "format/portable_c.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>

#include "portable_support.h"

namespace stepstone {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct CloseFile {
  void operator()(stepstone_portable_file* file) const { stepstone_portable_close(file); }
};
struct CloseLeaf {
  void operator()(stepstone_portable_leaf* leaf) const { stepstone_portable_leaf_close(leaf); }
};
using File = std::unique_ptr<stepstone_portable_file, CloseFile>;
using OwnedLeaf = std::unique_ptr<stepstone_portable_leaf, CloseLeaf>;

// A file in memory, at an address as the interface wants it.
struct Memory {
  explicit Memory(const std::string& bytes)
      : words((bytes.size() + 7) / 8), size_bytes(bytes.size()) {
    std::memcpy(words.data(), bytes.data(), bytes.size());
  }
  std::vector<std::uint64_t> words;
  std::size_t size_bytes;
};

File open_memory(const Memory& memory) {
  stepstone_portable_file* file = nullptr;
  EXPECT_EQ(stepstone_portable_open_memory(memory.words.data(), memory.size_bytes, &file),
            STEPSTONE_PORTABLE_OK)
      << stepstone_portable_error_text();
  return File(file);
}

int read_memory(void* context, std::uint64_t offset, void* destination, std::size_t size_bytes) {
  const auto& bytes = *static_cast<const std::string*>(context);
  if (offset > bytes.size() || size_bytes > bytes.size() - offset) return 1;
  std::memcpy(destination, bytes.data() + offset, size_bytes);
  return 0;
}

OwnedLeaf open_leaf(const File& file, const char* item, const char* path,
                    std::uint64_t step = STEPSTONE_PORTABLE_LATEST) {
  stepstone_portable_leaf* leaf = nullptr;
  EXPECT_EQ(stepstone_portable_leaf_open(file.get(), step, item, path, &leaf),
            STEPSTONE_PORTABLE_OK)
      << stepstone_portable_error_text();
  return OwnedLeaf(leaf);
}

stepstone_portable_leaf_info describe(const stepstone_portable_leaf* leaf) {
  stepstone_portable_leaf_info info{};
  info.struct_size_bytes = sizeof(info);
  EXPECT_EQ(stepstone_portable_leaf_describe(leaf, &info), STEPSTONE_PORTABLE_OK);
  return info;
}

std::string read_whole(const stepstone_portable_leaf* leaf) {
  std::string bytes(describe(leaf).size_bytes, '?');
  EXPECT_EQ(stepstone_portable_leaf_read(leaf, 0, bytes.data(), bytes.size()),
            STEPSTONE_PORTABLE_OK)
      << stepstone_portable_error_text();
  return bytes;
}

class PortableCTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "stepstone.XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
    std::ofstream(path(), std::ios::binary) << bytes_;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string path() const { return directory_ / "run.stone"; }
  File open() const {
    stepstone_portable_file* file = nullptr;
    EXPECT_EQ(stepstone_portable_open(path().c_str(), &file), STEPSTONE_PORTABLE_OK)
        << stepstone_portable_error_text();
    return File(file);
  }
  File map() const {
    stepstone_portable_file* file = nullptr;
    EXPECT_EQ(stepstone_portable_map(path().c_str(), &file), STEPSTONE_PORTABLE_OK)
        << stepstone_portable_error_text();
    return File(file);
  }

  std::filesystem::path directory_;
  const std::vector<test::SampleStep> steps_ = test::sample_shared_steps();
  const std::string bytes_ = test::written(steps_, {.share = false}, test::Hashes::kUnknown);
};

TEST_F(PortableCTest, GivesEveryLeafInEveryWayOfOpening) {
  const Memory memory(bytes_);
  stepstone_portable_file* by_callback = nullptr;
  ASSERT_EQ(stepstone_portable_open_with(bytes_.size(), read_memory,
                                         const_cast<std::string*>(&bytes_), &by_callback),
            STEPSTONE_PORTABLE_OK);
  const File files[] = {open(), map(), open_memory(memory), File(by_callback)};
  for (const File& file : files) {
    EXPECT_EQ(stepstone_portable_verify(file.get()), STEPSTONE_PORTABLE_OK);
    for (const test::SampleStep& step : steps_) {
      struct Seen {
        std::vector<std::string> names;
        std::vector<std::string> contents;
      } seen;
      const auto visit = [](void* context, const stepstone_portable_leaf* leaf) {
        const auto info = describe(leaf);
        auto* const all = static_cast<Seen*>(context);
        all->names.push_back(std::string(info.item) + ":" + info.path + ":" +
                             std::to_string(info.step));
        all->contents.push_back(read_whole(leaf));
        return 0;
      };
      ASSERT_EQ(stepstone_portable_each_leaf(file.get(), step.info.step, visit, &seen),
                STEPSTONE_PORTABLE_OK)
          << stepstone_portable_error_text();
      std::vector<std::string> names;
      std::vector<std::string> contents;
      for (const test::SampleItem& item : step.items) {
        for (const test::SampleLeaf& leaf : item.leaves) {
          names.push_back(item.info.name + ":" + to_text(leaf.info.encoded_path) + ":" +
                          std::to_string(step.info.step));
          contents.push_back(leaf.bytes);
        }
      }
      EXPECT_EQ(seen.names, names);
      EXPECT_EQ(seen.contents, contents);
      EXPECT_EQ(seen.names.size(), 5U);
    }
  }
}

TEST_F(PortableCTest, DescribesALeafAndReadsAPartOfIt) {
  const File file = open();
  const OwnedLeaf leaf = open_leaf(file, "state", "kernel");
  const auto info = describe(leaf.get());
  EXPECT_EQ(info.step, 2U);
  EXPECT_EQ(info.kind, STEPSTONE_PORTABLE_KIND_ARRAY);
  EXPECT_EQ(info.dtype, STEPSTONE_PORTABLE_FLOAT32);
  EXPECT_STREQ(stepstone_portable_kind_name(info.kind), "array");
  EXPECT_STREQ(stepstone_portable_dtype_name(info.dtype), "float32");
  EXPECT_EQ(stepstone_portable_dtype_bits(info.dtype), 32U);
  ASSERT_EQ(info.rank, 1U);
  EXPECT_EQ(info.shape[0], 3000U);
  EXPECT_EQ(info.size_bytes, 12000U);
  EXPECT_EQ(info.is_contiguous, 1);
  std::string part(5000, '?');
  ASSERT_EQ(stepstone_portable_leaf_read(leaf.get(), 3001, part.data(), part.size()),
            STEPSTONE_PORTABLE_OK);
  EXPECT_EQ(part, steps_[1].items[1].leaves[2].bytes.substr(3001, 5000));
  EXPECT_EQ(stepstone_portable_leaf_read(leaf.get(), 12000, nullptr, 0), STEPSTONE_PORTABLE_OK);
  EXPECT_EQ(stepstone_portable_leaf_read(leaf.get(), 11999, part.data(), 2),
            STEPSTONE_PORTABLE_INVALID_ARGUMENT);
  EXPECT_THAT(stepstone_portable_error_text(), HasSubstr("step 2, item 'state', leaf 'kernel'"));
  EXPECT_EQ(describe(open_leaf(file, "state", "step").get()).kind, STEPSTONE_PORTABLE_KIND_NONE);
}

TEST_F(PortableCTest, ListsSteps) {
  const File file = open();
  std::uint64_t steps[3] = {9, 9, 9};
  std::size_t count = 0;
  EXPECT_EQ(stepstone_portable_steps(file.get(), nullptr, 0, &count), STEPSTONE_PORTABLE_OK);
  EXPECT_EQ(count, 2U);
  EXPECT_EQ(stepstone_portable_steps(file.get(), steps, 1, &count), STEPSTONE_PORTABLE_OK);
  EXPECT_THAT(steps, ElementsAre(1, 9, 9));
  EXPECT_EQ(stepstone_portable_steps(file.get(), steps, 3, &count), STEPSTONE_PORTABLE_OK);
  EXPECT_THAT(steps, ElementsAre(1, 2, 9));
}

TEST_F(PortableCTest, AListingEndsWhenItsVisitorHasSeenEnough) {
  int left = 2;
  const auto visit = [](void* context, const stepstone_portable_leaf*) {
    return --*static_cast<int*>(context) == 0 ? 1 : 0;
  };
  EXPECT_EQ(stepstone_portable_each_leaf(open().get(), 1, visit, &left), STEPSTONE_PORTABLE_OK);
  EXPECT_EQ(left, 0);
}

TEST_F(PortableCTest, ViewsInPlaceWhatLiesInOnePiece) {
  const File mapped = map();
  const OwnedLeaf leaf = open_leaf(mapped, "state", "kernel");
  for (const int check : {0, 1}) {
    const void* data = nullptr;
    ASSERT_EQ(stepstone_portable_leaf_view(leaf.get(), check, &data), STEPSTONE_PORTABLE_OK);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(data) % 64, 0U);
    EXPECT_EQ(std::memcmp(data, steps_[1].items[1].leaves[2].bytes.data(), 12000), 0);
  }
  const void* data = &leaf;
  EXPECT_EQ(stepstone_portable_leaf_view(leaf.get(), 2, &data),
            STEPSTONE_PORTABLE_INVALID_ARGUMENT);
  EXPECT_EQ(data, &leaf);
  EXPECT_EQ(stepstone_portable_leaf_view(open_leaf(mapped, "state", "empty").get(), 1, &data),
            STEPSTONE_PORTABLE_OK);
  EXPECT_EQ(data, nullptr);
  const File read = open();
  EXPECT_EQ(stepstone_portable_leaf_view(open_leaf(read, "state", "kernel").get(), 1, &data),
            STEPSTONE_PORTABLE_UNSUPPORTED);
  const Memory memory(test::written(steps_, {.compress = true}, test::Hashes::kUnknown));
  const File compressed = open_memory(memory);
  const OwnedLeaf packed = open_leaf(compressed, "state", "kernel");
  EXPECT_EQ(describe(packed.get()).is_contiguous, 0);
  EXPECT_EQ(stepstone_portable_leaf_view(packed.get(), 0, &data), STEPSTONE_PORTABLE_UNSUPPORTED);
  EXPECT_THAT(stepstone_portable_error_text(), HasSubstr("read it instead"));
  EXPECT_EQ(read_whole(packed.get()), steps_[1].items[1].leaves[2].bytes);
}

TEST_F(PortableCTest, DamageIsAnErrorOfTheCallThatMeetsIt) {
  const std::string content = steps_[1].items[1].leaves[2].bytes;
  std::string bytes = bytes_;
  // Around the byte in which step 2 differs.
  const std::size_t at = bytes.find(content.substr(4990, 20));
  ASSERT_NE(at, std::string::npos);
  bytes[at + 10] = 'y';
  std::ofstream(path(), std::ios::binary | std::ios::trunc) << bytes;
  const File file = map();
  const OwnedLeaf leaf = open_leaf(file, "state", "kernel");
  std::string read(12000, '?');
  const void* data = nullptr;
  EXPECT_EQ(stepstone_portable_leaf_read(leaf.get(), 0, read.data(), read.size()),
            STEPSTONE_PORTABLE_CORRUPT);
  EXPECT_THAT(stepstone_portable_error_text(), HasSubstr("does not match its hash"));
  EXPECT_EQ(stepstone_portable_leaf_view(leaf.get(), 1, &data), STEPSTONE_PORTABLE_CORRUPT);
  EXPECT_EQ(stepstone_portable_leaf_view(leaf.get(), 0, &data), STEPSTONE_PORTABLE_OK);
  EXPECT_EQ(stepstone_portable_verify(file.get()), STEPSTONE_PORTABLE_CORRUPT);
  // A chunk before the damaged one.
  EXPECT_EQ(stepstone_portable_leaf_read(leaf.get(), 0, read.data(), 4096), STEPSTONE_PORTABLE_OK);
  EXPECT_STREQ(stepstone_portable_error_text(), "");
  const File shrinking = open();
  std::filesystem::resize_file(path(), 64);
  stepstone_portable_leaf* none = nullptr;
  EXPECT_EQ(stepstone_portable_leaf_open(shrinking.get(), 1, "state", "kernel", &none),
            STEPSTONE_PORTABLE_CORRUPT);
  EXPECT_THAT(stepstone_portable_error_text(), HasSubstr("has become shorter"));
  EXPECT_EQ(none, nullptr);
}

TEST_F(PortableCTest, AStepThatCountsOtherLeavesIsDamaged) {
  test::PortableParts parts;
  parts.step.items[0].leaf_count = 3;
  const Memory memory(parts.build());
  const auto visit = [](void*, const stepstone_portable_leaf*) { return 0; };
  EXPECT_EQ(stepstone_portable_each_leaf(open_memory(memory).get(), 5, visit, nullptr),
            STEPSTONE_PORTABLE_CORRUPT);
  EXPECT_THAT(stepstone_portable_error_text(), HasSubstr("2 of its 3 leaves are there"));
}

TEST_F(PortableCTest, SaysWhatCannotBeOpened) {
  stepstone_portable_file* file = nullptr;
  const std::string missing = directory_ / "missing.stone";
  EXPECT_EQ(stepstone_portable_open(missing.c_str(), &file), STEPSTONE_PORTABLE_NOT_FOUND);
  EXPECT_THAT(stepstone_portable_error_text(), HasSubstr(missing));
  EXPECT_EQ(stepstone_portable_map(missing.c_str(), &file), STEPSTONE_PORTABLE_NOT_FOUND);
  EXPECT_EQ(stepstone_portable_open(directory_.c_str(), &file),
            STEPSTONE_PORTABLE_INVALID_ARGUMENT);
  const std::string pipe = directory_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(stepstone_portable_open(pipe.c_str(), &file), STEPSTONE_PORTABLE_INVALID_ARGUMENT);
  EXPECT_THAT(stepstone_portable_error_text(), HasSubstr("no regular file"));
  for (const std::string& bytes : {std::string(), std::string("just a text"),
                                   bytes_.substr(0, bytes_.size() - 1), bytes_ + "!"}) {
    std::ofstream(path(), std::ios::binary | std::ios::trunc) << bytes;
    EXPECT_EQ(stepstone_portable_open(path().c_str(), &file), STEPSTONE_PORTABLE_CORRUPT);
    EXPECT_EQ(stepstone_portable_map(path().c_str(), &file), STEPSTONE_PORTABLE_CORRUPT);
    EXPECT_THAT(stepstone_portable_error_text(), HasSubstr(path()));
  }
  const Memory memory(bytes_);
  EXPECT_EQ(stepstone_portable_open_memory(reinterpret_cast<const char*>(memory.words.data()) + 1,
                                           memory.size_bytes - 1, &file),
            STEPSTONE_PORTABLE_INVALID_ARGUMENT);
  EXPECT_THAT(stepstone_portable_error_text(), HasSubstr("at a multiple of 8"));
  std::string short_bytes = bytes_.substr(0, 100);
  EXPECT_EQ(stepstone_portable_open_with(bytes_.size(), read_memory, &short_bytes, &file),
            STEPSTONE_PORTABLE_IO);
  EXPECT_THAT(stepstone_portable_error_text(), HasSubstr("callback"));
  EXPECT_EQ(file, nullptr);
}

TEST_F(PortableCTest, SaysWhatIsNotThere) {
  const File file = open();
  stepstone_portable_leaf* leaf = nullptr;
  const auto code = [&](std::uint64_t step, const char* item, const char* path) {
    return stepstone_portable_leaf_open(file.get(), step, item, path, &leaf);
  };
  const auto visit = [](void*, const stepstone_portable_leaf*) { return 0; };
  EXPECT_EQ(code(7, "state", "kernel"), STEPSTONE_PORTABLE_NOT_FOUND);
  EXPECT_EQ(code(1, "stat", "kernel"), STEPSTONE_PORTABLE_NOT_FOUND);
  EXPECT_EQ(code(1, "state", "kern"), STEPSTONE_PORTABLE_NOT_FOUND);
  EXPECT_THAT(stepstone_portable_error_text(),
              HasSubstr("step 1, item 'state', leaf 'kern' is not in the portable file"));
  EXPECT_EQ(code(1, "state", "a//b"), STEPSTONE_PORTABLE_INVALID_ARGUMENT);
  EXPECT_EQ(stepstone_portable_each_leaf(file.get(), 7, visit, nullptr),
            STEPSTONE_PORTABLE_NOT_FOUND);
  EXPECT_EQ(leaf, nullptr);
}

TEST_F(PortableCTest, RefusesEveryNullAndEveryOtherStruct) {
  const auto expect_null = [](const char* name, stepstone_portable_code code) {
    EXPECT_EQ(code, STEPSTONE_PORTABLE_INVALID_ARGUMENT) << name;
    EXPECT_THAT(stepstone_portable_error_text(), HasSubstr("'" + std::string(name) + "' is NULL"));
  };
  const File file = open();
  const OwnedLeaf leaf = open_leaf(file, "state", "kernel");
  stepstone_portable_file* new_file = nullptr;
  stepstone_portable_leaf* new_leaf = nullptr;
  stepstone_portable_leaf_info info{};
  const void* data = nullptr;
  std::size_t count = 0;
  const auto visit = [](void*, const stepstone_portable_leaf*) { return 0; };
  const char* const here = ".";
  expect_null("path", stepstone_portable_open(nullptr, &new_file));
  expect_null("file", stepstone_portable_open(here, nullptr));
  expect_null("path", stepstone_portable_map(nullptr, &new_file));
  expect_null("file", stepstone_portable_map(here, nullptr));
  expect_null("data", stepstone_portable_open_memory(nullptr, 0, &new_file));
  expect_null("file", stepstone_portable_open_memory(bytes_.data(), 1, nullptr));
  expect_null("read", stepstone_portable_open_with(1000, nullptr, nullptr, &new_file));
  expect_null("file", stepstone_portable_open_with(1000, read_memory, nullptr, nullptr));
  expect_null("file", stepstone_portable_verify(nullptr));
  expect_null("file", stepstone_portable_steps(nullptr, nullptr, 0, &count));
  expect_null("steps", stepstone_portable_steps(file.get(), nullptr, 1, &count));
  expect_null("count", stepstone_portable_steps(file.get(), nullptr, 0, nullptr));
  expect_null("file", stepstone_portable_leaf_open(nullptr, 1, "", "", &new_leaf));
  expect_null("item", stepstone_portable_leaf_open(file.get(), 1, nullptr, "", &new_leaf));
  expect_null("path", stepstone_portable_leaf_open(file.get(), 1, "", nullptr, &new_leaf));
  expect_null("leaf", stepstone_portable_leaf_open(file.get(), 1, "", "", nullptr));
  expect_null("file", stepstone_portable_each_leaf(nullptr, 1, visit, nullptr));
  expect_null("visit", stepstone_portable_each_leaf(file.get(), 1, nullptr, nullptr));
  expect_null("leaf", stepstone_portable_leaf_describe(nullptr, &info));
  expect_null("info", stepstone_portable_leaf_describe(leaf.get(), nullptr));
  expect_null("leaf", stepstone_portable_leaf_read(nullptr, 0, nullptr, 0));
  expect_null("data", stepstone_portable_leaf_read(leaf.get(), 0, nullptr, 1));
  expect_null("leaf", stepstone_portable_leaf_view(nullptr, 1, &data));
  expect_null("data", stepstone_portable_leaf_view(leaf.get(), 1, nullptr));
  stepstone_portable_close(nullptr);
  stepstone_portable_leaf_close(nullptr);
  info.struct_size_bytes = sizeof(info) - 1;
  EXPECT_EQ(stepstone_portable_leaf_describe(leaf.get(), &info),
            STEPSTONE_PORTABLE_INVALID_ARGUMENT);
  EXPECT_THAT(stepstone_portable_error_text(), HasSubstr("set it to sizeof"));
}

TEST_F(PortableCTest, NamesItsNumbers) {
  EXPECT_EQ(stepstone_portable_version(), 1U);
  EXPECT_STREQ(stepstone_portable_code_name(STEPSTONE_PORTABLE_OK), "ok");
  EXPECT_STREQ(stepstone_portable_code_name(STEPSTONE_PORTABLE_CORRUPT), "corrupt");
  EXPECT_STREQ(stepstone_portable_code_name(STEPSTONE_PORTABLE_PERMISSION_DENIED),
               "permission_denied");
  EXPECT_STREQ(stepstone_portable_dtype_name(STEPSTONE_PORTABLE_INT4), "int4");
  EXPECT_EQ(stepstone_portable_dtype_bits(STEPSTONE_PORTABLE_INT4), 4U);
  for (const std::int32_t number : {-1, 0, 99, 256 + 1, std::numeric_limits<int>::max()}) {
    if (number != 0) {
      EXPECT_STREQ(stepstone_portable_code_name(number), "unknown");
    }
    EXPECT_STREQ(stepstone_portable_kind_name(number), "unknown");
    EXPECT_STREQ(stepstone_portable_dtype_name(number), "unknown");
    EXPECT_EQ(stepstone_portable_dtype_bits(number), 0U);
  }
}

}  // namespace
}  // namespace stepstone
