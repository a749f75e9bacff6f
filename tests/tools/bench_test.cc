// Goal: `stepstone bench` measures what it says, says it in the promised form, and leaves nothing
// behind. Method: the real binary on states a thousand times smaller; nothing here depends on how
// long anything takes. The parts that could lie in silence (counts, fits' inputs, the numbers that
// are saved) are checked on their own.
#include "tools/bench/bench.h"

#include <rocksdb/file_system.h>

#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/tools/support.h"
#include "tools/bench/counting_file_system.h"
#include "tools/bench/memory.h"
#include "tools/bench/raw.h"
#include "tools/bench/row.h"
#include "tools/bench/state.h"

namespace stepstone::tool {
namespace {

using nlohmann::json;

class BenchTest : public TemporaryDirectoryTest {
 protected:
  BenchTest() { std::filesystem::create_directory(path("scratch")); }

  // Runs a workload on tiny states and returns its JSON, by metric.
  std::map<std::string, json> rows_of(const std::string& workload,
                                      const std::vector<std::string>& options = {},
                                      const char* shrink = "1000") {
    std::vector<std::string> words = {"bench",     workload,    "--shrink",    shrink,
                                      "--samples", "1",         "--directory", path("scratch"),
                                      "--json",    path("json")};
    words.insert(words.end(), options.begin(), options.end());
    const CommandResult result = run_stepstone(words);
    EXPECT_EQ(result.exit_code, 0) << result.error;
    EXPECT_EQ(result.error, "");
    EXPECT_TRUE(std::filesystem::is_empty(path("scratch"))) << "scratch was left behind";
    if (result.exit_code != 0) return {};
    const json answer = json::parse(read_file(path("json")));
    for (const char* key : {"cpu", "processor_count", "memory_bytes", "kernel", "file_system"}) {
      EXPECT_TRUE(answer["machine"].contains(key)) << key;
    }
    std::map<std::string, json> rows;
    for (const json& row : answer["rows"]) {
      check_row(row, workload);
      EXPECT_NE(result.output.find(row["metric"]), std::string::npos) << row;
      // "gpt2" "save" is found as "save", "scale/1MB" "save" as "1MB save".
      std::string name = row["metric"];
      const std::string reported = row["workload"];
      if (reported != workload) name = reported.substr(workload.size() + 1) + " " + name;
      EXPECT_TRUE(rows.emplace(name, row).second) << "twice: " << name;
    }
    return rows;
  }

