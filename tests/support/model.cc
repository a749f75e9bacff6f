#include "tests/support/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>

#include "format/hash.h"
#include "format/leaf_path.h"
#include "tests/support/random.h"

namespace stepstone {
namespace {

constexpr std::uint32_t kChunkSizeBytes = std::uint32_t{64} << 10;

struct LeafPlan {
  std::string name;
  std::size_t size_bytes;
};

std::vector<LeafPlan> plan(StepSize size) {
  constexpr std::size_t kKiB = 1024;
  // An empty leaf and a short one are in every step.
  std::vector<LeafPlan> leaves = {{"empty", 0}, {"scalar", 8}, {"layer/0", 300}};
  switch (size) {
    case StepSize::kTiny:
      break;
    case StepSize::kSmall:
      leaves.push_back({"kernel", 100 * kKiB + 7});  // Two chunks.
      leaves.push_back({"bias", 30 * kKiB});         // Inline, and large for that.
      break;
    case StepSize::kSegment:
      leaves.push_back({"kernel", 270 * kKiB + 1});
      leaves.push_back({"bias", 20 * kKiB});
      break;
    case StepSize::kMedium:
      leaves.push_back({"kernel", 2500 * kKiB + 13});
      leaves.push_back({"moment", 700 * kKiB});
      leaves.push_back({"bias", 32 * kKiB});
      break;
    case StepSize::kLarge:
      leaves.push_back({"kernel", 9000 * kKiB + 3});
      leaves.push_back({"moment", 9000 * kKiB + 3});
      break;
    case StepSize::kShared:
    case StepSize::kSkewed:
    case StepSize::kMoving:
      leaves.push_back({"kernel", 9 * std::size_t{kChunkSizeBytes} + 77});
      leaves.push_back({"bias", 40 * kKiB});
      break;
  }
  std::sort(leaves.begin(), leaves.end(),
            [](const LeafPlan& a, const LeafPlan& b) { return a.name < b.name; });
  return leaves;
}

void fill(std::span<std::byte> bytes, const std::string& identity) {
  Random random(hash128(std::as_bytes(std::span(identity))).low);
  for (std::size_t at = 0; at < bytes.size(); at += 8) {
    const std::uint64_t value = random.next();
    std::memcpy(bytes.data() + at, &value, std::min<std::size_t>(8, bytes.size() - at));
  }
}

std::vector<std::byte> contents(const ModelStep& step, const LeafPlan& leaf) {
  std::vector<std::byte> bytes(leaf.size_bytes);
  if (step.size < StepSize::kShared) {
    fill(bytes, fmt::format("{} {} {} {}", step.seed, step.step, step.attempt, leaf.name));
    return bytes;
  }
  if (step.size == StepSize::kMoving) {
    fill(bytes, fmt::format("{} {}", step.seed, leaf.name));
    std::vector<std::byte> changes(bytes.size() / 100);
    fill(changes, fmt::format("{} {} {}", step.seed, step.attempt, leaf.name));
    for (std::size_t i = 0; i < changes.size(); ++i) bytes[100 * i] = changes[i];
    return bytes;
  }
  // Whatever the step, chunks change with every attempt, every second, every fourth, every eighth.
  std::span<std::byte> rest(bytes);
  for (unsigned chunk = 0; !rest.empty(); ++chunk) {
    const std::size_t size = std::min<std::size_t>(rest.size(), kChunkSizeBytes);
    fill(rest.first(size),
         fmt::format("{} {} {} {}", step.seed, step.attempt >> chunk % 4, leaf.name, chunk));
    rest = rest.subspan(size);
  }
  if (step.size == StepSize::kSkewed) {
    for (std::byte& byte : bytes) byte &= std::byte{7};
  }
  return bytes;
}

// The identity of a step travels in its metadata: "seed step attempt size", as JSON.
std::string identity_of(const ModelStep& step) {
  return fmt::format("[{},{},{},{}]", step.seed, step.step, step.attempt,
                     static_cast<unsigned>(step.size));
}

std::optional<ModelStep> parse_identity(const std::string& text) {
  ModelStep step;
  unsigned long long numbers[3] = {};
  unsigned size = 0;
  if (std::sscanf(text.c_str(), "[%llu,%llu,%llu,%u]", &numbers[0], &numbers[1], &numbers[2],
                  &size) != 4 ||
      size > static_cast<unsigned>(StepSize::kMoving)) {
    return std::nullopt;
  }
  step.seed = numbers[0];
  step.step = numbers[1];
  step.attempt = numbers[2];
  step.size = static_cast<StepSize>(size);
  return step;
}

tl::unexpected<Error> wrong(std::uint64_t step, const std::string& what) {
  return fail(ErrorCode::kMismatch, fmt::format("step {}: {}", step, what));
}

}  // namespace

std::string to_string(const ModelStep& step) {
  return fmt::format("step {} attempt {} size {}", step.step, step.attempt,
                     static_cast<unsigned>(step.size));
}

std::string to_string(const Model& model) {
  std::string text;
  for (const auto& [number, step] : model) {
    text += fmt::format("{}{}#{}", text.empty() ? "" : " ", number, step.attempt);
  }
  return "{" + text + "}";
}

std::vector<ModelLeaf> model_leaves(const ModelStep& step) {
  std::vector<ModelLeaf> leaves;
  for (const LeafPlan& leaf : plan(step.size)) {
    leaves.push_back({leaf.name, contents(step, leaf)});
  }
  return leaves;
}

std::string model_path(const std::string& name) {
  return encode_path({PathComponent::key(name)}).value();
}

Result<StepRecord> save_model_step(Store& store, const ModelStep& step, bool overwrite,
                                   std::span<const std::uint64_t> retire) {
  SaveOptions options;
  options.overwrite = overwrite;
  options.chunk_size_bytes = kChunkSizeBytes;
  options.custom_metadata = identity_of(step);
  if (step.size == StepSize::kSkewed) options.compression = Compression::kNone;
  if (step.size == StepSize::kMoving) options.compression = Compression::kDelta;
  const std::vector<ModelLeaf> leaves = model_leaves(step);
  const std::unique_ptr<StepWriter> writer = STEPSTONE_TRY(store.begin_save(step.step, options));
  TreeStructure structure;
  structure.kinds.assign(leaves.size() + 1, NodeKind::kLeaf);
  structure.kinds[0] = NodeKind::kDict;
  structure.child_counts = {static_cast<std::uint32_t>(leaves.size())};
  for (const ModelLeaf& leaf : leaves) {
    append_component(structure.labels, PathComponent::key(leaf.name));
  }
  STEPSTONE_TRY(writer->put_item(kModelItem, "model", structure));
  for (const ModelLeaf& leaf : leaves) {
    STEPSTONE_TRY(writer->put_leaf(kModelItem,
                                   STEPSTONE_TRY(encode_path({PathComponent::key(leaf.name)})),
                                   {.kind = LeafKind::kArray,
                                    .dtype = DType::kUint8,
                                    .shape = {leaf.bytes.size()},
                                    .size_bytes = leaf.bytes.size()},
                                   std::make_shared<MemorySource>(leaf.bytes)));
  }
  return writer->commit(retire);
}

std::optional<ModelStep> identify(const StepRecord& record) {
  return parse_identity(record.custom_metadata);
}

Result<ModelStep> read_model_step(const Store& store, std::uint64_t number) {
  const std::shared_ptr<const StepReader> reader = STEPSTONE_TRY(store.read_step(number));
  const std::optional<ModelStep> step = identify(reader->record());
  if (!step) return wrong(number, "its metadata is not what any attempt wrote");
  if (step->step != number) return wrong(number, "it is another step: " + to_string(*step));
  const std::vector<LeafPlan> leaves = plan(step->size);
  const std::vector<StoredLeaf> stored = STEPSTONE_TRY(reader->read_leaves(kModelItem));
  if (stored.size() != leaves.size()) return wrong(number, "it has other leaves");
  std::vector<std::vector<std::byte>> read(leaves.size());
  std::vector<ReadRequest> requests;
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    if (stored[i].record.size_bytes != leaves[i].size_bytes ||
        stored[i].encoded_path != model_path(leaves[i].name)) {
      return wrong(number, "leaf " + leaves[i].name + " is another one");
    }
    read[i].resize(leaves[i].size_bytes);
    requests.push_back({kModelItem, &stored[i], read[i]});
  }
  STEPSTONE_TRY(reader->read_all(requests));
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    if (read[i] != contents(*step, leaves[i])) {
      return wrong(number, "leaf " + leaves[i].name + " has wrong bytes");
    }
  }
  return *step;
}

Result<Model> read_model(const Store& store) {
  Model model;
  for (const std::uint64_t step : store.steps()) {
    model.emplace(step, STEPSTONE_TRY(read_model_step(store, step)));
  }
  return model;
}

std::string difference(const Store& store, const Model& expected) {
  const Result<Model> found = read_model(store);
  if (!found) return "reading failed: " + found.error().message;
  if (*found != expected) {
    return "the store shows " + to_string(*found) + " instead of " + to_string(expected);
  }
  const Result<VerifyReport> report = store.verify();
  if (!report) return "verify() failed: " + report.error().message;
  if (!report->damages.empty()) return "verify() found: " + report->damages.front().message;
  if (report->step_count != expected.size()) return "verify() saw another number of steps";
  return "";
}

}  // namespace stepstone
