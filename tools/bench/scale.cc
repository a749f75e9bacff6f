// Whether time grows in proportion: states from 1 MB to 8 GB, and from 10 to 1,000,000 leaves.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "tools/bench/context.h"
#include "tools/bench/raw.h"

namespace stepstone::bench {
namespace {

struct Point {
  double size = 0;  // Bytes or leaves.
  double seconds = 0;
};

// seconds = fixed + slope * size, by least squares of relative errors (each point weighs
// 1 / seconds^2), so that the small sizes count as much as the large ones; r2 is the share of the
// variance of log(seconds) that the line explains. The exponent is the slope of log(seconds) over
// log(size) between the upper half of the sizes: 1 is in proportion.
struct Fit {
  double fixed = 0;
  double slope = 0;
  double r2 = 0;
  double exponent = 0;
};

Fit fit_line(const std::vector<Point>& points) {
  double weights = 0;
  double sizes = 0;
  double times = 0;
  double squares = 0;
  double products = 0;
  for (const Point& point : points) {
    const double weight = 1 / (point.seconds * point.seconds);
    weights += weight;
    sizes += weight * point.size;
    times += weight * point.seconds;
    squares += weight * point.size * point.size;
    products += weight * point.size * point.seconds;
  }
  Fit fit;
  const double determinant = weights * squares - sizes * sizes;
  if (points.size() < 2 || determinant == 0) return fit;
  fit.slope = (weights * products - sizes * times) / determinant;
  fit.fixed = (times - fit.slope * sizes) / weights;
  double mean = 0;
  for (const Point& point : points) {
    mean += std::log(point.seconds) / static_cast<double>(points.size());
  }
  double rest = 0;
  double variance = 0;
  for (const Point& point : points) {
    const double line = std::max(fit.fixed + fit.slope * point.size, 1e-9);
    rest += std::pow(std::log(point.seconds) - std::log(line), 2);
    variance += std::pow(std::log(point.seconds) - mean, 2);
  }
  fit.r2 = variance == 0 ? 1 : 1 - rest / variance;
  const Point& middle = points[points.size() / 2 - (points.size() == 2 ? 1 : 0)];
  const Point& last = points.back();
  if (last.size > middle.size) {
    fit.exponent = std::log(last.seconds / middle.seconds) / std::log(last.size / middle.size);
  }
  return fit;
}

struct Times {
  std::vector<Point> save;
  std::vector<Point> restore;
};

// One size: `point` is what it has of what grows.
Result<void> measure(Context& context, const std::vector<StateLeaf>& leaves, double point,
                     const std::string& variant, Times& times) {
  const State state = STEPSTONE_TRY(State::make(leaves, 1));
  context.describe_state(state.size_bytes(), leaves.size(), variant);
  STEPSTONE_TRY(context.check_space(3 * state.size_bytes() + (std::uint64_t{1} << 30)));
  Memory destination = STEPSTONE_TRY(Memory::allocate(state.size_bytes()));
  const Tree tree = STEPSTONE_TRY(state.borrowed_tree());
  const std::filesystem::path raw_file = context.scratch() / "raw";
  STEPSTONE_TRY(write_file(raw_file, state.bytes()));
  DurableWrites raw;
  Limit pread{"pread, all processors", {}};
  std::vector<double> save;
  std::vector<double> restore;
  STEPSTONE_TRY(context.repeat([&](unsigned /*sample*/) -> Result<void> {
    STEPSTONE_TRY(raw.sample(context.scratch(), state.bytes()));
    std::error_code ignored;
    std::filesystem::remove_all(context.store_path(), ignored);
    ::sync();
    const auto store = STEPSTONE_TRY(Store::open(context.store_path(), open_options(context)));
    Result<StepRecord> saved;
    save.push_back(seconds_of([&] { saved = save_tree(context.codec(), *store, 0, tree); }));
    STEPSTONE_TRY(std::move(saved));
    STEPSTONE_TRY(warm(context.scratch()));
    pread.samples.push_back(
        STEPSTONE_TRY(parallel_pread(raw_file, destination.bytes(), context.thread_count())));
    Result<void> read;
    restore.push_back(seconds_of([&] { read = read_into(*store, 0, destination.bytes()); }));
    STEPSTONE_TRY(std::move(read));
    return store->close();
  }));
  std::filesystem::remove(raw_file);
  times.save.push_back({point, median(save)});
  times.restore.push_back({point, median(restore)});
  context.add_rate("save", state.size_bytes(), std::move(save), raw.best());
  context.add_rate("restore_warm", state.size_bytes(), std::move(restore), std::move(pread));
  return {};
}

void add_fit(Context& context, const std::string& metric, const std::vector<Point>& points,
             double unit_size, const char* unit) {
  const Fit fit = fit_line(points);
  context.add(metric + "_fixed", "ms", {fit.fixed * 1e3});
  context.add(metric + "_slope", std::string("ms per ") + unit, {fit.slope * unit_size * 1e3});
  context.add(metric + "_r2", "", {fit.r2});
  context.add(metric + "_exponent", "", {fit.exponent}, {"in proportion", {1}});
}

}  // namespace

Result<void> run_scale(Context& context) {
  const std::uint64_t shrink = context.settings().shrink;
  const std::uint64_t largest =
      (context.settings().all ? std::uint64_t{8'000'000'000} : std::uint64_t{2'000'000'000}) /
      shrink;
  // In leaves of up to 16 MB, as a model that grows gets more of them.
  Times by_bytes;
  for (std::uint64_t size = 1'000'000; size <= largest || size == 1'000'000; size *= 2) {
    const std::uint64_t leaf_count = std::max<std::uint64_t>(16, size / 16'000'000);
    const std::string variant = size < 1'000'000'000
                                    ? fmt::format("{}MB", size / 1'000'000)
                                    : fmt::format("{:.3g}GB", static_cast<double>(size) / 1e9);
    STEPSTONE_TRY(measure(
        context,
        equal_leaves(static_cast<std::size_t>(leaf_count), size / leaf_count / sizeof(float)),
        static_cast<double>(size), variant, by_bytes));
  }
  context.describe_state(0, 0, "bytes");
  add_fit(context, "save", by_bytes.save, 1e6, "MB");
  add_fit(context, "restore_warm", by_bytes.restore, 1e6, "MB");

  Times by_leaves;
  for (std::uint64_t count = 10; count <= std::max<std::uint64_t>(10, 1'000'000 / shrink);
       count *= 10) {
    STEPSTONE_TRY(measure(context, equal_leaves(static_cast<std::size_t>(count), 64),
                          static_cast<double>(count), fmt::format("{}-leaves", count), by_leaves));
  }
  context.describe_state(0, 0, "leaves");
  add_fit(context, "save", by_leaves.save, 1e3, "1,000 leaves");
  add_fit(context, "restore_warm", by_leaves.restore, 1e3, "1,000 leaves");
  return {};
}

}  // namespace stepstone::bench
