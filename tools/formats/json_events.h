#pragma once
// Reading a stranger's JSON by its events (nlohmann's SAX interface, which keeps no document and
// does not recurse), so that whatever is nested deeper than it should be, of another type, or there
// twice is refused where it appears.

#include <cstdint>
#include <new>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "format/error.h"

namespace stepstone::tool {

// Nothing here throws by design, but memory can run out, and the reader of a hostile header has to
// say so in an error like any other.
template <typename Handler>
Result<void> parse_events(std::string_view json, Handler& handler) {
  // The parser takes a NUL for the end of its input, and would not look at what is behind it.
  if (const std::size_t nul = json.find('\0'); nul != std::string_view::npos) {
    return fail(ErrorCode::kCorrupt, "not valid JSON at byte " + std::to_string(nul + 1));
  }
  try {
    if (nlohmann::json::sax_parse(json, &handler)) return {};
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kLimit, "not enough memory for the header");
  }
  return tl::unexpected<Error>(handler.take_error());
}

// What the handlers share: refuse everything, with an error that is remembered. Each overrides the
// events that it allows, by hiding them (nlohmann calls the handler's own type).
class RefusingHandler {
 public:
  bool null() { return unexpected("null"); }
  bool boolean(bool /*value*/) { return unexpected("a boolean"); }
  bool number_integer(std::int64_t /*value*/) { return unexpected("a negative number"); }
  bool number_unsigned(std::uint64_t /*value*/) { return unexpected("a number"); }
  bool number_float(double /*value*/, const std::string& /*text*/) {
    return unexpected("a number that is not an integer of 64 bits");
  }
  bool string(std::string& /*value*/) { return unexpected("a string"); }
  bool binary(std::vector<std::uint8_t>& /*value*/) { return unexpected("binary"); }
  bool start_object(std::size_t /*size*/) { return unexpected("an object"); }
  bool key(std::string& /*name*/) { return unexpected("a key"); }
  bool end_object() { return unexpected("the end of an object"); }
  bool start_array(std::size_t /*size*/) { return unexpected("an array"); }
  bool end_array() { return unexpected("the end of an array"); }
  template <typename Exception>
  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const Exception& /*exception*/) {
    return refuse(ErrorCode::kCorrupt, "not valid JSON at byte " + std::to_string(position));
  }

  Error take_error() { return std::move(error_); }

 protected:
  virtual ~RefusingHandler() = default;
  // "in the shape of tensor 'x'".
  virtual std::string place() const = 0;

  bool refuse(ErrorCode code, std::string message) {
    error_ = {code, std::move(message)};
    return false;
  }
  bool unexpected(std::string_view what) {
    return refuse(ErrorCode::kCorrupt, fmt::format("unexpectedly {} {}", what, place()));
  }

 private:
  Error error_ = {ErrorCode::kCorrupt, "not valid JSON"};
};

}  // namespace stepstone::tool
