// Writes a safetensors file as the safetensors library would. Everything that can be wrong with the
// item is found before the file is begun; the file is written beside its destination under a
// temporary name and gets its own only when its bytes are on the disk, so that the name never
// stands for half a file.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"
#include "tools/safetensors.h"
#include "tools/system.h"

namespace stepstone::tool {
namespace {

struct ExportArguments {
  std::filesystem::path store;
  std::uint64_t step = 0;
  std::filesystem::path file;
  std::optional<std::string> item;
  bool force = false;
};

// While it lives, SIGINT, SIGTERM and SIGHUP only set a flag, so that an interrupted export can
// remove its temporary file. A signal that is ignored (nohup) stays so.
class InterruptionGuard {
 public:
  InterruptionGuard() {
    struct sigaction action = {};
    action.sa_handler = [](int) { signal_seen = 1; };
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
      ::sigaction(kSignals[i], nullptr, &previous_[i]);
      if (previous_[i].sa_handler != SIG_IGN) ::sigaction(kSignals[i], &action, nullptr);
    }
  }
  ~InterruptionGuard() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
      ::sigaction(kSignals[i], &previous_[i], nullptr);
    }
  }
  InterruptionGuard(const InterruptionGuard&) = delete;
  InterruptionGuard& operator=(const InterruptionGuard&) = delete;

  static bool was_interrupted() { return signal_seen != 0; }

 private:
  static constexpr std::array<int, 3> kSignals = {SIGINT, SIGTERM, SIGHUP};
  // A signal handler can reach nothing but static storage.
  static inline volatile std::sig_atomic_t signal_seen = 0;

  std::array<struct sigaction, kSignals.size()> previous_ = {};
};

