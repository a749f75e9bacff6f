// Restoring takes four passes: the stored tree and the target are matched, and every leaf's form is
// checked, before any byte is read; then the bytes of all leaves are read at once, in parallel,
// where possible to where they are to stay; then what a target asks for is cast into place.
#include "api/tree_reader.h"

#include <fmt/format.h>

#include <chrono>
#include <exception>
#include <optional>

#include "api/array_region.h"
#include "api/json.h"
#include "api/leaf_form.h"
#include "api/slice_reader.h"
#include "api/stored_item.h"
#include "api/tree_match.h"
#include "engine/huge_memory.h"
#include "engine/parallel.h"

namespace stepstone {
namespace {

double seconds_since(std::chrono::steady_clock::time_point begun) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
}

// A stored leaf on its way into the result.
struct LeafRead {
  StoredLeaf* leaf = nullptr;
  std::unique_ptr<const std::vector<Slice>> slice;  // Only this of it.
  std::span<std::byte> destination;                 // The caller's, `buffer`, or the record's own.
  std::shared_ptr<std::byte[]> buffer;
  std::unique_ptr<LeafView> view;  // Instead of a destination: it stays where it is.
  bool is_kept = false;            // The destination is the record's memory, which take() takes.

  std::vector<std::uint64_t> shape() const { return slice ? shape_of(*slice) : leaf->record.shape; }

  Result<Leaf> take() {
    LeafRecord& record = leaf->record;
    if (record.kind != LeafKind::kArray) return decode_value(record, destination);
    if (view) {
      return Leaf(
          STEPSTONE_TRY(Array::own(*record.dtype, shape(), view->bytes, std::move(view->owner))));
    }
    if (is_kept) {
      const auto owner = std::make_shared<std::vector<std::byte>>(std::move(*record.inline_bytes));
      buffer = {owner, owner->data()};
    }
    if (buffer == nullptr) {
      return Leaf(STEPSTONE_TRY(Array::borrow(*record.dtype, shape(), destination)));
    }
    return Leaf(STEPSTONE_TRY(Array::adopt(*record.dtype, shape(), std::move(buffer))));
  }
};

struct LeafJob {
  const LeafMatch* match = nullptr;
  Tree* result = nullptr;
  const RestoreArgs* args = nullptr;
  // Null: as saved, or that of a transformed leaf, whose value is yet to be seen.
  std::unique_ptr<const LeafForm> form;
  std::span<LeafRead> reads;
};

void list_leaves(Tree& tree, std::vector<Tree*>& leaves) {
  if (tree.is_leaf()) leaves.push_back(&tree);
  for (Tree::Child& child : tree.children()) list_leaves(child.tree, leaves);
}

class TreeReader {
 public:
  // Takes what it keeps of the leaves' records out of `item`.
  TreeReader(const StepReader& reader, StoredItem& item, const args::PyTreeRestore& args)
      : reader_(reader), item_(item), args_(args) {}

  Result<void> plan() {
    match_ = STEPSTONE_TRY(match_tree(item_, args_));
    STEPSTONE_TRY(check_paths());
    std::vector<Tree*> results;
    list_leaves(match_.result, results);
    Differences differences;
    jobs_.reserve(results.size());
    reads_.reserve(match_.sources.size());  // Jobs have spans of them.
    for (std::size_t i = 0; i < results.size(); ++i) {
      const LeafMatch& match = match_.leaves[i];
      if (match.source_count == 0 && match.transform == nullptr) continue;
      LeafJob job{
          .match = &match, .result = results[i], .args = &no_args_, .form = nullptr, .reads = {}};
      if (!args_.restore_args.empty()) {
        const RestoreArgs* const args =
            args_.restore_args.find(match_.path_of(match), match_.text_of(match));
        if (args != nullptr) job.args = args;
      }
      const bool is_skipped =
          job.args->skip ||
          (match.target != nullptr && std::holds_alternative<Placeholder>(*match.target));
      if (is_skipped) {
        *results[i] = Placeholder{};
        continue;
      }
      const Result<void> planned = plan_leaf(job);
      if (planned) {
        jobs_.push_back(std::move(job));
      } else if (planned.error().code == ErrorCode::kMismatch) {
        differences.add(match_.text_of(match), planned.error().message);
      } else {
        return in_leaf(planned.error(), match);
      }
    }
    return differences.check(item_.where);
  }

