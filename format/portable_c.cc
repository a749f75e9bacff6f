// The C interface to portable files: PortableFile behind opaque handles, and the one place of
// format/ that opens a file. Nothing here needs a thread, nor anything of the layers above.
#include "format/portable_c.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <limits>
#include <new>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "format/dtype.h"
#include "format/leaf_path.h"
#include "format/portable_file.h"

namespace stepstone {
namespace {

// The one variable of the library that no object holds: a function that fails before there is a
// handle has nowhere else to leave its text. A plain array, so that it needs no constructor.
thread_local std::array<char, 1024> error_text;

constexpr auto number_of(ErrorCode code) { return static_cast<stepstone_portable_code>(code) + 1; }
static_assert(number_of(ErrorCode::kInvalidArgument) == STEPSTONE_PORTABLE_INVALID_ARGUMENT);
static_assert(number_of(ErrorCode::kNotFound) == STEPSTONE_PORTABLE_NOT_FOUND);
static_assert(number_of(ErrorCode::kCorrupt) == STEPSTONE_PORTABLE_CORRUPT);
static_assert(number_of(ErrorCode::kUnsupported) == STEPSTONE_PORTABLE_UNSUPPORTED);
static_assert(number_of(ErrorCode::kLimit) == STEPSTONE_PORTABLE_LIMIT);
static_assert(number_of(ErrorCode::kIo) == STEPSTONE_PORTABLE_IO);
static_assert(number_of(ErrorCode::kPermissionDenied) == STEPSTONE_PORTABLE_PERMISSION_DENIED);
static_assert(static_cast<int>(kDTypeFirst) == STEPSTONE_PORTABLE_BOOL &&
              static_cast<int>(DType::kFloat32) == STEPSTONE_PORTABLE_FLOAT32 &&
              static_cast<int>(kDTypeLast) == STEPSTONE_PORTABLE_COMPLEX128);
static_assert(static_cast<int>(LeafKind::kBytes) == STEPSTONE_PORTABLE_KIND_BYTES);

// Does not allocate: the text may be about memory.
stepstone_portable_code set_error(ErrorCode code, std::string_view message) {
  std::size_t size = std::min(message.size(), error_text.size() - 1);
  // Not in the middle of a character.
  if (size < message.size()) {
    while (size > 0 && (static_cast<unsigned char>(message[size]) & 0xC0U) == 0x80U) --size;
  }
  std::memcpy(error_text.data(), message.data(), size);
  error_text[size] = '\0';
  return number_of(code);
}

// Runs the body of a function. What is thrown is a lack of memory, or a callback's own.
template <typename Call>
stepstone_portable_code guarded(const Call& call) {
  try {
    const Result<void> result = call();
    if (!result) return set_error(result.error().code, result.error().message);
    error_text[0] = '\0';
    return STEPSTONE_PORTABLE_OK;
  } catch (const std::bad_alloc&) {
    return set_error(ErrorCode::kLimit, "out of memory");
  } catch (const std::exception& exception) {
    return set_error(ErrorCode::kLimit, exception.what());
  } catch (...) {
    return set_error(ErrorCode::kLimit, "an unknown exception");
  }
}

Result<void> check_given(std::initializer_list<std::pair<const char*, bool>> arguments) {
  for (const auto& [name, is_given] : arguments) {
    if (!is_given) {
      return fail(ErrorCode::kInvalidArgument,
                  "argument '" + std::string(name) + "' is NULL: give a valid pointer");
    }
  }
  return {};
}

Error system_error(int number) {
  const ErrorCode code = number == ENOENT || number == ENOTDIR ? ErrorCode::kNotFound
                         : number == EACCES || number == EPERM ? ErrorCode::kPermissionDenied
                         : number == ENOMEM                    ? ErrorCode::kLimit
                                                               : ErrorCode::kIo;
  return {code, std::generic_category().message(number)};
}

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }

