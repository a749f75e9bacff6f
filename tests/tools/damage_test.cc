// Goal: damage is found, named, and hurts nothing else. Method: a byte of a store's segment is
// flipped at places drawn over the whole file; the command is then asked to verify the store and to
// give every leaf.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <random>

#include "tests/tools/support.h"

namespace stepstone::tool {
namespace {

using nlohmann::json;

class DamageTest : public TemporaryDirectoryTest {
 protected:
  DamageTest() {
    write_file(path("in.safetensors"), canonical_safetensors_bytes(tensors_));
    const CommandResult result =
        run_stepstone({"import", path("in.safetensors"), store(), "--step", "7"});
    EXPECT_EQ(result.exit_code, 0) << result.error;
    choose_segment_with(tensors_[2].bytes.substr(1000, 64));
  }

  // The segment that has these bytes, which stand in it as they are, becomes the one that flip()
  // damages.
  void choose_segment_with(std::string_view bytes) {
    for (const auto& entry : std::filesystem::directory_iterator(store())) {
      if (entry.path().extension() != ".sst") continue;
      segment_ = entry.path();
      segment_bytes_ = read_file(segment_);
      if (segment_bytes_.find(bytes) != std::string::npos) return;
    }
    FAIL() << "no segment has the bytes";
  }

  std::string store() const { return path("run").string(); }

  void flip(std::size_t position) const {
    std::string damaged = segment_bytes_;
    damaged[position] = static_cast<char>(damaged[position] ^ 0x10);
    write_file(segment_, damaged);
  }

  static constexpr std::uint64_t kSeed = 99;

