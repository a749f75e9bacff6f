// The disk keeps two things: what programs see now (nodes_), and the list of changes since it came
// to be. A power loss is replayed from the list: a walk backwards finds which changes a later sync
// made safe, the policy draws which of the others survive, and a walk forwards applies the
// survivors to the image the disk started from. Contents are shared between copies until somebody
// writes to them, so that thousands of states of one store cost little.
#include "tests/support/simulated_disk.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "tests/support/null_logger.h"
#include "tests/support/random.h"

namespace stepstone {
namespace {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

constexpr std::uint64_t kRoot = 1;

class HeldLock : public rocksdb::FileLock {
 public:
  explicit HeldLock(std::uint64_t held) : node(held) {}
  std::uint64_t node;
};

std::vector<std::string> split(const std::string& path) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (begin <= path.size()) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    if (end != begin) parts.push_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// The texts end as strerror's do: callers look for them.
IOStatus not_found(const std::string& path) {
  return IOStatus::PathNotFound(path, "No such file or directory");
}
IOStatus exists_already(const std::string& path) { return IOStatus::IOError(path, "File exists"); }

bool is_data(SimulatedDisk::Operation operation) {
  return operation == SimulatedDisk::Operation::kWrite ||
         operation == SimulatedDisk::Operation::kTruncate;
}

bool is_sync(SimulatedDisk::Operation operation) {
  return operation == SimulatedDisk::Operation::kSync ||
         operation == SimulatedDisk::Operation::kDirectorySync;
}

// How much of a torn write of `size` bytes reached the disk: cut at a byte, a sector or a page.
std::size_t torn_size(std::size_t size, Random& random) {
  constexpr std::size_t kUnits[] = {1, 512, 4096};
  const std::size_t unit = kUnits[random.below(std::size(kUnits))];
  return static_cast<std::size_t>(random.below(size / unit + 1)) * unit;
}

}  // namespace

std::string_view SimulatedDisk::to_string(Operation operation) {
  switch (operation) {
    case Operation::kCreate:
      return "create";
    case Operation::kOpen:
      return "open";
    case Operation::kWrite:
      return "write";
    case Operation::kTruncate:
      return "truncate";
    case Operation::kSync:
      return "sync";
    case Operation::kDirectorySync:
      return "directory sync";
    case Operation::kLink:
      return "link";
    case Operation::kRename:
      return "rename";
    case Operation::kDelete:
      return "delete";
    case Operation::kMakeDirectory:
      return "make directory";
    case Operation::kClose:
      return "close";
    case Operation::kLock:
      return "lock";
  }
  return "?";
}

class SimulatedDisk::Sequential : public rocksdb::FSSequentialFile {
 public:
  Sequential(const SimulatedDisk& disk, NodeId node) : disk_(disk), node_(node) {}

  IOStatus Read(std::size_t size, const IOOptions& /*options*/, Slice* result, char* scratch,
                IODebugContext* /*context*/) override {
    const std::scoped_lock lock(disk_.mutex_);
    const std::string& content = *disk_.nodes_.at(node_).content;
    const std::size_t begin = std::min(offset_, content.size());
    const std::size_t length = std::min(size, content.size() - begin);
    std::memcpy(scratch, content.data() + begin, length);
    offset_ = begin + length;
    *result = Slice(scratch, length);
    return IOStatus::OK();
  }
  IOStatus Skip(std::uint64_t size) override {
    offset_ += static_cast<std::size_t>(size);
    return IOStatus::OK();
  }

 private:
  const SimulatedDisk& disk_;
  const NodeId node_;
  std::size_t offset_ = 0;
};

class SimulatedDisk::RandomAccess : public rocksdb::FSRandomAccessFile {
 public:
  RandomAccess(const SimulatedDisk& disk, NodeId node) : disk_(disk), node_(node) {}

