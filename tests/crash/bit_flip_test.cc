// One flipped bit in a store's own files. The store must open and give the right bytes, or name the
// step that it cannot read, or refuse to open; it must not give wrong bytes, show fewer steps than
// were acknowledged, or delete what could still be rescued.
//
// Two stores are flipped: one as a killed process leaves it, with its commits in RocksDB's log and
// its segments at the end of the MANIFEST; and one that was opened many times, whose commits stand
// in files of their own. Debian's RocksDB is built with assertions, and some damage runs into them:
// the flips are therefore tried in child processes, and aborts are counted.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/store.h"
#include "format/head.h"
#include "format/leaf_path.h"
#include "tests/crash/settings.h"
#include "tests/crash/workloads.h"
#include "tests/support/child_process.h"
#include "tests/support/model.h"
#include "tests/support/random.h"
#include "tests/support/simulated_disk.h"
#include "tests/support/temporary_directory.h"

namespace stepstone {
namespace {

constexpr std::uint64_t kModelSeed = 11;

struct Flip {
  std::string path;
  std::uint64_t bit = 0;
};

// What the files of a store are called, for the table of results.
std::string kind_of(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  if (name.ends_with(".sst")) return "*.sst";
  if (name.ends_with(".log")) return "*.log";
  if (name.starts_with("MANIFEST-")) return "MANIFEST";
  if (name.starts_with("OPTIONS-")) return "OPTIONS";
  return name;
}

void write_image(const SimulatedDisk& disk, const std::filesystem::path& to) {
  std::ofstream file(to, std::ios::binary);
  for (const std::string& path : disk.files()) {
    const std::string content = disk.read_file(path);
    file << path << '\n' << content.size() << '\n' << content;
  }
}

std::shared_ptr<SimulatedDisk> read_image(const std::filesystem::path& from) {
  auto disk = std::make_shared<SimulatedDisk>();
  const std::string store = kStorePath;
  for (const std::string& directory :
       {store.substr(0, store.rfind('/')), store, store + "/staging"}) {
    if (!disk->CreateDir(directory, rocksdb::IOOptions(), nullptr).ok()) return nullptr;
  }
  std::ifstream file(from, std::ios::binary);
  std::string path;
  while (std::getline(file, path)) {
    std::string size_text;
    std::getline(file, size_text);
    std::string content(std::stoull(size_text), '\0');
    file.read(content.data(), static_cast<std::streamsize>(content.size()));
    disk->write_file(path, std::move(content));
  }
  return disk->copy();
}

// What the image's store holds, told by the undamaged image itself.
Result<Model> model_of(const std::shared_ptr<SimulatedDisk>& image) {
  OpenOptions options;
  options.read_only = true;
  options.file_system = image->copy();
  const auto store = STEPSTONE_TRY(Store::open(kStorePath, options));
  return read_model(*store);
}

struct Outcome {
  std::string category;  // What the flip came to; empty: something went wrong, namely
  std::string problem;
};

Outcome bad(std::string problem) { return {"", std::move(problem)}; }

// Which of the image's files are gone, or, for segments, changed.
std::string losses(const SimulatedDisk& before, const SimulatedDisk& after,
                   const std::string& flipped, bool segments_only) {
  const std::vector<std::string> left = after.files();
  for (const std::string& path : before.files()) {
    const bool is_segment = path.ends_with(".sst");
    if ((segments_only && !is_segment) || path == flipped) continue;
    if (!std::binary_search(left.begin(), left.end(), path)) return path + " was deleted";
    if (is_segment && before.read_file(path) != after.read_file(path)) return path + " was changed";
  }
  return "";
}

// Reads the leaves of a damaged step one by one: those that verify() did not name must be there.
Outcome examine_leaves(const Store& store, const ModelStep& step, const VerifyReport& report) {
  const auto reader = store.read_step(step.step);
  if (!reader) return bad("a visible step cannot be opened: " + reader.error().message);
  const auto is_named = [&](const std::string& leaf) {
    return std::any_of(report.damages.begin(), report.damages.end(), [&](const Damage& damage) {
      return damage.step == step.step && (!damage.leaf || *damage.leaf == leaf);
    });
  };
  std::size_t lost_leaves = 0;
  for (const ModelLeaf& leaf : model_leaves(step)) {
    const std::string path = model_path(leaf.name);
    std::vector<std::byte> bytes(leaf.bytes.size());
    const auto read = [&]() -> Result<void> {
      const StoredLeaf stored = STEPSTONE_TRY((*reader)->read_leaf(kModelItem, path));
      return (*reader)->read_bytes(kModelItem, stored, 0, bytes);
    };
    if (const Result<void> result = read(); !result) {
      ++lost_leaves;
      const std::string name = to_text(path);
      if (result.error().message.find("'" + name + "'") == std::string::npos) {
        return bad("an error that does not name the leaf: " + result.error().message);
      }
      if (!is_named(name)) {
        return bad("verify() did not name a damaged leaf: " + result.error().message);
      }
    } else if (bytes != leaf.bytes) {
      return bad("leaf " + leaf.name + " has wrong bytes");
    }
  }
  if (lost_leaves == 0) return {"listing damaged", ""};
  return {lost_leaves == 1 ? "one leaf damaged" : "several leaves damaged", ""};
}

// Looks at a store that opened.
Outcome examine(Store& store, const Model& model) {
  std::vector<std::uint64_t> expected;
  for (const auto& [step, ignored] : model) expected.push_back(step);
  if (store.steps() != expected) return bad("steps are missing or new without an error");
  const Result<VerifyReport> report = store.verify();
  if (!report) return bad("verify() failed: " + report.error().message);
  Outcome outcome{"harmless", ""};
  for (const auto& [step, saved] : model) {
    const Result<ModelStep> found = read_model_step(store, step);
    if (found) {
      if (*found != saved) return bad(fmt::format("step {} is another attempt", step));
      continue;
    }
    if (found.error().code == ErrorCode::kMismatch) return bad(found.error().message);
    if (found.error().code != ErrorCode::kCorrupt) {
      return bad("damage is reported as " + std::string(to_string(found.error().code)) + ": " +
                 found.error().message);
    }
    if (found.error().message.find(fmt::format("step {}", step)) == std::string::npos) {
      return bad("an error that does not name the step: " + found.error().message);
    }
    Outcome leaves = examine_leaves(store, saved, *report);
    if (leaves.category.empty()) return leaves;
    outcome = outcome.category == "harmless" ? leaves : Outcome{"several steps damaged", ""};
  }
  return outcome;
}

Outcome try_flip(const SimulatedDisk& image, const Model& model, const Flip& flip) {
  const auto disk = image.copy();
  std::string content = disk->read_file(flip.path);
  content[flip.bit / 8] = static_cast<char>(content[flip.bit / 8] ^ (1 << (flip.bit % 8)));
  disk->write_file(flip.path, std::move(content));
  OpenOptions options;
  options.file_system = disk;
  options.thread_count = 1;
  Outcome outcome;
  {
    const auto store = Store::open(kStorePath, options);
    if (store) {
      outcome = examine(**store, model);
      (*store)->wait_for_collector();
    } else {
      outcome.category = "refused (" + std::string(to_string(store.error().code)) + ")";
    }
  }
  if (outcome.category.empty() || outcome.category == "harmless") return outcome;
  const bool was_refused = outcome.category.starts_with("refused");
  if (std::string loss = losses(image, *disk, flip.path, !was_refused); !loss.empty()) {
    return bad(outcome.category + ", but " + loss);
  }
  if (!was_refused) return outcome;
  // It must not come to think better of it: what the first open changed may hide the damage.
  const auto again = Store::open(kStorePath, options);
  if (!again) return outcome;
  const Outcome second = examine(**again, model);
  if (second.category.empty()) return bad("refused once, then: " + second.problem);
  return {"refused once, then " + second.category, ""};
}

// The bits of the seven-byte headers (checksum, length, type) of RocksDB's log format.
std::vector<std::uint64_t> log_header_bits(const std::string& content) {
  constexpr std::size_t kBlock = 32768;
  constexpr std::size_t kHeader = 7;
  std::vector<std::uint64_t> bits;
  std::size_t at = 0;
  while (at + kHeader <= content.size()) {
    if (kBlock - at % kBlock < kHeader) {
      at += kBlock - at % kBlock;
      continue;
    }
    for (std::uint64_t bit = 0; bit < kHeader * 8; ++bit) bits.push_back(at * 8 + bit);
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(content[at + i]); };
    at += kHeader + byte(4) + std::size_t{byte(5)} * 256;
  }
  return bits;
}

std::vector<Flip> draw_flips(const SimulatedDisk& image, Random& random) {
  std::vector<Flip> flips;
  const auto add_sample = [&](const std::string& path, std::uint64_t begin, std::uint64_t end,
                              std::uint64_t count) {
    if (begin >= end) return;
    for (std::uint64_t i = 0; i < count; ++i) {
      flips.push_back({path, begin + random.below(end - begin)});
    }
  };
  const auto add_all = [&](const std::string& path, const std::vector<std::uint64_t>& bits,
                           std::uint64_t count_max) {
    for (const std::uint64_t bit : bits) {
      if (bits.size() <= count_max || random.below(bits.size()) < count_max) {
        flips.push_back({path, bit});
      }
    }
  };
  for (const std::string& path : image.files()) {
    const std::string content = image.read_file(path);
    const std::uint64_t bits = content.size() * 8;
    const std::string kind = kind_of(path);
    if (bits == 0) continue;
    if (kind == "HEAD") {
      std::vector<std::uint64_t> slots;
      for (std::uint64_t bit = 0; bit < kHeadSlotSizeBytes * 8; ++bit) {
        slots.push_back(bit);
        slots.push_back(kHeadSlotStride * 8 + bit);
      }
      add_all(path, slots, scaled(500));
    } else if (kind == "CURRENT") {
      for (std::uint64_t bit = 0; bit < bits; ++bit) flips.push_back({path, bit});
    } else if (kind == "MANIFEST") {
      add_all(path, log_header_bits(content), scaled(1200));
      add_sample(path, 0, bits, scaled(200));
    } else if (kind == "*.log") {
      add_all(path, log_header_bits(content), scaled(400));
      add_sample(path, 0, bits, scaled(100));
    } else if (kind == "*.sst") {
      // The end holds the index, the properties and the footer, where RocksDB checks least.
      constexpr std::uint64_t kEndBits = 1200 * 8;
      add_sample(path, bits > kEndBits ? bits - kEndBits : 0, bits, scaled(30));
      add_sample(path, 0, bits, scaled(10));
    } else {
      add_sample(path, 0, bits, scaled(10));
    }
  }
  return flips;
}

// As a killed process leaves it.
std::shared_ptr<SimulatedDisk> killed_image() {
  const auto disk = std::make_shared<SimulatedDisk>();
  Recording recording;
  Recorder run(disk, recording, kModelSeed);
  EXPECT_EQ(run.open(), "");
  EXPECT_EQ(run.save(1, StepSize::kSegment), "");
  EXPECT_EQ(run.save(2, StepSize::kSmall), "");
  EXPECT_EQ(run.save(3, StepSize::kSegment, {1}), "");
  run.wait_for_collector();
  EXPECT_EQ(run.save(4, StepSize::kTiny), "");
  EXPECT_EQ(run.save(5, StepSize::kSegment), "");
  EXPECT_EQ(run.save(5, StepSize::kTiny), "");
  // What the next open would rightly delete must not be there.
  run.wait_for_collector();
  EXPECT_EQ(run.save(6, StepSize::kSegment), "");
  // One that is gone but for what another shares with it.
  EXPECT_EQ(run.save(7, StepSize::kShared), "");
  EXPECT_EQ(run.save(8, StepSize::kShared, {7}), "");
  run.wait_for_collector();
  return disk->copy();
}

// After many sessions, the last of which only opened and closed it.
std::shared_ptr<SimulatedDisk> settled_image() {
  const auto disk = std::make_shared<SimulatedDisk>();
  Recording recording;
  Recorder run(disk, recording, kModelSeed);
  for (std::uint64_t session = 0; session < 7; ++session) {
    EXPECT_EQ(run.open(), "");
    EXPECT_EQ(run.save(3 * session, StepSize::kTiny), "");
    EXPECT_EQ(run.save(3 * session + 1, session % 2 == 0 ? StepSize::kSmall : StepSize::kSegment),
              "");
    if (session > 2) {
      EXPECT_EQ(run.retire({3 * session - 9}), "");
    }
    EXPECT_EQ(run.close(), "");
  }
  EXPECT_EQ(run.open(), "");
  EXPECT_EQ(run.close(), "");
  return disk->copy();
}

struct Tally {
  std::map<std::string, std::map<std::string, std::uint64_t>> by_kind;
  std::vector<std::string> problems;
};

void run_flips(const std::string& name, const std::shared_ptr<SimulatedDisk>& image) {
  const std::uint64_t seed = crash_seed();
  Random random(seed);
  const std::vector<Flip> flips = draw_flips(*image, random);
  const TemporaryDirectory temporary;
  const std::filesystem::path image_path = temporary.path() / "image";
  const std::filesystem::path flips_path = temporary.path() / "flips";
  write_image(*image, image_path);
  {
    std::ofstream file(flips_path);
    for (const Flip& flip : flips) file << flip.path << ' ' << flip.bit << '\n';
  }
  Tally tally;
  for (std::size_t next = 0; next < flips.size();) {
    ChildProcess child(
        {"--child", "flip", image_path.string(), flips_path.string(), std::to_string(next)});
    while (const std::optional<std::string> line = child.read_line()) {
      ASSERT_LT(next, flips.size());
      const Flip& flip = flips[next++];
      if (line->starts_with("bad ")) {
        tally.problems.push_back(
            fmt::format("{} bit {}: {}", flip.path, flip.bit, line->substr(4)));
        ++tally.by_kind[kind_of(flip.path)]["BAD"];
      } else {
        ++tally.by_kind[kind_of(flip.path)][*line];
      }
    }
    const ChildProcess::End end = child.wait();
    if (!end.by_signal && end.number == 0) break;
    ASSERT_LT(next, flips.size()) << "the child failed at its end";
    ASSERT_TRUE(end.by_signal) << "the child ended by itself: " << end.number;
    const Flip& flip = flips[next++];
    ++tally.by_kind[kind_of(flip.path)][fmt::format("died by signal {}", end.number)];
    if (end.number != 6) {
      tally.problems.push_back(
          fmt::format("{} bit {}: died by signal {}", flip.path, flip.bit, end.number));
    }
  }
  std::printf("%s store, %zu flips:\n", name.c_str(), flips.size());
  for (const auto& [kind, categories] : tally.by_kind) {
    std::string text;
    for (const auto& [category, count] : categories) {
      text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, category);
    }
    std::printf("  %-9s %s\n", kind.c_str(), text.c_str());
  }
  std::sort(tally.problems.begin(), tally.problems.end());
  for (std::size_t i = 0; i < tally.problems.size() && i < 100; ++i) {
    ADD_FAILURE() << "STEPSTONE_CRASH_SEED=" << seed << " " << tally.problems[i];
  }
  EXPECT_TRUE(tally.problems.empty()) << tally.problems.size() << " in all";
}

}  // namespace