// A file that becomes visible under its name when it is whole.
class AtomicFile {
 public:
  // kAlreadyExists: something is at `path` and `replace` is not set. kInvalidArgument: what is
  // there is not a regular file.
  static Result<std::unique_ptr<AtomicFile>> create(const std::filesystem::path& path,
                                                    bool replace) {
    std::error_code ignored;
    // Behind a symbolic link, the file that it names is replaced, not the link.
    const bool is_link = std::filesystem::is_symlink(path, ignored);
    std::unique_ptr<AtomicFile> file(new AtomicFile());  // NOLINT: private constructor.
    file->path_ = is_link ? std::filesystem::weakly_canonical(path, ignored) : path;
    file->replace_ = replace;
    STEPSTONE_TRY(file->check_destination());
    file->temporary_path_ = file->path_;
    file->temporary_path_ += fmt::format(".partial-{}", ::getpid());
    file->descriptor_ = FileDescriptor(
        ::open(file->temporary_path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (file->descriptor_.get() < 0) return file->system_failure();
    file->exists_ = true;
    return file;
  }

  ~AtomicFile() {
    if (exists_) ::unlink(temporary_path_.c_str());
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  Result<void> write(std::span<const std::byte> bytes) {
    errno = write_fully(descriptor_.get(), bytes);
    if (errno != 0) return system_failure();
    return {};
  }

  // Durable when it returns.
  Result<void> publish() {
    if (::fsync(descriptor_.get()) != 0) return system_failure();
    errno = descriptor_.close();
    if (errno != 0) return system_failure();
    STEPSTONE_TRY(rename());
    exists_ = false;
    const std::filesystem::path parent = path_.has_parent_path() ? path_.parent_path() : ".";
    const FileDescriptor directory(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory.get() < 0 || ::fsync(directory.get()) != 0) return system_failure();
    return {};
  }

 private:
  AtomicFile() = default;

  tl::unexpected<Error> system_failure() const {
    return tl::unexpected<Error>(system_error(errno, printable(path_.native())));
  }

  tl::unexpected<Error> already_exists() const {
    return fail(ErrorCode::kAlreadyExists,
                printable(path_.native()) + " exists already; --force replaces it");
  }

  Result<void> check_destination() const {
    struct stat status = {};
    if (::lstat(path_.c_str(), &status) != 0) {
      if (errno == ENOENT) return {};
      return system_failure();
    }
    if (!S_ISREG(status.st_mode)) {
      return fail(ErrorCode::kInvalidArgument,
                  printable(path_.native()) + " is there and is not a regular file");
    }
    if (!replace_) return already_exists();
    return {};
  }

  Result<void> rename() const {
    const char* const from = temporary_path_.c_str();
    const char* const to = path_.c_str();
    if (!replace_) {
      // Somebody may have created the file meanwhile, and was not to be replaced.
      if (::renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return {};
      if (errno == EEXIST) return already_exists();
      // Not every file system can do this; the check at the beginning then has to do.
      if (errno != EINVAL && errno != ENOSYS) return system_failure();
      STEPSTONE_TRY(check_destination());
    }
    if (::rename(from, to) != 0) return system_failure();
    return {};
  }

  std::filesystem::path path_;
  std::filesystem::path temporary_path_;
  FileDescriptor descriptor_;
  bool replace_ = false;
  bool exists_ = false;
};

// What goes into the file, tensor i from leaf i.
struct Contents {
  std::vector<SafetensorsTensor> tensors;
  std::vector<StoredLeaf> leaves;
};

std::string joined_name(const LeafPath& path) {
  std::string name;
  for (std::size_t i = 0; i < path.size(); ++i) {
    if (i != 0) name += '.';
    const bool is_named = path[i].kind == PathComponent::Kind::kStringKey ||
                          path[i].kind == PathComponent::Kind::kAttribute;
    name += is_named ? path[i].name : std::to_string(path[i].number);
  }
  return name;
}

Result<SafetensorsTensor> to_tensor(const StoredLeaf& leaf) {
  const std::string place = "leaf '" + to_text(leaf.encoded_path) + "'";
  if (!leaf.record.dtype) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("{} is of kind {}; a safetensors file holds arrays only", place,
                            to_string(leaf.record.kind)));
  }
  if (!safetensors_name(*leaf.record.dtype)) {
    return fail(ErrorCode::kUnsupported, fmt::format("{} has dtype {}, which safetensors lacks",
                                                     place, to_string(*leaf.record.dtype)));
  }
  const LeafPath path = STEPSTONE_TRY(decode_path(leaf.encoded_path));
  if (path.empty()) {
    return fail(ErrorCode::kUnsupported,
                "the item is one leaf without a name, and a tensor in a safetensors file has one");
  }
  return SafetensorsTensor{.name = joined_name(path),
                           .dtype = *leaf.record.dtype,
                           .shape = leaf.record.shape,
                           .size_bytes = leaf.record.size_bytes};
}

// {'a.b': 1, 'a': {'b': 2}} would collapse.
Result<void> check_collisions(const Contents& contents) {
  std::vector<std::size_t> order(contents.tensors.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto name = [&](std::size_t i) -> const std::string& { return contents.tensors[i].name; };
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return name(a) < name(b); });
  const auto twice = std::adjacent_find(
      order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return name(a) == name(b); });
  if (twice == order.end()) return {};
  return fail(
      ErrorCode::kInvalidArgument,
      fmt::format("the leaves '{}' and '{}' would both be the tensor '{}'",
                  to_text(contents.leaves[twice[0]].encoded_path),
                  to_text(contents.leaves[twice[1]].encoded_path), printable(name(*twice))));
}

Result<Contents> gather(const StepReader& step, const std::string& item) {
  Contents found;
  found.leaves = STEPSTONE_TRY(step.read_leaves(item));
  for (const StoredLeaf& leaf : found.leaves) {
    found.tensors.push_back(STEPSTONE_TRY(to_tensor(leaf)));
  }
  STEPSTONE_TRY(check_collisions(found));
  Contents ordered;
  for (const std::size_t i : canonical_order(found.tensors)) {
    ordered.tensors.push_back(std::move(found.tensors[i]));
    ordered.leaves.push_back(std::move(found.leaves[i]));
  }
  return ordered;
}