  IOStatus Read(std::uint64_t offset, std::size_t size, const IOOptions& /*options*/, Slice* result,
                char* scratch, IODebugContext* /*context*/) const override {
    const std::scoped_lock lock(disk_.mutex_);
    const std::string& content = *disk_.nodes_.at(node_).content;
    const std::size_t begin = std::min(static_cast<std::size_t>(offset), content.size());
    const std::size_t length = std::min(size, content.size() - begin);
    std::memcpy(scratch, content.data() + begin, length);
    *result = Slice(scratch, length);
    return IOStatus::OK();
  }

 private:
  const SimulatedDisk& disk_;
  const NodeId node_;
};

class SimulatedDisk::Writable : public rocksdb::FSWritableFile {
 public:
  Writable(SimulatedDisk& disk, NodeId node, std::string path, std::uint64_t offset)
      : disk_(disk), node_(node), path_(std::move(path)), offset_(offset) {}

  using rocksdb::FSWritableFile::Append;
  IOStatus Append(const Slice& data, const IOOptions& /*options*/,
                  IODebugContext* /*context*/) override {
    const std::scoped_lock lock(disk_.mutex_);
    IOStatus status = disk_.write(node_, offset_, data, path_);
    if (status.ok()) offset_ += data.size();
    return status;
  }
  IOStatus Truncate(std::uint64_t size, const IOOptions& /*options*/,
                    IODebugContext* /*context*/) override {
    const std::scoped_lock lock(disk_.mutex_);
    return disk_.truncate(node_, size, path_);
  }
  IOStatus Close(const IOOptions& /*options*/, IODebugContext* /*context*/) override {
    const std::scoped_lock lock(disk_.mutex_);
    return disk_.failure(Operation::kClose, path_).value_or(IOStatus::OK());
  }
  IOStatus Flush(const IOOptions& /*options*/, IODebugContext* /*context*/) override {
    return IOStatus::OK();
  }
  IOStatus Sync(const IOOptions& /*options*/, IODebugContext* /*context*/) override {
    const std::scoped_lock lock(disk_.mutex_);
    return disk_.sync(node_, Operation::kSync, path_);
  }
  IOStatus RangeSync(std::uint64_t /*offset*/, std::uint64_t /*size*/, const IOOptions& /*options*/,
                     IODebugContext* /*context*/) override {
    return IOStatus::OK();
  }
  bool IsSyncThreadSafe() const override { return true; }
  std::uint64_t GetFileSize(const IOOptions& /*options*/, IODebugContext* /*context*/) override {
    const std::scoped_lock lock(disk_.mutex_);
    return disk_.nodes_.at(node_).content->size();
  }

 private:
  SimulatedDisk& disk_;
  const NodeId node_;
  const std::string path_;
  std::uint64_t offset_;
};

class SimulatedDisk::RandomRW : public rocksdb::FSRandomRWFile {
 public:
  RandomRW(SimulatedDisk& disk, NodeId node, std::string path)
      : disk_(disk), node_(node), path_(std::move(path)) {}

  IOStatus Write(std::uint64_t offset, const Slice& data, const IOOptions& /*options*/,
                 IODebugContext* /*context*/) override {
    const std::scoped_lock lock(disk_.mutex_);
    return disk_.write(node_, offset, data, path_);
  }
  IOStatus Read(std::uint64_t offset, std::size_t size, const IOOptions& options, Slice* result,
                char* scratch, IODebugContext* context) const override {
    return RandomAccess(disk_, node_).Read(offset, size, options, result, scratch, context);
  }
  IOStatus Flush(const IOOptions& /*options*/, IODebugContext* /*context*/) override {
    return IOStatus::OK();
  }
  IOStatus Sync(const IOOptions& /*options*/, IODebugContext* /*context*/) override {
    const std::scoped_lock lock(disk_.mutex_);
    return disk_.sync(node_, Operation::kSync, path_);
  }
  IOStatus Close(const IOOptions& /*options*/, IODebugContext* /*context*/) override {
    const std::scoped_lock lock(disk_.mutex_);
    return disk_.failure(Operation::kClose, path_).value_or(IOStatus::OK());
  }

 private:
  SimulatedDisk& disk_;
  const NodeId node_;
  const std::string path_;
};

class SimulatedDisk::Directory : public rocksdb::FSDirectory {
 public:
  Directory(SimulatedDisk& disk, NodeId node, std::string path)
      : disk_(disk), node_(node), path_(std::move(path)) {}

