// The portable file: out of a store, into a store, and read in place.

#include <fcntl.h>
#include <unistd.h>

#include "api/checkpoint_plan.h"
#include "engine/transfer.h"
#include "tools/bench/context.h"
#include "tools/bench/raw.h"
#include "tools/system.h"

namespace stepstone::bench {
namespace {

constexpr std::uint64_t kStateSeed = 1;
constexpr std::uint64_t kFirstLeafBytes = 1024;

std::filesystem::path portable_path(const Context& context) {
  return context.scratch() / "portable" / "state.stone";
}

// Imports the file, which comes from the disk, under another number and without sharing, so that
// all of it is written; and before, a bare copy of it, from the disk as well.
Result<double> import_cold(Context& context, Store& other, std::uint64_t step,
                           std::uint64_t size_bytes, Compression compression,
                           std::vector<double>& copies) {
  const std::filesystem::path directory = portable_path(context).parent_path();
  STEPSTONE_TRY(evict(directory));
  copies.push_back(STEPSTONE_TRY(
      durable_copy(portable_path(context), context.scratch(), size_bytes, context.thread_count())));
  ::sync();
  STEPSTONE_TRY(evict(directory));
  const auto portable = STEPSTONE_TRY(Store::open(portable_path(context), {}));
  Result<ImportCounters> imported;
  const double seconds = seconds_of([&] {
    imported = other.import_steps(*portable,
                                  {.as_step = step, .share = false, .compression = compression});
  });
  STEPSTONE_TRY(std::move(imported));
  STEPSTONE_TRY(other.retire(std::span(&step, 1)));
  other.wait_for_collector();
  ::sync();
  return seconds;
}

// In turns: the raw limit, a save of new numbers, an export of them, an import of that file into
// another store, from the disk and from memory. Both stores go on and keep the newest step; the
// first two rounds are not counted.
Result<void> measure_copies(Context& context, State& state) {
  constexpr std::uint64_t kUncounted = 2;
  const Tree tree = STEPSTONE_TRY(state.borrowed_tree());
  const auto store = STEPSTONE_TRY(Store::open(context.store_path(), open_options(context)));
  const auto other = STEPSTONE_TRY(Store::open(context.scratch() / "other", open_options(context)));
  std::error_code ignored;
  std::filesystem::create_directory(portable_path(context).parent_path(), ignored);
  const Compression compression = STEPSTONE_TRY(parse_codec(context.codec()));
  DurableWrites raw;
  Limit save{"a save of the same run", {}};
  std::vector<double> exports;
  std::vector<double> imports;
  std::vector<double> cold_imports;
  std::vector<double> cold_copies;
  for (std::uint64_t step = 0; step < kUncounted + context.sample_count(); ++step) {
    STEPSTONE_TRY(Context::check_interrupted());
    const bool is_counted = step >= kUncounted;
    const std::uint64_t previous = step - 1;
    const auto retired = std::span(&previous, step == 0 ? 0 : 1);
    state.fill(kStateSeed + step);
    if (is_counted) STEPSTONE_TRY(raw.sample(context.scratch(), state.bytes()));
    Result<StepRecord> saved;
    const double save_seconds =
        seconds_of([&] { saved = save_tree(context.codec(), *store, step, tree, retired); });
    STEPSTONE_TRY(std::move(saved));
    store->wait_for_collector();
    ::sync();
    std::filesystem::remove(portable_path(context), ignored);
    ::sync();
    Result<ExportCounters> exported;
    const double export_seconds =
        seconds_of([&] { exported = store->export_steps(portable_path(context), {}); });
    STEPSTONE_TRY(std::move(exported));
    ::sync();
    constexpr std::uint64_t kOtherNumbers = 1'000'000;
    const double cold_seconds = STEPSTONE_TRY(import_cold(
        context, *other, kOtherNumbers + step, state.size_bytes(), compression, cold_copies));
    // The export went past the page cache, and the save beside it reads from memory, too.
    STEPSTONE_TRY(warm(portable_path(context).parent_path()));
    const auto portable = STEPSTONE_TRY(Store::open(portable_path(context), {}));
    Result<ImportCounters> imported;
    const double import_seconds = seconds_of(
        [&] { imported = other->import_steps(*portable, {.compression = compression}); });
    STEPSTONE_TRY(std::move(imported));
    STEPSTONE_TRY(other->retire(retired));
    other->wait_for_collector();
    ::sync();
    if (!is_counted) {
      cold_copies.clear();
      continue;
    }
    cold_imports.push_back(cold_seconds);
    save.samples.push_back(save_seconds);
    exports.push_back(export_seconds);
    imports.push_back(import_seconds);
  }
  context.add_rate("export", state.size_bytes(), std::move(exports), raw.best());
  context.add_rate("import_cold", state.size_bytes(), std::move(cold_imports), save);
  context.add_rate("copy_cold", state.size_bytes(), std::move(cold_copies), save);
  context.add_rate("import", state.size_bytes(), std::move(imports), std::move(save));
  STEPSTONE_TRY(other->close());
  return store->close();
}

// All leaves into the caller's memory, and all of them looked at where they are.
Result<void> measure_reads(Context& context, const State& state) {
  Memory destination = STEPSTONE_TRY(Memory::allocate(state.size_bytes()));
  const std::filesystem::path raw_file = context.scratch() / "raw";
  STEPSTONE_TRY(write_file(raw_file, state.bytes()));
  STEPSTONE_TRY(warm(context.scratch()));
  const auto store = STEPSTONE_TRY(
      Store::open(portable_path(context), {.thread_count = context.settings().thread_count}));
  const std::uint64_t step = store->latest_step().value_or(0);
  const auto reader = STEPSTONE_TRY(store->read_step(step));
  const std::vector<StoredLeaf> leaves = STEPSTONE_TRY(reader->read_leaves(kDefaultItem));
  Limit limit{"pread, all processors", {}};
  std::vector<double> restores;
  std::vector<double> views;
  STEPSTONE_TRY(context.repeat([&](unsigned /*sample*/) -> Result<void> {
    limit.samples.push_back(
        STEPSTONE_TRY(parallel_pread(raw_file, destination.bytes(), context.thread_count())));
    Result<void> result;
    restores.push_back(seconds_of([&] { result = read_into(*store, step, destination.bytes()); }));
    STEPSTONE_TRY(std::move(result));
    const auto view_all = [&]() -> Result<void> {
      for (const StoredLeaf& leaf : leaves) {
        STEPSTONE_TRY(reader->view(kDefaultItem, leaf, ViewCheck::kNothing));
      }
      return {};
    };
    Result<void> viewed;
    views.push_back(seconds_of([&] { viewed = view_all(); }) * 1e6 /
                    static_cast<double>(leaves.size()));
    return viewed;
  }));
  STEPSTONE_TRY(check_read(*store, step, state, destination.bytes()));
  context.add_rate("restore_warm", state.size_bytes(), std::move(restores), std::move(limit));
  context.add("view", "us", std::move(views));
  return {};
}

// The time from an unopened file of 10,000 leaves to the bytes of one of them.
Result<void> measure_first_leaf(Context& context) {
  constexpr std::size_t kOpens = 200;
  const std::size_t leaf_count =
      std::max<std::size_t>(1, 10'000 / static_cast<std::size_t>(context.settings().shrink));
  const State state = STEPSTONE_TRY(
      State::make(equal_leaves(leaf_count, kFirstLeafBytes / sizeof(float)), kStateSeed));
  context.describe_state(state.size_bytes(), leaf_count, "1KiB-leaves");
  const std::filesystem::path path = context.scratch() / "leaves.stone";
  {
    const auto store =
        STEPSTONE_TRY(Store::open(context.scratch() / "leaves", open_options(context)));
    STEPSTONE_TRY(save_tree(context.codec(), *store, 0, STEPSTONE_TRY(state.borrowed_tree())));
    STEPSTONE_TRY(store->export_steps(path, {}));
  }
  STEPSTONE_TRY(warm(context.scratch()));
  std::vector<std::byte> bytes(kFirstLeafBytes);
  Limit limit{"open and pread of 1 KiB", {}};
  std::vector<double> medians;
  STEPSTONE_TRY(context.repeat([&](unsigned sample) -> Result<void> {
    std::vector<double> microseconds;
    std::vector<double> raw;
    for (std::size_t i = 0; i < kOpens; ++i) {
      const std::size_t leaf = mix(sample * kOpens + i) % leaf_count;
      const std::string encoded =
          STEPSTONE_TRY(encode_path({PathComponent::key(state.leaves()[leaf].name)}));
      const auto open_and_read = [&]() -> Result<void> {
        const auto store = STEPSTONE_TRY(Store::open(path, {}));
        const auto reader = STEPSTONE_TRY(store->read_step(0));
        const StoredLeaf stored = STEPSTONE_TRY(reader->read_leaf(kDefaultItem, encoded));
        return reader->read_bytes(kDefaultItem, stored, 0, bytes);
      };
      Result<void> result;
      microseconds.push_back(seconds_of([&] { result = open_and_read(); }) * 1e6);
      STEPSTONE_TRY(std::move(result));
      ssize_t size = 0;
      raw.push_back(seconds_of([&] {
                      const tool::FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
                      size = ::pread(file.get(), bytes.data(), bytes.size(), 4096);
                    }) *
                    1e6);
      if (size < 0) return tl::unexpected<Error>(tool::system_error(errno, path.native()));
    }
    medians.push_back(median(std::move(microseconds)));
    limit.samples.push_back(median(std::move(raw)));
    return {};
  }));
  context.add("open_first_leaf", "us", std::move(medians), std::move(limit));
  return {};
}

}  // namespace

Result<void> run_portable(Context& context) {
  if (context.wants({"open_first_leaf"})) STEPSTONE_TRY(measure_first_leaf(context));
  if (!context.wants({"export", "import", "import_cold", "restore_warm", "view"})) return {};
  State state = STEPSTONE_TRY(State::make(gpt2_leaves(context.settings().shrink), kStateSeed));
  context.describe_state(state.size_bytes(), state.leaves().size());
  STEPSTONE_TRY(context.check_space(6 * state.size_bytes()));
  STEPSTONE_TRY(measure_copies(context, state));
  return measure_reads(context, state);
}

}  // namespace stepstone::bench
