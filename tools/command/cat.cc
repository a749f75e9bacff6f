#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "api/array_region.h"
#include "api/slice_reader.h"
#include "tools/array_slice.h"
#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"
#include "tools/element_text.h"
#include "tools/element_values.h"
#include "tools/json_text.h"
#include "tools/leaf_selection.h"
#include "tools/leaf_value.h"
#include "tools/npy.h"

namespace stepstone::tool {
namespace {

struct CatArguments {
  std::filesystem::path store;
  std::uint64_t step = 0;
  std::optional<std::string> leaf;  // nullopt: those that the patterns select.
  LeafPatterns patterns;
  std::optional<std::string> item;
  // Neither: JSON.
  bool raw = false;
  bool npy = false;
  bool force = false;
};

// A leaf this large is some 10 MiB of JSON; more than that is rarely what anybody wants to see.
constexpr std::uint64_t kJsonSizeBytesMax = std::uint64_t{1} << 20;

// A leaf, or a slice of one.
struct Subject {
  std::shared_ptr<const StepReader> step;
  std::string item;
  StoredLeaf leaf;
  LeafPath path;
  std::optional<ArraySlice> slice;
  // Of what is to be written.
  std::vector<std::uint64_t> shape;
  std::uint64_t size_bytes = 0;
};

using Consume = std::function<Result<bool>(std::span<const std::byte> piece)>;

// A slice in the order of its elements, by halves along its first axis that has some, until they
// are small enough. False: it was stopped.
Result<bool> stream_slice(const Subject& subject, const std::vector<Slice>& axes,
                          const Consume& consume) {
  constexpr std::uint64_t kPieceSizeBytes = std::uint64_t{4} << 20;
  const DType dtype = *subject.leaf.record.dtype;
  const std::uint64_t size_bytes = STEPSTONE_TRY(array_size_bytes(dtype, shape_of(axes)));
  // Packed elements would have to be put together again at the seams.
  const bool is_packed = info(dtype).bits < 8;
  const auto axis = std::find_if(axes.begin(), axes.end(),
                                 [](const Slice& slice) { return slice.end - slice.begin > 1; });
  if (size_bytes <= kPieceSizeBytes || is_packed || axis == axes.end()) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(size_bytes));
    STEPSTONE_TRY(read_slice(*subject.step, subject.item, subject.leaf, axes, bytes));
    return consume(bytes);
  }
  const std::uint64_t middle = axis->begin + (axis->end - axis->begin) / 2;
  std::vector<Slice> half = axes;
  Slice& split = half[static_cast<std::size_t>(axis - axes.begin())];
  split.end = middle;
  if (!STEPSTONE_TRY(stream_slice(subject, half, consume))) return false;
  split = {middle, axis->end};
  return stream_slice(subject, half, consume);
}

Result<void> stream(const Subject& subject, const Consume& consume) {
  if (!subject.slice) return stream_leaf(*subject.step, subject.item, subject.leaf, consume);
  STEPSTONE_TRY(stream_slice(subject, subject.slice->axes, consume));
  return {};
}

