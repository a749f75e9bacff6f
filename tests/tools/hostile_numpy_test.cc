// Goal: whatever is said to be a .npy or .npz file, reading it is an error or a tree of arrays,
// within bounds. Method: headers and archives that lie, one field at a time; files cut and changed.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/tools/hostile.h"
#include "tests/tools/raw_zip.h"

namespace stepstone::tool {
namespace {

std::string zeros(std::size_t size_bytes) { return std::string(size_bytes, '\0'); }

using HostileNumpyTest = HostileFileTest;

std::string npy(std::string_view literal, std::string_view data = "", int version = 1) {
  const std::size_t size = literal.size() + 1;
  std::string bytes = "\x93NUMPY";
  bytes += static_cast<char>(version);
  bytes += '\0';
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) bytes += static_cast<char>(size >> (8 * i));
  return bytes + std::string(literal) + "\n" + std::string(data);
}

std::string literal(std::string_view descr, std::string_view order, std::string_view shape) {
  return fmt::format("{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}", descr, order, shape);
}

std::string typed(std::string_view descr, std::string_view data = "12345678") {
  return npy(literal(descr, "False", "(1,)"), data);
}

std::string shaped(std::string_view shape, std::string_view data = "1234") {
  return npy(literal("'<f4'", "False", shape), data);
}

std::vector<HostileFile> npy_files() {
  const std::string good = npy(literal("'<f4'", "False", "(2,)"), "12345678");
  std::string huge_header = good;
  huge_header[9] = '\x7F';
  std::string huge_header_2 = npy(literal("'<f4'", "False", "(2,)"), "12345678", 2);
  huge_header_2[11] = '\x7F';
  std::string ranks = "(";
  for (int i = 0; i < 2000; ++i) ranks += "1,";
  return {
      {"Empty", "", "begin"},
      {"MagicAlone", "\x93NUMPY", "begin"},
      {"OtherMagic", "\x93NUMPZ" + good.substr(6), "begin"},
      {"VersionZero", npy("{}", "", 0), "version"},
      {"VersionNine", npy("{}", "", 9), "version"},
      {"MinorVersion", "\x93NUMPY\x01\x07" + good.substr(8), "version"},
      {"HeaderBeyondTheEnd", huge_header, "header"},
      {"HeaderOfTwoGiB", huge_header_2, "limit"},
      {"NoHeader", std::string("\x93NUMPY\x01\x00\x00\x00", 10), "dict"},
      {"NotADict", npy("[1]"), "dict"},
      {"EmptyDict", npy("{}"), "lacks"},
      {"NoShape", npy("{'descr': '<f4', 'fortran_order': False}"), "lacks"},
      {"KeyTwice", npy("{'descr': '<f4', 'descr': '<f8', 'shape': ()}"), "twice"},
      {"ShapeTwice", npy("{'shape': (), 'shape': ()}"), "twice"},
      {"UnknownKey", npy("{'extra': 1}"), "extra"},
      {"KeyIsANumber", npy("{1: 2}"), "string"},
      {"StringDoesNotEnd", npy("{'descr"), "end"},
      {"NoColon", npy("{'descr' '<f4'}"), "dict"},
      {"NoComma", npy("{'shape': () 'descr': '<f4'}"), "dict"},
      {"TextBehind", npy(literal("'<f4'", "False", "(2,)") + " import os", "12345678"), "follows"},
      {"Call", npy(literal("__import__('os')", "False", "()")), "string"},
      {"Objects", typed("'|O'"), "pickle"},
      {"Objects8", typed("'|O8'"), "pickle"},
      {"Structured", npy(literal("[('a', '<f4'), ('b', '<i4')]", "False", "(1,)"), "12345678"),
       "structured"},
      {"StructuredNested", npy(literal(std::string(9000, '['), "False", "(1,)")), "structured"},
      {"Void", typed("'|V2'"), "bfloat16"},
      {"Text", typed("'<U2'"), "<U2"},
      {"Bytes", typed("'|S8'"), "|S8"},
      {"Date", typed("'<M8[ns]'"), "<M8[ns]"},
      {"LongDouble", typed("'<f16'"), "<f16"},
      {"EmptyDescr", typed("''"), "dtype ''"},
      {"OrderAlone", typed("'<'"), "dtype '<'"},
      {"NativeOrder", typed("'=f8'"), "=f8"},
      {"WideWithoutOrder", typed("'|f8'"), "|f8"},
      {"Terminal", typed("'\x1b[2J'"), "\\x1b"},
      {"OrderIsANumber", npy(literal("'<f4'", "1", "(1,)"), "1234"), "fortran_order"},
      {"OrderIsNone", npy(literal("'<f4'", "None", "(1,)"), "1234"), "fortran_order"},
      {"ShapeIsANumber", shaped("1"), "tuple"},
      {"ShapeIsAList", shaped("[1]"), "tuple"},
      {"NegativeExtent", shaped("(-1,)"), "extent"},
      {"ExtentIsText", shaped("('1',)"), "extent"},
      {"ExtentOf65Bits", shaped("(36893488147419103232,)"), "extent"},
      {"ExtentIsAFloat", shaped("(1.5,)"), "tuple"},
      {"ShapeDoesNotEnd", shaped("(1,"), "extent"},
      {"ProductOverflows", shaped("(4294967296, 4294967296, 4)"), ""},
      {"TebibyteOfData", shaped("(1099511627776,)"), ""},
      {"TooManyDimensions", shaped(ranks + ")"), "dimensions"},
      {"FewerBytes", shaped("(2,)"), "4 follow"},
      {"MoreBytes", shaped("(1,)", "12345"), "5 follow"},
      {"ZeroExtentHidesHugeOnes", shaped("(0, 18446744073709551615, 18446744073709551615)"), ""},
  };
}

std::string good_array() { return npy(literal("'<f4'", "False", "(2,)"), "12345678"); }

// Two sound entries, of which one or the archive's end is then spoilt.
std::string spoilt(const std::function<void(RawEntry&)>& spoil, const RawEnd& end = {}) {
  std::vector<RawEntry> entries = {{.name = "a.npy", .packed = good_array()},
                                   {.name = "b.npy", .packed = good_array()}};
  spoil(entries[1]);
  return raw_zip(entries, end);
}
std::string spoilt_end(const RawEnd& end) {
  return spoilt([](RawEntry& /*entry*/) {}, end);
}
std::string spoilt_packed(const std::function<void(RawEntry&)>& spoil) {
  RawEntry entry = deflated_entry("a.npy", good_array());
  spoil(entry);
  return raw_zip({entry});
}

// One piece of data under many names: each alone is fine.
std::string overlapping(std::size_t count) {
  std::vector<RawEntry> entries;
  const RawEntry packed = deflated_entry("a.npy", std::string(100'000, '\0'));
  for (std::size_t i = 0; i < count; ++i) {
    RawEntry entry = packed;
    entry.has_local = i == 0;
    entry.position = 0;
    entries.push_back(std::move(entry));
  }
  return raw_zip(entries);
}

std::vector<HostileFile> npz_files() {
  using Entry = RawEntry;
  return {
      {"Empty", "", "directory"},
      {"NotAnArchive", "PK", "directory"},
      {"LocalHeaderAlone", std::string("PK\x03\x04") + std::string(60, '\0'), "directory"},
      {"ManyEntriesClaimed", spoilt_end({.entry_count = 0xFFFF}), "directory"},
      {"OneEntryMoreClaimed", spoilt_end({.entry_count = 3}), "directory"},
      {"OneEntryHidden", spoilt_end({.entry_count = 1}), "end where"},
      {"DirectoryBeyondTheEnd", spoilt_end({.directory_position = 0x7FFFFFFF}), ""},
      {"DirectoryInsideAnEntry", spoilt_end({.directory_position = 10}), ""},
      {"DirectoryOfFourGiB", spoilt_end({.directory_size_bytes = 0xFFFFFFF0}), ""},
      {"BytesInFront", spoilt_end({.before = "#!/bin/sh\n"}), ""},
      {"Zip64CountOf2To63", spoilt_end({.zip64_entry_count = std::uint64_t{1} << 63}), "limit"},
      {"Zip64CountOfAMillion", spoilt_end({.zip64_entry_count = 1'000'000}), "none"},
      {"Zip64EndElsewhere", spoilt_end({.zip64_entry_count = 2, .zip64_position = 1}), ""},
      {"Zip64EndBeyond",
       spoilt_end({.zip64_entry_count = 2, .zip64_position = std::uint64_t{1} << 62}), ""},
      {"NameTwice", spoilt([](Entry& entry) { entry.name = "a.npy"; }), "twice"},
      {"NamesOfOneLeaf", spoilt([](Entry& entry) { entry.name = "a"; }), ""},
      {"OtherNameLocally", spoilt([](Entry& entry) { entry.local_name = "c.npy"; }), "called"},
      {"LongerNameLocally", spoilt([](Entry& entry) { entry.local_name = "longer.npy"; }), ""},
      {"NameWithNul", spoilt([](Entry& entry) { entry.name = std::string("b\0.npy", 6); }), "NUL"},
      {"NameOfSixtyKiB", spoilt([](Entry& entry) { entry.name = std::string(60'000, 'n'); }),
       "limit"},
      {"NameOverTheLimitOfLeaves",
       spoilt([](Entry& entry) { entry.name = std::string(4200, 'n') + ".npy"; }), ""},
      {"Folder", spoilt([](Entry& entry) { entry = {.name = "folder/", .packed = ""}; }),
       "folder/"},
      {"NotAnArray", spoilt([](Entry& entry) { entry = {.name = "b.txt", .packed = "hello"}; }),
       "b.txt"},
      {"EntryOfObjects", spoilt([](Entry& entry) { entry.packed = typed("'|O'"); }), "pickle"},
      {"WrongChecksum", spoilt([](Entry& entry) { entry.crc = 7; }), "bytes"},
      {"OtherChecksumLocally", spoilt([](Entry& entry) { entry.local_crc = 7; }), "directory"},
      {"OtherSizeLocally", spoilt([](Entry& entry) { entry.local_size_bytes = 7; }), "directory"},
      {"OtherMethodLocally", spoilt([](Entry& entry) { entry.local_method = 8; }), "directory"},
      {"StoredInFewerBytes", spoilt([](Entry& entry) { entry.size_bytes = 5000; }), "stored"},
      {"StoredBeyondTheEnd", spoilt([](Entry& entry) {
         entry.size_bytes = 1'000'000;
         entry.packed_size_bytes = 1'000'000;
       }),
       ""},
      {"StoredIntoTheDirectory", spoilt([](Entry& entry) {
         entry.size_bytes = entry.packed.size() + 20;
         entry.packed_size_bytes = entry.size_bytes;
       }),
       "overlaps"},
      {"SizeOf2To63", spoilt([](Entry& entry) {
         entry.size_bytes = std::uint64_t{1} << 63;
         entry.packed_size_bytes = std::uint64_t{1} << 63;
       }),
       ""},
      {"PositionBeyondTheEnd", spoilt([](Entry& entry) { entry.position = 0x7FFFFFFF; }), ""},
      {"PositionOf2To63", spoilt([](Entry& entry) { entry.position = std::uint64_t{1} << 63; }),
       ""},
      {"PositionOfTheOther", spoilt([](Entry& entry) {
         entry.position = 0;
         entry.local_name = "b.npy";
       }),
       ""},
      {"Encrypted", spoilt([](Entry& entry) { entry.flags = 1; }), "encrypted"},
      {"Bzip2", spoilt([](Entry& entry) { entry.method = 12; }), "method 12"},
      {"Lzma", spoilt([](Entry& entry) { entry.method = 14; }), "method 14"},
      {"UnknownMethod", spoilt([](Entry& entry) { entry.method = 999; }), "method 999"},
      {"DeflatedGarbage", spoilt_packed([](Entry& entry) { entry.packed = "\xFF\xFF garbage"; }),
       "unpacked"},
      {"DeflatedNothing", spoilt_packed([](Entry& entry) { entry.packed = ""; }), ""},
      {"DeflatedCutShort", spoilt_packed([](Entry& entry) { entry.packed.resize(10); }), ""},
      {"DeflatedToMore", spoilt_packed([](Entry& entry) { entry.size_bytes = 20; }), ""},
      {"DeflatedToFewer", spoilt_packed([](Entry& entry) { entry.size_bytes = 2000; }), ""},
      {"BombBySizeClaimed",
       spoilt_packed([](Entry& entry) { entry.size_bytes = std::uint64_t{1} << 40; }), "1032"},
      {"BombOfThreeGiBClaimed",
       spoilt_packed([](Entry& entry) { entry.size_bytes = 3'000'000'000; }), "1032"},
      {"BombOfOverlaps", overlapping(2), ""},
      {"BombOfManyOverlaps", overlapping(5000), ""},
      {"BombInOneEntry",
       raw_zip({deflated_entry("a.npy",
                               npy(literal("'|u1'", "False", "(60000000,)")) + zeros(50'000'000))}),
       "follow the header"},
  };
}

TEST_F(HostileNumpyTest, ArraysThatLieAreRefused) { expect_refused("npy", npy_files()); }

TEST_F(HostileNumpyTest, ArchivesThatLieAreRefused) { expect_refused("npz", npz_files()); }

TEST_F(HostileNumpyTest, FilesCutShortAreRefused) {
  expect_cut_files_are_refused("npy", golden("fortran_order.npy"), 40);
  expect_cut_files_are_refused("npz", golden("stored.npz"), 40);
  expect_cut_files_are_refused("npz", golden("deflated.npz"), 40);
}

TEST_F(HostileNumpyTest, FilesWithChangedBytesDoNoHarm) {
  expect_changed_files_do_no_harm("npy", golden("fortran_order.npy"), 100);
  expect_changed_files_do_no_harm("npz", golden("deflated.npz"), 200);
}

}  // namespace
}  // namespace stepstone::tool
