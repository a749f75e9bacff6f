// Header, all integers little-endian: magic (8), format version (4), zero (4), required features
// (8), zero (24), hash of the 48 bytes before (16). Footer: three roots of 48 bytes (hash 16,
// offset 8, size 8, entries 8, level 4, zero 4), file size (8), format version (4), zero (4),
// required features (8), hash of the 168 bytes before (16), magic (8).
#include "format/portable_layout.h"

#include <algorithm>
#include <cstring>

#include "format/assert.h"
#include "format/limits.h"
#include "format/record_framing.h"
#include "format/schema/portable_generated.h"

namespace stepstone::portable {
namespace {

constexpr std::string_view kFooterMagic = "STONEEND";
constexpr std::size_t kMagicSizeBytes = 8;
constexpr std::size_t kHeaderHashedSizeBytes = kHeaderSizeBytes - sizeof(Hash128);
constexpr std::size_t kFooterHashedSizeBytes = 168;

static_assert(kMagic.size() == kMagicSizeBytes && kFooterMagic.size() == kMagicSizeBytes);
static_assert(kFooterHashedSizeBytes + sizeof(Hash128) + kMagicSizeBytes == kFooterSizeBytes);
static_assert(sizeof(schema::Place) == sizeof(Place));

class FieldWriter {
 public:
  explicit FieldWriter(std::span<std::byte> bytes) : bytes_(bytes) {}

  void put(std::uint64_t value, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) bytes_[at_++] = static_cast<std::byte>(value >> (8 * i));
  }
  void put(Hash128 hash) {
    put(hash.low, 8);
    put(hash.high, 8);
  }
  void put(std::string_view text) {
    std::memcpy(&bytes_[at_], text.data(), text.size());
    at_ += text.size();
  }
  void put_hash_of_all_before() { put(hash128(bytes_.first(at_))); }

 private:
  std::span<std::byte> bytes_;
  std::size_t at_ = 0;
};

class FieldReader {
 public:
  explicit FieldReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::uint64_t take(std::size_t size) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < size; ++i) {
      value |= static_cast<std::uint64_t>(bytes_[at_++]) << (8 * i);
    }
    return value;
  }
  Hash128 take_hash() {
    const std::uint64_t low = take(8);
    return {low, take(8)};
  }

 private:
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
};

bool begins_with(std::span<const std::byte> bytes, std::string_view magic) {
  return std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

Result<void> check_version(std::uint64_t version, std::uint64_t required_features) {
  if (version != kFormatVersion) {
    return fail(ErrorCode::kUnsupported,
                "portable file in format version " + std::to_string(version) +
                    "; this build reads version " + std::to_string(kFormatVersion));
  }
  if (required_features != 0) {
    return fail(ErrorCode::kUnsupported,
                "portable file needs a feature that this build does not have");
  }
  return {};
}

// Whether `place` lies between the header and `end`.
bool is_inside(const Place& place, std::uint64_t end) {
  return place.offset >= kHeaderSizeBytes && place.offset <= end &&
         place.size_bytes <= end - place.offset && place.size_bytes != 0 &&
         place.offset % kRecordAlignment == 0;
}

Result<Root> check_root(const Root& root, std::uint64_t footer_offset) {
  if (root.entry_count == 0) {
    if (root == Root{}) return root;
    return internal::corrupt("portable file: its footer describes a tree without entries");
  }
  // Each entry takes a Place at least, so that who counts on the number is not misled.
  if (!is_inside(root.place, footer_offset) || root.entry_count > footer_offset / sizeof(Place) ||
      root.level > limits::kIndexLevelMax) {
    return internal::corrupt("portable file: its footer names an impossible index");
  }
  return root;
}

std::string page_key(Tree tree, std::uint32_t level) {
  return {static_cast<char>(tree), static_cast<char>(level)};
}

}  // namespace

std::array<std::byte, kHeaderSizeBytes> encode_header() {
  std::array<std::byte, kHeaderSizeBytes> bytes{};
  FieldWriter writer(bytes);
  writer.put(kMagic);
  writer.put(kFormatVersion, 4);
  writer.put(0, 4);
  writer.put(0, 8);  // Required features.
  for (int i = 0; i < 3; ++i) writer.put(0, 8);
  writer.put_hash_of_all_before();
  return bytes;
}

std::array<std::byte, kFooterSizeBytes> encode_footer(const Footer& footer) {
  std::array<std::byte, kFooterSizeBytes> bytes{};
  FieldWriter writer(bytes);
  for (const Root& root : footer.roots) {
    writer.put(root.place.hash);
    writer.put(root.place.offset, 8);
    writer.put(root.place.size_bytes, 8);
    writer.put(root.entry_count, 8);
    writer.put(root.level, 4);
    writer.put(0, 4);
  }
  writer.put(footer.file_size_bytes, 8);
  writer.put(kFormatVersion, 4);
  writer.put(0, 4);
  writer.put(0, 8);  // Required features.
  writer.put_hash_of_all_before();
  writer.put(kFooterMagic);
  return bytes;
}

