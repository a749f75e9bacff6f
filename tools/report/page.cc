#include "tools/report/page.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "tools/report/page_parts.h"
#include "tools/system.h"

namespace stepstone::tool {
namespace {

// In JSON a '<' stands in strings only, where it may as well be written as an escape; without one,
// nothing can close the element that the data stand in.
void append_for_html(std::string& page, std::string_view json) {
  for (const char c : json) {
    if (c == '<') {
      page += "\\u003c";
    } else {
      page += c;
    }
  }
}

}  // namespace

Result<std::string> random_word(std::size_t count) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::array<unsigned char, 64> bytes = {};
  count = std::min(count, bytes.size());
  if (::getrandom(bytes.data(), count, 0) != static_cast<ssize_t>(count)) {
    return tl::unexpected<Error>(system_error(errno, "random bytes"));
  }
  std::string word;
  for (std::size_t i = 0; i < count; ++i) {
    word += kDigits[bytes[i] >> 4];
    word += kDigits[bytes[i] & 0xF];
  }
  return word;
}

bool equal_in_constant_time(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  // Volatile, so that no compiler finds out that it could stop early.
  volatile unsigned difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference = difference | static_cast<unsigned>(static_cast<unsigned char>(a[i]) ^
                                                    static_cast<unsigned char>(b[i]));
  }
  return difference == 0;
}

Result<std::string> make_page(std::string_view data_json, const PageOptions& options) {
  const std::string nonce = STEPSTONE_TRY(random_word(16));
  std::string page;
  page.reserve(data_json.size() + data_json.size() / 64 + (std::size_t{128} << 10));
  // The parts are put in one by one from the front, so that what was put in is never looked at.
  std::string_view rest = page_parts::kHtml;
  for (;;) {
    const std::size_t begin = rest.find("{{");
    page += rest.substr(0, begin);
    if (begin == std::string_view::npos) return page;
    const std::size_t end = rest.find("}}", begin);
    const std::string_view name = rest.substr(begin + 2, end - begin - 2);
    rest.remove_prefix(end + 2);
    if (name == "nonce") page += nonce;
    if (name == "connect") page += options.may_connect ? "'self'" : "'none'";
    if (name == "style") page += page_parts::kStyle;
    if (name == "script") {
      for (const std::string_view script : page_parts::kScripts) page += script;
    }
    if (name == "data") append_for_html(page, data_json);
  }
}

}  // namespace stepstone::tool