  // Enough bytes for segments, in leaves of which some have several chunks.
  const std::vector<NamedTensor> tensors_ = {
      random_tensor("a", DType::kFloat32, {100'000}, kSeed),
      random_tensor("b", DType::kFloat32, {3}, kSeed + 1),
      random_tensor("c", DType::kFloat32, {200, 200}, kSeed + 2),
      random_tensor("d", DType::kFloat32, {300'000}, kSeed + 3),
  };
  std::filesystem::path segment_;
  std::string segment_bytes_;
};

TEST_F(DamageTest, UndamagedStoreVerifies) {
  const CommandResult text = run_stepstone({"verify", store()});
  EXPECT_EQ(text.exit_code, 0) << text.error;
  EXPECT_NE(text.output.find("no damage"), std::string::npos) << text.output;
  const CommandResult result = run_stepstone({"verify", store(), "--step", "7", "--json"});
  EXPECT_EQ(result.exit_code, 0) << result.error;
  const json answer = json::parse(result.output);
  std::uint64_t size_bytes = 0;
  for (const NamedTensor& tensor : tensors_) size_bytes += tensor.bytes.size();
  EXPECT_EQ(answer, json({{"store", store()},
                          {"step_count", 1},
                          {"leaf_count", tensors_.size()},
                          {"size_bytes", size_bytes},
                          {"damages", json::array()}}));
}

TEST_F(DamageTest, FlippedByteIsFoundWhereverItIs) {
  std::mt19937_64 generator(kSeed);
  SCOPED_TRACE(fmt::format("seed {}", kSeed));
  for (int round = 0; round < 24; ++round) {
    // Half of them near the end, where the file's index and footer are.
    const std::size_t range =
        round % 2 == 0 ? segment_bytes_.size() : std::min<std::size_t>(segment_bytes_.size(), 4096);
    const std::size_t position = segment_bytes_.size() - 1 - generator() % range;
    SCOPED_TRACE(fmt::format("byte {} of {}", position, segment_bytes_.size()));
    flip(position);
    const CommandResult result = run_stepstone({"verify", store(), "--json"});
    EXPECT_EQ(result.exit_code, 1);
    const json answer = json::parse(result.output, nullptr, /*allow_exceptions=*/false);
    ASSERT_TRUE(answer.is_object()) << result.output;
    // Damage to what RocksDB reads at open makes the whole store's answer an error.
    if (answer.contains("error")) {
      EXPECT_EQ(answer["error"]["code"], "corrupt") << answer;
      continue;
    }
    ASSERT_FALSE(answer["damages"].empty());
    for (const json& damage : answer["damages"]) {
      EXPECT_EQ(damage["step"], 7);
      EXPECT_FALSE(damage["message"].get<std::string>().empty());
    }
  }
}

TEST_F(DamageTest, FlippedByteOfALeafHurtsThatLeafAlone) {
  const NamedTensor& victim = tensors_[2];
  flip(segment_bytes_.find(victim.bytes.substr(1000, 64)));

  const CommandResult text = run_stepstone({"verify", store()});
  EXPECT_EQ(text.exit_code, 1);
  EXPECT_EQ(text.output.find("step 7 item 'default' leaf 'c'"), 0U) << text.output;
  const CommandResult result = run_stepstone({"verify", store(), "--json"});
  const json damages = json::parse(result.output)["damages"];
  ASSERT_EQ(damages.size(), 1U) << damages;
  EXPECT_EQ(damages[0]["step"], 7);
  EXPECT_EQ(damages[0]["item"], "default");
  EXPECT_EQ(damages[0]["leaf"], "c");

  for (const NamedTensor& tensor : tensors_) {
    SCOPED_TRACE(tensor.name);
    const CommandResult cat = run_stepstone({"cat", store(), "7", tensor.name, "--raw"});
    if (tensor.name == victim.name) {
      EXPECT_EQ(cat.exit_code, 1);
      EXPECT_NE(cat.error.find("step 7 item 'default' leaf 'c'"), std::string::npos) << cat.error;
      EXPECT_NE(cat.output, tensor.bytes);
    } else {
      EXPECT_EQ(cat.exit_code, 0) << cat.error;
      EXPECT_EQ(cat.output, tensor.bytes);
    }
  }

  // An export would be half a file: there is none, and nothing else is left either.
  const CommandResult exported =
      run_stepstone({"export", store(), "7", "-o", path("out.safetensors")});
  EXPECT_EQ(exported.exit_code, 1);
  EXPECT_NE(exported.error.find("leaf 'c'"), std::string::npos) << exported.error;
  for (const auto& entry : std::filesystem::directory_iterator(path(""))) {
    EXPECT_FALSE(entry.path().filename().string().starts_with("out")) << entry.path();
  }
}

// Goal: one block of leaf records lost leaves the other leaves listed. Method: so many small
// leaves, whose bytes stand in their records, that these fill many blocks; a byte of one leaf is
// flipped.
TEST_F(DamageTest, DamagedRecordDoesNotHideTheOthersFromShow) {
  std::vector<NamedTensor> tensors = {tensors_[0]};
  constexpr std::size_t kSmallCount = 2000;
  for (std::size_t i = 0; i < kSmallCount; ++i) {
    tensors.push_back(
        random_tensor(fmt::format("small{:04}", i), DType::kUint8, {100}, kSeed + 10 + i));
  }
  const NamedTensor& victim = tensors[kSmallCount / 2];
  write_file(path("many.safetensors"), canonical_safetensors_bytes(tensors));
  const CommandResult import =
      run_stepstone({"import", path("many.safetensors"), store(), "--step", "8"});
  ASSERT_EQ(import.exit_code, 0) << import.error;
  choose_segment_with(victim.bytes);
  flip(segment_bytes_.find(victim.bytes));

  const CommandResult result = run_stepstone({"show", store(), "8", "--json"});
  EXPECT_EQ(result.exit_code, 1);
  const json answer = json::parse(result.output);
  ASSERT_EQ(answer["leaves"].size(), tensors.size()) << answer;
  std::size_t damaged_count = 0;
  bool is_victim_damaged = false;
  for (const json& leaf : answer["leaves"]) {
    if (!leaf.contains("damage")) continue;
    ++damaged_count;
    is_victim_damaged = is_victim_damaged || leaf["path"] == victim.name;
  }
  EXPECT_TRUE(is_victim_damaged);
  EXPECT_EQ(answer["damaged_count"], damaged_count);
  EXPECT_LT(damaged_count, tensors.size() / 2);

  const CommandResult text = run_stepstone({"show", store(), "8"});
  EXPECT_EQ(text.exit_code, 1);
  EXPECT_NE(text.output.find(victim.name + "  DAMAGED"), std::string::npos);
}

}  // namespace
}  // namespace stepstone::tool
