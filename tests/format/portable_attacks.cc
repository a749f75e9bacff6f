#include "portable_attacks.h"

#include <flatbuffers/flatbuffers.h>

#include "format/assert.h"
#include "format/keys.h"
#include "format/leaf_path.h"
#include "format/schema/item_generated.h"
#include "format/schema/leaf_generated.h"
#include "format/schema/portable_generated.h"

namespace stepstone::test {
namespace {

using portable::Footer;
using portable::IndexPage;
using portable::Tree;
using Leaf = schema::LeafRecord;
using Structure = schema::TreeStructure;

void on_record(PortableParts* parts, int which, const std::function<void(std::string*)>& change) {
  parts->change_record = [=](int record, std::string* bytes) {
    if (record == which) reseal(bytes, change);
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
// Where a field of a record's table stands: of a scalar its value, of all else what leads to it.
std::size_t field_at(const std::string& bytes, const flatbuffers::Table* table,
                     flatbuffers::voffset_t field) {
  const std::uint8_t* const address = table->GetAddressOf(field);
  STEPSTONE_ASSERT(address != nullptr);
  return static_cast<std::size_t>(reinterpret_cast<const char*>(address) - bytes.data());
}
const flatbuffers::Table* table_of(const std::string& bytes) {
  return flatbuffers::GetRoot<flatbuffers::Table>(bytes.data());
}
const flatbuffers::Table* structure_of(const std::string& bytes) {
  return table_of(bytes)->GetPointer<const flatbuffers::Table*>(schema::ItemRecord::VT_STRUCTURE);
}
// Where the elements of a vector begin; its length stands in the four bytes before.
std::size_t elements_at(const std::string& bytes, const flatbuffers::Table* table,
                        flatbuffers::voffset_t field) {
  const std::size_t at = field_at(bytes, table, field);
  return at + flatbuffers::ReadScalar<flatbuffers::uoffset_t>(bytes.data() + at) + 4;
}
// Puts `value` over a scalar of leaf b's record.
void on_leaf(PortableParts* parts, flatbuffers::voffset_t field, std::uint64_t value,
             std::size_t size) {
  on_record(parts, 1, [=](std::string* bytes) {
    put_number(bytes, field_at(*bytes, table_of(*bytes), field), value, size);
  });
}
// Puts `value` over what stands `from_begin` bytes from the begin of a vector's elements.
void on_leaf_vector(PortableParts* parts, flatbuffers::voffset_t field, std::ptrdiff_t from_begin,
                    std::uint64_t value, std::size_t size) {
  on_record(parts, 1, [=](std::string* bytes) {
    const auto begin = static_cast<std::ptrdiff_t>(elements_at(*bytes, table_of(*bytes), field));
    put_number(bytes, static_cast<std::size_t>(begin + from_begin), value, size);
  });
}
void on_structure_vector(PortableParts* parts, flatbuffers::voffset_t field,
                         std::ptrdiff_t from_begin, std::uint64_t value, std::size_t size) {
  on_record(parts, 2, [=](std::string* bytes) {
    const auto begin =
        static_cast<std::ptrdiff_t>(elements_at(*bytes, structure_of(*bytes), field));
    put_number(bytes, static_cast<std::size_t>(begin + from_begin), value, size);
  });
}
void reseal_header(PortableParts* parts, std::size_t at, char value) {
  reseal(&parts->header, [&](std::string* bytes) { (*bytes)[at] = value; });
}
void reseal_footer(PortableParts* parts, std::size_t at, std::uint64_t value, std::size_t size) {
  parts->change_footer_bytes = [=](std::string* footer) {
    const std::string magic = footer->substr(footer->size() - 8);
    footer->resize(footer->size() - 8);
    reseal(footer, [&](std::string* bytes) { put_number(bytes, at, value, size); });
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
  return seal({reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize()});
}
void replace_page(PortableParts* parts, const std::string& bytes) {
  parts->change_page_bytes = [=](Tree tree, std::string* page) {
    if (tree == Tree::kLeaves) *page = bytes;
  };
}

constexpr std::uint64_t kExa = std::uint64_t{1} << 60;
constexpr std::uint64_t kHuge = ~std::uint64_t{0};
const schema::Place kSomewhere(schema::Hash(1, 2), 64, 64);

}  // namespace

const std::vector<Attack>& attacks() {
  static const std::vector<Attack> kAttacks = {
      // Both ends.
      {"another magic", "this is no portable file",
       [](PortableParts* p) { reseal_header(p, 1, 's'); }},
      {"a prefix", "this is no portable file",
       [](PortableParts* p) { p->header.insert(0, "PK\x03\x04"); }},
      {"a header of a newer version",
       "portable file in format version 2; this build reads version 1",
       [](PortableParts* p) { reseal_header(p, 8, 2); }, ErrorCode::kUnsupported},
      {"a header with an unknown feature",
       "portable file needs a feature that this build does not have",
       [](PortableParts* p) { reseal_header(p, 16, 1); }, ErrorCode::kUnsupported},
      {"something in the header's zeros", "bytes of its header are not zero",
       [](PortableParts* p) { reseal_header(p, 30, 1); }},
      {"a header under a wrong hash", "damaged header",
       [](PortableParts* p) { p->header[60] ^= 1; }},
      {"a suffix", "its end is missing; it was cut off, or never finished",
       [](PortableParts* p) { p->tail = "PK\x05\x06"; }},
      {"a second footer", "its end is missing; it was cut off, or never finished",
       [](PortableParts* p) { p->tail = std::string(192, '\0'); }},
      {"a footer of a newer version",
       "portable file in format version 2; this build reads version 1",
       [](PortableParts* p) { reseal_footer(p, 152, 2, 4); }, ErrorCode::kUnsupported},
      {"a footer with an unknown feature",
       "portable file needs a feature that this build does not have",
       [](PortableParts* p) { reseal_footer(p, 160, kHuge, 8); }, ErrorCode::kUnsupported},
      {"something in the footer's zeros", "bytes of its footer are not zero",
       [](PortableParts* p) { reseal_footer(p, 156, 1, 4); }},
      {"something in a root's zeros", "bytes of its footer are not zero",
       [](PortableParts* p) { reseal_footer(p, 44, 1, 4); }},
      {"another file's size", "portable file of 1776 bytes, but it was written with 1784",
       [](PortableParts* p) { p->change_footer = [](Footer* f) { f->file_size_bytes += 8; }; }},
      {"a file of 2^64 - 1 bytes",
       "portable file of 1776 bytes, but it was written with 18446744073709551615",
       [](PortableParts* p) { p->change_footer = [](Footer* f) { f->file_size_bytes = kHuge; }; }},
      // Roots.
      {"a root beyond the end", "its footer names an impossible index",
       [](PortableParts* p) {
         on_root(p, Tree::kLeaves, [](auto* r) { r->place.offset = std::uint64_t{1} << 40; });
       }},
      {"a root that wraps around", "its footer names an impossible index",
       [](PortableParts* p) {
         on_root(p, Tree::kLeaves, [](auto* r) { r->place.size_bytes = kHuge - 8; });
       }},
      {"a root in the header", "its footer names an impossible index",
       [](PortableParts* p) { on_root(p, Tree::kItems, [](auto* r) { r->place.offset = 0; }); }},
      {"a root of no size", "its footer names an impossible index",
       [](PortableParts* p) {
         on_root(p, Tree::kItems, [](auto* r) { r->place.size_bytes = 0; });
       }},
      {"a root off by one", "its footer names an impossible index",
       [](PortableParts* p) { on_root(p, Tree::kItems, [](auto* r) { r->place.offset += 1; }); }},
      {"a root off by eight", "a record does not match its hash",
       [](PortableParts* p) { on_root(p, Tree::kItems, [](auto* r) { r->place.offset -= 8; }); }},
      {"a root with another hash", "a record does not match its hash",
       [](PortableParts* p) { on_root(p, Tree::kItems, [](auto* r) { r->place.hash.low ^= 1; }); }},
      {"a root of another level", "record belongs to another key",
       [](PortableParts* p) { on_root(p, Tree::kLeaves, [](auto* r) { r->level = 1; }); }},
      {"a root of level 2^32 - 1", "its footer names an impossible index",
       [](PortableParts* p) { on_root(p, Tree::kLeaves, [](auto* r) { r->level = 0xFFFFFFFF; }); }},
      {"more entries than there are", "its footer counts other entries than its index has",
       [](PortableParts* p) { on_root(p, Tree::kLeaves, [](auto* r) { r->entry_count = 3; }); }},
      {"2^64 - 1 steps", "its footer names an impossible index",
       [](PortableParts* p) { on_root(p, Tree::kSteps, [](auto* r) { r->entry_count = kHuge; }); }},
      {"a root without entries", "its footer describes a tree without entries",
       [](PortableParts* p) { on_root(p, Tree::kLeaves, [](auto* r) { r->entry_count = 0; }); }},
      {"no leaves at all", "is not in the portable file",
       [](PortableParts* p) { on_root(p, Tree::kLeaves, [](auto* r) { *r = {}; }); }},
      {"no items at all", "step 5, item 'state' is not in the portable file",
       [](PortableParts* p) { on_root(p, Tree::kItems, [](auto* r) { *r = {}; }); }},
      {"no steps at all", "portable file without a step",
       [](PortableParts* p) { on_root(p, Tree::kSteps, [](auto* r) { *r = {}; }); }},
      {"roots in each other's place", "record belongs to another key",
       [](PortableParts* p) {
         p->change_footer = [](Footer* f) { std::swap(f->roots[1], f->roots[2]); };
       }},
      // Pages.
      {"keys in descending order", "index page: keys out of order",
       [](PortableParts* p) {
         on_page(p, Tree::kLeaves, [](IndexPage* page) {
           IndexPage other;
           other.add(page->key(1), page->places[1]);
           other.add(page->key(0), page->places[0]);
           *page = other;
         });
       }},
      {"one key twice", "index page: keys out of order",
       [](PortableParts* p) {
         on_page(p, Tree::kLeaves,
                 [](IndexPage* page) { page->add(std::string(page->key(1)), page->places[1]); });
       }},
      {"a page without entries", "index page: impossible number of entries",
       [](PortableParts* p) { on_page(p, Tree::kLeaves, [](IndexPage* page) { page->clear(); }); }},
      {"a leaf that is missing", "leaf 'b' is not in the portable file",
       [](PortableParts* p) {
         on_page(p, Tree::kLeaves, [](IndexPage* page) {
           IndexPage other;
           other.add(page->key(0), page->places[0]);
           *page = other;
         });
         on_root(p, Tree::kLeaves, [](auto* r) { r->entry_count = 1; });
       }},
      {"a leaf beyond the page", "index page: it leads to an impossible place",
       [](PortableParts* p) {
         on_page(p, Tree::kLeaves, [](IndexPage* page) { page->places[1].offset += 4096; });
       }},
      {"a leaf of 2^64 - 1 bytes", "index page: it leads to an impossible place",
       [](PortableParts* p) {
         on_page(p, Tree::kLeaves, [](IndexPage* page) { page->places[1].size_bytes = kHuge; });
       }},
      {"a leaf of eight bytes", "a record of an impossible size",
       [](PortableParts* p) {
         on_page(p, Tree::kLeaves, [](IndexPage* page) { page->places[1].size_bytes = 8; });
       }},
      {"a leaf with another hash", "a record does not match its hash",
       [](PortableParts* p) {
         on_page(p, Tree::kLeaves, [](IndexPage* page) { page->places[1].hash.high ^= 1; });
       }},
      {"two leaves in one place", "record belongs to another key",
       [](PortableParts* p) {
         on_page(p, Tree::kLeaves, [](IndexPage* page) { page->places[1] = page->places[0]; });
       }},
      {"leaves in each other's place", "record belongs to another key",
       [](PortableParts* p) {
         on_page(p, Tree::kLeaves,
                 [](IndexPage* page) { std::swap(page->places[0], page->places[1]); });
       }},
      {"a page of another tree", "record belongs to another key",
       [](PortableParts* p) {
         replace_page(p, raw_page(Tree::kSteps, 0, "a", {1}, {kSomewhere}));
       }},
      {"a page of another level", "record belongs to another key",
       [](PortableParts* p) {
         replace_page(p, raw_page(Tree::kLeaves, 1, "a", {1}, {kSomewhere}));
       }},
      {"more keys than places", "index page: impossible number of entries",
       [](PortableParts* p) {
         replace_page(p, raw_page(Tree::kLeaves, 0, "ab", {1, 2}, {kSomewhere}));
       }},
      {"a key that ends beyond the keys", "index page: impossible keys",
       [](PortableParts* p) {
         replace_page(p, raw_page(Tree::kLeaves, 0, "a", {0xFFFFFFFF}, {kSomewhere}));
       }},
      {"a key that ends before it begins", "index page: impossible keys",
       [](PortableParts* p) {
         replace_page(p, raw_page(Tree::kLeaves, 0, "ab", {2, 1}, {kSomewhere, kSomewhere}));
       }},
      {"an empty key", "index page: impossible keys",
       [](PortableParts* p) {
         replace_page(p, raw_page(Tree::kLeaves, 0, "a", {0, 1}, {kSomewhere, kSomewhere}));
       }},
      {"bytes without a key", "index page: bytes without a key",
       [](PortableParts* p) {
         replace_page(p, raw_page(Tree::kLeaves, 0, "ab", {1}, {kSomewhere}));
       }},
      {"a page of 2000 entries", "index page: impossible number of entries",
       [](PortableParts* p) {
         std::string keys;
         std::vector<std::uint32_t> key_ends;
         for (int i = 0; i < 2000; ++i) {
           keys += {static_cast<char>(i >> 8), static_cast<char>(i)};
           key_ends.push_back(static_cast<std::uint32_t>(keys.size()));
         }
         replace_page(p, raw_page(Tree::kLeaves, 0, keys, key_ends, std::vector(2000, kSomewhere)));
       }},
      {"a page that leads to itself", "index page: it leads to an impossible place",
       [](PortableParts* p) {
         p->change_footer = [](Footer* f) { f->roots[2].level = 1; };
         p->change_page_bytes = [](Tree tree, std::string* page) {
           if (tree != Tree::kLeaves) return;
           *page = raw_page(tree, 1, "a", {1},
                            {schema::Place(schema::Hash(0, 0), 1 << 16, page->size())});
         };
       }},
      // Leaves.
      {"a chunk beyond the record", "a chunk in an impossible place",
       [](PortableParts* p) { p->b.extents[0].offset_bytes = 1 << 20; }},
      {"a chunk at 2^64 - 8", "a chunk in an impossible place",
       [](PortableParts* p) { p->b.extents[0].offset_bytes = kHuge - 7; }},
      {"a chunk in the header", "a chunk in an impossible place",
       [](PortableParts* p) { p->b.extents[0].offset_bytes = 0; }},
      {"a chunk in its own record", "chunk 0 does not match its hash",
       [](PortableParts* p) { p->b.extents[0].offset_bytes = 300; }},
      {"overlapping chunks", "things overlap at byte 96",
       [](PortableParts* p) { p->b.extents[0].offset_bytes = 96; }},
      {"a chunk in another file", "an extent in another file",
       [](PortableParts* p) { p->b.extents[0].segment = 1; }},
      {"a chunk without a place", "chunks without a place",
       [](PortableParts* p) { p->b.extents.clear(); }},
      {"a chunk with another hash", "chunk 0 does not match its hash",
       [](PortableParts* p) { p->b.hashes[0].low ^= 1; }},
      {"a chunk that is stored elsewhere", "a leaf that refers to a store",
       [](PortableParts* p) {
         p->b.origins = {{0, 1, {4, 1}, 0}};
       }},
      {"a chunk that differs from a base", "a leaf that refers to a store",
       [](PortableParts* p) {
         p->b.codecs = {Codec::kDelta};
         p->b.stored_sizes = {60};
         p->b.bases = {{.chunk = 0, .save = {4, 1}, .stored_size = 64}};
       }},
      {"padding between its chunks", "a leaf with padding between its chunks",
       [](PortableParts* p) { p->b.alignment_bytes = 64; }},
      {"a codec that it is not in", "encoded chunk: impossible element size",
       [](PortableParts* p) {
         p->b.codecs = {Codec::kPlanes};
         p->b.stored_sizes = {64};
       }},
      {"a chunk stored in no bytes", "a chunk in an impossible place",
       [](PortableParts* p) {
         p->b.codecs = {Codec::kConstant};
         p->b.stored_sizes = {0};
       }},
      {"an inline leaf with another hash", "does not match its hash",
       [](PortableParts* p) {
         p->b.extents.clear();
         p->b.inline_bytes.emplace(64, std::byte{'x'});
       }},
      {"a shape that its size does not follow from",
       "leaf record: the size does not follow from dtype and shape",
       [](PortableParts* p) {
         on_record(p, 1, [](std::string* bytes) {
           const std::size_t at = bytes->find(std::string("\x10\0\0\0\0\0\0\0", 8));
           if (at != std::string::npos) put_number(bytes, at, 1 << 30, 8);
         });
       }},
      {"a leaf of the largest size from nothing", "encoded chunk: impossible element size",
       [](PortableParts* p) {
         p->b.shape = {std::uint64_t{1} << 24};
         p->b.size_bytes = std::uint64_t{1} << 26;
         p->b.chunk_size_bytes = 1 << 24;
         p->b.hashes.assign(4, {1, 2});
         p->b.codecs.assign(4, Codec::kPlanes);
         p->b.stored_sizes.assign(4, 16);
         p->item.size_bytes = p->step.size_bytes = p->step.items[0].size_bytes =
             64 + p->b.size_bytes;
       }},
      // Items and steps.
      {"an item with another handler", "step 5, item 'state' is not what its step says",
       [](PortableParts* p) { p->item.handler = "json"; }},
      {"an item of another size", "step 5, item 'state' is not what its step says",
       [](PortableParts* p) { p->item.size_bytes = 127; }},
      {"an item and step of another size", "step 5, item 'state' has another size than its leaves",
       [](PortableParts* p) {
         p->item.size_bytes = p->step.size_bytes = p->step.items[0].size_bytes = 12;
       }},
      {"a step of another size", "step 5 has another size than its items",
       [](PortableParts* p) { p->step.size_bytes = 1; }},
      {"a step that counts other leaves", "step 5, item 'state' is not what its step says",
       [](PortableParts* p) { p->step.items[0].leaf_count = 1; }},
      {"an item that is missing", "step 5, item 'zoo' is not in the portable file",
       [](PortableParts* p) {
         p->step.items.push_back({"zoo", "standard", 0, 0});
       }},
      {"an item of another name", "step 5, item 'stat' is not in the portable file",
       [](PortableParts* p) { p->step.items[0].name = "stat"; }},
      {"a structure of other leaves", "step 5, item 'state', leaf 'c' is not in the portable file",
       [](PortableParts* p) { p->item.structure.labels[1] = 'c'; }},
      {"another step's record", "record belongs to another key",
       [](PortableParts* p) { p->step.save.step = 6; }},
      {"a step of a later generation", "a step that refers to a store",
       [](PortableParts* p) { p->step.save.generation = 1; }},
      {"a step with segments", "a step that refers to a store",
       [](PortableParts* p) {
         p->step.segments = {{100, 50, {1, 2}}};
       }},
      {"a step that refers to a save", "a step that refers to a store",
       [](PortableParts* p) {
         p->step.origin_saves = {{4, 1}};
       }},
      {"records in each other's place", "record is of another kind",
       [](PortableParts* p) {
         p->change_record = [](int which, std::string* bytes) {
           if (which == 2) *bytes = encode(StoreRecord{}, item_key({5, 0}, "state")).value();
         };
       }},
      // Numbers in records that no encoder writes.
      {"an unknown kind of leaf", "leaf record: unknown kind of leaf",
       [](PortableParts* p) { on_leaf(p, Leaf::VT_KIND, 99, 1); }, ErrorCode::kUnsupported},
      {"an unknown dtype", "leaf record: unknown dtype",
       [](PortableParts* p) { on_leaf(p, Leaf::VT_DTYPE, 99, 1); }, ErrorCode::kUnsupported},
      {"a string with a dtype", "leaf record: dtype and kind do not go together",
       [](PortableParts* p) { on_leaf(p, Leaf::VT_KIND, 8, 1); }},
      {"an array of another dtype", "leaf record: the size does not follow from dtype and shape",
       [](PortableParts* p) { on_leaf(p, Leaf::VT_DTYPE, 17, 1); }},
      {"a leaf of 2^60 bytes", "leaf of 1152921504606846976 bytes is over the limit of 1 TiB",
       [](PortableParts* p) { on_leaf(p, Leaf::VT_SIZE_BYTES, kExa, 8); }},
      {"2^60 elements",
       "an array of shape (1152921504606846976,) and dtype float32 is over the limit of 1 TiB for "
       "one leaf",
       [](PortableParts* p) { on_leaf_vector(p, Leaf::VT_SHAPE, 0, kExa, 8); }},
      {"2^62 elements of four bytes, which wraps around to none",
       "an array of shape (4611686018427387904,) and dtype float32 is over the limit of 1 TiB for "
       "one leaf",
       [](PortableParts* p) { on_leaf_vector(p, Leaf::VT_SHAPE, 0, kExa << 2, 8); }},
      {"2^31 - 1 axes", "record is no valid flatbuffer",
       [](PortableParts* p) { on_leaf_vector(p, Leaf::VT_SHAPE, -4, 0x7FFFFFFF, 4); }},
      {"2^32 - 1 hashes", "record is no valid flatbuffer",
       [](PortableParts* p) { on_leaf_vector(p, Leaf::VT_HASHES, -4, 0xFFFFFFFF, 4); }},
      {"no hash", "leaf record: wrong number of hashes",
       [](PortableParts* p) { on_leaf_vector(p, Leaf::VT_HASHES, -4, 0, 4); }},
      {"chunks of one byte", "chunk size of 1 bytes",
       [](PortableParts* p) { on_leaf(p, Leaf::VT_CHUNK_SIZE_BYTES, 1, 4); }},
      {"chunks of 2^32 - 1 bytes", "chunk size of 4294967295 bytes",
       [](PortableParts* p) { on_leaf(p, Leaf::VT_CHUNK_SIZE_BYTES, 0xFFFFFFFF, 4); }},
      {"an extent that begins behind the first chunk", "a chunk in an impossible place",
       [](PortableParts* p) { on_leaf_vector(p, Leaf::VT_EXTENTS, 0, 1, 4); }},
      {"a chunk stored in 2^32 - 1 bytes", "leaf record: impossible stored sizes",
       [](PortableParts* p) {
         p->b.codecs = {Codec::kPlanes};
         p->b.stored_sizes = {60};
         on_leaf_vector(p, Leaf::VT_STORED_SIZES, 0, 0xFFFFFFFF, 4);
       }},
      {"an unknown codec", "leaf record: unknown codec",
       [](PortableParts* p) {
         p->b.codecs = {Codec::kPlanes};
         p->b.stored_sizes = {60};
         on_leaf_vector(p, Leaf::VT_CODECS, 0, 99, 1);
       },
       ErrorCode::kUnsupported},
      {"a terabyte of zeros that are none", "chunk 0 does not match its hash",
       [](PortableParts* p) {
         // 65,536 chunks of 16 MiB that all stand in the same eight bytes.
         p->b.shape = {std::uint64_t{1} << 38};
         p->b.size_bytes = std::uint64_t{1} << 40;
         p->b.chunk_size_bytes = 1 << 24;
         p->b.hashes.assign(1 << 16, {1, 2});
         p->b.codecs.assign(1 << 16, Codec::kConstant);
         p->b.stored_sizes.assign(1 << 16, 8);
         p->b.extents.clear();
         for (std::uint32_t chunk = 0; chunk < (1 << 16); ++chunk) {
           p->b.extents.push_back({chunk, 0, 128});
         }
         p->data = std::string(64, 'd') + std::string(8, '\0');
         p->item.size_bytes = p->step.size_bytes = p->step.items[0].size_bytes =
             64 + p->b.size_bytes;
       }},
      {"2^60 leaves", "item record: wrong number of leaves",
       [](PortableParts* p) {
         p->step.items[0].leaf_count = kExa;
         on_record(p, 2, [](std::string* bytes) {
           put_number(bytes, field_at(*bytes, table_of(*bytes), schema::ItemRecord::VT_LEAF_COUNT),
                      kExa, 8);
         });
       }},
      {"a step of 2^60 leaves", "step 5, item 'state' is not what its step says",
       [](PortableParts* p) { p->step.items[0].leaf_count = kExa; }},
      {"an item of 2^60 bytes", "step 5, item 'state' has another size than its leaves",
       [](PortableParts* p) {
         p->item.size_bytes = p->step.size_bytes = p->step.items[0].size_bytes = kExa;
       }},
      {"items of 2^64 bytes, which wrap around to none",
       "step 5, item 'zoo' is not in the portable file",
       [](PortableParts* p) {
         p->step.items = {{"state", "standard", 2, 128}, {"zoo", "standard", 0, kHuge - 127}};
         p->step.size_bytes = 0;
       }},
      {"2^60 entries in the tree of leaves", "its footer names an impossible index",
       [](PortableParts* p) { on_root(p, Tree::kLeaves, [](auto* r) { r->entry_count = kExa; }); }},
      {"2^60 entries in the tree of steps", "its footer names an impossible index",
       [](PortableParts* p) { on_root(p, Tree::kSteps, [](auto* r) { r->entry_count = kExa; }); }},
      // Structures.
      {"an unknown kind of node", "tree structure: unknown kind of node",
       [](PortableParts* p) { on_structure_vector(p, Structure::VT_KINDS, 1, 99, 1); }},
      {"a dict in place of a leaf", "tree structure: a child count is missing",
       [](PortableParts* p) { on_structure_vector(p, Structure::VT_KINDS, 1, 2, 1); }},
      {"2^32 - 1 children", "a key ends within its path",
       [](PortableParts* p) {
         on_structure_vector(p, Structure::VT_CHILD_COUNTS, 0, 0xFFFFFFFF, 4);
       }},
      {"2^32 - 1 nodes", "record is no valid flatbuffer",
       [](PortableParts* p) { on_structure_vector(p, Structure::VT_KINDS, -4, 0xFFFFFFFF, 4); }},
      {"two children of one name", "tree structure: two children have the same label 'a'",
       [](PortableParts* p) { on_structure_vector(p, Structure::VT_LABELS, 1, 'a', 1); }},
      {"a name that does not end", "a name in a key does not end",
       [](PortableParts* p) { on_structure_vector(p, Structure::VT_LABELS, 7, 'a', 1); }},
      // Circles.
      {"a page that leads to a later one", "index page: it leads to an impossible place",
       [](PortableParts* p) {
         p->change_footer = [](Footer* f) { f->roots[0].level = 1; };
         p->change_page_bytes = [](Tree tree, std::string* page) {
           if (tree != Tree::kSteps) return;
           *page = raw_page(tree, 1, step_record_key(5), {9},
                            {schema::Place(schema::Hash(0, 0), 4096, 200)});
         };
       }},
      {"a record that leads back to its page", "index page: it leads to an impossible place",
       [](PortableParts* p) {
         on_page(p, Tree::kItems, [](IndexPage* page) { page->places[0].offset = 1 << 20; });
       }},
      {"an index of 31 levels in one page", "record belongs to another key",
       [](PortableParts* p) { on_root(p, Tree::kLeaves, [](auto* r) { r->level = 31; }); }},
      // Bytes that nothing leads to.
      {"a hole between data and records", "nothing leads to what begins at byte 192",
       [](PortableParts* p) { p->data += std::string(8192, '\0'); }},
      {"a message between data and records",
       "bytes that are not zero between things, from byte 192 on",
       [](PortableParts* p) { p->data += "hello"; }},
      {"a message before the footer", "bytes that are not zero between things, from byte 1584 on",
       [](PortableParts* p) { p->padding = "12345678"; }},
      {"a megabyte of zeros before the footer", "nothing leads to what begins at byte 1584",
       [](PortableParts* p) { p->padding = std::string(1 << 20, '\0'); }},
  };
  return kAttacks;
}

}  // namespace stepstone::test
