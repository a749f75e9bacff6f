#include "format/leaf_path.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "format/limits.h"
#include "support.h"

namespace stepstone {
namespace {

using test::Random;
using Kind = PathComponent::Kind;

std::string encoded(const LeafPath& path) {
  const auto bytes = encode_path(path);
  EXPECT_TRUE(bytes.has_value()) << bytes.error().message;
  return bytes.value_or("");
}

TEST(EncodedPath, IsTheBytesThatTheSpecificationShows) {
  EXPECT_EQ(test::to_hex(encoded({})), "00");
  EXPECT_EQ(test::to_hex(encoded({PathComponent::key("w")})), "0377000100");
  EXPECT_EQ(test::to_hex(encoded({PathComponent::key("")})), "03000100");
  EXPECT_EQ(test::to_hex(encoded({PathComponent::attribute(std::string("a\0b", 3))})),
            "046100ff62000100");
  EXPECT_EQ(test::to_hex(encoded({PathComponent::index(3)})), "01000000000000000300");
  EXPECT_EQ(test::to_hex(encoded({PathComponent::key(std::int64_t{7})})), "02800000000000000700");
  EXPECT_EQ(test::to_hex(encoded({PathComponent::key(std::int64_t{-1})})), "027fffffffffffffff00");
  EXPECT_EQ(test::to_hex(encoded({PathComponent::key("l"), PathComponent::index(0)})),
            "036c0001"
            "010000000000000000"
            "00");
}

TEST(EncodedPath, DecodesToThePathItWasMadeFrom) {
  for (const std::uint64_t seed : test::seeds(20)) {
    SCOPED_TRACE(test::trace(seed));
    Random random(seed);
    for (int i = 0; i < 500; ++i) {
      const LeafPath path = random.path();
      const std::string bytes = encoded(path);
      const auto decoded = decode_path(bytes);
      ASSERT_TRUE(decoded.has_value()) << decoded.error().message << test::to_hex(bytes);
      ASSERT_EQ(*decoded, path) << test::to_hex(bytes);
    }
  }
}

TEST(EncodedPath, OrderOfTheBytesIsOrderOfThePathsAndNoneIsAPrefixOfAnother) {
  for (const std::uint64_t seed : test::seeds(20)) {
    SCOPED_TRACE(test::trace(seed));
    Random random(seed);
    std::vector<LeafPath> paths;
    for (int i = 0; i < 60; ++i) {
      LeafPath path = random.path();
      // Neighbours of a path are where an order goes wrong.
      if (!paths.empty() && random.one_in(2)) {
        path = random.one_of(paths);
        if (path.empty() || random.one_in(3)) {
          path.push_back(random.component());
        } else if (random.one_in(2)) {
          path.back().name += random.name();
          if (path.back().kind < Kind::kStringKey) path.back().name.clear();
        } else {
          path.pop_back();
        }
      }
      if (encode_path(path)) paths.push_back(std::move(path));
    }
    for (const LeafPath& a : paths) {
      const std::string a_bytes = encoded(a);
      for (const LeafPath& b : paths) {
        const std::string b_bytes = encoded(b);
        ASSERT_EQ(a < b, a_bytes < b_bytes) << to_text(a) << " and " << to_text(b);
        ASSERT_EQ(a == b, a_bytes == b_bytes) << to_text(a) << " and " << to_text(b);
        ASSERT_EQ(a == b, b_bytes.starts_with(a_bytes)) << to_text(a) << " and " << to_text(b);
      }
    }
  }
}

TEST(EncodedPath, DifferentKindsOfTheSameLabelAreDifferentPlaces) {
  const std::vector<std::string> places = {
      encoded({PathComponent::index(0)}), encoded({PathComponent::key(std::int64_t{0})}),
      encoded({PathComponent::key("0")}), encoded({PathComponent::attribute("0")})};
  for (std::size_t i = 1; i < places.size(); ++i) EXPECT_LT(places[i - 1], places[i]);
  // What a joined string would collapse.
  EXPECT_NE(encoded({PathComponent::key("a.b")}),
            encoded({PathComponent::key("a"), PathComponent::key("b")}));
  EXPECT_NE(encoded({PathComponent::key("a/b")}),
            encoded({PathComponent::key("a"), PathComponent::key("b")}));
}

TEST(EncodedPath, IntegerKeysSortAsNumbers) {
  const std::int64_t numbers[] = {
      std::numeric_limits<std::int64_t>::min(), -256, -255, -1, 0, 1, 255, 256,
      std::numeric_limits<std::int64_t>::max()};
  for (std::size_t i = 1; i < std::size(numbers); ++i) {
    EXPECT_LT(encoded({PathComponent::key(numbers[i - 1])}),
              encoded({PathComponent::key(numbers[i])}));
  }
}

TEST(EncodedPath, LimitsAreKeptWhenWriting) {
  const std::string longest(limits::kNameSizeBytesMax, '\0');
  EXPECT_TRUE(encode_path({PathComponent::key(longest)}).has_value());
  EXPECT_EQ(encode_path({PathComponent::key(longest + 'a')}).error().code, ErrorCode::kLimit);
  EXPECT_EQ(encode_path({PathComponent::attribute(longest + 'a')}).error().code, ErrorCode::kLimit);

  const LeafPath deepest(limits::kDepthMax, PathComponent::key("a"));
  EXPECT_TRUE(encode_path(deepest).has_value());
  LeafPath deeper = deepest;
  deeper.push_back(PathComponent::key("a"));
  EXPECT_EQ(encode_path(deeper).error().code, ErrorCode::kLimit);

  // Seven names of 4096 bytes and one that fills the path to the last byte: tag, end and path end.
  LeafPath widest(7, PathComponent::key(std::string(limits::kNameSizeBytesMax, 'a')));
  const std::size_t left =
      limits::kEncodedPathSizeBytesMax - 7 * (limits::kNameSizeBytesMax + 3) - 4;
  widest.push_back(PathComponent::key(std::string(left, 'a')));
  ASSERT_TRUE(encode_path(widest).has_value());
  EXPECT_EQ(encode_path(widest)->size(), limits::kEncodedPathSizeBytesMax);
  EXPECT_EQ(decode_path(*encode_path(widest)), widest);
  widest.back().name += 'a';
  EXPECT_EQ(encode_path(widest).error().code, ErrorCode::kLimit);

  EXPECT_EQ(encode_path({{Kind::kIndex, -1, {}}}).error().code, ErrorCode::kInvalidArgument);
}

TEST(EncodedPath, LimitsAreKeptWhenReading) {
  const auto unchecked = [](const LeafPath& path) {
    std::string bytes;
    for (const PathComponent& component : path) append_component(bytes, component);
    return bytes + kPathEnd;
  };
  const std::string longest(limits::kNameSizeBytesMax, 'a');
  EXPECT_TRUE(decode_path(unchecked({PathComponent::key(longest)})).has_value());
  EXPECT_EQ(decode_path(unchecked({PathComponent::key(longest + 'a')})).error().code,
            ErrorCode::kCorrupt);
  LeafPath path(limits::kDepthMax, PathComponent::key("a"));
  EXPECT_TRUE(decode_path(unchecked(path)).has_value());
  path.push_back(PathComponent::key("a"));
  EXPECT_EQ(decode_path(unchecked(path)).error().code, ErrorCode::kCorrupt);
  const LeafPath widest(8, PathComponent::key(longest));
  EXPECT_EQ(decode_path(unchecked(widest)).error().code, ErrorCode::kCorrupt);
}

TEST(EncodedPath, WhatNoPathEncodesToIsRefused) {
  const std::pair<const char*, const char*> malformed[] = {
      {"nothing", ""},
      {"no end of the path", "03770001"},
      {"bytes behind the end", "0000"},
      {"a path behind the end", "037700010003770001"},
      {"tag 5",
       "05770001"
       "00"},
      {"tag ff", "ff"},
      {"a number cut off", "0100000000000003"},
      {"a number cut off by the end", "02800000"},
      {"a negative position", "01ffffffffffffffff00"},
      {"a name without an end", "0377"},
      {"a name that ends in half an escape", "037700"},
      {"an escape 00 02", "0377000200"},
      {"an escape 00 00", "0377000000"},
      {"an escape 00 fe", "037700fe000100"},
      {"a tag alone", "03"},
  };
  for (const auto& [what, hex] : malformed) {
    const auto decoded = decode_path(test::from_hex(hex));
    ASSERT_FALSE(decoded.has_value()) << what;
    EXPECT_EQ(decoded.error().code, ErrorCode::kCorrupt) << what;
    EXPECT_FALSE(decoded.error().message.empty()) << what;
  }
}

TEST(EncodedPath, RandomBytesAreRefusedOrEncodeToThemselves) {
  int accepted = 0;
  int refused = 0;
  for (const std::uint64_t seed : test::seeds(20)) {
    SCOPED_TRACE(test::trace(seed));
    Random random(seed);
    for (int i = 0; i < 500; ++i) {
      const std::string bytes = random.one_in(4) ? random.bytes(random.below(30))
                                                 : random.mutated(encoded(random.path()));
      const auto decoded = decode_path(bytes);
      ++(decoded ? accepted : refused);
      if (!decoded) {
        ASSERT_EQ(decoded.error().code, ErrorCode::kCorrupt);
        continue;
      }
      ASSERT_EQ(encoded(*decoded), bytes) << test::to_hex(bytes);
    }
  }
  if (test::tries_one_seed()) return;
  EXPECT_GT(accepted, 100);
  EXPECT_GT(refused, 100);
}

TEST(EncodedPath, ComponentsCanBeTakenOffOneByOne) {
  std::string bytes;
  append_component(bytes, PathComponent::key(std::string("\0\xff\x01", 3)));
  append_component(bytes, PathComponent::index(2));
  std::string_view rest = bytes;
  EXPECT_EQ(take_component(&rest), PathComponent::key(std::string("\0\xff\x01", 3)));
  EXPECT_EQ(take_component(&rest), PathComponent::index(2));
  EXPECT_TRUE(rest.empty());
  EXPECT_EQ(take_component(&rest).error().code, ErrorCode::kCorrupt);
}

TEST(PathText, ShowsPathsAsTheSpecificationDoes) {
  const std::pair<LeafPath, const char*> examples[] = {
      {{}, ""},
      {{PathComponent::key("params"), PathComponent::key("layer 0"), PathComponent::key("kernel")},
       "params/layer 0/kernel"},
      {{PathComponent::key("layers"), PathComponent::index(3), PathComponent::key("w")},
       "layers[3]/w"},
      {{PathComponent::index(0)}, "[0]"},
      {{PathComponent::index(0), PathComponent::index(1)}, "[0][1]"},
      {{PathComponent::key(std::int64_t{7})}, "{7}"},
      {{PathComponent::key(std::int64_t{-7}), PathComponent::index(1)}, "{-7}[1]"},
      {{PathComponent::key("opt"), PathComponent::attribute("mu")}, "opt/.mu"},
      {{PathComponent::attribute("mu")}, ".mu"},
      {{PathComponent::attribute(".mu")}, "..mu"},
      {{PathComponent::attribute("")}, ".\\e"},
      {{PathComponent::key("")}, "\\e"},
      {{PathComponent::key(""), PathComponent::key("")}, "\\e/\\e"},
      {{PathComponent::key(".")}, "\\."},
      {{PathComponent::key("..")}, "\\.."},
      {{PathComponent::key("a.b")}, "a.b"},
      {{PathComponent::key("a/b")}, "a\\/b"},
      {{PathComponent::key("a[0]")}, "a\\[0]"},
      {{PathComponent::key("{7}")}, "\\{7}"},
      {{PathComponent::key("a{7}")}, "a{7}"},
      {{PathComponent::key("\\e")}, "\\\\e"},
      {{PathComponent::key(std::string("\0\n", 2))}, "\\x00\\x0a"},
      {{PathComponent::key("\xff"
                           "0")},
       "\\xff0"},
      {{PathComponent::key("重み")}, "重み"},
      {{PathComponent::key("\xed\xa0\x80")}, "\\xed\\xa0\\x80"},
  };
  for (const auto& [path, text] : examples) {
    EXPECT_EQ(to_text(path), text);
    EXPECT_EQ(to_text(std::string_view(encoded(path))), text);
    EXPECT_EQ(parse_path(text), path) << text;
  }
}

TEST(PathText, ParsesBackToThePathWhateverTheNames) {
  for (const std::uint64_t seed : test::seeds(20)) {
    SCOPED_TRACE(test::trace(seed));
    Random random(seed);
    for (int i = 0; i < 500; ++i) {
      const LeafPath path = random.path();
      const std::string text = to_text(path);
      const auto parsed = parse_path(text);
      ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
      ASSERT_EQ(*parsed, path) << text;
      ASSERT_EQ(printable(text), text) << "a terminal would see raw bytes";
    }
  }
}

TEST(PathText, RefusesWhatIsNotAPathAndSaysWhere) {
  const char* const malformed[] = {"/",
                                   "/a",
                                   "a/",
                                   "a//b",
                                   "a/[3]",
                                   "[",
                                   "[]",
                                   "[3",
                                   "[-1]",
                                   "[x]",
                                   "[3]a",
                                   "[3]{4}",
                                   "{",
                                   "{}",
                                   "{1.5}",
                                   "{7}a",
                                   "{7}.a",
                                   ".",
                                   "a/.",
                                   "\\",
                                   "a\\",
                                   "\\x",
                                   "\\x4",
                                   "\\xg0",
                                   "\\x4/",
                                   "[99999999999999999999]",
                                   "{9223372036854775808}",
                                   "[+3]",
                                   "[ 3]",
                                   "a/{",
                                   "./a"};
  for (const char* const text : malformed) {
    const auto parsed = parse_path(text);
    ASSERT_FALSE(parsed.has_value()) << text;
    EXPECT_EQ(parsed.error().code, ErrorCode::kInvalidArgument) << text;
    EXPECT_NE(parsed.error().message.find("character "), std::string::npos)
        << parsed.error().message;
  }
}

TEST(PathText, RandomTextIsRefusedOrMeansOnePath) {
  int accepted = 0;
  for (const std::uint64_t seed : test::seeds(20)) {
    SCOPED_TRACE(test::trace(seed));
    Random random(seed);
    for (int i = 0; i < 500; ++i) {
      std::string text;
      const std::string_view alphabet = "a0-/.[]{}\\ex\xc3\xa9";
      for (std::uint64_t size = random.below(10); size > 0; --size) {
        text += alphabet[random.below(alphabet.size())];
      }
      const auto parsed = parse_path(text);
      if (!parsed) continue;
      ++accepted;
      ASSERT_EQ(parse_path(to_text(*parsed)), *parsed) << text;
    }
  }
  if (test::tries_one_seed()) return;
  EXPECT_GT(accepted, 100);
}

TEST(PathText, BytesThatAreNoPathAreShownNotRefused) {
  EXPECT_EQ(to_text(std::string_view("\x09z")), "\\x09z");
}

TEST(Printable, KeepsTextAndEscapesEverythingElse) {
  EXPECT_EQ(printable("plain é 重 𝛽"), "plain é 重 𝛽");
  EXPECT_EQ(printable(std::string_view("\0\x1f\x7f", 3)), "\\x00\\x1f\\x7f");
  // Control characters beyond ASCII, overlong forms, surrogates, what is cut off or beyond Unicode.
  EXPECT_EQ(printable("\xc2\x85"), "\\xc2\\x85");
  EXPECT_EQ(printable("\xc0\xaf"), "\\xc0\\xaf");
  EXPECT_EQ(printable("\xe0\x80\xaf"), "\\xe0\\x80\\xaf");
  EXPECT_EQ(printable("\xf0\x80\x80\xaf"), "\\xf0\\x80\\x80\\xaf");
  EXPECT_EQ(printable("\xed\xa0\x80"), "\\xed\\xa0\\x80");
  EXPECT_EQ(printable("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");
  EXPECT_EQ(printable("\xe9\x87"), "\\xe9\\x87");
  EXPECT_EQ(printable("\xe9"
                      "a"),
            "\\xe9a");
}

}  // namespace
}  // namespace stepstone