  IOStatus Fsync(const IOOptions& /*options*/, IODebugContext* /*context*/) override {
    const std::scoped_lock lock(disk_.mutex_);
    return disk_.sync(node_, Operation::kDirectorySync, path_);
  }
  IOStatus Close(const IOOptions& /*options*/, IODebugContext* /*context*/) override {
    return IOStatus::OK();
  }

 private:
  SimulatedDisk& disk_;
  const NodeId node_;
  const std::string path_;
};

SimulatedDisk::SimulatedDisk() {
  nodes_[kRoot] = {.is_directory = true, .content = nullptr, .entries = {}};
  base_ = nodes_;
}

SimulatedDisk::~SimulatedDisk() = default;

std::shared_ptr<SimulatedDisk> SimulatedDisk::copy() const {
  const std::scoped_lock lock(mutex_);
  auto disk = std::make_shared<SimulatedDisk>();
  disk->nodes_ = nodes_;
  disk->base_ = nodes_;
  disk->next_node_ = next_node_;
  return disk;
}

std::shared_ptr<SimulatedDisk> SimulatedDisk::after_power_loss(std::size_t operation_count,
                                                               Unsynced unsynced,
                                                               std::uint64_t seed) const {
  const std::scoped_lock lock(mutex_);
  Random random(seed);
  std::vector<bool> is_safe(operation_count);
  std::set<NodeId> synced;
  std::size_t last_sync = 0;
  for (std::size_t i = operation_count; i-- > 0;) {
    const Change& change = changes_[i];
    if (is_sync(change.operation)) {
      synced.insert(change.node);
      last_sync = std::max(last_sync, i);
    } else if (is_data(change.operation)) {
      is_safe[i] = !change.is_lost && synced.contains(change.node);
    } else {
      const bool directories_are_synced =
          synced.contains(change.directory) &&
          (change.operation != Operation::kRename || synced.contains(change.from_directory));
      const bool file_is_synced =
          change.operation == Operation::kCreate && synced.contains(change.node);
      is_safe[i] = (!change.is_lost && directories_are_synced) || file_is_synced;
    }
  }
  // Journalling file systems commit names in their order, and whatever a sync waited for took the
  // names before it along.
  const std::size_t names_end =
      last_sync + static_cast<std::size_t>(random.below(operation_count - last_sync + 1));

  auto disk = std::make_shared<SimulatedDisk>();
  disk->nodes_ = base_;
  std::map<NodeId, std::vector<std::size_t>> pending;  // Writes that may or may not have happened.
  for (std::size_t i = 0; i < operation_count; ++i) {
    const Change& change = changes_[i];
    if (is_sync(change.operation)) continue;
    bool is_kept = is_safe[i] || unsynced == Unsynced::kKept;
    if (!is_kept && unsynced != Unsynced::kLost) {
      if (is_data(change.operation)) {
        pending[change.node].push_back(i);
      } else {
        is_kept = unsynced == Unsynced::kOrdered ? i < names_end : random.one_in(2);
      }
    }
    if (is_kept) apply(disk->nodes_, change);
  }
  for (const auto& [node, writes] : pending) {
    std::vector<const Change*> changes;
    for (const std::size_t i : writes) changes.push_back(&changes_[i]);
    std::string& content = content_of(disk->nodes_, node);
    content = unsynced == Unsynced::kOrdered ? cut_short(std::move(content), changes, random)
                                             : written_back(content, changes, random);
  }
  disk->base_ = disk->nodes_;
  disk->next_node_ = next_node_;
  return disk;
}

// What a program sees of a file after a write or a truncation, of which only the first `kept` bytes
// happen.
void SimulatedDisk::apply_data(std::string& content, const Change& change, std::size_t kept) {
  if (change.operation == Operation::kTruncate) {
    content.resize(static_cast<std::size_t>(change.offset));
    return;
  }
  const auto offset = static_cast<std::size_t>(change.offset);
  if (content.size() < offset + kept) content.resize(offset + kept);
  std::memcpy(content.data() + offset, change.data->data(), kept);
}

// All of the changes up to one of them, which is torn.
std::string SimulatedDisk::cut_short(std::string content, const std::vector<const Change*>& changes,
                                     Random& random) {
  const auto whole = static_cast<std::size_t>(random.below(changes.size() + 1));
  for (std::size_t i = 0; i < whole; ++i) {
    apply_data(content, *changes[i], changes[i]->data ? changes[i]->data->size() : 0);
  }
  if (whole < changes.size() && changes[whole]->data && random.one_in(2)) {
    apply_data(content, *changes[whole], torn_size(changes[whole]->data->size(), random));
  }
  return content;
}

// Each page as it was after one of the changes; each sector, where bytes were there before.
std::string SimulatedDisk::written_back(const std::string& before,
                                        const std::vector<const Change*>& changes, Random& random) {
  constexpr std::size_t kPage = 4096;
  constexpr std::size_t kSector = 512;
  std::size_t largest = before.size();
  {
    std::string content = before;
    for (const Change* change : changes) {
      apply_data(content, *change, change->data ? change->data->size() : 0);
      largest = std::max(largest, content.size());
    }
  }
  struct Piece {
    std::size_t begin;
    std::size_t end;
    std::size_t moment;  // After how many of the changes it was written back.
  };
  std::vector<Piece> pieces;
  for (std::size_t page = 0; page < largest; page += kPage) {
    const auto draw = [&] { return static_cast<std::size_t>(random.below(changes.size() + 1)); };
    const std::size_t moment = draw();
    for (std::size_t begin = page; begin < std::min(page + kPage, largest); begin += kSector) {
      const std::size_t end = std::min(begin + kSector, largest);
      pieces.push_back({begin, end, end <= before.size() ? draw() : moment});
    }
  }
  std::string after(largest, '\0');
  std::size_t size = 0;
  std::string content = before;
  for (std::size_t moment = 0; moment <= changes.size(); ++moment) {
    if (moment != 0) {
      const Change& change = *changes[moment - 1];
      apply_data(content, change, change.data ? change.data->size() : 0);
    }
    for (const Piece& piece : pieces) {
      if (piece.moment != moment || piece.begin >= content.size()) continue;
      const std::size_t end = std::min(piece.end, content.size());
      std::memcpy(after.data() + piece.begin, content.data() + piece.begin, end - piece.begin);
      size = std::max(size, end);
    }
  }
  after.resize(size);
  return after;
}

std::string& SimulatedDisk::content_of(Nodes& nodes, NodeId id) {
  Node& node = nodes[id];
  if (node.content == nullptr) {
    node.content = std::make_shared<std::string>();
  } else if (node.content.use_count() > 1) {
    node.content = std::make_shared<std::string>(*node.content);
  }
  return *node.content;
}

// Names that survive may refer to others that did not; they do then what is still possible.
void SimulatedDisk::apply(Nodes& nodes, const Change& change) {
  switch (change.operation) {
    case Operation::kWrite:
    case Operation::kTruncate:
      apply_data(content_of(nodes, change.node), change, change.data ? change.data->size() : 0);
      return;
    case Operation::kMakeDirectory:
      nodes[change.node].is_directory = true;
      nodes[change.directory].entries[change.name] = change.node;
      return;
    case Operation::kCreate:
    case Operation::kLink:
      content_of(nodes, change.node);
      nodes[change.directory].entries[change.name] = change.node;
      return;
    case Operation::kRename: {
      content_of(nodes, change.node);
      auto& from = nodes[change.from_directory].entries;
      const auto found = from.find(change.from_name);
      if (found != from.end() && found->second == change.node) from.erase(found);
      nodes[change.directory].entries[change.name] = change.node;
      return;
    }
    case Operation::kDelete: {
      auto& entries = nodes[change.directory].entries;
      const auto found = entries.find(change.name);
      if (found != entries.end() && found->second == change.node) entries.erase(found);
      return;
    }
    default:
      return;
  }
}

std::size_t SimulatedDisk::operation_count() const {
  const std::scoped_lock lock(mutex_);
  return changes_.size();
}

std::string SimulatedDisk::describe(std::size_t operation) const {
  const std::scoped_lock lock(mutex_);
  if (operation >= changes_.size()) return "(the end)";
  const Change& change = changes_[operation];
  std::string text(to_string(change.operation));
  if (!change.from_name.empty()) text += " " + change.from_name + " to";
  if (!change.name.empty()) text += " " + change.name;
  text += " (node " + std::to_string(change.node) + ")";
  if (change.operation == Operation::kWrite) {
    text += " at " + std::to_string(change.offset) + ", " + std::to_string(change.data->size()) +
            " bytes";
  }
  return text;
}

void SimulatedDisk::set_fault(std::optional<Fault> fault) {
  const std::scoped_lock lock(mutex_);
  fault_ = fault;
  fault_points_ = 0;
  fault_was_reached_ = false;
  first_failure_.clear();
}

bool SimulatedDisk::fault_was_reached() const {
  const std::scoped_lock lock(mutex_);
  return fault_was_reached_;
}

std::uint64_t SimulatedDisk::fault_points() const {
  const std::scoped_lock lock(mutex_);
  return fault_points_;
}

std::string SimulatedDisk::first_failure() const {
  const std::scoped_lock lock(mutex_);
  return first_failure_;
}

std::vector<std::string> SimulatedDisk::files() const {
  const std::scoped_lock lock(mutex_);
  std::vector<std::string> paths;
  const std::function<void(NodeId, const std::string&)> visit = [&](NodeId id,
                                                                    const std::string& path) {
    for (const auto& [name, child] : nodes_.at(id).entries) {
      const std::string child_path = path + "/" + name;
      if (nodes_.at(child).is_directory) {
        visit(child, child_path);
      } else {
        paths.push_back(child_path);
      }
    }
  };
  visit(kRoot, "");
  return paths;
}

std::string SimulatedDisk::read_file(const std::string& path) const {
  const std::scoped_lock lock(mutex_);
  return *nodes_.at(find_node(path).value()).content;
}

void SimulatedDisk::write_file(const std::string& path, std::string content) {
  const std::scoped_lock lock(mutex_);
  const std::optional<Place> place = find(path);
  const NodeId id = place.value().node ? *place->node : next_node_++;
  nodes_[id].content = std::make_shared<std::string>(std::move(content));
  nodes_.at(place->directory).entries[place->name] = id;
}

std::optional<SimulatedDisk::Place> SimulatedDisk::find(const std::string& path) const {
  const std::vector<std::string> parts = split(path);
  if (parts.empty()) return Place{kRoot, "", kRoot};
  NodeId directory = kRoot;
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
    const auto& entries = nodes_.at(directory).entries;
    const auto found = entries.find(parts[i]);
    if (found == entries.end() || !nodes_.at(found->second).is_directory) return std::nullopt;
    directory = found->second;
  }
  const auto& entries = nodes_.at(directory).entries;
  const auto found = entries.find(parts.back());
  return Place{directory, parts.back(),
               found == entries.end() ? std::nullopt : std::optional(found->second)};
}

