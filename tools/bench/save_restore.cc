// One state saved and restored: gpt2, small, big.

#include <unistd.h>

#include <string>

#include "api/checkpoint_manager.h"
#include "api/checkpoint_plan.h"
#include "tools/bench/child.h"
#include "tools/bench/context.h"
#include "tools/bench/counting_file_system.h"
#include "tools/bench/raw.h"

namespace stepstone::bench {
namespace {

constexpr std::uint64_t kSeed = 1;

// A new store in place of the one that was there, with everything before it on the disk.
Result<std::unique_ptr<Store>> new_store(const Context& context, const OpenOptions& options) {
  std::error_code ignored;
  std::filesystem::remove_all(context.store_path(), ignored);
  ::sync();
  return Store::open(context.store_path(), options);
}

// Saves of new numbers into a store that goes on and keeps the newest. The first two are not
// counted: they obtain what the later ones use again, and the codec `auto` has tried what it
// chooses between.
Result<void> measure_save(Context& context, State& state) {
  if (!context.wants({"save"})) return {};
  constexpr std::uint64_t kUncounted = 2;
  const Tree tree = STEPSTONE_TRY(state.borrowed_tree());
  const auto store = STEPSTONE_TRY(new_store(context, open_options(context)));
  DurableWrites raw;
  std::vector<double> seconds;
  for (std::uint64_t step = 0; step < kUncounted + context.sample_count(); ++step) {
    STEPSTONE_TRY(Context::check_interrupted());
    state.fill(kSeed + step);
    if (step >= kUncounted) STEPSTONE_TRY(raw.sample(context.scratch(), state.bytes()));
    const std::uint64_t previous = step - 1;
    const auto retired = std::span(&previous, step == 0 ? 0 : 1);
    Result<StepRecord> saved;
    const double time =
        seconds_of([&] { saved = save_tree(context.codec(), *store, step, tree, retired); });
    STEPSTONE_TRY(std::move(saved));
    if (step >= kUncounted) seconds.push_back(time);
    store->wait_for_collector();
    ::sync();
  }
  context.add_rate("save", state.size_bytes(), std::move(seconds), raw.best());
  state.fill(kSeed);
  return store->close();
}

// A save each, of new numbers, into a store that goes on.
Result<void> count_writes(Context& context, State& state) {
  if (!context.wants({"fsyncs", "written_bytes"})) return {};
  constexpr std::uint64_t kSaves = 3;
  const auto file_system = std::make_shared<CountingFileSystem>();
  OpenOptions options = open_options(context);
  options.file_system = file_system;
  const auto store = STEPSTONE_TRY(new_store(context, options));
  const Tree tree = STEPSTONE_TRY(state.borrowed_tree());
  std::vector<double> fsyncs;
  std::vector<double> written;
  for (std::uint64_t step = 0; step < kSaves; ++step) {
    STEPSTONE_TRY(Context::check_interrupted());
    if (step > 0) state.fill(kSeed + step);
    store->wait_for_collector();
    file_system->reset();
    const std::uint64_t previous = step - 1;
    STEPSTONE_TRY(
        save_tree(context.codec(), *store, step, tree, std::span(&previous, step == 0 ? 0 : 1)));
    fsyncs.push_back(static_cast<double>(file_system->counts().fsyncs));
    written.push_back(static_cast<double>(file_system->counts().written_bytes));
  }
  context.add("fsyncs", "fsyncs", std::move(fsyncs));
  context.add("written_bytes", "bytes", std::move(written),
              {"the state's bytes", {static_cast<double>(state.size_bytes())}});
  state.fill(kSeed);
  return store->close();
}

// The time from an unopened store to the bytes of a leaf in the middle.
Result<double> time_first_leaf(const Context& context, const State& state) {
  const StateLeaf& leaf = state.leaves()[state.leaves().size() / 2];
  LeafPath path;
  if (!leaf.group.empty()) path.push_back(PathComponent::key(leaf.group));
  path.push_back(PathComponent::key(leaf.name));
  const std::string encoded = STEPSTONE_TRY(encode_path(path));
  std::vector<std::byte> bytes(state.leaf_bytes(state.leaves().size() / 2).size());
  std::unique_ptr<Store> store;
  const auto read = [&]() -> Result<void> {
    store = STEPSTONE_TRY(Store::open(context.store_path(), {.read_only = true}));
    const auto reader = STEPSTONE_TRY(store->read_step(0));
    const StoredLeaf stored = STEPSTONE_TRY(reader->read_leaf(kDefaultItem, encoded));
    return reader->read_bytes(kDefaultItem, stored, 0, bytes);
  };
  Result<void> result;
  const double seconds = seconds_of([&] { result = read(); });
  STEPSTONE_TRY(std::move(result));
  STEPSTONE_TRY(store->close());
  return seconds;
}

Result<void> measure_warm_restore(Context& context, const State& state) {
  Memory destination = STEPSTONE_TRY(Memory::allocate(state.size_bytes()));
  const std::filesystem::path raw_file = context.scratch() / "raw";
  STEPSTONE_TRY(write_file(raw_file, state.bytes()));
  STEPSTONE_TRY(warm(context.scratch()));
  Limit limit{"pread, all processors", {}};
  std::vector<double> into_memory;
  std::vector<double> into_new_memory;
  std::vector<double> first_leaf;
  STEPSTONE_TRY(context.repeat([&](unsigned sample) -> Result<void> {
    limit.samples.push_back(
        STEPSTONE_TRY(parallel_pread(raw_file, destination.bytes(), context.thread_count())));
    const auto store = STEPSTONE_TRY(Store::open(context.store_path(), open_options(context)));
    // Once before the clock runs: the limit has its file open and its memory touched, too.
    if (sample == 0) STEPSTONE_TRY(read_into(*store, 0, destination.bytes()));
    Result<void> read;
    into_memory.push_back(seconds_of([&] { read = read_into(*store, 0, destination.bytes()); }));
    STEPSTONE_TRY(std::move(read));
    if (sample == 0) STEPSTONE_TRY(check_read(*store, 0, state, destination.bytes()));
    STEPSTONE_TRY(store->close());
    if (context.wants({"restore_warm_new_memory"})) {
      const auto manager =
          STEPSTONE_TRY(CheckpointManager::open(context.store_path(), {.read_only = true}));
      Result<Tree> tree = Tree();
      into_new_memory.push_back(seconds_of([&] { tree = manager->restore(0); }));
      const Tree restored = STEPSTONE_TRY(std::move(tree));
      if (sample == 0) STEPSTONE_TRY(state.check(restored));
      STEPSTONE_TRY(manager->close());
    }
    if (context.wants({"leaf_first"})) {
      first_leaf.push_back(STEPSTONE_TRY(time_first_leaf(context, state)) * 1e3);
    }
    return {};
  }));
  std::filesystem::remove(raw_file);
  context.add_rate("restore_warm", state.size_bytes(), std::move(into_memory), limit);
  context.add_rate("restore_warm_new_memory", state.size_bytes(), std::move(into_new_memory),
                   std::move(limit));
  context.add("leaf_first", "ms", std::move(first_leaf));
  return {};
}

Result<void> measure_cold_restore(Context& context, const State& state) {
  if (!context.wants({"restore_cold"})) return {};
  Memory destination = STEPSTONE_TRY(Memory::allocate(state.size_bytes()));
  Limit limit{"cold read, in sequence", {}};
  std::vector<double> seconds;
  STEPSTONE_TRY(context.repeat([&](unsigned /*sample*/) -> Result<void> {
    STEPSTONE_TRY(evict(context.store_path()));
    limit.samples.push_back(STEPSTONE_TRY(sequential_read(segments_below(context.store_path()))));
    STEPSTONE_TRY(evict(context.store_path()));
    std::unique_ptr<Store> store;
    const auto restore = [&]() -> Result<void> {
      store = STEPSTONE_TRY(Store::open(context.store_path(), open_options(context)));
      return read_into(*store, 0, destination.bytes());
    };
    Result<void> restored;
    seconds.push_back(seconds_of([&] { restored = restore(); }));
    STEPSTONE_TRY(std::move(restored));
    return store->close();
  }));
  context.add_rate("restore_cold", state.size_bytes(), std::move(seconds), std::move(limit));
  return {};
}

Result<void> measure_restore(Context& context, const State& state) {
  const bool is_warm = context.wants({"restore_warm", "restore_warm_new_memory", "leaf_first"});
  if (!is_warm && !context.wants({"restore_cold"})) return {};
  const auto store = STEPSTONE_TRY(new_store(context, open_options(context)));
  STEPSTONE_TRY(save_tree(context.codec(), *store, 0, STEPSTONE_TRY(state.borrowed_tree())));
  STEPSTONE_TRY(store->close());
  if (is_warm) STEPSTONE_TRY(measure_warm_restore(context, state));
  return measure_cold_restore(context, state);
}

// How long CheckpointManager::save keeps the trainer waiting. The first save is not counted: it is
// the one that allocates what the later ones use again.
Result<void> measure_stall(Context& context, State& state, bool is_owned) {
  const char* const metric = is_owned ? "save_async_stall_immutable" : "save_async_stall_mutable";
  if (!context.wants({metric})) return {};
  std::error_code ignored;
  std::filesystem::remove_all(context.store_path(), ignored);
  Memory copy;
  if (!is_owned) copy = STEPSTONE_TRY(Memory::allocate(state.size_bytes()));
  const args::StandardSave arguments(
      STEPSTONE_TRY(is_owned ? state.owned_tree() : state.borrowed_tree()));
  const auto manager =
      STEPSTONE_TRY(CheckpointManager::open(context.store_path(), {.max_to_keep = 1}));
  Limit limit{"memcpy, all processors", {}};
  std::vector<double> stalls;
  std::uint64_t step = 0;
  const auto save = [&]() -> Result<double> {
    Result<bool> saved = false;
    const double seconds = seconds_of([&] { saved = manager->save(step, arguments); });
    STEPSTONE_TRY(std::move(saved));
    STEPSTONE_TRY(manager->wait_until_finished());
    state.fill(++step);
    return seconds;
  };
  STEPSTONE_TRY(save());
  STEPSTONE_TRY(context.repeat([&](unsigned /*sample*/) -> Result<void> {
    if (!is_owned) {
      limit.samples.push_back(
          STEPSTONE_TRY(parallel_copy(copy.bytes(), state.bytes(), context.thread_count())) * 1e3);
    }
    stalls.push_back(STEPSTONE_TRY(save()) * 1e3);
    return {};
  }));
  context.add(metric, "ms", std::move(stalls), std::move(limit));
  return manager->close();
}

// The peak of the memory beyond the state, program included, in fresh processes.
Result<void> measure_memory(Context& context, const std::string& workload,
                            std::uint64_t state_bytes) {
  if (!context.wants({"peak_extra_bytes"})) return {};
  std::error_code ignored;
  std::filesystem::remove_all(context.store_path(), ignored);
  const auto peak = [&](const char* operation) -> Result<double> {
    STEPSTONE_TRY(Context::check_interrupted());
    const std::string output = STEPSTONE_TRY(
        run_self({"bench-child", operation, workload, context.store_path().string(), "--shrink",
                  std::to_string(context.settings().shrink), "--codec", context.codec()}));
    return std::strtod(output.c_str(), nullptr);
  };
  const double save = STEPSTONE_TRY(peak("save"));
  const double restore = STEPSTONE_TRY(peak("restore"));
  const double restore_new = STEPSTONE_TRY(peak("restore_new_memory"));
  const double immutable = STEPSTONE_TRY(peak("async_immutable"));
  const double is_mutable = STEPSTONE_TRY(peak("async_mutable"));
  context.add("peak_extra_bytes", "bytes", {std::max({save, restore, restore_new})});
  context.add("peak_extra_bytes_save", "bytes", {save});
  context.add("peak_extra_bytes_restore", "bytes", {restore});
  context.add("peak_extra_bytes_restore_new_memory", "bytes", {restore_new});
  context.add("peak_extra_bytes_async_immutable", "bytes", {immutable});
  context.add("peak_extra_bytes_async_mutable", "bytes", {is_mutable},
              {"one copy of the state", {static_cast<double>(state_bytes)}});
  return {};
}

std::vector<StateLeaf> leaves_of(std::string_view workload, std::uint64_t shrink) {
  const auto shrunk = [shrink](std::size_t count) {
    return std::max<std::size_t>(1, count / static_cast<std::size_t>(shrink));
  };
  if (workload == "small") return equal_leaves(shrunk(10'000), 1024 / sizeof(float));
  if (workload == "big") return equal_leaves(16, shrunk((std::size_t{64} << 20) / sizeof(float)));
  return gpt2_leaves(shrink);
}

Result<void> run_state(Context& context, const std::string& workload) {
  std::uint64_t state_bytes = 0;
  {
    State state = STEPSTONE_TRY(State::make(leaves_of(workload, context.settings().shrink), kSeed));
    state_bytes = state.size_bytes();
    context.describe_state(state_bytes, state.leaves().size());
    STEPSTONE_TRY(context.check_space(4 * state_bytes));
    STEPSTONE_TRY(measure_save(context, state));
    STEPSTONE_TRY(count_writes(context, state));
    STEPSTONE_TRY(measure_restore(context, state));
    STEPSTONE_TRY(measure_stall(context, state, false));
    STEPSTONE_TRY(measure_stall(context, state, true));
  }
  return measure_memory(context, workload, state_bytes);
}

}  // namespace

Result<void> run_gpt2(Context& context) { return run_state(context, "gpt2"); }
Result<void> run_small(Context& context) { return run_state(context, "small"); }
Result<void> run_big(Context& context) { return run_state(context, "big"); }

}  // namespace stepstone::bench

namespace stepstone::tool {
namespace {

using bench::Memory;
using bench::State;

Result<void> save_in_background(const std::filesystem::path& store, State& state, bool is_owned) {
  const auto manager = STEPSTONE_TRY(CheckpointManager::open(store, {.max_to_keep = 1}));
  const args::StandardSave arguments(
      STEPSTONE_TRY(is_owned ? state.owned_tree() : state.borrowed_tree()));
  const std::uint64_t first = manager->latest_step().value_or(0) + 1;
  bench::reset_peak();
  for (std::uint64_t step = first; step < first + 2; ++step) {
    STEPSTONE_TRY(manager->save(step, arguments));
    STEPSTONE_TRY(manager->wait_until_finished());
    state.fill(step);
  }
  return manager->close();
}

Result<void> measure(const BenchChildArguments& arguments, std::uint64_t& state_bytes) {
  std::vector<bench::StateLeaf> leaves = bench::leaves_of(arguments.workload, arguments.shrink);
  if (arguments.operation == "restore_new_memory") {
    for (const bench::StateLeaf& leaf : leaves) {
      state_bytes += STEPSTONE_TRY(array_size_bytes(DType::kFloat32, leaf.shape));
    }
    const auto manager = STEPSTONE_TRY(CheckpointManager::open(arguments.store, {.create = false}));
    bench::reset_peak();
    STEPSTONE_TRY(manager->restore(std::nullopt));
    return {};
  }
  State state = STEPSTONE_TRY(State::make(std::move(leaves), bench::kSeed));
  state_bytes = state.size_bytes();
  if (arguments.operation == "restore") {
    const auto store = STEPSTONE_TRY(Store::open(arguments.store, {}));
    bench::reset_peak();
    return bench::read_into(*store, store->latest_step().value_or(0), state.bytes());
  }
  if (arguments.operation == "save") {
    const auto store = STEPSTONE_TRY(Store::open(arguments.store, {.create_if_missing = true}));
    const Tree tree = STEPSTONE_TRY(state.borrowed_tree());
    bench::reset_peak();
    STEPSTONE_TRY(bench::save_tree(arguments.codec, *store, 0, tree));
    return {};
  }
  return save_in_background(arguments.store, state, arguments.operation == "async_immutable");
}

}  // namespace

Result<int> run_bench_child(const BenchChildArguments& arguments, Console& console) {
  std::uint64_t state_bytes = 0;
  STEPSTONE_TRY(measure(arguments, state_bytes));
  const std::uint64_t peak = bench::status_bytes("VmHWM");
  const std::uint64_t extra = peak - std::min(peak, state_bytes);
  STEPSTONE_TRY(console.output.write(std::to_string(extra) + "\n"));
  return kExitOk;
}

}  // namespace stepstone::tool
