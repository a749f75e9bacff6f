#pragma once
// Another run of the test's own program, which reports on a pipe and can be killed.

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace stepstone {

class ChildProcess {
 public:
  // How a process ended.
  struct End {
    bool by_signal = false;
    int number = 0;  // Of the signal, or the exit status.
  };

  // Starts this executable with `arguments`. The child writes its report to file descriptor
  // kReportDescriptor, and reads what we send from kOrderDescriptor.
  explicit ChildProcess(const std::vector<std::string>& arguments);
  // Kills it if it still runs.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  static constexpr int kReportDescriptor = 3;
  static constexpr int kOrderDescriptor = 4;

  // The next line of the report, without its end; waits for it. nullopt: the report has ended.
  std::optional<std::string> read_line();
  // The same, waiting at most so long; nullopt: nothing came, or the report has ended.
  std::optional<std::string> read_line_within(int timeout_ms);
  // Lets a child that waits for an order go on.
  void send_line(const std::string& line);

  void kill();  // SIGKILL.
  End wait();

 private:
  bool fill(int timeout_ms);
  std::optional<std::string> take_line();

  pid_t process_ = -1;
  int report_ = -1;
  int order_ = -1;
  std::string buffer_;
  std::optional<End> end_;
};

// For the child: one line of its report, written at once. Ends the process if nobody reads it.
void report_line(const std::string& line);
// For the child: waits for an order; nullopt: there will be none.
std::optional<std::string> read_order();

}  // namespace stepstone