std::optional<SimulatedDisk::NodeId> SimulatedDisk::find_node(const std::string& path) const {
  const std::optional<Place> place = find(path);
  return place ? place->node : std::nullopt;
}

std::optional<IOStatus> SimulatedDisk::failure(Operation operation, const std::string& what) {
  if (!fault_ || (fault_->only && *fault_->only != operation)) return std::nullopt;
  // A full disk still syncs, closes and deletes.
  const bool needs_space = operation == Operation::kCreate || operation == Operation::kWrite ||
                           operation == Operation::kLink || operation == Operation::kRename ||
                           operation == Operation::kMakeDirectory;
  if (fault_->is_full && !needs_space) return std::nullopt;
  ++fault_points_;
  if (fault_points_ < fault_->at || (fault_points_ > fault_->at && !fault_->lasts)) {
    return std::nullopt;
  }
  fault_was_reached_ = true;
  if (first_failure_.empty()) first_failure_ = std::string(to_string(operation)) + " " + what;
  if (fault_->is_full) return IOStatus::NoSpace(what, "No space left on device");
  return IOStatus::IOError(what, "Input/output error");
}

void SimulatedDisk::record(Change change) {
  apply(nodes_, change);
  changes_.push_back(std::move(change));
}

IOStatus SimulatedDisk::create(const Place& place, const std::string& path, bool is_directory,
                               NodeId* node) {
  const Operation operation = is_directory ? Operation::kMakeDirectory : Operation::kCreate;
  if (auto failed = failure(operation, path)) return *failed;
  *node = next_node_++;
  record({.operation = operation, .node = *node, .directory = place.directory, .name = place.name});
  return IOStatus::OK();
}