  Result<void> read() {
    STEPSTONE_TRY(map());
    std::vector<ReadRequest> whole;
    std::vector<const LeafRead*> sliced;
    // Of the stored leaves: transforms may read one more than once.
    std::vector<bool> is_kept(item_.leaves.size());
    whole.reserve(reads_.size());
    for (LeafRead& read : reads_) {
      if (read.view) {
        size_bytes_ += read.view->bytes.size();
        ++leaf_count_;
        continue;
      }
      const auto leaf = static_cast<std::size_t>(read.leaf - item_.leaves.data());
      if (can_keep(read) && !is_kept[leaf]) {
        is_kept[leaf] = true;
        read.is_kept = true;
        read.destination = *read.leaf->record.inline_bytes;
      }
      if (read.destination.empty()) {
        const std::uint64_t size = STEPSTONE_TRY(size_of(read));
        read.buffer = allocate_huge(static_cast<std::size_t>(size));
        read.destination = {read.buffer.get(), static_cast<std::size_t>(size)};
      }
      size_bytes_ += read.destination.size();
      if (read.slice) {
        sliced.push_back(&read);
      } else {
        whole.push_back({item_.name, read.leaf, read.destination});
      }
    }
    leaf_count_ += whole.size() + sliced.size();
    STEPSTONE_TRY(reader_.read_all(whole));
    return parallel_for(effective_thread_count(0), sliced.size(), [&](std::size_t i) {
      return read_slice(reader_, item_.name, *sliced[i]->leaf, *sliced[i]->slice,
                        sliced[i]->destination);
    });
  }

  Result<Tree> finish() {
    std::vector<std::optional<Error>> errors(jobs_.size());
    const auto finish_job = [&](std::size_t i) {
      Result<Leaf> leaf = finish_leaf(jobs_[i]);
      if (leaf) {
        *jobs_[i].result = Tree(*std::move(leaf));
      } else {
        errors[i] = std::move(leaf).error();
      }
      return Result<void>();
    };
    // Functions of the caller's are not called on threads that it does not know.
    const unsigned thread_count = args_.transforms.empty() ? effective_thread_count(0) : 1;
    STEPSTONE_TRY(parallel_for(thread_count, jobs_.size(), finish_job));
    Differences differences;
    for (std::size_t i = 0; i < jobs_.size(); ++i) {
      if (!errors[i]) continue;
      if (errors[i]->code != ErrorCode::kMismatch) return in_leaf(*errors[i], *jobs_[i].match);
      differences.add(match_.text_of(*jobs_[i].match), errors[i]->message);
    }
    STEPSTONE_TRY(differences.check(item_.where));
    if (args_.report != nullptr) *args_.report = std::move(match_.report);
    return std::move(match_.result);
  }

  std::uint64_t leaf_count() const { return leaf_count_; }
  std::uint64_t size_bytes() const { return size_bytes_; }

 private:
  // Takes the arrays that can stay where they are.
  Result<void> map() {
    if (args_.map == MapArrays::kNo) return {};
    std::vector<LeafRead*> reads;
    for (LeafRead& read : reads_) {
      const LeafRecord& record = read.leaf->record;
      const bool may_stay = record.kind == LeafKind::kArray && record.size_bytes != 0 &&
                            !read.slice && read.destination.empty();
      if (may_stay) reads.push_back(&read);
    }
    const ViewCheck check =
        args_.map == MapArrays::kChecked ? ViewCheck::kHashes : ViewCheck::kNothing;
    return parallel_for(
        effective_thread_count(0), reads.size(), [&](std::size_t i) -> Result<void> {
          Result<LeafView> view = reader_.view(item_.name, *reads[i]->leaf, check);
          // Then it is read.
          if (!view && view.error().code == ErrorCode::kUnsupported) return {};
          reads[i]->view = std::make_unique<LeafView>(STEPSTONE_TRY(std::move(view)));
          return {};
        });
  }

