#include "tools/array_slice.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

namespace stepstone::tool {
namespace {

constexpr std::string_view kEllipsis = "...";

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(' ');
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(' ') - begin + 1);
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(trimmed(text.substr(begin, end - begin)));
    begin = end + 1;
  }
  return parts;
}

std::optional<std::int64_t> parse_place(std::string_view text) {
  std::int64_t place = 0;
  const auto [stop, code] = std::from_chars(text.data(), text.data() + text.size(), place);
  if (code != std::errc() || stop != text.data() + text.size()) return std::nullopt;
  return place;
}

// From the end if negative; what lies beyond the axis becomes its end.
std::uint64_t place_in(std::int64_t place, std::uint64_t extent) {
  if (place >= 0) return std::min(static_cast<std::uint64_t>(place), extent);
  // The smallest number has no positive counterpart.
  const std::uint64_t back = static_cast<std::uint64_t>(-(place + 1)) + 1;
  return extent - std::min(back, extent);
}

struct Axis {
  Slice slice;
  bool is_dropped = false;
};

Result<Axis> parse_axis(std::string_view text, std::uint64_t extent) {
  const std::vector<std::string_view> parts = split(text, ':');
  if (parts.size() > 2) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("'{}': slices have no steps here, only begin:end", text));
  }
  std::optional<std::int64_t> places[2];
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].empty() && parts.size() == 2) continue;
    places[i] = parse_place(parts[i]);
    if (!places[i]) {
      return fail(
          ErrorCode::kInvalidArgument,
          fmt::format("'{}' is neither a place, such as 3, nor a range, such as 0:10", text));
    }
  }
  if (parts.size() == 1) {
    const std::int64_t place = *places[0];
    const bool is_inside = place >= 0 ? static_cast<std::uint64_t>(place) < extent
                                      : static_cast<std::uint64_t>(-(place + 1)) < extent;
    if (!is_inside) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("{} is not a place in an axis of {}", text, extent));
    }
    const std::uint64_t begin = place_in(place, extent);
    return Axis{.slice = {begin, begin + 1}, .is_dropped = true};
  }
  const std::uint64_t begin = places[0] ? place_in(*places[0], extent) : 0;
  const std::uint64_t end = places[1] ? place_in(*places[1], extent) : extent;
  return Axis{.slice = {begin, std::max(begin, end)}};
}

}  // namespace

Result<ArraySlice> parse_slice(std::string_view text, Shape shape) {
  std::vector<std::string_view> parts = split(text, ',');
  const auto ellipsis_count = std::count(parts.begin(), parts.end(), kEllipsis);
  const std::size_t named_count = parts.size() - static_cast<std::size_t>(ellipsis_count);
  if (ellipsis_count > 1 || named_count > shape.size()) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("'[{}]' does not fit an array {}", text, to_string(shape)));
  }
  ArraySlice slice;
  const auto add_whole_axes = [&](std::size_t count) {
    for (; count != 0; --count) {
      const std::uint64_t extent = shape[slice.axes.size()];
      slice.axes.push_back({0, extent});
      slice.shape.push_back(extent);
    }
  };
  for (const std::string_view part : parts) {
    if (part == kEllipsis) {
      add_whole_axes(shape.size() - named_count);
      continue;
    }
    const Axis axis = STEPSTONE_TRY(parse_axis(part, shape[slice.axes.size()]));
    slice.axes.push_back(axis.slice);
    if (!axis.is_dropped) slice.shape.push_back(axis.slice.end - axis.slice.begin);
  }
  add_whole_axes(shape.size() - slice.axes.size());
  return slice;
}

}  // namespace stepstone::tool