IOStatus SimulatedDisk::write(NodeId node, std::uint64_t offset, const Slice& data,
                              const std::string& path) {
  const auto put = [&](std::size_t size) {
    if (size == 0) return;
    record({.operation = Operation::kWrite,
            .node = node,
            .offset = offset,
            .data = std::make_shared<const std::string>(data.data(), size)});
  };
  if (auto failed = failure(Operation::kWrite, path)) {
    put(data.size() / 2);  // As a disk that fills up does.
    return *failed;
  }
  put(data.size());
  return IOStatus::OK();
}

IOStatus SimulatedDisk::truncate(NodeId node, std::uint64_t size, const std::string& path) {
  if (nodes_.at(node).content->size() == size) return IOStatus::OK();
  if (auto failed = failure(Operation::kTruncate, path)) return *failed;
  record({.operation = Operation::kTruncate, .node = node, .offset = size});
  return IOStatus::OK();
}

IOStatus SimulatedDisk::sync(NodeId node, Operation operation, const std::string& path) {
  if (auto failed = failure(operation, path)) {
    for (std::size_t i = changes_.size(); i-- > 0;) {
      Change& change = changes_[i];
      if (is_sync(change.operation) && change.node == node) break;
      const NodeId owner = is_data(change.operation) ? change.node : change.directory;
      if (owner == node) change.is_lost = true;
    }
    return *failed;
  }
  record({.operation = operation, .node = node});
  return IOStatus::OK();
}