  tl::unexpected<Error> in_leaf(Error error, const LeafMatch& match) const {
    return tl::unexpected<Error>(with_context(
        std::move(error), fmt::format("{} leaf '{}'", item_.where, match_.text_of(match))));
  }

  // Whoever names a node that is not there has mistyped it.
  Result<void> check_paths() const {
    const LeafPath* const missing = args_.restore_args.missing_from(match_.result);
    if (missing == nullptr) return {};
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("{}: restore_args: there is no '{}' in what is restored", item_.where,
                            to_text(*missing)));
  }

  Result<void> plan_leaf(LeafJob& job) {
    const std::size_t first = reads_.size();
    for (const std::size_t source : match_.sources_of(*job.match)) {
      reads_.emplace_back().leaf = &item_.leaves[source];
    }
    job.reads = std::span(reads_).subspan(first);
    if (job.match->transform != nullptr &&
        (job.match->transform->value_fn || job.match->transform->compute)) {
      return {};
    }
    LeafRead& read = job.reads.front();
    const LeafRecord& record = read.leaf->record;
    if (job.args == &no_args_ && is_as_saved(record, job.match->target)) return {};
    Leaf stored = abstract_leaf(record);
    if (record.kind == LeafKind::kArray && !job.args->slice.empty()) {
      read.slice = std::make_unique<const std::vector<Slice>>(
          STEPSTONE_TRY(whole_slice(job.args->slice, record.shape)));
      stored = AbstractArray{*record.dtype, read.shape()};
    }
    LeafForm form = STEPSTONE_TRY(form_of(stored, job.match->target, *job.args));
    const bool is_in_place = form.array && !form.is_scalar && is_same(stored, *form.array);
    if (is_in_place) read.destination = job.args->destination;
    if (form.array) job.form = std::make_unique<const LeafForm>(std::move(form));
    return {};
  }

  // Whether the leaf fits the target as it is. Of most leaves it does, and nothing need be
  // allocated to find out.
  static bool is_as_saved(const LeafRecord& record, const Leaf* target) {
    if (target == nullptr) return true;
    if (record.kind != LeafKind::kArray) return false;
    if (const auto* const array = std::get_if<Array>(target)) {
      return array->dtype() == *record.dtype && array->shape() == record.shape;
    }
    const auto* const array = std::get_if<AbstractArray>(target);
    return array != nullptr && array->dtype == *record.dtype && array->shape == record.shape;
  }

  static bool is_same(const Leaf& stored, const AbstractArray& array) {
    const auto* const abstract = std::get_if<AbstractArray>(&stored);
    return abstract != nullptr && *abstract == array;
  }

  // Whether a small array can stay in the memory that it came in with its record.
  static bool can_keep(const LeafRead& read) {
    const LeafRecord& record = read.leaf->record;
    return record.kind == LeafKind::kArray && record.inline_bytes && !read.slice &&
           read.destination.empty() && record.size_bytes < kAlignedSizeBytesMin;
  }

  static Result<std::uint64_t> size_of(const LeafRead& read) {
    const LeafRecord& record = read.leaf->record;
    if (!read.slice) return record.size_bytes;
    return array_size_bytes(*record.dtype, read.shape());
  }

  Result<Leaf> finish_leaf(LeafJob& job) const {
    const Transform* const transform = job.match->transform;
    if (transform == nullptr || (!transform->value_fn && !transform->compute)) {
      Result<Leaf> leaf = job.reads.front().take();
      if (!leaf || job.form == nullptr) return leaf;
      return into_form(*std::move(leaf), *job.form, *job.args);
    }
    std::vector<Leaf> stored;
    for (LeafRead& read : job.reads) stored.push_back(STEPSTONE_TRY(read.take()));
    const Leaf value = STEPSTONE_TRY(call(*transform, stored));
    const LeafForm form = STEPSTONE_TRY(form_of(value, job.match->target, *job.args));
    return into_form(value, form, *job.args);
  }

