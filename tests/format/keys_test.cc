#include "format/keys.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <tuple>

#include "format/leaf_path.h"
#include "format/limits.h"
#include "support.h"

namespace stepstone {
namespace {

using test::Random;

SaveId random_save(Random& random) {
  static const std::vector<std::uint64_t> kSteps = {
      0, 1, 255, 256, 1000, limits::kStepMax - 1, limits::kStepMax};
  static const std::vector<std::uint32_t> kGenerations = {0,   1,          2,         255,
                                                          256, 0xFFFFFFFE, 0xFFFFFFFF};
  return {random.one_of(kSteps), random.one_of(kGenerations)};
}

// A key's meaning, comparable in the order in which keys are to stand.
struct Place {
  SaveId save;
  Region region = Region::kStep;
  std::string item;
  LeafPath path;
  std::uint32_t chunk = 0;

  auto operator<=>(const Place&) const = default;
};

std::string key_of(const Place& place) {
  switch (place.region) {
    case Region::kStep:
      return step_copy_key(place.save);
    case Region::kItem:
      return item_key(place.save, place.item);
    case Region::kLeaf:
      return leaf_key(place.save, place.item, encode_path(place.path).value());
    case Region::kChunk:
      return chunk_key(place.save, place.item, encode_path(place.path).value(), place.chunk);
  }
  return {};
}

Place random_place(Random& random) {
  Place place;
  place.save = random_save(random);
  place.region = static_cast<Region>(random.below(4));
  if (place.region >= Region::kItem) place.item = random.name();
  if (place.region >= Region::kLeaf) {
    do {
      place.path = random.path();
    } while (!encode_path(place.path));
  }
  if (place.region == Region::kChunk) {
    place.chunk = static_cast<std::uint32_t>(random.bits() >> (32 + random.below(32)));
  }
  return place;
}

Place place_of(const DecodedKey& key) {
  Place place{key.save, key.region, key.item, {}, key.chunk};
  if (key.region >= Region::kLeaf) place.path = decode_path(key.encoded_path).value();
  return place;
}

TEST(Keys, AreTheBytesThatTheSpecificationShows) {
  const SaveId save{1000, 7};
  const std::string path = encode_path({PathComponent::key("w")}).value();
  const std::string prefix = "00000000000003e800000007";
  EXPECT_EQ(test::to_hex(step_copy_key(save)), prefix + "00");
  EXPECT_EQ(test::to_hex(item_key(save, "state")), prefix +
                                                       "01"
                                                       "0373746174650001");
  EXPECT_EQ(test::to_hex(leaf_key(save, "state", path)), prefix +
                                                             "02"
                                                             "0373746174650001"
                                                             "0377000100");
  EXPECT_EQ(test::to_hex(chunk_key(save, "state", path, 258)), prefix +
                                                                   "03"
                                                                   "0373746174650001"
                                                                   "0377000100"
                                                                   "00000102");
  EXPECT_EQ(test::to_hex(store_record_key()), "00");
  EXPECT_EQ(test::to_hex(step_record_key(1000)), "0100000000000003e8");
}

TEST(Keys, DecodeToWhatTheyWereMadeFrom) {
  for (const std::uint64_t seed : test::seeds(20)) {
    SCOPED_TRACE(test::trace(seed));
    Random random(seed);
    for (int i = 0; i < 300; ++i) {
      const Place place = random_place(random);
      const std::string key = key_of(place);
      const auto decoded = decode_key(key);
      ASSERT_TRUE(decoded.has_value()) << decoded.error().message << " " << test::to_hex(key);
      ASSERT_EQ(place_of(*decoded), place) << test::to_hex(key);
      ASSERT_EQ(save_of_key(key), place.save);
    }
  }
}

TEST(Keys, StandInTheOrderOfSaveRegionItemPathAndChunk) {
  for (const std::uint64_t seed : test::seeds(20)) {
    SCOPED_TRACE(test::trace(seed));
    Random random(seed);
    std::vector<Place> places;
    for (int i = 0; i < 60; ++i) {
      Place place = random_place(random);
      if (!places.empty() && random.one_in(2)) {
        // The same place but for one thing.
        const Place other = random.one_of(places);
        if (other.region >= Region::kItem && random.one_in(2)) {
          const std::string item = place.item;
          place = other;
          place.item = random.one_in(2) ? other.item + random.byte() : item;
          place.item.resize(std::min(place.item.size(), limits::kNameSizeBytesMax));
        } else {
          place.save = other.save;
          place.item = place.region >= Region::kItem ? other.item : "";
        }
      }
      places.push_back(std::move(place));
    }
    for (const Place& a : places) {
      const std::string a_key = key_of(a);
      for (const Place& b : places) {
        const std::string b_key = key_of(b);
        ASSERT_EQ(a < b, a_key < b_key) << test::to_hex(a_key) << " " << test::to_hex(b_key);
        ASSERT_EQ(a == b, a_key == b_key) << test::to_hex(a_key);
      }
    }
  }
}

TEST(Keys, ARangeHoldsExactlyTheKeysOfItsSave) {
  for (const std::uint64_t seed : test::seeds(20)) {
    SCOPED_TRACE(test::trace(seed));
    Random random(seed);
    for (int i = 0; i < 300; ++i) {
      const Place place = random_place(random);
      const std::string key = key_of(place);
      const SaveId save = random_save(random);
      const KeyRange range = save_range(save);
      ASSERT_LT(range.begin, range.end);
      ASSERT_EQ(range.begin <= key && key < range.end, place.save == save) << test::to_hex(key);
      const KeyRange own = save_range(place.save);
      ASSERT_TRUE(own.begin <= key && key < own.end) << test::to_hex(key);
    }
  }
}

TEST(Keys, RangesOfSavesAreDisjoint) {
  for (const std::uint64_t seed : test::seeds(5)) {
    SCOPED_TRACE(test::trace(seed));
    Random random(seed);
    for (int i = 0; i < 500; ++i) {
      SaveId a = random_save(random);
      SaveId b = random_save(random);
      if (random.one_in(2)) b = {a.step, a.generation + 1};
      if (a == b) continue;
      if (b < a) std::swap(a, b);
      ASSERT_LE(save_range(a).end, save_range(b).begin)
          << a.step << "/" << a.generation << " " << b.step << "/" << b.generation;
    }
  }
}

TEST(Keys, ARegionPrefixBeginsExactlyTheKeysOfItsItem) {
  for (const std::uint64_t seed : test::seeds(20)) {
    SCOPED_TRACE(test::trace(seed));
    Random random(seed);
    for (int i = 0; i < 300; ++i) {
      const Place place = random_place(random);
      const std::string key = key_of(place);
      Place other = place;
      other.region = random.one_in(2) ? Region::kLeaf : Region::kChunk;
      if (random.one_in(2)) other.item = random.name();
      if (random.one_in(4)) other.item += std::string("\0\x01", 2);
      if (random.one_in(4)) other.save = random_save(random);
      const bool belongs =
          place.save == other.save && place.region == other.region && place.item == other.item;
      const std::string prefix = region_prefix(other.save, other.region, other.item);
      ASSERT_EQ(key.starts_with(prefix), belongs)
          << test::to_hex(key) << " " << test::to_hex(prefix);
    }
  }
}

TEST(Keys, WhatNoPlaceEncodesToIsRefused) {
  const std::string save = "00000000000003e800000007";
  const std::string item = "0373746174650001";
  const std::string path = "0377000100";
  const std::pair<const char*, std::string> malformed[] = {
      {"nothing", ""},
      {"half a save", "00000000000003e8"},
      {"a save alone", save},
      {"a step's copy that goes on", save + "00"
                                            "00"},
      {"an item without a name", save + "01"},
      {"an item that goes on", save + "01" + item + "00"},
      {"an item that is an attribute", save + "01"
                                              "0473746174650001"},
      {"an item that is a number", save + "01"
                                          "010000000000000000"},
      {"a leaf without a path", save + "02" + item},
      {"a leaf with a chunk", save + "02" + item + path + "00000000"},
      {"a leaf with two paths", save + "02" + item + path + path},
      {"a chunk without a number", save + "03" + item + path},
      {"a chunk with half a number", save + "03" + item + path + "0000"},
      {"a chunk with a longer number", save + "03" + item + path + "0000000000"},
      {"a chunk without a path", save + "03" + item + "00000000"},
      {"region 4", save + "04" + item},
      {"region ff", save + "ff"},
  };
  for (const auto& [what, hex] : malformed) {
    const auto decoded = decode_key(test::from_hex(hex));
    ASSERT_FALSE(decoded.has_value()) << what;
    EXPECT_EQ(decoded.error().code, ErrorCode::kCorrupt) << what;
  }
  EXPECT_EQ(save_of_key(test::from_hex("00000000000003e8000000")), std::nullopt);
}

TEST(Keys, RandomBytesAreRefusedOrEncodeToThemselves) {
  int accepted = 0;
  int refused = 0;
  for (const std::uint64_t seed : test::seeds(20)) {
    SCOPED_TRACE(test::trace(seed));
    Random random(seed);
    for (int i = 0; i < 300; ++i) {
      const std::string key = random.one_in(4) ? random.bytes(random.below(40))
                                               : random.mutated(key_of(random_place(random)));
      const auto decoded = decode_key(key);
      ++(decoded ? accepted : refused);
      if (!decoded) {
        ASSERT_EQ(decoded.error().code, ErrorCode::kCorrupt);
        continue;
      }
      ASSERT_EQ(key_of(place_of(*decoded)), key) << test::to_hex(key);
    }
  }
  if (test::tries_one_seed()) return;
  EXPECT_GT(accepted, 100);
  EXPECT_GT(refused, 100);
}

TEST(Keys, OfStepRecordsStandInTheOrderOfTheSteps) {
  Random random(1);
  for (int i = 0; i < 200; ++i) {
    const std::uint64_t a = random_save(random).step;
    const std::uint64_t b = random_save(random).step;
    EXPECT_EQ(a < b, step_record_key(a) < step_record_key(b));
    EXPECT_LT(store_record_key(), step_record_key(a));
  }
}

}  // namespace
}  // namespace stepstone