IOStatus SimulatedDisk::NewSequentialFile(const std::string& path, const FileOptions& /*options*/,
                                          std::unique_ptr<rocksdb::FSSequentialFile>* result,
                                          IODebugContext* /*context*/) {
  const std::scoped_lock lock(mutex_);
  const std::optional<NodeId> node = find_node(path);
  if (!node || nodes_.at(*node).is_directory) return not_found(path);
  *result = std::make_unique<Sequential>(*this, *node);
  return IOStatus::OK();
}

IOStatus SimulatedDisk::NewRandomAccessFile(const std::string& path, const FileOptions& /*options*/,
                                            std::unique_ptr<rocksdb::FSRandomAccessFile>* result,
                                            IODebugContext* /*context*/) {
  const std::scoped_lock lock(mutex_);
  const std::optional<NodeId> node = find_node(path);
  if (!node || nodes_.at(*node).is_directory) return not_found(path);
  *result = std::make_unique<RandomAccess>(*this, *node);
  return IOStatus::OK();
}

IOStatus SimulatedDisk::NewWritableFile(const std::string& path, const FileOptions& /*options*/,
                                        std::unique_ptr<rocksdb::FSWritableFile>* result,
                                        IODebugContext* /*context*/) {
  const std::scoped_lock lock(mutex_);
  const std::optional<Place> place = find(path);
  if (!place) return not_found(path);
  NodeId node = 0;
  if (place->node) {
    node = *place->node;
    const IOStatus status = truncate(node, 0, path);
    if (!status.ok()) return status;
  } else {
    const IOStatus status = create(*place, path, /*is_directory=*/false, &node);
    if (!status.ok()) return status;
  }
  *result = std::make_unique<Writable>(*this, node, path, 0);
  return IOStatus::OK();
}

