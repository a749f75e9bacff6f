#include "api/json_text.h"

#include "api/json.h"

namespace stepstone {

Result<std::string> JsonText::text() const {
  if (tree_) return to_json(*tree_);
  if (text_.empty()) return std::string();
  const Result<Tree> parsed = from_json(text_);
  if (!parsed) return fail(ErrorCode::kInvalidArgument, parsed.error().message);
  return text_;
}

}  // namespace stepstone
