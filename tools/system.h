#pragma once
// The few system calls that the tool makes itself, with their errors as ours.

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "format/error.h"

namespace stepstone::tool {

// `what` says what was being done to which file; the message adds the system's own words.
Error system_error(int errno_value, std::string_view what);

// Owns a file descriptor.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int number) : number_(number) {}
  FileDescriptor(FileDescriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();

  int get() const { return number_; }
  // 0, or errno. Some file systems report a failed write only here.
  int close();

 private:
  int number_ = -1;
};

// Writes all of it, however many calls that takes. 0, or errno.
int write_fully(int descriptor, std::span<const std::byte> bytes);

}  // namespace stepstone::tool
