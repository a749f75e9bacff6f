#pragma once
// The report's page: one HTML document that holds its style, its script and its data, and needs
// nothing from anywhere else. Its parts are the hand-written files beside this one, which become a
// part of the binary when it is built.

#include <string>
#include <string_view>

#include "format/error.h"

namespace stepstone::tool {

struct PageOptions {
  // Whether the script may ask the server that the page came from; a file may ask nobody.
  bool may_connect = false;
};

// The document around `data_json`, which is put where no text in it can be taken for markup. The
// policy in the page lets no script, style or connection in but the page's own: they carry a
// random word that nothing in a store can know. kIo: no random bytes are to be had.
Result<std::string> make_page(std::string_view data_json, const PageOptions& options);

// `count` random bytes as hexadecimal digits. kIo.
Result<std::string> random_word(std::size_t count);

// Compares in a time that tells nothing about where the two differ.
bool equal_in_constant_time(std::string_view a, std::string_view b);

}  // namespace stepstone::tool
