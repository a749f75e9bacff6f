// Makes the stores that the browser's test looks at: make_report_store sample|wide DIRECTORY
//
// sample: a training run in small: steps that share what did not change, metrics, steps that were
// let go, a NaN that appears and spreads, and names that are hostile to a page. wide: 100,000
// leaves. grow: one more step for a sample. What they hold follows from the numbers below alone.
#include <stepstone/stepstone.h>

#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace stepstone;

constexpr std::uint64_t kInterval = 100;
constexpr std::uint64_t kLastStep = 2400;
constexpr std::uint64_t kFrozenUntil = 1200;
constexpr std::uint64_t kFirstNan = 1900;

Array normal(std::vector<std::uint64_t> shape, double deviation, std::uint64_t seed,
             std::size_t nan_count = 0) {
  std::size_t count = 1;
  for (const std::uint64_t extent : shape) count *= static_cast<std::size_t>(extent);
  std::mt19937_64 generator(seed);
  std::normal_distribution<float> distribution(0, static_cast<float>(deviation));
  std::vector<float> values(count);
  for (float& value : values) value = distribution(generator);
  for (std::size_t i = 0; i < nan_count; ++i) {
    values[(i * 977) % count] =
        i == 7 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
  }
  return Array::copy_of(std::span<const float>(values), std::move(shape)).value();
}

Tree layer(std::uint64_t number, std::uint64_t step, double scale) {
  const std::uint64_t seed = number * 1000 + step;
  const double growth = scale * (0.05 + 0.02 * std::log1p(static_cast<double>(step) / 300.0));
  const std::size_t nan_count =
      number >= 2 && step >= kFirstNan + 200 * (number - 2) ? (step - kFirstNan) / 20 + 3 : 0;
  return Tree::dict({{"attention", Tree::dict({{"query", normal({96, 96}, growth, seed + 1)},
                                               {"key", normal({96, 96}, growth, seed + 2)},
                                               {"value", normal({96, 96}, growth * 0.8, seed + 3)},
                                               {"out", normal({96, 96}, growth * 0.7, seed + 4)}})},
                     {"mlp", Tree::dict({{"up", normal({96, 384}, growth, seed + 5, nan_count)},
                                         {"down", normal({384, 96}, growth * 0.6, seed + 6)},
                                         {"bias", normal({384}, 0.01, seed + 7)}})},
                     {"norm", Tree::dict({{"scale", normal({96}, 0.1, seed + 8)}})}});
}

Tree layers(std::uint64_t step, double scale) {
  std::vector<Tree> list;
  for (std::uint64_t number = 0; number < 6; ++number) {
    list.push_back(layer(number, step, scale));
  }
  return Tree::list(std::move(list));
}

Tree sample(std::uint64_t step) {
  // Frozen at first, so that the steps share it.
  const std::uint64_t embedding_seed = step < kFrozenUntil ? 1 : step;
  return Tree::dict({{"params", Tree::dict({{"embedding", normal({3000, 96}, 0.02, embedding_seed)},
                                            {"layers", layers(step, 1)},
                                            {"head", normal({96, 500}, 0.04, step + 5)}})},
                     {"optimizer", Tree::dict({{"mu", layers(step + 1, 0.01)},
                                               {"count", static_cast<int>(step)}})},
                     {"</script><img src=x onerror=alert(1)>", normal({4}, 1, 9)},
                     {"\xE2\x80\xA8 line <b>\"'&amp;", normal({4}, 1, 10)},
                     {"schedule", "cosine"}});
}

Result<void> save_samples(const std::string& directory, std::uint64_t first, std::uint64_t last) {
  const auto policy = std::make_shared<AnyPreservationPolicy>(
      PreservationPolicies{std::make_shared<LatestN>(4), std::make_shared<EveryNSteps>(300)});
  auto manager = STEPSTONE_TRY(CheckpointManager::open(directory, {.preservation_policy = policy}));
  for (std::uint64_t step = first; step <= last; step += kInterval) {
    const auto t = static_cast<double>(step);
    const double noise = 0.05 * std::sin(t * 1.7);
    const double loss = 0.4 + 2.6 * std::exp(-t / 500) + noise + (step > kFirstNan ? 0.3 : 0);
    STEPSTONE_TRY(manager->save(
        step, args::StandardSave(sample(step)),
        {.metrics = Tree::dict({{"loss", loss}, {"accuracy", 0.9 - 0.7 * std::exp(-t / 700)}})}));
  }
  STEPSTONE_TRY(manager->wait_until_finished());
  return manager->close();
}

Result<void> save_wide(const std::string& directory) {
  auto manager = STEPSTONE_TRY(CheckpointManager::open(directory, {}));
  const Array small = normal({8}, 1, 1);
  const Array large = normal({64}, 1, 2);
  for (std::uint64_t step = 0; step < 2; ++step) {
    std::vector<std::pair<std::string, Tree>> blocks;
    for (int block = 0; block < 100; ++block) {
      std::vector<std::pair<std::string, Tree>> experts;
      for (int expert = 0; expert < 250; ++expert) {
        experts.emplace_back(
            "expert_" + std::to_string(expert),
            Tree::dict({{"up", large}, {"down", small}, {"gate", small}, {"bias", small}}));
      }
      blocks.emplace_back("block_" + std::to_string(block), Tree::dict(std::move(experts)));
    }
    STEPSTONE_TRY(manager->save(step, args::StandardSave(Tree::dict(std::move(blocks)))));
  }
  STEPSTONE_TRY(manager->wait_until_finished());
  return manager->close();
}

Result<void> make(std::string_view kind, const std::string& directory) {
  if (kind == "sample") return save_samples(directory, 0, kLastStep);
  if (kind == "grow") return save_samples(directory, kLastStep + kInterval, kLastStep + kInterval);
  if (kind == "wide") return save_wide(directory);
  return fail(ErrorCode::kInvalidArgument, "what is to be made: sample, grow or wide");
}

}  // namespace

int main(int argument_count, char** arguments) {
  if (argument_count != 3) {
    std::fputs("usage: make_report_store sample|grow|wide DIRECTORY\n", stderr);
    return 2;
  }
  const Result<void> made = make(arguments[1], arguments[2]);
  if (made) return 0;
  std::fprintf(stderr, "%s\n", made.error().message.c_str());
  return 1;
}
