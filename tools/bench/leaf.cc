// One leaf of 1 KiB among very many.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "api/checkpoint_plan.h"
#include "tools/bench/context.h"
#include "tools/bench/raw.h"
#include "tools/system.h"

namespace stepstone::bench {
namespace {

constexpr std::uint64_t kLeafBytes = 1024;

// Which leaf is read next, and of which step: the same in every run.
class Draw {
 public:
  Draw(std::uint64_t step_count, std::vector<std::string> paths)
      : step_count_(step_count), paths_(std::move(paths)) {}

  Result<void> read_next(const Store& store, std::span<std::byte> bytes) {
    const std::uint64_t random = mix(++state_ * 0x9E3779B97F4A7C15);
    const auto reader = STEPSTONE_TRY(store.read_step(random % step_count_));
    const StoredLeaf leaf =
        STEPSTONE_TRY(reader->read_leaf(kDefaultItem, paths_[(random >> 32) % paths_.size()]));
    return reader->read_bytes(kDefaultItem, leaf, 0, bytes);
  }

 private:
  std::uint64_t state_ = 0;
  std::uint64_t step_count_;
  std::vector<std::string> paths_;
};

// Reads of 1 KiB at random places of a file in the page cache.
Result<std::vector<double>> raw_reads(const std::filesystem::path& path, std::uint64_t size_bytes,
                                      std::size_t count) {
  const tool::FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::vector<std::byte> bytes(kLeafBytes);
  std::vector<double> microseconds;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t place = mix(i) % (size_bytes / kLeafBytes) * kLeafBytes;
    ssize_t read = 0;
    microseconds.push_back(seconds_of([&] {
                             read = ::pread(file.get(), bytes.data(), bytes.size(),
                                            static_cast<off_t>(place));
                           }) *
                           1e6);
    if (read != static_cast<ssize_t>(bytes.size())) {
      return tl::unexpected<Error>(tool::system_error(errno, path.native()));
    }
  }
  return microseconds;
}

Result<void> measure_warm(Context& context, Draw& draw, const State& state) {
  if (!context.wants({"leaf_warm_p50", "leaf_warm_p99"})) return {};
  constexpr std::size_t kReads = 20'000;
  const std::filesystem::path raw_file = context.scratch() / "raw";
  STEPSTONE_TRY(write_file(raw_file, state.bytes()));
  const auto store = STEPSTONE_TRY(Store::open(context.store_path(), open_options(context)));
  std::vector<std::byte> bytes(kLeafBytes);
  std::vector<double> medians;
  std::vector<double> slowest;
  Limit limit{"pread of 1 KiB", {}};
  // The first round warms the store's caches and is not counted.
  for (unsigned round = 0; round <= context.sample_count(); ++round) {
    STEPSTONE_TRY(Context::check_interrupted());
    std::vector<double> microseconds;
    for (std::size_t read = 0; read < kReads; ++read) {
      Result<void> result;
      microseconds.push_back(seconds_of([&] { result = draw.read_next(*store, bytes); }) * 1e6);
      STEPSTONE_TRY(std::move(result));
    }
    if (round == 0) continue;
    medians.push_back(median(microseconds));
    std::ranges::sort(microseconds);
    slowest.push_back(microseconds[kReads * 99 / 100]);
    limit.samples.push_back(median(STEPSTONE_TRY(raw_reads(raw_file, state.size_bytes(), kReads))));
  }
  context.add("leaf_warm_p50", "us", std::move(medians), limit);
  context.add("leaf_warm_p99", "us", std::move(slowest));
  return store->close();
}

// Opening the store and reading one leaf: as who only reads does it, or as a trainer, which takes
// the lock and begins a new log.
Result<void> measure_first(Context& context, Draw& draw, const char* metric, bool is_read_only,
                           bool is_cold) {
  if (!context.wants({metric})) return {};
  OpenOptions options = open_options(context);
  options.create_if_missing = false;
  options.read_only = is_read_only;
  std::vector<double> milliseconds;
  std::vector<std::byte> bytes(kLeafBytes);
  STEPSTONE_TRY(is_cold ? Result<void>() : warm(context.store_path()));
  STEPSTONE_TRY(context.repeat([&](unsigned /*sample*/) -> Result<void> {
    if (is_cold) STEPSTONE_TRY(evict(context.store_path()));
    std::unique_ptr<Store> store;
    const auto open_and_read = [&]() -> Result<void> {
      store = STEPSTONE_TRY(Store::open(context.store_path(), options));
      return draw.read_next(*store, bytes);
    };
    Result<void> read;
    milliseconds.push_back(seconds_of([&] { read = open_and_read(); }) * 1e3);
    STEPSTONE_TRY(std::move(read));
    return store->close();
  }));
  context.add(metric, "ms", std::move(milliseconds));
  return {};
}

}  // namespace

Result<void> run_leaf(Context& context) {
  const Settings& settings = context.settings();
  const std::uint64_t steps = settings.step_count != 0 ? settings.step_count : 10;
  const std::uint64_t all_leaves =
      settings.leaf_count != 0 ? settings.leaf_count : std::uint64_t{100'000} / settings.shrink;
  const std::uint64_t leaves = std::max<std::uint64_t>(1, all_leaves / steps);
  State state = STEPSTONE_TRY(
      State::make(equal_leaves(static_cast<std::size_t>(leaves), kLeafBytes / sizeof(float)), 0));
  context.describe_state(steps * state.size_bytes(), steps * leaves);
  STEPSTONE_TRY(context.check_space(2 * steps * state.size_bytes()));
  {
    const auto store = STEPSTONE_TRY(Store::open(context.store_path(), open_options(context)));
    const Tree tree = STEPSTONE_TRY(state.borrowed_tree());
    for (std::uint64_t step = 0; step < steps; ++step) {
      STEPSTONE_TRY(Context::check_interrupted());
      state.fill(step);
      STEPSTONE_TRY(save_tree(context.codec(), *store, step, tree));
    }
    STEPSTONE_TRY(store->close());
  }
  std::vector<std::string> paths;
  for (const StateLeaf& leaf : state.leaves()) {
    paths.push_back(STEPSTONE_TRY(encode_path({PathComponent::key(leaf.name)})));
  }
  Draw draw(steps, std::move(paths));
  STEPSTONE_TRY(measure_first(context, draw, "leaf_first", true, false));
  STEPSTONE_TRY(measure_first(context, draw, "leaf_first_writable", false, false));
  STEPSTONE_TRY(measure_warm(context, draw, state));
  STEPSTONE_TRY(measure_first(context, draw, "leaf_first_cold", true, true));
  context.add("disk_bytes", "bytes", {static_cast<double>(disk_bytes(context.store_path()))},
              {"the leaves' bytes", {static_cast<double>(steps * state.size_bytes())}});
  return {};
}

}  // namespace stepstone::bench