IOStatus SimulatedDisk::ReopenWritableFile(const std::string& path, const FileOptions& /*options*/,
                                           std::unique_ptr<rocksdb::FSWritableFile>* result,
                                           IODebugContext* /*context*/) {
  const std::scoped_lock lock(mutex_);
  const std::optional<NodeId> node = find_node(path);
  if (!node) return not_found(path);
  if (auto failed = failure(Operation::kOpen, path)) return *failed;
  *result = std::make_unique<Writable>(*this, *node, path, nodes_.at(*node).content->size());
  return IOStatus::OK();
}

IOStatus SimulatedDisk::NewRandomRWFile(const std::string& path, const FileOptions& /*options*/,
                                        std::unique_ptr<rocksdb::FSRandomRWFile>* result,
                                        IODebugContext* /*context*/) {
  const std::scoped_lock lock(mutex_);
  const std::optional<NodeId> node = find_node(path);
  if (!node) return not_found(path);
  if (auto failed = failure(Operation::kOpen, path)) return *failed;
  *result = std::make_unique<RandomRW>(*this, *node, path);
  return IOStatus::OK();
}

IOStatus SimulatedDisk::NewDirectory(const std::string& path, const IOOptions& /*options*/,
                                     std::unique_ptr<rocksdb::FSDirectory>* result,
                                     IODebugContext* /*context*/) {
  const std::scoped_lock lock(mutex_);
  const std::optional<NodeId> node = find_node(path);
  if (!node || !nodes_.at(*node).is_directory) return not_found(path);
  if (auto failed = failure(Operation::kOpen, path)) return *failed;
  *result = std::make_unique<Directory>(*this, *node, path);
  return IOStatus::OK();
}

IOStatus SimulatedDisk::FileExists(const std::string& path, const IOOptions& /*options*/,
                                   IODebugContext* /*context*/) {
  const std::scoped_lock lock(mutex_);
  return find_node(path) ? IOStatus::OK() : IOStatus::NotFound(path);
}

IOStatus SimulatedDisk::GetChildren(const std::string& path, const IOOptions& /*options*/,
                                    std::vector<std::string>* result, IODebugContext* /*context*/) {
  const std::scoped_lock lock(mutex_);
  const std::optional<NodeId> node = find_node(path);
  result->clear();
  if (!node || !nodes_.at(*node).is_directory) return IOStatus::NotFound(path);
  for (const auto& [name, child] : nodes_.at(*node).entries) result->push_back(name);
  return IOStatus::OK();
}

IOStatus SimulatedDisk::DeleteFile(const std::string& path, const IOOptions& /*options*/,
                                   IODebugContext* /*context*/) {
  const std::scoped_lock lock(mutex_);
  const std::optional<Place> place = find(path);
  if (!place || !place->node) return not_found(path);
  if (auto failed = failure(Operation::kDelete, path)) return *failed;
  record({.operation = Operation::kDelete,
          .node = *place->node,
          .directory = place->directory,
          .name = place->name});
  return IOStatus::OK();
}

IOStatus SimulatedDisk::CreateDir(const std::string& path, const IOOptions& /*options*/,
                                  IODebugContext* /*context*/) {
  const std::scoped_lock lock(mutex_);
  const std::optional<Place> place = find(path);
  if (!place) return not_found(path);
  if (place->node) return exists_already(path);
  NodeId node = 0;
  return create(*place, path, /*is_directory=*/true, &node);
}

IOStatus SimulatedDisk::CreateDirIfMissing(const std::string& path, const IOOptions& options,
                                           IODebugContext* context) {
  IOStatus status = CreateDir(path, options, context);
  // Whoever was faster may have created it a moment ago.
  if (!status.ok() && FileExists(path, options, context).ok()) return IOStatus::OK();
  return status;
}

IOStatus SimulatedDisk::DeleteDir(const std::string& path, const IOOptions& options,
                                  IODebugContext* context) {
  return DeleteFile(path, options, context);
}

IOStatus SimulatedDisk::GetFileSize(const std::string& path, const IOOptions& /*options*/,
                                    std::uint64_t* result, IODebugContext* /*context*/) {
  const std::scoped_lock lock(mutex_);
  const std::optional<NodeId> node = find_node(path);
  if (!node || nodes_.at(*node).is_directory) return not_found(path);
  *result = nodes_.at(*node).content->size();
  return IOStatus::OK();
}

