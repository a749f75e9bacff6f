// Portable files that no writer of ours makes. Whatever a file holds, it is read or refused with an
// error, in memory that its size bounds; and no byte of a file can change without notice.
#include <flatbuffers/flatbuffers.h>
#include <gtest/gtest.h>

#include "format/keys.h"
#include "format/leaf_path.h"
#include "format/schema/portable_generated.h"
#include "portable_support.h"

namespace stepstone {
namespace {

using portable::Footer;
using portable::IndexPage;
using portable::Tree;
using test::Hashes;
using test::PortableParts;

// Decoding takes a small multiple of what is there, and a chunk or two.
constexpr std::uint64_t kMemoryPerByte = 64;
constexpr std::uint64_t kMemoryBytes = std::uint64_t{64} << 20;

// Opens, reads and verifies; the first error. Memory is measured over all of it.
Result<void> use(const std::string& bytes, bool is_mapped) {
  const PortableFile file = STEPSTONE_TRY(test::open_file(bytes, is_mapped));
  const Result<void> verified = file.verify();
  const Result<void> read = test::read_everything(file);
  // What verification lets pass can be read.
  if (verified && !read) ADD_FAILURE() << "not seen by verify: " << read.error().message;
  return verified;
}

Result<void> use_in_bounds(const std::string& bytes, bool is_mapped) {
  const std::uint64_t before = test::allocated_bytes();
  Result<void> result = use(bytes, is_mapped);
  EXPECT_LT(test::allocated_bytes() - before, kMemoryBytes + kMemoryPerByte * bytes.size());
  return result;
}

struct Attack {
  const char* name;
  std::function<void(PortableParts*)> change;
  ErrorCode expected = ErrorCode::kCorrupt;
};

void on_record(PortableParts* parts, int which, const std::function<void(std::string*)>& change) {
  parts->change_record = [=](int record, std::string* bytes) {
    if (record == which) test::reseal(bytes, change);
  };
}
void on_page(PortableParts* parts, Tree which, const std::function<void(IndexPage*)>& change) {
  parts->change_page = [=](Tree tree, IndexPage* page) {
    if (tree == which) change(page);
  };
}
void put_number(std::string* bytes, std::size_t at, std::uint64_t value, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) (*bytes)[at + i] = static_cast<char>(value >> (8 * i));
}
void reseal_header(PortableParts* parts, std::size_t at, char value) {
  test::reseal(&parts->header, [&](std::string* bytes) { (*bytes)[at] = value; });
}
void reseal_footer(PortableParts* parts, std::size_t at, std::uint64_t value, std::size_t size) {
  parts->change_footer_bytes = [=](std::string* footer) {
    const std::string magic = footer->substr(footer->size() - 8);
    footer->resize(footer->size() - 8);
    test::reseal(footer, [&](std::string* bytes) { put_number(bytes, at, value, size); });
    *footer += magic;
  };
}
void on_root(PortableParts* parts, Tree tree, const std::function<void(portable::Root*)>& change) {
  parts->change_footer = [=](Footer* footer) {
    change(&footer->roots[static_cast<std::size_t>(tree)]);
  };
}

// A page of any content under a hash that fits.
std::string raw_page(Tree tree, char level, const std::string& keys,
                     const std::vector<std::uint32_t>& key_ends,
                     const std::vector<schema::Place>& places) {
  flatbuffers::FlatBufferBuilder builder;
  const std::vector<std::uint8_t> key = {static_cast<std::uint8_t>(tree),
                                         static_cast<std::uint8_t>(level)};
  const std::vector<std::uint8_t> key_bytes(keys.begin(), keys.end());
  const auto header = schema::CreateHeaderDirect(builder, 1, 0, &key);
  builder.Finish(schema::CreateIndexPageDirect(builder, header, &key_bytes, &key_ends, &places),
                 schema::IndexPageIdentifier());
  return test::seal({reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize()});
}
void replace_page(PortableParts* parts, const std::string& bytes) {
  parts->change_page_bytes = [=](Tree tree, std::string* page) {
    if (tree == Tree::kLeaves) *page = bytes;
  };
}

constexpr std::uint64_t kHuge = ~std::uint64_t{0};
const schema::Place kSomewhere(schema::Hash(1, 2), 64, 64);

const std::vector<Attack>& attacks() {
  static const std::vector<Attack> kAttacks = {
      // Both ends.
      {"another magic", [](PortableParts* p) { reseal_header(p, 1, 's'); }},
      {"a prefix", [](PortableParts* p) { p->header.insert(0, "PK\x03\x04"); }},
      {"a header of a newer version", [](PortableParts* p) { reseal_header(p, 8, 2); },
       ErrorCode::kUnsupported},
      {"a header with an unknown feature", [](PortableParts* p) { reseal_header(p, 16, 1); },
       ErrorCode::kUnsupported},
      {"something in the header's zeros", [](PortableParts* p) { reseal_header(p, 30, 1); }},
      {"a header under a wrong hash", [](PortableParts* p) { p->header[60] ^= 1; }},
      {"a suffix", [](PortableParts* p) { p->tail = "PK\x05\x06"; }},
      {"a second footer", [](PortableParts* p) { p->tail = std::string(192, '\0'); }},
      {"a footer of a newer version", [](PortableParts* p) { reseal_footer(p, 152, 2, 4); },
       ErrorCode::kUnsupported},
      {"a footer with an unknown feature",
       [](PortableParts* p) { reseal_footer(p, 160, kHuge, 8); }, ErrorCode::kUnsupported},
      {"something in the footer's zeros", [](PortableParts* p) { reseal_footer(p, 156, 1, 4); }},
      {"something in a root's zeros", [](PortableParts* p) { reseal_footer(p, 44, 1, 4); }},
      {"another file's size",
       [](PortableParts* p) { p->change_footer = [](Footer* f) { f->file_size_bytes += 8; }; }},
      {"a file of 2^64 - 1 bytes",
       [](PortableParts* p) { p->change_footer = [](Footer* f) { f->file_size_bytes = kHuge; }; }},
      // Roots.
      {"a root beyond the end",
       [](PortableParts* p) {
         on_root(p, Tree::kLeaves, [](auto* r) { r->place.offset = std::uint64_t{1} << 40; });
       }},
      {"a root that wraps around",
       [](PortableParts* p) {
         on_root(p, Tree::kLeaves, [](auto* r) { r->place.size_bytes = kHuge - 8; });
       }},
      {"a root in the header",
       [](PortableParts* p) { on_root(p, Tree::kItems, [](auto* r) { r->place.offset = 0; }); }},
      {"a root of no size",
       [](PortableParts* p) {
         on_root(p, Tree::kItems, [](auto* r) { r->place.size_bytes = 0; });
       }},
      {"a root off by one",
       [](PortableParts* p) { on_root(p, Tree::kItems, [](auto* r) { r->place.offset += 1; }); }},
      {"a root off by eight",
       [](PortableParts* p) { on_root(p, Tree::kItems, [](auto* r) { r->place.offset -= 8; }); }},
      {"a root with another hash",
       [](PortableParts* p) { on_root(p, Tree::kItems, [](auto* r) { r->place.hash.low ^= 1; }); }},
      {"a root of another level",
       [](PortableParts* p) { on_root(p, Tree::kLeaves, [](auto* r) { r->level = 1; }); }},
      {"a root of level 2^32 - 1",
       [](PortableParts* p) { on_root(p, Tree::kLeaves, [](auto* r) { r->level = 0xFFFFFFFF; }); }},
      {"more entries than there are",
       [](PortableParts* p) { on_root(p, Tree::kLeaves, [](auto* r) { r->entry_count = 3; }); }},
      {"2^64 - 1 steps",
       [](PortableParts* p) { on_root(p, Tree::kSteps, [](auto* r) { r->entry_count = kHuge; }); }},
      {"a root without entries",
       [](PortableParts* p) { on_root(p, Tree::kLeaves, [](auto* r) { r->entry_count = 0; }); }},
      {"no leaves at all",
       [](PortableParts* p) { on_root(p, Tree::kLeaves, [](auto* r) { *r = {}; }); }},
      {"no items at all",
       [](PortableParts* p) { on_root(p, Tree::kItems, [](auto* r) { *r = {}; }); }},
      {"no steps at all",
       [](PortableParts* p) { on_root(p, Tree::kSteps, [](auto* r) { *r = {}; }); }},
      {"roots in each other's place",
       [](PortableParts* p) {
         p->change_footer = [](Footer* f) { std::swap(f->roots[1], f->roots[2]); };
       }},
      // Pages.
      {"keys in descending order",
       [](PortableParts* p) {
         on_page(p, Tree::kLeaves, [](IndexPage* page) {
           IndexPage other;
           other.add(page->key(1), page->places[1]);
           other.add(page->key(0), page->places[0]);
           *page = other;
         });
       }},
      {"one key twice",
       [](PortableParts* p) {
         on_page(p, Tree::kLeaves,
                 [](IndexPage* page) { page->add(std::string(page->key(1)), page->places[1]); });
       }},
      {"a page without entries",
       [](PortableParts* p) { on_page(p, Tree::kLeaves, [](IndexPage* page) { page->clear(); }); }},
      {"a leaf that is missing",
       [](PortableParts* p) {
         on_page(p, Tree::kLeaves, [](IndexPage* page) {
           IndexPage other;
           other.add(page->key(0), page->places[0]);
           *page = other;
         });
       }},
      {"a leaf beyond the page",
       [](PortableParts* p) {
         on_page(p, Tree::kLeaves, [](IndexPage* page) { page->places[1].offset += 4096; });
       }},
      {"a leaf of 2^64 - 1 bytes",
       [](PortableParts* p) {
         on_page(p, Tree::kLeaves, [](IndexPage* page) { page->places[1].size_bytes = kHuge; });
       }},
      {"a leaf of eight bytes",
       [](PortableParts* p) {
         on_page(p, Tree::kLeaves, [](IndexPage* page) { page->places[1].size_bytes = 8; });
       }},
      {"a leaf with another hash",
       [](PortableParts* p) {
         on_page(p, Tree::kLeaves, [](IndexPage* page) { page->places[1].hash.high ^= 1; });
       }},
      {"two leaves in one place",
       [](PortableParts* p) {
         on_page(p, Tree::kLeaves, [](IndexPage* page) { page->places[1] = page->places[0]; });
       }},
      {"leaves in each other's place",
       [](PortableParts* p) {
         on_page(p, Tree::kLeaves,
                 [](IndexPage* page) { std::swap(page->places[0], page->places[1]); });
       }},
      {"a page of another tree",
       [](PortableParts* p) {
         replace_page(p, raw_page(Tree::kSteps, 0, "a", {1}, {kSomewhere}));
       }},
      {"a page of another level",
       [](PortableParts* p) {
         replace_page(p, raw_page(Tree::kLeaves, 1, "a", {1}, {kSomewhere}));
       }},
      {"more keys than places",
       [](PortableParts* p) {
         replace_page(p, raw_page(Tree::kLeaves, 0, "ab", {1, 2}, {kSomewhere}));
       }},
      {"a key that ends beyond the keys",
       [](PortableParts* p) {
         replace_page(p, raw_page(Tree::kLeaves, 0, "a", {0xFFFFFFFF}, {kSomewhere}));
       }},
      {"a key that ends before it begins",
       [](PortableParts* p) {
         replace_page(p, raw_page(Tree::kLeaves, 0, "ab", {2, 1}, {kSomewhere, kSomewhere}));
       }},
      {"an empty key",
       [](PortableParts* p) {
         replace_page(p, raw_page(Tree::kLeaves, 0, "a", {0, 1}, {kSomewhere, kSomewhere}));
       }},
      {"bytes without a key",
       [](PortableParts* p) {
         replace_page(p, raw_page(Tree::kLeaves, 0, "ab", {1}, {kSomewhere}));
       }},
      {"a page of 2000 entries",
       [](PortableParts* p) {
         std::string keys;
         std::vector<std::uint32_t> key_ends;
         for (int i = 0; i < 2000; ++i) {
           keys += {static_cast<char>(i >> 8), static_cast<char>(i)};
           key_ends.push_back(static_cast<std::uint32_t>(keys.size()));
         }
         replace_page(p, raw_page(Tree::kLeaves, 0, keys, key_ends, std::vector(2000, kSomewhere)));
       }},
      {"a page that leads to itself",
       [](PortableParts* p) {
         p->change_footer = [](Footer* f) { f->roots[2].level = 1; };
         p->change_page_bytes = [](Tree tree, std::string* page) {
           if (tree != Tree::kLeaves) return;
           *page = raw_page(tree, 1, "a", {1},
                            {schema::Place(schema::Hash(0, 0), 1 << 16, page->size())});
         };
       }},
      // Leaves.
      {"a chunk beyond the record",
       [](PortableParts* p) { p->b.extents[0].offset_bytes = 1 << 20; }},
      {"a chunk at 2^64 - 8", [](PortableParts* p) { p->b.extents[0].offset_bytes = kHuge - 7; }},
      {"a chunk in the header", [](PortableParts* p) { p->b.extents[0].offset_bytes = 0; }},
      {"a chunk in its own record", [](PortableParts* p) { p->b.extents[0].offset_bytes = 300; }},
      {"overlapping chunks", [](PortableParts* p) { p->b.extents[0].offset_bytes = 96; }},
      {"a chunk in another file", [](PortableParts* p) { p->b.extents[0].segment = 1; }},
      {"a chunk without a place", [](PortableParts* p) { p->b.extents.clear(); }},
      {"a chunk with another hash", [](PortableParts* p) { p->b.hashes[0].low ^= 1; }},
      {"a chunk that is stored elsewhere",
       [](PortableParts* p) {
         p->b.origins = {{0, 1, {4, 1}, 0}};
       }},
      {"a chunk that differs from a base",
       [](PortableParts* p) {
         p->b.codecs = {Codec::kDelta};
         p->b.stored_sizes = {60};
         p->b.bases = {{.chunk = 0, .save = {4, 1}, .stored_size = 64}};
       }},
      {"a codec that it is not in",
       [](PortableParts* p) {
         p->b.codecs = {Codec::kPlanes};
         p->b.stored_sizes = {64};
       }},
      {"a chunk stored in no bytes",
       [](PortableParts* p) {
         p->b.codecs = {Codec::kConstant};
         p->b.stored_sizes = {0};
       }},
      {"an inline leaf with another hash",
       [](PortableParts* p) {
         p->b.extents.clear();
         p->b.inline_bytes.emplace(64, std::byte{'x'});
       }},
      {"a shape that its size does not follow from",
       [](PortableParts* p) {
         on_record(p, 1, [](std::string* bytes) {
           const std::size_t at = bytes->find(std::string("\x10\0\0\0\0\0\0\0", 8));
           if (at != std::string::npos) put_number(bytes, at, 1 << 30, 8);
         });
       }},
      {"a leaf of the largest size from nothing",
       [](PortableParts* p) {
         p->b.shape = {std::uint64_t{1} << 24};
         p->b.size_bytes = std::uint64_t{1} << 26;
         p->b.chunk_size_bytes = 1 << 24;
         p->b.hashes.assign(4, {1, 2});
         p->b.codecs.assign(4, Codec::kPlanes);
         p->b.stored_sizes.assign(4, 16);
       }},
      // Items and steps.
      {"an item with another handler", [](PortableParts* p) { p->item.handler = "json"; }},
      {"an item of another size", [](PortableParts* p) { p->item.size_bytes = 127; }},
      {"an item and step of another size",
       [](PortableParts* p) {
         p->item.size_bytes = p->step.size_bytes = p->step.items[0].size_bytes = 12;
       }},
      {"a step of another size", [](PortableParts* p) { p->step.size_bytes = 1; }},
      {"a step that counts other leaves",
       [](PortableParts* p) { p->step.items[0].leaf_count = 1; }},
      {"an item that is missing",
       [](PortableParts* p) {
         p->step.items.push_back({"zoo", "standard", 0, 0});
       }},
      {"an item of another name", [](PortableParts* p) { p->step.items[0].name = "stat"; }},
      {"a structure of other leaves", [](PortableParts* p) { p->item.structure.labels[1] = 'c'; }},
      {"another step's record", [](PortableParts* p) { p->step.save.step = 6; }},
      {"a step of a later generation", [](PortableParts* p) { p->step.save.generation = 1; }},
      {"a step with segments",
       [](PortableParts* p) {
         p->step.segments = {{100, 50, {1, 2}}};
       }},
      {"a step that refers to a save",
       [](PortableParts* p) {
         p->step.origin_saves = {{4, 1}};
       }},
      {"records in each other's place",
       [](PortableParts* p) {
         p->change_record = [](int which, std::string* bytes) {
           if (which == 2) *bytes = encode(StoreRecord{}, item_key({5, 0}, "state")).value();
         };
       }},
      // Bytes that nothing leads to.
      {"a hole between data and records",
       [](PortableParts* p) { p->data += std::string(8192, '\0'); }},
      {"a message between data and records", [](PortableParts* p) { p->data += "hello"; }},
      {"a message before the footer", [](PortableParts* p) { p->padding = "12345678"; }},
      {"a megabyte of zeros before the footer",
       [](PortableParts* p) { p->padding = std::string(1 << 20, '\0'); }},
  };
  return kAttacks;
}

TEST(HostilePortableFile, TheFileThatTheAttacksStartFromIsWhole) {
  for (const bool is_mapped : {true, false}) {
    const auto result = use_in_bounds(PortableParts().build(), is_mapped);
    EXPECT_TRUE(result.has_value()) << result.error().message;
  }
}

TEST(HostilePortableFile, EachAttackIsRefused) {
  EXPECT_GE(attacks().size(), 60U);
  for (const Attack& attack : attacks()) {
    SCOPED_TRACE(attack.name);
    PortableParts parts;
    attack.change(&parts);
    const std::string bytes = parts.build();
    for (const bool is_mapped : {true, false}) {
      const auto result = use_in_bounds(bytes, is_mapped);
      ASSERT_FALSE(result.has_value());
      EXPECT_EQ(result.error().code, attack.expected) << result.error().message;
    }
  }
}

TEST(HostilePortableFile, AHugeArrayOfZerosIsReadInLittleMemory) {
  // Truthful, and eight thousand times larger than its file: who reads it decides about memory.
  const std::string pattern(8, '\0');
  PortableParts parts;
  parts.data = std::string(128, 'd') + pattern;
  const std::size_t chunk_size = std::size_t{1} << 24;
  const std::string zeros(chunk_size, '\0');
  parts.b.shape = {std::uint64_t{1} << 22};
  parts.b.size_bytes = chunk_size;
  parts.b.chunk_size_bytes = static_cast<std::uint32_t>(chunk_size);
  parts.b.hashes = {hash128(test::as_bytes(zeros))};
  parts.b.codecs = {Codec::kConstant};
  parts.b.stored_sizes = {8};
  parts.b.extents = {{0, 0, 192}};
  const std::string bytes = parts.build();
  const std::uint64_t before = test::allocated_bytes();
  const auto file = test::open_file(bytes, true).value();
  const auto leaf = file.leaf(5, "state", encode_path({PathComponent::key("b")}).value()).value();
  EXPECT_EQ(leaf.record().size_bytes, chunk_size);
  EXPECT_LT(test::allocated_bytes() - before, std::uint64_t{1} << 20);
}

TEST(HostilePortableFile, NoBitOfAFileChangesWithoutNotice) {
  const std::string whole = test::written(test::sample_portable_steps(), {}, Hashes::kUnknown);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << (at * 5 % 8)));
    ASSERT_FALSE(use(bytes, at % 2 == 0).has_value()) << "byte " << at;
  }
}

