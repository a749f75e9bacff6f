#pragma once
// Steps whose every byte follows from a few numbers, so that a test can tell a step that came back
// whole from any mixture, truncation or misplacement without having kept a copy.

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/store.h"

namespace stepstone {

// How large a step is, and with that how the engine places it.
enum class StepSize : std::uint8_t {
  kTiny,     // A few hundred bytes, in the commit batch.
  kSmall,    // About 130 KiB with a leaf of several chunks, in the commit batch.
  kSegment,  // About 300 KiB, just enough for segments.
  kMedium,   // A few MiB.
  kLarge,    // About 18 MiB: several segments of chunks.
  kShared,   // About 650 KiB, most of it as in the attempts before.
  kSkewed,   // The same in bytes of few values, saved unencoded.
  kMoving,   // As large, each byte as in the other attempts but for a few, saved as deltas.
};

// One attempt to save one step. All that its leaves hold follows from this.
struct ModelStep {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  std::uint64_t attempt = 0;  // Tells the saves of one step apart.
  StepSize size = StepSize::kTiny;

  bool operator==(const ModelStep&) const = default;
};

std::string to_string(const ModelStep& step);

// What a store should show: its steps, by number.
using Model = std::map<std::uint64_t, ModelStep>;

std::string to_string(const Model& model);

// The item that a model step has its leaves in.
inline constexpr const char* kModelItem = "state";

struct ModelLeaf {
  std::string name;
  std::vector<std::byte> bytes;
};
std::vector<ModelLeaf> model_leaves(const ModelStep& step);
// A leaf's encoded path.
std::string model_path(const std::string& name);

// Saves it whole, with `retire` in the same commit.
Result<StepRecord> save_model_step(Store& store, const ModelStep& step, bool overwrite = false,
                                   std::span<const std::uint64_t> retire = {});

// Which attempt a step is, as its record says; nullopt: none of ours.
std::optional<ModelStep> identify(const StepRecord& record);

// Reads every byte of a step, finds out which attempt it is and compares it with what that attempt
// saved. An error of the store is passed on; kMismatch, which no read gives: the bytes came back
// wrong without an error.
Result<ModelStep> read_model_step(const Store& store, std::uint64_t step);

// All steps of the store. kMismatch as above.
Result<Model> read_model(const Store& store);

// Empty if the store shows exactly `expected` and verify() finds no damage, else what is wrong.
std::string difference(const Store& store, const Model& expected);

}  // namespace stepstone