  int number() const { return number_; }

 private:
  int number_;
};

class Mapping {
 public:
  Mapping(void* begin, std::size_t size_bytes) : begin_(begin), size_bytes_(size_bytes) {}
  Mapping(Mapping&& other) noexcept
      : begin_(std::exchange(other.begin_, nullptr)), size_bytes_(other.size_bytes_) {}
  Mapping& operator=(Mapping&&) = delete;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (begin_ != nullptr) ::munmap(begin_, size_bytes_);
  }

 private:
  void* begin_;
  std::size_t size_bytes_;
};

struct OpenedFile {
  Descriptor descriptor;
  std::uint64_t size_bytes = 0;
};

Result<OpenedFile> open_regular_file(const char* path) {
  // A pipe would be waited for.
  Descriptor descriptor(::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (descriptor.number() < 0) return tl::unexpected<Error>(system_error(errno));
  struct stat status {};
  if (::fstat(descriptor.number(), &status) != 0) {
    return tl::unexpected<Error>(system_error(errno));
  }
  if (!S_ISREG(status.st_mode)) {
    return fail(ErrorCode::kInvalidArgument, "it is no regular file, and so no portable file");
  }
  return OpenedFile{std::move(descriptor), static_cast<std::uint64_t>(status.st_size)};
}

Result<void> read_from(int descriptor, std::uint64_t offset, std::span<std::byte> destination) {
  while (!destination.empty()) {
    const ssize_t size =
        ::pread(descriptor, destination.data(), destination.size(), static_cast<off_t>(offset));
    if (size == 0) {
      return fail(ErrorCode::kCorrupt, "the file has become shorter since it was opened");
    }
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return tl::unexpected<Error>(system_error(errno));
    offset += static_cast<std::uint64_t>(size);
    destination = destination.subspan(static_cast<std::size_t>(size));
  }
  return {};
}

}  // namespace
}  // namespace stepstone

using namespace stepstone;  // NOLINT(google-build-using-namespace)

// Their names are the C header's.
// NOLINTBEGIN(readability-identifier-naming)
struct stepstone_portable_file {
  PortableFile content;
  std::optional<Descriptor> descriptor;  // What the content reads from, ...
  std::optional<Mapping> mapping;        // ... or where it lies.
};

struct stepstone_portable_leaf {
  const PortableFile* file = nullptr;
  std::uint64_t step = 0;
  std::string item;
  std::string path;  // As text.
  PortableLeaf content;
};
// NOLINTEND(readability-identifier-naming)

