#include <fmt/format.h>

#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"
#include "tools/element_text.h"
#include "tools/element_values.h"
#include "tools/json_text.h"
#include "tools/leaf_value.h"
#include "tools/npy.h"

namespace stepstone::tool {
namespace {

struct CatArguments {
  std::filesystem::path store;
  std::uint64_t step = 0;
  LeafPath leaf;
  std::optional<std::string> item;
  // Neither: JSON.
  bool raw = false;
  bool npy = false;
  bool force = false;
};

// A leaf this large is some 10 MiB of JSON; more than that is rarely what anybody wants to see.
constexpr std::uint64_t kJsonSizeBytesMax = std::uint64_t{1} << 20;

Result<void> write_raw(const StepReader& step, const std::string& item, const StoredLeaf& leaf,
                       Console& console) {
  Progress progress("cat");
  std::uint64_t done_bytes = 0;
  return stream_leaf(step, item, leaf, [&](std::span<const std::byte> piece) -> Result<bool> {
    STEPSTONE_TRY(console.output.write(piece));
    done_bytes += piece.size();
    progress.update(done_bytes, leaf.record.size_bytes);
    return !console.output.is_closed();
  });
}

// The array that a leaf is for numpy: scalars are arrays of rank 0.
Result<DType> numpy_dtype(const LeafRecord& record) {
  if (const std::optional<DType> dtype = numeric_dtype(record)) return *dtype;
  return fail(ErrorCode::kUnsupported,
              fmt::format("it is of kind {}, which no .npy file can hold; use --raw or --json",
                          to_string(record.kind)));
}

std::string json_head(const CatArguments& arguments, const std::string& item,
                      const LeafRecord& record) {
  // Text from printable(), to_text() and names of our own is UTF-8.
  std::string json = fmt::format(R"({{"step":{},"item":)", arguments.step);
  append_json_string(json, printable(item));
  json += ",\"leaf\":";
  append_json_string(json, to_text(arguments.leaf));
  json += fmt::format(R"(,"kind":"{}","dtype":)", to_string(record.kind));
  json += record.dtype ? fmt::format("\"{}\"", to_string(*record.dtype)) : "null";
  json += fmt::format(R"(,"shape":[{}],"size_bytes":{},)", fmt::join(record.shape, ","),
                      record.size_bytes);
  return json;
}

Result<void> write_array_json(const StepReader& step, const std::string& item,
                              const StoredLeaf& leaf, std::string json, Console& console) {
  constexpr std::size_t kFlushSizeBytes = std::size_t{64} << 10;
  const DType dtype = *leaf.record.dtype;
  const std::uint64_t bits = info(dtype).bits;
  std::uint64_t remaining = STEPSTONE_TRY(element_count(leaf.record.shape));
  // Small leaves are read before anything is written, so that damage gives an error and no half
  // answer.
  const bool is_small = leaf.record.size_bytes <= kJsonSizeBytesMax;
  json += "\"values\":[";
  bool is_first = true;
  STEPSTONE_TRY(
      stream_leaf(step, item, leaf, [&](std::span<const std::byte> piece) -> Result<bool> {
        const std::uint64_t count = std::min<std::uint64_t>(remaining, piece.size() * 8 / bits);
        for (std::uint64_t i = 0; i < count; ++i) {
          if (!is_first) json += ',';
          is_first = false;
          append_element_json(json, dtype, piece, static_cast<std::size_t>(i));
          if (is_small || json.size() < kFlushSizeBytes) continue;
          STEPSTONE_TRY(console.output.write(json));
          json.clear();
        }
        remaining -= count;
        return !console.output.is_closed();
      }));
  json += "]}\n";
  return console.output.write(json);
}

Result<void> write_json(const CatArguments& arguments, const StepReader& step,
                        const std::string& item, const StoredLeaf& leaf, Console& console) {
  if (leaf.record.size_bytes > kJsonSizeBytesMax && !arguments.force) {
    return fail(ErrorCode::kLimit,
                fmt::format("leaf '{}' has {}: as JSON only with --force, or take --raw or --npy",
                            to_text(arguments.leaf), format_size(leaf.record.size_bytes)));
  }
  std::string json = json_head(arguments, item, leaf.record);
  if (leaf.record.dtype) return write_array_json(step, item, leaf, std::move(json), console);
  std::vector<std::byte> bytes(static_cast<std::size_t>(leaf.record.size_bytes));
  STEPSTONE_TRY(step.read_bytes(item, leaf, 0, bytes));
  json += "\"value\":" +
          STEPSTONE_TRY_CONTEXT(value_json(leaf.record, bytes),
                                "leaf '" + to_text(arguments.leaf) + "'") +
          "}\n";
  return console.output.write(json);
}

Result<int> run_cat(const CatArguments& arguments, Console& console) {
  const auto store = STEPSTONE_TRY(open_for_reading(arguments.store));
  const auto step = STEPSTONE_TRY(store->read_step(arguments.step));
  const std::string item = STEPSTONE_TRY(choose_item(step->record(), arguments.item));
  Result<StoredLeaf> leaf = step->read_leaf(item, STEPSTONE_TRY(encode_path(arguments.leaf)));
  if (!leaf && leaf.error().code == ErrorCode::kNotFound) {
    leaf.error().message += "; `stepstone show` lists the leaves there are";
  }
  if (!leaf) return tl::unexpected<Error>(std::move(leaf).error());

  if (console.json) {
    STEPSTONE_TRY(write_json(arguments, *step, item, *leaf, console));
    return kExitOk;
  }
  if (arguments.npy) {
    const auto header = [&]() -> Result<std::string> {
      return npy_header(STEPSTONE_TRY(numpy_dtype(leaf->record)), leaf->record.shape);
    };
    STEPSTONE_TRY(console.output.write(
        STEPSTONE_TRY_CONTEXT(header(), "leaf '" + to_text(arguments.leaf) + "'")));
  }
  STEPSTONE_TRY(write_raw(*step, item, *leaf, console));
  return kExitOk;
}

}  // namespace

void add_cat(CommandLine& line) {
  Verb verb(line, "cat", "Write one leaf to standard output",
            "Every byte is checked against its hash before it is written. The path is as "
            "`stepstone show`\n"
            "shows it; quote it for the shell.\n\n"
            "Examples:\n"
            "  stepstone cat run 100 params/layer0/kernel --json\n"
            "  stepstone cat run 100 params/layer0/kernel --npy > kernel.npy\n"
            "  stepstone cat run 100 'layers[3]/w' --raw | xxd | head");
  const auto arguments = std::make_shared<CatArguments>();
  verb.add_store(arguments->store);
  verb.add_step(arguments->step);
  verb.add_text({.names = "LEAF",
                 .description = "The leaf's path, as in params/layer0/kernel",
                 .is_required = true},
                [arguments](const std::string& text) -> std::string {
                  Result<LeafPath> path = parse_path(text);
                  if (!path) return path.error().message;
                  arguments->leaf = *std::move(path);
                  return {};
                });
  verb.add_item(arguments->item);
  verb.add_flag("--raw", "The bytes as they were saved, little-endian", arguments->raw);
  verb.add_flag("--npy", "A .npy file for numpy.load; not for dtypes that numpy lacks",
                arguments->npy);
  verb.add_flag("--json", "Dtype, shape and values in JSON; up to 1 MiB of data", line.json);
  verb.choose_one("Format", {"--raw", "--npy", "--json"}, /*is_required=*/true);
  verb.add_flag("--force", "With --json: however large the leaf is", arguments->force);
  verb.on_run([arguments](Console& console) { return run_cat(*arguments, console); });
}

}  // namespace stepstone::tool
