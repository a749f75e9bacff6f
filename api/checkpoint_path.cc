#include "api/checkpoint_path.h"

#include <charconv>
#include <system_error>

namespace stepstone {
namespace {

bool is_file(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error);
}

// Nothing but a store can be meant where there is something below a file.
bool is_store(const std::filesystem::path& path) { return is_file(path / "HEAD") || is_file(path); }

// Without a slash at the end, and with all the directories above.
std::filesystem::path whole_path(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::path whole = std::filesystem::absolute(path, error).lexically_normal();
  if (error) whole = path;
  return whole.has_filename() ? whole : whole.parent_path();
}

}  // namespace

std::optional<std::uint64_t> step_of_name(std::string_view name) {
  const std::size_t underscore = name.rfind('_');
  const std::string_view digits =
      underscore == std::string_view::npos ? name : name.substr(underscore + 1);
  std::uint64_t step = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return step;
}

CheckpointPath resolve_checkpoint_path(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::exists(path, error)) return {path, {}, {}};
  const std::filesystem::path whole = whole_path(path);
  const std::filesystem::path above = whole.parent_path();
  if (is_store(above)) {
    if (const auto step = step_of_name(whole.filename().string())) return {above, step, {}};
    return {above, {}, whole.filename().string()};
  }
  const auto step = step_of_name(above.filename().string());
  if (step && is_store(above.parent_path())) {
    return {above.parent_path(), step, whole.filename().string()};
  }
  return {path, {}, {}};
}

bool is_portable_path(const std::filesystem::path& path) {
  std::error_code error;
  return whole_path(path).extension() == ".stone" && !std::filesystem::is_directory(path, error);
}

Result<void> check_is_single(const std::filesystem::path& path,
                             const std::vector<std::uint64_t>& steps) {
  if (steps.empty() || steps == std::vector<std::uint64_t>{kOnlyStep}) return {};
  return fail(ErrorCode::kInvalidArgument,
              path.string() +
                  " holds a run of steps: use a CheckpointManager there, or name one "
                  "step to read: " +
                  (path / std::to_string(steps.back())).string());
}

Result<OpenCheckpoint> open_checkpoint(const std::filesystem::path& path) {
  CheckpointPath resolved = resolve_checkpoint_path(path);
  OpenCheckpoint open{
      .store = STEPSTONE_TRY(SharedStore::open(resolved.store, {.read_only = true})),
      .reader = nullptr,
      .item = std::move(resolved.item)};
  const std::vector<std::uint64_t> steps = open.store->steps();
  if (!resolved.step) {
    if (steps.empty()) {
      return fail(ErrorCode::kNotFound,
                  resolved.store.string() + ": no checkpoint was completed there");
    }
    resolved.step = is_file(resolved.store) && steps.size() == 1 ? steps.front() : kOnlyStep;
    if (steps != std::vector<std::uint64_t>{*resolved.step}) {
      STEPSTONE_TRY(check_is_single(resolved.store, steps));
    }
  }
  open.reader =
      STEPSTONE_TRY_CONTEXT(open.store->read_step(*resolved.step), resolved.store.string());
  return open;
}

Result<void> check_not_in_store(const std::filesystem::path& path) {
  const std::filesystem::path whole = whole_path(path);
  for (std::filesystem::path above = whole.parent_path(); above != above.root_path();
       above = above.parent_path()) {
    if (!is_store(above)) continue;
    return fail(ErrorCode::kInvalidArgument,
                path.string() + " is inside the store " + above.string() +
                    ": save a step there with a CheckpointManager, or choose another path");
  }
  return {};
}

}  // namespace stepstone
