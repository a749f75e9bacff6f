// What a portable file gives back is what was written into it, however it is written and opened.
#include "format/portable_file.h"

#include <gtest/gtest.h>

#include "format/keys.h"
#include "format/leaf_path.h"
#include "format/limits.h"
#include "portable_support.h"

namespace stepstone {
namespace {

using test::Hashes;
using test::SampleItem;
using test::SampleLeaf;
using test::SampleStep;

std::string read_leaf(const PortableFile& file, const PortableLeaf& leaf) {
  std::string bytes(leaf.record().size_bytes, '?');
  ChunkDecoder decoder;
  const auto result = file.read(leaf, 0, std::as_writable_bytes(std::span(bytes)), decoder);
  EXPECT_TRUE(result.has_value()) << result.error().message;
  return bytes;
}

void expect_same_leaf(const PortableFile& file, const SampleLeaf& sample,
                      const PortableLeaf& leaf) {
  EXPECT_EQ(leaf.record().kind, sample.info.kind);
  EXPECT_EQ(leaf.record().dtype, sample.info.dtype);
  EXPECT_EQ(leaf.record().shape, sample.info.shape);
  EXPECT_EQ(leaf.record().size_bytes, sample.info.size_bytes);
  EXPECT_TRUE(read_leaf(file, leaf) == sample.bytes);
}

void expect_same_item(const PortableFile& file, std::uint64_t step, const SampleItem& sample) {
  const auto item = file.item(step, sample.info.name);
  ASSERT_TRUE(item.has_value()) << item.error().message;
  EXPECT_EQ(item->handler, sample.info.handler);
  EXPECT_EQ(item->structure, sample.info.structure);
  EXPECT_EQ(item->custom_metadata, sample.info.custom_metadata);
  EXPECT_EQ(item->leaf_count, sample.leaves.size());
  std::size_t count = 0;
  const auto visit_leaf = [&](std::string_view path, const PortableLeaf& leaf) -> Result<void> {
    if (count == sample.leaves.size()) return fail(ErrorCode::kMismatch, "too many leaves");
    EXPECT_EQ(path, sample.leaves[count].info.encoded_path);
    expect_same_leaf(file, sample.leaves[count], leaf);
    ++count;
    return {};
  };
  const auto visited = file.for_each_leaf(step, sample.info.name, visit_leaf);
  EXPECT_TRUE(visited.has_value()) << visited.error().message;
  EXPECT_EQ(count, sample.leaves.size());
  for (const SampleLeaf& sample_leaf : sample.leaves) {
    const auto leaf = file.leaf(step, sample.info.name, sample_leaf.info.encoded_path);
    ASSERT_TRUE(leaf.has_value()) << leaf.error().message;
    expect_same_leaf(file, sample_leaf, *leaf);
  }
}

void expect_same_file(const std::string& bytes, const std::vector<SampleStep>& steps) {
  for (const bool is_mapped : {true, false}) {
    const auto file = test::open_file(bytes, is_mapped);
    ASSERT_TRUE(file.has_value()) << file.error().message;
    EXPECT_EQ(file->step_count(), steps.size());
    const auto verified = file->verify();
    EXPECT_TRUE(verified.has_value()) << verified.error().message;
    std::vector<std::uint64_t> numbers;
    const auto note = [&](const StepRecord& record) -> Result<void> {
      numbers.push_back(record.save.step);
      return {};
    };
    EXPECT_TRUE(file->for_each_step(note).has_value());
    ASSERT_EQ(numbers.size(), steps.size());
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const PortableStepInfo& info = steps[i].info;
      EXPECT_EQ(numbers[i], info.step);
      const auto step = file->step(info.step);
      ASSERT_TRUE(step.has_value()) << step.error().message;
      EXPECT_EQ(step->started_unix_ns, info.started_unix_ns);
      EXPECT_EQ(step->committed_unix_ns, info.committed_unix_ns);
      EXPECT_EQ(step->metrics, info.metrics);
      EXPECT_EQ(step->custom_metadata, info.custom_metadata);
      ASSERT_EQ(step->items.size(), steps[i].items.size());
      for (const SampleItem& item : steps[i].items) expect_same_item(*file, info.step, item);
    }
  }
}

TEST(PortableFile, GivesBackEveryTreeThatWasWritten) {
  for (const std::uint64_t seed : test::seeds(60)) {
    SCOPED_TRACE(test::trace(seed));
    test::Random random(seed);
    const std::vector<SampleStep> steps = test::random_steps(random);
    const PortableWriteOptions options = {
        .compress = random.one_in(2),
        .share = !random.one_in(3),
        .sharing_memory_bytes_max = random.one_in(4) ? random.below(2000) : std::size_t{1} << 20};
    const Hashes hashes = random.one_in(2) ? Hashes::kKnown : Hashes::kUnknown;
    expect_same_file(test::written(steps, options, hashes), steps);
    if (HasFailure()) return;
  }
}

TEST(PortableFile, StoresSharedChunksAndLeavesOnce) {
  const std::vector<SampleStep> steps = test::sample_shared_steps();
  for (const Hashes hashes : {Hashes::kKnown, Hashes::kUnknown}) {
    const std::string shared = test::written(steps, {.share = true}, hashes);
    const std::string apart = test::written(steps, {.share = false}, hashes);
    // Of 12,000 bytes of the second step, 4096 have changed.
    EXPECT_LT(shared.size() + 7000, apart.size());
    expect_same_file(shared, steps);
    expect_same_file(apart, steps);
  }
}

TEST(PortableFile, SharesWholeLeavesOfOneStepWithoutReadingThem) {
  class OnlyHashes final : public PortableLeafBytes {
   public:
    explicit OnlyHashes(Hash128 hash) : hash_(hash) {}
    std::span<const Hash128> hashes() const override { return {&hash_, 1}; }
    Result<std::span<const std::byte>> chunk(std::uint32_t /*chunk*/) override {
      return fail(ErrorCode::kIo, "this leaf was not to be read");
    }

   private:
    Hash128 hash_;
  };
  std::vector<SampleStep> steps = test::sample_portable_steps();
  SampleItem& item = steps[0].items[0];
  item.leaves[0] = item.leaves[1];
  item.leaves[0].info.encoded_path = encode_path({PathComponent::key("n")}).value();
  test::MemorySink sink;
  auto writer = PortableWriter::create(sink, {}).value();
  ASSERT_TRUE(writer.begin_step(steps[0].info).has_value());
  ASSERT_TRUE(writer.begin_item(item.info).has_value());
  ASSERT_TRUE(
      writer.add_leaf(item.leaves[0].info, test::as_bytes(item.leaves[0].bytes)).has_value());
  OnlyHashes source(hash128(test::as_bytes(item.leaves[1].bytes)));
  const auto added = writer.add_leaf(item.leaves[1].info, source);
  ASSERT_TRUE(added.has_value()) << added.error().message;
  ASSERT_TRUE(writer.end_step().has_value());
  ASSERT_TRUE(writer.finish().has_value());
  expect_same_file(sink.bytes(), steps);
}

TEST(PortableFile, CompressesWhereThatMakesItSmaller) {
  const std::vector<SampleStep> steps = test::sample_shared_steps();
  const std::string small = test::written(steps, {.compress = true}, Hashes::kUnknown);
  EXPECT_LT(small.size() + 12000, test::written(steps, {}, Hashes::kUnknown).size());
  expect_same_file(small, steps);
}

TEST(PortableFile, ViewsEveryArrayOfOneStepWhereItStandsAndAligned) {
  std::vector<SampleStep> steps = test::sample_shared_steps();
  steps.resize(1);
  const std::string bytes = test::written(steps, {}, Hashes::kUnknown);
  const auto file = test::open_file(bytes, true).value();
  for (const SampleLeaf& sample : steps[0].items[1].leaves) {
    const auto leaf = file.leaf(1, "state", sample.info.encoded_path).value();
    const auto view = file.view(leaf, PortableFile::Check::kHashes);
    ASSERT_TRUE(view.has_value()) << view.error().message;
    EXPECT_EQ(test::as_string(*view), sample.bytes);
    if (view->empty() || sample.info.kind != LeafKind::kArray) continue;
    const auto* const begin = reinterpret_cast<const char*>(view->data());
    ASSERT_GE(begin, bytes.data());
    EXPECT_EQ((begin - bytes.data()) % 64, 0);
  }
}

TEST(PortableFile, BigArraysBeginAtAPage) {
  std::vector<SampleStep> steps = test::sample_portable_steps();
  SampleLeaf& leaf = steps[0].items[0].leaves[1];
  leaf.info.shape = {1 << 17};
  leaf.info.size_bytes = std::size_t{4} << 17;
  leaf.bytes = std::string(leaf.info.size_bytes, 'p');
  const std::string bytes = test::written(steps, {}, Hashes::kUnknown);
  const auto file = test::open_file(bytes, true).value();
  const auto found = file.leaf(1000, "state", leaf.info.encoded_path).value();
  const auto view = file.view(found, PortableFile::Check::kNothing).value();
  EXPECT_EQ((reinterpret_cast<const char*>(view.data()) - bytes.data()) % 4096, 0);
  EXPECT_EQ(test::as_string(view), leaf.bytes);
  expect_same_file(bytes, steps);
}

TEST(PortableFile, WhatCannotBeViewedSaysSoAndIsRead) {
  const std::vector<SampleStep> steps = test::sample_shared_steps();
  const SampleLeaf& kernel = steps[1].items[1].leaves[2];
  const std::string in_pieces = test::written(steps, {}, Hashes::kUnknown);
  const std::string compressed = test::written(steps, {.compress = true}, Hashes::kUnknown);
  for (const auto& [bytes, is_mapped] :
       {std::pair{in_pieces, true}, {compressed, true}, {in_pieces, false}}) {
    const auto file = test::open_file(bytes, is_mapped).value();
    const auto leaf = file.leaf(2, "state", kernel.info.encoded_path).value();
    const auto view = file.view(leaf, PortableFile::Check::kHashes);
    ASSERT_FALSE(view.has_value());
    EXPECT_EQ(view.error().code, ErrorCode::kUnsupported);
    EXPECT_TRUE(read_leaf(file, leaf) == kernel.bytes);
  }
}

TEST(PortableFile, ReadsAnyPartOfALeaf) {
  const std::vector<SampleStep> steps = test::sample_shared_steps();
  const SampleLeaf& kernel = steps[1].items[1].leaves[2];
  for (const bool compress : {false, true}) {
    const std::string bytes = test::written(steps, {.compress = compress}, Hashes::kUnknown);
    const auto file = test::open_file(bytes, !compress).value();
    const auto leaf = file.leaf(2, "state", kernel.info.encoded_path).value();
    ChunkDecoder decoder;
    for (const auto& [first, size] : {std::pair<std::size_t, std::size_t>{0, 1},
                                      {4095, 2},
                                      {4096, 4096},
                                      {1, 11998},
                                      {11999, 1},
                                      {12000, 0}}) {
      std::string part(size, '?');
      const auto result = file.read(leaf, first, std::as_writable_bytes(std::span(part)), decoder);
      ASSERT_TRUE(result.has_value()) << result.error().message;
      EXPECT_TRUE(part == kernel.bytes.substr(first, size)) << first;
    }
    std::string part(2, '?');
    const auto beyond = file.read(leaf, 11999, std::as_writable_bytes(std::span(part)), decoder);
    ASSERT_FALSE(beyond.has_value());
    EXPECT_EQ(beyond.error().code, ErrorCode::kInvalidArgument);
  }
}

TEST(PortableFile, WhatIsNotThereIsNotFound) {
  const std::string bytes = test::written(test::sample_portable_steps(), {}, Hashes::kUnknown);
  const auto file = test::open_file(bytes, true).value();
  const std::string w = encode_path({PathComponent::key("w")}).value();
  const std::string x = encode_path({PathComponent::key("x")}).value();
  const std::pair<Error, std::string> cases[] = {
      {file.step(999).error(), "step 999"},
      {file.step(1001).error(), "step 1001"},
      {file.item(1000, "stat").error(), "step 1000, item 'stat'"},
      {file.leaf(1000, "state", x).error(), "step 1000, item 'state', leaf 'x'"},
      {file.leaf(999, "state", w).error(), "step 999, item 'state', leaf 'w'"}};
  for (const auto& [error, name] : cases) {
    EXPECT_EQ(error.code, ErrorCode::kNotFound);
    EXPECT_TRUE(error.message.starts_with(name)) << error.message;
  }
}

// Many small leaves, so that the index has more than one level.
std::vector<SampleStep> wide_steps(std::size_t leaf_count) {
  std::vector<SampleStep> steps = test::sample_portable_steps();
  SampleItem& item = steps[0].items[0];
  const SampleLeaf leaf = item.leaves[1];
  item.leaves.assign(leaf_count, leaf);
  item.info.structure = {.kinds = std::vector(leaf_count + 1, NodeKind::kLeaf),
                         .child_counts = {static_cast<std::uint32_t>(leaf_count)}};
  item.info.structure.kinds[0] = NodeKind::kList;
  for (std::size_t i = 0; i < leaf_count; ++i) {
    item.leaves[i].info.encoded_path =
        encode_path({PathComponent::index(static_cast<std::uint32_t>(i))}).value();
    item.leaves[i].bytes[0] = static_cast<char>(i);
  }
  return steps;
}

TEST(PortableFile, FindsOneOfManyLeavesWithFewReads) {
  const std::string bytes = test::written(wide_steps(17000), {}, Hashes::kUnknown);
  std::uint64_t read_bytes = 0;
  const auto counting = [&](std::uint64_t offset, std::span<std::byte> to) -> Result<void> {
    read_bytes += to.size();
    const auto from = test::as_bytes(bytes).subspan(offset, to.size());
    std::copy(from.begin(), from.end(), to.begin());
    return {};
  };
  const auto file = PortableFile::open(bytes.size(), counting).value();
  EXPECT_EQ(read_bytes, 64U + 192U) << "opening reads header and footer";
  read_bytes = 0;
  const auto leaf = file.leaf(1000, "state", encode_path({PathComponent::index(12345)}).value());
  ASSERT_TRUE(leaf.has_value()) << leaf.error().message;
  EXPECT_EQ(read_leaf(file, *leaf)[0], static_cast<char>(12345));
  EXPECT_LT(read_bytes, 64000U);
  EXPECT_TRUE(file.verify().has_value());
}

TEST(PortableWriter, AsksForLittleMemoryForEachLeaf) {
  const auto allocated_for = [](std::size_t leaf_count) {
    class NullSink final : public PortableSink {
     public:
      Result<void> append(std::span<const std::byte> /*bytes*/) override { return {}; }
    };
    const std::vector<SampleStep> steps = wide_steps(leaf_count);
    NullSink sink;
    const std::uint64_t before = test::allocated_bytes();
    EXPECT_TRUE(
        test::write_to(sink, steps, {.sharing_memory_bytes_max = 0}, Hashes::kUnknown).has_value());
    return test::allocated_bytes() - before;
  };
  // What is asked for in all, given back or not: less than a few kilobytes for each leaf.
  EXPECT_LT(allocated_for(5000), 5000U * 8192 + (std::size_t{16} << 20));
}

TEST(PortableWriter, WrongOrderIsRefusedAndNothingIsLost) {
  const std::vector<SampleStep> steps = test::sample_portable_steps();
  const SampleStep& step = steps[0];
  const SampleItem& item = step.items[0];
  test::MemorySink sink;
  auto writer = PortableWriter::create(sink, {}).value();
  std::vector<Result<void>> refused;
  const auto add = [&](const SampleLeaf& leaf) {
    return writer.add_leaf(leaf.info, test::as_bytes(leaf.bytes));
  };
  const auto finish = [&]() -> Result<void> {
    STEPSTONE_TRY(writer.finish());
    return {};
  };
  refused.push_back(finish());
  refused.push_back(writer.begin_item(item.info));
  refused.push_back(writer.end_step());
  refused.push_back(add(item.leaves[0]));
  refused.push_back(writer.begin_step({.step = limits::kStepMax + 1}));
  ASSERT_TRUE(writer.begin_step(step.info).has_value());
  refused.push_back(writer.begin_step(step.info));
  refused.push_back(writer.end_step());
  PortableItemInfo broken = item.info;
  broken.structure.child_counts.clear();
  refused.push_back(writer.begin_item(broken));
  ASSERT_TRUE(writer.begin_item(item.info).has_value());
  refused.push_back(writer.begin_item(item.info));
  SampleLeaf wrong = item.leaves[1];
  wrong.info.chunk_size_bytes = 4100;
  refused.push_back(add(wrong));
  wrong = item.leaves[1];
  wrong.info.shape = {4};
  refused.push_back(add(wrong));
  wrong = item.leaves[1];
  wrong.info.encoded_path = "w";
  refused.push_back(add(wrong));
  wrong = item.leaves[1];
  wrong.info.dtype.reset();
  refused.push_back(add(wrong));
  wrong = item.leaves[1];
  wrong.bytes += "x";
  refused.push_back(add(wrong));
  ASSERT_TRUE(add(item.leaves[0]).has_value());
  refused.push_back(add(item.leaves[0]));
  refused.push_back(writer.end_step());
  ASSERT_TRUE(add(item.leaves[1]).has_value());
  ASSERT_TRUE(writer.end_step().has_value());
  refused.push_back(writer.begin_step(step.info));
  for (std::size_t i = 0; i < refused.size(); ++i) {
    ASSERT_FALSE(refused[i].has_value()) << i;
    EXPECT_EQ(refused[i].error().code, ErrorCode::kInvalidArgument)
        << i << ": " << refused[i].error().message;
  }
  const std::uint64_t size_bytes = writer.finish().value();
  EXPECT_EQ(size_bytes, sink.bytes().size());
  EXPECT_EQ(sink.bytes(), test::written(steps, {}, Hashes::kUnknown));
  const auto closed = writer.begin_step({.step = 2000});
  ASSERT_FALSE(closed.has_value());
  EXPECT_EQ(closed.error().code, ErrorCode::kClosed);
}

TEST(PortableWriter, LeavesThatTheStructureLacksAreRefused) {
  const std::vector<SampleStep> steps = test::sample_portable_steps();
  const SampleItem& item = steps[0].items[0];
  test::MemorySink sink;
  auto writer = PortableWriter::create(sink, {}).value();
  ASSERT_TRUE(writer.begin_step(steps[0].info).has_value());
  ASSERT_TRUE(writer.begin_item(item.info).has_value());
  SampleLeaf other = item.leaves[1];
  other.info.encoded_path = encode_path({PathComponent::key("x")}).value();
  ASSERT_TRUE(
      writer.add_leaf(item.leaves[0].info, test::as_bytes(item.leaves[0].bytes)).has_value());
  ASSERT_TRUE(writer.add_leaf(other.info, test::as_bytes(other.bytes)).has_value());
  const auto ended = writer.end_step();
  ASSERT_FALSE(ended.has_value());
  EXPECT_EQ(ended.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(ended.error().message.find("step 1000, item 'state'"), std::string::npos);
}

TEST(PortableWriter, AFullDiskIsReportedAndEndsTheWriting) {
  const std::vector<SampleStep> steps = wide_steps(3000);
  const std::size_t whole = test::written(steps, {}, Hashes::kUnknown).size();
  for (const std::size_t room : {std::size_t{0}, std::size_t{100}, whole / 2, whole - 1}) {
    test::MemorySink sink;
    sink.size_bytes_max = room;
    const auto result = test::write_to(sink, steps, {}, Hashes::kUnknown);
    ASSERT_FALSE(result.has_value()) << room;
    EXPECT_NE(result.error().message.find("full"), std::string::npos);
    EXPECT_FALSE(test::open_file(sink.bytes(), true).has_value());
  }
}

TEST(PortableWriter, AWrongHashOfTheSourceIsCorrupt) {
  class WrongHash final : public PortableLeafBytes {
   public:
    std::span<const Hash128> hashes() const override { return {&hash_, 1}; }
    Result<std::span<const std::byte>> chunk(std::uint32_t /*chunk*/) override {
      return test::as_bytes("123456789abc");
    }

   private:
    Hash128 hash_{1, 2};
  };
  const std::vector<SampleStep> steps = test::sample_portable_steps();
  test::MemorySink sink;
  auto writer = PortableWriter::create(sink, {}).value();
  ASSERT_TRUE(writer.begin_step(steps[0].info).has_value());
  ASSERT_TRUE(writer.begin_item(steps[0].items[0].info).has_value());
  WrongHash source;
  const auto added = writer.add_leaf(steps[0].items[0].leaves[1].info, source);
  ASSERT_FALSE(added.has_value());
  EXPECT_EQ(added.error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(writer.end_step().error().code, ErrorCode::kClosed);
}

}  // namespace
}  // namespace stepstone