IOStatus SimulatedDisk::GetFileModificationTime(const std::string& /*path*/,
                                                const IOOptions& /*options*/, std::uint64_t* result,
                                                IODebugContext* /*context*/) {
  *result = 0;
  return IOStatus::OK();
}

IOStatus SimulatedDisk::RenameFile(const std::string& from, const std::string& to,
                                   const IOOptions& /*options*/, IODebugContext* /*context*/) {
  const std::scoped_lock lock(mutex_);
  const std::optional<Place> source = find(from);
  const std::optional<Place> target = find(to);
  if (!source || !source->node || !target) return not_found(from);
  if (auto failed = failure(Operation::kRename, from + " to " + to)) return *failed;
  record({.operation = Operation::kRename,
          .node = *source->node,
          .directory = target->directory,
          .name = target->name,
          .from_directory = source->directory,
          .from_name = source->name});
  return IOStatus::OK();
}

IOStatus SimulatedDisk::LinkFile(const std::string& from, const std::string& to,
                                 const IOOptions& /*options*/, IODebugContext* /*context*/) {
  const std::scoped_lock lock(mutex_);
  const std::optional<Place> source = find(from);
  const std::optional<Place> target = find(to);
  if (!source || !source->node || !target) return not_found(from);
  if (target->node) return exists_already(to);
  if (auto failed = failure(Operation::kLink, from + " to " + to)) return *failed;
  record({.operation = Operation::kLink,
          .node = *source->node,
          .directory = target->directory,
          .name = target->name});
  return IOStatus::OK();
}

IOStatus SimulatedDisk::LockFile(const std::string& path, const IOOptions& /*options*/,
                                 rocksdb::FileLock** lock, IODebugContext* /*context*/) {
  const std::scoped_lock guard(mutex_);
  const std::optional<Place> place = find(path);
  if (!place) return not_found(path);
  if (auto failed = failure(Operation::kLock, path)) return *failed;
  NodeId node = 0;
  if (place->node) {
    node = *place->node;
  } else {
    const IOStatus status = create(*place, path, /*is_directory=*/false, &node);
    if (!status.ok()) return status;
  }
  if (!locked_.insert(node).second) {
    return IOStatus::IOError("While lock file: " + path, "Resource temporarily unavailable");
  }
  *lock = new HeldLock(node);
  return IOStatus::OK();
}

IOStatus SimulatedDisk::UnlockFile(rocksdb::FileLock* lock, const IOOptions& /*options*/,
                                   IODebugContext* /*context*/) {
  const std::unique_ptr<HeldLock> held(static_cast<HeldLock*>(lock));
  const std::scoped_lock guard(mutex_);
  locked_.erase(held->node);
  return IOStatus::OK();
}

IOStatus SimulatedDisk::GetTestDirectory(const IOOptions& /*options*/, std::string* path,
                                         IODebugContext* /*context*/) {
  *path = "/";
  return IOStatus::OK();
}

IOStatus SimulatedDisk::NewLogger(const std::string& /*path*/, const IOOptions& /*options*/,
                                  std::shared_ptr<rocksdb::Logger>* result,
                                  IODebugContext* /*context*/) {
  *result = std::make_shared<NullLogger>();
  return IOStatus::OK();
}

IOStatus SimulatedDisk::GetAbsolutePath(const std::string& path, const IOOptions& /*options*/,
                                        std::string* result, IODebugContext* /*context*/) {
  *result = path;
  return IOStatus::OK();
}

IOStatus SimulatedDisk::IsDirectory(const std::string& path, const IOOptions& /*options*/,
                                    bool* result, IODebugContext* /*context*/) {
  const std::scoped_lock lock(mutex_);
  const std::optional<NodeId> node = find_node(path);
  if (!node) return not_found(path);
  *result = nodes_.at(*node).is_directory;
  return IOStatus::OK();
}

}  // namespace stepstone
