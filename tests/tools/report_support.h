#pragma once
// Stores for the tests of report and serve, and a small client.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tests/tools/support.h"

namespace stepstone::tool {

// A leaf of float32.
struct FloatLeaf {
  std::string name;
  std::vector<float> values;
};

// Saves the leaves as a dict, as one more step of the store, with `metrics` as JSON text.
void save_floats(const std::filesystem::path& store, std::uint64_t step,
                 const std::vector<FloatLeaf>& leaves, const std::string& metrics = {});

struct HttpAnswer {
  int status = 0;  // 0: there was no connection or no answer.
  std::string head;
  std::string body;
};

// Sends the bytes as they are to a port of `address` and reads until the other side closes.
// `ends_there`: says that nothing more will come, so that nobody waits for it.
HttpAnswer send_to(const std::string& address, std::uint16_t port, std::string_view request,
                   bool ends_there = false);

// GET with a Host of its own; empty: the one that the address has.
HttpAnswer get(std::uint16_t port, const std::string& target, const std::string& host = {});

}  // namespace stepstone::tool
