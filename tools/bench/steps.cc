// Many steps of one run: tiny-steps, shared, retire.

#include <unistd.h>

#include <algorithm>
#include <array>

#include "api/checkpoint_manager.h"
#include "tools/bench/context.h"
#include "tools/bench/counting_file_system.h"
#include "tools/bench/raw.h"

namespace stepstone::bench {
namespace {

constexpr std::uint64_t kKept = 3;

double as_double(std::uint64_t value) { return static_cast<double>(value); }

std::uint64_t step_count(const Context& context, std::uint64_t default_count) {
  const std::uint64_t asked = context.settings().step_count;
  return asked != 0 ? asked : std::max<std::uint64_t>(default_count / context.settings().shrink, 5);
}

// The steps that are too many once `step` has been saved, where they are 0, 1, 2 and so on.
std::vector<std::uint64_t> retired_by(std::uint64_t step) {
  if (step < kKept) return {};
  return {step - kKept};
}

// What a run leaves behind as it goes on: files, bytes, and how long opening takes.
struct Footprint {
  std::vector<double> files;
  std::vector<double> disk;
  std::vector<double> open_ms;

  Result<void> sample(const Context& context) {
    files.push_back(as_double(files_below(context.store_path()).size()));
    disk.push_back(as_double(disk_bytes(context.store_path())));
    Result<std::unique_ptr<Store>> store = nullptr;
    open_ms.push_back(
        seconds_of([&] { store = Store::open(context.store_path(), open_options(context)); }) *
        1e3);
    return STEPSTONE_TRY(std::move(store))->close();
  }
};

Result<void> count_tiny_steps(Context& context, State& state) {
  if (!context.wants({"fsyncs", "written_bytes"})) return {};
  const auto file_system = std::make_shared<CountingFileSystem>();
  OpenOptions options = open_options(context);
  options.file_system = file_system;
  const std::filesystem::path path = context.scratch() / "counted";
  const auto store = STEPSTONE_TRY(Store::open(path, options));
  const Tree tree = STEPSTONE_TRY(state.borrowed_tree());
  std::vector<double> fsyncs;
  std::vector<double> written;
  for (std::uint64_t step = 0; step < 20; ++step) {
    state.fill(step);
    file_system->reset();
    STEPSTONE_TRY(save_tree(context.codec(), *store, step, tree, retired_by(step)));
    store->wait_for_collector();
    if (step < kKept) continue;
    fsyncs.push_back(as_double(file_system->counts().fsyncs));
    written.push_back(as_double(file_system->counts().written_bytes));
  }
  context.add("fsyncs", "fsyncs", std::move(fsyncs));
  context.add("written_bytes", "bytes", std::move(written),
              {"the state's bytes", {as_double(state.size_bytes())}});
  return store->close();
}

}  // namespace

Result<void> run_tiny_steps(Context& context) {
  // 196,608 bytes: a small network and its optimizer.
  State state = STEPSTONE_TRY(State::make(equal_leaves(12, 4096), 0));
  context.describe_state(state.size_bytes(), state.leaves().size());
  const std::uint64_t steps = step_count(context, 500);
  STEPSTONE_TRY(context.check_space(std::uint64_t{1} << 30));
  const args::StandardSave arguments(STEPSTONE_TRY(state.borrowed_tree()));
  const auto open = [&] {
    return CheckpointManager::open(context.store_path(),
                                   {.max_to_keep = kKept, .enable_async_checkpointing = false});
  };
  auto manager = STEPSTONE_TRY(open());
  const std::filesystem::path raw_file = context.scratch() / "raw";
  Limit limit{"append and fdatasync", {}};
  std::vector<double> seconds;
  // Taken in the first and in the last tenth of the run.
  std::array<Footprint, 2> footprints;
  const std::uint64_t tenth = std::max<std::uint64_t>(1, steps / 10);
  const std::uint64_t interval = std::max<std::uint64_t>(1, tenth / context.sample_count());
  for (std::uint64_t step = 0; step < steps; ++step) {
    STEPSTONE_TRY(Context::check_interrupted());
    state.fill(step);
    if (step % 256 == 0) std::filesystem::remove(raw_file);
    limit.samples.push_back(STEPSTONE_TRY(append_durably(raw_file, state.bytes())));
    Result<bool> saved = false;
    seconds.push_back(seconds_of([&] { saved = manager->save(step, arguments); }));
    STEPSTONE_TRY(std::move(saved));
    const bool is_first = step < tenth;
    if ((!is_first && step < steps - tenth) || step % interval != 0) continue;
    STEPSTONE_TRY(manager->close());
    STEPSTONE_TRY(footprints[is_first ? 0 : 1].sample(context));
    manager = STEPSTONE_TRY(open());
  }
  const Tree restored = STEPSTONE_TRY(manager->restore(std::nullopt));
  STEPSTONE_TRY(state.check(restored));
  STEPSTONE_TRY(manager->close());
  context.add_rate("save", state.size_bytes(), std::move(seconds), std::move(limit));
  STEPSTONE_TRY(count_tiny_steps(context, state));
  auto& [first, last] = footprints;
  constexpr const char* kFirst = "in the first tenth";
  context.add("files", "files", std::move(last.files), {kFirst, std::move(first.files)});
  context.add("disk_bytes", "bytes", std::move(last.disk), {kFirst, std::move(first.disk)});
  context.add("open", "ms", std::move(last.open_ms), {kFirst, std::move(first.open_ms)});
  return {};
}

namespace {

// The leaf that changes with a step: the largest matrix of one of the blocks of the parameters.
std::size_t changed_leaf(const State& state, std::uint64_t step) {
  const std::string name = "h." + std::to_string(step % 12) + ".mlp.c_fc.weight";
  const auto& leaves = state.leaves();
  const auto leaf = std::ranges::find(leaves, name, &StateLeaf::name);
  return static_cast<std::size_t>(leaf - leaves.begin());
}

// What one step with one changed leaf writes.
Result<void> count_shared(Context& context, State& state) {
  if (!context.wants({"written_bytes", "fsyncs"})) return {};
  const auto file_system = std::make_shared<CountingFileSystem>();
  OpenOptions options = open_options(context);
  options.file_system = file_system;
  const auto store = STEPSTONE_TRY(Store::open(context.store_path(), options));
  const Tree tree = STEPSTONE_TRY(state.borrowed_tree());
  STEPSTONE_TRY(save_tree(context.codec(), *store, 0, tree));
  std::vector<double> fsyncs;
  std::vector<double> written;
  for (std::uint64_t step = 1; step <= 3; ++step) {
    STEPSTONE_TRY(Context::check_interrupted());
    state.fill_leaf(changed_leaf(state, step), step);
    file_system->reset();
    STEPSTONE_TRY(save_tree(context.codec(), *store, step, tree));
    fsyncs.push_back(as_double(file_system->counts().fsyncs));
    written.push_back(as_double(file_system->counts().written_bytes));
  }
  context.add("fsyncs", "fsyncs", std::move(fsyncs));
  const std::uint64_t changed_bytes = state.leaf_bytes(changed_leaf(state, 1)).size();
  context.add("written_bytes", "bytes", std::move(written),
              {"the changed leaf's bytes", {as_double(changed_bytes)}});
  return store->close();
}

}  // namespace

Result<void> run_shared(Context& context) {
  State state = STEPSTONE_TRY(State::make(gpt2_leaves(context.settings().shrink), 0));
  context.describe_state(state.size_bytes(), state.leaves().size());
  const std::uint64_t steps =
      context.settings().step_count != 0 ? context.settings().step_count : context.sample_count();
  STEPSTONE_TRY(context.check_space(5 * state.size_bytes()));
  STEPSTONE_TRY(count_shared(context, state));
  std::error_code ignored;
  std::filesystem::remove_all(context.store_path(), ignored);
  ::sync();

  const Tree tree = STEPSTONE_TRY(state.borrowed_tree());
  const auto store = STEPSTONE_TRY(Store::open(context.store_path(), open_options(context)));
  STEPSTONE_TRY(save_tree(context.codec(), *store, 0, tree));
  std::uint64_t needed = state.size_bytes();
  Limit limit{"a read, all processors", {}};
  std::vector<double> seconds;
  for (std::uint64_t step = 1; step <= steps; ++step) {
    STEPSTONE_TRY(Context::check_interrupted());
    STEPSTONE_TRY(context.check_space(2 * state.size_bytes()));
    const std::size_t leaf = changed_leaf(state, step);
    state.fill_leaf(leaf, 1000 + step);
    needed += state.leaf_bytes(leaf).size();
    limit.samples.push_back(STEPSTONE_TRY(parallel_read(state.bytes(), context.thread_count())));
    Result<StepRecord> saved;
    seconds.push_back(seconds_of([&] { saved = save_tree(context.codec(), *store, step, tree); }));
    STEPSTONE_TRY(std::move(saved));
  }
  context.add_rate("save", state.size_bytes(), std::move(seconds), std::move(limit));
  Memory memory = STEPSTONE_TRY(Memory::allocate(state.size_bytes()));
  STEPSTONE_TRY(read_into(*store, steps, memory.bytes()));
  STEPSTONE_TRY(check_read(*store, steps, state, memory.bytes()));
  STEPSTONE_TRY(store->close());
  context.add("disk_bytes", "bytes", {as_double(disk_bytes(context.store_path()))},
              {"one step and the changes", {as_double(needed)}});
  return {};
}

namespace {

Result<void> time_retiring(Context& context, State& state) {
  if (!context.wants({"retire", "retire_small"})) return {};
  const auto store = STEPSTONE_TRY(Store::open(context.store_path(), open_options(context)));
  State small = STEPSTONE_TRY(State::make(equal_leaves(10, 64), 0));
  const Tree big_tree = STEPSTONE_TRY(state.borrowed_tree());
  const Tree small_tree = STEPSTONE_TRY(small.borrowed_tree());
  STEPSTONE_TRY(save_tree(context.codec(), *store, 0, small_tree));
  Limit limit{"4 KiB appended and fdatasync", {}};
  std::vector<double> big_ms;
  std::vector<double> small_ms;
  STEPSTONE_TRY(context.repeat([&](unsigned sample) -> Result<void> {
    const std::uint64_t steps[] = {2 * sample + 1, 2 * sample + 2};
    state.fill(steps[0]);
    STEPSTONE_TRY(save_tree(context.codec(), *store, steps[0], big_tree));
    STEPSTONE_TRY(save_tree(context.codec(), *store, steps[1], small_tree));
    ::sync();
    limit.samples.push_back(
        STEPSTONE_TRY(append_durably(context.scratch() / "raw", state.bytes().first(4096))) * 1e3);
    for (const std::uint64_t& step : steps) {
      Result<void> retired;
      std::vector<double>& times = &step == &steps[0] ? big_ms : small_ms;
      times.push_back(seconds_of([&] { retired = store->retire(std::span(&step, 1)); }) * 1e3);
      STEPSTONE_TRY(std::move(retired));
      store->wait_for_collector();
    }
    return {};
  }));
  context.add("retire", "ms", std::move(big_ms), limit);
  context.add("retire_small", "ms", std::move(small_ms), std::move(limit));
  STEPSTONE_TRY(store->close());
  std::filesystem::remove_all(context.store_path());
  return {};
}

}  // namespace

Result<void> run_retire(Context& context) {
  State state = STEPSTONE_TRY(State::make(gpt2_leaves(context.settings().shrink), 0));
  context.describe_state(state.size_bytes(), state.leaves().size());
  STEPSTONE_TRY(context.check_space((kKept + 2) * state.size_bytes()));
  STEPSTONE_TRY(time_retiring(context, state));
  if (!context.wants({"written_bytes", "device_written_bytes", "disk_bytes"})) return {};

  const std::uint64_t steps = step_count(context, 10);
  const auto file_system = std::make_shared<CountingFileSystem>();
  OpenOptions options = open_options(context);
  options.file_system = file_system;
  const auto store = STEPSTONE_TRY(Store::open(context.store_path(), options));
  const Tree tree = STEPSTONE_TRY(state.borrowed_tree());
  file_system->reset();
  const std::uint64_t device_before = device_written_bytes();
  std::vector<double> disk;
  for (std::uint64_t step = 0; step < steps; ++step) {
    STEPSTONE_TRY(Context::check_interrupted());
    state.fill(step);
    STEPSTONE_TRY(save_tree(context.codec(), *store, step, tree, retired_by(step)));
    store->wait_for_collector();
    if (step >= kKept) disk.push_back(as_double(disk_bytes(context.store_path())));
  }
  STEPSTONE_TRY(store->close());
  const Limit saved{"the bytes saved", {as_double(steps * state.size_bytes())}};
  context.add("written_bytes", "bytes", {as_double(file_system->counts().written_bytes)}, saved);
  context.add("device_written_bytes", "bytes", {as_double(device_written_bytes() - device_before)},
              saved);
  context.add("disk_bytes", "bytes", std::move(disk),
              {"the steps kept", {as_double(kKept * state.size_bytes())}});
  return {};
}

}  // namespace stepstone::bench