Result<void> check_header(std::span<const std::byte, kHeaderSizeBytes> bytes) {
  if (!begins_with(bytes, kMagic)) return internal::corrupt("this is no portable file");
  FieldReader hash_reader(bytes.subspan(kHeaderHashedSizeBytes));
  if (hash_reader.take_hash() != hash128(bytes.first(kHeaderHashedSizeBytes))) {
    return internal::corrupt("portable file: damaged header");
  }
  FieldReader reader(bytes.subspan(kMagicSizeBytes));
  const std::uint64_t version = reader.take(4);
  std::uint64_t zeros = reader.take(4);
  STEPSTONE_TRY(check_version(version, reader.take(8)));
  for (int i = 0; i < 3; ++i) zeros |= reader.take(8);
  if (zeros != 0) return internal::corrupt("portable file: bytes of its header are not zero");
  return {};
}

Result<Footer> decode_footer(std::span<const std::byte, kFooterSizeBytes> bytes,
                             std::uint64_t file_size_bytes) {
  if (!begins_with(bytes.last(kMagicSizeBytes), kFooterMagic)) {
    return internal::corrupt(
        "portable file: its end is missing; it was cut off, or never finished");
  }
  FieldReader hash_reader(bytes.subspan(kFooterHashedSizeBytes));
  if (hash_reader.take_hash() != hash128(bytes.first(kFooterHashedSizeBytes))) {
    return internal::corrupt("portable file: damaged footer");
  }
  FieldReader reader(bytes);
  Footer footer;
  std::uint64_t zeros = 0;
  for (Root& root : footer.roots) {
    root.place.hash = reader.take_hash();
    root.place.offset = reader.take(8);
    root.place.size_bytes = reader.take(8);
    root.entry_count = reader.take(8);
    root.level = static_cast<std::uint32_t>(reader.take(4));
    zeros |= reader.take(4);
  }
  footer.file_size_bytes = reader.take(8);
  const std::uint64_t version = reader.take(4);
  zeros |= reader.take(4);
  STEPSTONE_TRY(check_version(version, reader.take(8)));
  if (zeros != 0) return internal::corrupt("portable file: bytes of its footer are not zero");
  if (footer.file_size_bytes != file_size_bytes) {
    return internal::corrupt("portable file of " + std::to_string(file_size_bytes) +
                             " bytes, but it was written with " +
                             std::to_string(footer.file_size_bytes));
  }
  for (const Root& root : footer.roots) {
    STEPSTONE_TRY(check_root(root, file_size_bytes - kFooterSizeBytes));
  }
  if (footer.roots[0].entry_count == 0) return internal::corrupt("portable file without a step");
  return footer;
}

std::string_view IndexPage::key(std::size_t entry) const {
  STEPSTONE_ASSERT(entry < size());
  const std::size_t begin = entry == 0 ? 0 : key_ends[entry - 1];
  return std::string_view(keys).substr(begin, key_ends[entry] - begin);
}

void IndexPage::add(std::string_view key, const Place& place) {
  keys.append(key);
  key_ends.push_back(static_cast<std::uint32_t>(keys.size()));
  places.push_back(place);
}

void IndexPage::clear() {
  keys.clear();
  key_ends.clear();
  places.clear();
}

Result<std::string> encode_index_page(const IndexPage& page, Tree tree, std::uint32_t level) {
  if (page.size() > limits::kIndexPageEntriesMax || level > limits::kIndexLevelMax) {
    return fail(ErrorCode::kLimit, "index page of " + std::to_string(page.size()) +
                                       " entries in level " + std::to_string(level));
  }
  flatbuffers::FlatBufferBuilder builder(256 + page.keys.size() + page.size() * 40);
  const auto header = internal::create_header(builder, page_key(tree, level));
  const auto keys = internal::create_bytes(builder, page.keys);
  const auto key_ends = builder.CreateVector(page.key_ends);
  const auto places = builder.CreateVectorOfStructs(
      reinterpret_cast<const schema::Place*>(page.places.data()), page.places.size());
  schema::FinishIndexPageBuffer(builder,
                                schema::CreateIndexPage(builder, header, keys, key_ends, places));
  return internal::checked_size(internal::sealed(builder));
}

Result<IndexPage> decode_index_page(std::string_view bytes, Tree tree, std::uint32_t level,
                                    std::uint64_t offset) {
  internal::VerifiedRecord<schema::IndexPage> table;
  STEPSTONE_TRY(table.open(bytes, page_key(tree, level), schema::IndexPageIdentifier()));
  const std::size_t count = table->places()->size();
  if (count == 0 || count > limits::kIndexPageEntriesMax || count != table->key_ends()->size() ||
      internal::is_misaligned(table->places())) {
    return internal::corrupt("index page: impossible number of entries");
  }
  IndexPage page;
  page.keys = internal::view(table->keys());
  page.key_ends.assign(table->key_ends()->begin(), table->key_ends()->end());
  std::uint64_t begin = 0;
  for (const std::uint32_t end : page.key_ends) {
    if (end <= begin || end > page.keys.size())
      return internal::corrupt("index page: impossible keys");
    begin = end;
  }
  if (begin != page.keys.size()) return internal::corrupt("index page: bytes without a key");
  page.places.reserve(count);
  for (const schema::Place* place : *table->places()) {
    page.places.push_back(
        {internal::from_schema(&place->hash()), place->offset(), place->size_bytes()});
    if (!is_inside(page.places.back(), offset)) {
      return internal::corrupt("index page: it leads to an impossible place");
    }
  }
  for (std::size_t i = 1; i < count; ++i) {
    if (page.key(i - 1) >= page.key(i)) return internal::corrupt("index page: keys out of order");
  }
  return page;
}

}  // namespace stepstone::portable
