#include "tests/tools/report_support.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "tests/tools/store_support.h"
#include "tools/system.h"

namespace stepstone::tool {

void save_floats(const std::filesystem::path& store, std::uint64_t step,
                 const std::vector<FloatLeaf>& leaves, const std::string& metrics) {
  std::vector<std::pair<std::string, Tree>> children;
  for (const FloatLeaf& leaf : leaves) children.emplace_back(leaf.name, floats(leaf.values));
  save_tree(store, step, Tree::dict(std::move(children)), {.metrics = metrics});
}

HttpAnswer send_to(const std::string& address, std::uint16_t port, std::string_view request,
                   bool ends_there) {
  const FileDescriptor connection(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in place = {};
  place.sin_family = AF_INET;
  place.sin_port = htons(port);
  ::inet_pton(AF_INET, address.c_str(), &place.sin_addr);
  sockaddr generic = {};
  std::memcpy(&generic, &place, sizeof(place));
  if (::connect(connection.get(), &generic, sizeof(generic)) != 0) return {};
  write_fully(connection.get(), std::as_bytes(std::span(request)));
  if (ends_there) ::shutdown(connection.get(), SHUT_WR);
  std::string text;
  char buffer[65536];
  for (;;) {
    const ssize_t count = ::read(connection.get(), buffer, sizeof(buffer));
    if (count <= 0) break;
    text.append(buffer, static_cast<std::size_t>(count));
  }
  HttpAnswer answer;
  const std::size_t end = text.find("\r\n\r\n");
  if (end == std::string::npos) return answer;
  answer.head = text.substr(0, end);
  answer.body = text.substr(end + 4);
  const std::size_t space = answer.head.find(' ');
  answer.status = std::atoi(answer.head.substr(space + 1, 3).c_str());
  return answer;
}

HttpAnswer get(std::uint16_t port, const std::string& target, const std::string& host) {
  const std::string own = fmt::format("127.0.0.1:{}", port);
  return send_to("127.0.0.1", port,
                 fmt::format("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", target,
                             host.empty() ? own : host));
}

}  // namespace stepstone::tool