// Arguments: the image, the list of flips, the number of the first one to try. One line for each.
int run_flipping_child(const std::vector<std::string>& arguments) {
  const std::shared_ptr<SimulatedDisk> image = read_image(arguments.at(0));
  if (image == nullptr) return 1;
  const Result<Model> model = model_of(image);
  if (!model) return 1;
  std::ifstream file(arguments.at(1));
  const std::uint64_t first = std::stoull(arguments.at(2));
  Flip flip;
  for (std::uint64_t i = 0; file >> flip.path >> flip.bit; ++i) {
    if (i < first) continue;
    const Outcome outcome = try_flip(*image, *model, flip);
    report_line(outcome.category.empty() ? "bad " + outcome.problem : outcome.category);
  }
  return 0;
}

namespace {

TEST(BitFlip, InAKilledStoreIsHarmlessOrNamedOrRefused) { run_flips("killed", killed_image()); }

TEST(BitFlip, InASettledStoreIsHarmlessOrNamedOrRefused) { run_flips("settled", settled_image()); }

// Every bit of HEAD's file, without opening the store: either HEAD reads as before, or as the
// commit before, which is what a torn write would have left.
TEST(BitFlip, InHeadNeverMakesUpACommit) {
  const auto image = killed_image();
  const std::string path = std::string(kStorePath) + "/HEAD";
  std::string bytes = image->read_file(path);
  const auto decode = [&] { return decode_head(std::as_bytes(std::span(bytes))); };
  const Result<Head> whole = decode();
  ASSERT_TRUE(whole.has_value()) << whole.error().message;
  std::uint64_t older = 0;
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    const auto flip = [&] {
      bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    };
    flip();
    const Result<Head> head = decode();
    flip();
    ASSERT_TRUE(head.has_value()) << "bit " << bit << ": " << head.error().message;
    if (*head == *whole) continue;
    ++older;
    ASSERT_EQ(head->sequence, whole->sequence - 1) << "bit " << bit;
    ASSERT_EQ(head->store_id, whole->store_id) << "bit " << bit;
  }
  EXPECT_EQ(older, kHeadSlotSizeBytes * 8);
}

}  // namespace
}  // namespace stepstone