  static Result<Leaf> call(const Transform& transform, const std::vector<Leaf>& stored) {
    try {
      return transform.compute ? transform.compute(stored) : transform.value_fn(stored.front());
    } catch (const std::exception& exception) {
      return fail(
          ErrorCode::kInvalidArgument,
          fmt::format("transform '{}' threw: {}", printable(transform.pattern), exception.what()));
    }
  }

  const StepReader& reader_;
  StoredItem& item_;
  const args::PyTreeRestore& args_;
  const RestoreArgs no_args_{};  // Of leaves that have none.
  TreeMatch match_;
  std::vector<LeafJob> jobs_;
  std::vector<LeafRead> reads_;
  std::uint64_t leaf_count_ = 0;
  std::uint64_t size_bytes_ = 0;
};

LeafMetadata metadata_of(const LeafRecord& record, std::string path) {
  LeafMetadata leaf{.path = std::move(path),
                    .kind = record.kind,
                    .dtype = record.dtype,
                    .shape = record.shape,
                    .size_bytes = record.size_bytes,
                    .stored_bytes = record.inline_bytes ? record.size_bytes : 0,
                    .chunk_size_bytes = record.chunk_size_bytes};
  if (record.inline_bytes) return leaf;
  for (std::uint32_t chunk = 0; chunk < record.chunk_count(); ++chunk) {
    leaf.stored_bytes += record.stored_size_at(chunk);
  }
  return leaf;
}

}  // namespace

Result<Tree> read_tree(const StepReader& reader, std::string_view item,
                       const args::PyTreeRestore& args, RestoreStatistics* statistics) {
  const auto begun = std::chrono::steady_clock::now();
  StoredItem stored = STEPSTONE_TRY(StoredItem::read(reader, item, args.subtree));
  TreeReader tree_reader(reader, stored, args);
  STEPSTONE_TRY(tree_reader.plan());
  STEPSTONE_TRY(tree_reader.read());
  const auto read = std::chrono::steady_clock::now();
  Result<Tree> tree = tree_reader.finish();
  if (statistics != nullptr) {
    statistics->size_bytes += tree_reader.size_bytes();
    statistics->leaf_count += tree_reader.leaf_count();
    statistics->read_s += std::chrono::duration<double>(read - begun).count();
    statistics->cast_s += seconds_since(read);
  }
  return tree;
}

Result<LeafMetadata> read_leaf_metadata(const StepReader& reader, std::string_view item,
                                        const LeafPath& path) {
  Result<std::string> encoded = encode_path(path);
  if (!encoded) {
    return fail(ErrorCode::kNotFound,
                fmt::format("step {} item '{}': no leaf has such a path: {}",
                            reader.record().save.step, printable(item), encoded.error().message));
  }
  const StoredLeaf leaf = STEPSTONE_TRY(reader.read_leaf(item, *std::move(encoded)));
  return metadata_of(leaf.record, to_text(path));
}

Result<ItemMetadata> read_metadata(const StepReader& reader, std::string_view item) {
  StoredItem stored = STEPSTONE_TRY(StoredItem::read(reader, item));
  ItemMetadata metadata;
  metadata.handler = stored.record.handler;
  if (!stored.record.custom_metadata.empty()) {
    metadata.custom_metadata = STEPSTONE_TRY_CONTEXT(from_json(stored.record.custom_metadata),
                                                     stored.where + ": custom metadata");
  }
  std::vector<std::string> paths;
  stored.skeleton.for_each_leaf(
      [&](const LeafPath& path, const Leaf& /*leaf*/) { paths.push_back(to_text(path)); });
  std::vector<Tree*> leaves;
  list_leaves(stored.skeleton, leaves);
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const LeafRecord& record = stored.record_of(*leaves[i]);
    LeafMetadata leaf = metadata_of(record, std::move(paths[i]));
    metadata.size_bytes += leaf.size_bytes;
    metadata.stored_bytes += leaf.stored_bytes;
    metadata.leaves.push_back(std::move(leaf));
    *leaves[i] = Tree(abstract_leaf(record));
  }
  metadata.tree = std::move(stored.skeleton);
  return metadata;
}

}  // namespace stepstone
