#include "api/file_handler.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <system_error>
#include <vector>

namespace stepstone {
namespace {

tl::unexpected<Error> system_failure(int number, const std::filesystem::path& path) {
  ErrorCode code = ErrorCode::kIo;
  if (number == ENOSPC || number == EDQUOT) code = ErrorCode::kNoSpace;
  if (number == EACCES || number == EPERM) code = ErrorCode::kPermissionDenied;
  return fail(code, fmt::format("{}: {}", path.string(), std::generic_category().message(number)));
}

class File {
 public:
  File(const std::filesystem::path& path, int flags)
      : descriptor_(::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0600)) {}
  ~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

// The file's bytes, mapped.
Result<Array> map_file(const std::filesystem::path& path) {
  const File file(path, O_RDONLY);
  struct stat status {};
  if (file.descriptor() < 0 || fstat(file.descriptor(), &status) != 0) {
    return system_failure(errno, path);
  }
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size == 0) return Array::zeros(DType::kUint8, {0});
  void* const memory = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
  if (memory == MAP_FAILED) return system_failure(errno, path);
  std::shared_ptr<const void> owner(
      memory, [size](const void* mapped) { munmap(const_cast<void*>(mapped), size); });
  return Array::own(DType::kUint8, {size}, {static_cast<const std::byte*>(memory), size},
                    std::move(owner));
}

Result<Tree> read_directory(const std::filesystem::path& directory) {
  std::error_code error;
  std::vector<std::filesystem::directory_entry> entries;
  for (std::filesystem::directory_iterator at(directory, error), end; !error && at != end;
       at.increment(error)) {
    entries.push_back(*at);
  }
  if (error) return system_failure(error.value(), directory);
  std::sort(entries.begin(), entries.end());
  std::vector<std::pair<std::string, Tree>> children;
  for (const std::filesystem::directory_entry& entry : entries) {
    const std::filesystem::file_type type = entry.symlink_status(error).type();
    std::string name = entry.path().filename().string();
    if (type == std::filesystem::file_type::directory) {
      children.emplace_back(std::move(name), STEPSTONE_TRY(read_directory(entry.path())));
    } else if (type == std::filesystem::file_type::regular) {
      children.emplace_back(std::move(name), STEPSTONE_TRY(map_file(entry.path())));
    } else {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("'{}' is neither a file nor a directory, and cannot be saved",
                              printable(entry.path().string())));
    }
  }
  return Tree::dict(std::move(children));
}

Result<void> write_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  const File file(path, O_WRONLY | O_CREAT | O_EXCL);
  if (file.descriptor() < 0) return system_failure(errno, path);
  while (!bytes.empty()) {
    const ssize_t written = ::write(file.descriptor(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return system_failure(written < 0 ? errno : ENOSPC, path);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return {};
}

// Names come out of a file, and must not lead anywhere else.
bool is_plain_name(const PathComponent& label) {
  const std::string& name = label.name;
  return label.kind == PathComponent::Kind::kStringKey && !name.empty() && name != "." &&
         name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

Result<void> write_directory(const std::filesystem::path& directory, const Tree& tree) {
  if (tree.kind() != NodeKind::kDict) {
    return fail(ErrorCode::kCorrupt, "the item does not consist of files");
  }
  for (const Tree::Child& child : tree.children()) {
    if (!is_plain_name(child.label)) {
      return fail(ErrorCode::kCorrupt,
                  fmt::format("'{}' cannot be the name of a file", printable(child.label.name)));
    }
    const std::filesystem::path path = directory / child.label.name;
    if (const auto* const array = child.tree.get_if<Array>(); child.tree.is_leaf()) {
      if (array == nullptr || array->dtype() != DType::kUint8) {
        return fail(ErrorCode::kCorrupt, fmt::format("'{}' does not hold the bytes of a file",
                                                     printable(child.label.name)));
      }
      STEPSTONE_TRY(write_file(path, array->bytes()));
      continue;
    }
    if (::mkdir(path.c_str(), 0700) != 0) return system_failure(errno, path);
    STEPSTONE_TRY(write_directory(path, child.tree));
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<ScratchDirectory>> ScratchDirectory::create(
    const std::filesystem::path& parent) {
  std::error_code error;
  const std::filesystem::path above =
      parent.empty() ? std::filesystem::temp_directory_path(error) : parent;
  if (error) return system_failure(error.value(), above);
  std::string path = (above / "stepstone-scratch-XXXXXX").string();
  if (mkdtemp(path.data()) == nullptr) return system_failure(errno, path);
  return std::unique_ptr<ScratchDirectory>(new ScratchDirectory(path));
}

ScratchDirectory::~ScratchDirectory() {
  // What cannot be removed is left to whoever cleans up temporary files.
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

Result<Tree> ScratchDirectory::read() const { return read_directory(path_); }

Result<void> ScratchDirectory::write(const Tree& tree) const {
  return write_directory(path_, tree);
}

}  // namespace stepstone