namespace stepstone {
namespace {

Result<std::uint64_t> step_or_latest(const PortableFile& file, std::uint64_t step) {
  if (step != STEPSTONE_PORTABLE_LATEST) return step;
  const std::vector<std::uint64_t> steps = STEPSTONE_TRY(file.steps());
  if (steps.empty()) return fail(ErrorCode::kNotFound, "the portable file holds no step");
  return steps.back();
}

Result<void> describe(const stepstone_portable_leaf& leaf, stepstone_portable_leaf_info* info) {
  if (info->struct_size_bytes != sizeof(stepstone_portable_leaf_info)) {
    return fail(ErrorCode::kInvalidArgument,
                "info.struct_size_bytes is " + std::to_string(info->struct_size_bytes) +
                    ": set it to sizeof(stepstone_portable_leaf_info), which is " +
                    std::to_string(sizeof(stepstone_portable_leaf_info)));
  }
  const LeafRecord& record = leaf.content.record();
  info->step = leaf.step;
  info->item = leaf.item.c_str();
  info->path = leaf.path.c_str();
  info->kind = static_cast<stepstone_portable_kind>(record.kind);
  info->dtype = record.dtype ? static_cast<stepstone_portable_dtype>(*record.dtype) : 0;
  info->rank = record.shape.size();
  info->shape = record.shape.data();
  info->size_bytes = record.size_bytes;
  info->is_contiguous = leaf.content.is_contiguous() ? 1 : 0;
  return {};
}

// What `from_number` makes of a number that a caller gave.
template <typename Value>
std::optional<Value> known_number(std::int32_t number,
                                  std::optional<Value> (*from_number)(std::uint8_t)) {
  if (number < 0 || number > std::numeric_limits<std::uint8_t>::max()) return std::nullopt;
  return from_number(static_cast<std::uint8_t>(number));
}

std::string name_of(const stepstone_portable_leaf& leaf) {
  return "step " + std::to_string(leaf.step) + ", item '" + printable(leaf.item) + "', leaf '" +
         leaf.path + "'";
}

// True: `visit` has seen enough.
Result<bool> visit_item(const PortableFile& file, std::uint64_t step, const ItemSummary& item,
                        stepstone_portable_visit visit, void* context) {
  // No code that a file's own error has is mistaken for it.
  bool is_enough = false;
  std::uint64_t count = 0;
  const Result<void> result = file.for_each_leaf(
      step, item.name,
      [&](std::string_view encoded_path, const PortableLeaf& content) -> Result<void> {
        const stepstone_portable_leaf leaf = {&file, step, item.name, to_text(encoded_path),
                                              content};
        ++count;
        is_enough = visit(context, &leaf) != 0;
        if (is_enough) return fail(ErrorCode::kClosed, "seen enough");
        return {};
      });
  if (is_enough) return true;
  if (!result) return tl::unexpected<Error>(result.error());
  if (count != item.leaf_count) {
    return fail(ErrorCode::kCorrupt, "step " + std::to_string(step) + ", item '" +
                                         printable(item.name) + "': " + std::to_string(count) +
                                         " of its " + std::to_string(item.leaf_count) +
                                         " leaves are there");
  }
  return false;
}

}  // namespace
}  // namespace stepstone

uint32_t stepstone_portable_version(void) { return STEPSTONE_PORTABLE_VERSION; }

const char* stepstone_portable_code_name(stepstone_portable_code code) {
  if (code == STEPSTONE_PORTABLE_OK) return "ok";
  if (code < STEPSTONE_PORTABLE_OK || code > number_of(ErrorCode::kClosed)) return "unknown";
  // All of these are literals, and so end with a NUL.
  return to_string(static_cast<ErrorCode>(code - 1)).data();
}

const char* stepstone_portable_error_text(void) { return error_text.data(); }

stepstone_portable_code stepstone_portable_open(const char* path, stepstone_portable_file** file) {
  return guarded([&]() -> Result<void> {
    STEPSTONE_TRY(check_given({{"path", path != nullptr}, {"file", file != nullptr}}));
    const auto open = [&]() -> Result<stepstone_portable_file> {
      OpenedFile opened = STEPSTONE_TRY(open_regular_file(path));
      PortableFile content = STEPSTONE_TRY(PortableFile::open(
          opened.size_bytes, [descriptor = opened.descriptor.number()](
                                 std::uint64_t offset, std::span<std::byte> destination) {
            return read_from(descriptor, offset, destination);
          }));
      return stepstone_portable_file{std::move(content), std::move(opened.descriptor),
                                     std::nullopt};
    };
    stepstone_portable_file opened = STEPSTONE_TRY_CONTEXT(open(), printable(path));
    *file = new stepstone_portable_file(std::move(opened));
    return {};
  });
}

