#pragma once
// The report's page over HTTP, for one machine and one person: bound to the loopback interface, for
// those who have the token, and read-only. There are three things to ask for: the page (`/`), its
// data (`/data`) and the figures of one leaf in one step (`/statistics`). No path of a request ever
// names a file.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "format/error.h"

namespace stepstone::tool {

struct ServerOptions {
  std::filesystem::path store;
  std::optional<std::string> item;  // Only this one; nullopt: all items.
  std::uint16_t port = 0;           // 0: any that is free.
};

// Answers, from its own threads, until it is destroyed; a request that is being answered is
// finished first. Each answer shows the store as it is then.
class ReportServer {
 public:
  // Errors of opening the store, and kBusy: the port is taken. kIo.
  static Result<std::unique_ptr<ReportServer>> start(const ServerOptions& options);
  ~ReportServer();
  ReportServer(const ReportServer&) = delete;
  ReportServer& operator=(const ReportServer&) = delete;

  std::uint16_t port() const;
  // With the token: to be shown to nobody but who started it.
  std::string url() const;

 private:
  class Impl;
  explicit ReportServer(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace stepstone::tool
