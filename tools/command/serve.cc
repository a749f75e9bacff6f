// The main thread waits for a signal that is to end it; others answer.
#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "tools/command/command.h"
#include "tools/command/verb.h"
#include "tools/command/verbs.h"
#include "tools/report/server.h"
#include "tools/system.h"

namespace stepstone::tool {
namespace {

struct ServeArguments {
  ServerOptions server;
  bool no_browser = false;
};

// While it lives, the signals that are to end the server wait for someone to ask for them, in
// whichever thread they arrive.
class EndSignals {
 public:
  EndSignals() {
    ::sigemptyset(&signals_);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&signals_, signal);
    ::pthread_sigmask(SIG_BLOCK, &signals_, &previous_);
  }
  ~EndSignals() { ::pthread_sigmask(SIG_SETMASK, &previous_, nullptr); }
  EndSignals(const EndSignals&) = delete;
  EndSignals& operator=(const EndSignals&) = delete;

  void wait() const {
    int signal = 0;
    while (::sigwait(&signals_, &signal) != 0) {
    }
  }

 private:
  sigset_t signals_ = {};
  sigset_t previous_ = {};
};

// Shows a page in the desktop's browser. The address, with its token, stands in a file that only
// this user can read, as everybody can read a program's arguments.
class Browser {
 public:
  void open(const std::string& url) {
    std::error_code ignored;
    std::string directory = std::filesystem::temp_directory_path(ignored) / "stepstone-XXXXXX";
    if (::mkdtemp(directory.data()) == nullptr) return;
    directory_ = directory;
    std::string page = directory_ / "open.html";
    const FileDescriptor file(::open(page.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    const std::string html = fmt::format(
        "<!doctype html><meta http-equiv=\"refresh\" content=\"0; "
        "url={}\"><title>Stepstone</title>",
        url);
    if (file.get() < 0 || write_fully(file.get(), std::as_bytes(std::span(html))) != 0) return;
    std::string program = "xdg-open";
    char* const words[] = {program.data(), page.data(), nullptr};
    pid_t child = 0;
    // Without it, or without a browser, there still is the address on the terminal.
    (void)::posix_spawnp(&child, program.c_str(), nullptr, nullptr, words, environ);
  }
  ~Browser() {
    std::error_code ignored;
    if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
  }
  Browser() = default;
  Browser(const Browser&) = delete;
  Browser& operator=(const Browser&) = delete;

 private:
  std::filesystem::path directory_;
};

bool has_desktop() {
  return ::isatty(STDOUT_FILENO) == 1 &&
         (std::getenv("DISPLAY") != nullptr || std::getenv("WAYLAND_DISPLAY") != nullptr);
}

Result<int> run_serve(const ServeArguments& arguments, Console& console) {
  // Before there are other threads, which inherit it.
  const EndSignals end_signals;
  const auto server = STEPSTONE_TRY(ReportServer::start(arguments.server));
  if (console.json) {
    const nlohmann::ordered_json answer = {{"store", printable(arguments.server.store.native())},
                                           {"port", server->port()},
                                           {"url", server->url()}};
    STEPSTONE_TRY(console.output.write(answer.dump() + "\n"));
  } else {
    STEPSTONE_TRY(console.output.write(fmt::format("serving {} at {}\nCtrl-C ends it\n",
                                                   printable(arguments.server.store.native()),
                                                   server->url())));
  }
  // Nobody has read the address, and without the token in it nobody can ask for anything.
  if (console.output.is_closed()) return kExitOk;
  Browser browser;
  if (!arguments.no_browser && !console.json && has_desktop()) browser.open(server->url());
  end_signals.wait();
  return kExitOk;
}

}  // namespace

void add_serve(CommandLine& line) {
  Verb verb(line, "serve", "Show the page of `stepstone report` in a browser, and follow the run",
            "The address that it prints works on this machine only, and only with the token in it. "
            "It reads, and\n"
            "writes nothing. A leaf's figures are taken when the leaf is chosen.\n\n"
            "Examples:\n"
            "  stepstone serve run\n"
            "  stepstone serve run --port 8080 --no-browser");
  const auto arguments = std::make_shared<ServeArguments>();
  verb.add_store(arguments->server.store);
  verb.add_text({.names = "--item",
                 .description = "Only the leaves of this item; without it, of all",
                 .type_name = "NAME"},
                [arguments](const std::string& text) {
                  arguments->server.item = text;
                  return std::string();
                });
  verb.add_number({.names = "--port",
                   .description = "The port to listen on; without it, any that is free",
                   .type_name = "N"},
                  arguments->server.port, std::uint16_t{1});
  verb.add_flag("--no-browser", "Only print the address", arguments->no_browser);
  verb.add_json();
  verb.on_run([arguments](Console& console) { return run_serve(*arguments, console); });
}

}  // namespace stepstone::tool