stepstone_portable_code stepstone_portable_map(const char* path, stepstone_portable_file** file) {
  return guarded([&]() -> Result<void> {
    STEPSTONE_TRY(check_given({{"path", path != nullptr}, {"file", file != nullptr}}));
    const auto open = [&]() -> Result<stepstone_portable_file> {
      const OpenedFile opened = STEPSTONE_TRY(open_regular_file(path));
      if (opened.size_bytes > std::numeric_limits<std::size_t>::max()) {
        return fail(ErrorCode::kLimit,
                    "the file is larger than this machine's addresses: "
                    "stepstone_portable_open() reads it without a mapping");
      }
      if (opened.size_bytes == 0) return fail(ErrorCode::kCorrupt, "the file is empty");
      const auto size_bytes = static_cast<std::size_t>(opened.size_bytes);
      void* const begin =
          ::mmap(nullptr, size_bytes, PROT_READ, MAP_SHARED, opened.descriptor.number(), 0);
      if (begin == MAP_FAILED) return tl::unexpected<Error>(system_error(errno));
      Mapping mapping(begin, size_bytes);
      PortableFile content = STEPSTONE_TRY(
          PortableFile::open(std::span(static_cast<const std::byte*>(begin), size_bytes)));
      return stepstone_portable_file{std::move(content), std::nullopt, std::move(mapping)};
    };
    stepstone_portable_file opened = STEPSTONE_TRY_CONTEXT(open(), printable(path));
    *file = new stepstone_portable_file(std::move(opened));
    return {};
  });
}

stepstone_portable_code stepstone_portable_open_memory(const void* data, size_t size_bytes,
                                                       stepstone_portable_file** file) {
  return guarded([&]() -> Result<void> {
    STEPSTONE_TRY(check_given({{"data", data != nullptr}, {"file", file != nullptr}}));
    if (reinterpret_cast<std::uintptr_t>(data) % portable::kRecordAlignment != 0) {
      return fail(ErrorCode::kInvalidArgument,
                  "argument 'data' is not at a multiple of 8: place the file at one");
    }
    PortableFile content = STEPSTONE_TRY(
        PortableFile::open(std::span(static_cast<const std::byte*>(data), size_bytes)));
    *file = new stepstone_portable_file{std::move(content), std::nullopt, std::nullopt};
    return {};
  });
}

stepstone_portable_code stepstone_portable_open_with(uint64_t size_bytes,
                                                     stepstone_portable_read read, void* context,
                                                     stepstone_portable_file** file) {
  return guarded([&]() -> Result<void> {
    STEPSTONE_TRY(check_given({{"read", read != nullptr}, {"file", file != nullptr}}));
    PortableFile content = STEPSTONE_TRY(PortableFile::open(
        size_bytes,
        [read, context](std::uint64_t offset, std::span<std::byte> destination) -> Result<void> {
          if (read(context, offset, destination.data(), destination.size()) == 0) return {};
          return fail(ErrorCode::kIo, "the read callback refused " +
                                          std::to_string(destination.size()) + " bytes from " +
                                          std::to_string(offset) + " on");
        }));
    *file = new stepstone_portable_file{std::move(content), std::nullopt, std::nullopt};
    return {};
  });
}

void stepstone_portable_close(stepstone_portable_file* file) { delete file; }

stepstone_portable_code stepstone_portable_verify(const stepstone_portable_file* file) {
  return guarded([&]() -> Result<void> {
    STEPSTONE_TRY(check_given({{"file", file != nullptr}}));
    return file->content.verify();
  });
}

stepstone_portable_code stepstone_portable_steps(const stepstone_portable_file* file,
                                                 uint64_t* steps, size_t capacity, size_t* count) {
  return guarded([&]() -> Result<void> {
    STEPSTONE_TRY(check_given({{"file", file != nullptr},
                               {"steps", steps != nullptr || capacity == 0},
                               {"count", count != nullptr}}));
    const std::vector<std::uint64_t> found = STEPSTONE_TRY(file->content.steps());
    std::copy_n(found.begin(), std::min(capacity, found.size()), steps);
    *count = found.size();
    return {};
  });
}

