#include "tools/output.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <ctime>

#include "tools/system.h"

namespace stepstone::tool {
namespace {

// Columns that printable UTF-8 takes on a terminal, wide characters aside.
std::size_t display_width(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

std::size_t terminal_width() {
  struct winsize size = {};
  constexpr std::size_t kDefault = 80;
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kDefault;
  return size.ws_col;
}

}  // namespace

std::string format_size(std::uint64_t size_bytes) {
  constexpr std::array<const char*, 6> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (size_bytes < 1024) return fmt::format("{} B", size_bytes);
  double size = static_cast<double>(size_bytes) / 1024;
  std::size_t unit = 0;
  // 1023.95 would be rounded to "1024.0".
  while (size >= 1023.95 && unit + 1 < kUnits.size()) {
    size /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f} {}", size, kUnits[unit]);
}

std::string format_time(std::int64_t unix_ns) {
  constexpr std::int64_t kNanosecondsPerSecond = 1'000'000'000;
  // Rounded down, also before 1970.
  const std::int64_t seconds =
      unix_ns / kNanosecondsPerSecond - (unix_ns % kNanosecondsPerSecond < 0 ? 1 : 0);
  const std::time_t time = seconds;
  struct tm parts = {};
  ::gmtime_r(&time, &parts);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

std::string format_count(std::uint64_t count, std::string_view singular, std::string_view plural) {
  return fmt::format("{} {}", count, count == 1 ? singular : plural);
}

std::string format_duration(std::chrono::duration<double> duration) {
  const double seconds = duration.count();
  if (seconds < 1) return fmt::format("{:.0f} ms", 1000 * seconds);
  // What does not end is not worth a number.
  constexpr double kLongest = 1e9;
  const auto whole = static_cast<std::uint64_t>(std::min(seconds, kLongest));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
}

std::string format_number(double number, int digits) {
  // No sign on a NaN: its bits say nothing to a reader.
  if (std::isnan(number)) return "nan";
  return fmt::format("{:.{}g}", number, digits);
}

Result<void> Output::write(std::span<const std::byte> bytes) {
  if (is_closed_ || bytes.empty()) return {};
  has_written_ = true;
  const int error = write_fully(STDOUT_FILENO, bytes);
  if (error == EPIPE) {
    is_closed_ = true;
  } else if (error != 0) {
    return tl::unexpected<Error>(system_error(error, "standard output"));
  }
  return {};
}

std::string painted(std::string text, Tone tone, bool color) {
  // In the order of Tone; the sixteen colours that every terminal has, as its user chose them.
  constexpr std::array<std::string_view, 7> kCodes = {"", "1", "36", "2", "32", "33", "31"};
  if (!color || tone == Tone::kPlain || text.empty()) return text;
  return fmt::format("\x1b[{}m{}\x1b[0m", kCodes[static_cast<std::size_t>(tone)], text);
}

bool wants_color(std::string_view when) {
  if (when == "always") return true;
  if (when == "never" || ::isatty(STDOUT_FILENO) != 1) return false;
  const auto value_of = [](const char* name) {
    const char* const value = std::getenv(name);
    return std::string_view(value == nullptr ? "" : value);
  };
  return value_of("NO_COLOR").empty() && value_of("TERM") != "dumb";
}

std::string Table::to_string(bool color) const {
  std::vector<std::size_t> widths;
  for (const Column& column : columns_) widths.push_back(display_width(column.heading));
  for (const std::vector<Cell>& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], display_width(row[i].text));
    }
  }
  std::string text;
  const auto append_cell = [&](std::size_t i, const std::string& cell, Tone tone) {
    const std::size_t padding = widths[i] - display_width(cell);
    if (i != 0) text += "  ";
    if (columns_[i].align == Align::kRight) text.append(padding, ' ');
    text += painted(cell, tone, color);
    if (columns_[i].align == Align::kLeft) text.append(padding, ' ');
    if (i + 1 != columns_.size()) return;
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
  };
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    append_cell(i, columns_[i].heading, Tone::kHeading);
  }
  for (const std::vector<Cell>& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) append_cell(i, row[i].text, row[i].tone);
  }
  return text;
}

Progress::Progress(std::string label)
    : label_(std::move(label)),
      is_terminal_(::isatty(STDERR_FILENO) == 1),
      begun_(Clock::now()),
      drawn_(begun_) {}

Progress::~Progress() {
  if (!is_shown_) return;
  constexpr std::string_view kErase = "\r\x1b[K";
  write_fully(STDERR_FILENO, std::as_bytes(std::span(kErase)));
}

void Progress::update(std::uint64_t done_bytes, std::uint64_t total_bytes) {
  if (!is_terminal_ || total_bytes == 0) return;
  const Clock::time_point now = Clock::now();
  constexpr auto kDelay = std::chrono::seconds(1);
  constexpr auto kInterval = std::chrono::milliseconds(100);
  if (now - begun_ < kDelay || (is_shown_ && now - drawn_ < kInterval)) return;
  is_shown_ = true;
  drawn_ = now;

  const double fraction =
      std::min(1.0, static_cast<double>(done_bytes) / static_cast<double>(total_bytes));
  const double seconds = std::chrono::duration<double>(now - begun_).count();
  const auto rate = static_cast<std::uint64_t>(static_cast<double>(done_bytes) / seconds);
  const std::chrono::duration<double> left(fraction > 0 ? seconds * (1 - fraction) / fraction : 0);
  const std::string figures =
      fmt::format(" {:3.0f}%  {} of {}  {}/s  {} left", 100 * fraction, format_size(done_bytes),
                  format_size(total_bytes), format_size(rate), format_duration(left));
  const std::size_t taken = label_.size() + figures.size() + 4;
  const std::size_t width = terminal_width();
  const std::size_t bar_width = width > taken ? std::min<std::size_t>(width - taken, 40) : 0;
  const auto filled = static_cast<std::size_t>(fraction * static_cast<double>(bar_width));
  const std::string line = fmt::format("\r\x1b[K{} [{}{}]{}", label_, std::string(filled, '#'),
                                       std::string(bar_width - filled, '.'), figures);
  write_fully(STDERR_FILENO, std::as_bytes(std::span(line)));
}

}  // namespace stepstone::tool
