#include "tools/bench/child.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "tools/system.h"

namespace stepstone::bench {

Result<std::string> run_self(const std::vector<std::string>& arguments) {
  constexpr const char* kSelf = "/proc/self/exe";
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return tl::unexpected<Error>(tool::system_error(errno, "pipe"));
  }
  const tool::FileDescriptor read_end(ends[0]);
  tool::FileDescriptor write_end(ends[1]);
  std::vector<std::string> words = {"stepstone"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers;
  pointers.reserve(words.size() + 1);
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, write_end.get(), STDOUT_FILENO);
  pid_t child = 0;
  const int error = ::posix_spawn(&child, kSelf, &actions, nullptr, pointers.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  write_end.close();
  if (error != 0) return tl::unexpected<Error>(tool::system_error(error, kSelf));
  std::string output;
  char buffer[4096];
  for (;;) {
    const ssize_t count = ::read(read_end.get(), buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    output.append(buffer, static_cast<std::size_t>(count));
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return output;
  return fail(ErrorCode::kIo, "a measurement in a process of its own failed: " + arguments.front() +
                                  " " + (arguments.size() > 1 ? arguments[1] : ""));
}

}  // namespace stepstone::bench