stepstone_portable_code stepstone_portable_leaf_open(const stepstone_portable_file* file,
                                                     uint64_t step, const char* item,
                                                     const char* path,
                                                     stepstone_portable_leaf** leaf) {
  return guarded([&]() -> Result<void> {
    STEPSTONE_TRY(check_given({{"file", file != nullptr},
                               {"item", item != nullptr},
                               {"path", path != nullptr},
                               {"leaf", leaf != nullptr}}));
    const std::string encoded_path = STEPSTONE_TRY(encode_path(STEPSTONE_TRY(parse_path(path))));
    const std::uint64_t number = STEPSTONE_TRY(step_or_latest(file->content, step));
    PortableLeaf content = STEPSTONE_TRY(file->content.leaf(number, item, encoded_path));
    *leaf = new stepstone_portable_leaf{&file->content, number, item, to_text(encoded_path),
                                        std::move(content)};
    return {};
  });
}

void stepstone_portable_leaf_close(stepstone_portable_leaf* leaf) { delete leaf; }

stepstone_portable_code stepstone_portable_each_leaf(const stepstone_portable_file* file,
                                                     uint64_t step, stepstone_portable_visit visit,
                                                     void* context) {
  return guarded([&]() -> Result<void> {
    STEPSTONE_TRY(check_given({{"file", file != nullptr}, {"visit", visit != nullptr}}));
    const PortableFile& content = file->content;
    const StepRecord record =
        STEPSTONE_TRY(content.step(STEPSTONE_TRY(step_or_latest(content, step))));
    for (const ItemSummary& item : record.items) {
      if (STEPSTONE_TRY(visit_item(content, record.save.step, item, visit, context))) break;
    }
    return {};
  });
}

const char* stepstone_portable_kind_name(stepstone_portable_kind kind) {
  const auto known = known_number(kind, leaf_kind_from_number);
  return known ? to_string(*known).data() : "unknown";
}

const char* stepstone_portable_dtype_name(stepstone_portable_dtype dtype) {
  const auto known = known_number(dtype, dtype_from_number);
  return known ? to_string(*known).data() : "unknown";
}

uint32_t stepstone_portable_dtype_bits(stepstone_portable_dtype dtype) {
  const auto known = known_number(dtype, dtype_from_number);
  return known ? info(*known).bits : 0;
}

stepstone_portable_code stepstone_portable_leaf_describe(const stepstone_portable_leaf* leaf,
                                                         stepstone_portable_leaf_info* info) {
  return guarded([&]() -> Result<void> {
    STEPSTONE_TRY(check_given({{"leaf", leaf != nullptr}, {"info", info != nullptr}}));
    return describe(*leaf, info);
  });
}

stepstone_portable_code stepstone_portable_leaf_read(const stepstone_portable_leaf* leaf,
                                                     uint64_t first_byte, void* data,
                                                     size_t size_bytes) {
  return guarded([&]() -> Result<void> {
    STEPSTONE_TRY(
        check_given({{"leaf", leaf != nullptr}, {"data", data != nullptr || size_bytes == 0}}));
    ChunkDecoder decoder;
    STEPSTONE_TRY_CONTEXT(
        leaf->file->read(leaf->content, first_byte,
                         std::span(static_cast<std::byte*>(data), size_bytes), decoder),
        name_of(*leaf));
    return {};
  });
}

stepstone_portable_code stepstone_portable_leaf_view(const stepstone_portable_leaf* leaf,
                                                     int32_t check, const void** data) {
  return guarded([&]() -> Result<void> {
    STEPSTONE_TRY(check_given({{"leaf", leaf != nullptr}, {"data", data != nullptr}}));
    if (check != 0 && check != 1) {
      return fail(ErrorCode::kInvalidArgument, "check is " + std::to_string(check) +
                                                   ": give 1 to check the leaf's hashes, or 0");
    }
    const auto bytes = STEPSTONE_TRY_CONTEXT(
        leaf->file->view(leaf->content,
                         check == 1 ? PortableFile::Check::kHashes : PortableFile::Check::kNothing),
        name_of(*leaf));
    *data = bytes.empty() ? nullptr : bytes.data();
    return {};
  });
}