Result<void> write_file(const StepReader& step, const std::string& item, const Contents& contents,
                        const std::string& header, AtomicFile& file) {
  Progress progress("export");
  std::uint64_t total_bytes = 0;
  for (const SafetensorsTensor& tensor : contents.tensors) total_bytes += tensor.size_bytes;
  std::uint64_t done_bytes = 0;
  STEPSTONE_TRY(file.write(std::as_bytes(std::span(header))));
  for (const StoredLeaf& leaf : contents.leaves) {
    STEPSTONE_TRY(
        stream_leaf(step, item, leaf, [&](std::span<const std::byte> piece) -> Result<bool> {
          if (InterruptionGuard::was_interrupted()) return fail(ErrorCode::kIo, "interrupted");
          STEPSTONE_TRY(file.write(piece));
          done_bytes += piece.size();
          progress.update(done_bytes, total_bytes);
          return true;
        }));
  }
  if (InterruptionGuard::was_interrupted()) return fail(ErrorCode::kIo, "interrupted");
  return file.publish();
}

Result<int> run_export(const ExportArguments& arguments, Console& console) {
  const auto store = STEPSTONE_TRY(open_for_reading(arguments.store));
  const auto step = STEPSTONE_TRY(store->read_step(arguments.step));
  const std::string item = STEPSTONE_TRY(choose_item(step->record(), arguments.item));
  const std::string place = fmt::format("step {} item '{}'", arguments.step, printable(item));
  const ItemRecord record = STEPSTONE_TRY(step->read_item(item));
  const auto metadata = STEPSTONE_TRY_CONTEXT(from_custom_metadata(record.custom_metadata), place);
  const Contents contents = STEPSTONE_TRY_CONTEXT(gather(*step, item), place);
  const std::string header =
      STEPSTONE_TRY_CONTEXT(encode_safetensors_header(metadata, contents.tensors), place);
  const InterruptionGuard guard;
  const auto file = STEPSTONE_TRY(AtomicFile::create(arguments.file, arguments.force));
  STEPSTONE_TRY(write_file(*step, item, contents, header, *file));

  std::uint64_t size_bytes = header.size();
  for (const SafetensorsTensor& tensor : contents.tensors) size_bytes += tensor.size_bytes;
  if (console.json) {
    const nlohmann::ordered_json answer = {{"store", printable(arguments.store.native())},
                                           {"step", arguments.step},
                                           {"item", printable(item)},
                                           {"file", printable(arguments.file.native())},
                                           {"tensor_count", contents.tensors.size()},
                                           {"file_size_bytes", size_bytes}};
    STEPSTONE_TRY(console.output.write(answer.dump() + "\n"));
    return kExitOk;
  }
  STEPSTONE_TRY(console.output.write(fmt::format(
      "exported {} to {}, {}\n", format_count(contents.tensors.size(), "tensor", "tensors"),
      printable(arguments.file.native()), format_size(size_bytes))));
  return kExitOk;
}

}  // namespace

void add_export(CommandLine& line) {
  Verb verb(line, "export", "Write an item as a safetensors file",
            "Leaves must be arrays of dtypes that safetensors has. The parts of a path are joined "
            "by '.'.\n"
            "A file that the safetensors library wrote, imported and exported, is the same byte "
            "for byte.\n"
            "The file appears under its name when it is whole and on the disk.\n\n"
            "Examples:\n"
            "  stepstone export run 100 -o model.safetensors\n"
            "  stepstone export run 100 -o model.safetensors --force    replace the file");
  const auto arguments = std::make_shared<ExportArguments>();
  verb.add_store(arguments->store);
  verb.add_step(arguments->step);
  verb.add_path({.names = "-o,--output",
                 .description = "The file to write",
                 .type_name = "FILE",
                 .is_required = true},
                arguments->file);
  verb.add_item(arguments->item);
  verb.add_flag("--force", "Replace the file if it is there already", arguments->force);
  verb.add_json();
  verb.on_run([arguments](Console& console) { return run_export(*arguments, console); });
}

}  // namespace stepstone::tool