Result<void> write_raw(const Subject& subject, Console& console) {
  Progress progress("cat");
  std::uint64_t done_bytes = 0;
  return stream(subject, [&](std::span<const std::byte> piece) -> Result<bool> {
    STEPSTONE_TRY(console.output.write(piece));
    done_bytes += piece.size();
    progress.update(done_bytes, subject.size_bytes);
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

std::string json_head(const Subject& subject) {
  const LeafRecord& record = subject.leaf.record;
  // Text from printable(), to_text() and names of our own is UTF-8.
  std::string json = fmt::format(R"({{"step":{},"item":)", subject.step->record().save.step);
  append_json_string(json, printable(subject.item));
  json += ",\"leaf\":";
  append_json_string(json, to_text(subject.path));
  if (subject.slice) {
    json += ",\"slice\":[";
    for (const Slice& axis : subject.slice->axes) {
      json += fmt::format("{}[{},{}]", json.back() == '[' ? "" : ",", axis.begin, axis.end);
    }
    json += "]";
  }
  json += fmt::format(R"(,"kind":"{}","dtype":)", to_string(record.kind));
  json += record.dtype ? fmt::format("\"{}\"", to_string(*record.dtype)) : "null";
  json += fmt::format(R"(,"shape":[{}],"size_bytes":{},)", fmt::join(subject.shape, ","),
                      subject.size_bytes);
  return json;
}

Result<void> write_array_json(const Subject& subject, std::string json, Console& console) {
  constexpr std::size_t kFlushSizeBytes = std::size_t{64} << 10;
  const DType dtype = *subject.leaf.record.dtype;
  const std::uint64_t bits = info(dtype).bits;
  std::uint64_t remaining = STEPSTONE_TRY(element_count(subject.shape));
  // Small leaves are read before anything is written, so that damage gives an error and no half
  // answer.
  const bool is_small = subject.size_bytes <= kJsonSizeBytesMax;
  json += "\"values\":[";
  bool is_first = true;
  STEPSTONE_TRY(stream(subject, [&](std::span<const std::byte> piece) -> Result<bool> {
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

Result<void> check_json_size(const Subject& subject, bool force) {
  if (subject.size_bytes <= kJsonSizeBytesMax || force) return {};
  return fail(ErrorCode::kLimit,
              fmt::format("leaf '{}' has {}: as JSON only with --force, or take --raw or --npy",
                          to_text(subject.path), format_size(subject.size_bytes)));
}

Result<void> write_json(const Subject& subject, bool force, Console& console) {
  const LeafRecord& record = subject.leaf.record;
  STEPSTONE_TRY(check_json_size(subject, force));
  std::string json = json_head(subject);
  if (record.dtype) return write_array_json(subject, std::move(json), console);
  std::vector<std::byte> bytes(static_cast<std::size_t>(record.size_bytes));
  STEPSTONE_TRY(subject.step->read_bytes(subject.item, subject.leaf, 0, bytes));
  json += "\"value\":" +
          STEPSTONE_TRY_CONTEXT(value_json(record, bytes), "leaf '" + to_text(subject.path) + "'") +
          "}\n";
  return console.output.write(json);
}

Result<StoredLeaf> find_leaf(const StepReader& step, const std::string& item,
                             const std::string& text, LeafPath& path) {
  path = STEPSTONE_TRY(parse_path(text));
  return step.read_leaf(item, STEPSTONE_TRY(encode_path(path)));
}

// What the text names: `layers[3]` may be a leaf, or a slice of the leaf `layers`. The leaf comes
// first.
Result<void> find_subject(const std::string& text, Subject& subject) {
  Result<StoredLeaf> leaf = find_leaf(*subject.step, subject.item, text, subject.path);
  const std::size_t bracket = text.rfind('[');
  if (!leaf && text.ends_with(']') && bracket != std::string::npos) {
    const std::string inside = text.substr(bracket + 1, text.size() - bracket - 2);
    LeafPath path;
    auto sliced = find_leaf(*subject.step, subject.item, text.substr(0, bracket), path);
    if (sliced && !sliced->record.dtype) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("leaf '{}' is no array, and has no slices", to_text(path)));
    }
    if (sliced) {
      subject.slice = STEPSTONE_TRY_CONTEXT(parse_slice(inside, sliced->record.shape),
                                            "leaf '" + to_text(path) + "'");
      subject.path = std::move(path);
      leaf = std::move(sliced);
    }
  }
  if (!leaf && leaf.error().code == ErrorCode::kNotFound) {
    leaf.error().message += "; `stepstone show` lists the leaves there are";
  }
  subject.leaf = STEPSTONE_TRY(std::move(leaf));
  subject.shape = subject.slice ? subject.slice->shape : subject.leaf.record.shape;
  subject.size_bytes = subject.leaf.record.size_bytes;
  if (subject.slice) {
    subject.size_bytes = STEPSTONE_TRY(array_size_bytes(*subject.leaf.record.dtype, subject.shape));
  }
  return {};
}

Result<std::string> npy_header_of(const Subject& subject) {
  const auto header = [&]() -> Result<std::string> {
    return npy_header(STEPSTONE_TRY(numpy_dtype(subject.leaf.record)), subject.shape);
  };
  return STEPSTONE_TRY_CONTEXT(header(), "leaf '" + to_text(subject.path) + "'");
}

Result<void> write(const Subject& subject, const CatArguments& arguments, Console& console) {
  if (console.json) return write_json(subject, arguments.force, console);
  if (arguments.npy) {
    STEPSTONE_TRY(console.output.write(STEPSTONE_TRY(npy_header_of(subject))));
  }
  return write_raw(subject, console);
}

// One behind the other, in the order of the tree.
Result<void> write_selected(const Subject& whole, const CatArguments& arguments,
                            const LeafSelection& selection, Console& console) {
  std::vector<Subject> subjects;
  for (ItemLeaf& leaf : STEPSTONE_TRY(list_leaves(*whole.step, whole.item, selection))) {
    Subject& subject = subjects.emplace_back(whole);
    subject.leaf = std::move(leaf.stored);
    subject.path = std::move(leaf.path);
    subject.shape = subject.leaf.record.shape;
    subject.size_bytes = subject.leaf.record.size_bytes;
  }
  if (subjects.empty()) {
    return fail(ErrorCode::kNotFound, fmt::format("step {} item '{}' has no leaf that is selected",
                                                  arguments.step, printable(whole.item)));
  }
  // What cannot be written is said before anything is.
  for (const Subject& subject : subjects) {
    if (arguments.npy) STEPSTONE_TRY(npy_header_of(subject));
    if (console.json) STEPSTONE_TRY(check_json_size(subject, arguments.force));
  }
  for (const Subject& subject : subjects) {
    STEPSTONE_TRY(write(subject, arguments, console));
    if (console.output.is_closed()) break;
  }
  return {};
}

Result<int> run_cat(const CatArguments& arguments, Console& console) {
  const LeafSelection selection = STEPSTONE_TRY(LeafSelection::compile(arguments.patterns));
  const auto store = STEPSTONE_TRY(open_for_reading(arguments.store));
  Subject subject;
  subject.step = STEPSTONE_TRY(store->read_step(arguments.step));
  subject.item = STEPSTONE_TRY(choose_item(subject.step->record(), arguments.item));
  if (!arguments.leaf) {
    STEPSTONE_TRY(write_selected(subject, arguments, selection, console));
    return kExitOk;
  }
  STEPSTONE_TRY(find_subject(*arguments.leaf, subject));
  STEPSTONE_TRY(write(subject, arguments, console));
  return kExitOk;
}

}  // namespace

void add_cat(CommandLine& line) {
  Verb verb(line, "cat", "Write one leaf, or those that are selected, to standard output",
            "Every byte is checked against its hash before it is written. The path is as "
            "`stepstone show`\n"
            "shows it; quote it for the shell. Leaves that are selected come one behind the other, "
            "in the\n"
            "order of the tree: in JSON each in a line.\n\n"
            "Examples:\n"
            "  stepstone cat run 100 params/layer0/kernel --json\n"
            "  stepstone cat run 100 params/layer0/kernel --npy > kernel.npy\n"
            "  stepstone cat run 100 'layers[3]/w' --raw | xxd | head\n"
            "  stepstone cat run 100 'params/w[0:10,-1]' --json      as Python slices\n"
            "  stepstone cat run 100 --leaves '*/bias' --json        several, each in a line");
  const auto arguments = std::make_shared<CatArguments>();
  verb.add_store(arguments->store);
  verb.add_step(arguments->step);
  verb.add_text({.names = "LEAF",
                 .description = "The leaf's path, as in params/layer0/kernel; [0:10,:] behind it "
                                "is a slice; not with --leaves"},
                [arguments](const std::string& text) -> std::string {
                  arguments->leaf = text;
                  // With a slice behind it, it need not be a path as it stands.
                  const std::size_t bracket = text.rfind('[');
                  const bool may_have_slice =
                      text.ends_with(']') && bracket != std::string::npos &&
                      text.find_first_not_of("0123456789-:., ", bracket + 1) == text.size() - 1;
                  const Result<LeafPath> path = parse_path(text);
                  return path || may_have_slice ? "" : path.error().message;
                });
  verb.add_item(arguments->item);
  verb.add_leaves(arguments->patterns);
  verb.add_flag("--raw", "The bytes as they were saved, little-endian", arguments->raw);
  verb.add_flag("--npy", "A .npy file for numpy.load; not for dtypes that numpy lacks",
                arguments->npy);
  verb.add_flag("--json", "Dtype, shape and values in JSON; up to 1 MiB of data", line.json);
  verb.choose_one("Format", {"--raw", "--npy", "--json"}, /*is_required=*/true);
  verb.add_flag("--force", "With --json: however large the leaf is", arguments->force);
  verb.on_run([arguments, &line](Console& console) -> Result<int> {
    const bool selects =
        !arguments->patterns.include.empty() || !arguments->patterns.exclude.empty();
    if (arguments->leaf.has_value() == selects) {
      line.failure_exit_code = kExitUsage;
      return fail(ErrorCode::kInvalidArgument,
                  selects ? "a LEAF and --leaves or --exclude do not go together (see `stepstone "
                            "cat --help`)"
                          : "LEAF is required, or --leaves (see `stepstone cat --help`)");
    }
    return run_cat(*arguments, console);
  });
}

}  // namespace stepstone::tool