TEST(HostilePortableFile, NoFileThatIsCutOffIsRead) {
  const std::string whole = test::written(test::sample_portable_steps(), {}, Hashes::kUnknown);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    ASSERT_FALSE(test::open_file(whole.substr(0, size), size % 2 == 0).has_value()) << size;
  }
}

TEST(HostilePortableFile, RandomChangesAreNoticed) {
  const std::string files[] = {
      test::written(test::sample_shared_steps(), {}, Hashes::kKnown),
      test::written(test::sample_shared_steps(), {.compress = true}, Hashes::kUnknown)};
  for (const std::uint64_t seed : test::seeds(600)) {
    SCOPED_TRACE(test::trace(seed));
    test::Random random(seed);
    const std::string& whole = files[seed % 2];
    const std::string bytes = random.mutated(whole);
    if (bytes == whole) continue;
    EXPECT_FALSE(use_in_bounds(bytes, random.one_in(2)).has_value());
    if (HasFailure()) return;
  }
}

// The hashes are no obstacle to a stranger: behind them everything is checked as well.
TEST(HostilePortableFile, RandomRecordsUnderHashesThatFitDoNoHarm) {
  int refused = 0;
  for (const std::uint64_t seed : test::seeds(3000)) {
    SCOPED_TRACE(test::trace(seed));
    test::Random random(seed);
    PortableParts parts;
    const auto damage = [&](std::string* bytes) { *bytes = random.mutated(*bytes); };
    const auto which = static_cast<int>(random.below(7));
    parts.change_record = [&](int record, std::string* bytes) {
      if (record == which) test::reseal(bytes, damage);
    };
    parts.change_page_bytes = [&](Tree tree, std::string* bytes) {
      if (static_cast<int>(tree) + 4 == which) test::reseal(bytes, damage);
    };
    refused += use_in_bounds(parts.build(), random.one_in(2)).has_value() ? 0 : 1;
    if (HasFailure()) return;
  }
  // Some changes mean nothing, such as those of padding inside a flatbuffer.
  if (!test::tries_one_seed()) {
    EXPECT_GT(refused, 2000);
  }
}

}  // namespace
}  // namespace stepstone
