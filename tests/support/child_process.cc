#include "tests/support/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>

namespace stepstone {

ChildProcess::ChildProcess(const std::vector<std::string>& arguments) {
  int report[2];
  int order[2];
  if (pipe2(report, O_CLOEXEC) != 0) throw std::runtime_error("no pipe for a child process");
  if (pipe2(order, O_CLOEXEC) != 0) throw std::runtime_error("no pipe for a child process");
  std::vector<char*> argv;
  std::string executable = "/proc/self/exe";
  argv.push_back(executable.data());
  std::vector<std::string> copies = arguments;
  for (std::string& argument : copies) argv.push_back(argument.data());
  argv.push_back(nullptr);
  process_ = fork();
  if (process_ < 0) throw std::runtime_error("no child process");
  if (process_ == 0) {
    // High numbers first: the pipes may have got the very descriptors that are to be filled.
    const int report_copy = fcntl(report[1], F_DUPFD, 10);
    const int order_copy = fcntl(order[0], F_DUPFD, 10);
    if (report_copy < 0 || order_copy < 0 || dup2(report_copy, kReportDescriptor) < 0 ||
        dup2(order_copy, kOrderDescriptor) < 0) {
      _exit(126);
    }
    close(report_copy);
    close(order_copy);
    execv(executable.c_str(), argv.data());
    _exit(127);
  }
  close(report[1]);
  close(order[0]);
  report_ = report[0];
  order_ = order[1];
}

ChildProcess::~ChildProcess() {
  if (!end_) {
    kill();
    wait();
  }
  close(report_);
  close(order_);
}

std::optional<std::string> ChildProcess::take_line() {
  const std::size_t end = buffer_.find('\n');
  if (end == std::string::npos) return std::nullopt;
  std::string line = buffer_.substr(0, end);
  buffer_.erase(0, end + 1);
  return line;
}

bool ChildProcess::fill(int timeout_ms) {
  pollfd waiting{.fd = report_, .events = POLLIN, .revents = 0};
  int ready = 0;
  do {
    ready = poll(&waiting, 1, timeout_ms);
  } while (ready < 0 && errno == EINTR);
  if (ready <= 0) return false;
  char bytes[4096];
  const ssize_t size = read(report_, bytes, sizeof(bytes));
  if (size <= 0) return false;
  buffer_.append(bytes, static_cast<std::size_t>(size));
  return true;
}

std::optional<std::string> ChildProcess::read_line() { return read_line_within(-1); }

std::optional<std::string> ChildProcess::read_line_within(int timeout_ms) {
  std::optional<std::string> line = take_line();
  while (!line && fill(timeout_ms)) line = take_line();
  return line;
}

void ChildProcess::send_line(const std::string& line) {
  const std::string text = line + "\n";
  // A child that is gone shows in wait().
  signal(SIGPIPE, SIG_IGN);
  [[maybe_unused]] const ssize_t written = write(order_, text.data(), text.size());
}

void ChildProcess::kill() {
  if (!end_) ::kill(process_, SIGKILL);
}

ChildProcess::End ChildProcess::wait() {
  if (end_) return *end_;
  int status = 0;
  while (waitpid(process_, &status, 0) < 0 && errno == EINTR) {
  }
  end_ = WIFSIGNALED(status) ? End{.by_signal = true, .number = WTERMSIG(status)}
                             : End{.by_signal = false, .number = WEXITSTATUS(status)};
  return *end_;
}

void report_line(const std::string& line) {
  const std::string text = line + "\n";
  const ssize_t written = write(ChildProcess::kReportDescriptor, text.data(), text.size());
  if (written != static_cast<ssize_t>(text.size())) _exit(125);
}

std::optional<std::string> read_order() {
  std::string line;
  char character = 0;
  while (read(ChildProcess::kOrderDescriptor, &character, 1) == 1) {
    if (character == '\n') return line;
    line += character;
  }
  return std::nullopt;
}

}  // namespace stepstone
