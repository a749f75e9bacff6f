#include "tools/bench/context.h"

#include <fmt/format.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>

#include "api/checkpoint_plan.h"
#include "api/tree_plan.h"
#include "engine/parallel.h"
#include "tools/bench/raw.h"
#include "tools/system.h"

namespace stepstone::bench {
namespace {

volatile std::sig_atomic_t interrupted = 0;

// The second one ends the program at once.
void note_interruption(int signal) {
  interrupted = 1;
  std::signal(signal, SIG_DFL);
}

bool is_in_memory(const std::filesystem::path& directory) {
  struct statfs status = {};
  if (::statfs(directory.c_str(), &status) != 0) return false;
  return status.f_type == TMPFS_MAGIC || status.f_type == RAMFS_MAGIC;
}

std::string cpu_name() {
  std::ifstream information("/proc/cpuinfo");
  for (std::string line; std::getline(information, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

// "ext4 on /dev/vda", from the longest mount point that the directory is under.
std::string file_system_of(const std::filesystem::path& directory) {
  std::error_code ignored;
  const std::string path = std::filesystem::absolute(directory, ignored).string() + "/";
  std::ifstream mounts("/proc/self/mounts");
  std::string answer = "unknown file system";
  std::size_t longest = 0;
  for (std::string line; std::getline(mounts, line);) {
    const std::size_t first = line.find(' ');
    const std::size_t second = line.find(' ', first + 1);
    const std::size_t third = line.find(' ', second + 1);
    if (third == std::string::npos) continue;
    std::string point = line.substr(first + 1, second - first - 1);
    if (!point.ends_with('/')) point += '/';
    if (!path.starts_with(point) || point.size() < longest) continue;
    longest = point.size();
    answer = line.substr(second + 1, third - second - 1) + " on " + line.substr(0, first);
  }
  return answer + (is_in_memory(directory) ? " (memory: says nothing about durable saves)" : "");
}

}  // namespace

Result<std::unique_ptr<Scratch>> Scratch::make(const std::filesystem::path& parent) {
  if (parent.empty() && is_in_memory(".")) {
    return fail(ErrorCode::kInvalidArgument,
                "this directory is in memory, not on a disk: name one with --directory");
  }
  std::error_code error;
  const std::filesystem::path base =
      std::filesystem::absolute(parent.empty() ? "." : parent, error).lexically_normal();
  std::string name = (base / "stepstone-bench-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) {
    return tl::unexpected<Error>(tool::system_error(errno, base.native()));
  }
  interrupted = 0;
  std::signal(SIGINT, note_interruption);
  std::signal(SIGTERM, note_interruption);
  return std::unique_ptr<Scratch>(new Scratch(name));
}

Scratch::~Scratch() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

Machine describe_machine(const std::filesystem::path& directory) {
  utsname system = {};
  ::uname(&system);
  return {.cpu = cpu_name(),
          .processor_count = effective_thread_count(0),
          .memory_bytes = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                          static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)),
          .kernel = system.release,
          .file_system = file_system_of(directory),
          .directory = directory.string(),
          .version = STEPSTONE_VERSION};
}

Context::Context(const Settings& settings, std::filesystem::path scratch, std::string workload,
                 std::string codec)
    : settings_(settings),
      scratch_(std::move(scratch)),
      workload_(std::move(workload)),
      codec_(std::move(codec)),
      thread_count_(effective_thread_count(settings.thread_count)),
      name_(workload_) {}

bool Context::wants(std::initializer_list<std::string_view> metrics) const {
  if (settings_.metrics.empty()) return true;
  return std::ranges::any_of(metrics, [&](std::string_view metric) {
    return std::ranges::find(settings_.metrics, metric) != settings_.metrics.end();
  });
}

Result<void> Context::check_space(std::uint64_t needed_bytes) const {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(scratch_, error);
  if (error || space.available >= needed_bytes) return {};
  return fail(ErrorCode::kNoSpace,
              fmt::format("{}: {} are needed, {} are free", workload_,
                          tool::format_size(needed_bytes), tool::format_size(space.available)));
}

void Context::describe_state(std::uint64_t size_bytes, std::uint64_t leaf_count,
                             const std::string& variant) {
  name_ = variant.empty() ? workload_ : workload_ + "/" + variant;
  state_bytes_ = size_bytes;
  leaf_count_ = leaf_count;
}

Result<void> Context::check_interrupted() {
  if (interrupted == 0) return {};
  return fail(ErrorCode::kIo, "interrupted");
}

Result<void> Context::repeat(const std::function<Result<void>(unsigned sample)>& work) const {
  for (unsigned sample = 0; sample < sample_count(); ++sample) {
    STEPSTONE_TRY(check_interrupted());
    STEPSTONE_TRY(work(sample));
  }
  return {};
}

void Context::add_rate(std::string metric, std::uint64_t size_bytes, std::vector<double> seconds,
                       Limit limit) {
  const auto to_rate = [size_bytes](double& time) {
    time = static_cast<double>(size_bytes) / 1e6 / std::max(time, 1e-9);
  };
  const double time = median(seconds);
  std::ranges::for_each(seconds, to_rate);
  std::ranges::for_each(limit.samples, to_rate);
  add_row(
      {.metric = std::move(metric), .unit = "MB/s", .samples = std::move(seconds), .seconds = time},
      limit);
}

void Context::add(std::string metric, std::string unit, std::vector<double> samples, Limit limit) {
  add_row({.metric = std::move(metric), .unit = std::move(unit), .samples = std::move(samples)},
          limit);
}

void Context::add_row(Row row, const Limit& limit) {
  if (!wants({row.metric})) return;
  row.workload = name_;
  row.codec = codec_;
  row.state_bytes = state_bytes_;
  row.leaf_count = leaf_count_;
  row.value = median(row.samples);
  if (!limit.samples.empty()) {
    row.limit_name = limit.name;
    row.limit = median(limit.samples);
    if (*row.limit != 0) row.ratio = row.value / *row.limit;
  }
  rows_.push_back(std::move(row));
}

OpenOptions open_options(const Context& context) {
  return {.create_if_missing = true, .thread_count = context.settings().thread_count};
}

Result<Compression> parse_codec(const std::string& name) {
  if (name == "none") return Compression::kNone;
  if (name == "auto") return Compression::kAuto;
  if (name == "always") return Compression::kAlways;
  if (name == "delta") return Compression::kDelta;
  return fail(ErrorCode::kUnsupported,
              "there is no codec '" + printable(name) + "': use none, auto, always or delta");
}

Result<StepRecord> save_tree(const std::string& codec, Store& store, std::uint64_t step,
                             const Tree& tree, std::span<const std::uint64_t> retire) {
  SaveOptions options;
  options.compression = STEPSTONE_TRY(parse_codec(codec));
  const auto writer = STEPSTONE_TRY(store.begin_save(step, options));
  STEPSTONE_TRY(put_tree(*writer, kDefaultItem, tree));
  return writer->commit(retire);
}

}  // namespace stepstone::bench
