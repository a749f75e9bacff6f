#pragma once
// What every workload is given: the settings, where to write, and where its rows go.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/store.h"
#include "tools/bench/bench.h"
#include "tools/bench/row.h"
#include "tools/bench/state.h"

namespace stepstone::bench {

using Settings = tool::BenchArguments;

// A directory of its own, removed with all that is in it, also after an error.
class Scratch {
 public:
  // kInvalidArgument: `parent` is empty and the current directory is in memory.
  static Result<std::unique_ptr<Scratch>> make(const std::filesystem::path& parent);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  explicit Scratch(std::filesystem::path path) : path_(std::move(path)) {}

  std::filesystem::path path_;
};

// The machine, as `directory` sees it.
Machine describe_machine(const std::filesystem::path& directory);

class Context {
 public:
  Context(const Settings& settings, std::filesystem::path scratch, std::string workload,
          std::string codec);

  const Settings& settings() const { return settings_; }
  const std::string& codec() const { return codec_; }
  unsigned sample_count() const { return settings_.sample_count; }
  unsigned thread_count() const { return thread_count_; }
  const std::filesystem::path& scratch() const { return scratch_; }
  std::filesystem::path store_path() const { return scratch_ / "store"; }
  std::vector<Row>& rows() { return rows_; }

  // Whether a row of one of these is asked for.
  bool wants(std::initializer_list<std::string_view> metrics) const;
  // kNoSpace: the disk has not so much. To be asked before it is written.
  Result<void> check_space(std::uint64_t needed_bytes) const;
  // The state that the rows from here on are about. Where a workload has several, `variant` names
  // it behind the workload's name: "scale/1MB".
  void describe_state(std::uint64_t size_bytes, std::uint64_t leaf_count,
                      const std::string& variant = {});

  // Calls `work` sample_count() times. kIo once the user has interrupted the program.
  Result<void> repeat(const std::function<Result<void>(unsigned sample)>& work) const;
  static Result<void> check_interrupted();

  // Bytes per time, in MB/s (10^6), from times in seconds.
  void add_rate(std::string metric, std::uint64_t size_bytes, std::vector<double> seconds,
                Limit limit = {});
  // Any other figure; the limit's samples are in the same unit.
  void add(std::string metric, std::string unit, std::vector<double> samples, Limit limit = {});

 private:
  void add_row(Row row, const Limit& limit);

  const Settings& settings_;
  const std::filesystem::path scratch_;
  const std::string workload_;
  const std::string codec_;
  const unsigned thread_count_;
  std::string name_;  // The workload's, with the variant.
  std::uint64_t state_bytes_ = 0;
  std::uint64_t leaf_count_ = 0;
  std::vector<Row> rows_;
};

// kUnsupported: no such codec in this version.
Result<Compression> parse_codec(const std::string& name);
OpenOptions open_options(const Context& context);
// What CheckpointManager::save does when it is synchronous. `codec` is one of parse_codec()'s.
Result<StepRecord> save_tree(const std::string& codec, Store& store, std::uint64_t step,
                             const Tree& tree, std::span<const std::uint64_t> retire = {});

// The workloads.
Result<void> run_gpt2(Context& context);
Result<void> run_small(Context& context);
Result<void> run_big(Context& context);
Result<void> run_tiny_steps(Context& context);
Result<void> run_shared(Context& context);
Result<void> run_leaf(Context& context);
Result<void> run_retire(Context& context);
Result<void> run_compress(Context& context);
Result<void> run_scale(Context& context);
Result<void> run_hash(Context& context);
Result<void> run_portable(Context& context);

}  // namespace stepstone::bench
