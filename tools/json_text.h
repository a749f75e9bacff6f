#pragma once
// JSON strings as text, where building a document in memory first would be the wrong way round.

#include <string>
#include <string_view>

namespace stepstone::tool {

// Appends `text` as a JSON string, quotes included, with the fewest escapes: those that JSON
// demands. False, and `json` as it was: `text` is not UTF-8, so that no JSON string can stand for
// it.
bool append_json_string(std::string& json, std::string_view text);

}  // namespace stepstone::tool
