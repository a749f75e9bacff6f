// Every request passes one gate before it is looked at: it must name this server as its host (a
// page of another origin whose name was made to point here does not) and carry the token.
#include "tools/report/server.h"

#include <fmt/format.h>
#include <httplib.h>

#include <atomic>
#include <charconv>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "engine/store.h"
#include "tools/report/page.h"
#include "tools/report/report_data.h"

namespace stepstone::tool {
namespace {

constexpr const char* kLoopback = "127.0.0.1";
constexpr const char* kJson = "application/json";

int http_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kLimit:
      return 400;
    default:
      return 500;
  }
}

void answer_error(const Error& error, httplib::Response& response) {
  response.status = http_status(error.code);
  const nlohmann::ordered_json answer = {
      {"error", {{"code", to_string(error.code)}, {"message", printable(error.message)}}}};
  response.set_content(answer.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace),
                       kJson);
}

httplib::Headers default_headers() {
  return {{"Cache-Control", "no-store"},
          {"Content-Security-Policy", "frame-ancestors 'none'"},
          {"Cross-Origin-Resource-Policy", "same-origin"},
          {"Referrer-Policy", "no-referrer"},
          {"X-Content-Type-Options", "nosniff"},
          {"X-Frame-Options", "DENY"}};
}

}  // namespace

class ReportServer::Impl {
 public:
  Impl(ServerOptions options, std::string token)
      : options_(std::move(options)), token_(std::move(token)) {}
  ~Impl() {
    server_.stop();
    if (thread_.joinable()) thread_.join();
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  Result<void> start() {
    STEPSTONE_TRY(open_store());
    configure();
    const int port = options_.port != 0
                         ? (server_.bind_to_port(kLoopback, options_.port) ? options_.port : -1)
                         : server_.bind_to_any_port(kLoopback);
    if (port <= 0) {
      return fail(ErrorCode::kBusy,
                  fmt::format("port {} of {} cannot be had; without --port any free one is taken",
                              options_.port, kLoopback));
    }
    port_ = static_cast<std::uint16_t>(port);
    thread_ = std::thread([this] {
      server_.listen_after_bind();
      has_ended_ = true;
    });
    // A stop() before the thread listens would be lost, and its end waited for in vain.
    while (!server_.is_running() && !has_ended_) std::this_thread::yield();
    return {};
  }

  std::uint16_t port() const { return port_; }
  std::string url() const {
    return fmt::format("http://{}:{}/?token={}", kLoopback, port_, token_);
  }

 private:
  using HandlerResponse = httplib::Server::HandlerResponse;

  void configure() {
    constexpr std::size_t kThreadCount = 4;
    constexpr std::size_t kPayloadBytesMax = 4096;
    constexpr time_t kTimeoutSeconds = 5;
    server_.new_task_queue = [] { return new httplib::ThreadPool(kThreadCount); };
    server_.set_payload_max_length(kPayloadBytesMax);
    server_.set_read_timeout(kTimeoutSeconds);
    server_.set_write_timeout(kTimeoutSeconds);
    // How long a connection without a request delays the end.
    server_.set_keep_alive_timeout(1);
    // Not the library's own choice, which would let another program share the port.
    server_.set_socket_options([](socket_t socket) {
      const int yes = 1;
      ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    });
    server_.set_default_headers(default_headers());
    server_.set_pre_routing_handler(
        [this](const httplib::Request& request, httplib::Response& response) {
          if (is_allowed(request)) return HandlerResponse::Unhandled;
          response.status = 403;
          response.set_content("open the address that `stepstone serve` printed\n", "text/plain");
          return HandlerResponse::Handled;
        });
    server_.Get("/", [this](const httplib::Request&, httplib::Response& response) {
      answer(page(), "text/html; charset=utf-8", response);
    });
    server_.Get("/data", [this](const httplib::Request& request, httplib::Response& response) {
      answer(data(request.get_param_value("revision")), kJson, response);
    });
    server_.Get("/statistics",
                [this](const httplib::Request& request, httplib::Response& response) {
                  answer(figures(request), kJson, response);
                });
  }

  bool is_allowed(const httplib::Request& request) const {
    if (request.get_header_value_count("Host") != 1) return false;
    const std::string host = request.get_header_value("Host");
    if (host != fmt::format("{}:{}", kLoopback, port_) &&
        host != fmt::format("localhost:{}", port_)) {
      return false;
    }
    return request.get_param_value_count("token") == 1 &&
           equal_in_constant_time(request.get_param_value("token"), token_);
  }

  static void answer(const Result<std::string>& content, const char* type,
                     httplib::Response& response) {
    if (!content) {
      answer_error(content.error(), response);
    } else if (content->empty()) {
      response.status = 204;
    } else {
      response.set_content(*content, type);
    }
  }

  Result<void> open_store() {
    store_ = STEPSTONE_TRY(Store::open(options_.store, {.read_only = true}));
    return {};
  }

  // As it is now. A store that was opened read-only shows what was there then.
  Result<std::shared_ptr<const Store>> store() {
    const std::lock_guard lock(mutex_);
    if (!store_->is_current()) STEPSTONE_TRY(open_store());
    return store_;
  }

  Result<std::string> report_json(const Store& store) const {
    const ReportData report = STEPSTONE_TRY(
        gather_report(store, {.item = options_.item, .measure = false, .is_live = true}));
    return report.json;
  }

  Result<std::string> page() {
    const auto store = STEPSTONE_TRY(this->store());
    return make_page(STEPSTONE_TRY(report_json(*store)), {.may_connect = true});
  }

  // Nothing if that is what the page has.
  Result<std::string> data(const std::string& known_revision) {
    const auto store = STEPSTONE_TRY(this->store());
    if (revision_of(*store) == known_revision) return std::string();
    return report_json(*store);
  }

  Result<std::string> figures(const httplib::Request& request) {
    const std::string number = request.get_param_value("step");
    std::uint64_t step = 0;
    const char* const end = number.data() + number.size();
    const auto [parsed_end, error] = std::from_chars(number.data(), end, step);
    if (error != std::errc() || parsed_end != end) {
      return fail(ErrorCode::kInvalidArgument, "'" + number + "' is not the number of a step");
    }
    const auto store = STEPSTONE_TRY(this->store());
    return leaf_figures_json(*store, step, request.get_param_value("item"),
                             request.get_param_value("leaf"));
  }

  const ServerOptions options_;
  const std::string token_;
  std::uint16_t port_ = 0;
  std::mutex mutex_;
  std::shared_ptr<const Store> store_;  // Guarded by mutex_.
  httplib::Server server_;
  std::atomic<bool> has_ended_ = false;
  std::thread thread_;
};

Result<std::unique_ptr<ReportServer>> ReportServer::start(const ServerOptions& options) {
  auto impl = std::make_unique<Impl>(options, STEPSTONE_TRY(random_word(24)));
  STEPSTONE_TRY(impl->start());
  return std::unique_ptr<ReportServer>(new ReportServer(std::move(impl)));  // NOLINT: private.
}

ReportServer::ReportServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ReportServer::~ReportServer() = default;

std::uint16_t ReportServer::port() const { return impl_->port(); }
std::string ReportServer::url() const { return impl_->url(); }

}  // namespace stepstone::tool
