// Goal: what is served goes to nobody but who has the address with its token, from this machine
// alone, names no file, and is the store as it is now. Method: a server within the test, spoken to
// in raw bytes; and the real binary for its beginning and end.
#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "tests/tools/report_support.h"
#include "tools/report/server.h"
#include "tools/system.h"

namespace stepstone::tool {
namespace {

using nlohmann::json;

class ServeTest : public TemporaryDirectoryTest {
 protected:
  ServeTest() {
    save_floats(store(), 1, {{"w", {3, 4}}, {"</script>", {1}}});
    auto started = ReportServer::start({.store = store(), .item = std::nullopt, .port = 0});
    EXPECT_TRUE(started.has_value()) << started.error().message;
    if (!started) std::abort();
    server_ = *std::move(started);
    const std::string url = server_->url();
    token_ = url.substr(url.find('=') + 1);
  }

  std::string store() const { return path("run").string(); }
  std::uint16_t port() const { return server_->port(); }
  // With the token.
  HttpAnswer ask(const std::string& target, const std::string& host = {}) const {
    const char* const separator = target.find('?') == std::string::npos ? "?" : "&";
    return get(port(), target + separator + "token=" + token_, host);
  }

  std::unique_ptr<ReportServer> server_;
  std::string token_;
};

// However soon after its beginning.
TEST_F(ServeTest, ItCanBeEndedAtOnce) {
  for (int round = 0; round < 50; ++round) {
    const auto started = ReportServer::start({.store = store(), .item = std::nullopt, .port = 0});
    ASSERT_TRUE(started.has_value()) << started.error().message;
    EXPECT_NE((*started)->port(), port());
  }
}

TEST_F(ServeTest, PageAndDataAreThereForWhoHasTheToken) {
  const HttpAnswer page = ask("/");
  EXPECT_EQ(page.status, 200);
  EXPECT_NE(page.body.find("connect-src 'self'"), std::string::npos);
  EXPECT_NE(page.body.find("\\u003c\\\\/script>"), std::string::npos);
  for (const char* header :
       {"Cache-Control: no-store", "Referrer-Policy: no-referrer", "X-Frame-Options: DENY",
        "X-Content-Type-Options: nosniff", "Cross-Origin-Resource-Policy: same-origin"}) {
    EXPECT_NE(page.head.find(header), std::string::npos) << page.head;
  }
  EXPECT_EQ(page.head.find("Access-Control"), std::string::npos);
  const json data = json::parse(ask("/data").body, nullptr, false);
  EXPECT_EQ(data["live"], true);
  EXPECT_EQ(data["steps"]["step"], json({"1"}));
}

TEST_F(ServeTest, WithoutTheTokenEverythingIsForbidden) {
  EXPECT_GE(token_.size(), 32);
  std::string wrong = token_;
  wrong.back() = wrong.back() == '0' ? '1' : '0';
  for (const std::string path : {"/", "/data", "/statistics", "/nothing", "/../../etc/passwd"}) {
    for (const std::string& token : {std::string(), std::string("?token="), "?token=" + wrong,
                                     "?token=" + token_ + "0", "?token=" + token_.substr(1),
                                     "?token=" + wrong + "&token=" + token_, "?Token=" + token_}) {
      const HttpAnswer answer = get(port(), path + token);
      EXPECT_EQ(answer.status, 403) << path << token;
      EXPECT_EQ(answer.body.find("committed"), std::string::npos);
    }
  }
}

TEST_F(ServeTest, AnotherHostIsForbidden) {
  for (const std::string& host :
       {std::string("evil.example"), fmt::format("evil.example:{}", port()),
        std::string("127.0.0.1"), fmt::format("127.0.0.1:{}", port() + 1),
        fmt::format("127.0.0.1:{}@evil.example", port())}) {
    EXPECT_EQ(ask("/", host).status, 403) << host;
  }
  EXPECT_EQ(ask("/", fmt::format("localhost:{}", port())).status, 200);
  const std::string target = "/?token=" + token_;
  const HttpAnswer none =
      send_to("127.0.0.1", port(), "GET " + target + " HTTP/1.0\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(none.status, 403);
  const HttpAnswer two = send_to(
      "127.0.0.1", port(),
      fmt::format("GET {0} HTTP/1.1\r\nHost: 127.0.0.1:{1}\r\nHost: 127.0.0.1:{1}\r\nConnection: "
                  "close\r\n\r\n",
                  target, port()));
  EXPECT_EQ(two.status, 403);
}

TEST_F(ServeTest, NoPathNamesAFile) {
  for (const char* path :
       {"/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc/passwd", "/CURRENT",
        "/run/CURRENT", "/data/../CURRENT", "//etc/passwd", "/index.html", "/data/"}) {
    const HttpAnswer answer = ask(path);
    EXPECT_EQ(answer.status, 404) << path;
    EXPECT_EQ(answer.body.find("root:"), std::string::npos);
  }
}

TEST_F(ServeTest, OnlyReadingIsOffered) {
  for (const char* method : {"POST", "PUT", "DELETE", "PATCH"}) {
    const HttpAnswer answer =
        send_to("127.0.0.1", port(),
                fmt::format("{} /data?token={} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: "
                            "0\r\nConnection: close\r\n\r\n",
                            method, token_, port()));
    EXPECT_EQ(answer.status, 404) << method;
  }
  EXPECT_EQ(json::parse(ask("/data").body, nullptr, false)["steps"]["step"].size(), 1);
}

TEST_F(ServeTest, OtherAddressesOfTheMachineAreRefused) {
  // An address of the loopback network that is not the one it is bound to.
  const std::string request = fmt::format(
      "GET /?token={} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n", token_, port());
  EXPECT_EQ(send_to("127.0.0.2", port(), request).status, 0);
  EXPECT_EQ(send_to("127.0.0.1", port(), request).status, 200);
}

TEST_F(ServeTest, NonsenseEndsTheConnectionAndNotTheServer) {
  for (const std::string& request :
       {std::string("\r\n\r\n"), std::string("GET\r\n\r\n"), std::string(100'000, 'A') + "\r\n\r\n",
        "GET /?token=" + std::string(20'000, 'x') + " HTTP/1.1\r\n\r\n",
        random_bytes(5000, 3) + "\r\n\r\n"}) {
    EXPECT_NE(send_to("127.0.0.1", port(), request, /*ends_there=*/true).status, 200);
  }
  EXPECT_EQ(ask("/").status, 200);
}

TEST_F(ServeTest, DataComeOnceForEachStateOfTheStore) {
  const json first = json::parse(ask("/data").body, nullptr, false);
  const std::string revision = first["revision"];
  EXPECT_EQ(ask("/data?revision=" + revision).status, 204);
  save_floats(store(), 2, {{"w", {6, 8}}});
  const HttpAnswer answer = ask("/data?revision=" + revision);
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(json::parse(answer.body, nullptr, false)["steps"]["step"], json({"1", "2"}));
}

TEST_F(ServeTest, FiguresOfALeafAreTakenWhenAskedFor) {
  const HttpAnswer answer = ask("/statistics?step=1&item=default&leaf=w");
  EXPECT_EQ(answer.status, 200) << answer.body;
  const json figures = json::parse(answer.body, nullptr, false);
  EXPECT_EQ(figures["norm"], 5.0);
  EXPECT_EQ(figures["nan"], 0);
  EXPECT_EQ(figures["histogram"]["counts"].front(), 1);
  EXPECT_EQ(figures["histogram"]["counts"].back(), 1);
  EXPECT_EQ(ask("/statistics?step=2&item=default&leaf=w").status, 404);
  EXPECT_EQ(ask("/statistics?step=1&item=other&leaf=w").status, 404);
  EXPECT_EQ(ask("/statistics?step=1&item=default&leaf=v").status, 404);
  EXPECT_EQ(ask("/statistics?step=1&item=default&leaf=a%2F%2Fb").status, 400);
  for (const char* step : {"", "-1", "x", "99999999999999999999"}) {
    EXPECT_EQ(ask(fmt::format("/statistics?step={}&item=default&leaf=w", step)).status, 400);
  }
}

TEST_F(ServeTest, PortThatIsTakenIsBusy) {
  const auto second = ReportServer::start({.store = store(), .item = std::nullopt, .port = port()});
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, ErrorCode::kBusy);
}

// The binary, until a signal ends it.
class ServeCommandTest : public TemporaryDirectoryTest {
 protected:
  void start(std::vector<std::string> words) {
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    output_ = FileDescriptor(ends[0]);
    FileDescriptor input(ends[1]);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, input.get(), STDOUT_FILENO);
    words.insert(words.begin(), STEPSTONE_BINARY);
    std::vector<char*> pointers;
    pointers.reserve(words.size() + 1);
    for (std::string& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    ASSERT_EQ(::posix_spawn(&child_, STEPSTONE_BINARY, &actions, nullptr, pointers.data(), environ),
              0);
    ::posix_spawn_file_actions_destroy(&actions);
  }
  std::string read_line() const {
    std::string line;
    char c = 0;
    while (::read(output_.get(), &c, 1) == 1 && c != '\n') line += c;
    return line;
  }
  int end(int signal) const {
    ::kill(child_, signal);
    int status = 0;
    EXPECT_EQ(::waitpid(child_, &status, 0), child_);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  std::string store() const { return path("run").string(); }

  FileDescriptor output_;
  pid_t child_ = 0;
};

TEST_F(ServeCommandTest, ServesUntilASignalAndEndsCleanly) {
  save_floats(store(), 1, {{"w", {3, 4}}});
  for (const int signal : {SIGINT, SIGTERM}) {
    start({"serve", store(), "--json"});
    const json answer = json::parse(read_line(), nullptr, false);
    ASSERT_FALSE(answer.is_discarded());
    EXPECT_EQ(answer["store"], store());
    const std::string url = answer["url"];
    const std::uint16_t port = answer["port"];
    EXPECT_EQ(url.find(fmt::format("http://127.0.0.1:{}/?token=", port)), 0) << url;
    EXPECT_EQ(get(port, url.substr(url.find('/', 8))).status, 200);
    EXPECT_EQ(end(signal), 0);
    EXPECT_EQ(get(port, "/").status, 0);
  }
}

// It would wait for ever for somebody who does not know where it is.
TEST_F(ServeCommandTest, EndsQuietlyWhenNobodyReadsTheAddress) {
  save_floats(store(), 1, {{"w", {3, 4}}});
  int ends[2] = {-1, -1};
  ASSERT_EQ(::pipe(ends), 0);
  ::close(ends[0]);
  const FileDescriptor pipe(ends[1]);
  for (const char* const how : {"--no-browser", "--json"}) {
    const CommandResult result = run_stepstone({"serve", store(), how}, pipe.get());
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_EQ(result.error, "");
  }
}

TEST_F(ServeCommandTest, ServesAPortableFileAndTheOneThatTakesItsPlace) {
  save_floats(store(), 1, {{"w", {3, 4}}});
  const std::string file = path("run.stone").string();
  ASSERT_EQ(run_stepstone({"export", store(), "-o", file}).exit_code, 0);
  start({"serve", file, "--json"});
  const json started = json::parse(read_line(), nullptr, false);
  ASSERT_FALSE(started.is_discarded());
  EXPECT_EQ(started["store"], file);
  const std::string url = started["url"];
  const auto ask = [&](const std::string& target) {
    return get(started["port"], target + url.substr(url.find('?')));
  };
  const HttpAnswer page = ask("/");
  EXPECT_EQ(page.status, 200);
  EXPECT_NE(page.body.find("run.stone"), std::string::npos);
  const json data = json::parse(ask("/data").body, nullptr, false);
  EXPECT_EQ(data["live"], true);
  EXPECT_EQ(data["store"]["name"], "run.stone");
  EXPECT_EQ(data["steps"]["step"], json({"1"}));
  const auto norm_of_w = [&](int step) {
    const HttpAnswer answer =
        get(started["port"], fmt::format("/statistics?step={}&item=default&leaf=w&{}", step,
                                         url.substr(url.find('?') + 1)));
    EXPECT_EQ(answer.status, 200) << answer.body;
    return json::parse(answer.body, nullptr, false)["norm"];
  };
  EXPECT_EQ(norm_of_w(1), 5.0);
  // Another file under the same name is another state of the run.
  save_floats(store(), 2, {{"w", {6, 8}}});
  ASSERT_EQ(run_stepstone({"export", store(), "-o", file, "--force"}).exit_code, 0);
  EXPECT_EQ(json::parse(ask("/data").body, nullptr, false)["steps"]["step"], json({"1", "2"}));
  EXPECT_EQ(norm_of_w(2), 10.0);
  EXPECT_EQ(end(SIGINT), 0);
}

TEST_F(ServeCommandTest, TextNamesTheAddressForPeople) {
  save_floats(store(), 1, {{"w", {3, 4}}});
  start({"serve", store(), "--no-browser"});
  EXPECT_EQ(read_line().find("serving " + store() + " at http://127.0.0.1:"), 0);
  EXPECT_EQ(read_line(), "Ctrl-C ends it");
  EXPECT_EQ(end(SIGINT), 0);
}

TEST_F(ServeCommandTest, FailuresSayWhy) {
  const auto expect_failure = [](const std::vector<std::string>& arguments, int exit_code,
                                 std::string_view words) {
    const CommandResult result = run_stepstone(arguments);
    EXPECT_EQ(result.exit_code, exit_code);
    EXPECT_NE(result.error.find(words), std::string::npos) << result.error;
  };
  expect_failure({"serve", path("nowhere")}, 1, "nowhere");
  expect_failure({"serve"}, 2, "STORE");
  expect_failure({"serve", store(), "--port", "0"}, 2, "--port");
  expect_failure({"serve", store(), "--port", "65536"}, 2, "--port");
  const CommandResult json_failure = run_stepstone({"serve", path("nowhere"), "--json"});
  EXPECT_EQ(json::parse(json_failure.output, nullptr, false)["error"]["code"], "not_found");
}

}  // namespace
}  // namespace stepstone::tool