  static void check_row(const json& row, const std::string& workload) {
    SCOPED_TRACE(row.dump());
    for (const char* key :
         {"workload", "codec", "metric", "value", "unit", "limit", "ratio", "samples"}) {
      EXPECT_TRUE(row.contains(key)) << key;
    }
    const std::string reported = row["workload"];
    EXPECT_TRUE(reported == workload || reported.starts_with(workload + "/"));
    EXPECT_DOUBLE_EQ(row["value"], bench::median(row["samples"]));
    ASSERT_EQ(row["limit"].is_null(), row["ratio"].is_null());
    if (row["limit"].is_null()) return;
    EXPECT_DOUBLE_EQ(row["ratio"], row["value"].get<double>() / row["limit"].get<double>());
    EXPECT_NE(row["limit_name"], "");
  }
};

void expect_metrics(const std::map<std::string, json>& rows,
                    const std::map<std::string, std::string>& units) {
  for (const auto& [metric, unit] : units) {
    SCOPED_TRACE(metric);
    const auto row = rows.find(metric);
    ASSERT_NE(row, rows.end());
    EXPECT_EQ(row->second["unit"], unit);
    EXPECT_GT(row->second["value"].get<double>(), 0);
  }
}

TEST_F(BenchTest, StatesAreSavedAndRestored) {
  const auto rows = rows_of("gpt2");
  expect_metrics(rows, {{"save", "MB/s"},
                        {"fsyncs", "fsyncs"},
                        {"written_bytes", "bytes"},
                        {"restore_warm", "MB/s"},
                        {"restore_warm_new_memory", "MB/s"},
                        {"restore_cold", "MB/s"},
                        {"leaf_first", "ms"},
                        {"save_async_stall_mutable", "ms"},
                        {"save_async_stall_immutable", "ms"},
                        {"peak_extra_bytes", "bytes"}});
  EXPECT_EQ(rows.at("save")["leaf_count"], 444);
  for (const char* metric : {"save", "restore_warm", "restore_cold", "written_bytes"}) {
    EXPECT_FALSE(rows.at(metric)["limit"].is_null()) << metric;
  }
  // The leaves are random numbers: what is written cannot be less than they are.
  EXPECT_GE(rows.at("written_bytes")["ratio"].get<double>(), 1);
}

TEST_F(BenchTest, TinyStepsAreKeptToThree) {
  const auto rows = rows_of("tiny-steps", {"--steps", "20"});
  expect_metrics(rows,
                 {{"save", "MB/s"}, {"fsyncs", "fsyncs"}, {"files", "files"}, {"open", "ms"}});
  EXPECT_EQ(rows.at("save")["samples"].size(), 20U);
  EXPECT_EQ(rows.at("save")["state_bytes"], 196608);
}

TEST_F(BenchTest, SharedWritesLittleMoreThanWhatChanged) {
  const auto rows = rows_of("shared", {}, "20");
  expect_metrics(rows, {{"save", "MB/s"}, {"written_bytes", "bytes"}, {"disk_bytes", "bytes"}});
  EXPECT_GE(rows.at("written_bytes")["ratio"].get<double>(), 1);
  EXPECT_LT(rows.at("written_bytes")["value"].get<double>(),
            rows.at("save")["state_bytes"].get<double>() / 4);
}

TEST_F(BenchTest, LeavesAreReadOneByOne) {
  const auto rows = rows_of("leaf", {"--leaves", "200", "--steps", "4"});
  expect_metrics(rows, {{"leaf_warm_p50", "us"}, {"leaf_first", "ms"}, {"leaf_first_cold", "ms"}});
  EXPECT_EQ(rows.at("leaf_warm_p50")["leaf_count"], 200);
}

TEST_F(BenchTest, RetiringIsTimedAndItsWritesCounted) {
  const auto rows = rows_of("retire", {"--steps", "5"});
  expect_metrics(rows, {{"retire", "ms"}, {"retire_small", "ms"}, {"written_bytes", "bytes"}});
  EXPECT_GE(rows.at("written_bytes")["ratio"].get<double>(), 1);
}

TEST_F(BenchTest, APortableFileIsWrittenReadAndTakenIn) {
  const auto rows = rows_of("portable", {"--codec", "none"});
  expect_metrics(rows, {{"export", "MB/s"},
                        {"import", "MB/s"},
                        {"import_cold", "MB/s"},
                        {"copy_cold", "MB/s"},
                        {"restore_warm", "MB/s"},
                        {"view", "us"},
                        {"1KiB-leaves open_first_leaf", "us"}});
  EXPECT_EQ(rows.at("export")["leaf_count"], 444);
}

TEST_F(BenchTest, ScaleFitsALine) {
  const auto rows = rows_of("scale", {}, "100000");
  expect_metrics(rows,
                 {{"1MB save", "MB/s"}, {"1MB restore_warm", "MB/s"}, {"10-leaves save", "MB/s"}});
  for (const char* name : {"bytes save_r2", "bytes restore_warm_slope", "leaves save_fixed"}) {
    EXPECT_TRUE(rows.contains(name)) << name;
  }
}

TEST_F(BenchTest, WeightsAreCompressedWithEachCodec) {
  write_file(path("model"),
             canonical_safetensors_bytes({random_tensor("a", DType::kFloat32, {1000, 30}, 1),
                                          random_tensor("b", DType::kInt64, {7}, 2),
                                          random_tensor("c", DType::kFloat32, {200'000}, 3)}));
  // Random bits: no figure says anything, but all of it must come back.
  const auto always = rows_of("compress", {"--codec", "always", "--model", path("model")});
  expect_metrics(always, {{"float32 ratio_compressed", ""},
                          {"float32 encode", "MB/s"},
                          {"bfloat16 decode", "MB/s"},
                          {"moved-1/1024 ratio_compressed", ""},
                          {"moved-1/64 decode", "MB/s"},
                          {"bfloat16 save", "MB/s"},
                          {"bfloat16 restore_warm", "MB/s"}});
  EXPECT_EQ(always.at("bfloat16 save")["state_bytes"], 460'000);
  EXPECT_EQ(always.at("bfloat16 save")["codec"], "always");
  const auto delta = rows_of("compress", {"--codec", "delta", "--model", path("model")});
  expect_metrics(delta, {{"moved-1/256 encode", "MB/s"}, {"bfloat16 restore_warm", "MB/s"}});
  const auto none = rows_of("compress", {"--codec", "none", "--model", path("model")});
  EXPECT_FALSE(none.contains("float32 encode"));
  EXPECT_GE(none.at("bfloat16 written_bytes")["ratio"].get<double>(), 1);
}

TEST_F(BenchTest, HashIsMeasuredAlone) {
  expect_metrics(rows_of("hash", {"--threads", "1"}), {{"hash", "MB/s"}});
}

TEST_F(BenchTest, OnlyTheMetricsAskedForAreMeasured) {
  const auto rows = rows_of("small", {"--metrics", "fsyncs,leaf_first"});
  EXPECT_EQ(rows.size(), 2U);
  EXPECT_TRUE(rows.contains("fsyncs") && rows.contains("leaf_first"));
}

TEST_F(BenchTest, EveryWorkloadIsExplained) {
  const CommandResult help = run_stepstone({"bench", "--help"});
  EXPECT_EQ(help.exit_code, 0);
  std::set<std::string> names;
  for (const bench::WorkloadDescription& workload : bench::workload_descriptions()) {
    EXPECT_NE(help.output.find(workload.description), std::string::npos) << workload.name;
    names.insert(workload.name);
  }
  EXPECT_TRUE(names.contains("gpt2") && names.contains("scale"));
}

TEST_F(BenchTest, MistakesAreNamedAndLeaveNothing) {
  const std::string scratch = path("scratch");
  const CommandResult unknown =
      run_stepstone({"bench", "gpt2", "gpt3", "--directory", scratch, "--shrink", "1000"});
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_NE(unknown.error.find("no workload 'gpt3'"), std::string::npos) << unknown.error;
  EXPECT_EQ(unknown.output, "");
  const CommandResult nowhere =
      run_stepstone({"bench", "hash", "--directory", scratch + "/absent", "--shrink", "1000"});
  EXPECT_EQ(nowhere.exit_code, 1);
  EXPECT_NE(nowhere.error.find("absent"), std::string::npos) << nowhere.error;
  // Fails after the workload has run.
  const CommandResult unwritable = run_stepstone({"bench", "hash", "--directory", scratch, "--json",
                                                  scratch + "/absent/json", "--shrink", "1000"});
  EXPECT_EQ(unwritable.exit_code, 1);
  const CommandResult codec = run_stepstone({"bench", "hash", "--codec", "none,best"});
  EXPECT_EQ(codec.exit_code, 1);
  EXPECT_NE(codec.error.find("no codec 'best'"), std::string::npos) << codec.error;
  const CommandResult model =
      run_stepstone({"bench", "compress", "--directory", scratch, "--model", scratch + "/absent"});
  EXPECT_EQ(model.exit_code, 1);
  EXPECT_NE(model.error.find("--model"), std::string::npos) << model.error;
  EXPECT_EQ(run_stepstone({"bench", "hash", "--samples", "0"}).exit_code, 2);
  EXPECT_EQ(run_stepstone({"bench", "hash", "--shrink", "0"}).exit_code, 2);
  EXPECT_TRUE(std::filesystem::is_empty(scratch));
}

TEST_F(BenchTest, CountingFileSystemCountsWritesAndSyncs) {
  const rocksdb::IOOptions io;
  bench::CountingFileSystem files;
  std::unique_ptr<rocksdb::FSWritableFile> file;
  ASSERT_TRUE(files.NewWritableFile(path("file"), {}, &file, nullptr).ok());
  ASSERT_TRUE(file->Append("12345", io, nullptr).ok());
  ASSERT_TRUE(file->Sync(io, nullptr).ok());
  ASSERT_TRUE(file->Fsync(io, nullptr).ok());
  ASSERT_TRUE(file->Close(io, nullptr).ok());
  std::unique_ptr<rocksdb::FSRandomRWFile> both;
  ASSERT_TRUE(files.NewRandomRWFile(path("file"), {}, &both, nullptr).ok());
  ASSERT_TRUE(both->Write(1, "67", io, nullptr).ok());
  ASSERT_TRUE(both->Sync(io, nullptr).ok());
  std::unique_ptr<rocksdb::FSDirectory> directory;
  ASSERT_TRUE(files.NewDirectory(path(""), io, &directory, nullptr).ok());
  ASSERT_TRUE(directory->Fsync(io, nullptr).ok());
  EXPECT_EQ(files.counts().written_bytes, 7U);
  EXPECT_EQ(files.counts().fsyncs, 4U);
  EXPECT_EQ(read_file(path("file")), "16745");
  files.reset();
  EXPECT_EQ(files.counts().fsyncs, 0U);
}

TEST(BenchParts, MedianIsTheMiddle) {
  EXPECT_EQ(bench::median({}), 0);
  EXPECT_EQ(bench::median({3, 1, 2}), 2);
  EXPECT_EQ(bench::median({4, 1, 2, 3}), 2.5);
}

TEST(BenchParts, NumbersAreNormalAndFollowFromTheSeed) {
  auto first = bench::Memory::allocate(std::size_t{4} << 20);
  auto again = bench::Memory::allocate(std::size_t{4} << 20);
  ASSERT_TRUE(first.has_value() && again.has_value());
  bench::fill_normal(first->bytes(), 5);
  bench::fill_normal(again->bytes(), 5);
  EXPECT_EQ(std::memcmp(first->bytes().data(), again->bytes().data(), first->size_bytes()), 0);
  bench::fill_normal(again->bytes(), 6);
  EXPECT_NE(std::memcmp(first->bytes().data(), again->bytes().data(), first->size_bytes()), 0);
  std::vector<float> numbers(first->size_bytes() / sizeof(float));
  std::memcpy(numbers.data(), first->bytes().data(), first->size_bytes());
  double sum = 0;
  double squares = 0;
  int beyond_two = 0;
  for (const float number : numbers) {
    sum += number;
    squares += static_cast<double>(number) * number;
    beyond_two += std::fabs(number) > 2 ? 1 : 0;
  }
  const auto count = static_cast<double>(numbers.size());
  EXPECT_NEAR(sum / count, 0, 0.01);
  EXPECT_NEAR(squares / count, 1, 0.01);
  EXPECT_NEAR(static_cast<double>(beyond_two) / count, 0.0455, 0.002);
}

TEST(BenchParts, Gpt2HasTheSizeItIsSaidToHave) {
  const auto leaves = bench::gpt2_leaves(1);
  ASSERT_EQ(leaves.size(), 444U);
  std::uint64_t elements = 0;
  for (const bench::StateLeaf& leaf : leaves) {
    std::uint64_t product = 1;
    for (const std::uint64_t extent : leaf.shape) product *= extent;
    elements += product;
  }
  EXPECT_EQ(elements, 3U * 124'439'808U);
}

TEST_F(BenchTest, TheWaysOfWritingAndReadingMoveAllBytes) {
  auto source = bench::Memory::allocate((std::size_t{5} << 20) + 123);
  auto target = bench::Memory::allocate(source->size_bytes());
  bench::fill_normal(source->bytes(), 1);
  ASSERT_TRUE(bench::write_file(path("raw"), source->bytes()).has_value());
  ASSERT_TRUE(bench::parallel_pread(path("raw"), target->bytes(), 3).has_value());
  EXPECT_EQ(std::memcmp(source->bytes().data(), target->bytes().data(), source->size_bytes()), 0);
  bench::fill_normal(target->bytes(), 2);
  ASSERT_TRUE(bench::parallel_copy(target->bytes(), source->bytes(), 3).has_value());
  EXPECT_EQ(std::memcmp(source->bytes().data(), target->bytes().data(), source->size_bytes()), 0);
  EXPECT_FALSE(bench::parallel_pread(path("absent"), target->bytes(), 2).has_value());
  bench::DurableWrites raw;
  ASSERT_TRUE(raw.sample(path("scratch"), source->bytes()).has_value());
  EXPECT_EQ(raw.best().samples.size(), 1U);
  EXPECT_TRUE(std::filesystem::is_empty(path("scratch")));
}

}  // namespace
}  // namespace stepstone::tool
